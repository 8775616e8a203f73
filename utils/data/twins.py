"""Texts that are the same, found by their hashes: they are validation or training texts, and named in test texts."""

import hashlib
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.errors import UserError
from utils.runs.files import atomic_path

if TYPE_CHECKING:
    import datasets

# From this share of test texts on that were trained on, the user is warned.
WARN_ABOVE = 0.01
BATCH = 1000


def text_hash(text: str) -> int:
    """Return 64 bits that two texts share if they differ in nothing but white space."""
    content = " ".join(text.split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def hash_texts(texts: Iterable[str]) -> np.ndarray:
    """Return the hashes of texts, shape [texts], unsigned integers of 64 bits."""
    return np.fromiter(map(text_hash, texts), dtype=np.uint64)


def hash_column(dataset: "datasets.Dataset") -> np.ndarray:
    """Return the hashes of the column text, never all texts at once, shape [texts]."""
    batches = (dataset[start : start + BATCH]["text"] for start in range(0, len(dataset), BATCH))
    return hash_texts(itertools.chain.from_iterable(batches))


def write_hashes(path: Path, hashes: np.ndarray) -> None:
    """Write the hashes of the texts that a model has seen, each once, sorted."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.unique(hashes), allow_pickle=False)


def read_hashes(path: Path) -> np.ndarray | None:
    """Return what `write_hashes` has written; None if there is no such file.

    Raises:
        UserError: if it is damaged.
    """
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it, or train the model again") from None


def share_seen(texts: "datasets.Dataset", seen: np.ndarray) -> float:
    """Return which share of texts a model has seen, twins included.

    Args:
        texts: has a column text.
        seen: the hashes of those that the model has seen.
    """
    return float(np.isin(hash_column(texts), seen).mean())


def leakage_warning(share: float, lang: str) -> str:
    """Return what to say of test texts that were trained on; empty if they are few."""
    if share <= WARN_ABOVE:
        return ""
    return f"{share:.1%} of the test texts of {lang} are among the training texts too; check_corpus.py lists them"
