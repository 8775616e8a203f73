"""Text files for language models: one example per line, gzipped, with optional labels and metadata.

- ``NAME.txt.gz``: a text per line;
- ``NAME.json.gz``: ``{"text": ..., "labels": ...}`` per line, labels being the text to be predicted;
- ``NAME_metadata.json.gz``, if present: a JSON object per line, which goes to every result of its example;
- ``NAME.jsonl`` or ``NAME.jsonl.gz``: a JSON object per line, of which two keys hold a pair of sentences, as in
  BLiMP (Warstadt et al. 2020); the others are metadata.
"""

import gzip
import itertools
import json
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from utils.errors import UserError, nearest
from utils.runs.files import CACHE_DIR

if TYPE_CHECKING:
    import datasets

KINDS = (".txt.gz", ".json.gz")
METADATA = "_metadata.json.gz"
PAIR_KINDS = (".jsonl", ".jsonl.gz")
# What the metadata of a sentence says of its pair: the line in its file, and the key that held the sentence.
PAIR, SIDE = "pair", "pair_side"
# Bytes of a line; more is no example but a file without line breaks.
LONGEST_LINE = 10_000_000
# Examples that are in memory while a file is put where it is mapped from.
LINES_AT_ONCE = 10_000


def dataset_name(path: str | Path) -> str:
    """Return the name of a dataset: that of its file without the extension.

    Raises:
        UserError: if the file is neither ``.txt.gz`` nor ``.json.gz`` nor one of pairs.
    """
    name = Path(path).name
    for kind in (*KINDS, *PAIR_KINDS):
        if name.endswith(kind) and not name.endswith(METADATA):
            return name.removesuffix(kind)
    raise UserError(f"{path}: expected a file of examples, NAME.txt.gz or NAME.json.gz")


@dataclass(frozen=True)
class TextFile:
    """A file of examples that has been read once, so that nothing in it comes as a surprise later.

    Attributes:
        path: of the file.
        num_examples: lines in it.
        metadata_keys: all keys of its metadata, in the order in which they occur.
        pairs: the keys of the two sentences of a pair, of files of pairs; None of others.
        called: its name in reports, where that of the file is another's too.
    """

    path: Path
    num_examples: int
    metadata_keys: list[str]
    pairs: tuple[str, str] | None = None
    called: str | None = None

    @property
    def name(self) -> str:
        """What the file is called in reports: its name without the extension, unless it is `called` otherwise."""
        return self.called or dataset_name(self.path)

    @property
    def metadata_path(self) -> Path:
        """Where its metadata are, if there are any."""
        return self.path.with_name(dataset_name(self.path) + METADATA)

    def chunks(self, size: int, max_examples: int | None = None) -> "Iterator[datasets.Dataset]":
        """Read the file in parts of `size` examples, as `read_text_file` returns them; one is in memory at a time."""
        examples = itertools.islice(_examples(self.path, self.pairs), max_examples)
        while part := list(itertools.islice(examples, size)):
            yield _dataset(part)


def open_text_file(path: str | Path, pairs: list[str] | None = None) -> TextFile:
    """Read a file of examples to its end without keeping it.

    Args:
        path: of the file.
        pairs: the keys of the two sentences of a pair, if the file may hold pairs.

    Raises:
        UserError: as `read_text_file`.
    """
    own = None
    if Path(path).name.endswith(PAIR_KINDS):
        if pairs is None or len(pairs) != 2:
            raise UserError(f"{path} holds pairs of sentences: --pairs GOOD BAD says under which two keys")
        own = (pairs[0], pairs[1])
    keys: dict[str, None] = {}
    number = 0
    for example in _examples(Path(path), own):
        number += 1
        keys |= dict.fromkeys(json.loads(example["metadata"]))
    return TextFile(Path(path), number, list(keys), own)


def told_apart(files: list[TextFile]) -> list[TextFile]:
    """Return files with different names: their paths, as they were given, where names are equal.

    Raises:
        UserError: if a file is there twice.
    """
    paths, names = Counter(file.path for file in files), Counter(file.name for file in files)
    for path, count in paths.items():
        if count > 1:
            raise UserError(f"{path} is given twice")
    return [replace(file, called=str(file.path)) if names[file.name] > 1 else file for file in files]


def read_text_file(path: str | Path, max_examples: int | None = None, split: str = "train") -> "datasets.Dataset":
    """Read a file of examples and its metadata.

    Args:
        path: a ``.txt.gz`` or ``.json.gz`` file, or a folder that `datasets` saved, whose column text, labels
            if it has it, and all others as metadata are taken.
        max_examples: keep at most so many.
        split: of a saved folder that has several.

    Returns:
        a dataset with the columns text, labels (where there are any) and metadata (a JSON object as a string;
        ``{}`` without a metadata file).

    Raises:
        UserError: with file and line, for a file that is not gzipped UTF-8, an empty line, a line that is not
            the expected JSON, a missing key, or metadata of another number of lines.
    """
    if Path(path).is_dir():
        return _read_folder(Path(path), split, max_examples)
    return _mapped(_examples(Path(path)), max_examples)


def _dataset(examples: list[dict[str, str]]) -> "datasets.Dataset":
    import datasets

    return datasets.Dataset.from_dict({key: [example[key] for example in examples] for key in examples[0]})


