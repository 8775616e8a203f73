"""Tokenises once per (texts, tokenizer, max_length) into an Arrow file that all jobs share.

The cache is a folder of files named by a hash of what they were made from. A file is written under a
temporary name and renamed, so concurrent processes see all of it or nothing; a lock keeps them from doing
the same work twice where the file system supports locks.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.layout import atomic_path, locked

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

# Part of the cache's key: raise it when the contents for the same inputs change.
CACHE_VERSION = 1
# Characters per token to try first; texts that give too few tokens are taken at twice the length.
CHARACTERS_PER_TOKEN = 8
MAP_BATCH = 1000

logger = logging.getLogger(__name__)


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
    path = Path(cache_dir) / f"{cache_key(texts, tokenizer, max_length)}.arrow"
    with locked(path.with_suffix(".lock")):
        tokens = _load(path)
        if tokens is None:
            _write(path, texts, tokenizer, max_length)
            tokens = _load(path)
    return datasets.concatenate_datasets([tokens, dataset.remove_columns("text")], axis=1)


def _load(path: Path) -> "datasets.Dataset | None":
    import datasets
    import pyarrow

    if not path.is_file():
        return None
    try:
        return datasets.Dataset.from_file(str(path))
    except (pyarrow.ArrowInvalid, OSError):
        logger.warning("%s is damaged and is made again", path)
        return None


def _write(path: Path, texts: list[str], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
    import pyarrow
    from tqdm.auto import tqdm

    schema = pyarrow.schema({"input_ids": pyarrow.list_(pyarrow.int32()), "length": pyarrow.int32()})
    with (
        atomic_path(path) as temporary,
        pyarrow.ipc.new_stream(str(temporary), schema) as writer,
        tqdm(total=len(texts), desc="tokenising", unit="text", disable=None, leave=False) as progress,
    ):
        for start in range(0, len(texts), MAP_BATCH):
            input_ids = encode(texts[start : start + MAP_BATCH], tokenizer, max_length)
            lengths = [len(ids) for ids in input_ids]
            writer.write_batch(pyarrow.record_batch([input_ids, lengths], schema=schema))
            progress.update(len(input_ids))


def encode(texts: list[str], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> list[list[int]]:
    """Tokenise texts to at most `max_length` tokens each, reading no more of a long text than that takes.

    A text is first cut before a space that follows a non-space. Words there are tokenised as in the whole
    text, so if the part gives `max_length` tokens they are those of the whole text; if it gives fewer, a
    part twice as long is tried. The result never differs from tokenising the whole text.
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
    """Return a name for what tokenising these texts gives: 40 hexadecimal digits."""
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
        # Set anew by every call; they say how the last text was cut, not how the next one is tokenised.
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
