"""Text files for language models: one example per line, gzipped, with optional labels and metadata.

- ``NAME.txt.gz``: a text per line;
- ``NAME.json.gz``: ``{"text": ..., "labels": ...}`` per line, labels being the text to be predicted;
- ``NAME_metadata.json.gz``, if present: a JSON object per line, which goes to every result of its example.
"""

import gzip
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    import datasets

KINDS = (".txt.gz", ".json.gz")
METADATA = "_metadata.json.gz"


def dataset_name(path: str | Path) -> str:
    """Return the name of a dataset: that of its file without the extension.

    Raises:
        UserError: if the file is neither ``.txt.gz`` nor ``.json.gz``.
    """
    name = Path(path).name
    for kind in KINDS:
        if name.endswith(kind) and not name.endswith(METADATA):
            return name.removesuffix(kind)
    raise UserError(f"{path}: expected a file of examples, NAME.txt.gz or NAME.json.gz")


def read_text_file(path: str | Path, max_examples: int | None = None) -> "datasets.Dataset":
    """Read a file of examples and its metadata.

    Args:
        path: a ``.txt.gz`` or ``.json.gz`` file.
        max_examples: read at most so many.

    Returns:
        a dataset with the columns text, labels (of ``.json.gz`` files only) and metadata (a JSON object as a
        string; ``{}`` without a metadata file).

    Raises:
        UserError: with file and line, for a file that is not gzipped UTF-8, an empty line, a line that is not
            the expected JSON, a missing key, or metadata of another number of lines.
    """
    import datasets

    path = Path(path)
    name = dataset_name(path)
    lines = _read_lines(path)
    if not lines:
        raise UserError(f"{path}: the file is empty; expected one example per line")
    if path.name.endswith(".json.gz"):
        examples = [_read_example(path, number, line) for number, line in enumerate(lines, 1)]
        columns = {key: [example[key] for example in examples] for key in ("text", "labels")}
    else:
        columns = {"text": lines}
    for number, text in enumerate(columns["text"], 1):
        if not text.strip():
            raise UserError(f"{path}, line {number}: empty; expected one example per line")
    columns["metadata"] = _read_metadata(path.with_name(name + METADATA), path, len(lines))
    return datasets.Dataset.from_dict({key: values[:max_examples] for key, values in columns.items()})


def _read_lines(path: Path) -> list[str]:
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a gzipped file ({error})") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not valid UTF-8") from None
    # Only line feeds end lines: str.splitlines would also cut at U+2028 and others.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _read_object(path: Path, number: int, line: str) -> dict:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}, line {number}: expected a JSON object, got {line[:60]}")
    return content


def _read_example(path: Path, number: int, line: str) -> dict[str, str]:
    example = _read_object(path, number, line)
    for key in ("text", "labels"):
        if not isinstance(example.get(key), str):
            what = "is missing" if key not in example else f"must be a string, got {json.dumps(example[key])[:60]}"
            raise UserError(f"{path}, line {number}: the key {key!r} {what}")
    return example


def _read_metadata(path: Path, examples: Path, count: int) -> list[str]:
    if not path.exists():
        return ["{}"] * count
    lines = _read_lines(path)
    if len(lines) != count:
        raise UserError(f"{path} has {len(lines):,} lines, but {examples} has {count:,}: each describes an example")
    for number, line in enumerate(lines, 1):
        _read_object(path, number, line)
    return lines
