"""Packs on a GPU give the logits and gradients of padded batches, as closely as its half precision allows."""

import copy

import pytest
import torch
import transformers

from tests.factories import CLASSIFIERS, both_batches, classifier_config
from utils.models.device import autocast, to_device
from utils.models.packing import use_packing, why_padded
from utils.models.weights import convert_weights

GPU = torch.device("cuda")
# The kernel takes heads of a multiple of 8 numbers, models here have 16; and no dropout.
WITHOUT_DROPOUT = {"attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0, "attn_pdrop": 0.0}


def make_pair(name):
    config = classifier_config(name, initializer_range=0.1)
    for key, value in WITHOUT_DROPOUT.items():
        if hasattr(config, key):
            setattr(config, key, value)
    torch.manual_seed(0)
    stock = transformers.AutoModelForSequenceClassification.from_config(config).to(GPU).eval()
    ours = copy.deepcopy(stock)
    use_packing(ours)
    return stock, ours


def results(model, batch, dtype=None):
    """The logits, and the gradients as one vector."""
    model.zero_grad()
    with torch.autocast("cuda", dtype or torch.bfloat16, enabled=dtype is not None):
        logits = model(**to_device(batch, GPU)).logits.float()
    (logits * torch.linspace(-1, 1, logits.numel(), device=GPU).view_as(logits)).sum().backward()
    gradients = [x.grad.flatten() for _, x in sorted(model.named_parameters()) if x.grad is not None]
    return logits.detach(), torch.cat(gradients)


def distance(found, exact):
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_packs_are_as_close_to_float32_as_padded_batches_are(name, dtype):
    stock, ours = make_pair(name)
    precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    assert why_padded(ours, GPU, precision, training=True) is None
    padded, packed = both_batches(stock.config)
    exact = results(stock, padded)
    rounded = results(stock, padded, dtype)
    for found, near, true in zip(results(ours, packed, dtype), rounded, exact, strict=True):
        assert distance(found, true) < 2 * distance(near, true) + 1e-3
    torch.testing.assert_close(results(ours, padded)[0], exact[0])


@pytest.mark.parametrize("name", ["XLMRoberta", "ModernBert", "GPT2"])
def test_a_text_is_alone_in_its_pack(name):
    """Another text beside it changes nothing, not a bit."""
    _, ours = make_pair(name)
    _, packed = both_batches(ours.config)
    changed = copy.deepcopy(packed)
    # All but the first text.
    places = changed["input_ids"].reshape(-1)
    places[changed["packed_rows"][512:]] = 5
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        first, second = (ours(**to_device(batch, GPU)).logits for batch in (packed, changed))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_converted_weights_give_what_autocast_gives(precision):
    stock, ours = make_pair("XLMRoberta")
    packed = to_device(both_batches(stock.config)[1], GPU)
    outputs = []
    for convert in (False, True):
        if convert:
            convert_weights(ours, GPU, precision)
        with torch.inference_mode(), autocast(GPU, precision):
            outputs.append(ours(**packed).logits)
    assert ours.classifier.dense.weight.dtype != torch.float32
    assert torch.equal(*outputs)


def test_dropout_of_attention_and_fp32_are_padded():
    model = transformers.AutoModelForSequenceClassification.from_config(classifier_config("Bert"))
    assert "dropout" in why_padded(model, GPU, "bf16", training=True)
    assert why_padded(model, GPU, "bf16", training=False) is None
    assert "bf16" in why_padded(model, GPU, "fp32", training=False)
