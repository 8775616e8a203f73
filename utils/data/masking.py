"""The token-masking functions: what happens to a batch of token ids before it goes into a language model.

Each takes ``inputs`` (input_ids, attention_mask and perhaps labels, tensors of shape [examples, tokens]) and
the tokenizer, and returns new inputs; labels that are given are kept. Special tokens and padding are never
touched. The functions draw from PyTorch's global generator, so that a seed reproduces them.

Models with a mask token (masked language models) get that token at the chosen positions. Models with
sentinel tokens instead (T5's <extra_id_0>, <extra_id_1> ...) get one sentinel per span, and labels in which
each sentinel is followed by what it stands for, with one more sentinel at the end (Raffel et al. 2020,
https://jmlr.org/papers/v21/20-074.html, section 3.1.4).
"""

import re
from typing import Any

import torch
from torch import Tensor

from utils.data.token_words import IGNORED
from utils.errors import UserError

Inputs = dict[str, Tensor]
REPLACEMENT_PROPS = {"mask": 0.8, "random": 0.1, "original": 0.1}


def identity(inputs: Inputs, tokenizer: Any) -> Inputs:
    """Return the inputs unchanged; without labels, these are a copy of the input ids."""
    return {"labels": _ignore_padding(inputs["input_ids"], inputs), **inputs}


def remove_non_mask_tokens_from_labels(inputs: Inputs, tokenizer: Any) -> Inputs:
    """Keep the labels of mask tokens only, for data that come with masks in them.

    Raises:
        UserError: if the tokenizer has no mask token.
    """
    inputs = identity(inputs, tokenizer)
    masked = inputs["input_ids"] == _mask_token(tokenizer)
    return {**inputs, "labels": inputs["labels"].masked_fill(~masked, IGNORED)}


def mask_random_tokens(
    inputs: Inputs, tokenizer: Any, mask_prop: float = 0.15, replacement_props: dict[str, float] | None = None
) -> Inputs:
    """Mask single tokens at random, the pretraining objective of BERT (Devlin et al. 2019).

    Args:
        inputs: see the module.
        tokenizer: has a mask token.
        mask_prop: part of each example's tokens to choose, rounded down, at least one.
        replacement_props: shares of the chosen tokens that become the mask token (`mask`), a random token of
            the vocabulary (`random`) or stay (`original`); they add up to 1.

    Raises:
        UserError: for invalid proportions, or a tokenizer without a mask token.
    """
    shares = _check_shares(replacement_props)
    ids, text = inputs["input_ids"], text_positions(inputs, tokenizer)
    chosen = choose(text, _counts(text, mask_prop))
    draws = torch.rand(ids.shape)
    masked = chosen & (draws < shares["mask"])
    swapped = chosen & ~masked & (draws < shares["mask"] + shares["random"])
    vocabulary = torch.tensor(sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids)))
    random_ids = vocabulary[torch.randint(len(vocabulary), ids.shape)]
    changed = torch.where(masked, _mask_token(tokenizer), torch.where(swapped, random_ids, ids))
    return {"labels": ids.masked_fill(~chosen, IGNORED), **inputs, "input_ids": changed}


def mask_random_spans(
    inputs: Inputs, tokenizer: Any, mask_prop: float = 0.15, mean_noise_span_length: float = 3.0
) -> Inputs:
    """Replace random spans by sentinels, the span denoising objective of T5; the first span is never noise.

    Args:
        inputs: see the module.
        tokenizer: has sentinel tokens.
        mask_prop: part of each example's tokens to replace, rounded down, at least one.
        mean_noise_span_length: tokens per replaced span on average; an example has
            max(1, replaced tokens / mean_noise_span_length) spans.

    Raises:
        UserError: for numbers out of range, or a tokenizer without sentinels.
    """
    if not isinstance(mean_noise_span_length, (int, float)) or mean_noise_span_length < 1:
        raise UserError(f"mean_noise_span_length must be at least 1, got {mean_noise_span_length!r}")
    text = text_positions(inputs, tokenizer)
    lengths = text.sum(1)
    # A span that stays comes first, so one token at least is left.
    noise = torch.minimum(_counts(text, mask_prop), (lengths - 1).clamp(min=0))
    spans = torch.minimum((noise / mean_noise_span_length).long().clamp(min=1), (lengths - noise).clamp(min=1))
    spans = torch.minimum(spans, noise)
    parts = torch.stack([_partition(lengths - noise, spans), _partition(noise, spans)], dim=2).flatten(1)
    ranks = (text.cumsum(1) - 1).clamp(min=0)
    segment = torch.searchsorted(parts.cumsum(1), ranks, right=True)
    return _insert(inputs, tokenizer, text & (segment % 2 == 1) & (noise > 0)[:, None])


