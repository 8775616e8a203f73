"""Files are written whole; what killed writers leave is removed by the next one, what living ones write is not."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.factories import PROJECT
from utils.errors import RunFailure, UserError
from utils.runs import files
from utils.runs.files import atomic_path, readable, remove_remains, write_json

WRITER = """
import sys, time
from pathlib import Path
from utils.runs.files import atomic_path

with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def begin_to_write(path):
    """Start a process that never comes to the end of its file."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "writing\n"
    return writer


def test_remains_of_killed_writers_are_removed_by_the_next_one(tmp_path, monkeypatch):
    killed, living = (begin_to_write(tmp_path / name) for name in ("run.json", "fr.csv"))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    others = tmp_path / ".bashrc"
    others.write_text("mine")
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 3 and all(".unfinished" in name for name in left - {".bashrc"})
    old = time.time() - 60
    for path in tmp_path.iterdir():
        os.utime(path, (old, old))
    write_json(tmp_path / "new.json", {})
    left = {path.name for path in tmp_path.iterdir()}
    assert {name.split(".")[1] for name in left if "unfinished" in name} == {"fr"}, "the other writer lives"
    assert {".bashrc", "new.json"} <= left
    living.kill()
    living.wait()
    # Once per process and folder, so not at every file.
    write_json(tmp_path / "new.json", {})
    assert any("unfinished" in path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(files, "_swept", set())
    write_json(tmp_path / "new.json", {})
    assert not any("unfinished" in path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["1.[x]", "crawl-" * 20])
def test_the_remains_of_one_file_are_removed_at_once(tmp_path, name):
    """By the one process that may write it; those of a file whose name begins alike stay, however long it is."""
    killed = "import os\nwith files.atomic_path(files.Path(name)): os._exit(0)"
    remains = []
    for written in (f"{name}.jsonl.zst", f"{name}2.jsonl.zst"):
        code = f"from utils.runs import files\nname = {written!r}\n{killed}"
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(PROJECT)}, check=True
        )
        remains += [path for path in tmp_path.iterdir() if path not in remains]
    assert len(remains) == 2
    remove_remains(tmp_path, f"{name}.jsonl.zst", older_than=0)
    assert list(tmp_path.iterdir()) == remains[1:]


def test_a_file_that_has_just_been_made_is_left_alone(tmp_path):
    """Its writer may not have locked it yet."""
    fresh = tmp_path / ".run.abc.unfinished.json"
    fresh.write_text("")
    with atomic_path(tmp_path / "x.json") as temporary:
        temporary.write_text("{}")
    assert fresh.exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), RunFailure("the GPU is lost")]
)
def test_what_is_no_damage_of_a_folder_is_not_blamed_on_it(tmp_path, error):
    with pytest.raises(type(error)) as raised, readable(tmp_path):
        raise error
    assert raised.value is error
    with pytest.raises(UserError, match=rf"{tmp_path} cannot be loaded \(KeyError: 'weight'\)"), readable(tmp_path):
        raise KeyError("weight")
