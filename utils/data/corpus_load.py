"""Reads the layout of github.com/ahar7911/register-corpus: texts, labels, ordered register names.

    info/reg_abbv.json            abbreviation -> register, in the order of the labels; or -> {"name": register,
                                  "sub": {abbreviation: subregister}}
    info/lang2name.json           abbreviation -> language
    corpus/{train,test}/LANG.tsv  register <tab> text [<tab> cluster]; no header; quoted as Python's csv module quotes.
                                  Several registers of a text have blanks between them; a cluster is a site or document

A text and its label stay in one row from the file to the batch: everything that mixes, splits or cuts
works on row numbers.
"""

import itertools
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.cli.config_files import parse_json
from utils.data.delimited import read_rows
from utils.data.registers import LabelError, Registers, parse_registers
from utils.errors import UserError, nearest
from utils.runs.files import sha256_of_file
from utils.runs.layout import check_lang

if TYPE_CHECKING:
    import datasets

DEFAULT_CORPUS = "../register-corpus"
# One label for each text, or any number of them; auto: as the training files have it; main: of the first level alone.
LabelsOption = Literal["auto", "single", "multi", "main"]
# Rows that are objects of Python at a time, while a file is read.
ROWS_AT_ONCE = 2000


@dataclass(frozen=True)
class Corpus:
    """A register corpus on disk: its folder, its registers in label order and its languages' names.

    Attributes:
        multilabel: whether a text may have several labels.
        lifted: whether subregisters count as their registers.
    """

    root: Path
    scheme: Registers
    language_names: dict[str, str]
    multilabel: bool = False
    lifted: bool = False

    @property
    def name(self) -> str:
        """Where the texts come from, for run.json."""
        return str(self.root)

    @property
    def registers(self) -> list[str]:
        """The labels in their order: subregisters are among them if a text may have several labels."""
        return self.scheme.all if self.multilabel and not self.lifted else self.scheme.main

    @property
    def subregisters(self) -> dict[str, list[str]]:
        """The subregisters among the labels, of every register that has some."""
        labels = set(self.registers)
        found = {x: [y for y in self.scheme.children(x) if y in labels] for x in self.scheme.main}
        return {register: below for register, below in found.items() if below}

    def label_names(self, langs: list[str]) -> list[str]:
        """Return the registers in label order; they are the same for all languages."""
        return self.registers

    def with_labels(self, labels: LabelsOption, langs: list[str]) -> "Corpus":
        """Return the corpus with labels as --labels wants them; of auto and main the training files decide.

        Args:
            labels: see `LabelsOption`.
            langs: that are trained on.

        Raises:
            UserError: for a row that cannot be used, see `read_tsv`.
        """
        wanted = replace(self, multilabel=labels != "single", lifted=labels == "main")
        # All rows, whatever is wanted: what is wrong with one is said before anything else is done.
        most = max((len(row) for lang in langs for row, _ in wanted.rows("train", lang)), default=0)
        return wanted if labels in ("single", "multi") else replace(wanted, multilabel=most > 1)

    def as_labelled(self, multilabel: bool, labels: list[str]) -> "Corpus":
        """Return the corpus with labels as a model gives them.

        Args:
            multilabel: whether it gives any number of them.
            labels: that it knows; without subregisters, those of the corpus count as their registers.
        """
        lifted = bool(self.scheme.parents) and not set(labels) & set(self.scheme.parents)
        return replace(self, multilabel=multilabel, lifted=lifted)

    def rows(self, split: str, lang: str) -> Iterator[tuple[list[str], str]]:
        """Yield the labels and the text of every row of a file, see `read_tsv`."""
        return read_tsv(self.file(split, lang), self.scheme, self.multilabel, self.lifted)

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
        """Load one language as a dataset with the columns text, label and lang.

        The label is an index into `registers`; where a text may have several, 0 or 1 for each of them.

        Args:
            split: "train" or "test".
            lang: the language.
            separator: for datasets whose texts are in several columns; here each is one text.
        """
        places = {register: label for label, register in enumerate(self.registers)}

        def label(names: list[str]) -> int | list[int]:
            if not self.multilabel:
                return places[names[0]]
            own = {places[name] for name in names}
            return [int(place in own) for place in range(len(places))]

        dataset = make_dataset(
            ((text, label(names), lang) for names, text in self.rows(split, lang)), label_columns(self.multilabel)
        )
        if not len(dataset):
            path = self.file(split, lang)
            raise UserError(f"{path}: the file is empty; expected one 'register<tab>text' row per text")
        return dataset

    def clusters(self, split: str, lang: str) -> list[str] | None:
        """Return the third column of a file; None if it has two."""
        rows = (row for _, row in read_rows(self.file(split, lang)) if row)
        first = next(rows, [])
        return [first[2], *(row[2] for row in rows)] if len(first) == 3 else None

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
    registers_file, languages_file = root / "info" / "reg_abbv.json", root / "info" / "lang2name.json"
    try:
        scheme = parse_registers(read_info(registers_file))
    except ValueError as error:
        raise UserError(f"{registers_file}: {error}") from None
    if not scheme.names:
        raise UserError(f"{registers_file}: no registers in this file")
    names = read_info(languages_file)
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{languages_file}: expected an object of abbreviations and names")
    return Corpus(root, scheme, names)


