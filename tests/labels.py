"""Texts to be labelled, and the labels that predict.py has written."""

import json
import random
from pathlib import Path

import zstandard

from tests.factories import TRAINED

# The command that labels the fixture `corpus`, in parts.
CORPUS = [*TRAINED, "--input", "corpus", "--rows_per_part", "20"]


def texts_of_all_lengths(count: int, seed: int = 0) -> list[str]:
    """Return texts of one to 200 words."""
    words = random.Random(0).choices("abcdefghij", k=50)
    generator = random.Random(seed)
    return [" ".join(generator.choices(words, k=generator.choice([1, 3, 9, 40, 200]))) for _ in range(count)]


def write_jsonl(path: Path, rows: list) -> Path:
    """Write texts, or rows, as lines of JSON, compressed if the name says so."""
    rows = [{"text": row} if isinstance(row, str) else row for row in rows]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress(content) if path.suffix == ".zst" else content)
    return path


def read_jsonl(path: Path) -> list:
    """Read lines of JSON, compressed if the name says so."""
    content = path.read_bytes()
    if path.suffix == ".zst":
        content = zstandard.ZstdDecompressor().stream_reader(content).read()
    return [json.loads(line) for line in content.decode().splitlines()]


def label_files(folder: Path) -> dict[str, bytes]:
    """Return the files of labels in a folder, by name."""
    found = [path for path in folder.rglob("*.*") if ".predictions" not in path.parts and path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.name != "predictions.json"}
