"""Where texts come from: a register corpus, or the datasets of a task; both have the interface of `TextSource`."""

from typing import TYPE_CHECKING, Any, Protocol

from utils.data.corpus_load import LabelsOption, open_corpus
from utils.data.language_database import ModelType, open_task
from utils.errors import UserError

if TYPE_CHECKING:
    import datasets


class TextSource(Protocol):
    """Texts with labels, by language and split ("train" or "test")."""

    @property
    def name(self) -> str:
        """Where the texts come from, for run.json."""

    @property
    def multilabel(self) -> bool:
        """Whether a text may have several labels."""

    @property
    def subregisters(self) -> dict[str, list[str]]:
        """The labels that stand under others, by these."""

    def with_labels(self, labels: LabelsOption, langs: list[str]) -> "TextSource":
        """Return the texts with labels as --labels wants them; of auto, what these languages are trained on decides."""

    def as_labelled(self, multilabel: bool, labels: list[str]) -> "TextSource":
        """Return the texts with labels as a model gives them.

        Args:
            multilabel: whether it gives any number of them.
            labels: that it knows.
        """

    def languages(self, split: str) -> list[str]:
        """Return the languages that have texts in this split, sorted."""

    def require(self, split: str, langs: list[str]) -> None:
        """Raise a `UserError` unless these languages have texts in this split."""

    def label_names(self, langs: list[str]) -> list[str]:
        """Return the names of the labels of these languages, in the order of the labels."""

    def load(self, split: str, lang: str, separator: str) -> "datasets.Dataset":
        """Load one language as a dataset with the columns text, label and lang.

        The label is an index into `label_names`; where a text may have several, 0 or 1 for each of them.
        """

    def clusters(self, split: str, lang: str) -> list[str] | None:
        """Return which texts belong together, as the third column of their file says; None without one."""

    def provenance(self, split: str, langs: list[str]) -> list[dict[str, Any]]:
        """Return where the texts of these languages are, with their SHA-256, for run.json."""


class SourceOptions(Protocol):
    """The options that say where texts come from; scripts declare them."""

    corpus_path: str
    task: str | None
    language_database: str | None
    dataset: list[str] | None
    model_type: ModelType | None


def open_texts(options: SourceOptions, langs: list[str] | None) -> TextSource:
    """Open the register corpus or the task's datasets.

    Args:
        options: of the script.
        langs: languages that a task must have; None is all that have it.

    Raises:
        UserError: if they are not there, or options contradict each other.
    """
    if options.task is None:
        for name in ("language_database", "dataset"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} is for --task, which is not given; the register corpus needs neither")
        if options.model_type == "ipa":
            raise UserError("--model_type ipa is for --task, which is not given; the register corpus has no phonemes")
        return open_corpus(options.corpus_path)
    return open_task(
        options.task,
        langs,
        names=options.dataset,
        model_type=options.model_type or "normal",
        path=options.language_database,
    )
