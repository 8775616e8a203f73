"""From a table, a folder per register or a dataset of the hub to the layout of register-corpus.

A language is written whole or not at all: what is wrong with a row is said before the first file is touched.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.data.corpus_load import open_corpus, read_info
from utils.data.dataset_files import SUFFIXES, DatasetSource, load_split, read_file, split_names
from utils.data.delimited import read_utf8, write_rows
from utils.data.hub import local_or_hub
from utils.errors import UserError, nearest
from utils.runs.files import atomic_path, write_json

if TYPE_CHECKING:
    import datasets

TRAIN, TEST = "train", "test"


@dataclass
class Texts:
    """Texts with their labels, and where each comes from, for messages.

    Attributes:
        texts: as they are written.
        labels: abbreviations of the registers of each text.
        names: what the registers are called, by abbreviation, in the order in which they were found.
    """

    texts: list[str] = field(default_factory=list)
    labels: list[list[str]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, text: Any, names: Sequence[Any], place: str) -> None:
        """Add a text with the names of its registers.

        Raises:
            UserError: naming the place, if there is no text or no register.
        """
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{place}: no text")
        found = [str(name).strip() for name in names if name is not None]
        if not found or "" in found:
            raise UserError(f"{place}: no register")
        own = [re.sub(r"\s+", "-", name) for name in found]
        for abbreviation, name in zip(own, found, strict=True):
            if self.names.setdefault(abbreviation, name) != name:
                raise UserError(f"{place}: {name!r} and {self.names[abbreviation]!r} would both become {abbreviation}")
        self.texts.append(text)
        self.labels.append(own)


def read_texts(given: str, text_column: str, register_column: str) -> dict[str, Texts]:
    """Read what is to be converted; returns the splits, of which "test" may be missing.

    Args:
        given: a table, a folder with a folder of .txt files for each register, a folder with train and test files,
            or the id of a dataset of the hub.
        text_column: of tables, with the text.
        register_column: of tables, with the register, or a list of them.

    Raises:
        UserError: for a row without text or register, with its place; and if nothing is there.
    """
    path = Path(given).expanduser()
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise UserError(f"{path}: expected a file of one of the types {', '.join(SUFFIXES)}, or a folder")
        return {TRAIN: _of_table(read_file(path), text_column, register_column, str(path))}
    if path.is_dir() and any(path.glob("*/*.txt")):
        return {TRAIN: _of_folders(path)}
    if not path.exists() and (path.suffix in SUFFIXES or "/" not in given):
        raise UserError(f"{path} does not exist; a dataset of the hub is called OWNER/NAME")
    source = DatasetSource(local_or_hub(Path.cwd() / "here", given))
    splits = [TRAIN, TEST] if TEST in split_names(source) else [TRAIN]
    return {
        split: _of_table(load_split(source, split), text_column, register_column, f"{given}, {split}")
        for split in splits
    }


def _of_table(rows: "datasets.Dataset", text_column: str, register_column: str, place: str) -> Texts:
    import datasets

    for column in (text_column, register_column):
        if column not in rows.column_names:
            raise UserError(f"{place}: no column {column!r}{nearest(column, rows.column_names)}")
    feature = rows.features[register_column]
    feature = getattr(feature, "feature", feature)
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    found = Texts()
    for number, (text, value) in enumerate(zip(rows[text_column][:], rows[register_column][:], strict=True), 1):
        own = value if isinstance(value, list) else [value]
        found.add(text, [names[label] if names else label for label in own], f"{place}, row {number}")
    return found


def _of_folders(folder: Path) -> Texts:
    found = Texts()
    for path in sorted(folder.glob("*/*.txt")):
        found.add(read_utf8(path).removesuffix("\n"), [path.parent.name], str(path))
    return found


def split_test(texts: Texts, share: float, seed: int) -> dict[str, Texts]:
    """Return training and test texts, stratified by register; equal texts are on one side.

    Args:
        texts: all of them.
        share: of the texts for the test, or their number.
        seed: of the choice.

    Raises:
        UserError: if there are too few texts.
    """
    import numpy as np

    from utils.data.splits import split_validation
    from utils.data.twins import hash_texts

    places = {name: place for place, name in enumerate(texts.names)}
    labels = np.array([places[own[0]] for own in texts.labels])
    if max(map(len, texts.labels)) > 1:
        labels = np.array([[int(name in own) for name in places] for own in texts.labels])
    try:
        parts = split_validation(labels, np.zeros(len(labels)), share, seed, hash_texts(texts.texts))
    except UserError as error:
        raise UserError(str(error).replace("--validation_size", "--test_size").replace("validation", "test")) from None
    return {
        name: Texts([texts.texts[row] for row in rows], [texts.labels[row] for row in rows], texts.names)
        for name, rows in zip((TRAIN, TEST), parts, strict=True)
    }


def write_language(root: Path, lang: str, language_name: str, splits: dict[str, Texts], force: bool) -> list[Path]:
    """Write a language's files to a corpus, which is made if it is not there; returns the paths.

    Registers that the corpus does not have yet are added behind the others.

    Raises:
        UserError: if the language is there and `force` is False.
    """
    files = {split: root / "corpus" / split / f"{lang}.tsv" for split in splits}
    there = [path for path in files.values() if path.exists()]
    if there and not force:
        raise UserError(f"{there[0]} is there already; --force replaces it")
    corpus = open_corpus(str(root)) if (root / "info").is_dir() else None
    registers_file = root / "info" / "reg_abbv.json"
    registers: dict[str, Any] = read_info(registers_file) if corpus else {}
    known = corpus.scheme.names if corpus else {}
    for texts in splits.values():
        registers |= {name: title for name, title in sorted(texts.names.items()) if name not in {**known, **registers}}
    names = {**(corpus.language_names if corpus else {}), lang: language_name}
    info = {registers_file: registers, root / "info" / "lang2name.json": names}
    # First, so that no file ever holds a register that the corpus does not know.
    for path, content in info.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    for split, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = splits[split]
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            rows = zip((" ".join(own) for own in texts.labels), texts.texts, strict=True)
            write_rows(file, rows, delimiter="\t")
    return [*files.values(), *info]


def describe(splits: dict[str, Texts]) -> list[str]:
    """Return the lines of a table: texts of each register, by split."""
    counts = {split: Counter(name for own in texts.labels for name in own) for split, texts in splits.items()}
    names = sorted({name for count in counts.values() for name in count})
    width = max(len("register"), *map(len, names))
    lines = [f"{'register':{width}}  " + "  ".join(f"{split:>7}" for split in splits)]
    lines += [f"{name:{width}}  " + "  ".join(f"{counts[split][name]:7,}" for split in splits) for name in names]
    return [*lines, f"{'texts':{width}}  " + "  ".join(f"{len(texts.texts):7,}" for texts in splits.values())]
