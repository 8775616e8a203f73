import json

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_sample_weight

import finetune
from tests.conftest import FAST
from utils.runs.resume import is_complete, last_resume_point, remove_incomplete
from utils.training.classifier_losses import ClassificationLoss, balanced_class_weights


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


def small_model_without_dropout(inputs):
    """The small model with all its dropout rates at 0, in a registry of its own."""
    import shutil

    folder = inputs.folder / "plain"
    shutil.copytree(inputs.registry.parent / "tiny-xlmr", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    registry = inputs.folder / "plain.json"
    registry.write_text(json.dumps({"tiny": {"checkpoint": str(folder), "max_length": 64}}))
    return registry


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
def test_texts_are_hardly_padded(inputs, invoke, observed, monkeypatch):
    from transformers import Trainer

    computed = []
    stock = Trainer.training_step

    def count(self, model, piece, *arguments):
        computed.append((piece["attention_mask"].numel(), int(piece["attention_mask"].sum())))
        return stock(self, model, piece, *arguments)

    monkeypatch.setattr(Trainer, "training_step", count)
    train(invoke, *FAST, "--max_length", "256")
    padded, tokens = np.array(computed[len(computed) // 2 :]).sum(axis=0)
    report = json.loads((inputs.folder / "outputs/tiny-en/train.json").read_text())
    assert report["padding_fraction"] == pytest.approx(1 - tokens / padded, abs=0.02)
    assert report["padding_fraction"] < 0.2
    assert np.sum(computed, axis=0)[1] == 2 * observed["trainer"].sampler.lengths.sum(), "every token once an epoch"


def test_pieces_give_the_gradient_of_the_padded_batch(inputs, invoke, observed):
    """So grouping by length trains the same model as random order, but for rounding and dropout."""
    common = [*FAST, "--max_length", "256", "--num_epochs", "1", "--model_registry"]
    common.append(str(small_model_without_dropout(inputs)))
    train(invoke, *common, "--train_sampling", "random", "--subfolder", "a")
    whole, observed["norms"] = observed["norms"], []
    train(invoke, *common, "--train_sampling", "length", "--subfolder", "b")
    assert observed["norms"] == pytest.approx(whole, rel=1e-4)


def test_the_best_epoch_is_kept_and_reported(inputs, invoke, monkeypatch):
    from utils.training import classifier_trainer as training

    scores = iter([0.2, 0.9, 0.4])
    stock = training.classification_metrics

    def scripted(*arguments):
        return stock(*arguments) | {"macro_f1": next(scores)}

    monkeypatch.setattr(training, "classification_metrics", scripted)
    kept = {}
    monkeypatch.setattr(training.ClassifierTrainer, "_load_best_model", keep_best(kept))
    train(invoke, *FAST, "--num_epochs", "3")
    report = json.loads((inputs.folder / "outputs/tiny-en/train.json").read_text())
    assert report["best_epoch"] == 2
    assert kept["point"].endswith("checkpoint-12")


def keep_best(kept):
    from transformers import Trainer

    def load(self):
        kept["point"] = self.state.best_model_checkpoint
        Trainer._load_best_model(self)

    return load


def test_early_stopping(inputs, invoke):
    output = train(invoke, *FAST, "--num_epochs", "9", "--learning_rate", "1e-12", "--early_stopping_patience", "2")
    assert "epoch 3:" in output
    assert "epoch 4:" not in output


@pytest.mark.parametrize(
    "extra",
    [
        ["--balanced", "--label_smoothing", "0.1"],
        ["--gradient_checkpointing", "--deterministic"],
        ["--precision", "bf16"],
        ["--mix", "temperature", "--train_langs", "en-fr", "--max_train_texts", "20"],
        ["--weight_decay", "0", "--warmup_ratio", "0", "--lr_scheduler_type", "constant"],
    ],
)
def test_options_run(inputs, invoke, extra):
    output = train(invoke, *FAST, "--num_epochs", "1", *extra)
    assert "best epoch 1 of 1" in output


def test_without_num_epochs_the_model_sees_50000_texts(inputs, invoke, monkeypatch):
    seen = {}

    def stop(options, *_, num_epochs, **__):
        seen["epochs"] = num_epochs
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "training_arguments", stop)
    status, _, _ = invoke(finetune, "--model_name", "tiny", "--train_langs", "en")
    assert status == 130
    assert seen["epochs"] == -(-50_000 // 48)
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


def test_half_written_resume_points_do_not_count(tmp_path, inputs, invoke, monkeypatch):
    from utils.runs import resume

    monkeypatch.setattr(resume.shutil, "rmtree", lambda *_, **__: None)
    train(invoke, *FAST)
    checkpoints = inputs.folder / "models/tiny-en/checkpoints"
    newest = last_resume_point(checkpoints)
    assert newest.name == "checkpoint-12"
    monkeypatch.undo()
    for damage in ("trainer_state.json", "optimizer.pt", "model.safetensors"):
        content = (newest / damage).read_bytes()
        (newest / damage).write_bytes(content[: len(content) // 3])
        assert not is_complete(newest)
        assert last_resume_point(checkpoints).name == "checkpoint-6"
        (newest / damage).write_bytes(content)
    assert is_complete(newest)
    (newest / "trainer_state.json").unlink()
    assert remove_incomplete(checkpoints) == ["checkpoint-12"]
    assert not newest.exists()
