"""Stopping on a signal and going on where a run was: signals, resume points, one run at a time."""

import contextlib
import json
import shutil
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.distributed import is_main_process
from utils.errors import Interrupted, UserError
from utils.layout import RunLayout, locked, read_json

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Written last by the Trainer, so its presence marks a complete resume point.
TRAINER_STATE = "trainer_state.json"
# Options that may differ between a run and its resumption without changing its result.
FREE_OPTIONS = {
    "config", "output_dir", "models_dir", "subfolder", "cache_dir", "corpus_path", "model_registry",
    "debug", "force", "report_to", "eval_token_budget",
}  # fmt: skip


class StopFlag:
    """Remembers that a signal asked the run to stop.

    Before training starts there is nothing to save and the signal ends the process at once; while it
    trains, the training loop looks at the flag between steps.
    """

    def __init__(self):
        self.signum: int | None = None
        self.training = False

    def listen(self) -> None:
        """Install the handlers of SIGTERM and SIGUSR1; call once, from the main thread."""
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._receive)

    def _receive(self, signum: int, _frame: Any) -> None:
        self.signum = signum
        if not self.training:
            raise Interrupted(signum, f"{signal.Signals(signum).name} before training began; nothing was lost")


def is_complete(checkpoint: Path) -> bool:
    """Say whether a resume point was written to its end and can be read."""
    try:
        state = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
        if int(checkpoint.name.rpartition("-")[2]) != state["global_step"]:
            return False
        from safetensors import safe_open

        for weights in checkpoint.glob("*.safetensors"):
            with safe_open(weights, framework="numpy") as file:
                file.keys()
        return all(zipfile.is_zipfile(checkpoint / name) for name in ("optimizer.pt", "scheduler.pt"))
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
def only_run(lock_file: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, so that two jobs never train the same model at once.

    Raises:
        UserError: if another process holds it.
    """
    import filelock

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(lock_file, wait=False))
        except filelock.Timeout:
            raise UserError(f"another process is training this model ({lock_file} is locked)") from None
        yield


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
            print(f"removed {name}, which was not written to its end")
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


def clear_results(layout: RunLayout) -> None:
    """Remove the evaluation results of the model that a new one has replaced."""
    for stale in (layout.outputs / "eval", layout.outputs / "predictions"):
        shutil.rmtree(stale, ignore_errors=True)
    for figure in layout.outputs.glob("cfm.*"):
        figure.unlink()
