"""The masking functions: proportions, spans, labels that restore the text, and nothing else touched."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.build import make_texts
from demo.language_models import bert_tokenizer, gpt2_tokenizer, t5_tokenizer
from utils.data.masking import (
    IGNORED,
    UPDATE_LABEL_FNS,
    expand_with_masks,
    identity,
    mask_random_spans,
    mask_random_tokens,
    mask_truerandom_spans,
    mask_word_tokens,
    mask_words,
    remove_non_mask_tokens_from_labels,
    sentinel_ids,
    text_positions,
)
from utils.errors import UserError

TEXTS = [text for lang in ("en", "fr") for _, text in make_texts(lang, 60, random.Random(lang))]
BERT, GPT2, T5 = bert_tokenizer(TEXTS), gpt2_tokenizer(TEXTS), t5_tokenizer(TEXTS)
WORDS = sorted({word for text in TEXTS for word in text.split() if word.isalpha()})
BATCHES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=25).map(" ".join), min_size=1, max_size=6)
PROPORTIONS = st.floats(0.01, 1)
SEEDS = st.integers(0, 2**31)


def encode(tokenizer, texts):
    """The batch as the models get it, padded on the right."""
    if tokenizer.pad_token is None:
        rows = [tokenizer(text)["input_ids"] for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": mask}
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def rows(tensor, padding):
    """The rows as lists without their padding."""
    return [[token for token in row if token != padding] for row in tensor.tolist()]


def restore(inputs, labels, tokenizer):
    """Put back what the labels say that the sentinels stand for."""
    sentinels, texts = set(sentinel_ids(tokenizer)), []
    for row, label in zip(rows(inputs, tokenizer.pad_token_id), rows(labels, IGNORED), strict=True):
        spans, current = {}, None
        for token in label:
            if token in sentinels:
                current = spans[token] = []
            else:
                current.append(token)
        texts.append([token for place in row for token in spans.get(place, [place])])
    return texts


def test_identity_and_given_labels():
    batch = encode(BERT, TEXTS[:3])
    result = identity(batch, BERT)
    assert torch.equal(result["input_ids"], batch["input_ids"])
    padding = batch["attention_mask"] == 0
    assert padding.any() and (result["labels"][padding] == IGNORED).all()
    assert torch.equal(result["labels"][~padding], batch["input_ids"][~padding])
    given_labels = {**batch, "labels": torch.full_like(batch["input_ids"], 7)}
    for function in (identity, mask_random_tokens, expand_with_masks):
        assert (function(given_labels, BERT)["labels"] == 7).all()


def test_labels_of_masks_alone():
    texts = [f"{words[0]} {BERT.mask_token} {words[1]}" for words in zip(WORDS[:3], WORDS[3:6], strict=True)]
    batch = encode(BERT, texts)
    result = remove_non_mask_tokens_from_labels(batch, BERT)
    masks = batch["input_ids"] == BERT.mask_token_id
    assert masks.sum() == 3
    assert (result["labels"][masks] == BERT.mask_token_id).all()
    assert (result["labels"][~masks] == IGNORED).all()


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(texts=BATCHES, proportion=PROPORTIONS, seed=SEEDS)
def test_random_tokens(texts, proportion, seed):
    batch = encode(BERT, texts)
    torch.manual_seed(seed)
    result = mask_random_tokens(batch, BERT, mask_prop=proportion)
    torch.manual_seed(seed)
    assert all(torch.equal(a, result[k]) for k, a in mask_random_tokens(batch, BERT, mask_prop=proportion).items())
    text, chosen = text_positions(batch, BERT), result["labels"] != IGNORED
    assert not (chosen & ~text).any()
    counts = [max(int(length * proportion + 1e-9), 1) for length in text.sum(1).tolist()]
    assert chosen.sum(1).tolist() == counts
    assert torch.equal(result["labels"][chosen], batch["input_ids"][chosen])
    assert torch.equal(result["input_ids"][~chosen], batch["input_ids"][~chosen])
    special = torch.tensor(sorted(set(BERT.all_special_ids) - {BERT.mask_token_id}))
    assert not torch.isin(result["input_ids"][chosen], special).any()


@pytest.mark.slow
def test_shares_of_masks_random_and_original_tokens():
    batch = encode(BERT, TEXTS * 20)
    torch.manual_seed(1)
    shares = {"mask": 0.5, "random": 0.3, "original": 0.2}
    result = mask_random_tokens(batch, BERT, mask_prop=0.5, replacement_props=shares)
    chosen = result["labels"] != IGNORED
    masked = (result["input_ids"] == BERT.mask_token_id)[chosen].double().mean().item()
    kept = (result["input_ids"] == batch["input_ids"])[chosen].double().mean().item()
    # A random token is the original one once in so many.
    assert masked == pytest.approx(0.5, abs=0.01)
    assert kept == pytest.approx(0.2 + 0.3 / len(BERT), abs=0.01)
    for wrong in ({"mask": 1.0}, {"mask": 0.5, "random": 0.3, "original": 0.3}):
        with pytest.raises(UserError, match="add up to 1"):
            mask_random_tokens(batch, BERT, replacement_props=wrong)
    for wrong in (0, 1.5):
        with pytest.raises(UserError, match="mask_prop must be above 0"):
            mask_random_tokens(batch, BERT, mask_prop=wrong)


@settings(deadline=None, max_examples=60)
@given(texts=BATCHES, proportion=st.floats(0.01, 0.9), mean=st.floats(1, 6), seed=SEEDS)
def test_random_spans(texts, proportion, mean, seed):
    batch = encode(T5, texts)
    torch.manual_seed(seed)
    result = mask_random_spans(batch, T5, mask_prop=proportion, mean_noise_span_length=mean)
    assert restore(result["input_ids"], result["labels"], T5) == rows(batch["input_ids"], T5.pad_token_id)
    assert torch.equal(result["attention_mask"], (result["input_ids"] != T5.pad_token_id).long())
    sentinels = sentinel_ids(T5)
    lengths = text_positions(batch, T5).sum(1).tolist()
    for row, label, length in zip(rows(result["input_ids"], 0), rows(result["labels"], IGNORED), lengths, strict=True):
        noise = min(max(int(length * proportion + 1e-9), 1), length - 1)
        spans = [token for token in row if token in sentinels]
        # Consecutive sentinels from the first on; one more ends the labels; the first span is not noise.
        assert spans == sentinels[: len(spans)]
        assert label[-1] == sentinels[len(spans)] and label.count(label[-1]) == 1
        assert row[0] not in sentinels or length == 0
        assert len(label) - len(spans) - 1 == noise
        assert len(spans) == min(max(int(noise / torch.tensor(mean).item()), 1), length - noise, noise)
        # Neighbouring spans would have been one.
        assert not any(a in sentinels and b in sentinels for a, b in itertools.pairwise(row))


@settings(deadline=None, max_examples=60)
@given(texts=BATCHES, proportion=PROPORTIONS, seed=SEEDS)
def test_truly_random_spans(texts, proportion, seed):
    batch = encode(T5, texts)
    torch.manual_seed(seed)
    result = mask_truerandom_spans(batch, T5, mask_prop=proportion)
    assert restore(result["input_ids"], result["labels"], T5) == rows(batch["input_ids"], T5.pad_token_id)
    lengths = text_positions(batch, T5).sum(1).tolist()
    sentinels = sentinel_ids(T5)
    for row, label, length in zip(rows(result["input_ids"], 0), rows(result["labels"], IGNORED), lengths, strict=True):
        spans = sum(token in sentinels for token in row)
        assert len(label) - spans - 1 == max(int(length * proportion + 1e-9), 1)
        assert not any(a in sentinels and b in sentinels for a, b in itertools.pairwise(row))


@settings(deadline=None, max_examples=30)
@given(texts=BATCHES)
@pytest.mark.parametrize("tokenizer", [BERT, T5], ids=["bert", "t5"])
def test_expansion(tokenizer, texts):
    batch = encode(tokenizer, texts)
    result = expand_with_masks(batch, tokenizer)
    lengths = text_positions(batch, tokenizer).sum(1).tolist()
    expanded = result["expanded_lengths"].tolist()
    assert len(expanded) == len(result["input_ids"]) == sum(lengths)
    assert [length for length in expanded if length != -1] == lengths
    sources = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor(lengths))
    if tokenizer is BERT:
        masks = result["input_ids"] == BERT.mask_token_id
        assert (masks.sum(1) == 1).all()
        restored = torch.where(masks, result["labels"], result["input_ids"])
        assert torch.equal(restored, batch["input_ids"][sources])
        assert torch.equal(masks, result["labels"] != IGNORED)
    else:
        original = rows(batch["input_ids"][sources], T5.pad_token_id)
        assert restore(result["input_ids"], result["labels"], T5) == original
        assert all(len(label) == 3 for label in rows(result["labels"], IGNORED))
    # Each position of an example once.
    if tokenizer is BERT:
        places = masks.nonzero()[:, 1].tolist()
        assert all(len(set(group)) == len(group) for group in by_source(places, sources.tolist()))


def by_source(values, sources):
    return [[v for v, s in zip(values, sources, strict=True) if s == source] for source in set(sources)]


def test_words_that_are_single_tokens():
    word = next(word for word in WORDS if len(T5(word, add_special_tokens=False)["input_ids"]) == 1)
    texts = [f"{word} and {word}", "nothing here"]
    for tokenizer in (BERT, T5):
        batch = encode(tokenizer, texts)
        if len(tokenizer(word, add_special_tokens=False)["input_ids"]) != 1:
            continue
        result = mask_word_tokens(batch, tokenizer, word_tokens_to_mask=[word])
        hidden = [tokenizer.mask_token_id] if tokenizer is BERT else sentinel_ids(tokenizer)
        assert torch.isin(result["input_ids"], torch.tensor(hidden)).sum(1).tolist() == [2, 0]
    with pytest.raises(UserError, match="is not a single token"):
        mask_word_tokens(encode(BERT, texts), BERT, word_tokens_to_mask=["unbelievablyrare"])


def test_words_of_several_tokens_longest_first():
    long = max(WORDS, key=lambda word: len(T5(word, add_special_tokens=False)["input_ids"]))
    pieces = len(T5(long, add_special_tokens=False)["input_ids"])
    assert pieces > 2
    texts = [f"{long} {long} {WORDS[0]}", f"{WORDS[0]} {long}"]
    batch = encode(T5, texts)
    result = mask_words(batch, T5, words_to_mask=[long])
    # One sentinel for a word, whatever its tokens, and one each for neighbours.
    assert torch.isin(result["input_ids"], torch.tensor(sentinel_ids(T5))).sum(1).tolist() == [2, 1]
    assert restore(result["input_ids"], result["labels"], T5) == rows(batch["input_ids"], T5.pad_token_id)
    batch = encode(BERT, texts)
    count = len(BERT(long, add_special_tokens=False)["input_ids"])
    result = mask_words(batch, BERT, words_to_mask=long)
    assert (result["input_ids"] == BERT.mask_token_id).sum(1).tolist() == [2 * count, count]
    restored = torch.where(result["labels"] != IGNORED, result["labels"], result["input_ids"])
    assert torch.equal(restored, batch["input_ids"])


def test_more_spans_than_sentinels_are_refused():
    text = " ".join(WORDS[:200])
    with pytest.raises(UserError, match=r"spans to replace, but the tokenizer has 100 sentinels"):
        mask_random_spans(encode(T5, [text]), T5, mask_prop=0.5, mean_noise_span_length=1)


def test_tokenizers_without_masks_are_refused():
    batch = encode(GPT2, TEXTS[:2])
    for function in (mask_random_tokens, mask_random_spans, mask_truerandom_spans, remove_non_mask_tokens_from_labels):
        with pytest.raises(UserError, match="no mask token"):
            function(batch, GPT2)
    assert torch.equal(identity(batch, GPT2)["input_ids"], batch["input_ids"])


def test_which_functions_change_what_the_labels_say():
    assert {function.__name__ for function in UPDATE_LABEL_FNS} == {
        "mask_random_spans", "mask_truerandom_spans", "expand_with_masks", "mask_word_tokens", "mask_words",
    }  # fmt: skip
