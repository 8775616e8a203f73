import numpy as np
import pytest
import torch

from tests.factories import TEXTS
from utils.data.windows import Reading
from utils.evaluation.inference import Classifier
from utils.explanation.attribution import Explainer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def classifier(trained):
    return Classifier(trained / "models" / "tiny-en-fr", "fp32")


def explainer_of(classifier, method="integrated_gradients", steps=32):
    return Explainer(classifier, method, steps, None)


def test_scores_add_up_to_the_difference_of_logits(classifier):
    explainer = explainer_of(classifier, steps=2)
    for text in explainer.read(TEXTS[:8]):
        found = explainer.explain(text, 0)
        assert found.is_complete
        masked = np.full_like(text.tokens, explainer.mask)
        own, empty = explainer.logits([text.tokens, masked])[:, 0]
        assert found.difference == pytest.approx(own - empty, abs=1e-4)
        # Special tokens are the same in both, and add nothing.
        assert abs(found.scores.sum() - found.difference) <= max(0.05 * abs(found.difference), 0.011)


def test_the_same_as_the_integral_over_embeddings_in_a_stock_model(trained, classifier):
    """Riemann's sum, written out, through transformers' own way to take embeddings."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(trained / "models" / "tiny-en-fr").eval()
    explainer = explainer_of(classifier)
    (text,) = explainer.read([TEXTS[3]])
    ids = torch.tensor(explainer.frame.around(text.tokens)[None].astype(np.int64))
    masked = ids.clone()
    masked[:, 1:-1] = explainer.mask
    embed = model.get_input_embeddings()
    own, empty = embed(ids).detach(), embed(masked).detach()
    total = torch.zeros_like(own)
    for step in range(400):
        point = (empty + (step + 0.5) / 400 * (own - empty)).requires_grad_()
        logits = model(inputs_embeds=point, attention_mask=torch.ones_like(ids)).logits
        total += torch.autograd.grad(logits[0, 1], point)[0] / 400
    expected = ((own - empty) * total).sum(-1)[0, 1:-1].detach().numpy()
    by_word = [expected[list(word.tokens)].sum() for word in text.words]
    assert explainer.explain(text, 1).scores == pytest.approx(by_word, abs=2e-3)


def test_occlusion_is_what_the_logit_loses(classifier):
    explainer = explainer_of(classifier, "occlusion")
    (text,) = explainer.read([TEXTS[5]])
    found = explainer.explain(text, 2)
    for place in (0, len(text.words) // 2):
        tokens = text.tokens.copy()
        tokens[list(text.words[place].tokens)] = explainer.mask
        full, without = explainer.logits([text.tokens, tokens])[:, 2]
        assert found.scores[place] == pytest.approx(full - without, abs=1e-4)
    assert np.isnan(found.missed) and found.is_complete


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_windows(classifier, pooling, monkeypatch):
    monkeypatch.setattr(classifier, "reading", Reading("windows", None, pooling))
    explainer = explainer_of(classifier)
    (text,) = explainer.read([" ".join(TEXTS[:6])])
    assert len(text.tokens) > 100 and explainer.num_windows(text) > 2
    found = explainer.explain(text, 0)
    assert found.is_complete
    scores = found.scores
    if pooling == "mean":
        masked = np.full_like(text.tokens, explainer.mask)
        own, empty = explainer.logits([text.tokens, masked])[:, 0]
        assert found.difference == pytest.approx(own - empty, abs=1e-3)
        assert np.count_nonzero(scores) == len(scores)
    else:
        # Of the window alone whose logit is the text's.
        assert 0 < np.count_nonzero(scores) < len(scores)


def test_a_text_that_is_cut_has_the_words_that_are_read(classifier):
    (text,) = explainer_of(classifier).read([" ".join(TEXTS)])
    assert len(text.tokens) == classifier.max_length - 2
    assert text.words[-1].tokens[-1] == len(text.tokens) - 1


def test_decoders(tmp_path):
    """A model that reads its last token, and whose tokenizer has no mask."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from demo.language_models import build_lm

    build_lm("gpt2", TEXTS, tmp_path)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model.config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classifier = Classifier(tmp_path, "fp32")
    explainer = explainer_of(classifier)
    for text in explainer.read(TEXTS[:3]):
        found = explainer.explain(text, 1)
        assert found.is_complete and len(found.scores) == len(text.words)


def test_bf16_is_summed_in_full(trained):
    classifier = Classifier(trained / "models" / "tiny-en-fr", "bf16")
    if classifier.precision != "bf16":
        pytest.skip("no bf16 here")
    explainer = explainer_of(classifier)
    for text in explainer.read(TEXTS[:3]):
        found = explainer.explain(text, 0)
        assert np.isfinite(found.scores).all() and found.missed < 0.05