def mask_truerandom_spans(inputs: Inputs, tokenizer: Any, mask_prop: float = 0.15) -> Inputs:
    """Choose single tokens at random and replace each run of neighbours by one sentinel.

    Args:
        inputs: see the module.
        tokenizer: has sentinel tokens.
        mask_prop: part of each example's tokens to choose, rounded down, at least one.
    """
    text = text_positions(inputs, tokenizer)
    return _insert(inputs, tokenizer, choose(text, _counts(text, mask_prop)))


def expand_with_masks(inputs: Inputs, tokenizer: Any) -> Inputs:
    """Turn each example into as many as it has tokens, each with another one masked.

    Returns:
        inputs with `expanded_lengths` of shape [new examples]: how many each old example became, then -1.
    """
    text = text_positions(inputs, tokenizer)
    rows, columns = text.nonzero(as_tuple=True)
    chosen = torch.zeros((len(rows), text.shape[1]), dtype=torch.bool)
    chosen[torch.arange(len(rows)), columns] = True
    expanded = _insert({name: value[rows] for name, value in inputs.items()}, tokenizer, chosen)
    lengths = torch.full((len(rows),), -1)
    lengths[: len(text)] = text.sum(1)
    return {**expanded, "expanded_lengths": lengths}


def mask_word_tokens(inputs: Inputs, tokenizer: Any, word_tokens_to_mask: list[str]) -> Inputs:
    """Mask certain words that are single tokens wherever they occur.

    Raises:
        UserError: for a word that is not one known token.
    """
    ids = sorted({token for word in _listed(word_tokens_to_mask) for token in single_token_ids(tokenizer, word)})
    chosen = torch.isin(inputs["input_ids"], torch.tensor(ids)) & text_positions(inputs, tokenizer)
    return _insert(inputs, tokenizer, chosen, starts=chosen)


def mask_words(inputs: Inputs, tokenizer: Any, words_to_mask: list[str]) -> Inputs:
    """Mask certain words, of any number of tokens, wherever they occur; longer ones first."""
    text = text_positions(inputs, tokenizer)
    chosen, starts = torch.zeros_like(text), torch.zeros_like(text)
    patterns = {tuple(form) for word in _listed(words_to_mask) for form in _forms(tokenizer, word) if form}
    for pattern in sorted(patterns, key=lambda tokens: (-len(tokens), tokens)):
        size = len(pattern)
        if size > text.shape[1]:
            continue
        windows = inputs["input_ids"].unfold(1, size, 1)
        found = (windows == torch.tensor(pattern)).all(2) & text.unfold(1, size, 1).all(2)
        for start in found.any(0).nonzero().flatten().tolist():
            # One position after the other: a match must not begin inside another.
            free = found[:, start] & ~chosen[:, start : start + size].any(1)
            starts[free, start] = True
            chosen[free, start : start + size] = True
    return _insert(inputs, tokenizer, chosen, starts)


# Functions after which the labels are not those of the whole text any more: reports show them decoded anew.
UPDATE_LABEL_FNS = {mask_random_spans, mask_truerandom_spans, expand_with_masks, mask_word_tokens, mask_words}


def text_positions(inputs: Inputs, tokenizer: Any) -> Tensor:
    """Return where there is text, neither special tokens nor padding: bool [examples, tokens]."""
    ids = inputs["input_ids"]
    text = ~torch.isin(ids, torch.tensor(sorted(set(tokenizer.all_special_ids) | set(sentinel_ids(tokenizer)))))
    return text & inputs["attention_mask"].bool() if "attention_mask" in inputs else text


def choose(allowed: Tensor, counts: Tensor) -> Tensor:
    """Choose ``counts[i]`` of the allowed positions of row i at random: bool, shaped as `allowed`."""
    scores = torch.rand(allowed.shape).masked_fill(~allowed, -1)
    order = scores.argsort(dim=1, descending=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(allowed.shape[1]).expand_as(order))
    return (ranks < counts[:, None]) & allowed


def sentinel_ids(tokenizer: Any) -> list[int]:
    """Return the ids of T5's sentinels, <extra_id_0> first; empty for other tokenizers."""
    found = {
        int(match[1]): index
        for token, index in tokenizer.get_added_vocab().items()
        if (match := re.fullmatch(r"<extra_id_(\d+)>", token))
    }
    return [found[number] for number in sorted(found)]


def frame_ids(tokenizer: Any) -> set[int]:
    """Return the ids of tokens that stand for no text: all special ones but that of unknown text."""
    named = {name: getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "sep", "cls", "pad", "mask")}
    unknown = {tokenizer.unk_token_id} - set(named.values())
    return (set(tokenizer.all_special_ids) | set(sentinel_ids(tokenizer))) - unknown


def single_token_ids(tokenizer: Any, word: str) -> list[int]:
    """Return the ids of a word that is one token, at the beginning of a text and after a space.

    Raises:
        UserError: if it is not one known token.
    """
    ids = {form[0] for form in _forms(tokenizer, word) if len(form) == 1 and form[0] != tokenizer.unk_token_id}
    if not ids:
        raise UserError(f"{word!r} is not a single token of this tokenizer: {tokenizer.tokenize(word)}")
    return sorted(ids)


