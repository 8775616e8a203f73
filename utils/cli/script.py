"""How a script ends: errors as one or two lines on stderr, and an exit status."""

import importlib
import importlib.util
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from utils.errors import Interrupted, RunFailure, UserError
from utils.runs.distributed import end_process, is_main_process, let_the_first_speak, num_processes
from utils.runs.stop import end_on_signals, name_of

EXIT_FAILURE = 1
EXIT_USAGE = 2


def run_script(main: Callable[[], int | None], script: str | None = None) -> NoReturn:
    """Run a script's `main` and turn every outcome into an exit status and at most two lines on stderr.

    Tracebacks are shown only with ``--debug``. Exit status: what `main` returns (None is 0), 2 for a
    `UserError`, 1 for any other failure, 128 + signal number when a signal ended the run.

    Args:
        main: the script.
        script: what messages call it; None is the file's name.
    """
    script = script or Path(sys.argv[0]).name
    debug = "--debug" in sys.argv
    end_on_signals()
    # peft imports it wherever it is installed: it takes a second, and complains of what only 4 bits on CPUs would need.
    import_when_used("bitsandbytes")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        status = main() or 0
    except UserError as error:
        let_the_first_speak()
        status = _report(script, str(error), EXIT_USAGE, debug)
    except (RunFailure, OSError) as error:
        status = _report(script, str(error), EXIT_FAILURE, debug)
    except Interrupted as stop:
        status = _report(script, str(stop), 128 + stop.signum, debug, word="stopped")
    except KeyboardInterrupt:
        status = _report(script, name_of(signal.SIGINT), 128 + signal.SIGINT, debug, word="stopped")
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        message = f"{type(error).__name__}: {lines[0] if lines else ''} (--debug shows the traceback)"
        status = _report(script, message, EXIT_FAILURE, debug)
    if num_processes() > 1:
        end_process(status)
    sys.exit(status)


def import_when_used(package: str) -> None:
    """Make `import package` load a package when one of its attributes is first asked for, if it is installed."""
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is not None:
        sys.modules[package] = _Later(package)
        # What is asked of any module without being meant to use it, by `inspect` for instance; the standard library's
        # LazyLoader loads it then.
        vars(sys.modules[package]).update(__spec__=spec, __file__=spec.origin)


class _Later(ModuleType):
    """Stands for a package that is not loaded yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__path__", "__version__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _report(script: str, message: str, status: int, debug: bool, word: str = "error") -> int:
    if debug:
        traceback.print_exc()
    if is_main_process() or status in (EXIT_FAILURE, EXIT_USAGE):
        if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            word = f"\033[1;31m{word}\033[0m"
        print(f"{script}: {word}: {message}", file=sys.stderr)
    return status
