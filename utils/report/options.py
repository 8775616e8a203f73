"""The options of post_eval.py."""

from dataclasses import dataclass
from typing import Literal

from utils.cli.options import PLACE, PLACES, CommonOptions, Need, option
from utils.data.corpus_load import DEFAULT_CORPUS

# The name of filtered results, unless they are given another.
FILTERED = "filtered"
# Headings of options in --help.
FIGURES, STATISTICS, REPORT = "figures", "statistics", "report"
LABELS = "labels of a corpus"
CFM, TVE = "confusion matrices", "train-vs-eval matrices"


@dataclass(kw_only=True)
class PostEvalOptions(CommonOptions):
    """The options of post_eval.py."""

    output_dir: str = option(
        "outputs",
        "folder with the results, one folder per model",
        role=PLACE,
        group=PLACES,
        aliases=["--base_dir", "--base-dir"],
        metavar="DIR",
    )
    subfolder: str | None = option(
        None, "folder below it, as given to finetune.py", role=PLACE, group=PLACES, metavar="FOLDER"
    )
    corpus_path: str = option(
        DEFAULT_CORPUS,
        "register corpus with the names of languages and registers",
        role=PLACE,
        group=PLACES,
        env="CORPUS_PATH",
        metavar="DIR",
    )
    predictions: str | None = option(
        None,
        "count the labels that predict.py has written in this folder, instead of evaluations",
        role=PLACE,
        group=LABELS,
        metavar="DIR",
    )
    format: list[str] | None = option(
        None,
        "file formats of the figures; without it png, or pdf for --style paper",
        group=FIGURES,
        choices=("png", "pdf", "svg"),
    )
    style: Literal["screen", "paper"] = option(
        "screen",
        "paper: small type, panels with shared labels, as wide as a column or a page (7.7 or 16 cm)",
        group=FIGURES,
    )
    name: str | None = option(
        None, f"what the files of filtered results are called; without it {FILTERED}", group=FIGURES, metavar="NAME"
    )
    compare: list[str] | None = option(
        None,
        "test whether these runs, [SUBFOLDER/]MODEL-LANGS, differ on the same texts",
        group=STATISTICS,
        metavar="NAME",
    )
    seeds: bool = option(
        False, "mean and standard deviation of runs in subfolders that differ by their seed alone", group=STATISTICS
    )
    ranks: bool = option(
        False,
        "mean ranks of all runs over the languages that all were evaluated on, and which of them differ: ranks.png",
        group=STATISTICS,
    )
    calibration: bool = option(
        False, "expected calibration error and reliability diagrams, from the predictions", group=STATISTICS
    )
    checklist: bool = option(
        False,
        "write checklist.md: what the reproducibility checklist of ACL venues asks, from the records",
        group=STATISTICS,
    )
    ignore_report: bool = option(False, "write no report.html", group=REPORT)
    show_texts: bool = option(
        False,
        "put misclassified texts into the report, and those that explain.py has kept; mind whom you give it to",
        group=REPORT,
        needs=Need("ignore_report", False, "puts texts into the report, which --ignore_report leaves out"),
    )
    ignore_cfm: bool = option(False, "draw no confusion matrices", group=CFM)
    cfm_ignore_summary: bool = option(False, "leave out the panel with the registers of the training texts", group=CFM)
    cfm_models: list[str] | None = option(None, "only of these models", group=CFM, metavar="MODEL")
    cfm_train_langs: list[str] | None = option(
        None, "only of these training languages (en-fr is one)", group=CFM, metavar="LANGS"
    )
    cfm_eval_langs: list[str] | None = option(None, "only panels of these languages", group=CFM, metavar="LANG")
    ignore_tve: bool = option(False, "draw no train-vs-eval matrices", group=TVE)
    tve_models: list[str] | None = option(None, "only of these models", group=TVE, metavar="MODEL")
    tve_metrics: list[str] | None = option(
        None, "metrics to draw; without it micro_f1 and macro_f1", group=TVE, metavar="METRIC"
    )
    tve_train_langs: list[str] | None = option(None, "only these rows", group=TVE, metavar="LANGS")
    tve_eval_langs: list[str] | None = option(None, "only these columns", group=TVE, metavar="LANG")
