"""Two processes on the CPU (gloo), started by torchrun as on several GPUs."""

import csv
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import finetune_lm
from tests.factories import PROJECT, TRAIN, Inputs, rows_of, small_model_without_dropout
from tests.processes import finish, start
from utils.cli.parser import OptionParser
from utils.errors import UserError
from utils.training.lm_options import FinetuneLmOptions

pytestmark = pytest.mark.slow

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
COMMAND = ["--model_name", "tiny", "--train_langs", "en-fr", "--num_epochs", "2", "--learning_rate", "1e-3"]
# Each step's gradient is that of its texts, however they are shared out, if nothing random is dropped.
COMMAND += ["--precision", "fp32"]


@pytest.fixture(scope="module")
def runs(small, tmp_path_factory):
    """The same training with one process of 8 texts and with two of 4."""
    folder = tmp_path_factory.mktemp("distributed")
    made = Inputs(small / "register-corpus", small / "model2chckpt.json", folder)
    environment = made.environment | {"MODEL_REGISTRY": str(small_model_without_dropout(made))}
    outputs = {}
    for name, prefix, size in (("one", (), "8"), ("two", TORCHRUN, "4")):
        process = start(
            "finetune.py", *COMMAND, "--batch_size", size, "--subfolder", name, cwd=folder, prefix=prefix, **environment
        )  # fmt: skip
        outputs[name] = finish(process)
    return folder, outputs, environment


def load(folder, path):
    return json.loads((folder / path).read_text(encoding="utf-8"))


