"""The CPU's attention computes what the stock attention does, in every family of models and whatever it is given."""

import copy
from unittest.mock import patch

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import finetune
from utils.models import attention
from utils.models.attention import ATTENTION, attention_forward, use_cpu_dropout

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 16, "d_ff": 37, "num_layers": 2, "num_heads": 2}
DISTILBERT = {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 37}
BLOOM = {"vocab_size": 99, "hidden_size": 32, "n_layer": 2, "n_head": 2}
GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 2}
# So rare that nothing is dropped, and yet not 0, with which the stock attention is used.
RATE = 1e-9
# Settings, and what the family calls its dropout rates. The registry's families, those whose adapters are known, and
# mT5, whose attention adds a bias for positions that it learns.
FAMILIES = {
    "Bert": (SMALL, ("hidden_dropout_prob", "attention_probs_dropout_prob")),
    "Roberta": (SMALL, ("hidden_dropout_prob", "attention_probs_dropout_prob")),
    "XLMRoberta": (SMALL, ("hidden_dropout_prob", "attention_probs_dropout_prob")),
    "DistilBert": (DISTILBERT, ("dropout", "attention_dropout", "seq_classif_dropout")),
    "ModernBert": (SMALL, ("attention_dropout", "mlp_dropout", "embedding_dropout")),
    "GPT2": (GPT2, ("attn_pdrop", "resid_pdrop", "embd_pdrop")),
    "Llama": (SMALL, ("attention_dropout",)),
    "Phi3": (SMALL, ("attention_dropout",)),
    "GPTNeoX": (SMALL, ("attention_dropout", "hidden_dropout")),
    "Falcon": (SMALL, ("attention_dropout", "hidden_dropout")),
    "Bloom": (BLOOM, ("attention_dropout", "hidden_dropout")),
    "T5": (T5, ("dropout_rate",)),
    "MT5": (T5, ("dropout_rate",)),
}


def results(model, batch):
    """Logits and gradients of a training step."""
    model.zero_grad()
    torch.manual_seed(1)
    output = model(**batch)
    logits = output.logits
    (logits.float() * torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)).sum().backward()
    return logits.detach(), {name: x.grad for name, x in model.named_parameters() if x.grad is not None}


@pytest.mark.fault(15)
@pytest.mark.parametrize("head", ["classifier", "language model"])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_gradients_are_those_of_the_stock_attention(name, head):
    shape, rates = FAMILIES[name]
    more = {"num_labels": 3} if head == "classifier" else {}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
    if name == "ModernBert":
        special |= {"cls_token_id": 1, "sep_token_id": 2}
    config = getattr(transformers, f"{name}Config")(**shape, **dict.fromkeys(rates, RATE), **special, **more)
    classes = {
        "classifier": transformers.AutoModelForSequenceClassification,
        "language model": transformers.AutoModelForSeq2SeqLM
        if config.is_encoder_decoder
        else transformers.AutoModelForMaskedLM
        if "Bert" in name or "Roberta" in name
        else transformers.AutoModelForCausalLM,
    }
    torch.manual_seed(0)
    model = classes[head].from_config(config).train()
    assert model.config._attn_implementation in ("sdpa", "eager")
    ids = torch.randint(3, 99, (3, 12))
    # T5's classifiers pool where the text ends.
    ids[:, -1] = 2
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    ids[1, 6:] = torch.tensor([2, 0, 0, 0, 0, 0])
    batch = {"input_ids": ids, "attention_mask": mask}
    if head == "language model" and config.is_encoder_decoder:
        batch["labels"] = torch.randint(3, 99, (3, 5))
    ours = copy.deepcopy(model)
    use_cpu_dropout(ours)
    # Falcon chooses its attention when it is built.
    if model.config._attn_implementation == "sdpa" and name != "Falcon":
        assert ours.config._attn_implementation == ATTENTION
    (expected, gradients), (found, own) = results(model, batch), results(ours, batch)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-5)
    assert gradients.keys() == own.keys()
    scale = max(gradient.abs().max() for gradient in gradients.values())
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(own[parameter], gradient, atol=float(scale) * 1e-5, rtol=1e-4, msg=parameter)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.sampled_from([1, 2, 3, 5, 8, 8, 8, 13]), min_size=1, max_size=9),
    heads=st.integers(1, 3),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 3, 8]),
    block=st.sampled_from([1, 100, 10_000]),
    short=st.sampled_from([0, 100, 10_000]),
)
def test_texts_are_alone_however_they_are_cut_into_blocks(lengths, heads, causal, window, block, short):
    tensors = [torch.randn(sum(lengths), heads, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    with patch.object(attention, "BLOCK_SIZE", block), patch.object(attention, "SHORT_SIZE", short):
        found = attention._TextAttention.apply(*tensors, attention.Texts(lengths, causal, window), 0.0, 0.5)
        gradients = torch.autograd.grad(found.square().sum(), tensors)
    parts = []
    for query, key, value in zip(*(tensor.split(lengths) for tensor in tensors), strict=True):
        distance = torch.arange(len(query))[:, None] - torch.arange(len(query))
        seen = (distance >= (0 if causal else -len(query))) & (distance.abs() < (window or len(query)))
        scores = torch.einsum("qhd,khd->hqk", query, key) * 0.5
        parts.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -1e300).softmax(-1), value))
    expected = torch.cat(parts)
    torch.testing.assert_close(found, expected)
    for ours, stocks in zip(gradients, torch.autograd.grad(expected.square().sum(), tensors), strict=True):
        torch.testing.assert_close(ours, stocks)


