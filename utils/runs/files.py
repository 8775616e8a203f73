"""How files are written: whole or not at all, by one process at a time.

Every file is written under a temporary name in its own folder and renamed, so that a reader never sees half a file
and a killed job never loses a result that existed.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import Interrupted, RunFailure, UserError

# The file mode creation mask. It can only be read by changing it for a moment: once, before there are threads.
UMASK = os.umask(0)
os.umask(UMASK)
# Where tokenized texts and converted checkpoints are kept for all runs.
CACHE_DIR = ".cache"
# What to do about a model's folder that cannot be loaded.
MEND = "fetch it again with download_model.py, or train it again with --force"
# Of GPUs; of PyTorch's allocator for CPUs.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
# In the names of temporary files.
UNFINISHED = ".unfinished"
# Characters of a file's name in that of its temporary file, which may not become too long.
LONGEST_START = 40
# From making a temporary file to locking it.
MAKING_SECONDS = 5
# Folders in which this process has looked for what killed writers have left.
_swept: set[Path] = set()


def check_writable(*folders: Path, options: str = "--output_dir and --models_dir") -> None:
    """Raise a `UserError`, naming the options, unless files can be written to these folders, made if needed."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UserError(f"cannot write to {folder} ({error.strerror}); give another with {options}") from None


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; rename it to `path` when the block ends without an error.

    What killed writers have left in the folder is removed, once per process.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        _swept.add(path.parent)
        remove_remains(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{_start_of(path)}", suffix=f"{UNFINISHED}{path.suffix}")
    temporary = Path(name)
    try:
        # Held until the end of the process at the latest, so that others can tell whether the writer lives.
        _try_lock(handle)
        yield temporary
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(path)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _start_of(path: Path) -> str:
    """Return how the names of a file's temporary files begin, behind the dot; of none, nothing."""
    stem = path.stem
    if len(stem) > LONGEST_START:
        # Many files of a crawl begin alike, and none may take another's for its own.
        stem = f"{stem[: LONGEST_START - 9]}-{zlib.crc32(stem.encode()):08x}"
    return f"{stem}." if stem else ""


def _try_lock(handle: int) -> bool | None:
    """Take the lock of an open file; False if another process holds it, None where there are no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove_remains(folder: Path, name: str = "", older_than: float = MAKING_SECONDS) -> None:
    """Remove temporary files of writers that have been killed; those of living ones stay.

    A file is taken for abandoned if its writer no longer locks it; where the file system has no locks, after a day.

    Args:
        folder: where they are.
        name: of the file that was to be written; all files if empty.
        older_than: seconds; 0 where no one can be about to lock a new one.
    """
    for remains in folder.glob(f".{glob.escape(_start_of(Path(name)))}*{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            age = time.time() - remains.stat().st_mtime
            with remains.open("rb") as file:
                locked_by_us = _try_lock(file.fileno())
                if (locked_by_us and age >= older_than) or (locked_by_us is None and age > 86_400):
                    remains.unlink()


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


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8 with ``\\n`` line ends."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, advice: str = "remove or repair the file") -> Any:
    """Read a JSON file; None if it does not exist.

    Args:
        path: of the file.
        advice: what to do about a damaged one.

    Raises:
        UserError: if it is not JSON, naming the line.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply; {advice}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    except ValueError as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{line}: not valid JSON; {advice}") from None


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Name the folder in whatever goes wrong while a model or a tokenizer is read from it.

    Raises:
        UserError: with the first line of what the libraries say, unless it is that memory has run out.
    """
    try:
        yield
    except (UserError, RunFailure, Interrupted, MemoryError):
        raise
    except Exception as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        # Damaged files make errors of a dozen types, in four libraries.
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        advice = "see the README's installation" if isinstance(error, ImportError) else MEND
        raise UserError(f"{folder} cannot be loaded ({type(error).__name__}: {reason[:200]}); {advice}") from error


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def now() -> str:
    """Return the local time in ISO 8601 with its offset from UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def timestamp() -> str:
    """Return the time as year-month-day_hour_minute_second.nanoseconds."""
    nanoseconds = time.time_ns()
    seconds = time.strftime("%Y-%m-%d_%H_%M_%S", time.localtime(nanoseconds // 10**9))
    return f"{seconds}.{nanoseconds % 10**9:09d}"


def is_held(lock_file: Path) -> bool:
    """Return whether a living process holds a lock."""
    import filelock

    try:
        with locked(lock_file, wait=False):
            return False
    except filelock.Timeout:
        return True
