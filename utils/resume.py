"""Stopping on a signal and going on where a run was: signals, resume points, one run at a time."""

import contextlib
import json
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from utils import slurm
from utils.distributed import is_main_process
from utils.errors import Interrupted, RunFailure, UserError
from utils.layout import RunLayout, RunRecord, locked, now, read_json

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Written last by the Trainer, so its presence marks a complete resume point.
TRAINER_STATE = "trainer_state.json"
HISTORY_FILE = "history.json"
# How long a restarted job waits for the process that it replaces to save and end.
HANDOVER_SECONDS = 900
# Options that may differ between a run and its resumption without changing its result.
FREE_OPTIONS = {
    "config", "output_dir", "models_dir", "subfolder", "cache_dir", "corpus_path", "model_registry",
    "debug", "print_config", "force", "report_to", "eval_token_budget", "max_restarts", "checkpoints_dir",
    "do_optimize", "study_kwargs", "optimize_kwargs", "params",
}  # fmt: skip
CANCELLED = "the job was cancelled"


class StopFlag:
    """Remembers that a signal asked the run to stop.

    Before training starts there is nothing to save and the signal ends the process at once; while it
    trains, the training loop looks at the flag between steps.

    Args:
        handover: file whose appearance stops the run like SIGTERM, see `only_run`.
        on_cancel: called when the signal is there because somebody cancelled the Slurm job; at once,
            because Slurm may not leave the time for a step to end.
    """

    def __init__(self, handover: Path, on_cancel: Callable[[], None]):
        self.handover = handover
        self.on_cancel = on_cancel
        self.signum: int | None = None
        self.training = False
        self.phase = "before training began; nothing was lost"

    def listen(self) -> None:
        """Install the handlers of SIGTERM and SIGUSR1; call once, from the main thread."""
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._receive)

    def _receive(self, signum: int, _frame: Any) -> None:
        self.signum = signum
        if signum == signal.SIGTERM and is_main_process() and slurm.was_cancelled():
            self.on_cancel()
        if not self.training:
            raise Interrupted(signum, f"{signal.Signals(signum).name} {self.phase}")

    def look(self) -> int:
        """Return the number of the signal that came, 0 without one."""
        if self.signum is None and is_main_process() and self.handover.exists():
            self.signum = signal.SIGTERM
        return self.signum or 0


def is_complete(checkpoint: Path) -> bool:
    """Say whether a resume point was written to its end and can be read."""
    try:
        state = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
        if int(checkpoint.name.rpartition("-")[2]) != state["global_step"]:
            return False
        json.loads((checkpoint / HISTORY_FILE).read_text(encoding="utf-8"))
        from safetensors import safe_open

        for weights in checkpoint.glob("*.safetensors"):
            with safe_open(weights, framework="numpy") as file:
                file.keys()
        # Sharded models have optimizer.bin instead.
        optimizer = next(checkpoint.glob("optimizer.*"))
        archives = {optimizer, checkpoint / "scheduler.pt", *checkpoint.glob("*.pth"), *checkpoint.glob("*.bin")}
        return all(zipfile.is_zipfile(archive) for archive in archives)
    except Exception:
        # Whatever cannot be read is no resume point, in whichever way it is broken.
        return False


def last_resume_point(checkpoints: Path) -> Path | None:
    """Return the newest complete resume point, or None."""
    points = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((point for point in points if is_complete(point)), None)


def remove_incomplete(checkpoints: Path) -> list[str]:
    """Delete resume points that a killed job left half written; return their names."""
    broken = [point for point in checkpoints.glob("checkpoint-*") if not is_complete(point)]
    for point in broken:
        shutil.rmtree(point)
    return [point.name for point in broken]


def patience_exhausted(checkpoint: Path, patience: int | None) -> bool:
    """Say whether early stopping had already decided to stop when this resume point was written."""
    if patience is None:
        return False
    state = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
    stored = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {})
    stored = stored[0] if isinstance(stored, list) else stored
    return stored.get("attributes", {}).get("early_stopping_patience_counter", 0) >= patience


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
    previous = read_json(layout.run_json) or {}
    is_restart = slurm.restart_count() > 0 and previous.get("slurm_job_id") == slurm.job_id()
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