def _mapped(examples: Iterator[dict[str, str]], max_examples: int | None) -> "datasets.Dataset":
    """Return examples as a memory-mapped dataset, of a file that is there no longer than the dataset is."""
    import datasets
    import pyarrow

    Path(CACHE_DIR).mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=CACHE_DIR, prefix="examples-", suffix=".arrow") as file:
        left = max_examples
        writer = None
        # All lines are read, so that what is wrong with one is said whatever is kept.
        while part := list(itertools.islice(examples, LINES_AT_ONCE)):
            kept = part if left is None else part[:left]
            left = None if left is None else left - len(kept)
            if kept:
                table = pyarrow.Table.from_pylist(kept)
                writer = writer or pyarrow.ipc.new_stream(file, table.schema)
                writer.write_table(table)
        cast(pyarrow.RecordBatchStreamWriter, writer).close()
        file.flush()
        return datasets.Dataset.from_file(file.name)


def _read_folder(path: Path, split: str, max_examples: int | None) -> "datasets.Dataset":
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{path}: not a folder that datasets saved ({error})") from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise UserError(f"{path}: no split {split!r}; it has {', '.join(found)}")
        found = found[split]
    if "text" not in found.column_names:
        raise UserError(f"{path}: no column text; it has {', '.join(found.column_names)}")
    found = found.select(range(min(len(found), max_examples or len(found))))
    kept = [name for name in ("text", "labels") if name in found.column_names]
    others = found.remove_columns(kept)
    metadata = [json.dumps(row, default=str) for row in others] if others.column_names else ["{}"] * len(found)
    return found.select_columns(kept).add_column("metadata", metadata)


def _examples(path: Path, pairs: tuple[str, str] | None = None) -> Iterator[dict[str, str]]:
    """Yield text, labels and metadata of every line, checked; of pairs, both sentences."""
    name = dataset_name(path)
    if pairs is not None:
        yield from _pairs(path, pairs)
        return
    if path.name.endswith(PAIR_KINDS):
        raise UserError(f"{path}: pairs of sentences are for --test_file")
    metadata_path = path.with_name(name + METADATA)
    metadata = _lines(metadata_path) if metadata_path.exists() else None
    number = 0
    for number, line in enumerate(_lines(path), 1):
        example = _read_example(path, number, line) if path.name.endswith(".json.gz") else {"text": line}
        if not example["text"].strip():
            raise UserError(f"{path}, line {number}: empty; expected one example per line")
        entry = "{}" if metadata is None else next(metadata, None)
        if entry is None:
            total = sum(1 for _ in _lines(path))
            raise _other_count(metadata_path, number - 1, path, total)
        if metadata is not None:
            _read_object(metadata_path, number, entry)
        yield {**example, "metadata": entry}
    if number == 0:
        raise UserError(f"{path}: the file is empty; expected one example per line")
    if metadata is not None and (rest := sum(1 for _ in metadata)):
        raise _other_count(metadata_path, number + rest, path, number)


def _pairs(path: Path, keys: tuple[str, str]) -> Iterator[dict[str, str]]:
    number = 0
    for number, line in enumerate(_lines(path), 1):
        row = _read_object(path, number, line)
        for key in keys:
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise UserError(f"{path}, line {number}: expected a sentence under {key!r}{nearest(key, row)}")
        others = {
            f"metadata_{name}" if name in (PAIR, SIDE) else name: value
            for name, value in row.items()
            if name not in keys
        }
        for key in keys:
            yield {"text": row[key], "metadata": json.dumps({PAIR: number, SIDE: key} | others)}
    if number == 0:
        raise UserError(f"{path}: the file is empty; expected a pair of sentences per line")


def _other_count(metadata: Path, described: int, path: Path, count: int) -> UserError:
    return UserError(f"{metadata} has {described:,} lines, but {path} has {count:,}: each describes an example")


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file; only line feeds end them (str.splitlines would also cut at U+2028)."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number in itertools.count(1):
                line = file.readline(LONGEST_LINE + 1)
                if not line:
                    return
                if len(line) > LONGEST_LINE:
                    limit = f"{LONGEST_LINE // 10**6} MB"
                    raise UserError(f"{path}, line {number}: longer than {limit}; expected one example per line")
                try:
                    yield line.decode("utf-8").removesuffix("\n").removesuffix("\r")
                except UnicodeDecodeError:
                    raise UserError(f"{path}, line {number}: not valid UTF-8") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a gzipped file ({error})") from None


def _read_object(path: Path, number: int, line: str) -> dict:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not valid JSON ({error})") from None
    except RecursionError:
        raise UserError(f"{path}, line {number}: nested too deeply") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}, line {number}: expected a JSON object, got {line[:60]}")
    return content


def _read_example(path: Path, number: int, line: str) -> dict[str, str]:
    example = _read_object(path, number, line)
    for key in ("text", "labels"):
        if not isinstance(example.get(key), str):
            what = "is missing" if key not in example else f"must be a string, got {json.dumps(example[key])[:60]}"
            raise UserError(f"{path}, line {number}: the key {key!r} {what}")
    return {key: example[key] for key in ("text", "labels")}
