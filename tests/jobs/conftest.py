"""A login node without Slurm's commands, for what the submit scripts plan."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories import PROJECT

COMMANDS = ("bash", "env", "dirname", "mkdir", "date", "sed", "touch", "id")


class LoginNode:
    """Runs the submit scripts in a folder; only bash's usual commands and Python are there."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        for name in COMMANDS:
            (programs / name).symlink_to(shutil.which(name))
        (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (programs / "python").chmod(0o755)
        self.environment = {"PATH": str(programs), "HOME": os.environ.get("HOME", "/"), **environment}

    def submit(self, kind: str, *arguments: str, status: int = 0) -> str:
        """Run a submit script; returns its output, errors included."""
        done = subprocess.run(
            [PROJECT / f"submit_{kind}_jobs.sh", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stdout
        return done.stdout


@pytest.fixture
def login(inputs) -> LoginNode:
    return LoginNode(inputs.folder, inputs.environment)
