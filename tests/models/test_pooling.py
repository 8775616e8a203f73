"""--pooling mean: the head reads the mean of a text's tokens, padded or packed, saved and loaded."""

import copy

import pytest
import torch
import transformers

from tests.factories import CLASSIFIERS, both_batches, classifier_config
from utils.errors import UserError
from utils.models.loading import build_classifier, load_classifier
from utils.models.packing import use_packing
from utils.models.pooling import FIRST_TOKEN, apply_pooling, pooling_of, set_pooling

NAMES = [name for name in CLASSIFIERS if classifier_config(name).model_type in (*FIRST_TOKEN, "modernbert")]


def make(name, pooling):
    config = classifier_config(name, initializer_range=0.2)
    set_pooling(config, pooling)
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    apply_pooling(model)
    return model


def test_types_are_tested():
    assert len(NAMES) == len(FIRST_TOKEN) + 1


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_head_reads_the_mean(name, packed):
    model, first = make(name, "mean"), make(name, "cls")
    padded, in_a_pack = both_batches(model.config)
    with torch.no_grad():
        hidden = first.base_model(**padded).last_hidden_state
        mask = padded["attention_mask"][..., None]
        means = (hidden * mask).sum(1) / mask.sum(1)
        expected = head(model, means)
        if packed:
            use_packing(model)
        found = model(**(in_a_pack if packed else padded)).logits
        assert not torch.allclose(first(**padded).logits, found, atol=1e-3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def head(model, means):
    """What a family does with the vector of a text, in the words of its source."""
    kind = model.config.model_type
    if kind == "bert":
        return model.classifier(torch.tanh(model.bert.pooler.dense(means)))
    if kind == "distilbert":
        return model.classifier(torch.relu(model.pre_classifier(means)))
    if kind == "modernbert":
        return model.classifier(model.head(means))
    return model.classifier(means[:, None])


def test_a_copy_pools_by_its_own_mask():
    model = make("Bert", "mean")
    copied = copy.deepcopy(model)
    padded, _ = both_batches(model.config)
    with torch.no_grad():
        torch.testing.assert_close(copied(**padded).logits, model(**padded).logits)


def test_texts_without_a_mask():
    model = make("Bert", "mean")
    with torch.no_grad():
        whole = model(input_ids=torch.tensor([[5, 6, 7]])).logits
        masked = model(input_ids=torch.tensor([[5, 6, 7, 1]]), attention_mask=torch.tensor([[1, 1, 1, 0]])).logits
    torch.testing.assert_close(whole, masked)


def test_a_saved_model_pools_as_it_was_trained(small, tmp_path):
    torch.manual_seed(0)
    model = build_classifier(small / "tiny-xlmr", ["A", "B"], pooling="mean").eval()
    model.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path, torch.device("cpu"))
    ids = {"input_ids": torch.tensor([[0, 7, 8, 9, 2]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    with torch.no_grad():
        torch.testing.assert_close(loaded(**ids).logits, model(**ids).logits)
        stock = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
        assert not torch.allclose(stock.eval()(**ids).logits, model(**ids).logits)


def test_the_models_own_pooling_is_left_alone(small):
    model = build_classifier(small / "tiny-xlmr", ["A", "B"])
    assert not hasattr(model.config, "classifier_pooling")
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("name", ["GPT2", "Qwen3", "Llama"])
def test_decoders_read_the_mean_or_the_last_token(name, pooling, packed):
    model, stock = make(name, pooling), make(name, "last")
    padded, in_a_pack = both_batches(model.config)
    with torch.no_grad():
        hidden = stock.base_model(**padded).last_hidden_state
        mask = padded["attention_mask"]
        texts = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        if pooling == "last":
            texts = hidden[torch.arange(len(hidden)), mask.sum(1) - 1]
        if packed:
            use_packing(model)
        found = model(**(in_a_pack if packed else padded)).logits
    torch.testing.assert_close(found, model.score(texts), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["Bert", "XLMRoberta", "ModernBert"])
def test_encoders_can_read_the_last_token(name):
    model = make(name, "last")
    padded, _ = both_batches(model.config)
    with torch.no_grad():
        hidden = make(name, "cls").base_model(**padded).last_hidden_state
        last = hidden[torch.arange(len(hidden)), padded["attention_mask"].sum(1) - 1]
        torch.testing.assert_close(model(**padded).logits, head(model, last), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_read():
    with pytest.raises(UserError, match="--pooling cls: the first token of gpt2 models has seen no other"):
        set_pooling(classifier_config("GPT2"), "cls")
    with pytest.raises(UserError, match="--pooling mean: the heads of t5 models are not known"):
        set_pooling(transformers.T5Config(), "mean")


def test_the_name_of_earlier_versions_is_read():
    config = classifier_config("Bert")
    config.classifier_pooling = "first"
    assert pooling_of(config) == "cls"
