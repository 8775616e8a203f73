import json
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_sample_weight

import finetune
from tests.factories import FAST, small_model_without_dropout
from utils.evaluation.labelling import OneLabel
from utils.training import classifier_setup
from utils.training.classifier_losses import ClassificationLoss, balanced_class_weights

pytestmark = pytest.mark.slow


class Outputs:
    def __init__(self, logits):
        self.logits = logits


def test_loss_is_a_sum_over_the_whole_step():
    logits, labels = torch.randn(8, 4, generator=torch.manual_seed(0)), torch.arange(8) % 4
    loss = ClassificationLoss(label_smoothing=0.1)
    whole = loss(Outputs(logits), labels, num_items_in_batch=8)
    halves = sum(loss(Outputs(logits[i : i + 4]), labels[i : i + 4], num_items_in_batch=8) for i in (0, 4))
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(halves, expected)
    torch.testing.assert_close(loss(Outputs(logits), labels), expected)


def test_balanced_weights_give_every_register_the_same_say():
    labels = np.array([0] * 60 + [1] * 30 + [3] * 10)
    weights = balanced_class_weights(labels, 5)
    assert weights[labels] == pytest.approx(compute_sample_weight("balanced", labels))
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[[2, 4]].tolist() == [1, 1]
    logits = torch.randn(100, 5, generator=torch.manual_seed(0))
    weighted = ClassificationLoss(weights)(Outputs(logits), torch.tensor(labels))
    single = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
    means = [single[labels == label].mean() for label in (0, 1, 3)]
    torch.testing.assert_close(weighted, torch.stack(means).mean())


@pytest.fixture
def observed(monkeypatch):
    """Train through finetune.py and record each step's learning rate, gradient norm and texts."""
    from utils.training.classifier_trainer import ClassifierTrainer

    record = {"rates": [], "norms": [], "trainer": None}
    prepare = ClassifierTrainer._prepare_for_training
    clip = ClassifierTrainer._clip_grad_norm

    def prepare_and_keep(self, *args, **kwargs):
        record["trainer"] = self
        return prepare(self, *args, **kwargs)

    def clip_and_record(self, model):
        norm = clip(self, model)
        record["norms"].append(float(norm))
        record["rates"].append(self._get_learning_rate())
        return norm

    monkeypatch.setattr(ClassifierTrainer, "_prepare_for_training", prepare_and_keep)
    monkeypatch.setattr(ClassifierTrainer, "_clip_grad_norm", clip_and_record)
    return record


def train(invoke, *arguments):
    status, output, errors = invoke(finetune, "--model_name", "tiny", "--train_langs", "en", *arguments)
    assert status == 0, errors
    return output


def test_accumulated_batches_give_the_gradient_of_one_large_batch(inputs, invoke, observed):
    """48 training texts in random order: 6 steps of 8, or of 2 x 4. The stock loss gave twice the gradient."""
    common = [*FAST, "--train_sampling", "random", "--num_epochs", "1"]
    no_dropout = small_model_without_dropout(inputs)
    common += ["--model_registry", str(no_dropout)]
    train(invoke, *common, "--batch_size", "8", "--subfolder", "a")
    whole, observed["norms"] = observed["norms"], []
    train(invoke, *common, "--batch_size", "4", "--gradient_accumulation_steps", "2", "--subfolder", "b")
    assert len(whole) == 6
    assert observed["norms"] == pytest.approx(whole, rel=1e-4)


@pytest.mark.fault(4)
def test_the_schedule_advances_with_every_step(inputs, invoke, observed):
    train(invoke, *FAST, "--learning_rate", "1e-3", "--warmup_ratio", "0.25")
    rates = observed["rates"]
    assert len(rates) == 12
    assert rates[:4] == pytest.approx([0, 1e-3 / 3, 2e-3 / 3, 1e-3])
    assert rates[3:] == pytest.approx(np.linspace(1e-3, 0, 10)[:9], abs=1e-9)
    epochs = json.loads((inputs.folder / "outputs/tiny-en/train.json").read_text())["epochs"]
    assert [epoch["learning_rate"] for epoch in epochs] == pytest.approx([rates[5], rates[11]])


