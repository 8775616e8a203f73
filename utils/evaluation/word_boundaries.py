"""Surprisals of words as such, where tokens say that a word begins but none says that it ends.

That "dog" ends is predicted with what follows it, by the blank of the next token, and that one word has ended by the
first token of the next. So the probability of a word is that of its tokens, times that of all tokens with which another
word begins or the text ends, divided by that of all tokens with which it could have begun (Pimentel & Meister 2024,
arXiv:2406.14561; Oh & Schuler 2024). The first word of a text follows no blank: it is one of the words without.
"""

import math
from typing import Any

import torch
from torch import Tensor

from utils.data.masking import frame_ids
from utils.data.token_words import SPACE_MARKS
from utils.errors import UserError

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

    def note(
        self, rows: list[dict[str, Any]], logits: Tensor, examples: Tensor, positions: Tensor, tokens: Tensor
    ) -> None:
        """Note in each row how surprising it is, in bits, that a token of its kind comes there, and a boundary next.

        Args:
            rows: of tokens.
            logits: shape [examples, positions, vocabulary].
            examples, positions: where the tokens are, shape [rows].
            tokens: their ids, shape [rows].
        """
        for start in range(0, len(rows), POSITIONS):
            part = slice(start, start + POSITIONS)
            places, own = (examples[part], positions[part]), tokens[part]
            begun = self.begins[own]
            before = torch.where(
                begun, *(_bits(logits, places[0], places[1] - 1, kind) for kind in (self.begins, self.continues))
            )
            after = _bits(logits, *places, self.ends)
            for row, first, second in zip(rows[part], before.tolist(), after.tolist(), strict=True):
                row |= {BEFORE: first, AFTER: second}


def _bits(logits: Tensor, examples: Tensor, positions: Tensor, kind: Tensor) -> Tensor:
    """Return -log2 of the probability that any token of a kind comes next, shape [positions]."""
    found = logits[examples.to(logits.device), positions.to(logits.device)].detach().double().log_softmax(-1)
    # Some models have more rows than their tokenizer has tokens.
    return (found[:, : len(kind)][:, kind.to(found.device)].logsumexp(-1) / -math.log(2)).cpu()


def correct_words(rows: list[dict[str, Any]]) -> None:
    """Give each word that is whole its corrected surprisal, in the rows of its tokens.

    Args:
        rows: of all tokens of their lines, with the sums of words and what `WordBoundaries.note` has noted, which is
            removed.
    """
    words: dict[tuple[int, int], list[dict[str, Any]]] = {}
    last: dict[int, int] = {}
    for row in rows:
        row[CORRECTED] = None
        if not row["token_is_special"]:
            words.setdefault((row["line"], row["word_num"]), []).append(row)
            last[row["line"]] = row["word_num"]
    for (line, number), own in words.items():
        # What is cut may be cut in the middle of a word.
        is_cut = own[0]["truncated"] and number == last[line]
        total = own[0]["word_surprisal_bits"]
        if total is not None and not is_cut:
            for row in own:
                row[CORRECTED] = total + own[-1][AFTER] - own[0][BEFORE]
    for row in rows:
        del row[BEFORE], row[AFTER]
