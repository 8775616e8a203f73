"""Signals that ask a run to stop."""

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from utils.errors import Interrupted
from utils.runs import slurm_job
from utils.runs.distributed import is_main_process
from utils.runs.files import now
from utils.runs.record import RunRecord

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
CANCELLED = "the job was cancelled"
BEFORE = "before training began; nothing was lost"
AFTER = "after training; the same command goes on from the last resume point"
COMPLETE = "after the run was complete; nothing was lost"
# An exception in the middle of an import may come out as another one.
RETRY_SECONDS = 0.05


def name_of(signum: int) -> str:
    """Return what a signal is called."""
    return "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name


def listen(receive: Callable[[int], None]) -> None:
    """Call `receive` on each of the stop signals, never in the middle of an import; from the main thread only.

    Args:
        receive: takes the signal's number; it may raise.
    """

    def handler(signum: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                timer = threading.Timer(RETRY_SECONDS, signal.raise_signal, (signum,))
                timer.daemon = True
                timer.start()
                return
            frame = frame.f_back
        receive(signum)

    if threading.current_thread() is threading.main_thread():
        for signum in STOP_SIGNALS:
            signal.signal(signum, handler)


def end_on_signals(what: str = "") -> None:
    """Let a stop signal end the process by an `Interrupted`, which says what is known about going on."""

    def receive(signum: int) -> None:
        raise Interrupted(signum, f"{name_of(signum)}{what and f'; {what}'}")

    listen(receive)


class StopFlag:
    """Remembers that a signal asked the run to stop.

    Outside of training there is nothing to save and the signal ends the process at once; while it
    trains, the training loop looks at the flag between steps. A second Ctrl-C ends the process at once.

    Args:
        handover: file whose appearance stops the run like SIGTERM, see `only_run`.
        on_term: called at once on SIGTERM, which may mean that somebody has cancelled the Slurm job: Slurm may
            not leave the time for a step to end.
    """

    def __init__(self, handover: Path, on_term: Callable[[], None]):
        self.handover = handover
        self.on_term = on_term
        self.signum: int | None = None
        self.training = False
        self.ending = False
        # What a message says about a signal that comes now.
        self.phase = BEFORE

    def listen(self) -> None:
        """Install the handlers of the stop signals; call once, from the main thread."""
        listen(self._receive)

    def _receive(self, signum: int) -> None:
        repeated = signum == self.signum == signal.SIGINT
        self.signum = signum
        if signum == signal.SIGTERM and is_main_process():
            self.on_term()
        if self.ending and not repeated:
            return
        if not self.training or repeated:
            self.ending = True
            phase = "for the second time; the same command goes on from the last resume point"
            raise Interrupted(signum, f"{name_of(signum)} {phase if self.training else self.phase}")
        if signum == signal.SIGINT and is_main_process():
            print("\nCtrl-C: saving a resume point; once more ends at once", file=sys.stderr, flush=True)

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

    def note_if_cancelled() -> None:
        if slurm_job.was_cancelled():
            record.write("failed", error=CANCELLED, ended=now())

    # Slurm is asked, and the record written, in a thread: the handler may have interrupted a write of the record.
    stop = StopFlag(handover, lambda: record.in_background(note_if_cancelled))
    stop.listen()
    return record, stop
