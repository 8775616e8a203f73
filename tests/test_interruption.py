"""Stopped at any moment and started again, a run ends with the weights of an uninterrupted one, bit for bit."""

import contextlib
import fcntl
import json
import signal
import time

import pytest

from tests.processes import COMMAND, finish, start, stop_at

pytestmark = pytest.mark.slow

# Enough steps per epoch (12 of 4 texts) to be hit in the middle of one; dropout stays on.


def run(inputs, *extra, status=0):
    return finish(start("finetune.py", *COMMAND, *extra, cwd=inputs.folder), status)


def weights(inputs, subfolder):
    return (inputs.folder / "models" / subfolder / "tiny-en" / "model.safetensors").read_bytes()


def history(inputs, subfolder):
    epochs = json.loads((inputs.folder / "outputs" / subfolder / "tiny-en" / "train.json").read_text())["epochs"]
    for epoch in epochs:
        del epoch["seconds"], epoch["validation"]["seconds"]
    return epochs


def record(inputs, subfolder):
    return json.loads((inputs.folder / "outputs" / subfolder / "tiny-en" / "run.json").read_text())


def test_stopped_by_signals_killed_and_resumed(inputs):
    run(inputs, "--subfolder", "whole")

    # SIGTERM in the middle of the first epoch, SIGUSR1 in the second, kill -9 in the third.
    status, output = stop_at(inputs, "epoch 0.2", signal.SIGTERM, "--subfolder", "broken")
    assert status == 128 + signal.SIGTERM, output
    assert "stopped: SIGTERM at step" in output
    assert record(inputs, "broken")["status"] == "running"
    assert not (inputs.folder / "models/broken/tiny-en/config.json").exists()

    status, output = stop_at(inputs, "epoch 1.2", signal.SIGUSR1, "--subfolder", "broken")
    assert status == 128 + signal.SIGUSR1, output

    status, output = stop_at(inputs, "epoch 2.2", signal.SIGKILL, "--subfolder", "broken")
    assert status == -signal.SIGKILL
    (inputs.folder / "models/broken/tiny-en/checkpoints/checkpoint-99").mkdir()

    output = run(inputs, "--subfolder", "broken")
    assert "going on from" in output
    assert "removed checkpoint-99" in output
    assert weights(inputs, "broken") == weights(inputs, "whole")
    assert history(inputs, "broken") == history(inputs, "whole")
    assert record(inputs, "broken")["status"] == "complete"
    assert record(inputs, "broken")["restarts"] == 3
    assert not (inputs.folder / "models/broken/tiny-en/checkpoints").exists()


def test_a_signal_in_the_last_step_of_an_epoch_costs_no_validation(inputs):
    run(inputs, "--subfolder", "whole")
    # The line of epoch 1 is printed between its evaluation and its resume point.
    status, output = stop_at(inputs, "epoch 1:", signal.SIGTERM, "--subfolder", "broken")
    assert status == 128 + signal.SIGTERM, output
    run(inputs, "--subfolder", "broken")
    assert weights(inputs, "broken") == weights(inputs, "whole")
    assert history(inputs, "broken") == history(inputs, "whole")


def test_a_forced_run_goes_on_too(inputs):
    """Or a job that is requeued with --force would begin anew every time."""
    assert stop_at(inputs, "epoch 0.2", signal.SIGTERM, "--seed", "1")[0] == 128 + signal.SIGTERM
    forced = ["--force", "--seed", "2"]
    status, output = stop_at(inputs, "epoch 0.2", signal.SIGTERM, *forced)
    assert status == 128 + signal.SIGTERM
    assert "going on from" not in output
    assert "going on from" in run(inputs, *forced)


def test_a_signal_before_training_ends_at_once(inputs):
    run(inputs, "--subfolder", "first")
    with contextlib.ExitStack() as held:
        # Whoever wants the tokenized texts waits for the one who makes them.
        for path in (inputs.folder / ".cache").glob("*.lock"):
            fcntl.flock(held.enter_context(path.open()), fcntl.LOCK_EX)
        process = start("finetune.py", *COMMAND, cwd=inputs.folder)
        while not (inputs.folder / "outputs/tiny-en/run.json").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert "SIGTERM before training began" in finish(process, 128 + signal.SIGTERM)


def test_killed_after_early_stopping_decided(inputs):
    """The resume point is the one at which patience ran out: nothing more is trained."""
    common = ["--learning_rate", "1e-12", "--num_epochs", "9", "--early_stopping_patience", "1"]
    run(inputs, *common, "--subfolder", "whole")
    status, _ = stop_at(inputs, "epoch 2:", signal.SIGTERM, *common, "--subfolder", "broken")
    assert status == 128 + signal.SIGTERM
    assert "epoch 3" not in run(inputs, *common, "--subfolder", "broken")
    assert weights(inputs, "broken") == weights(inputs, "whole")
    assert history(inputs, "broken") == history(inputs, "whole")


def test_resuming_with_other_options_or_other_data_is_refused(inputs, small):
    import shutil

    assert stop_at(inputs, "epoch 0.2", signal.SIGTERM)[0] == 128 + signal.SIGTERM
    output = run(inputs, "--batch_size", "8", status=2)
    assert "batch_size 4 -> 8" in output
    assert "--subfolder" in output and "--force" in output
    shutil.copytree(small / "register-corpus", inputs.folder / "corpus")
    with (inputs.folder / "corpus/corpus/train/en.tsv").open("a") as file:
        file.write("IN\tone more text\n")
    output = run(inputs, "--corpus_path", str(inputs.folder / "corpus"), status=2)
    assert "the data files have changed" in output
    assert "going on from" in run(inputs)


def test_two_jobs_never_train_one_model(inputs):
    first = start("finetune.py", *COMMAND, cwd=inputs.folder)
    for line in first.stdout:
        if line.startswith("epoch 0."):
            break
    output = run(inputs, status=2)
    assert "is training this model" in output
    finish(first)
    assert record(inputs, "")["status"] == "complete"


def test_more_than_one_signal_still_saves(inputs):
    process = start("finetune.py", *COMMAND, cwd=inputs.folder)
    for line in process.stdout:
        if line.startswith("epoch 0.2"):
            for _ in range(3):
                process.send_signal(signal.SIGTERM)
            break
    finish(process, 128 + signal.SIGTERM)
    assert "going on from" in run(inputs)
