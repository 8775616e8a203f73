"""Tokenizes texts once per (texts, tokenizer, max_length); all jobs share them, see `utils.data.token_cache`."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cli.progress import progress
from utils.data.token_cache import LISTS, NUMBERS, cached_rows

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

# Part of the cache's key: raise it when the contents for the same inputs change.
CACHE_VERSION = 2
# Characters per token to try first; texts that give too few tokens are taken at twice the length.
CHARACTERS_PER_TOKEN = 8
BATCH = 1000


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a local checkpoint folder; never asks the hub."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def separator(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return what the tokenizer puts between two texts: its separator, or else what it ends a text with."""
    return tokenizer.sep_token or tokenizer.eos_token or " "


def tokenize(
    dataset: "datasets.Dataset", tokenizer: "PreTrainedTokenizerBase", max_length: int, cache_dir: Path
) -> "datasets.Dataset":
    """Replace the column text by input_ids and length (tokens, special tokens included).

    Args:
        dataset: has a column text; its other columns are kept, row by row.
        tokenizer: any Hugging Face tokenizer.
        max_length: longer texts are cut to this many tokens.
        cache_dir: folder of the shared cache, made if needed.

    Returns:
        A dataset of the same length and order whose input_ids are memory-mapped.
    """
    import datasets

    texts = dataset["text"][:]

    def make() -> Iterator[tuple[list[list[int]], list[int]]]:
        for batch in text_batches(texts, "tokenizing"):
            input_ids = encode(batch, tokenizer, max_length)
            yield input_ids, [len(ids) for ids in input_ids]

    path = Path(cache_dir) / f"{cache_key(texts, tokenizer, max_length)}.arrow"
    tokens = cached_rows(path, len(texts), {"input_ids": LISTS, "length": NUMBERS}, make)
    return datasets.concatenate_datasets([tokens, dataset.remove_columns("text")], axis=1)


def text_batches(texts: list[str], description: str) -> Iterator[list[str]]:
    """Yield texts in batches that a tokenizer takes at once, with a progress bar on terminals."""
    with progress(total=len(texts), desc=description, unit="text") as bar:
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            yield batch
            bar.update(len(batch))


def encode(texts: list[str], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> list[list[int]]:
    """Tokenize texts to at most `max_length` tokens each, reading no more of a long text than that takes.

    A text is first cut before a space that follows a non-space. Words there are tokenized as in the whole
    text, so if the part gives `max_length` tokens they are those of the whole text; if it gives fewer, a
    part twice as long is tried. The result never differs from tokenizing the whole text.
    """
    input_ids: list[list[int]] = [[]] * len(texts)
    pending, characters = list(range(len(texts))), CHARACTERS_PER_TOKEN * max_length
    while pending:
        parts = [_cut(texts[i], characters) for i in pending]
        encoded = tokenizer(parts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
        short = []
        for i, part, ids in zip(pending, parts, encoded, strict=True):
            input_ids[i] = ids
            if len(part) < len(texts[i]) and len(ids) < max_length:
                short.append(i)
        pending, characters = short, characters * 2
    return input_ids


def _cut(text: str, characters: int) -> str:
    """Cut before the last space within `characters` that follows a non-space; without one, do not cut."""
    if len(text) <= characters:
        return text
    end = text.rfind(" ", 1, characters)
    while end > 0 and text[end - 1].isspace():
        end = text.rfind(" ", 1, end)
    return text[:end] if end > 0 else text


def cache_key(texts: list[str], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> str:
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
