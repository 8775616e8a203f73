"""Rows of per-token surprisals, in bits: what a language model did not expect.

The surprisal of a token is -log2 of its probability: given the tokens before it (causal models), given the
rest of the masked text (masked models), given the input and the label tokens before it (seq2seq models). A
row stands for a token that has a label, so that the mean over the rows is the loss; `token_is_masked` says whether
the model has read a mask in its place.
"""

import itertools
import json
import math
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.data.lm_encoding import Task
from utils.data.lm_examples import Batch
from utils.data.masking import IGNORED, frame_ids, sentinel_ids
from utils.data.token_words import NO_WORD, SPACE_MARKS
from utils.evaluation.tokens import EXAMPLE, NONE, Tokens, groups_of
from utils.evaluation.word_boundaries import CORRECTED, WordBoundaries

COLUMNS = (
    "item", "line", "original_text", "input_text", "input_label", "truncated", "token_num", "word_num", "word",
    "token_num_in_word", "token", "token_id", "token_is_start_of_word", "token_is_word", "token_is_special",
    "token_is_masked", "surprisal_bits",
    "word_surprisal_bits", "predicted_token", "predicted_token_id", "predicted_token_surprisal_bits",
)  # fmt: skip
# Of tables that have them: where a row comes from, and the losses of its batch.
PLACES = ("dataset_name", "split", "epoch", "batch", "loss")
# What a metadata file may replace: the number of the example in its experiment.
REPLACEABLE = ("item",)
# Scores of the vocabulary that are computed with at once: they are copied.
SCORES = 2**23
# Words whose texts are remembered.
WORDS_KEPT = 100_000
Row = dict[str, Any]


