"""run.json: what was run, on what, and how it ended; and whether two records are of the same run."""

import importlib.metadata
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from utils import PROJECT
from utils.runs import slurm_job
from utils.runs.files import now, write_json
from utils.runs.shapes import read_record

# How far a run has come; outlives restarts.
PROGRESS = ("epoch", "best_macro_f1", "best_validation_loss")
RECORDED_LIBRARIES = (
    *("torch", "transformers", "tokenizers", "accelerate", "datasets", "peft", "scikit-learn", "numpy", "optuna"),
)


class RunRecord:
    """run.json: what was run, on what, and how it ended; all that is needed to run it again."""

    def __init__(self, path: Path, options: dict[str, Any], data: dict[str, Any]):
        self.previous = read_record(path) or {}
        self._lock = threading.Lock()
        self._background: threading.Thread | None = None
        self.path = path
        goes_on = self.previous.get("status") == "running"
        self.content: dict[str, Any] = {
            "status": "running",
            "command": [Path(sys.argv[0]).name, *without_token(sys.argv[1:])],
            "options": options,
            "seed": options.get("seed"),
            "data": data,
            "versions": library_versions(),
            "git_commit": git_commit(),
            "host": platform.node(),
            "slurm_job_id": slurm_job.job_id(),
            "started": self.previous.get("started") if goes_on else now(),
            "restarts": self.previous.get("restarts", -1) + 1 if goes_on else 0,
        }
        if goes_on:
            self.content |= {name: self.previous[name] for name in PROGRESS if name in self.previous}

    def write(self, status: str, **more: Any) -> None:
        """Write the record with this status (running, complete or failed) and further entries."""
        with self._lock:
            if status != "failed":
                self.content.pop("error", None)
            self.content["status"] = status
            self._save(more)

    def progress(self, epoch: float, **best: float | None) -> None:
        """Write how far training has come; the status stays.

        Args:
            epoch: passes over the training texts so far, with fractions.
            best: best_macro_f1 or best_validation_loss so far; None before the first validation.
        """
        with self._lock:
            self._save({"epoch": round(epoch, 2), **best})

    def in_background(self, work: Callable[[], None]) -> None:
        """Let a thread do what would take too long in a signal's handler, or would interrupt a write of the record."""
        self._background = threading.Thread(target=work, daemon=True)
        self._background.start()

    def settle(self) -> None:
        """Wait for what is done in the background."""
        if self._background:
            self._background.join()

    def _save(self, more: dict[str, Any]) -> None:
        self.content |= {"updated": now(), **more}
        write_json(self.path, self.content)


def without_token(arguments: list[str]) -> list[str]:
    """Return a command line without the access token that it may hold."""
    shown, is_token = [], False
    for argument in arguments:
        name, given, _ = argument.partition("=")
        shown.append("***" if is_token else f"{name}=***" if name == "--token" and given else argument)
        is_token = argument == "--token"
    return shown


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    versions = {name: importlib.metadata.version(name) for name in RECORDED_LIBRARIES}
    return {"python": platform.python_version(), **versions}


def git_commit() -> str | None:
    """Return the project's commit, with ``-dirty`` if files differ from it; None outside a git checkout."""
    try:
        commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
        commit, changes = (
            subprocess.run(c, cwd=PROJECT, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for c in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changes else commit


def differences(
    record: dict[str, Any],
    settings: dict[str, Any],
    files: list[dict[str, str]] | None,
    free: Collection[str],
    drawn: Collection[str] = (),
) -> list[str]:
    """Return in what a recorded run is another than the one that is asked for; empty if it is the same.

    Args:
        record: content of run.json.
        settings: the options as they go to run.json.
        files: the data, each with its sha256; None compares no data.
        free: options that may differ, by their roles (see `utils.cli.options`).
        drawn: options without which a value is drawn, so that having none is no difference.
    """
    before = record.get("options", {})
    found = [
        f"{name} {before.get(name)} -> {value}"
        for name, value in settings.items()
        if name not in free
        and before.get(name) != value
        and not (name in drawn and (value is None or before.get(name) is None))
    ]
    recorded = [file["sha256"] for file in record.get("data", {}).get("files", [])]
    if files is not None and recorded != [file["sha256"] for file in files]:
        found.append("the data files have changed")
    return found
