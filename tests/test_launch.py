"""The nodes of one training, started by utils/launch.py as run_train.sh does on each of them."""

import subprocess
import sys

import pytest

from tests.conftest import PROJECT

MEET = "import torch.distributed as d; d.init_process_group('gloo'); d.barrier(); d.destroy_process_group()"
# A node that is late to read what the last barrier answers, as on a busy machine.
LATE = """
import sys, time
from torch.distributed.elastic.utils import store
from utils import launch
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
    place = ["--nodes", "2", "--address", "127.0.0.1", "--port", "29871", "--processes", "1", str(tmp_path / "meet.py")]
    programs = {"1": ["-c", LATE], "0": ["-m", "utils.launch"]}
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


@pytest.mark.parametrize("slow", [0, 1])
def test_a_mistake_is_said_once_whoever_meets_it_first(tmp_path, slow):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(PROJECT)!r})\n"
        "from utils.errors import UserError, run_script\n"
        "def main():\n"
        f"    time.sleep(1.5 * (os.environ['RANK'] == '{slow}'))\n"
        "    raise UserError('no such thing')\n"
        "run_script(main)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr.count("script.py: error: no such thing") == 1, done.stderr


def test_a_mistake_of_another_process_alone_is_said_too(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(PROJECT)!r})\n"
        "from utils.errors import UserError, run_script\n"
        "def main():\n"
        "    if os.environ['RANK'] == '0':\n"
        "        time.sleep(60)\n"
        "    raise UserError('not on this node')\n"
        "run_script(main)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr.count("script.py: error: not on this node") == 1, done.stderr
