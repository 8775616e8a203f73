"""Texts of language models as tokens, each with the word that it is part of; tokenized once, then memory-mapped."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from utils.data.masking import frame_ids
from utils.data.ragged import Ragged
from utils.data.token_cache import LISTS, NUMBERS, cached_rows
from utils.data.token_words import NO_WORD, word_numbers
from utils.data.tokenization import BATCH, cache_key, were_longer, with_progress
from utils.errors import UserError

if TYPE_CHECKING:
    import datasets

Task = Literal["lm", "mlm", "seq2seq"]
Bos = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class Encoded:
    """Texts as tokens.

    Attributes:
        input_ids: of each text.
        words: of each token, the number of the word that it is part of, words being what white space separates;
            -1 for special tokens. Empty where the tokenizer (a slow one) does not say where its tokens lie.
        truncated: whether the text had more tokens.
    """

    input_ids: Ragged
    words: Ragged
    truncated: np.ndarray


@dataclass(frozen=True)
class Encoder:
    """Tokenizes texts.

    Args:
        name: of the texts, for progress.
        tokenizer: of the model.
        task: lm, mlm or seq2seq.
        max_length: longer texts are cut to so many tokens; None cuts none.
        bos: what causal models read before a text, see `first_token`.
        cache_dir: where tokenized texts are kept; None does not keep them.
        overwrite_cache: tokenize what is there anew.
    """

    name: str
    tokenizer: Any
    task: Task
    max_length: int | None
    bos: Bos = "auto"
    cache_dir: Path | None = None
    overwrite_cache: bool = False

    def encode(self, texts: "datasets.Dataset", target: bool = False) -> Encoded:
        """Return the texts as tokens, from the cache if they are there.

        Args:
            texts: has one column.
            target: they are labels of a sequence-to-sequence model.
        """
        if self.cache_dir is None:
            ids, words, cut = zip(*(self.encode_batch(batch, target) for batch in column_batches(texts)), strict=True)
            return Encoded(Ragged.joined(ids), Ragged.joined(words), np.concatenate(cut))
        kind = f"{self.task}{'-target' if target else ''}{'-bare' if self.bos == 'no' else ''}"
        key = cache_key(itertools.chain.from_iterable(column_batches(texts)), self.tokenizer, self.max_length or 0)
        found = cached_rows(
            self.cache_dir / f"{key}-{kind}.arrow",
            len(texts),
            {"input_ids": LISTS, "words": LISTS, "cut": NUMBERS},
            lambda: self._all(texts, target),
            self.overwrite_cache,
        )
        columns = found.data
        ids, words = (Ragged.from_arrow(columns.column(name)) for name in ("input_ids", "words"))
        return Encoded(ids, words, columns.column("cut").to_numpy().astype(bool))

    def _all(self, texts: "datasets.Dataset", target: bool) -> Iterator[list[Any]]:
        for batch in with_progress(column_batches(texts), len(texts), f"tokenizing {self.name}"):
            ids, words, cut = self.encode_batch(batch, target)
            yield [ids.to_arrow(), words.to_arrow(), cut.astype(np.int32)]

    def encode_batch(self, texts: list[str], target: bool = False) -> tuple[Ragged, Ragged, np.ndarray]:
        """Return token ids and word numbers of some texts, and which had more."""
        limit, is_fast = self.max_length, self.tokenizer.is_fast
        encoded = self.tokenizer(
            **({"text_target": texts} if target else {"text": texts}),
            truncation=limit is not None,
            max_length=limit,
            add_special_tokens=self.bos != "no",
            return_offsets_mapping=is_fast,
            verbose=False,
        )
        cut = np.zeros(len(texts), dtype=bool)
        if limit is not None:
            cut = np.array(were_longer(encoded, texts, self.tokenizer, limit), dtype=bool)
        sizes = np.array([*map(len, encoded["input_ids"])], dtype=np.int64)
        ids = np.fromiter(itertools.chain.from_iterable(encoded["input_ids"]), np.int32, sizes.sum())
        # Without offsets (slow tokenizers), words are told from the tokens themselves.
        words = ids[:0]
        if is_fast:
            places = itertools.chain.from_iterable(itertools.chain.from_iterable(encoded["offset_mapping"]))
            offsets = np.fromiter(places, np.int64, 2 * len(ids)).reshape(-1, 2)
            words = word_numbers(texts, ids, sizes, offsets, frame_ids(self.tokenizer)).astype(np.int32)
        first = first_token(self.tokenizer, self.bos) if self.task == "lm" else None
        if first is not None:
            # Without a token before it, the first one would have no prediction and so no surprisal.
            starts = np.cumsum(sizes) - sizes
            bare = (sizes == 0) | (ids[np.minimum(starts, len(ids) - 1)] != first) if len(ids) else sizes == 0
            ids = np.insert(ids, starts[bare], first)
            words = np.insert(words, starts[bare], NO_WORD) if is_fast else words
            sizes = sizes + bare
            if limit is not None and (sizes > limit).any():
                cut |= sizes > limit
                kept = np.arange(len(ids)) - np.repeat(np.cumsum(sizes) - sizes, sizes) < limit
                ids, words, sizes = ids[kept], words[kept] if is_fast else words, np.minimum(sizes, limit)
        return Ragged.from_flat(ids, sizes), Ragged.from_flat(words, sizes if is_fast else 0 * sizes), cut


def column_batches(texts: "datasets.Dataset") -> Iterator[list[str]]:
    """Yield the values of a dataset's only column, some at a time."""
    (name,) = texts.column_names
    return (texts[start : start + BATCH][name] for start in range(0, len(texts), BATCH))


def first_token(tokenizer: Any, bos: Bos) -> int | None:
    """Return the id of what causal models read before a text; None for nothing.

    Raises:
        UserError: if it has to be there and the tokenizer has neither a first nor a last token.
    """
    if bos == "no":
        return None
    found = [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None]
    if bos == "yes" and not found:
        raise UserError("--bos yes: the tokenizer has neither a token that begins texts nor one that ends them")
    return found[0] if found else None