def check_restarts(record: RunRecord, checkpoints: Path, limit: int) -> None:
    """Note from where the run goes on; give up when Slurm starts it again and again without progress.

    Raises:
        RunFailure: if the last `limit` attempts all began at this same resume point.
    """
    point = last_resume_point(checkpoints)
    step = int(point.name.rpartition("-")[2]) if point else 0
    idle = 0
    if slurm.restart_count() > 0 and record.previous.get("resumed_step") == step:
        idle = record.previous.get("idle_restarts", 0) + 1
    record.content |= {"resumed_step": step, "idle_restarts": idle}
    if idle >= limit:
        last = record.previous.get("stopped", "killed without a signal to save")
        raise RunFailure(
            f"started {idle} times from step {step} and never came to another resume point (the last end: {last})\n"
            "give the job more time or memory, or a signal further ahead of its limit, and submit it again"
        )


def may_run(layout: RunLayout, settings: dict[str, Any], data: dict[str, Any], force: bool) -> bool:
    """Say whether there is something to train: not if the run is complete.

    With `force`, a complete run or one of other options is trained anew; its results stay until new ones
    replace them. What is unfinished and the same goes on with `force` too, or a job that is started again
    with the same command would never come to its end.

    Raises:
        UserError: if the folder holds a run, or resume points, of other options or other data.
    """
    previous = read_json(layout.run_json)
    if previous is None:
        _discard(layout.checkpoints)
        return True
    differences = [
        f"{name} {previous['options'].get(name)} -> {value}"
        for name, value in settings.items()
        if name not in FREE_OPTIONS and previous["options"].get(name) != value
    ]
    if [file["sha256"] for file in previous["data"]["files"]] != [file["sha256"] for file in data["files"]]:
        differences.append("the corpus files have changed")
    complete = previous["status"] == "complete" and (layout.model / "config.json").is_file()
    if force and (complete or differences):
        _discard(layout.checkpoints)
        return True
    if differences and (complete or last_resume_point(layout.checkpoints)):
        raise UserError(
            f"{layout.outputs} holds a run with other options ({'; '.join(differences)})\n"
            "use --subfolder for another experiment, or --force to replace it"
        )
    return not complete


def _discard(checkpoints: Path) -> None:
    if is_main_process():
        shutil.rmtree(checkpoints, ignore_errors=True)


def run_trainer(trainer: Any, checkpoints: Path, patience: int | None, stop: StopFlag) -> None:
    """Train, going on from the newest whole resume point if there is one.

    Args:
        trainer: has `load_history`, as `training.ClassifierTrainer`.
        checkpoints: folder of the resume points.
        patience: of early stopping, None without.
        stop: the flag that signals set.
    """
    if is_main_process():
        for name in remove_incomplete(checkpoints):
            print(f"removed {name}, which was not written to its end or has been damaged")
    trainer.accelerator.wait_for_everyone()
    point = last_resume_point(checkpoints)
    if point is not None:
        trainer.load_history(point)
        if is_main_process():
            print(f"going on from {point}")
    if point is not None and patience_exhausted(point, patience):
        from transformers import TrainerState

        trainer.state = TrainerState.load_from_json(str(point / TRAINER_STATE))
        trainer._load_best_model()
        return
    stop.training = True
    trainer.train(resume_from_checkpoint=str(point) if point else None)
    stop.training = False


@contextlib.contextmanager
def recorded(record: RunRecord, layout: Any) -> Iterator[None]:
    """Note in run.json how a run ended, unless it ended well.

    Args:
        record: of the run.
        layout: its folders.

    Raises:
        RunFailure: for an error that means that a disk is full.
    """
    try:
        yield
    except Interrupted as stopped:
        if record.content["status"] == "failed":
            record.write("failed", error=f"{CANCELLED}: {stopped}")
        else:
            record.write("running", stopped=str(stopped))
        raise
    except BaseException as error:
        shortage = disk_shortage(error, layout)
        # What was written in part may be what fills the disk.
        remove_incomplete(layout.checkpoints)
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
    for stale in (layout.outputs / "eval", layout.outputs / "predictions"):
        shutil.rmtree(stale, ignore_errors=True)
    for figure in layout.outputs.glob("cfm.*"):
        figure.unlink()
