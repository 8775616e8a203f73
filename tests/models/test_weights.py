"""Weights that are converted for evaluation: the same results in bf16, nearly the same in int8."""

import copy

import pytest
import torch
import transformers

from tests.factories import both_batches, classifier_config
from utils.errors import UserError
from utils.models import weights
from utils.models.device import autocast
from utils.models.packing import use_packing
from utils.models.weights import convert_weights

CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = transformers.AutoModelForSequenceClassification.from_config(classifier_config("XLMRoberta")).eval()
    use_packing(made)
    return made


def logits(model, precision):
    _, packed = both_batches(model.config)
    with torch.inference_mode(), autocast(CPU, precision):
        return model(**packed).logits.float()


def test_bf16_weights_give_what_autocast_gives(model):
    converted = copy.deepcopy(model)
    use_packing(converted)
    convert_weights(converted, CPU, "bf16")
    assert converted.classifier.dense.weight.dtype == torch.bfloat16
    assert converted.roberta.embeddings.word_embeddings.weight.dtype == torch.float32
    torch.testing.assert_close(logits(converted, "bf16"), logits(model, "bf16"), rtol=0, atol=0)


# 127 on a processor that computes it right, and 63 on all.
@pytest.mark.parametrize("largest", sorted({63, weights.LARGEST_WEIGHT}))
@pytest.mark.parametrize("bias", [True, False])
def test_large_inputs_of_one_token_do_not_drown_the_others(largest, bias, monkeypatch):
    monkeypatch.setattr(weights, "LARGEST_WEIGHT", largest)
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 48, bias=bias)
    tokens = torch.randn(2, 5, 64)
    tokens[1, 3] *= 1000
    tokens[0, 0] = 0
    with torch.no_grad():
        found, expected = weights.Int8Linear(layer)(tokens), layer(tokens)
    errors = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-6)
    assert errors.max() < 0.03


def test_int8_is_close_and_leaves_the_head_alone(model):
    expected = logits(model, "fp32")
    convert_weights(model, CPU, "int8")
    assert type(model.classifier.dense) is torch.nn.Linear
    assert not any(type(module) is torch.nn.Linear for module in model.roberta.modules())
    found = logits(model, "int8")
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_in_fp32_they_are_left_as_they_are(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    convert_weights(model, CPU, "fp32")
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name])


def test_int8_is_refused_where_it_makes_no_sense(model):
    with pytest.raises(UserError, match="--precision int8 is for CPUs"):
        convert_weights(model, torch.device("cuda"), "int8")
    gpt2 = transformers.AutoModelForSequenceClassification.from_config(classifier_config("GPT2"))
    with pytest.raises(UserError, match="--precision int8: gpt2 models have no linear layers"):
        convert_weights(gpt2, CPU, "int8")
