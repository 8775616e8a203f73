"""Exactly the named parameters and rows move, and nothing else, weight decay and momentum included."""

import pytest
import torch

from demo.language_models import build_lm
from tests.factories import TEXTS
from utils.errors import UserError
from utils.models.modifiers import (
    FreezeWordTokensCallback,
    PartiallyFrozenModelCallback,
    UnfreezeWordTokensCallback,
    add_new_tokens,
    parse_parameter,
)

EMBEDDINGS = {
    "gpt2": "transformer.wte.weight",
    "bert": "bert.embeddings.word_embeddings.weight",
    "t5": "shared.weight",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: build_lm(kind, TEXTS, root / kind) for kind in EMBEDDINGS}


@pytest.fixture(params=list(EMBEDDINGS))
def loaded(request, folders):
    """A fresh model of each kind, its tokenizer, and the name of its word embeddings."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

    kinds = {"gpt2": AutoModelForCausalLM, "bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}
    folder = folders[request.param]
    return (
        kinds[request.param].from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        EMBEDDINGS[request.param],
    )


def train(model, callback, steps=4):
    """Some steps of AdamW with weight decay and momentum; returns where each parameter has moved."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
    ids = torch.arange(5, 5 + 64).reshape(4, 16)
    for batch in range(steps):
        optimizer.zero_grad()
        # All rows of the vocabulary take part through the loss over it.
        model(input_ids=ids, labels=ids).loss.backward()
        callback(epoch=0, batch=batch)
        optimizer.step()
        callback.restore()
    return {name: parameter.detach() != before[name] for name, parameter in model.named_parameters()}


def words_of(tokenizer, count):
    """Words that are one token each, whether or not a space stands before them."""
    words = sorted({word for text in TEXTS for word in text.split() if word.isalpha()})
    single = [w for w in words if len(tokenizer(w, add_special_tokens=False)["input_ids"]) == 1]
    assert len(single) >= count
    return single[:count]


def test_only_named_rows_are_trained(loaded):
    model, tokenizer, embeddings = loaded
    moved = train(model, PartiallyFrozenModelCallback(model, tokenizer, unfrozen_params=f"{embeddings}[(7,9)]"))
    rows = moved.pop(embeddings).any(1).nonzero().flatten().tolist()
    assert rows == [7, 9]
    assert not any(mask.any() for mask in moved.values())


def test_all_but_the_named_are_trained(loaded):
    model, tokenizer, embeddings = loaded
    names = [name for name, _ in model.named_parameters()]
    whole = next(name for name in names if name.endswith("weight") and name != embeddings)
    moved = train(model, PartiallyFrozenModelCallback(model, tokenizer, frozen_params=[whole, f"{embeddings}[6:10]"]))
    assert not moved.pop(whole).any()
    table = moved.pop(embeddings).any(1)
    assert not table[6:10].any()
    assert table[:6].any() and table[10:].all()
    assert sum(bool(mask.any()) for mask in moved.values()) >= len(moved) - 1


def test_words_alone_are_trained(loaded):
    model, tokenizer, embeddings = loaded
    words = words_of(tokenizer, 2)
    callback = UnfreezeWordTokensCallback(model, tokenizer, words_to_unfreeze=words)
    moved = train(model, callback)
    rows = set(moved.pop(embeddings).any(1).nonzero().flatten().tolist())
    assert rows == {form for word in words for form in single_forms(tokenizer, word)}
    assert not any(mask.any() for mask in moved.values())


def test_words_stay_as_they_are(loaded):
    model, tokenizer, embeddings = loaded
    words = words_of(tokenizer, 2)
    callback = FreezeWordTokensCallback(model, tokenizer, words, word_embeddings_name=embeddings)
    moved = train(model, callback)[embeddings].any(1)
    frozen = sorted({form for word in words for form in single_forms(tokenizer, word)})
    assert not moved[frozen].any()
    assert moved.sum() == len(moved) - len(frozen)


def single_forms(tokenizer, word):
    forms = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (word, f" {word}")]
    return [form[0] for form in forms if len(form) == 1]


def test_new_tokens_have_rows_of_their_own(loaded):
    model, tokenizer, _ = loaded
    before = model.get_input_embeddings().weight.detach().clone()
    model, tokenizer = add_new_tokens(model, tokenizer, added_tokens=["blorked", "crined"])
    ids = tokenizer.convert_tokens_to_ids(["blorked", "crined"])
    assert ids == [len(before), len(before) + 1]
    assert tokenizer.tokenize("blorked") == ["blorked"]
    after = model.get_input_embeddings().weight.detach()
    assert torch.equal(after[: len(before)], before)
    assert len(after) == len(before) + 2
    assert add_new_tokens(model, tokenizer, "blorked")[0].get_input_embeddings().num_embeddings == len(after)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b", ("a.b", slice(None))),
        ("a[3]", ("a", (3,))),
        ("a[2:10]", ("a", (slice(2, 10),))),
        ("a[(3, 5,8)]", ("a", ([3, 5, 8],))),
        ("a[(3,5),:4]", ("a", ([3, 5], slice(None, 4)))),
        ("a[-1]", ("a", (-1,))),
    ],
)
def test_names_with_indices(text, expected):
    assert parse_parameter(text) == expected


@pytest.mark.parametrize("text", ["a[", "a[x]", "a[(1,2]", "a b", "a[1,]", "a[()]x"])
def test_indices_that_are_none(text):
    with pytest.raises(UserError):
        print(parse_parameter(text))


def test_mistakes(loaded):
    model, tokenizer, embeddings = loaded
    for arguments, message in [
        ({}, "give either frozen_params or unfrozen_params"),
        ({"frozen_params": ["a"], "unfrozen_params": ["b"]}, "give either"),
        ({"frozen_params": embeddings.replace("weight", "wieght")}, f"did you mean '{embeddings}'"),
        ({"frozen_params": f"{embeddings}[100000]"}, "out of bounds"),
    ]:
        with pytest.raises(UserError, match=message):
            PartiallyFrozenModelCallback(model, tokenizer, **arguments)
    with pytest.raises(UserError, match="is not a single token"):
        UnfreezeWordTokensCallback(model, tokenizer, "unbelievablyrareword")
