"""Tokenizes texts once per (texts, tokenizer, max_length); all jobs share them, see `utils.data.token_cache`."""

import functools
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.cli.progress import progress
from utils.data.token_cache import LISTS, NUMBERS, cached_rows
from utils.runs.files import readable

if TYPE_CHECKING:
    import datasets
    from transformers import BatchEncoding, PreTrainedTokenizerBase

# Part of the cache's key: raise it when the contents for the same inputs change.
CACHE_VERSION = 3
# Characters per token to try first; texts that give too few tokens are taken at twice the length.
CHARACTERS_PER_TOKEN = 8
BATCH = 1000
# Of a long text that is tokenized whole, and of all texts that are tokenized at a time.
CHARACTERS_AT_ONCE, CHARACTERS_TOGETHER = 100_000, 1_000_000


def load_tokenizer(folder: Path, **kwargs: Any) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a local checkpoint folder; never asks the hub.

    Raises:
        UserError: if its files are damaged.
    """
    from transformers import AutoTokenizer

    with readable(folder):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, **kwargs)
        limit = tokenizer.model_max_length
        if not isinstance(limit, (int, float)):
            raise ValueError(f"model_max_length {limit!r} is no number")
        # Some checkpoints say 1e30.
        tokenizer.model_max_length = int(limit)
        return tokenizer


def with_padding(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedTokenizerBase":
    """Return a tokenizer that has a token for padding: decoders' often have none; nothing looks at padding."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def separator(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return what the tokenizer puts between two texts: its separator, or else what it ends a text with."""
    return tokenizer.sep_token or tokenizer.eos_token or " "


def tokenize(
    dataset: "datasets.Dataset",
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    cache_dir: Path,
    whole: bool = False,
) -> "datasets.Dataset":
    """Replace the column text by input_ids, length (tokens, special tokens included) and cut (1 if it was longer).

    Args:
        dataset: has a column text; its other columns are kept, row by row.
        tokenizer: any Hugging Face tokenizer.
        max_length: longer texts are cut to this many tokens.
        cache_dir: folder of the shared cache, made if needed.
        whole: keep all tokens, without special ones, and add the column num_tokens, their number; length is what the
            model takes of them.

    Returns:
        A dataset of the same length and order whose input_ids are memory-mapped.
    """
    import datasets

    column = dataset.select_columns("text")

    def texts() -> Iterator[list[str]]:
        # Never all of them at once.
        return (column[start : start + BATCH]["text"] for start in range(0, len(column), BATCH))

    if whole:
        tokens = _tokenize_whole(texts, len(column), tokenizer, Path(cache_dir))
        full = np.asarray(tokens["num_tokens"][:]) + tokenizer.num_special_tokens_to_add()
        more = datasets.Dataset.from_dict({"length": np.minimum(full, max_length), "cut": full > max_length})
        return datasets.concatenate_datasets([tokens, more, dataset.remove_columns("text")], axis=1)

    def make() -> Iterator[tuple[list[list[int]], list[int], list[int]]]:
        for batch in with_progress(texts(), len(column), "tokenizing"):
            input_ids, cut = encode(batch, tokenizer, max_length)
            yield input_ids, [len(ids) for ids in input_ids], [*map(int, cut)]

    key = cache_key(itertools.chain.from_iterable(texts()), tokenizer, max_length)
    path = Path(cache_dir) / f"{key}.arrow"
    tokens = cached_rows(path, len(column), {"input_ids": LISTS, "length": NUMBERS, "cut": NUMBERS}, make)
    return datasets.concatenate_datasets([tokens, dataset.remove_columns("text")], axis=1)


def _tokenize_whole(
    texts: Callable[[], Iterator[list[str]]], count: int, tokenizer: "PreTrainedTokenizerBase", cache_dir: Path
) -> "datasets.Dataset":
    def make() -> Iterator[tuple[list[np.ndarray], list[int]]]:
        for batch in with_progress(texts(), count, "tokenizing"):
            input_ids = [ids for ids, _ in encode_whole(batch, tokenizer)]
            yield input_ids, [len(ids) for ids in input_ids]

    # No text is cut to 0 tokens.
    key = cache_key(itertools.chain.from_iterable(texts()), tokenizer, 0)
    return cached_rows(cache_dir / f"{key}.arrow", count, {"input_ids": LISTS, "num_tokens": NUMBERS}, make)


