"""Reads the layout of github.com/ahar7911/register-corpus: texts, labels, ordered register names.

    info/reg_abbv.json            abbreviation -> register, in the order of the labels
    info/lang2name.json           abbreviation -> language
    corpus/{train,test}/LANG.tsv  register <tab> text; no header; quoted as Python's csv module quotes

A text and its label stay in one row from the file to the batch: everything that mixes, splits or cuts
works on row numbers.
"""

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.errors import UserError, nearest
from utils.layout import check_lang, sha256_of_file

if TYPE_CHECKING:
    import datasets

DEFAULT_CORPUS = "../register-corpus"
MIXES = ("equal", "all", "temperature")


@dataclass(frozen=True)
class Corpus:
    """A register corpus on disk: its folder, its registers in label order and its languages' names."""

    root: Path
    registers: list[str]
    register_names: dict[str, str]
    language_names: dict[str, str]

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

    def languages(self, split: str) -> list[str]:
        """Return the languages that have a file in this split, sorted."""
        return sorted(path.stem for path in (self.root / "corpus" / split).glob("*.tsv"))

    def load(self, split: str, lang: str) -> "datasets.Dataset":
        """Load one language as a dataset with the columns text, label (index into `registers`) and lang."""
        import datasets

        path = self.file(split, lang)
        rows = read_tsv(path, self.registers)
        if not rows:
            raise UserError(f"{path}: the file is empty; expected one 'register<tab>text' row per text")
        labels = {register: label for label, register in enumerate(self.registers)}
        return datasets.Dataset.from_dict(
            {
                "text": [text for _, text in rows],
                "label": [labels[register] for register, _ in rows],
                "lang": [lang] * len(rows),
            }
        )

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
        raise UserError(
            f"the corpus folder {root} does not exist; give it with --corpus_path or the environment variable CORPUS_PATH"
        )
    registers = _read_names(root / "info" / "reg_abbv.json")
    if not registers:
        raise UserError(f"{root / 'info' / 'reg_abbv.json'}: no registers in this file")
    return Corpus(root, list(registers), registers, _read_names(root / "info" / "lang2name.json"))


