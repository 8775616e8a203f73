"""The table and the plots of an Optuna study."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from utils.runs.files import atomic_path
from utils.training.study import StudySettings

if TYPE_CHECKING:
    import optuna

PLOTS = (
    "plot_optimization_history", "plot_intermediate_values", "plot_parallel_coordinate", "plot_contour",
    "plot_slice", "plot_param_importances", "plot_edf", "plot_rank", "plot_timeline",
)  # fmt: skip


def write_results(study: "optuna.Study", settings: StudySettings, table: Path, plots: Path) -> str:
    """Write a study's trials as a gzipped CSV table and its plots as a PDF; return a summary for the user."""
    from optuna.trial import TrialState

    columns = ("number", "value", "params", "state", "datetime_start", "datetime_complete", "duration")
    frame = study.trials_dataframe(attrs=columns)
    frame.columns = [name.removeprefix("params_") for name in frame.columns]
    with atomic_path(table) as temporary:
        frame.to_csv(temporary, index=False, compression={"method": "gzip", "mtime": 0})
    with atomic_path(plots) as temporary:
        missing = list(_draw(study, temporary))
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    counts = ", ".join(f"{states.count(state)} {state.name.lower()}" for state in TrialState if state in states)
    lines = [f"study {settings.name} in {settings.journal}: {counts}"]
    if TrialState.COMPLETE in states:
        best = study.best_trial
        chosen = ", ".join(f"{name} {value}" for name, value in best.params.items())
        lines.append(f"best trial {best.number}: {settings.metric} {best.value:.6g} with {chosen}")
    lines += [f"trials   {table}", f"plots    {plots}"]
    lines += [f"not drawn: {reason}" for reason in missing]
    return "\n".join(lines)


def _draw(study: "optuna.Study", path: Path) -> Iterator[str]:
    """Draw the plots, each on a page of its own; yield those that need more or other trials."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.backends.backend_pdf import PdfPages
    from optuna.visualization import matplotlib as visualization

    with PdfPages(path) as pages, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in PLOTS:
            try:
                getattr(visualization, name)(study)
                pyplot.gcf().set_size_inches(9, 6)
                pages.savefig(bbox_inches="tight")
            except Exception as error:
                # A plot that Optuna cannot make of these trials must not cost the others.
                yield f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            finally:
                pyplot.close("all")
        if not pages.get_pagecount():
            pages.savefig(pyplot.figure())
