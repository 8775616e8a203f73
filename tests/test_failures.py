"""What goes wrong on clusters: full disks, folders that cannot be written to, resume points gone bad."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.factories import FAST, Inputs, skip
from tests.processes import finish, start
from utils.runs.resume_points import ResumePoints

COMMAND = ["--model_name", "tiny", "--train_langs", "en", *FAST, "--num_epochs", "4", "--batch_size", "4"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for a few resume points; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if mount.returncode:
        skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_costs_no_result_and_the_run_goes_on_when_there_is_room(inputs, small_disk):
    places = ["--models_dir", small_disk / "models", "--output_dir", small_disk / "outputs"]
    filler = small_disk / "filler"
    job = start("finetune.py", *COMMAND, *places, cwd=inputs.folder)
    for line in job.stdout:
        if line.startswith("epoch 1:"):
            # From here on there is no room.
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(b"0" * 65536):
                    pass
            break
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 1, output
    errors = [line for line in output.splitlines() if line.startswith("finetune.py: error:")]
    assert len(errors) == 1
    assert "the disk is full or a quota used up" in errors[0]
    assert "Traceback" not in output
    json.loads((small_disk / "outputs/tiny-en/run.json").read_text())

    filler.unlink()
    finish(start("finetune.py", *COMMAND, *places, cwd=inputs.folder))
    whole = ["--subfolder", "whole"]
    finish(start("finetune.py", *COMMAND, *whole, cwd=inputs.folder))
    assert (small_disk / "models/tiny-en/model.safetensors").read_bytes() == (
        inputs.folder / "models/whole/tiny-en/model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("script", ["finetune.py", "evaluate.py"])
def test_a_folder_that_cannot_be_written_to_is_refused_first(inputs, script):
    # /sys takes no folders, not even from root.
    arguments = ["--model_name", "tiny", "--train_langs", "en"]
    if script == "evaluate.py":
        model = inputs.folder / "models/tiny-en"
        shutil.copytree(inputs.registry.parent / "tiny-xlmr", model)
        arguments += ["--eval_lang", "en"]
    output = finish(start(script, *arguments, "--output_dir", "/sys/outputs", cwd=inputs.folder), 2)
    assert "cannot write to /sys/outputs/tiny-en" in output
    assert "--output_dir" in output
    assert len(output.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def stopped(small, tmp_path_factory):
    """A run stopped in its third epoch, with two resume points."""
    folder = tmp_path_factory.mktemp("stopped")
    made = Inputs(small / "register-corpus", small / "model2chckpt.json", folder)
    job = start("finetune.py", *COMMAND, cwd=folder, **made.environment)
    for line in job.stdout:
        if line.startswith("epoch 2:"):
            job.send_signal(signal.SIGTERM)
            break
    job.communicate(timeout=120)
    assert len(list((folder / "models/tiny-en/checkpoints").glob("checkpoint-*"))) == 2
    return made


def cut_short(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


HARMS = {
    "config.json": lambda path: path.write_text(""),
    "training_args.bin": flip_a_bit,
    "scheduler.pt with a flipped bit": flip_a_bit,
    "model.safetensors with a flipped bit": flip_a_bit,
    "resume_point.json": Path.unlink,
    "model.safetensors": cut_short,
    "optimizer.pt": lambda path: path.write_bytes(b"garbage"),
    "scheduler.pt": Path.unlink,
    "rng_state.pth": cut_short,
    "trainer_state.json": lambda path: path.write_text("{"),
    # As the Trainer alone writes it.
    "trainer_state.json without history": lambda path: path.write_text(
        path.read_text().replace("ClassifierHistory", "SomethingElse")
    ),
}


@pytest.mark.parametrize("name", HARMS)
def test_a_corrupt_resume_point_is_none(stopped, tmp_path, name):
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(stopped.folder / "models/tiny-en/checkpoints", checkpoints)
    assert ResumePoints(checkpoints, "./tiny-en").last().name == "checkpoint-24"
    HARMS[name](checkpoints / "checkpoint-24" / name.partition(" ")[0])
    points = ResumePoints(checkpoints, "./tiny-en")
    assert points.last().name == "checkpoint-12"
    assert points.remove_unsound() == ["checkpoint-24"]
    assert not (checkpoints / "checkpoint-24").exists()


@pytest.mark.slow
def test_a_run_goes_on_from_the_resume_point_before_a_corrupt_one(stopped):
    newest = stopped.folder / "models/tiny-en/checkpoints/checkpoint-24"
    cut_short(newest / "optimizer.pt")
    output = finish(start("finetune.py", *COMMAND, cwd=stopped.folder, **stopped.environment))
    assert "removed checkpoint-24, which was not written to its end, has been damaged" in output
    assert "going on from models/tiny-en/checkpoints/checkpoint-12" in output