class TokenTable:
    """Makes rows of batches and their logits.

    Args:
        tokenizer: of the model.
        task: lm, mlm or seq2seq.
        reserved: names of columns beside `COLUMNS` and `PLACES`, which no metadata may have.
        boundaries: where words begin, for `word_boundaries.correct_words`.
    """

    def __init__(
        self, tokenizer: Any, task: Task, reserved: Collection[str] = (), boundaries: WordBoundaries | None = None
    ):
        self.tokenizer = tokenizer
        self.task = task
        self.reserved = reserved
        self.boundaries = boundaries
        self.special = frame_ids(tokenizer)
        # Masks and sentinels are part of what the model read, the frame of special tokens is not.
        self.hidden = self.special - {tokenizer.mask_token_id, *sentinel_ids(tokenizer)}
        self.continues_with_hashes = any(token.startswith("##") for token in tokenizer.get_vocab())
        self._tokens: dict[int, str] = {}
        self._words: dict[tuple[int, ...], str] = {}

    def tokens(self, batch: Batch, logits: Tensor, more: Row | None = None) -> Tokens:
        """Return a row per token that has a label, example by example.

        Args:
            batch: the examples, with the labels that the logits predict.
            logits: of the model's output for them, shape [examples, tokens, vocabulary].
            more: further columns, the same in all rows.
        """
        labels = batch.inputs["labels"]
        examples, positions = self._positions(labels)
        ids = labels[examples, positions]
        # A causal model predicts each token where the one before it stands.
        bits, predicted, predicted_bits = surprisals(logits, examples, positions - int(self.task == "lm"), ids)
        columns = {EXAMPLE: examples.numpy(), "token_id": ids.numpy(), "surprisal_bits": bits}
        columns["token_is_masked"] = self._masked(batch, examples, positions)
        columns |= self._words_of_rows(batch, examples.numpy(), positions.numpy())
        columns["word_surprisal_bits"] = self._sums(columns, batch.is_expanded)
        columns |= {"predicted_token_id": predicted, "predicted_token_surprisal_bits": predicted_bits}
        if self.boundaries:
            columns |= self.boundaries.bits(logits, examples, positions, ids)
        columns.pop(_FIRST)
        columns.pop(_SIZE)
        return Tokens(columns, self._describe(batch, more or {}))

    def _positions(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        wanted = labels != IGNORED
        if self.task == "lm":
            wanted = wanted & (torch.arange(labels.shape[1]) > 0)
        return wanted.nonzero(as_tuple=True)

    def _describe(self, batch: Batch, more: Row) -> dict[str, list[Any]]:
        """Return columns of what describes the examples."""
        sizes = batch.inputs["attention_mask"].sum(1).tolist()
        rows = zip(batch.inputs["input_ids"].tolist(), sizes, strict=True)
        shown = [[i for i in row[:size] if i not in self.hidden] for row, size in rows]
        found: dict[str, list[Any]] = {
            "item": batch.items,
            "line": [item + 1 for item in batch.items],
            "original_text": batch.texts,
            "input_text": self.tokenizer.batch_decode(shown),
            "input_label": batch.labels,
            "truncated": batch.truncated,
            **{name: [value] * len(batch) for name, value in more.items()},
        }
        metadata = batch.metadata
        for key in dict.fromkeys(key for entry in metadata for key in entry):
            found[metadata_column(key, self.reserved)] = [cell(entry.get(key)) for entry in metadata]
        return found

    def _masked(self, batch: Batch, examples: Tensor, positions: Tensor) -> np.ndarray:
        """Return where the model has read a mask in place of the token."""
        if self.task != "mlm":
            return np.zeros(len(examples), dtype=bool)
        return (batch.inputs["input_ids"][examples, positions] == self.tokenizer.mask_token_id).numpy()

    def _words_of_rows(self, batch: Batch, examples: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Return columns of what word each row's token is part of, and of its place in it.

        Of spans and windows, the words are those of the text that they were taken from.
        """
        whole, lengths = self._whole_labels(batch)
        moved = batch.places
        words = [
            self._words_of(own, places, row[:length].tolist())
            for own, places, row, length in zip(batch.words, moved, whole, lengths, strict=True)
        ]
        starts = np.cumsum([0, *map(len, words)])
        flat = np.concatenate(words) if words else np.zeros(0, dtype=np.int64)
        owners = np.repeat(np.arange(len(words)), np.diff(starts))
        places = positions.copy()
        for number, own in enumerate(moved):
            if own is not None:
                places[examples == number] = own[positions[examples == number]]
        is_added = places == NO_WORD
        # Of the text's tokens, all texts one after the other; any one will do for what is none of them.
        rows = np.where(is_added, 0, places) + starts[:-1][examples]
        is_special = is_added | (flat[rows] == NO_WORD)
        groups, ranks = groups_of(owners, flat)
        sizes = np.bincount(groups)
        order = np.argsort(groups, kind="stable")
        first = order[np.cumsum(sizes) - sizes]
        wanted = np.bincount(groups[rows[~is_special]], minlength=len(sizes)) > 0
        ids = [
            row[:length] if places is None else np.zeros(len(own), dtype=np.int64)
            for row, length, places, own in zip(whole, lengths, moved, words, strict=True)
        ]
        in_order, bounds = np.concatenate(ids)[order].tolist(), [0, *np.cumsum(sizes).tolist()]
        members = [tuple(in_order[start:stop]) for start, stop in itertools.pairwise(bounds)]
        texts = self._texts_of_words(batch, wanted, owners[first], flat[first], members)[groups[rows]]
        texts[is_special] = None
        named = np.cumsum(flat != NO_WORD)
        before = np.concatenate([[0], named])[starts[:-1]]
        return {
            "token_num": np.where(is_special, NONE, named[rows] - 1 - before[examples]),
            "word_num": np.where(is_special, NONE, flat[rows]),
            "word": texts,
            "token_num_in_word": np.where(is_special, NONE, ranks[rows]),
            "token_is_start_of_word": ~is_special & (ranks[rows] == 0),
            "token_is_word": ~is_special & (sizes[groups[rows]] == 1),
            "token_is_special": is_special,
            _FIRST: (first - starts[:-1][owners[first]])[groups[rows]],
            _SIZE: sizes[groups[rows]],
        }

    def _texts_of_words(
        self, batch: Batch, wanted: np.ndarray, owners: np.ndarray, numbers: np.ndarray, members: list[tuple[int, ...]]
    ) -> np.ndarray:
        """Return texts of words.

        Args:
            batch: that they are in.
            wanted: which of them; others are left empty.
            owners: the example of each.
            numbers: its number there.
            members: its tokens, where these are the labels.
        """
        texts = np.empty(len(wanted), dtype=object)
        split = {owner: batch.texts[owner].split() for owner, places in enumerate(batch.places) if places is not None}
        described = zip(wanted.tolist(), owners.tolist(), numbers.tolist(), members, strict=True)
        for place, (is_wanted, owner, number, ids) in enumerate(described):
            if is_wanted:
                texts[place] = split[owner][number] if owner in split else self._decode_word(ids)
        return texts

    def _sums(self, columns: dict[str, np.ndarray], is_expanded: bool) -> np.ndarray:
        """Return the sum over the tokens of each row's word; NaN where it is not known."""
        bits = columns["surprisal_bits"]
        groups, _ = groups_of(columns[EXAMPLE], columns["word_num"], columns["token_is_masked"].astype(np.int64))
        sums = np.bincount(groups, bits)[groups] if len(bits) else bits
        # Where each example has but some of the word's tokens, its sum is over several examples: see `sum_words`.
        # Where nothing stands before a text, its first token has no surprisal, and the first word no sum.
        known = (columns[_SIZE] == 1) | (not is_expanded)
        if self.task == "lm":
            known &= columns[_FIRST] != 0
        return np.where(columns["token_is_special"], bits, np.where(known, sums, np.nan))

    def _whole_labels(self, batch: Batch) -> tuple[list[np.ndarray], list[int]]:
        """Return the labels, with the inputs where there are none, and how many of them are not padding."""
        labels = batch.inputs["labels"]
        if self.task == "seq2seq":
            return list(labels.numpy()), (labels != IGNORED).sum(1).tolist()
        whole = torch.where(labels == IGNORED, batch.inputs["input_ids"], labels)
        return list(whole.numpy()), batch.inputs["attention_mask"].sum(1).tolist()

    def _words_of(self, words: np.ndarray, places: np.ndarray | None, whole: list[int]) -> np.ndarray:
        """Return the word number of every token of the text, of every label where the text is not known.

        Args:
            words: as they were tokenized; they hold unless preprocessing has changed the number of tokens.
            places: see `Batch`.
            whole: the label tokens.
        """
        if places is not None or len(words) == len(whole):
            return words
        numbers, number, begins = [], -1, True
        for token in whole:
            is_special = token in self.special
            if not is_special:
                text = self.tokenizer.convert_ids_to_tokens(token)
                hashes = self.continues_with_hashes
                number += begins or (not text.startswith("##") if hashes else text.startswith(SPACE_MARKS))
            numbers.append(NO_WORD if is_special else number)
            begins = is_special
        return np.array(numbers, dtype=np.int64)

    def decode(self, token: int) -> str:
        """Return the text of a token."""
        if token not in self._tokens:
            self._tokens[token] = self.tokenizer.decode([token])
        return self._tokens[token]

    def _decode_word(self, ids: tuple[int, ...]) -> str:
        if ids not in self._words:
            if len(self._words) > WORDS_KEPT:
                self._words.clear()
            self._words[ids] = self.tokenizer.decode(list(ids)).strip()
        return self._words[ids]


# Of the word of a row: the position of its first token in its text, and how many tokens it has.
_FIRST, _SIZE = "_first", "_size"


def surprisals(
    logits: Tensor, examples: Tensor, positions: Tensor, tokens: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return surprisals in bits of some tokens.

    They are as precise as the logits, single precision at least.

    Args:
        logits: shape [examples, positions, vocabulary].
        examples, positions: where the tokens are predicted, shape [n].
        tokens: their ids, shape [n].

    Returns:
        The tokens' surprisals, the ids of the likeliest tokens there and the surprisals of these.
    """
    parts: list[list[Tensor]] = []
    at_once = max(1, SCORES // logits.shape[-1])
    for rows, columns, ids in zip(
        *(x.to(logits.device).split(at_once) for x in (examples, positions, tokens)), strict=True
    ):
        scores = logits[rows, columns].detach()
        scores = scores if scores.dtype == torch.float64 else scores.float()
        own = scores.gather(1, ids[:, None])[:, 0].double()
        highest, likeliest = scores.max(-1)
        total = scores.sub_(highest[:, None]).exp_().sum(-1).double().log()
        of_tokens = (total + (highest.double() - own)) / math.log(2)
        parts.append([of_tokens.cpu(), likeliest.cpu(), (total / math.log(2)).cpu()])
    of_tokens, likeliest, of_likeliest = (torch.cat(values) for values in zip(*parts, strict=True))
    return of_tokens.numpy(), likeliest.numpy(), of_likeliest.numpy()


def sum_words(tokens: Tokens) -> None:
    """Fill in the words' sums where each of a word's tokens is in an example of its own (`expand_with_masks`).

    Args:
        tokens: of all examples of their lines.
    """
    columns = tokens.columns
    groups, _ = groups_of(tokens.lines, columns["word_num"])
    numbers = columns["token_num_in_word"]
    counts = np.bincount(groups)
    # Other functions may leave tokens out, or hide one several times: those of a word are 0, 1, 2, ... each once.
    unique = np.unique(np.stack([groups, numbers]), axis=1) if len(groups) else np.zeros((2, 0), dtype=np.int64)
    highest = np.full(len(counts), -1)
    np.maximum.at(highest, groups, numbers)
    is_whole = (np.bincount(unique[0], minlength=len(counts)) == counts) & (highest + 1 == counts)
    sums = np.bincount(groups, columns["surprisal_bits"], len(counts))
    wanted = ~columns["token_is_special"] & is_whole[groups]
    columns["word_surprisal_bits"] = np.where(wanted, sums[groups], columns["word_surprisal_bits"])


def cell(value: Any) -> Any:
    """Return a value of the metadata as a table holds it: lists and objects as JSON."""
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def metadata_column(key: str, reserved: Collection[str] = ()) -> str:
    """Return the name of the column that a key of the metadata becomes."""
    is_ours = key in COLUMNS or key in PLACES or key in reserved or key == CORRECTED
    return f"metadata_{key}" if is_ours and key not in REPLACEABLE else key
