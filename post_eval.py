"""Draw confusion matrices and train-vs-eval matrices of all evaluated models, and write one table of all metrics.

    python post_eval.py
    python post_eval.py --base_dir outputs/balanced --format png pdf
    python post_eval.py --ignore_cfm --tve_models xlmr --tve_metrics macro_f1 --tve_eval_langs en fr tr

Reads MODEL-LANGS/eval/*.json below the base folder. Writes cfm.png beside each model's results, and tve.png
and summary.csv in the base folder. Existing figures are drawn anew.
"""

from dataclasses import dataclass
from pathlib import Path

from utils.errors import run_script
from utils.layout import atomic_path
from utils.options import CommonOptions, option, parse_options


@dataclass(kw_only=True)
class PostEvalOptions(CommonOptions):
    """The options of post_eval.py."""

    output_dir: str = option(
        "outputs", "folder with the results, one folder per model", aliases=["--base_dir", "--base-dir"], metavar="DIR"
    )
    subfolder: str | None = option(None, "folder below it, as given to finetune.py")
    format: list[str] = option(["png"], "file formats of the figures", choices=("png", "pdf", "svg"))
    ignore_cfm: bool = option(False, "draw no confusion matrices")
    cfm_ignore_summary: bool = option(False, "leave out the panel with the registers of the training texts")
    cfm_models: list[str] | None = option(None, "confusion matrices of these models only", metavar="MODEL")
    cfm_train_langs: list[str] | None = option(
        None, "... of these training languages only (en-fr is one)", metavar="LANGS"
    )
    cfm_eval_langs: list[str] | None = option(None, "... with panels of these languages only", metavar="LANG")
    ignore_tve: bool = option(False, "draw no train-vs-eval matrices")
    tve_models: list[str] | None = option(None, "train-vs-eval matrices of these models only", metavar="MODEL")
    tve_metrics: list[str] | None = option(None, "metrics to draw; without it micro_f1 and macro_f1", metavar="METRIC")
    tve_train_langs: list[str] | None = option(None, "rows of these training languages only", metavar="LANGS")
    tve_eval_langs: list[str] | None = option(None, "columns of these evaluation languages only", metavar="LANG")


def main() -> int:
    """Run the script; returns its exit status."""
    options = parse_options(PostEvalOptions, __doc__)

    import pandas as pd

    from utils.cfm import confusion_figure, select_matrices
    from utils.figures import save_figure
    from utils.results import load_results, tidy_table
    from utils.tve import select_grid, train_vs_eval_figure

    base_dir = Path(options.output_dir) / (options.subfolder or "")
    runs = load_results(base_dir)
    # Every filter is checked before anything is drawn.
    matrices = select_matrices(runs, options.cfm_models, options.cfm_train_langs, options.cfm_eval_langs)
    grid = select_grid(runs, options.tve_models, options.tve_metrics, options.tve_train_langs, options.tve_eval_langs)
    written = []
    for run, langs in [] if options.ignore_cfm else matrices:
        figure = confusion_figure(run, langs, options.cfm_ignore_summary)
        written += save_figure(figure, run.folder / "cfm", options.format)
    if not options.ignore_tve:
        written += save_figure(train_vs_eval_figure(runs, grid), base_dir / "tve", options.format)
    table = base_dir / "summary.csv"
    with atomic_path(table) as temporary:
        pd.DataFrame(tidy_table(runs)).to_csv(temporary, index=False, lineterminator="\n")
    evaluations = sum(len(run.evaluations) for run in runs)
    print(f"{len(runs)} models, {evaluations} evaluations")
    for path in [*written, table]:
        print(path)
    return 0


if __name__ == "__main__":
    run_script(main)
