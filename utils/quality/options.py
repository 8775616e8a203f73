"""The options of check_corpus.py."""

from dataclasses import dataclass
from typing import ClassVar

from utils.cli.options import DATA, EFFORT, GIVEN, MEMORY, MODEL, PLACE, CommonOptions, Need, option
from utils.data.language_database import TextOptions
from utils.models.options import CacheOptions
from utils.models.registry import RegistryOptions

# Headings in --help.
DUPLICATES, LABELS = "duplicates", "labels"
WITH_MODEL = Need("with_model", GIVEN, "is for --with_model")
SUBMITTED = Need("submit", True, "is for --submit")


@dataclass(kw_only=True)
class CheckOptions(TextOptions, RegistryOptions, CacheOptions, CommonOptions):
    """The options of check_corpus.py."""

    GROUP: ClassVar[str] = DATA
    GROUP_TITLES: ClassVar[dict[str, str]] = {DATA: "which texts", MODEL: "lengths in tokens"}

    langs: list[str] | None = option(None, "languages to check; without it all", metavar="LANG")
    near: float = option(
        0.8,
        "texts count as nearly equal from this share of common runs of five words on (Jaccard similarity)",
        group=DUPLICATES,
        minimum=0.3,
        maximum=1,
    )
    with_model: str | None = option(
        None,
        "doubt labels by this trained model (MODEL-LANGS), which is trained anew without each fold in turn; "
        "without it by those of TF-IDF and logistic regression",
        group=LABELS,
        metavar="RUN",
    )
    subfolder: str | None = option(
        None,
        "folder below outputs/ that the model of --with_model was trained in",
        role=PLACE,
        group=LABELS,
        metavar="FOLDER",
        needs=WITH_MODEL,
    )
    folds: int = option(
        5, "parts of the texts, each judged by a model of the others", group=LABELS, minimum=2, maximum=100
    )
    submit: bool = option(False, "train the folds as Slurm jobs, and end", role=EFFORT, group=LABELS, needs=WITH_MODEL)
    status: bool = option(False, "print a table of these jobs, and end", role=EFFORT, group=LABELS, needs=WITH_MODEL)
    gpus: int = option(1, "GPUs of a job", role=EFFORT, group=LABELS, minimum=0, needs=SUBMITTED)
    timeout: str = option("24:00:00", "time limit of a job", role=EFFORT, group=LABELS, metavar="TIME", needs=SUBMITTED)
    prune: float | None = option(
        None,
        "write excluded.jsonl: this share of the training rows, those with the most doubtful labels",
        group=LABELS,
        above=0,
        below=1,
        metavar="SHARE",
    )
    model_name: str | None = option(
        None, "also count tokens, as this model of the registry does", group=MODEL, metavar="NAME"
    )
    num_workers: int | None = option(
        None,
        "processes that read texts; without it one per processor",
        role=EFFORT,
        group=MEMORY,
        minimum=1,
        metavar="N",
    )