def stock(*arguments, **kwargs):
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(*arguments, **kwargs)[0]


class Layer(torch.nn.Module):
    is_causal = True


@pytest.mark.parametrize(
    ("module", "given"),
    [
        (Layer(), {"is_causal": None}),
        (torch.nn.Module(), {"is_causal": None}),
        (torch.nn.Module(), {}),
        (Layer(), {"is_causal": False}),
        (Layer(), {"is_causal": False, "position_bias": torch.randn(1, 4, 6, 6)}),
    ],
)
def test_causal_unless_it_is_said_otherwise(module, given):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 4, 6, 8) for _ in range(3))
    output, _ = attention_forward(module, query, key, value, None, dropout=RATE, **given)
    torch.testing.assert_close(output, stock(module, query, key, value, None, dropout=0.0, **given))


@pytest.mark.parametrize("shape", [(1, 1, 6, 6), (1, 4, 6, 6), (1, 1, 1, 6), (3, 1, 1, 6)])
def test_masks_for_all_texts_at_once(shape):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 4, 6, 8) for _ in range(3))
    mask = torch.rand(shape) < 0.7
    mask[..., 0] = True
    output, _ = attention_forward(Layer(), query, key, value, mask, dropout=RATE)
    torch.testing.assert_close(output, stock(Layer(), query, key, value, mask, dropout=0.0))


def test_a_mask_that_is_learned_gets_its_gradient():
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 4, 6, 8) for _ in range(3))
    gradients = []
    for forward in (lambda *given: attention_forward(*given, dropout=RATE)[0], lambda *given: stock(*given, dropout=0)):
        bias = torch.linspace(-1, 1, 4 * 36).reshape(1, 4, 6, 6).requires_grad_()
        forward(Layer(), query, key, value, bias).square().sum().backward()
        gradients.append(bias.grad)
    torch.testing.assert_close(*gradients)


def test_keywords_that_nobody_knows_go_to_the_stock_attention(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "transformers.integrations.sdpa_attention.sdpa_attention_forward",
        lambda *_, **kwargs: calls.append(kwargs) or (None, None),
    )
    query, mask = torch.randn(3, 4, 6, 8), torch.ones(3, 1, 1, 6) > 0
    for name, count in (("cu_seq_lens_k", 1), ("softcap", 1), ("sliding_window", 0), ("position_ids", 0)):
        calls.clear()
        for value in (3, None):
            attention_forward(torch.nn.Module(), query, query, query, mask, dropout=0.5, **{name: value})
        assert len(calls) == count, name


@pytest.mark.slow
def test_a_training_on_the_cpu_uses_it(inputs, invoke, monkeypatch):
    """Whatever the Trainer and the model hand on with the inputs."""
    calls = []
    stock = attention._TextAttention.apply
    monkeypatch.setattr(attention._TextAttention, "apply", lambda *given: calls.append(given) or stock(*given))
    arguments = ["--model_name", "tiny", "--train_langs", "en", "--num_epochs", "1", "--max_train_texts", "16"]
    assert invoke(finetune, *arguments)[0] == 0
    assert len(calls) >= 2, "both layers"