def read_info(path: Path) -> Any:
    """Return the content of one of the files in info/; raises a `UserError` if it cannot be read."""
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"), path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; is {path.parent.parent} a register corpus?") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid UTF-8 ({error})") from None


def label_columns(multilabel: bool) -> dict[str, str]:
    """Return the columns of texts with labels, for `make_dataset`."""
    return {"text": "string", "label": "list<int8>" if multilabel else "int64", "lang": "string"}


def make_dataset(rows: Iterable[Sequence[Any]], columns: dict[str, str]) -> "datasets.Dataset":
    """Make a dataset of rows, of which only some at a time are objects of Python.

    Args:
        rows: with a value per column.
        columns: names of the columns and their types, as Arrow calls them; list<TYPE> is a list.
    """
    import datasets
    import pyarrow

    def arrow_type(kind: str) -> pyarrow.DataType:
        inner = kind.removeprefix("list<").removesuffix(">")
        return pyarrow.type_for_alias(kind) if inner == kind else pyarrow.list_(pyarrow.type_for_alias(inner))

    schema = pyarrow.schema([(name, arrow_type(kind)) for name, kind in columns.items()])
    rows, batches = iter(rows), []
    while part := list(itertools.islice(rows, ROWS_AT_ONCE)):
        batches.append(pyarrow.record_batch([*map(list, zip(*part, strict=True))], schema=schema))
    table = datasets.table.InMemoryTable(pyarrow.Table.from_batches(batches, schema))
    # Without a name of ours, datasets pickles the whole table to make one.
    return datasets.Dataset(table, fingerprint=uuid.uuid4().hex)


def read_tsv(
    path: Path, scheme: Registers, multilabel: bool = False, lifted: bool = False
) -> Iterator[tuple[list[str], str]]:
    """Yield the labels of ``register <tab> text`` rows, and the texts exactly as they were written.

    Args:
        path: of the file.
        scheme: the registers that there are.
        multilabel: whether a row may have several.
        lifted: leave subregisters out.

    Raises:
        UserError: with file and line, for invalid UTF-8, a malformed row, an unknown register, or several where a
            text has one.
    """
    known: dict[str, list[str]] = {}
    blank, count, columns = None, 0, None
    for line, row in read_rows(path, "; a text that starts with a quotation mark must be quoted"):
        if not row:
            blank = blank or line
        elif blank:
            raise UserError(f"{path}, line {blank}: empty line between rows")
        elif len(row) != (columns or len(row)) or not (len(row) == 2 or _has_cluster(row)):
            shown = repr("\t".join(row)[:60])
            two, three = "expected 2 columns (register<tab>text)", "expected 3 columns (register<tab>text<tab>cluster)"
            raise UserError(f"{path}, line {line}: {three if columns == 3 else two}, got {len(row)}: {shown}")
        else:
            if row[0] not in known:
                try:
                    known[row[0]] = _read_labels(row[0], scheme, multilabel, lifted)
                except LabelError as error:
                    first = not count and "unknown" in str(error) and "did you mean" not in str(error)
                    header = "; the file must not have a header" if first else ""
                    raise UserError(f"{path}, line {line}: {error}{header}") from None
            count, columns = count + 1, len(row)
            yield known[row[0]], row[1]


def _has_cluster(row: list[str]) -> bool:
    """Return whether a row has a third column, and is not several rows with lone carriage returns between them."""
    return len(row) == 3 and "\r" not in row[1].replace("\r\n", "")


def _read_labels(cell: str, scheme: Registers, multilabel: bool, lifted: bool) -> list[str]:
    labels = scheme.read(cell)
    main = scheme.lift(labels)
    if lifted:
        labels = main
    if len(labels) > 1 and not multilabel:
        other = "leave one of them in the row" if len(main) > 1 else f"take it for {main[0]} with --labels main"
        raise LabelError(
            f"{len(labels)} registers ({' '.join(labels)}) of a text; train with --labels multi, or {other}"
        )
    return labels