def test_every_epoch_has_its_own_order(inputs, invoke, monkeypatch):
    from utils.data.batching import TrainBatchSampler

    orders = []
    stock = TrainBatchSampler.__iter__

    def record(self):
        batches = list(stock(self))
        orders.append(batches)
        return iter(batches)

    monkeypatch.setattr(TrainBatchSampler, "__iter__", record)
    train(invoke, *FAST)
    assert len(orders) == 2
    assert orders[0] != orders[1]


def test_schedule_kwargs_reach_the_schedule(inputs, invoke, observed):
    train(
        invoke, *FAST, "--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs.min_lr_rate", "0.5"
    )  # fmt: skip
    assert observed["rates"][-1] > 0.5e-3


@pytest.mark.fault(5)
@pytest.mark.parametrize(("sampling", "most"), [("packed", 0), ("length", 0.2)])
def test_texts_are_hardly_padded(inputs, invoke, observed, monkeypatch, sampling, most):
    from transformers import Trainer

    computed = []
    stock = Trainer.training_step

    def count(self, model, piece, *arguments):
        size = piece.get("packed_rows", piece["attention_mask"]).numel()
        computed.append((size, int(piece["attention_mask"].sum())))
        return stock(self, model, piece, *arguments)

    monkeypatch.setattr(Trainer, "training_step", count)
    output = train(invoke, *FAST, "--max_length", "256", "--train_sampling", sampling)
    assert ("texts of a step: packed" in output) is (sampling == "packed")
    padded, tokens = np.array(computed[len(computed) // 2 :]).sum(axis=0)
    report = json.loads((inputs.folder / "outputs/tiny-en/train.json").read_text())
    assert report["padding_fraction"] == pytest.approx(1 - tokens / padded, abs=0.02)
    assert report["padding_fraction"] <= most
    assert np.sum(computed, axis=0)[1] == 2 * observed["trainer"].sampler.lengths.sum(), "every token once an epoch"


@pytest.mark.parametrize("sampling", ["length", "packed", "packed in parts"])
def test_pieces_and_packs_give_the_gradient_of_the_padded_batch(inputs, invoke, observed, sampling):
    """So they train the same model, but for rounding and dropout."""
    common = [*FAST, "--max_length", "256", "--num_epochs", "1", "--model_registry"]
    common.append(str(small_model_without_dropout(inputs)))
    train(invoke, *common, "--train_sampling", "random", "--subfolder", "a")
    whole, observed["norms"] = observed["norms"], []
    sampling, _, in_parts = sampling.partition(" ")
    budget = ["--train_token_budget", "300"] if in_parts else []
    train(invoke, *common, "--train_sampling", sampling, *budget, "--subfolder", "b")
    assert observed["norms"] == pytest.approx(whole, rel=1e-4)


def test_a_step_over_the_token_budget_is_computed_in_several_packs(inputs, invoke, monkeypatch):
    from transformers import Trainer

    sizes = []
    stock = Trainer.training_step

    def note(self, model, batch, *arguments):
        sizes.append(batch["packed_rows"].numel())
        return stock(self, model, batch, *arguments)

    monkeypatch.setattr(Trainer, "training_step", note)
    common = [*FAST, "--max_length", "64", "--num_epochs", "1"]
    train(invoke, *common)
    whole, sizes[:] = list(sizes), []
    train(invoke, *common, "--train_token_budget", "128", "--subfolder", "b")
    assert sum(sizes) == sum(whole)
    assert max(whole) > 128 >= max(sizes)


def test_models_that_cannot_be_packed_say_so(inputs, invoke, monkeypatch):
    from utils.models import packing

    monkeypatch.setattr(packing, "PACKABLE", ("bert",))
    output = train(invoke, *FAST, "--num_epochs", "1")
    assert "pieces of similar length (models of type xlm-roberta are not computed in packs)" in output


def test_a_run_that_goes_on_keeps_its_precision(inputs, invoke, monkeypatch):
    """Whatever the machine that it goes on on would choose."""
    from utils.models import device

    chosen = ["bf16", "fp32"]
    monkeypatch.setattr(device, "choose_precision", lambda *_: chosen.pop(0))
    arguments = [*FAST[:-2], "--num_epochs", "1", "--keep_checkpoints"]
    train(invoke, *arguments)
    record = inputs.folder / "outputs/tiny-en/run.json"
    content = json.loads(record.read_text())
    assert content["precision"] == "bf16"
    record.write_text(json.dumps(content | {"status": "running"}))
    (inputs.folder / "models/tiny-en/config.json").unlink()
    train(invoke, *arguments)
    content = json.loads(record.read_text())
    assert (content["status"], content["precision"]) == ("complete", "bf16")
    assert chosen == ["fp32"], "it was not asked again"


@pytest.mark.parametrize("slow_disk", [False, True])
def test_short_epochs_are_saved_only_if_they_are_the_best_or_the_last(inputs, invoke, monkeypatch, slow_disk):
    """On a GPU an epoch of a small corpus takes a second, and saving a large model ten."""
    from utils.runs.resume_points import ResumePoints

    scores = iter([0.5, 0.4, 0.3, 0.6, 0.2, 0.1, 0.6])
    stock_metrics, stock_seal = OneLabel.score, ResumePoints.seal
    saved = []

    def scripted(*arguments):
        return stock_metrics(*arguments) | {"macro_f1": next(scores)}

    def seal(self, point):
        saved.append(point.name)
        if slow_disk:
            time.sleep(3)
        return stock_seal(self, point)

    monkeypatch.setattr(OneLabel, "score", scripted)
    monkeypatch.setattr(ResumePoints, "seal", seal)
    output = train(invoke, *FAST, "--num_epochs", "6")
    epochs = [int(name.partition("-")[2]) // 6 for name in saved]
    assert epochs == ([1, 4, 6] if slow_disk else [1, 2, 3, 4, 5, 6])
    assert "best epoch 4 of 6" in output


def test_the_best_epoch_is_kept_and_reported(inputs, invoke, monkeypatch):
    """The saved weights are those of the second of three epochs."""
    scores = iter([0.2, 0.9, 0.4, 0.9])
    stock = OneLabel.score
    after_epoch = {}

    def scripted(*arguments):
        for point in (inputs.folder / "models/tiny-en/checkpoints").glob("checkpoint-*"):
            after_epoch[int(point.name.partition("-")[2]) // 6] = load_file(point / "model.safetensors")
        return stock(*arguments) | {"macro_f1": next(scores)}

    monkeypatch.setattr(OneLabel, "score", scripted)
    train(invoke, *FAST, "--num_epochs", "3")
    report = json.loads((inputs.folder / "outputs/tiny-en/train.json").read_text())
    assert report["best_epoch"] == 2
    saved = load_file(inputs.folder / "models/tiny-en/model.safetensors")
    assert {1, 2} <= set(after_epoch)
    assert all(torch.equal(saved[name], value) for name, value in after_epoch[2].items())
    assert not all(torch.equal(saved[name], value) for name, value in after_epoch[1].items())


def test_early_stopping(inputs, invoke):
    output = train(invoke, *FAST, "--num_epochs", "9", "--learning_rate", "1e-12", "--early_stopping_patience", "2")
    assert "epoch 3:" in output
    assert "epoch 4:" not in output


def test_balanced_and_label_smoothing_change_the_loss(inputs, invoke, observed):
    train(invoke, *FAST, "--num_epochs", "1", "--balanced", "--label_smoothing", "0.1")
    trainer = observed["trainer"]
    labels = np.asarray(trainer.train_dataset["label"])
    assert trainer.compute_loss_func.label_smoothing == 0.1
    assert trainer.compute_loss_func.class_weights.numpy() == pytest.approx(balanced_class_weights(labels, 8))
    report = json.loads((inputs.folder / "outputs/tiny-en/train.json").read_text())
    train(invoke, *FAST, "--num_epochs", "1", "--subfolder", "plain")
    plain = json.loads((inputs.folder / "outputs/plain/tiny-en/train.json").read_text())
    assert report["epochs"][0]["loss"] != plain["epochs"][0]["loss"]


def test_gradient_checkpointing_and_determinism_are_on_and_change_no_weight(inputs, invoke, observed):
    try:
        train(invoke, *FAST, "--num_epochs", "1", "--gradient_checkpointing", "--deterministic")
        assert observed["trainer"].model.is_activation_checkpointing
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    train(invoke, *FAST, "--num_epochs", "1", "--subfolder", "plain")
    assert not observed["trainer"].model.is_activation_checkpointing
    ours, plain = (
        load_file(inputs.folder / "models" / name / "model.safetensors") for name in ("tiny-en", "plain/tiny-en")
    )
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


def test_precision_is_that_of_training_and_evaluation(inputs, invoke, observed):
    train(invoke, *FAST, "--num_epochs", "1", "--precision", "bf16")
    trainer = observed["trainer"]
    assert trainer.args.bf16 and trainer.precision == "bf16"
    assert json.loads((inputs.folder / "outputs/tiny-en/run.json").read_text())["precision"] == "bf16"


def test_a_temperature_mix_of_so_many_texts(inputs, invoke, observed):
    common = [*FAST, "--num_epochs", "1", "--train_langs", "en-es", "--mix", "temperature"]
    train(invoke, *common, "--max_train_texts", "20")
    assert len(observed["trainer"].train_dataset) == 20
    counts = {}
    for exponent in ("0", "0.5", "1"):
        train(invoke, *common, "--mix_exponent", exponent, "--subfolder", exponent)
        langs = observed["trainer"].train_dataset["lang"][:]
        counts[exponent] = (langs.count("en"), langs.count("es"))
    # Of 60 and 40 texts; a fifth validates, rounded by register.
    assert [sum(pair) for pair in (counts["0"], counts["1"])] == [64, 80]
    assert abs(counts["0"][0] - counts["0"][1]) <= 2 and counts["1"][0] >= 46
    assert 64 < sum(counts["0.5"]) < 80


def test_schedule_and_weight_decay_are_those_asked_for(inputs, invoke, observed):
    arguments = ["--weight_decay", "0", "--warmup_ratio", "0", "--lr_scheduler_type", "constant"]
    train(invoke, *FAST, "--num_epochs", "1", *arguments)
    assert set(observed["rates"]) == {1e-3}
    assert {group["weight_decay"] for group in observed["trainer"].optimizer.param_groups} == {0}
    observed["rates"].clear()
    train(invoke, *FAST, "--num_epochs", "1", "--weight_decay", "0.5", "--subfolder", "decay")
    assert len(set(observed["rates"])) > 2
    assert {group["weight_decay"] for group in observed["trainer"].optimizer.param_groups} == {0, 0.5}


@pytest.mark.parametrize(("more", "expected"), [([], 20), (["--max_epochs", "5000"], -(-50_000 // 48))])
def test_without_num_epochs_the_model_sees_50000_texts(inputs, invoke, monkeypatch, more, expected):
    seen = {}

    def stop(options, *_, num_epochs, **__):
        seen["epochs"] = num_epochs
        raise KeyboardInterrupt

    monkeypatch.setattr(classifier_setup, "training_arguments", stop)
    status, _, _ = invoke(finetune, "--model_name", "tiny", "--train_langs", "en", *more)
    assert status == 130
    assert seen["epochs"] == expected
    record = json.loads((inputs.folder / "outputs/tiny-en/run.json").read_text())
    assert record["status"] == "failed"


def test_the_same_seed_gives_the_same_weights(inputs, invoke):
    for subfolder, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(invoke, *FAST, "--subfolder", subfolder, "--seed", seed)
    a, b, c = (
        (inputs.folder / "models" / name / "tiny-en" / "model.safetensors").read_bytes() for name in ("a", "b", "c")
    )
    assert a == b
    assert a != c


def test_a_resume_point_is_saved_when_it_is_due(inputs, invoke, monkeypatch):
    from utils.training.trainer import StopCallback

    saved = []
    stock = StopCallback.on_save

    def record(self, args, state, control, **kwargs):
        saved.append(state.global_step)
        return stock(self, args, state, control, **kwargs)

    monkeypatch.setattr(StopCallback, "on_save", record)
    monkeypatch.setattr(StopCallback, "SAVE_SECONDS", 0)
    train(invoke, *FAST)
    assert saved == list(range(1, 13)), "after every step of 2 epochs of 6"
