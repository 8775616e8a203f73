"""What both trainers share."""

import pytest
from transformers import TrainingArguments

from utils.runs.resume_points import read_history
from utils.training.classifier_trainer import ClassifierHistory
from utils.training.lm_history import LmHistory
from utils.training.lm_trainer import lm_training_arguments
from utils.training.options import TrainingOptions, training_arguments


@pytest.mark.parametrize("kind", ["classifier", "language model"])
def test_of_several_gpus_one_is_used_and_the_command_for_all_is_named(tmp_path, monkeypatch, capsys, kind):
    """torch.nn.DataParallel would drive them from one process, slower than one of them alone."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 4))
    if kind == "classifier":
        sizes = {"batch_size": 4, "num_epochs": 1, "precision": "fp32"}
        arguments = training_arguments(TrainingOptions(), tmp_path, "run", **sizes)
    else:
        sizes = {"epochs": 1, "train_batch_size": 4, "validation_batch_size": 4, "seed": 1, "use_gpu": False}
        arguments = lm_training_arguments(tmp_path, {"report_to": "none"}, **sizes)
    assert arguments._n_gpu == 1
    assert "using 1 of 4 GPUs; all of them: torchrun --nproc-per-node=4" in capsys.readouterr().out


def test_a_history_is_restored_from_what_the_trainer_stores(tmp_path):
    import json

    import torch

    history = ClassifierHistory(epochs=[{"epoch": 1}], loss_sum=torch.tensor(0.1, dtype=torch.float64), steps=3)
    state = {"stateful_callbacks": {"ClassifierHistory": history.state(), "TrainerControl": {}}}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert read_history(tmp_path) == {"epochs": [{"epoch": 1}], "loss_sum": 0.1, "steps": 3, "seconds": 0.0}
    assert LmHistory.from_state(LmHistory(metrics_size=7).state()).metrics_size == 7
