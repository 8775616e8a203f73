"""Packed batches give the logits and gradients of stock models on padded batches, in every family."""

import copy
import itertools

import pytest
import torch
import transformers

from tests.factories import CLASSIFIERS, PACKED_LENGTHS, PaddingTokenizer, both_batches, classifier_config
from utils.data.masking import IGNORED
from utils.models import attention
from utils.models.attention import use_text_attention
from utils.models.loading import set_attention_dropout
from utils.models.packing import PACKABLE, in_padded_places, pack_language_batch, use_packing, why_padded

CPU = torch.device("cpu")


def make_pair(name, **changed):
    """A stock classifier, and the same that computes packs. Weights so large that a leak between texts would show."""
    config = classifier_config(name, initializer_range=0.2, **changed)
    torch.manual_seed(0)
    stock = transformers.AutoModelForSequenceClassification.from_config(config)
    ours = copy.deepcopy(stock)
    use_packing(ours)
    return stock, ours


def results(model, batch):
    model.zero_grad()
    logits = model(**batch).logits
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return logits.detach(), {key: x.grad for key, x in model.named_parameters() if x.grad is not None}


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    assert found[1].keys() == expected[1].keys()
    scale = float(max(gradient.abs().max() for gradient in expected[1].values()))
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5 * scale, rtol=1e-5, msg=name)


def test_every_packable_type_is_tested():
    assert {classifier_config(name).model_type for name in CLASSIFIERS} == set(PACKABLE)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_and_gradients_are_those_of_the_padded_batch(name, checkpointed):
    stock, ours = make_pair(name)
    assert why_padded(ours, CPU, "fp32", training=True) is None
    padded, packed = both_batches(stock.config)
    expected = results(stock.eval(), padded)
    ours.eval()
    if checkpointed:
        ours.train().activation_checkpointing_enable()
        for module in ours.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for name in ("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop"):
            if hasattr(ours.config, name):
                setattr(ours.config, name, 0.0)
        for module in ours.modules():
            if isinstance(getattr(module, "attention_dropout", None), float):
                module.attention_dropout = 0.0
    assert_same(results(ours, packed), expected)
    # Called with a padded batch it is the stock model.
    ours.eval()
    torch.testing.assert_close(results(ours, padded)[0], expected[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["XLMRoberta", "ModernBert", "Llama"])
def test_packs_in_bf16_are_as_close_as_padded_batches_are(name):
    """Rotary positions leave queries and keys in float32 beside values in bf16."""
    stock, ours = make_pair(name)
    padded, packed = both_batches(stock.config)
    with torch.no_grad():
        exact = stock.eval()(**padded).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = results(stock, padded)
        found = results(ours.eval(), packed)
    spread = (rounded[0].float() - exact).abs().max()
    assert (found[0].float() - exact).abs().max() < 3 * spread + 0.01
    assert all(gradient.isfinite().all() for gradient in found[1].values())


def test_nanogpts_models_too():
    """GPT-2 with the exact GELU, which their conversion makes of them."""
    stock, ours = make_pair("GPT2", activation_function="gelu")
    padded, packed = both_batches(stock.config)
    assert_same(results(ours.eval(), packed), results(stock.eval(), padded))


def test_models_with_adapters_too():
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    stock = transformers.AutoModelForSequenceClassification.from_config(
        classifier_config("XLMRoberta", initializer_range=0.2)
    )
    settings = LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], init_lora_weights=False)
    adapted = get_peft_model(stock, settings).eval()
    ours = copy.deepcopy(adapted)
    use_packing(ours)
    padded, packed = both_batches(stock.config)
    assert_same(results(ours, packed), results(adapted, padded))


