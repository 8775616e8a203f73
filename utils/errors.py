"""Errors that users see: what was given, where, what was expected, what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave (options, files, names): one or two lines, exit status 2."""


class RunFailure(Exception):
    """A failure whose message says all there is to say: one or two lines, exit status 1."""


class Diverged(RunFailure):
    """The loss became NaN or infinite; a study continues with other hyperparameters."""


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
