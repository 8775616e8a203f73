"""Rows that are left out of training: what `check_corpus.py --prune` writes and `finetune.py --exclude` reads.

A line of JSON per row, `{"language": "fr", "split": "train", "row": 12, "hash": "0123456789abcdef", ...}`; rows count
from 1, and the hash is that of the text (`utils.data.twins.text_hash`), so that a list is never used for other texts.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.data.source import TextSource
from utils.data.twins import text_hash
from utils.errors import UserError
from utils.runs.files import sha256_of_file, write_text

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Exclusions:
    """Rows to leave out of training texts.

    Attributes:
        path: of the file that names them.
        rows: of each language, by their numbers from 1: the line of the file and the text's hash.
    """

    path: Path
    rows: dict[str, dict[int, tuple[int, str]]]

    def provenance(self, langs: list[str]) -> dict[str, Any]:
        """Return what run.json says of the file, among those of the texts."""
        count = sum(len(self.rows.get(lang, {})) for lang in langs)
        return {"path": str(self.path), "sha256": sha256_of_file(self.path), "excluded": count}

    def without(self, lang: str, texts: "datasets.Dataset") -> "datasets.Dataset":
        """Return the training texts of a language without the rows to leave out.

        Raises:
            UserError: with file and line, if a row is not there or has another text.
        """
        named = self.rows.get(lang)
        if not named:
            return texts
        for row, (line, wanted) in named.items():
            if row > len(texts):
                raise UserError(f"{self.path}, line {line}: {lang} has {len(texts):,} training texts, not {row:,}")
            if f"{text_hash(texts[row - 1]['text']):016x}" != wanted:
                raise UserError(
                    f"{self.path}, line {line}: row {row} of {lang} has another text; the corpus has changed since "
                    "check_corpus.py read it: run it again"
                )
        left = [index for index in range(len(texts)) if index + 1 not in named]
        if not left:
            raise UserError(f"{self.path}: no training text of {lang} is left")
        return texts.select(left)


def read_exclusions(path: str | None) -> Exclusions | None:
    """Read a list of rows; None without a path.

    Raises:
        UserError: with file and line, if it is not such a list.
    """
    if path is None:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--exclude {path}: {error}") from None
    rows: dict[str, dict[int, tuple[int, str]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        entry = _parse(line)
        if entry is None:
            raise UserError(
                f'{path}, line {number}: expected {{"language": ..., "split": "train", "row": ..., "hash": ...}}, as '
                f"check_corpus.py --prune writes it, got {line[:60]}"
            )
        rows.setdefault(entry["language"], {})[entry["row"]] = (number, entry["hash"])
    return Exclusions(Path(path), rows)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    kinds = {"language": str, "split": str, "row": int, "hash": str}
    if not isinstance(entry, dict) or any(type(entry.get(name)) is not kind for name, kind in kinds.items()):
        return None
    return entry if entry["split"] == "train" and entry["row"] > 0 else None


def write_exclusions(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write a list of rows; each has language, row and hash, and whatever else is worth knowing."""
    lines = (json.dumps({"split": "train"} | entry, ensure_ascii=False) for entry in entries)
    write_text(path, "".join(f"{line}\n" for line in lines))


def training_texts(texts: TextSource, lang: str, separator: str, exclusions: Exclusions | None) -> "datasets.Dataset":
    """Load the training texts of one language without the rows to leave out.

    Args:
        texts: where they are.
        lang: the language.
        separator: see `TextSource.load`.
        exclusions: what to leave out.
    """
    loaded = texts.load("train", lang, separator)
    return exclusions.without(lang, loaded) if exclusions else loaded
