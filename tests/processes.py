"""The scripts in processes of their own, forked from one that has imported the libraries once.

Importing takes several seconds of a run that itself takes one or two, and the tests start dozens of runs.
"""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

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


def start(
    script: str, *arguments: str, cwd: Path, prefix: tuple[str, ...] = (), **environment: str
) -> "subprocess.Popen | ForkedScript":
    """Start a script in a process of its own, its output as text."""
    # huggingface_hub reads its variables when it is imported.
    if not prefix and not any(name.startswith("HF_") for name in environment):
        return ForkedScript(script, [*map(str, arguments)], cwd, {**os.environ, **environment})
    return subprocess.Popen(
        [sys.executable, *prefix, str(PROJECT / script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen | ForkedScript", status: int = 0) -> str:
    """Wait for a process and return its output; fails unless it ends with `status`."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


# A training that is interrupted.
COMMAND = ["--model_name", "tiny", "--train_langs", "en", "--num_epochs", "4", "--batch_size", "4"]
COMMAND += ["--learning_rate", "1e-3", "--early_stopping_patience", "9"]


def stop_at(inputs, text, signum, *extra):
    """Send a signal when the output holds a line that starts with `text`; returns the exit status and the rest."""
    process = start("finetune.py", *COMMAND, *extra, cwd=inputs.folder)
    for line in process.stdout:
        if line.startswith(text):
            process.send_signal(signum)
            break
    else:
        pytest.fail(f"no line starts with {text!r}")
    output, _ = process.communicate(timeout=120)
    return process.returncode, output