def _read_names(path: Path) -> dict[str, str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; is {path.parent.parent} a register corpus?") from None
    except ValueError as error:
        raise UserError(f"{path}, line {getattr(error, 'lineno', '?')}: not valid JSON: {error}") from None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{path}: expected an object of abbreviations and names")
    return names


def read_tsv(path: Path, registers: list[str]) -> list[tuple[str, str]]:
    """Read ``register <tab> text`` rows exactly as they were written.

    Quoted fields, doubled quotation marks, line breaks inside quotes, texts of any length, both ``\\n``
    and ``\\r\\n`` line ends, and texts such as "NA" come back unchanged.

    Raises:
        UserError: with file and line, for invalid UTF-8, a malformed row or an unknown register.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not valid UTF-8 (byte 0x{content[error.start]:02x}); convert the file") from None
    # The csv module ends a row at a lone carriage return, which writers with "\n" line ends leave
    # unquoted: it travels as a character that the file does not hold.
    stand_in = next(c for c in map(chr, range(0xE000, 0xF8FF)) if c not in text)
    lines = [line if line.endswith("\r\n") else line.replace("\r", stand_in) for line in _keep_line_ends(text, stand_in)]
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, delimiter="\t", strict=True)
    known, rows, blank, line = set(registers), [], None, 1
    try:
        for row in reader:
            if not row:
                blank = blank or line
            elif blank:
                raise UserError(f"{path}, line {blank}: empty line between rows")
            elif len(row) != 2:
                raise UserError(
                    f"{path}, line {line}: expected 2 columns (register<tab>text), got {len(row)}: {_shorten(row)}"
                )
            elif row[0] not in known:
                hint = nearest(row[0], registers)
                header = "; the file must not have a header" if not rows and "did you mean" not in hint else ""
                raise UserError(f"{path}, line {line}: unknown register {row[0][:40]!r}{hint}{header}")
            else:
                rows.append((row[0], row[1].replace(stand_in, "\r")))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {line}: malformed row ({error}); a text that starts with a quotation mark must be quoted"
        ) from None
    return rows


def _keep_line_ends(text: str, stand_in: str) -> list[str]:
    """Split at ``\\n`` only; str.splitlines would split at U+2028 and a dozen others."""
    lines = text.split("\n")
    ended = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    return [line[:-2].replace("\r", stand_in) + "\r\n" if line.endswith("\r\n") else line for line in ended]


def _shorten(row: list[str]) -> str:
    return repr("\t".join(row)[:60])


def mix_languages(sizes: dict[str, int], mix: str, exponent: float, seed: int) -> dict[str, np.ndarray]:
    """Choose which rows of each language are trained on, without repeating any.

    Args:
        sizes: number of rows per language.
        mix: "equal" (as many of each as the smallest has), "all", or "temperature": shares proportional to
            ``size ** exponent`` (the sampling of Conneau et al. 2020, XLM-R, section 3.1), as many as
            possible, so that exponent 1 is "all" and 0 is "equal".
        exponent: between 0 and 1.
        seed: seed of the choice; the rows of a language do not depend on the other languages' rows.

    Returns:
        Sorted row numbers per language.
    """
    if mix == "all":
        exponent = 1.0
    elif mix == "equal":
        exponent = 0.0
    shares = {lang: size**exponent for lang, size in sizes.items()}
    scale = min(sizes[lang] / shares[lang] for lang in sizes)
    chosen = {}
    for lang, size in sizes.items():
        count = max(1, min(size, int(scale * shares[lang] + 1e-9)))
        chosen[lang] = np.sort(_generator(seed, "mix", lang).permutation(size)[:count])
    return chosen


def split_validation(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers into training and validation rows, stratified by label and group.

    A pure function of its arguments, so every process finds the same split. Each stratum gives its share,
    rounded so that the total is exact; a stratum of one text stays in training.

    Args:
        labels: label of every row, shape [n].
        groups: a second stratum (the language) of every row, shape [n].
        share: part of the rows for validation, above 0 and below 1.
        seed: seed of the choice.

    Returns:
        Sorted training rows and sorted validation rows.

    Raises:
        UserError: if no row is left for validation.
    """
    strata: dict[tuple[str, int], np.ndarray] = {
        (str(group), int(label)): np.flatnonzero((labels == label) & (groups == group))
        for group in np.unique(groups)
        for label in np.unique(labels)
    }
    strata = {key: rows for key, rows in strata.items() if len(rows)}
    exact = {key: len(rows) * share for key, rows in strata.items()}
    counts = {key: int(quota) for key, quota in exact.items()}
    # Largest remainders first, as in seat allocation; ties go by the name of the stratum.
    by_remainder = sorted(exact, key=lambda key: (counts[key] - exact[key], key))
    for key in by_remainder:
        if sum(counts.values()) >= round(len(labels) * share):
            break
        if counts[key] + 1 < len(strata[key]):
            counts[key] += 1
    validation = [
        _generator(seed, "validation", *key).permutation(rows)[: counts[key]] for key, rows in strata.items()
    ]
    validation = np.sort(np.concatenate(validation))
    if not len(validation):
        raise UserError(f"{len(labels)} texts are too few for a validation part of {share}")
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def subsample(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose `count` rows, stratified by label as far as possible; sorted row numbers."""
    if count >= len(labels):
        return np.arange(len(labels))
    order = _generator(seed, "subsample").permutation(len(labels))
    # Position of every row within its own label, in [0, 1): the lowest positions keep the proportions.
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.sort(order[np.argsort(position[order], kind="stable")[:count]])


def _generator(seed: int, *names: object) -> np.random.Generator:
    """A generator for one purpose: seeded by the seed and the names' bytes, never by hash()."""
    return np.random.default_rng([seed, *"/".join(map(str, names)).encode()])