def test_two_processes_train_as_one(runs):
    folder, _, _ = runs
    one, two = (load(folder, f"outputs/{name}/tiny-en-fr/train.json") for name in ("one", "two"))
    for first, second in zip(one["epochs"], two["epochs"], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
        assert second["validation"]["loss"] == pytest.approx(first["validation"]["loss"], rel=1e-3)
    from safetensors.numpy import load_file

    first, second = (load_file(folder / f"models/{name}/tiny-en-fr/model.safetensors") for name in ("one", "two"))
    for name, tensor in first.items():
        np.testing.assert_allclose(second[name], tensor, atol=2e-3, err_msg=name)


@pytest.mark.fault(6)
def test_one_process_writes_and_metrics_count_every_text_once(runs):
    folder, outputs, _ = runs
    for line in ("epoch 1:", "best epoch"):
        assert outputs["two"].count(line) == 1, outputs["two"]
    record = load(folder, "outputs/two/tiny-en-fr/run.json")
    assert (record["status"], record["num_processes"], record["options"]["batch_size"]) == ("complete", 2, 4)
    single = load(folder, "outputs/one/tiny-en-fr/run.json")
    assert record["validation_registers"] == single["validation_registers"]
    validation = load(folder, "outputs/two/tiny-en-fr/train.json")["epochs"][-1]["validation"]
    total = sum(record["validation_registers"].values())
    hits = validation["accuracy"] * total
    assert hits == pytest.approx(round(hits), abs=1e-6)


@pytest.mark.fault(9)
def test_two_jobs_on_one_machine_do_not_collide(runs):
    folder, _, environment = runs
    jobs = [
        start(
            "finetune.py", *COMMAND, "--batch_size", "4", "--num_epochs", "1", "--subfolder", name,
            cwd=folder, prefix=TORCHRUN, **environment,
        )
        for name in ("left", "right")
    ]  # fmt: skip
    for job in jobs:
        finish(job)
    for name in ("left", "right"):
        assert load(folder, f"outputs/{name}/tiny-en-fr/run.json")["status"] == "complete"


def test_a_model_trained_by_two_processes_is_evaluated_by_one(runs):
    folder, _, environment = runs
    arguments = ["--model_name", "tiny", "--train_langs", "en-fr", "--subfolder", "two", "--eval_lang", "en"]
    finish(start("evaluate.py", *arguments, cwd=folder, **environment))
    with (folder / "outputs/two/tiny-en-fr/predictions/en.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 24


# The other process wrote into the folder of resume points when the first was slow, which then took it for foreign.
SLOW_DISK = """
import time

import finetune
from utils.cli.script import run_script
from utils.runs.resume_points import ResumePoints

prepare = ResumePoints.prepare
ResumePoints.prepare = lambda points: (time.sleep(1), prepare(points))
run_script(finetune.main)
"""


def test_a_signal_to_one_process_stops_both_and_the_run_resumes(runs):
    folder, _, environment = runs
    arguments = [*COMMAND, "--batch_size", "4", "--subfolder", "slow"]
    script = folder / "slow_disk.py"
    script.write_text(SLOW_DISK)
    job = start(script, *arguments, cwd=folder, prefix=TORCHRUN, PYTHONPATH=str(PROJECT), **environment)
    for line in job.stdout:
        if line.startswith("epoch 0."):
            break
    children = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGUSR1)
    output, _ = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "SIGUSR1 at step" in output, output
    output = finish(start("finetune.py", *arguments, cwd=folder, prefix=TORCHRUN, **environment))
    assert "going on from" in output
    assert (folder / "models/slow/tiny-en-fr/model.safetensors").read_bytes() == (
        folder / "models/two/tiny-en-fr/model.safetensors"
    ).read_bytes()


def sharded(folder, name, *extra, **environment):
    """Start two processes that share out one model's weights."""
    launch = ("-m", "accelerate.commands.launch", f"--config_file={PROJECT}/config/fsdp.yaml", "--main_process_port=0")
    arguments = [PROJECT / "finetune.py", *COMMAND, "--batch_size", "4", "--subfolder", name, *extra]
    return start("tests/fsdp_on_cpu.py", *arguments, cwd=folder, prefix=launch, **environment)


@pytest.fixture(scope="module")
def shared(runs):
    """An uninterrupted run with shared weights, below the subfolder shared."""
    folder, _, environment = runs
    finish(sharded(folder, "shared", **environment))


def test_a_sharded_model_trains_as_a_whole_one(runs, shared):
    folder, _, environment = runs
    whole, shared = (load(folder, f"outputs/{name}/tiny-en-fr/train.json") for name in ("two", "shared"))
    assert shared["num_parameters"] == whole["num_parameters"]
    for first, second in zip(whole["epochs"], shared["epochs"], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
        assert second["validation"]["loss"] == pytest.approx(first["validation"]["loss"], rel=1e-3)
    from safetensors.numpy import load_file

    first, second = (load_file(folder / f"models/{name}/tiny-en-fr/model.safetensors") for name in ("two", "shared"))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        np.testing.assert_allclose(second[name], tensor, atol=2e-3, err_msg=name)
    arguments = ["--model_name", "tiny", "--train_langs", "en-fr", "--subfolder", "shared", "--eval_lang", "en"]
    finish(start("evaluate.py", *arguments, cwd=folder, **environment))


def test_a_sharded_run_is_stopped_and_goes_on(runs, shared):
    folder, _, environment = runs
    job = sharded(folder, "shared-stopped", **environment)
    for line in job.stdout:
        if line.startswith("epoch 0."):
            break
    children = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(children[0]), signal.SIGUSR1)
    output, _ = job.communicate(timeout=120)
    assert "SIGUSR1 at step" in output, output
    output = finish(sharded(folder, "shared-stopped", **environment))
    assert "going on from" in output
    names = ("shared-stopped", "shared")
    stopped, whole = (load(folder, f"outputs/{name}/tiny-en-fr/train.json")["epochs"][-1]["loss"] for name in names)
    assert stopped == pytest.approx(whole, rel=1e-5)


def test_sharding_without_gpus_is_refused_and_not_left_out_in_silence(runs):
    folder, _, environment = runs
    launch = ("-m", "accelerate.commands.launch", f"--config_file={PROJECT}/config/fsdp.yaml", "--main_process_port=0")
    job = start("finetune.py", *COMMAND, "--subfolder", "none", cwd=folder, prefix=launch, **environment)
    assert "accelerate shards models among GPUs only" in finish(job, 1)


def test_language_models_train_in_two_processes_as_in_one(here):
    """Each batch is shared out, and its loss is the mean over all its tokens; one process writes and tests."""
    shutil.copytree("gpt2", "dry")
    config = json.loads(Path("dry/config.json").read_text())
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    Path("dry/config.json").write_text(json.dumps(config | rates))
    folders = []
    for name, prefix, size in (("one", (), "8"), ("two", TORCHRUN, "4")):
        arguments = ["--model_name_or_path", "dry", *TRAIN, "--epochs", "2", "--test_file", "test.txt.gz"]
        arguments += ["--per_device_train_batch_size", size, "--gradient_accumulation_steps", "2", "--output_dir", name]
        output = finish(start("finetune_lm.py", *arguments, cwd=here, prefix=prefix))
        assert output.count("best epoch") == output.count("epoch 1:") == output.count("tested ") == 1, output
        folders += (here / name).glob("train/dry/2*")
    assert len(folders) == 2 and ("in 2 processes" in output)
    one, two = ([row["validation_loss"] for row in load(folder, "train.json")["epochs"]] for folder in folders)
    assert two == pytest.approx(one, rel=1e-5)
    tables = [rows_of(folder / "dry-test_sentences.csv.gz") for folder in folders]
    bits = [[float(row["surprisal_bits"]) for row in table] for table in tables]
    assert bits[1] == pytest.approx(bits[0], rel=1e-4)
    # Surprisals of all batches are those of one process alone.
    metrics = rows_of(folders[1] / "metrics.csv.gz")
    assert [(row["split"], row["epoch"]) for row in metrics[:2]] == [("train", "1"), ("validation", "1")]
    record = load(folders[1], "run.json")
    assert record["options"]["num_processes"] == 2 and "num_processes" not in (folders[1] / "config.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "sharded", "message"),
    [
        ([*TRAIN, "--do_optimize"], "false", "a trial runs in one process"),
        (["--test_file", "test.txt.gz"], "false", "a test alone runs in one"),
        (TRAIN, "true", "not sharded among processes"),
    ],
)
def test_what_several_processes_cannot_share(monkeypatch, arguments, sharded, message):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", sharded)
    options = OptionParser(FinetuneLmOptions).parse(["--model_name_or_path", "gpt2", *arguments])
    with pytest.raises(UserError, match=message):
        finetune_lm.check_processes(options)
