"""How files are dealt out among the tasks of a job array: a file that the tasks read."""

from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.prediction.inputs import InputFile
from utils.prediction.shares import Piece
from utils.runs.files import read_json, write_json


def write_plan(path: Path, root: Path, files: list[InputFile], shares: list[list[Piece]]) -> None:
    """Write which share has which files.

    Args:
        path: of the plan.
        root: the folder of all texts.
        files: of all shares, and those that are labelled already.
        shares: what each task does.
    """
    content = {
        "root": str(root),
        "files": [{**vars(file), "path": str(file.path.absolute())} for file in files],
        "shares": [[vars(piece) for piece in share] for share in shares],
    }
    write_json(path, content)


def read_plan(path: Path) -> dict[str, Any]:
    """Read a plan.

    Raises:
        UserError: if it is not there or damaged.
    """
    content = read_json(path, "submit the jobs again")
    if content is None:
        raise UserError(f"{path} does not exist; submit the jobs again")
    try:
        return {
            "root": Path(content["root"]),
            "files": [InputFile(**{**file, "path": Path(file["path"])}) for file in content["files"]],
            "shares": [[Piece(**piece) for piece in share] for share in content["shares"]],
        }
    except (KeyError, TypeError):
        raise UserError(f"{path}: not a plan of submit_predict_jobs.sh; submit the jobs again") from None


def read_share(given: str) -> tuple[Path, list[InputFile], list[Piece]]:
    """Return the folder of all texts, all files, and what one task labels of them, from FILE:NUMBER.

    The files are as they are now: one that has changed since it was labelled in part is seen by its size and date.

    Raises:
        UserError: if there is no such share.
    """
    path, _, number = given.rpartition(":")
    if not path or not number.isdigit():
        raise UserError(f"--share {given}: expected FILE:NUMBER")
    plan = read_plan(Path(path))
    if int(number) >= len(plan["shares"]):
        raise UserError(f"--share {given}: the plan has {len(plan['shares'])} shares, counted from 0")
    share = plan["shares"][int(number)]
    mine = {piece.name for piece in share}
    files = [_as_it_is(file) if file.name in mine else file for file in plan["files"]]
    return plan["root"], files, share


def _as_it_is(file: InputFile) -> InputFile:
    try:
        status = file.path.stat()
    except OSError:
        # Its reader will say so; the other files can be labelled.
        return file
    return InputFile(file.path, file.name, status.st_size, status.st_mtime_ns)
