"""Which files are to be labelled, and what the files of their labels are called."""

import glob
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

KINDS = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True)
class InputFile:
    """A file of texts.

    Attributes:
        path: of the file.
        name: of the file of its labels, below the output folder and without its ending: ``fin/1`` for
            ``corpus/fin/1.jsonl.zst``.
        size: in bytes.
        modified: when, in nanoseconds; with the size it tells whether the file is the one that was labelled.
    """

    path: Path
    name: str
    size: int
    modified: int

    @property
    def folder(self) -> str:
        """The folder of its labels, the language in many corpora; ``.`` is the output folder itself."""
        return str(Path(self.name).parent)


def kind_of(path: Path) -> tuple[str, str] | None:
    """Return what a file holds and how it is compressed, by the endings of its name; None for another kind."""
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    kind = Path(path.name.removesuffix(compression)).suffix
    if kind not in KINDS or (compression and kind == ".parquet"):
        return None
    return kind, compression


def find_inputs(given: list[str], output_dir: Path) -> tuple[Path, list[InputFile]]:
    """Return the folder that holds all files of texts, and the files, each once, sorted by name.

    Args:
        given: files, folders and globs.
        output_dir: where the labels go, which are no input.

    Raises:
        UserError: for what does not exist, cannot be read or is of another kind, if there is nothing to label, or if
            two files would share one file of labels.
    """
    roots, found, own = [], {}, 0
    for word in given:
        paths, root = _expand(word)
        roots.append(_real(root))
        for path in paths:
            real = _real(path)
            if _real(output_dir) in real.parents:
                own += 1
            elif real in found:
                print(f"{path} is named twice; it is labelled once", file=sys.stderr)
            else:
                found[real] = path, _real(root) / path.relative_to(root)
    if not found:
        where = f"the files are in the output folder {output_dir}" if own else f"nothing to label in {' '.join(given)}"
        raise UserError(f"{where}; expected files of {', '.join(KINDS)}, or .gz or .zst, elsewhere")
    if own:
        print(f"{output_dir} is the output folder; what is in it is not labelled", file=sys.stderr)
    common = Path(os.path.commonpath(roots))
    files = [_input_file(path, place.relative_to(common)) for path, place in found.values()]
    _check_names(files, output_dir)
    return common, sorted(files, key=lambda file: file.name)


def _real(path: Path) -> Path:
    """Return where links lead; Path.resolve refuses those that lead in circles."""
    return Path(os.path.realpath(path))


def _expand(word: str) -> tuple[list[Path], Path]:
    """Return the files that a word stands for, and the folder below which they are."""
    path = Path(word)
    if path.is_dir():
        return [below for below in _files_below(path) if kind_of(below)], path
    if path.exists():
        if kind_of(path) is None:
            raise UserError(f"{path}: expected {', '.join(KINDS)}, all but the last also with .gz or .zst")
        return [path], path.parent
    if path.is_symlink():
        raise UserError(f"{path}: a link to nowhere, or to itself")
    if not glob.has_magic(word):
        raise UserError(f"{path} does not exist")
    matches = [Path(match) for match in sorted(glob.glob(word, recursive=True))]
    files = [match for match in matches if kind_of(match) and not match.is_dir()]
    if not files:
        raise UserError(f"{word}: no file of a kind that can be read has such a name")
    fixed = [*_before_magic(path)]
    return files, Path(*fixed) if fixed else Path()


def _before_magic(path: Path) -> Iterator[str]:
    for part in path.parent.parts:
        if glob.has_magic(part):
            return
        yield part


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, hidden ones left out, links to folders followed but into none twice."""
    seen = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here) / name for name in sorted(names) if not name.startswith("."))


def _input_file(path: Path, below: Path) -> InputFile:
    if not path.is_file():
        raise UserError(f"{path} is not a file that can be read again after an interruption")
    try:
        with path.open("rb"):
            status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    kind, compression = kind_of(path) or ("", "")
    return InputFile(path, str(below).removesuffix(compression).removesuffix(kind), status.st_size, status.st_mtime_ns)


def _check_names(files: list[InputFile], output_dir: Path) -> None:
    names: dict[str, Path] = {}
    for file in files:
        if file.name in names:
            raise UserError(
                f"{names[file.name]} and {file.path} would both be labelled in {output_dir / file.name}; "
                "label them one after the other, with another --output_dir each"
            )
        names[file.name] = file.path
