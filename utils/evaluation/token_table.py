"""Rows of per-token surprisals, in bits: what a language model did not expect.

The surprisal of a token is -log2 of its probability: given the tokens before it (causal models), given the
rest of the masked text (masked models), given the input and the label tokens before it (seq2seq models). A
row stands for a token that has a label, so that the mean over the rows is the loss; `token_is_masked` says whether
the model has read a mask in its place.
"""

import itertools
import json
import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.data.lm_examples import Batch, Task
from utils.data.masking import IGNORED, frame_ids, sentinel_ids
from utils.data.token_words import NO_WORD, SPACE_MARKS
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
# Predictions computed at once in double precision: memory grows with the vocabulary.
POSITIONS = 256
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
        self.continues_with_hashes = any(token.startswith("##") for token in tokenizer.get_vocab())
        self._tokens: dict[int, str] = {}

    def rows(self, batch: Batch, logits: Tensor, more: Row | None = None) -> list[Row]:
        """Return a row per token that has a label, example by example.

        Args:
            batch: the examples, with the labels that the logits predict.
            logits: of the model's output for them, shape [examples, tokens, vocabulary].
            more: further columns, the same in all rows.
        """
        labels = batch.inputs["labels"]
        examples, positions = self._positions(batch)
        tokens = labels[examples, positions]
        # A causal model predicts each token where the one before it stands.
        found = surprisals(logits, examples, positions - int(self.task == "lm"), tokens)
        rows: list[Row] = []
        columns = (positions.tolist(), tokens.tolist(), *found)
        bounds = np.searchsorted(examples.numpy(), np.arange(len(labels) + 1))
        for example, (start, stop) in enumerate(itertools.pairwise(bounds)):
            part: list[list[Any]] = [values[start:stop] for values in columns]
            described = self._describe(batch, example, more or {})
            metadata = clean_metadata(batch.metadata[example], self.reserved)
            rows += [{**row, **metadata} for row in self._example_rows(batch, example, described, *part)]
        if self.boundaries:
            self.boundaries.note(rows, logits, examples, positions, tokens)
        return rows

    def _positions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        labels = batch.inputs["labels"]
        wanted = labels != IGNORED
        if self.task == "lm":
            wanted = wanted & (torch.arange(labels.shape[1]) > 0)
        return wanted.nonzero(as_tuple=True)

    def _describe(self, batch: Batch, example: int, more: Row) -> Row:
        length = int(batch.inputs["attention_mask"][example].sum())
        # Masks and sentinels are part of what the model read, the frame of special tokens is not.
        shown = {self.tokenizer.mask_token_id, *sentinel_ids(self.tokenizer)}
        ids = batch.inputs["input_ids"][example][:length].tolist()
        return {
            "item": batch.items[example],
            "line": batch.items[example] + 1,
            "original_text": batch.texts[example],
            "input_text": self.tokenizer.decode([i for i in ids if i in shown or i not in self.special]),
            "input_label": batch.labels[example],
            "truncated": batch.truncated[example],
            **more,
        }

    def _example_rows(
        self,
        batch: Batch,
        example: int,
        described: Row,
        positions: list[int],
        tokens: list[int],
        bits: list[float],
        predicted: list[int],
        predicted_bits: list[float],
    ) -> Iterator[Row]:
        whole, length = self._whole_labels(batch, example)
        words = self._words(batch.words[example], batch.places[example], whole, length)
        places = batch.places[example]
        # Of spans and windows, the words are those of the text that they were taken from.
        all_words = words if places is None else batch.words[example]
        members = members_of(all_words)
        numbers = {
            place: number for number, place in enumerate(np.flatnonzero(np.array(all_words) != NO_WORD).tolist())
        }
        masked = self._masked(batch, example)
        bits_of_word: dict[tuple[int, bool], float] = {}
        for position, value in zip(positions, bits, strict=True):
            key = words[position], masked[position]
            bits_of_word[key] = bits_of_word.get(key, 0.0) + value
        for position, token, value, guess, guess_bits in zip(
            positions, tokens, bits, predicted, predicted_bits, strict=True
        ):
            word = words[position]
            place = position if places is None else places[position]
            own = members.get(word, [place])
            is_special = word == NO_WORD
            # Where each example has but some of the word's tokens, its sum is over several examples: see `sum_words`.
            # Where nothing stands before a text, its first token has no surprisal, and the first word no sum.
            known = (len(own) == 1 or not batch.is_expanded) and not (self.task == "lm" and own[0] == 0)
            yield {
                **described,
                "token_num": numbers.get(place),
                "word_num": None if is_special else word,
                "word": None if is_special else self._word(batch, example, word, own, whole),
                "token_num_in_word": None if is_special else own.index(place),
                "token": self._decode(token),
                "token_id": token,
                "token_is_start_of_word": not is_special and place == own[0],
                "token_is_word": not is_special and len(own) == 1,
                "token_is_special": is_special,
                "token_is_masked": masked[position],
                "surprisal_bits": value,
                "word_surprisal_bits": value if is_special else bits_of_word[word, masked[position]] if known else None,
                "predicted_token": self._decode(guess),
                "predicted_token_id": guess,
                "predicted_token_surprisal_bits": guess_bits,
            }

    def _masked(self, batch: Batch, example: int) -> list[bool]:
        """Return where the model has read a mask in place of the token."""
        if self.task != "mlm":
            return [False] * batch.inputs["labels"].shape[1]
        return (batch.inputs["input_ids"][example] == self.tokenizer.mask_token_id).tolist()

    def _word(self, batch: Batch, example: int, word: int, own: list[int], whole: list[int]) -> str:
        if batch.places[example] is None:
            return self.tokenizer.decode([whole[i] for i in own]).strip()
        return batch.texts[example].split()[word]

    def _whole_labels(self, batch: Batch, example: int) -> tuple[list[int], int]:
        """Return the labels, with the inputs where there are none, and how many of them are not padding."""
        labels = batch.inputs["labels"][example].tolist()
        if self.task == "seq2seq":
            length = sum(token != IGNORED for token in labels)
            return labels, length
        inputs = batch.inputs["input_ids"][example].tolist()
        whole = [given if token == IGNORED else token for token, given in zip(labels, inputs, strict=True)]
        return whole, int(batch.inputs["attention_mask"][example].sum())

    def _words(self, words: list[int], places: list[int] | None, whole: list[int], length: int) -> list[int]:
        """Return the word number of every label position.

        Args:
            words: as they were tokenized; they hold unless preprocessing has changed the number of tokens.
            places: see `Batch`.
            whole: the label tokens.
            length: how many of them are not padding.
        """
        padding = [NO_WORD] * (len(whole) - length)
        if places is not None:
            return [NO_WORD if place == NO_WORD else words[place] for place in places] + padding
        if len(words) == length:
            return words + padding
        numbers, number, begins = [], -1, True
        for token in whole[:length]:
            is_special = token in self.special
            if not is_special:
                text = self.tokenizer.convert_ids_to_tokens(token)
                hashes = self.continues_with_hashes
                number += begins or (not text.startswith("##") if hashes else text.startswith(SPACE_MARKS))
            numbers.append(NO_WORD if is_special else number)
            begins = is_special
        return numbers + padding

    def _decode(self, token: int) -> str:
        if token not in self._tokens:
            self._tokens[token] = self.tokenizer.decode([token])
        return self._tokens[token]


