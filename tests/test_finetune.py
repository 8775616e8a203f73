"""What finetune.py refuses, keeps and records; how it trains is in test_training.py and beside it."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

import finetune
from tests.factories import FAST
from tests.processes import finish, start, stop_at
from utils.runs.files import read_json, sha256_of_file
from utils.training.options import prepare_tracker


def train(invoke, *arguments, langs="en"):
    return invoke(finetune, "--model_name", "tiny", "--train_langs", langs, *FAST, *arguments)


@pytest.mark.slow
def test_run_json_and_train_json_hold_what_is_needed_to_run_again(inputs, invoke):
    status, output, _ = train(invoke, "--seed", "5", langs="en-fr")
    assert status == 0
    for path in ("models/tiny-en-fr", "outputs/tiny-en-fr/train.json", "outputs/tiny-en-fr/run.json"):
        assert path in output
        assert (inputs.folder / path).exists()
    record = json.loads((inputs.folder / "outputs/tiny-en-fr/run.json").read_text())
    assert record["status"] == "complete"
    assert record["options"]["seed"] == record["seed"] == 5
    assert record["options"]["max_length"] == 64, "the registry's"
    files = {file["path"]: file["sha256"] for file in record["data"]["files"]}
    assert files == {str(path): sha256_of_file(path) for path in (inputs.corpus / "corpus/train").glob("[ef][nr].tsv")}
    assert sum(record["train_registers"].values()) == 80
    assert sum(record["validation_registers"].values()) == 20
    report = json.loads((inputs.folder / "outputs/tiny-en-fr/train.json").read_text())
    assert [epoch["epoch"] for epoch in report["epochs"]] == [1, 2]
    assert set(report["epochs"][0]) == {"epoch", "loss", "learning_rate", "seconds", "validation"}
    assert {"accuracy", "precision", "recall", "micro_f1", "macro_f1", "weighted_f1", "loss"} <= set(
        report["epochs"][0]["validation"]
    )
    assert report["num_train_texts"] == 80
    assert report["num_parameters"] == report["num_trainable_parameters"] > 10_000
    for name in ("seconds", "texts_per_second", "tokens_per_second", "peak_memory_bytes"):
        assert report[name] > 0


@pytest.mark.slow
def test_a_complete_run_is_kept_unless_forced(inputs, invoke):
    train(invoke)
    weights = inputs.folder / "models/tiny-en/model.safetensors"
    before = weights.read_bytes()
    status, output, _ = train(invoke)
    assert (status, "already complete" in output) == (0, True)
    status, _, errors = train(invoke, "--seed", "7")
    assert status == 2
    assert "seed 42 -> 7" in errors and "--force" in errors and errors.count("\n") <= 2
    assert weights.read_bytes() == before

    stale = inputs.folder / "outputs/tiny-en/eval/en.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    status, _, _ = train(invoke, "--seed", "7", "--force")
    assert status == 0
    assert weights.read_bytes() != before
    assert not stale.exists(), "results of the model that was replaced"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model_name", "tniy"], "'tniy' is not in"),
        (["--train_langs", "en-xx"], "language 'xx' has no train file"),
        (["--train_langs", "en-en"], "given twice"),
        (["--train_langs", "../en"], "not a language name"),
        (["--subfolder", "../x"], "below the output folder"),
        (["--corpus_path", "nowhere"], "the corpus folder nowhere does not exist"),
        (["--lr_scheduler_type", "liner"], "unknown schedule 'liner'; did you mean 'linear'"),
        (["--max_length", "513"], "at most 512 tokens"),
        (["--precision", "fp16"], "--precision fp16 needs a GPU"),
        (["--validation_size", "60"], "--validation_size 60: there are 60 texts in all"),
        (["--validation_size", "1.5"], "--validation_size 1.5: expected a part below 1 or a whole number of texts"),
        (["--validation_size", "0.000001"], "too few for a validation part"),
        (["--report_to", "mlflow"], "the package mlflow is not installed"),
        (["--num_epochs", "-1"], "at least 0"),
    ],
)
def test_mistakes_end_with_status_2_and_leave_no_model(inputs, invoke, arguments, message):
    import torch

    if message.startswith("--precision") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    status, _, errors = train(invoke, *arguments)
    assert status == 2, errors
    assert message in errors
    assert errors.count("\n") <= 2
    assert "Traceback" not in errors
    assert not list(inputs.folder.rglob("*.safetensors"))


@pytest.mark.slow
def test_a_failing_run_keeps_earlier_results_and_says_why(inputs, invoke, monkeypatch):
    train(invoke)
    before = {path: path.read_bytes() for path in (inputs.folder / "models").rglob("*") if path.is_file()}
    report = (inputs.folder / "outputs/tiny-en/train.json").read_text()

    from utils.training.classifier_trainer import ClassifierTrainer

    def fail(self, *_, **__):
        raise RuntimeError("the disk is full\nand more lines")

    monkeypatch.setattr(ClassifierTrainer, "training_step", fail)
    status, _, errors = train(invoke, "--force")
    assert status == 1
    assert errors.splitlines() == ["finetune.py: error: RuntimeError: the disk is full (--debug shows the traceback)"]
    record = json.loads((inputs.folder / "outputs/tiny-en/run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", "the disk is full\nand more lines")
    assert {path: path.read_bytes() for path in before} == before
    assert (inputs.folder / "outputs/tiny-en/train.json").read_text() == report


def test_debug_shows_the_traceback(inputs, invoke):
    _, _, errors = train(invoke, "--train_langs", "xx", "--debug")
    assert "Traceback" in errors


def test_an_incomplete_local_checkpoint_is_named(inputs, invoke):
    shutil.copytree(inputs.registry.parent / "tiny-xlmr", inputs.folder / "half")
    (inputs.folder / "half/model.safetensors").unlink()
    registry = inputs.folder / "models.json"
    registry.write_text(json.dumps({"tiny": "./half"}))
    status, _, errors = train(invoke, "--model_registry", registry)
    assert status == 2
    assert "weights are missing: model.safetensors" in errors


def test_a_checkpoint_that_is_not_cached_says_how_to_get_it(inputs, invoke, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    registry = inputs.folder / "models.json"
    registry.write_text(json.dumps({"tiny": "nobody/nothing"}))
    status, _, errors = train(invoke, "--model_registry", registry)
    assert status == 2
    assert "python download_model.py --models tiny" in errors
    assert errors.count("\n") <= 2


@pytest.mark.slow
@pytest.mark.fault(9)
def test_training_needs_no_gpu(inputs, invoke, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    status, output, errors = train(invoke)
    assert status == 0, errors
    assert "cpu" in output


@pytest.mark.slow
def test_the_saved_classifier_names_its_registers(inputs, invoke):
    train(invoke)
    config = json.loads((inputs.folder / "models/tiny-en/config.json").read_text())
    assert list(config["id2label"].values()) == ["IN", "OP", "RN", "JN", "HI", "LY", "ND", "AD"]


def test_no_epochs_save_the_pretrained_model_with_a_new_head(inputs, invoke):
    command = ["--model_name", "tiny", "--train_langs", "en", *FAST, "--num_epochs", "0", "--evaluate_train"]
    status, output, errors = invoke(finetune, *command, "--checkpoints_dir", "elsewhere")
    assert status == 0, errors
    assert re.search(r"training texts: ([A-Z]+ \d+, )+[A-Z]+ \d+\n", output)
    report = read_json(inputs.folder / "outputs/tiny-en/train.json")
    assert [epoch["epoch"] for epoch in report["epochs"]] == [0]
    assert 0 < report["train"]["accuracy"] < 0.5
    from safetensors.torch import load_file

    saved = load_file(inputs.folder / "models/tiny-en/model.safetensors")
    base = load_file(inputs.registry.parent / "tiny-xlmr/model.safetensors")
    assert all(saved[name].equal(base[name]) for name in base if name in saved)
    assert "already complete" in invoke(finetune, *command)[1]


@pytest.mark.slow
def test_resume_points_elsewhere(inputs, invoke):
    command = ["--model_name", "tiny", "--train_langs", "en", *FAST, "--num_epochs", "3", "--subfolder", "s"]
    command += ["--checkpoints_dir", "elsewhere"]
    folder = inputs.folder / "elsewhere/s/tiny-en/checkpoints"
    assert invoke(finetune, *command, "--keep_checkpoints")[0] == 0
    kept = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert "checkpoint-18" in kept and len(kept) <= 2, "the last and the best"
    assert invoke(finetune, *command, "--force")[0] == 0
    assert list((inputs.folder / "elsewhere").iterdir()) == [], "no empty folders are left"


@pytest.mark.fault(14)
@pytest.mark.slow
def test_resume_points_that_would_lie_among_other_files(inputs, invoke):
    """Each of these deleted the saved model, the results, or what somebody else had put there."""
    command = ["--model_name", "tiny", "--train_langs", "en", *FAST, "--num_epochs", "1"]
    for place in ("models", "outputs", "./models/", str(inputs.folder / "outputs")):
        status, _, errors = invoke(finetune, *command, "--checkpoints_dir", place)
        assert status == 2 and "--checkpoints_dir" in errors and errors.count("\n") == 1, errors
    foreign = [Path("elsewhere/tiny-en/thesis.tex"), Path("elsewhere/tiny-en/checkpoints-of-mine/x")]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert invoke(finetune, *command, "--checkpoints_dir", "elsewhere")[0] == 0
    assert all(path.read_text() == "mine" for path in foreign)
    assert not Path("elsewhere/tiny-en/checkpoints").exists()
    mine = Path("elsewhere/tiny-en/checkpoints/checkpoint-3/model.safetensors")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    status, _, errors = invoke(finetune, *command, "--checkpoints_dir", "elsewhere", "--force")
    assert status == 2 and "not resume points of this version" in errors
    assert mine.read_text() == "mine"
    assert Path("models/tiny-en/model.safetensors").is_file()


@pytest.mark.fault(14)
@pytest.mark.slow
def test_a_linked_folder_of_resume_points(inputs, invoke):
    """It was unlinked instead of emptied, and --force with other options saved the old model under the new record."""
    scratch, link = inputs.folder / "scratch", inputs.folder / "models/tiny-en/checkpoints"
    scratch.mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(scratch)
    command = ["--model_name", "tiny", "--train_langs", "en", *FAST]
    status, output = stop_at(inputs, "epoch 1.5", signal.SIGTERM, "--seed", "7")
    assert status == 128 + signal.SIGTERM, output
    assert list(scratch.glob("checkpoint-*"))
    for more in (["--force"], ["--subfolder", "fresh"]):
        status, output, errors = invoke(finetune, *command, *more)
        assert status == 0 and "going on" not in output, errors
    assert link.is_symlink() and list(scratch.iterdir()) == []
    models = [Path("models", sub, "tiny-en/model.safetensors").read_bytes() for sub in ("", "fresh")]
    assert models[0] == models[1]


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run(inputs, invoke):
    status, _, errors = train(invoke, "--learning_rate", "1e30")
    assert status == 1
    assert "finetune.py: error: the loss is nan after 1 epochs" in errors and errors.count("\n") == 2
    assert read_json(inputs.folder / "outputs/tiny-en/run.json")["status"] == "failed"
    assert not (inputs.folder / "models/tiny-en/config.json").exists()


@pytest.mark.slow
def test_what_tensorboard_is_told_outlives_the_resume_points(inputs, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = ["--model_name", "tiny", "--train_langs", "en", *FAST, "--report_to", "tensorboard"]
    finish(start("finetune.py", *arguments, cwd=inputs.folder))
    events = EventAccumulator(str(inputs.folder / "outputs/tiny-en/tensorboard")).Reload()
    report = read_json(inputs.folder / "outputs/tiny-en/train.json")
    told = [event.value for event in events.Scalars("eval/macro_f1")]
    assert told[:2] == pytest.approx([epoch["validation"]["macro_f1"] for epoch in report["epochs"]])
    assert not list(inputs.folder.rglob("models/**/events*"))


@pytest.mark.parametrize(
    ("tracker", "variable", "value"),
    [
        ("tensorboard", "TENSORBOARD_LOGGING_DIR", "results/tensorboard"),
        ("wandb", "WANDB_MODE", "offline"),
        ("wandb", "WANDB_PROJECT", "register-finetuning"),
        ("mlflow", "MLFLOW_EXPERIMENT_NAME", "register-finetuning"),
    ],
)
def test_trackers_know_their_places_unless_the_user_does(monkeypatch, tmp_path, tracker, variable, value):
    # What is imported is not the question here.
    (tmp_path / tracker).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("os.environ", dict(os.environ))
    os.environ.pop(variable, None)
    prepare_tracker(tracker, Path("results"))
    assert os.environ[variable] == value
    os.environ[variable] = "mine"
    prepare_tracker(tracker, Path("results"))
    assert os.environ[variable] == "mine"
