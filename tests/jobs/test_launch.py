"""The nodes of one training, started by utils/jobs/launch.py as run_train.sh does on each of them."""

import socket
import subprocess
import sys

import pytest

from tests.factories import PROJECT
from utils.jobs.launch import PORTS, free_port, main

pytestmark = pytest.mark.slow

MEET = "import torch.distributed as d; d.init_process_group('gloo'); d.barrier(); d.destroy_process_group()"
# A node that is late to read what the last barrier answers, as on a busy machine.
LATE = """
import sys, time
from torch.distributed.elastic.utils import store
from utils.jobs import launch
barrier = store._barrier_nonblocking
def late(*arguments, **options):
    key = barrier(*arguments, **options)
    time.sleep(1)
    return key
store._barrier_nonblocking = late
sys.exit(launch.main())
"""


def test_the_first_node_leaves_last(tmp_path):
    (tmp_path / "meet.py").write_text(MEET, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = ["--nodes", "2", "--address", "127.0.0.1", "--port", port, "--processes", "1", str(tmp_path / "meet.py")]
    programs = {"1": ["-c", LATE], "0": ["-m", "utils.jobs.launch"]}
    nodes = [
        subprocess.Popen(
            [sys.executable, *program, "--node_rank", rank, *place],
            cwd=PROJECT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, program in programs.items()
    ]
    for node in nodes:
        _, errors = node.communicate(timeout=120)
        assert (node.returncode, errors) == (0, "")


def two_processes(folder, main):
    """Run a script with these lines as its `main` under torchrun; returns what it said on stderr."""
    script = folder / "script.py"
    lines = "".join(f"    {line}\n" for line in main)
    script.write_text(
        f"import os, sys, time\nsys.path.insert(0, {str(PROJECT)!r})\n"
        "from utils.cli.script import run_script\nfrom utils.errors import UserError\n"
        f"def main():\n{lines}run_script(main)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", str(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stderr


@pytest.mark.parametrize("slow", [0, 1])
def test_a_mistake_is_said_once_whoever_meets_it_first(tmp_path, slow):
    late = f"time.sleep(1.5 * (os.environ['RANK'] == '{slow}'))"
    said = two_processes(tmp_path, [late, "raise UserError('no such thing')"])
    assert said.count("script.py: error: no such thing") == 1, said


def test_a_mistake_of_another_process_alone_is_said_too(tmp_path):
    late = "time.sleep(60 * (os.environ['RANK'] == '0'))"
    said = two_processes(tmp_path, [late, "raise UserError('not on this node')"])
    assert said.count("script.py: error: not on this node") == 1, said


def test_the_port_of_a_job_is_free(monkeypatch):
    """Two jobs whose ids differed by 20,000 met at one port."""
    first = free_port(123)
    with socket.socket() as taken:
        taken.bind(("", first))
        taken.listen()
        assert free_port(123 + PORTS) != first
    assert len({free_port(job) for job in range(1000, 1020)}) == 20
    monkeypatch.setattr("sys.argv", ["launch", "--choose_port", "7"])
    assert main() == 0
