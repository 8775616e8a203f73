"""Errors that users see: what was given, where, what was expected, what to do."""

import atexit
import difflib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

EXIT_FAILURE = 1
EXIT_USAGE = 2
SECONDS_TO_SPEAK = 5


class UserError(Exception):
    """A mistake in what the user gave (options, files, names): one or two lines, exit status 2."""


class RunFailure(Exception):
    """A failure whose message says all there is to say: one or two lines, exit status 1."""


class Diverged(RunFailure):
    """Training came to a loss that is no number; a study goes on with other hyperparameters."""


class Interrupted(Exception):
    """A signal asked the run to stop; carries the signal's number, which makes the exit status 128 + number."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to `name`, or the names themselves if few."""
    known = [str(k) for k in known]
    lowered = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {lowered[close[0]]!r}?"
    if 0 < len(known) <= 30:
        return f"; known: {', '.join(sorted(known))}"
    return ""


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and turn every outcome into an exit status and at most two lines on stderr.

    Tracebacks are shown only with ``--debug``. Exit status: what `main` returns (None is 0), 2 for a
    `UserError`, 1 for any other failure, 128 + signal number when a signal ended the run.
    """
    script = Path(sys.argv[0]).name
    debug = "--debug" in sys.argv
    try:
        status = main() or 0
    except UserError as error:
        _let_the_first_speak()
        status = _report(script, str(error), EXIT_USAGE, debug)
    except (RunFailure, OSError) as error:
        status = _report(script, str(error), EXIT_FAILURE, debug)
    except Interrupted as stop:
        status = _report(script, str(stop), 128 + stop.signum, debug, word="stopped")
    except KeyboardInterrupt:
        status = _report(script, "interrupted from the keyboard", 128 + signal.SIGINT, debug, word="stopped")
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        message = f"{type(error).__name__}: {lines[0] if lines else ''} (--debug shows the traceback)"
        status = _report(script, message, EXIT_FAILURE, debug)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _end_at_once(status)
    sys.exit(status)


def _let_the_first_speak() -> None:
    """Wait in processes other than the first: a mistake that all have met ends the first, and torchrun then the others.

    Whoever ended before the first had said what is wrong would silence it. A mistake that this process alone has met
    is said by it after that.
    """
    if int(os.environ.get("RANK", "0")):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(SECONDS_TO_SPEAK)


def _end_at_once(status: int) -> None:
    """End one of several processes without taking libraries down in order.

    gloo's threads may outlive their process group (seen with FSDP): then the C++ runtime aborts a process that has
    done all its work, and torchrun takes that for a failure.
    """
    # Trackers write their last lines there.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _report(script: str, message: str, status: int, debug: bool, word: str = "error") -> int:
    if debug:
        traceback.print_exc()
    if int(os.environ.get("RANK", "0")) == 0 or status in (EXIT_FAILURE, EXIT_USAGE):
        if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            word = f"\033[1;31m{word}\033[0m"
        print(f"{script}: {word}: {message}", file=sys.stderr)
    return status