def surprisals(
    logits: Tensor, examples: Tensor, positions: Tensor, tokens: Tensor
) -> tuple[list[float], list[int], list[float]]:
    """Return surprisals in bits of some tokens, computed in double precision.

    Args:
        logits: shape [examples, positions, vocabulary].
        examples, positions: where the tokens are predicted, shape [n].
        tokens: their ids, shape [n].

    Returns:
        The tokens' surprisals, the ids of the likeliest tokens there and the surprisals of these.
    """
    parts: list[list[Tensor]] = []
    for rows, columns, ids in zip(
        *(x.to(logits.device).split(POSITIONS) for x in (examples, positions, tokens)), strict=True
    ):
        bits = logits[rows, columns].detach().double().log_softmax(-1) / -math.log(2)
        least = bits.min(-1)
        parts.append([bits.gather(1, ids[:, None])[:, 0].cpu(), least.indices.cpu(), least.values.cpu()])
    bits_of_tokens, ids_of_likeliest, bits_of_likeliest = (
        [value for part in parts for value in part[index].tolist()] for index in range(3)
    )
    return bits_of_tokens, ids_of_likeliest, bits_of_likeliest


def members_of(words: list[int]) -> dict[int, list[int]]:
    """Return the positions of every word's tokens."""
    members: dict[int, list[int]] = {}
    for position, word in enumerate(words):
        if word != NO_WORD:
            members.setdefault(word, []).append(position)
    return members


def sum_words(rows: list[Row]) -> None:
    """Fill in the words' sums where each of a word's tokens is in an example of its own (`expand_with_masks`).

    Args:
        rows: of all examples of their lines.
    """
    members: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        if not row["token_is_special"]:
            members.setdefault((row["line"], row["word_num"]), []).append(row)
    for own in members.values():
        numbers = [row["token_num_in_word"] for row in own]
        # Other functions may leave tokens out, or hide one several times.
        if sorted(numbers) == list(range(len(numbers))):
            total = sum(row["surprisal_bits"] for row in own)
            for row in own:
                row["word_surprisal_bits"] = total


def clean_metadata(metadata: Row, reserved: Collection[str] = ()) -> Row:
    """Return metadata as columns: lists and objects as JSON, names that are ours with ``metadata_`` before them."""
    return {
        metadata_column(key, reserved): json.dumps(value) if isinstance(value, (dict, list)) else value
        for key, value in metadata.items()
    }


def metadata_column(key: str, reserved: Collection[str] = ()) -> str:
    """Return the name of the column that a key of the metadata becomes."""
    is_ours = key in COLUMNS or key in PLACES or key in reserved or key == CORRECTED
    return f"metadata_{key}" if is_ours and key not in REPLACEABLE else key