@pytest.mark.parametrize("name", ["XLMRoberta", "ModernBert", "GPT2"])
def test_a_text_is_alone_in_its_pack(name):
    """Its logits are the same whatever stands beside it."""
    _, ours = make_pair(name)
    ours.eval()
    _, packed = both_batches(ours.config)
    ends = packed["cu_seq_lens_q"].tolist()
    with torch.no_grad():
        together = ours(**packed).logits
        for index, (start, end) in enumerate(itertools.pairwise(ends)):
            ids = packed["input_ids"].reshape(-1)[packed["packed_rows"]][None, start:end]
            alone = ours(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            torch.testing.assert_close(together[index : index + 1], alone, atol=1e-6, rtol=1e-5)


def test_attention_sees_tokens_without_padding(monkeypatch):
    seen = []
    stock = attention._TextAttention.apply
    monkeypatch.setattr(attention._TextAttention, "apply", lambda *given: seen.append(given) or stock(*given))
    _, ours = make_pair("XLMRoberta")
    with torch.no_grad():
        ours.eval()(**both_batches(ours.config)[1])
    assert [len(given[0]) for given in seen] == [sum(PACKED_LENGTHS)] * 2
    assert seen[0][3].lengths == PACKED_LENGTHS


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_of_the_padding_does_not_matter(side, monkeypatch):
    monkeypatch.setattr(PaddingTokenizer, "padding_side", side)
    stock, ours = make_pair("Llama")
    padded, packed = both_batches(stock.config)
    assert_same(results(ours.eval(), packed), results(stock.eval(), padded))


def test_dropout_of_attention_in_packs_has_its_rate_and_follows_the_seed():
    _, ours = make_pair("Bert", attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    batch = both_batches(ours.config)[1]
    ours.train()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(results(ours, batch))
    assert_same(outputs[1], outputs[0])
    assert not torch.allclose(outputs[2][0], outputs[0][0])


@pytest.mark.parametrize(("name", "task"), [("GPT2", "lm"), ("Llama", "lm"), ("Bert", "mlm"), ("XLMRoberta", "mlm")])
def test_language_models_have_the_loss_and_gradients_of_padded_batches(name, task):
    classes = {"lm": transformers.AutoModelForCausalLM, "mlm": transformers.AutoModelForMaskedLM}
    torch.manual_seed(0)
    stock = classes[task].from_config(classifier_config(name, initializer_range=0.2)).eval()
    ours = copy.deepcopy(stock)
    use_text_attention(ours)
    padded, _ = both_batches(stock.config)
    # Of the masked, some tokens; the first one of a text is predicted by none in causal models.
    labels = padded["input_ids"].masked_fill(padded["attention_mask"] == 0, IGNORED)
    padded["labels"] = labels if task == "lm" else labels.masked_fill(torch.arange(512) % 3 > 0, IGNORED)
    packed = pack_language_batch(padded, ours, causal=task == "lm")
    rows = packed.pop("packed_rows")
    outputs = []
    for model, batch in ((stock, padded), (ours, packed)):
        output = model(**batch)
        output.loss.backward()
        gradients = {key: x.grad for key, x in model.named_parameters() if x.grad is not None}
        outputs.append((output.loss.detach()[None], gradients, output.logits.detach()))
    assert_same(outputs[1][:2], outputs[0][:2])
    places = padded["attention_mask"].bool()
    back = in_padded_places(outputs[1][2], rows, tuple(places.shape))
    torch.testing.assert_close(back[places], outputs[0][2][places], atol=1e-5, rtol=1e-4)


def test_masks_with_holes_are_not_packed():
    _, ours = make_pair("Bert")
    padded, _ = both_batches(ours.config)
    padded["labels"] = padded["input_ids"]
    padded["attention_mask"][0, 3] = 0
    assert pack_language_batch(padded, ours, causal=False) is None


def test_what_is_not_packed_says_why():
    config = transformers.T5Config(vocab_size=99, d_model=32, d_kv=16, d_ff=37, num_layers=1, num_heads=2)
    t5 = transformers.AutoModelForSequenceClassification.from_config(config)
    assert why_padded(t5, CPU, "fp32", training=True) == "models of type t5 are not computed in packs"
    eager = make_pair("Bert")[0]
    eager.set_attn_implementation("eager")
    assert "by eager" in why_padded(eager, CPU, "fp32", training=True)


def test_what_gpus_cannot_pack():
    """Their kernel computes in half precision and takes no dropout."""
    gpu, bert = torch.device("cuda"), make_pair("Bert")[0]
    assert "bf16" in why_padded(bert, gpu, "fp32", training=False)
    assert "--attention_dropout 0" in why_padded(bert, gpu, "bf16", training=True)
    assert why_padded(bert, gpu, "bf16", training=False) is None
    set_attention_dropout(bert.config, 0.0)
    assert why_padded(bert, gpu, "bf16", training=True) is None


def test_the_gpus_kernel_gets_what_it_asks_for(monkeypatch):
    """Its arguments, for models that look both ways, back, and near by: a stand-in computes the same on the CPU."""
    calls = []

    def varlen(query, key, value, first, second, longest, other, *, scale, window_size):
        calls.append(window_size)
        assert first is second and first.dtype == torch.int32 and longest == other == max(PACKED_LENGTHS)
        texts = attention.Texts(first.diff().tolist(), window_size[1] == 0, window_size[0] + 1 or None)
        return attention._TextAttention.apply(query, key, value, texts, 0.0, scale)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen)
    monkeypatch.setattr(attention, "_is_cuda", lambda tensor: True)
    for name, expected in (
        ("Bert", {(-1, -1)}),
        ("Llama", {(-1, 0)}),
        ("Mistral", {(99, 0)}),
        ("ModernBert", {(-1, -1), (64, 64)}),
    ):
        calls.clear()
        stock, ours = make_pair(name)
        padded, packed = both_batches(stock.config)
        assert_same(results(ours.eval(), packed), results(stock.eval(), padded))
        assert set(calls) == expected, name
