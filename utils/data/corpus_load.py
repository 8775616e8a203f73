"""Reads the layout of github.com/ahar7911/register-corpus: texts, labels, ordered register names.

    info/reg_abbv.json            abbreviation -> register, in the order of the labels
    info/lang2name.json           abbreviation -> language
    corpus/{train,test}/LANG.tsv  register <tab> text; no header; quoted as Python's csv module quotes

A text and its label stay in one row from the file to the batch: everything that mixes, splits or cuts
works on row numbers.
"""

import itertools
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cli.config_files import parse_json
from utils.data.delimited import read_rows
from utils.errors import UserError, nearest
from utils.runs.files import sha256_of_file
from utils.runs.layout import check_lang

if TYPE_CHECKING:
    import datasets

DEFAULT_CORPUS = "../register-corpus"
# Rows that are objects of Python at a time, while a file is read.
ROWS_AT_ONCE = 2000


@dataclass(frozen=True)
class Corpus:
    """A register corpus on disk: its folder, its registers in label order and its languages' names."""

    root: Path
    registers: list[str]
    register_names: dict[str, str]
    language_names: dict[str, str]

    @property
    def name(self) -> str:
        """Where the texts come from, for run.json."""
        return str(self.root)

    def label_names(self, langs: list[str]) -> list[str]:
        """Return the registers in label order; they are the same for all languages."""
        return self.registers

    def file(self, split: str, lang: str) -> Path:
        """Return the file of one language and split ("train" or "test").

        Raises:
            UserError: if there is none, naming the nearest language that has one.
        """
        path = self.root / "corpus" / split / f"{check_lang(lang)}.tsv"
        if not path.is_file():
            known = self.languages(split)
            raise UserError(f"language {lang!r} has no {split} file: {path} does not exist{nearest(lang, known)}")
        return path

    def require(self, split: str, langs: list[str]) -> None:
        """Raise a `UserError` unless these languages have a file in this split."""
        for lang in langs:
            self.file(split, lang)

    def languages(self, split: str) -> list[str]:
        """Return the languages that have a file in this split, sorted; files of other names are named and left out."""
        found = []
        for path in sorted((self.root / "corpus" / split).glob("*.tsv")):
            try:
                found.append(check_lang(path.stem))
            except UserError as error:
                print(f"{path} is left out: {error}", file=sys.stderr)
        return found

    def load(self, split: str, lang: str, separator: str = "") -> "datasets.Dataset":
        """Load one language as a dataset with the columns text, label (index into `registers`) and lang.

        Args:
            split: "train" or "test".
            lang: the language.
            separator: for datasets whose texts are in several columns; here each is one text.
        """
        path = self.file(split, lang)
        labels = {register: label for label, register in enumerate(self.registers)}
        rows = ((text, labels[register], lang) for register, text in read_tsv(path, self.registers))
        dataset = make_dataset(rows, {"text": "string", "label": "int64", "lang": "string"})
        if not len(dataset):
            raise UserError(f"{path}: the file is empty; expected one 'register<tab>text' row per text")
        return dataset

    def provenance(self, split: str, langs: list[str]) -> list[dict[str, str]]:
        """Return path and SHA-256 of the files of these languages, for run.json."""
        return [{"path": str(path), "sha256": sha256_of_file(path)} for path in (self.file(split, x) for x in langs)]


def open_corpus(path: str) -> Corpus:
    """Open a corpus folder.

    Raises:
        UserError: if the folder or its info/*.json files are missing or malformed.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"the corpus folder {root} does not exist; give it with --corpus_path or $CORPUS_PATH")
    registers = _read_names(root / "info" / "reg_abbv.json")
    if not registers:
        raise UserError(f"{root / 'info' / 'reg_abbv.json'}: no registers in this file")
    return Corpus(root, list(registers), registers, _read_names(root / "info" / "lang2name.json"))


def _read_names(path: Path) -> dict[str, str]:
    try:
        names = parse_json(path.read_text(encoding="utf-8-sig"), path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; is {path.parent.parent} a register corpus?") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid UTF-8 ({error})") from None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{path}: expected an object of abbreviations and names")
    return names


def make_dataset(rows: Iterable[Sequence[Any]], columns: dict[str, str]) -> "datasets.Dataset":
    """Make a dataset of rows, of which only some at a time are objects of Python.

    Args:
        rows: with a value per column.
        columns: names of the columns and their types, as Arrow calls them.
    """
    import datasets
    import pyarrow

    schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in columns.items()])
    rows, batches = iter(rows), []
    while part := list(itertools.islice(rows, ROWS_AT_ONCE)):
        batches.append(pyarrow.record_batch([*map(list, zip(*part, strict=True))], schema=schema))
    table = datasets.table.InMemoryTable(pyarrow.Table.from_batches(batches, schema))
    # Without a name of ours, datasets pickles the whole table to make one.
    return datasets.Dataset(table, fingerprint=uuid.uuid4().hex)


def read_tsv(path: Path, registers: list[str]) -> Iterator[tuple[str, str]]:
    """Yield ``register <tab> text`` rows exactly as they were written.

    Raises:
        UserError: with file and line, for invalid UTF-8, a malformed row or an unknown register.
    """
    known, blank, count = set(registers), None, 0
    for line, row in read_rows(path, "; a text that starts with a quotation mark must be quoted"):
        if not row:
            blank = blank or line
        elif blank:
            raise UserError(f"{path}, line {blank}: empty line between rows")
        elif len(row) != 2:
            shown = repr("\t".join(row)[:60])
            raise UserError(f"{path}, line {line}: expected 2 columns (register<tab>text), got {len(row)}: {shown}")
        elif row[0] not in known:
            hint = nearest(row[0], registers)
            header = "; the file must not have a header" if not count and "did you mean" not in hint else ""
            raise UserError(f"{path}, line {line}: unknown register {row[0][:40]!r}{hint}{header}")
        else:
            count += 1
            yield row[0], row[1]