def _forms(tokenizer: Any, word: str) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (word, f" {word}")]


def _listed(words: str | list[str]) -> list[str]:
    return [words] if isinstance(words, str) else list(words)


def _mask_token(tokenizer: Any) -> int:
    if tokenizer.mask_token_id is None:
        raise UserError("this tokenizer has no mask token; for models with sentinels there is mask_random_spans")
    return tokenizer.mask_token_id


def _counts(text: Tensor, mask_prop: float) -> Tensor:
    if not isinstance(mask_prop, (int, float)) or not 0 < mask_prop <= 1:
        raise UserError(f"mask_prop must be above 0 and at most 1, got {mask_prop!r}")
    # In double precision, or 0.15 * 20 would be 2.
    return (text.sum(1) * torch.tensor(mask_prop, dtype=torch.float64) + 1e-9).long().clamp(min=1)


def _check_shares(shares: dict[str, float] | None) -> dict[str, float]:
    shares = REPLACEMENT_PROPS if shares is None else shares
    if set(shares) != set(REPLACEMENT_PROPS) or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"replacement_props must be shares of mask, random and original that add up to 1, got {shares}")
    return shares


def _partition(totals: Tensor, parts: Tensor) -> Tensor:
    """Cut each total into so many random positive parts: [rows, most parts], with zeros at the end."""
    places = int(totals.max()) if len(totals) else 0
    index = torch.arange(places).expand(len(totals), places)
    # A cut before a unit begins a new part; there is no cut before the first unit.
    cuts = choose((index > 0) & (index < totals[:, None]), parts - 1)
    lengths = torch.zeros((len(totals), max(1, int(parts.max()) if len(parts) else 1)), dtype=torch.long)
    return lengths.scatter_add_(1, cuts.cumsum(1), (index < totals[:, None]).long())


def _insert(inputs: Inputs, tokenizer: Any, chosen: Tensor, starts: Tensor | None = None) -> Inputs:
    """Put masks or sentinels where `chosen` says; make the labels if there are none.

    Args:
        inputs: see the module.
        tokenizer: has a mask token, or sentinels.
        chosen: positions to hide, bool [examples, tokens].
        starts: where a span of them begins that gets a sentinel of its own; without it, at each run's beginning.
    """
    ids = inputs["input_ids"]
    if tokenizer.mask_token_id is not None or not sentinel_ids(tokenizer):
        masked = torch.where(chosen, _mask_token(tokenizer), ids)
        return {"labels": ids.masked_fill(~chosen, IGNORED), **inputs, "input_ids": masked}
    if starts is None:
        starts = chosen.clone()
        starts[:, 1:] &= ~chosen[:, :-1]
    sentinels = torch.tensor(sentinel_ids(tokenizer))
    spans = starts.sum(1)
    if len(spans) and int(spans.max()) >= len(sentinels):
        raise UserError(
            f"an example has {int(spans.max())} spans to replace, but the tokenizer has {len(sentinels)} sentinels, "
            "one of which ends the labels; use a smaller mask_prop or shorter texts"
        )
    numbers = (starts.cumsum(1) - 1).clamp(min=0)
    kept = _keep(torch.where(starts, sentinels[numbers], ids), ~chosen | starts, tokenizer.pad_token_id)
    attention = inputs.get("attention_mask", torch.ones_like(ids))
    changed = {**inputs, "input_ids": kept, "attention_mask": _keep(attention, ~chosen | starts, 0)}
    if "labels" not in inputs:
        # Sentinel and token of every position side by side, then one more sentinel.
        pairs = torch.stack([sentinels[numbers], ids], dim=2).flatten(1)
        wanted = torch.stack([starts, chosen], dim=2).flatten(1)
        pairs = torch.cat([pairs, sentinels[spans][:, None]], dim=1)
        wanted = torch.cat([wanted, torch.ones((len(ids), 1), dtype=torch.bool)], dim=1)
        changed["labels"] = _keep(pairs, wanted, IGNORED)
    return changed


def _keep(values: Tensor, wanted: Tensor, fill: int) -> Tensor:
    """Move the wanted values of each row to its front; `fill` follows them, up to the longest row."""
    order = (~wanted).int().argsort(dim=1, stable=True)
    counts = wanted.sum(1)
    width = int(counts.max()) if len(counts) else 0
    front = values.gather(1, order)[:, :width]
    return front.masked_fill(torch.arange(width) >= counts[:, None], fill)


def _ignore_padding(labels: Tensor, inputs: Inputs) -> Tensor:
    attention = inputs.get("attention_mask")
    return labels.clone() if attention is None else labels.masked_fill(attention == 0, IGNORED)
