"""The losses of language models: the model's own, and the divergence from the baseline."""

import gzip

import datasets
import pytest
import torch
from transformers import AutoTokenizer

from demo.language_models import build_lm
from tests.factories import TEXTS
from utils.data.masking import mask_random_spans, mask_random_tokens
from utils.errors import UserError
from utils.models.loading import load_language_model
from utils.models.modifiers import add_new_tokens
from utils.training import lm_losses as losses
from utils.training.lm_losses import KLBaselineLoss, OutputsDefaultLoss
from utils.training.lm_options import FinetuneLmOptions, tokenizer_threads
from utils.training.lm_setup import make_losses

KINDS = {"gpt2": "lm", "bert": "mlm", "t5": "seq2seq"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: build_lm(kind, TEXTS, folder / kind) for kind in KINDS}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, texts in {"a": TEXTS[:8], "b": TEXTS[8:20]}.items():
        (tmp_path / f"{name}.txt.gz").write_bytes(gzip.compress("\n".join(texts).encode()))
    return ["a.txt.gz", "b.txt.gz"]


def load(folders, kind):
    torch.manual_seed(3)
    return load_language_model(folders[kind], KINDS[kind]), AutoTokenizer.from_pretrained(folders[kind])


def move(model):
    """Change the weights as training would."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)


def direct(model, baseline, rows, pad):
    """KL(baseline || model) of one text after the other, in float64: the mean over its tokens."""
    values = []
    for row in rows:
        inputs = {name: torch.tensor([ids]) for name, ids in row.items()}
        expected = baseline.double()(**inputs).logits[0].log_softmax(-1)
        predicted = model.double()(**inputs).logits[0].log_softmax(-1)
        values.append(float((expected.exp() * (expected - predicted)).sum(-1).mean()))
    return torch.tensor(values)


@pytest.mark.parametrize("kind", KINDS)
def test_kl_is_zero_at_first_and_a_direct_computation_later(folders, files, kind):
    model, tokenizer = load(folders, kind)
    model.train()
    function = {"data_preprocessing_fn": mask_random_spans} if kind == "t5" else {}
    loss = KLBaselineLoss(
        model, tokenizer, files, scaleby=[2.0, 6.0], n_examples_per_batch=[3, 99], batch_size=4, **function
    )
    assert float(loss(None, None).detach()) == pytest.approx(0, abs=1e-7)
    assert model.training, "compared without dropout, trained with it"

    move(model)
    torch.manual_seed(1)
    value = loss(None, None)
    torch.manual_seed(1)
    chosen = [torch.randperm(8)[:3].tolist(), torch.randperm(12).tolist()]
    expected = []
    model.eval()
    for data, numbers, scale in zip(loss.datasets, chosen, (2.0, 6.0), strict=True):
        names = ("input_ids", "labels") if kind == "t5" else ("input_ids",)
        rows = [{name: data.rows[name][number].tolist() for name in names} for number in numbers]
        expected.append(scale * direct(model, loss.baseline, rows, tokenizer.pad_token_id).mean())
    assert float(value) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-4)
    loss.baseline.float()


def test_kl_moves_the_model_and_not_the_baseline(folders, files):
    model, tokenizer = load(folders, "gpt2")
    loss = KLBaselineLoss(model, tokenizer, files[0])
    move(model)
    loss(None, None).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in loss.baseline.parameters())
    assert all(a is not b for a in loss.parameters() for b in model.parameters())


def test_kl_draws_anew_and_returns_all(folders, files):
    model, tokenizer = load(folders, "bert")
    loss = KLBaselineLoss(model, tokenizer, files, n_examples_per_batch=2, return_all=True)
    move(model)
    first, second = loss(None, None), loss(None, None)
    assert first.shape == (4,) and (first > 0).all()
    assert not torch.equal(first, second)


def test_kl_limits_and_saved_datasets(folders, files, tmp_path):
    model, tokenizer = load(folders, "gpt2")
    folder = datasets.DatasetDict({"dev": datasets.Dataset.from_dict({"text": TEXTS[:5], "source": list("abcde")})})
    folder.save_to_disk(tmp_path / "saved")
    loss = KLBaselineLoss(
        model,
        tokenizer,
        [files[0], str(tmp_path / "saved")],
        split_name=["train", "dev"],
        max_samples_per_dataset=[6, 2],
    )
    assert [len(allowed) for allowed in loss.allowed] == [6, 2]
    assert loss.datasets[1][0]["metadata"] == {"source": "a"}
    lengths = KLBaselineLoss(model, tokenizer, files[0]).datasets[0].lengths
    limit = int(sorted(lengths)[3])
    short = KLBaselineLoss(model, tokenizer, files[0], max_sample_length=limit)
    assert 4 <= len(short.allowed[0]) < 8
    assert max(short.datasets[0].lengths[short.allowed[0]]) <= limit


def test_kl_with_new_words(folders, files):
    model, tokenizer = add_new_tokens(*load(folders, "gpt2"), added_tokens=["blorked"])
    loss = KLBaselineLoss(model, tokenizer, files)
    # All that has changed is the probability of the new word, which the others give.
    assert 0 < float(loss(None, None)) < 0.1


def test_one_baseline_for_all_losses(folders, files, monkeypatch):
    model, tokenizer = load(folders, "gpt2")
    first = KLBaselineLoss(model, tokenizer, files[0])
    monkeypatch.setattr(losses, "load_language_model", lambda *_, **__: pytest.fail("loaded twice"))
    assert KLBaselineLoss(model, tokenizer, files[1]).baseline is first.baseline


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaleby": [1, 2, 3]}, "scaleby: 3 values for 2 datasets"),
        ({"n_examples_per_batch": [1]}, "n_examples_per_batch: 1 values for 2 datasets"),
        ({"scaleby": "much"}, "scaleby must be numbers, got 'much'"),
        ({"n_examples_per_batch": 0}, "must be positive whole numbers, got 32 and 0"),
        ({"batch_size": "x"}, "must be positive whole numbers, got 'x' and 20"),
        ({"max_sample_length": 2}, "no example of at most 2 tokens"),
    ],
)
def test_kl_mistakes(folders, files, options, message):
    with pytest.raises(UserError, match=message):
        KLBaselineLoss(*load(folders, "gpt2"), files, **options)


def test_the_models_own_loss(folders):
    model, tokenizer = load(folders, "gpt2")
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    outputs = model(**inputs, labels=inputs["input_ids"])
    assert OutputsDefaultLoss(model, tokenizer)(outputs, inputs["input_ids"]) is outputs.loss


def test_all_divergences_have_the_mean_that_the_loss_is(folders, files):
    """The mean over all examples was another objective than the mean over datasets of different size."""
    model, tokenizer = load(folders, "gpt2")
    move(model)
    values = []
    for return_all in (False, True):
        loss = KLBaselineLoss(
            model, tokenizer, files, scaleby=[1.0, 9.0], n_examples_per_batch=[2, 11], return_all=return_all
        )
        torch.manual_seed(1)
        values.append(loss(None, None).detach())
    assert values[1].shape == (13,)
    assert float(values[1].mean()) == pytest.approx(float(values[0]), rel=1e-5)


def test_length_and_seed_of_the_run_are_those_of_its_losses(folders, files):
    model, tokenizer = load(folders, "bert")
    options = FinetuneLmOptions(
        model_name_or_path="bert",
        max_length=9,
        seed=5,
        loss_classes={"train": [KLBaselineLoss], "validation": [OutputsDefaultLoss]},
        loss_classes_kwargs={
            "train": {"KLBaselineLoss": {"dataset": files[0], "data_preprocessing_fn": mask_random_tokens}}
        },
    )
    (_, loss), = make_losses(options, model, tokenizer)["train"].classes  # fmt: skip
    assert loss.datasets[0].lengths.max() == 9
    options.seed = 6
    (_, other), = make_losses(options, model, tokenizer)["train"].classes  # fmt: skip
    masked = [[row.tolist() for row in one.datasets[0].rows["labels"]] for one in (loss, other)]
    assert masked[0] != masked[1], "masked by the seed"
    options.loss_classes_kwargs["train"]["KLBaselineLoss"] |= {"max_length": 7, "seed": 5}
    (_, own), = make_losses(options, model, tokenizer)["train"].classes  # fmt: skip
    assert own.datasets[0].lengths.max() == 7


class OnlyForward:
    """A loss as the specification allows it."""

    def __init__(self, model, tokenizer):
        pass

    def forward(self, outputs, labels):
        return outputs.loss * 2


class Neither:
    def __init__(self, model, tokenizer):
        pass


def test_a_loss_with_forward_alone(folders):
    model, tokenizer = load(folders, "gpt2")
    options = FinetuneLmOptions(model_name_or_path="gpt2")
    options.loss_classes = {"train": [OnlyForward], "validation": OnlyForward}
    options.loss_reduction_fns = {"train": torch.sum, "validation": torch.sum}
    made = make_losses(options, model, tokenizer)["train"]
    ids = torch.arange(1, 9)[None]
    outputs = model(input_ids=ids, labels=ids)
    assert float(made(outputs, ids)[0]) == pytest.approx(2 * float(outputs.loss))
    options.loss_classes = {"train": [Neither], "validation": [Neither]}
    with pytest.raises(UserError, match="Neither has neither __call__ nor forward"):
        make_losses(options, model, tokenizer)


def test_the_threads_of_the_tokenizer_are_one_number():
    options = FinetuneLmOptions(model_name_or_path="gpt2")
    assert tokenizer_threads(options) is None
    options.loss_classes_kwargs = {"train": {"KLBaselineLoss": {"preprocessing_num_workers": 3}}, "validation": {}}
    assert tokenizer_threads(options) == 3
    options.preprocessing_num_workers = 2
    with pytest.raises(UserError, match=r"--preprocessing_num_workers 2, --loss_classes_kwargs\.train.* 3"):
        tokenizer_threads(options)
    options.loss_classes_kwargs["train"]["KLBaselineLoss"]["preprocessing_num_workers"] = "many"
    with pytest.raises(UserError, match="expected a positive whole number, got 'many'"):
        tokenizer_threads(options)
