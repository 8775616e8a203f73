import datasets
import numpy as np
import pytest
import torch

from utils.data.batching import PaddingCollator
from utils.data.tokenization import load_tokenizer
from utils.data.windows import WholeTexts
from utils.evaluation.inference import predict_logits
from utils.evaluation.labelling import softmax
from utils.evaluation.metrics import cross_entropy
from utils.models.loading import build_classifier, choose_max_length, load_config, set_attention_dropout


@pytest.fixture(scope="module")
def classifier(small):
    torch.manual_seed(0)
    return build_classifier(small / "tiny-xlmr", ["A", "B", "C"]).eval()


@pytest.mark.parametrize("budget", [1, 100, 100_000])
def test_logits_come_back_in_the_order_of_the_texts(classifier, small, budget):
    generator = np.random.default_rng(0)
    rows = [generator.integers(5, 500, size=size).tolist() for size in generator.integers(3, 60, size=40)]
    dataset = datasets.Dataset.from_dict({"input_ids": rows, "length": [len(row) for row in rows]})
    collator = PaddingCollator(load_tokenizer(small / "tiny-xlmr"))
    logits = predict_logits(classifier, WholeTexts(dataset), collator, torch.device("cpu"), token_budget=budget)
    with torch.no_grad():
        alone = torch.cat([classifier(input_ids=torch.tensor([row])).logits for row in rows])
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, alone.numpy(), atol=1e-5)


def test_bf16_is_close(classifier, small):
    rows = [[0, 7, 8, 9, 2], [0, 17, 2]]
    dataset = datasets.Dataset.from_dict({"input_ids": rows, "length": [5, 3]})
    collator = PaddingCollator(load_tokenizer(small / "tiny-xlmr"))
    exact, rounded = (
        predict_logits(classifier, WholeTexts(dataset), collator, torch.device("cpu"), precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(exact, rounded, atol=0.02)


def test_softmax_and_cross_entropy_equal_torchs():
    logits = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32) * 30
    labels = np.arange(20) % 4
    tensor = torch.tensor(logits)
    np.testing.assert_allclose(softmax(logits), tensor.softmax(1).numpy(), atol=1e-6)
    expected = torch.nn.functional.cross_entropy(tensor, torch.tensor(labels)).item()
    assert cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-5)


def test_lengths_and_dropout_of_architectures(small):
    from transformers import BertConfig, DistilBertConfig, GPT2Config, ModernBertConfig

    from utils.errors import UserError

    config = load_config(small / "tiny-xlmr")
    assert choose_max_length(config, None) == 512
    assert choose_max_length(config, 64) == 64
    with pytest.raises(UserError, match="at most 512"):
        choose_max_length(config, 513)
    assert choose_max_length(BertConfig(max_position_embeddings=128), None) == 128
    assert choose_max_length(ModernBertConfig(), 8192) == 8192
    for config_class in (BertConfig, DistilBertConfig, GPT2Config, ModernBertConfig):
        config = config_class()
        set_attention_dropout(config, 0.37)
        assert 0.37 in vars(config).values()
