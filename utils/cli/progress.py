"""Progress, all alike: bars on terminals, dated lines elsewhere; no color where NO_COLOR is set (no-color.org)."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

# Between two lines where no bar is shown; what takes less time says nothing.
SECONDS = 30.0


def clock() -> str:
    """Return the time for a line of a log."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def time_left(seconds: float) -> str:
    """Return a time in words: ``40 s left``, ``12 min left``, ``3.5 h left``."""
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return a tqdm bar that leaves nothing behind; where there is no terminal, what prints lines instead.

    Args:
        iterable: what to go through, unless the caller updates the bar.
        options: of tqdm, such as total, desc and unit; disable shows neither bar nor lines.
    """
    if not sys.stderr.isatty() and not options.get("disable"):
        return Lines(iterable, options.get("total"), options.get("desc") or "", options.get("unit") or "step")
    from tqdm.auto import tqdm

    color = None if os.environ.get("NO_COLOR") else "#807dba"
    return tqdm(iterable, **{"disable": None, "leave": False, "colour": color, **options})


class Lines:
    """What a log says of long work: a line every half minute, with the time left. Used as a tqdm bar is.

    Args:
        iterable: what to go through, or None.
        total: how much there is; None is not known.
        description: of the work.
        unit: of what is counted.
    """

    def __init__(self, iterable: Iterable[Any] | None, total: int | None, description: str, unit: str):
        self.iterable, self.description, self.unit = iterable, description, unit
        self.total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self.count = 0
        self.started = self.said = time.monotonic()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        for item in self.iterable or ():
            yield item
            self.update()

    def update(self, count: int = 1) -> None:
        """Count, and print a line if the last one is old enough."""
        self.count += count
        now = time.monotonic()
        if now - self.said < SECONDS:
            return
        self.said = now
        line = f"{clock()} {self.description}: {self.count:,} {self.unit}s"
        if self.total and self.count:
            left = (now - self.started) * (self.total - self.count) / self.count
            line = f"{clock()} {self.description}: {self.count:,} of {self.total:,} {self.unit}s, {time_left(left)}"
        print(line, file=sys.stderr, flush=True)
