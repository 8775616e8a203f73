"""The table and the plots of an Optuna study."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.evaluation.rankings import describe_expected, expected_validation
from utils.figures.style import new_figure
from utils.runs.files import atomic_path
from utils.training.study import StudySettings

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

# From the largest to the smallest value, from where on an axis is logarithmic.
LONG_RANGE = 50
PLOTS = (
    "plot_optimization_history", "plot_intermediate_values", "plot_parallel_coordinate", "plot_contour",
    "plot_slice", "plot_param_importances", "plot_edf", "plot_rank", "plot_timeline",
)  # fmt: skip


def write_results(study: "optuna.Study", settings: StudySettings, table: Path, plots: Path) -> str:
    """Write a study's trials as a gzipped CSV table and its plots as a PDF; return a summary for the user."""
    from optuna.study import StudyDirection
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
    lines = [f"study {settings.name} in {settings.place}: {counts}"]
    if TrialState.COMPLETE in states:
        best = study.best_trial
        chosen = ", ".join(f"{name} {value}" for name, value in best.params.items())
        lines.append(f"best trial {best.number}: {settings.metric} {best.value:.6g} with {chosen}")
        lines.append(describe_expected(_values(study), study.direction == StudyDirection.MAXIMIZE))
    lines += [f"trials   {table}", f"plots    {plots}"]
    lines += [f"not drawn: {reason}" for reason in missing]
    return "\n".join(lines)


def _values(study: "optuna.Study") -> list[float]:
    """Return the scores of the complete trials, in their order."""
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [float(trial.value) for trial in complete if trial.value is not None]


def _draw_expected(study: "optuna.Study") -> "Figure | None":
    """Return the curve of the best score to be expected of so many trials; None without trials."""
    from optuna.study import StudyDirection

    values = _values(study)
    if not values:
        return None
    sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
    figure = new_figure(9, 6)
    axes = figure.add_axes((0.1, 0.1, 0.85, 0.8))
    axes.plot(range(1, len(values) + 1), sign * expected_validation(sign * np.array(values)), marker="o", markersize=3)
    axes.set_xlabel("trials")
    axes.set_ylabel("expected best value")
    axes.set_title("Expected validation performance (Dodge et al. 2019)")
    return figure


def _restyle(figure: "Figure") -> bool:
    """Give one of Optuna's figures the look of the others, and long ranges logarithmic axes; False if it is empty."""
    for axes in figure.axes:
        axes.set_facecolor("white")
        if axes.get_label() != "<colorbar>":
            axes.grid(visible=True, color="#dddddd", linewidth=0.5)
        for legend in (axes.get_legend(), *figure.legends):
            if legend is not None:
                legend.get_frame().set(facecolor="white", edgecolor="#dddddd")
        for spine in axes.spines.values():
            spine.set(visible=True, color="black", linewidth=0.8)
        axes.tick_params(colors="black")
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
            text.set_color("black")
        for name in ("x", "y"):
            low, high = sorted(getattr(axes.dataLim, f"interval{name}"))
            axis = getattr(axes, f"{name}axis")
            if axis.get_scale() == "linear" and low > 0 and high > LONG_RANGE * low and not axis.units:
                getattr(axes, f"set_{name}scale")("log")
    return any(axes.has_data() for axes in figure.axes)


def _draw(study: "optuna.Study", path: Path) -> Iterator[str]:
    """Draw the plots, each on a page of its own; yield those that need more or other trials."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.backends.backend_pdf import PdfPages
    from optuna.visualization import matplotlib as visualization

    # Optuna sets a style for all that is drawn later. One kind of fonts for all pages, to the end of the file, or
    # readers show the texts of some of them alone.
    style = pyplot.style.context(["default", {"pdf.fonttype": 42}])
    with style, PdfPages(path) as pages, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = _draw_expected(study)
        for name in PLOTS:
            try:
                getattr(visualization, name)(study)
                figure = pyplot.gcf()
                if _restyle(figure):
                    figure.set_size_inches(9, 6)
                    pages.savefig(bbox_inches="tight")
            except Exception as error:
                # A plot that Optuna cannot make of these trials must not cost the others.
                yield f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            finally:
                pyplot.close("all")
        if expected is not None:
            pages.savefig(expected)
        if not pages.get_pagecount():
            pages.savefig(pyplot.figure())
