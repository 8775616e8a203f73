"""One run at a time in a folder, and going on where a run was."""

import contextlib
import shutil
import time
from collections.abc import Collection, Iterator
from typing import Any

from utils.errors import Interrupted, RunFailure, UserError
from utils.runs import slurm_job
from utils.runs.files import locked, now
from utils.runs.layout import RunLayout
from utils.runs.record import RunRecord, differences
from utils.runs.resume_points import ResumePoints, step_of
from utils.runs.shapes import read_record
from utils.runs.stop import CANCELLED

# How long a restarted job waits for the process that it replaces to save and end.
HANDOVER_SECONDS = 900


@contextlib.contextmanager
def only_run(layout: Any) -> Iterator[None]:
    """Hold the lock of a run's folder, so that two jobs never train the same model at once.

    `layout` is a `RunLayout`, or another with its lock_file, run_json and handover.

    When a node is lost to Slurm, the job begins anew on another while its processes may live on where they
    were. So the restarted job asks the earlier one to save and end, by a file that `StopFlag` looks for.

    Raises:
        UserError: if another process holds it.
    """
    import filelock

    lock_file = layout.lock_file
    previous = read_record(layout.run_json) or {}
    is_restart = slurm_job.restart_count() > 0 and previous.get("slurm_job_id") == slurm_job.job_id()
    deadline = time.monotonic() + (HANDOVER_SECONDS if is_restart else 0)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(lock_file, wait=False))
                break
            except filelock.Timeout:
                if time.monotonic() >= deadline:
                    where = f" on {previous['host']}" if previous.get("host") else ""
                    raise UserError(f"another process{where} is training this model ({lock_file} is locked)") from None
            if not layout.handover.exists():
                print(f"an earlier process of this job lives on {previous.get('host')}; waiting for it to save and end")
                layout.handover.touch()
            time.sleep(1)
        layout.handover.unlink(missing_ok=True)
        yield


def check_restarts(record: RunRecord, points: ResumePoints, limit: int) -> None:
    """Note from where the run goes on; give up when Slurm starts it again and again without progress.

    Raises:
        RunFailure: if the last `limit` attempts all began at this same resume point.
    """
    point = points.last()
    step = step_of(point) if point else 0
    idle = 0
    if slurm_job.restart_count() > 0 and record.previous.get("resumed_step") == step:
        idle = record.previous.get("idle_restarts", 0) + 1
    record.content |= {"resumed_step": step, "idle_restarts": idle}
    if idle >= limit:
        last = record.previous.get("stopped", "killed without a signal to save")
        raise RunFailure(
            f"started {idle} times from step {step} and never came to another resume point (the last end: {last})\n"
            "give the job more time or memory, or a signal further ahead of its limit, and submit it again"
        )


def may_run(
    layout: RunLayout,
    points: ResumePoints,
    settings: dict[str, Any],
    data: dict[str, Any],
    free: Collection[str],
    force: bool,
) -> bool:
    """Return whether there is something to train: not if the run is complete.

    With `force`, a complete run or one of other options is trained anew; its results stay until new ones
    replace them. An unfinished run of the same options continues with `force` too, or a job that is started again
    with the same command would never come to its end.

    Args:
        layout: of the run.
        points: its resume points; those of another run are used neither here nor later.
        settings: its options as they go to run.json.
        data: what it is trained on, with the files' checksums.
        free: options that may differ, see `utils.runs.record.differences`.
        force: replace what is there.

    Raises:
        UserError: if the folder holds a run, or resume points, of other options or other data.
    """
    previous = read_record(layout.run_json)
    if previous is None:
        return True
    found = differences(previous, settings, data["files"], free)
    complete = is_trained(previous, layout)
    if found and not force and (complete or ResumePoints(points.folder, points.run).last()):
        raise UserError(
            f"{layout.outputs} holds a run with other options ({'; '.join(found)})\n"
            "use --subfolder for another experiment, or --force to replace it"
        )
    if force and complete:
        # What --keep_checkpoints left.
        points.remove()
    return force or not complete


# What run.json says under `kind` of a run that keeps no model.
BASELINE = "baseline"


def is_trained(record: dict[str, Any] | None, layout: RunLayout) -> bool:
    """Return whether a recorded training is complete and its model is there."""
    if record is None or record.get("status") != "complete":
        return False
    # Of baselines no model is kept.
    return record.get("kind") == BASELINE or (layout.model / "config.json").is_file()


@contextlib.contextmanager
def recorded(record: RunRecord, layout: Any, points: ResumePoints) -> Iterator[None]:
    """Note in run.json how a run ended, unless it ended well.

    Args:
        record: of the run.
        layout: its folders.
        points: its resume points.

    Raises:
        RunFailure: for an error that means that a disk is full.
    """
    try:
        yield
    except Interrupted as stopped:
        record.settle()
        if record.content["status"] == "complete":
            raise
        if record.content["status"] == "failed":
            record.write("failed", error=f"{CANCELLED}: {stopped}")
        else:
            record.write("running", stopped=str(stopped))
        raise
    except BaseException as error:
        shortage = disk_shortage(error, layout)
        # What was written in part may be what fills the disk.
        points.remove_unsound()
        with contextlib.suppress(OSError):
            record.write("failed", error=str(shortage or error) or type(error).__name__, ended=now())
        if shortage:
            raise shortage from error
        raise


def disk_shortage(error: BaseException, layout: Any) -> RunFailure | None:
    """Return an error that says so if `error` means that a disk is full or a quota used up, else None."""
    # The last two are what PyTorch makes of it.
    signs = ("No space left on device", "Disk quota exceeded", "file write failed", "unexpected pos")
    if not any(sign in str(error) for sign in signs):
        return None
    free = min(shutil.disk_usage(folder).free for folder in (layout.outputs, layout.model) if folder.exists())
    return RunFailure(
        f"cannot write to {layout.model} or {layout.outputs}: the disk is full or a quota used up "
        f"({free / 1e6:,.0f} MB free)\nfree some, and the same command goes on from the last resume point"
    )


def clear_results(layout: RunLayout) -> None:
    """Remove the evaluation results of the model that a new one has replaced."""
    for stale in (*(layout.outputs / name for name in ("eval", "predictions", "clusters")), layout.explanations):
        shutil.rmtree(stale, ignore_errors=True)
    for figure in layout.outputs.glob("cfm.*"):
        figure.unlink()
