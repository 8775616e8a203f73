"""What is measured of each text on its own: its hash, its runs of words, and what is wrong with it.

Batches of texts are measured in several processes, few of them at a time: a corpus need not fit into memory.
"""

import functools
import itertools
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.data.twins import hash_texts
from utils.data.words import WORD
from utils.runs.processors import usable_processors

if TYPE_CHECKING:
    from concurrent.futures import Executor

# What may be wrong with a text, in the order of the bits of `Measured.problems`.
PROBLEMS = {
    "empty": "no letter and no digit",
    "short": "under five words",
    "replacement": "U+FFFD, which stands for a broken character",
    "control": "control characters",
    "mojibake": "characters read in another encoding than they were written in",
    "markup": "markup left over",
    "language": "another language than the file's",
}
# Of these, all but tabulators and ends of lines; U+FEFF marks the beginning of files and belongs in no text.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
TAGS = "a|b|br|div|em|h[1-6]|i|iframe|img|li|ol|p|script|span|strong|style|table|td|th|tr|ul"
MARKUP = re.compile(rf"</?(?:{TAGS})\b[^<>]{{0,300}}>|<!--|&(?:amp|gt|lt|nbsp|quot|#x?[0-9a-fA-F]{{2,6}});")
# Words that are compared together.
RUN = 5
# Hashes of a text that stand for its runs of words (MinHash: Broder 1997).
PERMUTATIONS = 128
# Characters that are looked at for what shows in any part of a text; a language shows in fewer.
LOOKED_AT, FOR_LANGUAGE = 20_000, 1_000
# With fewer characters, or less sure, no language is said.
LEAST_FOR_LANGUAGE, SURE = 100, 0.9
BEGINNING = 160
BATCH = 500
# Fewer are measured sooner than processes start.
FEW_BATCHES = 8
# Odd, for products modulo 2 ** 64.
FACTOR, MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


@dataclass
class Measured:
    """What is known of texts, in their order.

    Attributes:
        hashes: see `utils.data.twins`, shape [texts].
        characters: their lengths, shape [texts].
        problems: a bit for each of `PROBLEMS`, shape [texts].
        runs: hashes of the different runs of five words of each text, sorted.
        signatures: their MinHash, shape [texts, PERMUTATIONS].
        beginnings: the first characters of each text, blanks joined.
    """

    hashes: np.ndarray
    characters: np.ndarray
    problems: np.ndarray
    runs: list[np.ndarray]
    signatures: np.ndarray
    beginnings: list[str]


def measure_all(batches: Iterable[tuple[list[str], str]], workers: int | None) -> Iterator[Measured]:
    """Measure batches of texts with their languages, in their order.

    Args:
        batches: texts and the language that they should be in.
        workers: processes; None is one per processor that may be used.
    """
    workers = workers or usable_processors()
    batches = iter(batches)
    first = list(itertools.islice(batches, FEW_BATCHES))
    if workers < 2 or len(first) < FEW_BATCHES:
        for batch in itertools.chain(first, batches):
            yield measure(*batch)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from _in_order(pool, itertools.chain(first, batches), 2 * workers)


def _in_order(pool: "Executor", batches: Iterable[tuple[list[str], str]], at_once: int) -> Iterator[Measured]:
    """Yield results in order; `map` of pools would read everything first."""
    pending: deque[Any] = deque()
    for batch in batches:
        pending.append(pool.submit(measure, *batch))
        if len(pending) >= at_once:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def measure(texts: list[str], lang: str) -> Measured:
    """Measure texts.

    Args:
        texts: any.
        lang: the language that they should be in, by its code.
    """
    words = [WORD.findall(text.lower()) for text in texts]
    runs = [runs_of_words(own) for own in words]
    return Measured(
        hashes=hash_texts(texts),
        characters=np.array([len(text) for text in texts], dtype=np.int64),
        problems=np.array([_problems(*each, lang) for each in zip(texts, words, strict=True)], dtype=np.uint16),
        runs=runs,
        signatures=np.stack([signature(own) for own in runs]),
        beginnings=[" ".join(text[: 2 * BEGINNING].split())[:BEGINNING] for text in texts],
    )


def runs_of_words(words: list[str]) -> np.ndarray:
    """Return the hashes of the different runs of five words, sorted, 32 bits each; of fewer words, one of all."""
    if not words:
        return np.empty(0, dtype=np.uint32)
    numbers = np.array([zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words], dtype=np.uint64)
    length = min(RUN, len(numbers))
    hashes = np.full(len(numbers) - length + 1, length, dtype=np.uint64)
    for place in range(length):
        hashes = (hashes ^ numbers[place : len(numbers) - length + 1 + place]) * FACTOR
    return np.unique(((hashes ^ (hashes >> np.uint64(29))) * MIX >> np.uint64(32)).astype(np.uint32))


def signature(runs: np.ndarray) -> np.ndarray:
    """Return the MinHash of a text's runs of words, shape [PERMUTATIONS]."""
    own = _empty_signature().copy()
    own.update_batch(runs.tolist())
    return own.hashvalues


@functools.cache
def _empty_signature() -> Any:
    from datasketch import MinHash

    # The runs are hashes already.
    return MinHash(PERMUTATIONS, hashfunc=int, scheme="affine32")


def _problems(text: str, words: list[str], lang: str) -> int:
    found = {
        "empty": not words,
        "short": 0 < len(words) < RUN,
        "replacement": "\ufffd" in text,
        "control": bool(CONTROL.search(text)),
        "mojibake": _is_mojibake(text[:LOOKED_AT]),
        "markup": ("<" in text or "&" in text) and bool(MARKUP.search(text)),
        "language": _is_other_language(text[:FOR_LANGUAGE], lang),
    }
    return sum(found[name] << place for place, name in enumerate(PROBLEMS))


def _is_mojibake(text: str) -> bool:
    from ftfy import fix_encoding
    from ftfy.badness import is_bad

    # Most texts are settled by the first, which is fast.
    return is_bad(text) and fix_encoding(text) != CONTROL.sub("", text)


def _is_other_language(text: str, lang: str) -> bool:
    identify = language_identifier()
    if identify is None or lang not in identify.labels or len(text) < LEAST_FOR_LANGUAGE:
        return False
    found, probability = identify.classify(text)
    return found != lang and probability >= SURE


@functools.cache
def language_identifier() -> Any:
    """Return py3langid's identifier; None where it is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
