"""Signals that ask a run to stop."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.errors import Interrupted
from utils.runs import slurm_job
from utils.runs.distributed import is_main_process
from utils.runs.files import now
from utils.runs.record import RunRecord

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
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
        if signum == signal.SIGTERM and is_main_process() and slurm_job.was_cancelled():
            self.on_cancel()
        if not self.training:
            raise Interrupted(signum, f"{signal.Signals(signum).name} {self.phase}")

    def look(self) -> int:
        """Return the number of the signal that came, 0 without one."""
        if self.signum is None and is_main_process() and self.handover.exists():
            self.signum = signal.SIGTERM
        return self.signum or 0


def begin_run(path: Path, settings: dict[str, Any], data: dict[str, Any], handover: Path) -> tuple[RunRecord, StopFlag]:
    """Begin the record of a run and listen for signals; a cancelled job is noted in the record at once.

    Args:
        path: of run.json.
        settings: all options, as they go there.
        data: what the run is about.
        handover: see `StopFlag`.
    """
    record = RunRecord(path, settings, data)
    stop = StopFlag(handover, lambda: record.write("failed", error=CANCELLED, ended=now()))
    stop.listen()
    return record, stop
