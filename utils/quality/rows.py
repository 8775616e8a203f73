"""All texts of a corpus as rows: where they are, their labels, and what was measured of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.cli.progress import progress
from utils.data.source import TextSource
from utils.quality.measure import BATCH, PROBLEMS, Measured, measure_all

TRAIN, TEST = "train", "test"


@dataclass
class Rows:
    """The texts of a corpus, language by language, training texts first.

    Attributes:
        langs: language of every text, shape [texts].
        in_training: whether it is a training text, shape [texts].
        numbers: of the rows in their files, from 1, shape [texts].
        labels: the label of every text, or its labels with blanks between them.
        measured: of every text.
    """

    langs: np.ndarray
    in_training: np.ndarray
    numbers: np.ndarray
    labels: list[str]
    measured: Measured

    def __len__(self) -> int:
        return len(self.langs)

    def place(self, row: int) -> dict[str, Any]:
        """Return where a text is: language, split, and number of the row, from 1."""
        split = TRAIN if self.in_training[row] else TEST
        return {"language": str(self.langs[row]), "split": split, "row": int(self.numbers[row])}

    def of(self, lang: str, split: str) -> np.ndarray:
        """Return the indices of the texts of a language and split."""
        return np.flatnonzero((self.langs == lang) & (self.in_training == (split == TRAIN)))

    def problems(self, row: int) -> list[str]:
        """Return what is wrong with a text, see `PROBLEMS`."""
        return [name for bit, name in enumerate(PROBLEMS) if int(self.measured.problems[row]) >> bit & 1]


def read_rows(texts: TextSource, langs: list[str], workers: int | None) -> Rows:
    """Read and measure the texts of languages, a file after the other.

    Args:
        texts: where they are.
        langs: languages; one may have texts in one split alone.
        workers: see `measure_all`.
    """
    known = {split: texts.languages(split) for split in (TRAIN, TEST)}
    files = [(lang, split) for lang in langs for split in known if lang in known[split]]
    labels: list[str] = []
    counts: list[int] = []

    def batches() -> Iterator[tuple[list[str], str]]:
        for lang, split in files:
            loaded = texts.load(split, lang, " ")
            labels.extend(label_texts(loaded["label"][:], texts.label_names([lang])))
            counts.append(len(loaded))
            for start in range(0, len(loaded), BATCH):
                yield loaded[start : start + BATCH]["text"], lang

    measured = []
    with progress(desc="reading", unit="text") as bar:
        for part in measure_all(batches(), workers):
            measured.append(part)
            bar.update(len(part.hashes))
    return Rows(
        langs=np.repeat([lang for lang, _ in files], counts),
        in_training=np.repeat([split == TRAIN for _, split in files], counts),
        numbers=np.concatenate([np.arange(1, count + 1) for count in counts]),
        labels=labels,
        measured=joined(measured),
    )


def label_texts(labels: list[Any], names: list[str]) -> list[str]:
    """Return the names of labels that are numbers; of several, given as 0 and 1, with blanks between them."""
    if labels and isinstance(labels[0], list):
        return [" ".join(name for name, has in zip(names, own, strict=True) if has) for own in labels]
    return [names[label] for label in labels]


def joined(parts: list[Measured]) -> Measured:
    """Return what was measured of several batches as of one."""
    return Measured(
        hashes=np.concatenate([part.hashes for part in parts]),
        characters=np.concatenate([part.characters for part in parts]),
        problems=np.concatenate([part.problems for part in parts]),
        runs=[own for part in parts for own in part.runs],
        signatures=np.concatenate([part.signatures for part in parts]),
        beginnings=[own for part in parts for own in part.beginnings],
    )
