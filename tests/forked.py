"""The scripts in processes of their own, forked from one that has imported the libraries once.

Importing takes several seconds of a run that itself takes one or two, and the tests start dozens of runs.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from utils.cli.script import run_script

PROJECT = Path(__file__).resolve().parent.parent
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["transformers.trainer", "datasets", "sklearn.metrics", "utils.cli.parser"])


class ForkedScript:
    """A running script; what tests use of `subprocess.Popen`.

    Args:
        script: file name of a script of the project.
        arguments: its command line.
        cwd: the folder it runs in.
        environment: all its environment variables.
    """

    def __init__(self, script: str, arguments: list[str], cwd: Path, environment: dict[str, str]):
        reader, writer = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=_become, args=(script, arguments, cwd, environment, writer))
        self.process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Read the rest of the output and wait for the end; what takes longer than `timeout` seconds is killed."""
        timer = threading.Timer(timeout, self.process.kill)
        timer.start()
        output = self.stdout.read()
        self.process.join()
        timer.cancel()
        return output, None


def _become(script: str, arguments: list[str], cwd: Path, environment: dict[str, str], writer: Connection) -> None:
    """Turn this process into a fresh one that runs the script."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=True)
        os.dup2(writer.fileno(), stream.fileno())
    writer.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [str(PROJECT / script), *arguments]
    run_script(importlib.import_module(script.removesuffix(".py")).main)
