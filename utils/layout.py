"""Where a run's files live, how they are written, and the record of a run (run.json).

Every file is written under a temporary name in its own folder and renamed, so that a reader never sees
half a file and a killed job never loses a result that existed.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import slurm
from utils.errors import UserError
from utils.options import PROJECT

# Where tokenised texts and converted checkpoints are kept for all runs.
CACHE_DIR = ".cache"
# How far a run has come; outlives restarts.
PROGRESS = ("epoch", "best_macro_f1", "best_validation_loss")
RECORDED_LIBRARIES = (
    *("torch", "transformers", "tokenizers", "accelerate", "datasets", "peft", "scikit-learn", "numpy", "optuna"),
)


def split_langs(train_langs: str) -> list[str]:
    """Split ``en-fr`` into its languages.

    Raises:
        UserError: for an empty or repeated language, or a name that could leave its folder.
    """
    langs = train_langs.split("-")
    for lang in langs:
        check_lang(lang)
    for lang in langs:
        if langs.count(lang) > 1:
            raise UserError(f"language {lang!r} is given twice in {train_langs!r}")
    return langs


def check_lang(lang: str) -> str:
    """Return `lang` if it is a plain name (letters, digits and '_'), else raise a `UserError`."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", lang):
        raise UserError(f"{lang!r} is not a language name: letters, digits and '_' only, several joined by '-'")
    return lang


def check_model_name(name: str) -> str:
    """Return `name` if it is a plain abbreviation (letters, digits, '.', '_' and '-'), else raise a `UserError`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or ".." in name:
        raise UserError(f"{name!r} is not a model abbreviation: letters, digits, '.', '_' and '-' only")
    return name


@dataclass(frozen=True)
class RunLayout:
    """The folders and files of one run, ``[subfolder/]model-langs`` under the output and the models folder.

    Raises:
        UserError: if the subfolder or a name could leave its folder.
    """

    model_name: str
    train_langs: str
    subfolder: str | None = None
    output_dir: str = "outputs"
    models_dir: str = "models"
    checkpoints_dir: str | None = None

    def __post_init__(self):
        check_model_name(self.model_name)
        split_langs(self.train_langs)
        below = Path(self.subfolder or ".")
        if below.is_absolute() or ".." in below.parts:
            raise UserError(f"--subfolder must be a folder below the output folder, got {self.subfolder!r}")

    @property
    def name(self) -> str:
        """The run's name, ``model-langs``."""
        return f"{self.model_name}-{self.train_langs}"

    @property
    def outputs(self) -> Path:
        """Where the run's results are."""
        return Path(self.output_dir) / (self.subfolder or "") / self.name

    @property
    def model(self) -> Path:
        """Where the trained model is."""
        return Path(self.models_dir) / (self.subfolder or "") / self.name

    @property
    def checkpoints(self) -> Path:
        """Where the resume points are while the model trains."""
        if self.checkpoints_dir is None:
            return self.model / "checkpoints"
        return Path(self.checkpoints_dir) / (self.subfolder or "") / self.name

    @property
    def lock_file(self) -> Path:
        """Held by the process that trains this model."""
        return self.outputs / ".lock"

    @property
    def handover(self) -> Path:
        """A file that asks the process which trains this model to save and end."""
        return self.outputs / ".handover"

    @property
    def run_json(self) -> Path:
        """The record of the run."""
        return self.outputs / "run.json"

    @property
    def train_json(self) -> Path:
        """The training and validation metrics of every epoch."""
        return self.outputs / "train.json"

    @property
    def study(self) -> Path:
        """Where the search for good hyperparameters is kept."""
        return self.outputs / "study"

    def eval_json(self, lang: str) -> Path:
        """The metrics on one evaluation language."""
        return self.outputs / "eval" / f"{check_lang(lang)}.json"

    def predictions_csv(self, lang: str) -> Path:
        """The predictions on one evaluation language."""
        return self.outputs / "predictions" / f"{check_lang(lang)}.csv"


def check_writable(*folders: Path) -> None:
    """Raise a `UserError` unless files can be written to these folders, which are made if needed."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            advice = "give other folders with --output_dir and --models_dir"
            raise UserError(f"cannot write to {folder} ({error.strerror}); {advice}") from None


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; rename it to `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(lock_file: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock between processes; where the file system has no locks, go on without.

    The file stays: removing it would let two processes lock two files of the same name.

    Raises:
        filelock.Timeout: if another process holds it and `wait` is False.
    """
    import filelock

    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(lock_file)
    try:
        lock.acquire(blocking=wait)
    except filelock.Timeout:
        raise
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        lock.release()


def umask() -> int:
    """Return the process's file mode creation mask."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8 with ``\\n`` line ends."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any | None:
    """Read a JSON file; None if it does not exist.

    Raises:
        UserError: if it is not JSON, naming the line.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}, line {getattr(error, 'lineno', '?')}: not valid JSON; remove or mend it") from None


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RunRecord:
    """run.json: what was run, on what, and how it ended; all that is needed to run it again."""

    def __init__(self, path: Path, options: dict[str, Any], data: dict[str, Any]):
        self.previous = read_json(path) or {}
        self.path = path
        goes_on = self.previous.get("status") == "running"
        self.content = {
            "status": "running",
            "command": [Path(sys.argv[0]).name, *without_token(sys.argv[1:])],
            "options": options,
            "seed": options.get("seed"),
            "data": data,
            "versions": library_versions(),
            "git_commit": git_commit(),
            "host": platform.node(),
            "slurm_job_id": slurm.job_id(),
            "started": self.previous.get("started") if goes_on else now(),
            "restarts": self.previous.get("restarts", -1) + 1 if goes_on else 0,
        }
        if goes_on:
            self.content |= {name: self.previous[name] for name in PROGRESS if name in self.previous}

    def write(self, status: str, **more: Any) -> None:
        """Write the record with this status (running, complete or failed) and further entries."""
        if status != "failed":
            self.content.pop("error", None)
        self.content |= {"status": status, "updated": now(), **more}
        write_json(self.path, self.content)

    def progress(self, epoch: float, **best: float | None) -> None:
        """Write how far training has come; the status stays.

        Args:
            epoch: passes over the training texts so far, with fractions.
            best: best_macro_f1 or best_validation_loss so far; None before the first validation.
        """
        self.write(self.content["status"], epoch=round(epoch, 2), **best)


def without_token(arguments: list[str]) -> list[str]:
    """Return a command line without the access token that it may hold."""
    shown, is_token = [], False
    for argument in arguments:
        name, given, _ = argument.partition("=")
        shown.append("***" if is_token else f"{name}=***" if name == "--token" and given else argument)
        is_token = argument == "--token"
    return shown


def now() -> str:
    """Return the local time in ISO 8601 with its offset from UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def timestamp() -> str:
    """Return the time as year-month-day_hour_minute_second.nanoseconds."""
    nanoseconds = time.time_ns()
    seconds = time.strftime("%Y-%m-%d_%H_%M_%S", time.localtime(nanoseconds // 10**9))
    return f"{seconds}.{nanoseconds % 10**9:09d}"


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
