"""Surprisals of words as such, where tokens say that a word begins but none says that it ends.

That "dog" ends is predicted with what follows it, by the blank of the next token, and that one word has ended by the
first token of the next. So the probability of a word is that of its tokens, times that of all tokens with which another
word begins or the text ends, divided by that of all tokens with which it could have begun (Pimentel & Meister 2024,
arXiv:2406.14561; Oh & Schuler 2024). The first word of a text follows no blank: it is one of the words without.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.data.masking import frame_ids
from utils.data.token_words import SPACE_MARKS
from utils.errors import UserError
from utils.evaluation.tokens import EXAMPLE, NONE, Tokens, groups_of

CORRECTED = "word_surprisal_corrected_bits"
# Predictions at once in double precision: memory grows with the vocabulary.
POSITIONS = 256
BEFORE, AFTER = "_before", "_after"


class WordBoundaries:
    """Knows which tokens begin words.

    Args:
        tokenizer: of a causal model.

    Raises:
        UserError: if its tokens do not mark where words begin.
    """

    def __init__(self, tokenizer: Any):
        tokens = [token or "" for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
        special = frame_ids(tokenizer)
        marked = [token.startswith(SPACE_MARKS) and number not in special for number, token in enumerate(tokens)]
        if not any(marked):
            raise UserError("--word_correction: the tokens of this model do not mark where words begin")
        # Line breaks and the like part words as blanks do.
        blank = [tokenizer.decode([number])[:1].isspace() for number in range(len(tokens))]
        ordinary = torch.tensor([number not in special for number in range(len(tokens))])
        self.begins = (torch.tensor(marked) | torch.tensor(blank)) & ordinary
        self.continues = ordinary & ~self.begins
        self.ends = self.begins.clone()
        if tokenizer.eos_token_id is not None:
            self.ends[tokenizer.eos_token_id] = True

    def bits(self, logits: Tensor, examples: Tensor, positions: Tensor, tokens: Tensor) -> dict[str, np.ndarray]:
        """Return how surprising it is, in bits, that a token of its kind comes there, and a boundary next.

        Args:
            logits: shape [examples, positions, vocabulary].
            examples, positions: where the tokens are, shape [rows].
            tokens: their ids, shape [rows].

        Returns:
            Two columns, which `correct_words` takes.
        """
        before, after = [], []
        for places in zip(*(x.split(POSITIONS) for x in (examples, positions, tokens)), strict=True):
            rows, columns, own = places
            kinds = (_bits(logits, rows, columns - 1, kind) for kind in (self.begins, self.continues))
            before.append(torch.where(self.begins[own], *kinds))
            after.append(_bits(logits, rows, columns, self.ends))
        return {BEFORE: torch.cat(before).numpy(), AFTER: torch.cat(after).numpy()}


def _bits(logits: Tensor, examples: Tensor, positions: Tensor, kind: Tensor) -> Tensor:
    """Return -log2 of the probability that any token of a kind comes next, shape [positions]."""
    found = logits[examples.to(logits.device), positions.to(logits.device)].detach().double().log_softmax(-1)
    # Some models have more rows than their tokenizer has tokens.
    return (found[:, : len(kind)][:, kind.to(found.device)].logsumexp(-1) / -math.log(2)).cpu()


def correct_words(tokens: Tokens) -> None:
    """Give each word that is whole its corrected surprisal, in the rows of its tokens.

    Args:
        tokens: all of their lines, line by line, with the sums of words and the columns of `WordBoundaries.bits`,
            which are removed.
    """
    columns = tokens.columns
    before, after = columns.pop(BEFORE), columns.pop(AFTER)
    lines, words, is_word = tokens.lines, columns["word_num"], ~columns["token_is_special"]
    groups, _ = groups_of(lines, words)
    rows = np.arange(len(tokens))
    first, last = np.full(groups.max(initial=0) + 1, len(tokens)), np.zeros(groups.max(initial=0) + 1, dtype=np.int64)
    np.minimum.at(first, groups, rows)
    np.maximum.at(last, groups, rows)
    # What is cut may be cut in the middle of a word.
    of_line, _ = groups_of(lines)
    last_word = np.full(of_line.max(initial=0) + 1, NONE)
    np.maximum.at(last_word, of_line, words)
    truncated = np.array(tokens.examples["truncated"], dtype=bool)[columns[EXAMPLE]]
    is_cut = truncated & (words == last_word[of_line])
    corrected = columns["word_surprisal_bits"] + after[last[groups]] - before[first[groups]]
    columns[CORRECTED] = np.where(is_word & ~is_cut, corrected, np.nan)
