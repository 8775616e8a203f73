import numpy as np
import pytest
import torch

from utils.models import attention, dropout
from utils.models.attention import attention_forward, use_cpu_dropout
from utils.models.dropout import CpuDropout, keep_factors, keep_mask
from utils.models.loading import build_classifier


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_masks_drop_each_element_alone_at_the_rate(rate):
    torch.manual_seed(0)
    mask = keep_mask((1000, 1000), rate)
    count = mask.numel()
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert abs(1 - mask.float().mean().item() - rate) <= 4 * deviation + 1 / dropout.LEVELS
    # The four elements that share a random number are independent of each other.
    lanes = mask.view(-1, 4).float()
    if rate:
        correlation = torch.corrcoef(lanes.T) - torch.eye(4)
        assert correlation.abs().max() < 0.01
    assert keep_mask((3, 5, 7), rate).shape == (3, 5, 7)


def test_masks_follow_the_seed():
    torch.manual_seed(3)
    first = keep_mask((100,), 0.3)
    second = keep_mask((100,), 0.3)
    torch.manual_seed(3)
    assert torch.equal(keep_mask((100,), 0.3), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9, 0.999])
def test_factors_drop_at_the_rate_in_all_and_scale_by_the_blocks_own(rate):
    generator = torch.Generator().manual_seed(0)
    means, scales = [], set()
    for _ in range(400):
        keep, rest = keep_factors((5, 33, 31), rate, generator, torch.float32)
        assert set(keep.unique().tolist()) <= {0.0, 1.0}
        means.append(keep.mean().item())
        scales.add(rest)
        assert abs(means[-1] - 1 / rest) < 6 * (rate * (1 - rate) / keep.numel()) ** 0.5 + 1e-3
    rate = min(rate, 255 / 256)
    # The two multiples of 1/256 around the rate, in the shares that make it: their spread is that of a draw.
    error = (0.25 / 256**2 / 400 + rate * (1 - rate) / (400 * keep.numel())) ** 0.5
    assert abs(np.mean(means) - (1 - rate)) < 5 * error
    assert len(scales) == (1 if rate * 256 % 1 == 0 else 2)


def test_the_backward_pass_draws_what_the_forward_pass_drew():
    """The gradient is that of what was computed: a difference of the output along it, in float64."""
    torch.manual_seed(0)
    tensors = [torch.randn(7, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    texts = attention.Texts([3, 4])

    def compute(*given):
        torch.manual_seed(5)
        return attention._TextAttention.apply(*given, texts, 0.4, 0.5)

    assert torch.autograd.gradcheck(compute, tensors)


def test_no_matrix_of_scores_is_kept_for_the_backward_pass():
    tensors = [torch.randn(640, 4, 8, requires_grad=True) for _ in range(3)]
    output = attention._TextAttention.apply(*tensors, attention.Texts([320, 320]), 0.1, 0.3)
    kept = sum(tensor.numel() for tensor in output.grad_fn.saved_tensors)
    assert kept == 3 * 640 * 4 * 8


def test_dropout_scales_what_it_keeps_and_its_gradient():
    torch.manual_seed(0)
    values = torch.ones(200, 50, requires_grad=True)
    dropout = CpuDropout(0.2)
    output = dropout(values)
    assert set(output.detach().unique().tolist()) == {0.0, 1.25}
    output.sum().backward()
    assert torch.equal(values.grad, output.detach())
    assert torch.equal(dropout.eval()(values), values)


@pytest.mark.parametrize("masked", ["none", "boolean", "added"])
def test_attention_and_its_gradients_equal_the_plain_formula(monkeypatch, masked):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 4, 6, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = torch.ones(3, 1, 1, 6, dtype=torch.bool)
    mask[0, ..., 4:] = False
    added = torch.zeros(3, 1, 1, 6, dtype=torch.float64).masked_fill(~mask, -1e300)
    given = {"none": None, "boolean": mask, "added": added}[masked]
    keep = [keep_mask((4, 6, 6), 0.3).double() for _ in range(3)]
    # The backward pass draws again.
    draws = iter([*keep, *keep])
    monkeypatch.setattr(attention, "keep_factors", lambda *_: (next(draws), 1 / 0.7))
    # One text at a time, without a mask too.
    monkeypatch.setattr(attention, "BLOCK_SIZE", 4 * 6 * 6)
    monkeypatch.setattr(attention, "SHORT_SIZE", 0)
    output, _ = attention_forward(
        torch.nn.Module(), query, key, value, given, dropout=0.3, scaling=0.5, is_causal=False
    )
    weight = torch.randn_like(output)
    gradients = torch.autograd.grad((output * weight).sum(), (query, key, value))

    scores = query @ key.mT * 0.5
    shares = torch.softmax(scores if masked == "none" else scores + added, -1)
    expected = (shares * torch.stack(keep) / 0.7 @ value).transpose(1, 2)
    torch.testing.assert_close(output, expected)
    for got, wanted in zip(gradients, torch.autograd.grad((expected * weight).sum(), (query, key, value)), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.fixture
def models(small):
    """The same classifier twice: as it is, and with this module's dropout."""
    pair = []
    for _ in range(2):
        torch.manual_seed(0)
        pair.append(build_classifier(small / "tiny-xlmr", ["A", "B", "C"]))
    use_cpu_dropout(pair[1])
    return pair


BATCH = {
    "input_ids": torch.tensor([[0, 7, 8, 9, 2], [0, 17, 2, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


def test_evaluation_is_that_of_the_stock_model(models):
    stock, ours = (model.eval() for model in models)
    with torch.no_grad():
        torch.testing.assert_close(ours(**BATCH).logits, stock(**BATCH).logits)


def test_without_rates_training_is_that_of_the_stock_model_too(models):
    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    models[0].train(), models[1].train()
    # A rate so small that nothing is dropped takes the path of this module's attention.
    for module in models[1].modules():
        if hasattr(module, "attention_head_size"):
            module.dropout.p = 1e-9
    stock, ours = (model(**BATCH).logits for model in models)
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-4)
    stock.sum().backward()
    ours.sum().backward()
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        if first.grad is not None:
            torch.testing.assert_close(second.grad, first.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_outputs_have_the_mean_and_spread_of_the_stock_model(models):
    samples = []
    for model in models:
        model.train()
        torch.manual_seed(1)
        with torch.no_grad():
            samples.append(torch.stack([model(**BATCH).logits for _ in range(1500)]))
    stock, ours = samples
    error = (stock.var(0) / 1500).sqrt() * 2**0.5
    assert ((stock.mean(0) - ours.mean(0)).abs() < 4.5 * error).all()
    assert (ours.std(0) / stock.std(0)).sub(1).abs().max() < 0.12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_runs_under_autocast_and_without_padding(models, dtype):
    model = models[1].train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        for batch in (BATCH, {"input_ids": BATCH["input_ids"][:1]}):
            model(**batch).logits.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_saved_model_is_a_stock_model(models, tmp_path):
    from transformers import AutoModelForSequenceClassification

    models[1].save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    assert not any(isinstance(module, CpuDropout) for module in loaded.modules())