def count_tokens(texts: "datasets.Dataset", tokenizer: "PreTrainedTokenizerBase", cache_dir: Path) -> np.ndarray:
    """Return how many tokens texts have, without special ones; counted once, as texts are tokenized once.

    Args:
        texts: has a column text.
        tokenizer: any Hugging Face tokenizer.
        cache_dir: folder of the shared cache.
    """

    def make() -> Iterator[tuple[list[int]]]:
        for text in (row["text"] for row in texts):
            yield ([len(encode_whole([text], tokenizer)[0][0])],)

    key = cache_key((row["text"] for row in texts), tokenizer, 0)
    counted = cached_rows(cache_dir / f"{key}-numbers.arrow", len(texts), {"num_tokens": NUMBERS}, make)
    return np.asarray(counted["num_tokens"][:], dtype=np.int64)


def encode_whole(texts: list[str], tokenizer: "PreTrainedTokenizerBase") -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokenize texts of any length, a part after the other where the tokenizer allows it; no special tokens.

    Args:
        texts: any.
        tokenizer: if it is a fast one, the second results are not empty.

    Returns:
        Of each text its tokens, int32, shape [tokens]; and of each token the first character and that behind the last
        one, shape [tokens, 2].
    """
    found: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in texts]
    with_places = bool(getattr(tokenizer, "is_fast", False))
    for together in _together(_parts_of(texts, tokenizer)):
        encoded = tokenizer(
            [part for _, _, part in together],
            add_special_tokens=False,
            return_attention_mask=False,
            return_offsets_mapping=with_places,
            verbose=False,
        )
        for index, (text, start, _) in enumerate(together):
            found[text][0].append(np.array(encoded["input_ids"][index], dtype=np.int32))
            if with_places:
                places = np.array(encoded["offset_mapping"][index], dtype=np.int64)
                found[text][1].append(places.reshape(-1, 2) + start)
    nowhere = np.empty((0, 2), dtype=np.int64)
    return [(np.concatenate(ids), np.concatenate(places) if places else nowhere) for ids, places in found]


def _parts_of(texts: list[str], tokenizer: "PreTrainedTokenizerBase") -> Iterator[tuple[int, int, str]]:
    """Yield the parts of texts, which give the tokens of the whole: index of the text, first character, the part."""
    characters = CHARACTERS_AT_ONCE if _splits_at_spaces(tokenizer, tokenizer.truncation_side) else sys.maxsize
    for index, text in enumerate(texts):
        start = 0
        while start < len(text) or not start:
            part = text[start:]
            if len(part) > characters:
                part = _cut(part[: characters + 1], characters)
            # Without a space to cut at, all that is left.
            part = part if len(part) <= characters else text[start:]
            yield index, start, part
            if not text:
                break
            start += len(part)


def _together(parts: Iterator[tuple[int, int, str]]) -> Iterator[list[tuple[int, int, str]]]:
    """Yield parts that are tokenized at a time: a tokenizer takes as many as there are processors."""
    together: list[tuple[int, int, str]] = []
    characters = 0
    for part in parts:
        if together and characters + len(part[2]) > CHARACTERS_TOGETHER:
            yield together
            together, characters = [], 0
        together.append(part)
        characters += len(part[2])
    if together:
        yield together


def with_progress(batches: Iterable[list[str]], total: int, description: str) -> Iterator[list[str]]:
    """Yield batches of texts, with a progress bar."""
    with progress(total=total, desc=description, unit="text") as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def encode(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> tuple[list[list[int]], list[bool]]:
    """Tokenize texts to at most `max_length` tokens each, reading no more of a long text than that takes.

    Returns the tokens of each text, and whether it had more.

    A text is first cut before a space that follows a non-space. If the tokenizer splits there, words are
    tokenized as in the whole text, so if the part gives more than `max_length` tokens the first are those of the
    whole text; if it gives fewer, a part twice as long is tried. The result never differs from tokenizing the whole
    text: other tokenizers, and those that keep a text's end, get all of it.
    """
    input_ids: list[list[int]] = [[]] * len(texts)
    cut = [False] * len(texts)
    pending = list(range(len(texts)))
    characters = (
        CHARACTERS_PER_TOKEN * max_length if _splits_at_spaces(tokenizer, tokenizer.truncation_side) else sys.maxsize
    )
    while pending:
        parts = [_cut(texts[i], characters) for i in pending]
        encoded = tokenizer(parts, truncation=True, max_length=max_length, return_attention_mask=False)
        longer = were_longer(encoded, parts, tokenizer, max_length)
        short = []
        for i, part, ids, more in zip(pending, parts, encoded["input_ids"], longer, strict=True):
            input_ids[i], is_part = ids, len(part) < len(texts[i])
            cut[i] = more
            # Enough tokens are not enough: whether there are more decides about `cut`.
            if is_part and not more:
                short.append(i)
        pending, characters = short, characters * 2
    return input_ids, cut


def were_longer(
    encoded: "BatchEncoding", texts: list[str], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> list[bool]:
    """Return which texts had more than the `max_length` tokens that they were cut to."""
    full = [len(ids) >= max_length for ids in encoded["input_ids"]]
    if encoded.encodings is not None:
        return [is_full and bool(encoded.encodings[i].overflowing) for i, is_full in enumerate(full)]
    # Slow tokenizers do not say what they have left out.
    whole = tokenizer([text for text, is_full in zip(texts, full, strict=True) if is_full] or [""])["input_ids"]
    lengths = iter(whole)
    return [is_full and len(next(lengths)) > max_length for is_full in full]


def splits_at_spaces(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Return whether what a tokenizer makes of a text's beginning never depends on what follows its next space.

    Proven for the kinds that split a text into words first, which no token then spans; for all others this is False.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or tokenizer.truncation_side != "right":
        return False
    described = json.loads(backend.to_str())
    spanning = any(re.search(r"\s", token["content"]) for token in described["added_tokens"])
    normalizers = _parts(described["normalizer"], "normalizers")
    splitters = _parts(described["pre_tokenizer"], "pretokenizers")
    # What a space may become, so that words are still split there.
    marks = {
        " ",
        *(part["replacement"] for part in splitters if part["type"] == "Metaspace" and part.get("split", True)),
    }
    return not spanning and all(_keeps_spaces(x, marks) for x in normalizers) and any(map(_splits, splitters))


@functools.lru_cache(maxsize=4)
def _splits_at_spaces(tokenizer: "PreTrainedTokenizerBase", truncation_side: str) -> bool:
    """Ask once: of a quarter of a million tokens the answer takes half a second."""
    return splits_at_spaces(tokenizer)


def _parts(described: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if described is None:
        return []
    return [part for each in described[key] for part in _parts(each, key)] if key in described else [described]


def _splits(pre_tokenizer: dict[str, Any]) -> bool:
    kind = pre_tokenizer["type"]
    if kind in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit"):
        return True
    return (kind == "Metaspace" and pre_tokenizer.get("split", True)) or (
        kind == "ByteLevel" and pre_tokenizer.get("use_regex", True)
    )


def _keeps_spaces(normalizer: dict[str, Any], marks: set[str]) -> bool:
    kind = normalizer["type"]
    if kind == "Replace":
        # Runs of white space become a space, as in the normalizers of SentencePiece.
        pattern = next(iter(normalizer["pattern"].values()))
        return normalizer["content"] in marks if re.search(r"\s|\\s", pattern) else True
    plain = ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "BertNormalizer", "Precompiled")
    return kind in plain


def _cut(text: str, characters: int) -> str:
    """Cut before the last space within `characters` that follows a non-space; without one, do not cut."""
    if len(text) <= characters:
        return text
    end = text.rfind(" ", 1, characters)
    while end > 0 and text[end - 1].isspace():
        end = text.rfind(" ", 1, end)
    return text[:end] if end > 0 else text


def cache_key(texts: Iterable[str], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> str:
    """Return a name for what tokenizing these texts gives: 40 hexadecimal digits."""
    key = hashlib.sha256(json.dumps([CACHE_VERSION, max_length, _describe(tokenizer)]).encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        key.update(len(encoded).to_bytes(8, "little"))
        key.update(encoded)
    return key.hexdigest()[:40]


def _describe(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """All of a tokenizer that decides about its tokens, as JSON."""
    import tokenizers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        model = json.loads(backend.to_str())
        # Set anew by every call; they say how the last text was cut, not how the next one is tokenized.
        model.pop("truncation", None)
        model.pop("padding", None)
    else:
        model = sorted(tokenizer.get_vocab().items())
    return {
        "class": type(tokenizer).__name__,
        "library": tokenizers.__version__,
        "model": model,
        "special_tokens": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "truncation_side": tokenizer.truncation_side,
    }
