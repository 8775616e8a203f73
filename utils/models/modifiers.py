"""What changes a language model before and while it is fine-tuned: new tokens, frozen and unfrozen weights.

A callback is made once with the model and the tokenizer. Its call, with the numbers of epoch and batch,
comes after the backward pass and before the optimizer's step; `restore` comes after the step.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn

from utils.data.masking import single_token_ids
from utils.errors import UserError, nearest

Index = tuple | slice


def add_new_tokens(model: nn.Module, tokenizer: Any, added_tokens: str | list[str]) -> tuple[nn.Module, Any]:
    """Add tokens to the vocabulary and rows to the embeddings for them; returns model and tokenizer.

    The new rows are drawn as transformers draws them, from a normal distribution with the mean and the
    covariance of the old ones (https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
    """
    tokens = [added_tokens] if isinstance(added_tokens, str) else list(added_tokens)
    tokenizer.add_tokens(tokens)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    return model, tokenizer


class PartiallyFrozenModelCallback:
    """Freezes the parameters that are named, or all but these.

    A name may be followed by an index of rows: ``NAME[3]``, ``NAME[(3,5,8)]``, ``NAME[2:10]``, and one for
    each further dimension after a comma: ``NAME[(3,5),:4]``. Frozen weights have no gradient in the
    optimizer's step and are put back after it, because weight decay and momentum move weights without one.

    Args:
        model: the model that is trained.
        tokenizer: not needed here; callbacks get it.
        frozen_params: what to freeze; all else is trained.
        unfrozen_params: what to train; all else is frozen.

    Raises:
        UserError: unless exactly one of the two is given, and for names or indices that the model has not.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        frozen_params: str | list[str] | None = None,
        unfrozen_params: str | list[str] | None = None,
    ):
        if (frozen_params is None) == (unfrozen_params is None):
            raise UserError(f"{type(self).__name__}: give either frozen_params or unfrozen_params")
        chosen = unfrozen_params if frozen_params is None else frozen_params
        given = [chosen] if isinstance(chosen, str) else list(chosen or [])
        parameters = dict(model.named_parameters())
        masks: dict[str, Tensor] = {}
        for text in given:
            name, index = parse_parameter(text)
            if name not in parameters:
                raise UserError(
                    f"{type(self).__name__}: the model has no parameter {name!r}{nearest(name, parameters)}"
                )
            mask = masks.setdefault(name, torch.zeros(parameters[name].shape, dtype=torch.bool))
            try:
                mask[index] = True
            except (IndexError, TypeError) as error:
                raise UserError(f"{type(self).__name__}: {text}: {error}") from None
        self.frozen = self._frozen(parameters, masks, freeze=frozen_params is not None)

    @staticmethod
    def _frozen(
        parameters: dict[str, nn.Parameter], masks: dict[str, Tensor], *, freeze: bool
    ) -> list[tuple[nn.Parameter, Tensor, Tensor]]:
        """Return parameters that are frozen in part, where, and the values there; freeze the whole ones."""
        frozen = []
        for name, parameter in parameters.items():
            mask = masks.get(name, torch.zeros(parameter.shape, dtype=torch.bool))
            mask = (mask if freeze else ~mask).to(parameter.device)
            if mask.all():
                # No gradient at all: nothing is computed, and optimizers leave it alone.
                parameter.requires_grad = False
            elif mask.any():
                frozen.append((parameter, mask, parameter.detach()[mask].clone()))
        return frozen

    def __call__(self, epoch: int | None = None, batch: int | None = None) -> None:
        """Remove the gradients of what is frozen."""
        for parameter, mask, _ in self.frozen:
            if parameter.grad is not None:
                parameter.grad[mask] = 0

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what the optimizer has moved without a gradient."""
        for parameter, mask, values in self.frozen:
            parameter[mask] = values


class UnfreezeWordTokensCallback(PartiallyFrozenModelCallback):
    """Trains the embeddings of certain words alone; each must be a single token."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        words_to_unfreeze: str | list[str],
        word_embeddings_name: str | None = None,
    ):
        rows = word_rows(model, tokenizer, words_to_unfreeze, word_embeddings_name)
        super().__init__(model, tokenizer, unfrozen_params=rows)


class FreezeWordTokensCallback(PartiallyFrozenModelCallback):
    """Keeps the embeddings of certain words as they are; each must be a single token."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        words_to_freeze: str | list[str],
        word_embeddings_name: str | None = None,
    ):
        super().__init__(
            model, tokenizer, frozen_params=word_rows(model, tokenizer, words_to_freeze, word_embeddings_name)
        )


def parse_parameter(text: str) -> tuple[str, Index]:
    """Split ``NAME[INDEX]`` into the name and what a tensor is indexed with; without brackets, everything.

    Raises:
        UserError: for an invalid index.
    """
    match = re.fullmatch(r"([\w.]+)(?:\[(.+)\])?", text.strip())
    if not match:
        raise UserError(f"{text!r} is not the name of a parameter, or NAME[INDEX] with rows as 3, 2:10 or (3,5,8)")
    if match[2] is None:
        return match[1], slice(None)
    index = re.sub(r"\s", "", match[2])
    parts = re.findall(r"\([^()]*\)|[^(),]+", index)
    if ",".join(parts) != index:
        raise UserError(f"{text!r}: the index must be rows as 3, 2:10 or (3,5,8)")
    return match[1], tuple(_parse_index(part, text) for part in parts)


def _parse_index(part: str, text: str) -> int | slice | list[int]:
    try:
        if ":" in part:
            return slice(*(int(number) if number else None for number in part.split(":")))
        if part.startswith("("):
            return [int(number) for number in part[1:-1].split(",") if number]
        return int(part)
    except (ValueError, TypeError):
        raise UserError(f"{text!r}: the index must be rows as 3, 2:10 or (3,5,8), got {part!r}") from None


def word_rows(model: nn.Module, tokenizer: Any, words: str | list[str], embeddings: str | None) -> str:
    """Return the rows of certain words in the word embeddings, as ``NAME[(ROW,ROW)]``.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        words: words that are single tokens.
        embeddings: name of the parameter; None finds that of the model's input embeddings.

    Raises:
        UserError: for a word that is not one known token.
    """
    listed = [words] if isinstance(words, str) else list(words)
    rows = sorted({row for word in listed for row in single_token_ids(tokenizer, word)})
    if embeddings is None:
        weight = model.get_input_embeddings().weight
        embeddings = next(name for name, parameter in model.named_parameters() if parameter is weight)
    return f"{embeddings}[({','.join(map(str, rows))})]"
