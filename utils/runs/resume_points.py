"""Resume points: what a run saves while it trains, so that it goes on where it was.

They are folders checkpoint-STEP in a folder that holds nothing else and is marked as such. Each is sealed, when the
Trainer has written it, with the run that it belongs to and the checksums of all its files. What has no mark is never
removed, and what has no seal of this run is never used.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.runs.files import sha256_of_file, write_json

# Written by the Trainer, with the history of the training.
TRAINER_STATE = "trainer_state.json"
# In the folder of the resume points; and in each of them.
MARK, SEAL = ".resume-points.json", "resume_point.json"


def identity_of(settings: dict[str, Any], files: list[dict[str, Any]]) -> str:
    """Return a name for all that decides how a run trains: 40 hexadecimal digits.

    Args:
        settings: its options as they go to run.json, without those that may differ.
        files: the data, each with its sha256.
    """
    content = json.dumps([settings, [file["sha256"] for file in files]], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:40]


def read_history(point: Path) -> dict[str, Any]:
    """Return what a resume point knows of the training so far: the attributes of its `utils.training.trainer.History`.

    Raises:
        OSError, ValueError, KeyError: if it has none.
    """
    callbacks = json.loads((point / TRAINER_STATE).read_text(encoding="utf-8"))["stateful_callbacks"]
    (name,) = (name for name in callbacks if name.endswith("History"))
    return callbacks[name]["attributes"]


class ResumePoints:
    """The resume points of one run.

    Args:
        folder: where they are; it may be a symbolic link to another disk.
        run: the run's name, which the folder's mark bears.
        identity: see `identity_of`; None uses those of any identity.
        base: folder of the resume points of all runs, if they have one; empty folders below it are removed at the end.
    """

    def __init__(self, folder: Path, run: str, identity: str | None = None, base: str | None = None):
        self.folder, self.run, self.identity, self.base = folder, run, identity, base
        self._verified: dict[tuple[str, int], bool] = {}

    def check(self) -> None:
        """Refuse a folder that holds something else.

        Raises:
            UserError: if the folder is there, not empty, and not marked as this run's.
        """
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return
        owner = self._owner()
        if owner is None:
            raise UserError(
                f"{self.folder} holds files that are not resume points of this version\n"
                "move them elsewhere, or give another folder with --checkpoints_dir"
            )
        if owner != self.run:
            raise UserError(
                f"{self.folder} holds the resume points of {owner}; give another folder with --checkpoints_dir"
            )

    def _owner(self) -> str | None:
        try:
            return str(json.loads((self.folder / MARK).read_text(encoding="utf-8"))["run"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def prepare(self) -> None:
        """Make and mark the folder, before something is saved in it."""
        if self._owner() is None:
            self.check()
            write_json(self.folder / MARK, {"run": self.run, "what": "resume points; removed when the run is complete"})

    def _all(self) -> Iterator[Path]:
        """Yield the folders that are ours, the newest first."""
        if self._owner() == self.run:
            points = [
                path
                for path in self.folder.iterdir()
                if re.fullmatch(r"checkpoint-\d+", path.name) and path.is_dir() and not path.is_symlink()
            ]
            yield from sorted(points, key=step_of, reverse=True)

    def seal(self, point: Path) -> None:
        """Note whose resume point it is and the checksums of its files, all of which are written."""
        files = {str(path.relative_to(point)): sha256_of_file(path) for path in _files(point)}
        write_json(point / SEAL, {"identity": self.identity, "files": files})

    def is_sound(self, point: Path) -> bool:
        """Return whether a resume point was written to its end, is this run's and is as it was written."""
        try:
            key = (point.name, (point / SEAL).stat().st_mtime_ns)
            if key not in self._verified:
                self._verified[key] = self._verify(point)
            return self._verified[key]
        except OSError:
            return False

    def _verify(self, point: Path) -> bool:
        try:
            seal = json.loads((point / SEAL).read_text(encoding="utf-8"))
            if self.identity not in (None, seal["identity"]):
                return False
            wanted: dict[str, str] = seal["files"]
            return {str(path.relative_to(point)) for path in _files(point)} == set(wanted) and all(
                sha256_of_file(point / name) == digest for name, digest in wanted.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def last(self) -> Path | None:
        """Return the newest sound resume point, or None."""
        return next((point for point in self._all() if self.is_sound(point)), None)

    def remove_unsound(self) -> list[str]:
        """Delete resume points that are damaged, half written or another run's; return their names."""
        unsound = [point for point in self._all() if not self.is_sound(point)]
        for point in unsound:
            shutil.rmtree(point)
        return [point.name for point in unsound]

    def remove(self) -> None:
        """Delete all of them, and the folder if nothing else is in it."""
        owner = self._owner()
        if owner not in (None, self.run):
            return
        for point in list(self._all()):
            shutil.rmtree(point, ignore_errors=True)
        if owner == self.run:
            (self.folder / MARK).unlink(missing_ok=True)
        # A link to another disk is the user's and stays.
        emptied = [] if self.folder.is_symlink() else [self.folder]
        if self.base is not None:
            emptied += [parent for parent in self.folder.parents if Path(self.base) in parent.parents]
        for folder in emptied:
            try:
                folder.rmdir()
            except OSError:
                return


def step_of(point: Path) -> int:
    """Return the optimizer step at which a resume point was saved."""
    return int(point.name.rpartition("-")[2])


def _files(point: Path) -> list[Path]:
    return sorted(path for path in point.rglob("*") if path.is_file() and path.name != SEAL)
