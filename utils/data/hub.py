"""Datasets of the Hugging Face hub, and what tells a name on the hub from a local folder."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from utils.errors import RunFailure

Asked = TypeVar("Asked")

# How long a hub that has had too many requests is waited for, unless it says so itself, and how often.
RATE_LIMIT_SECONDS, RATE_LIMIT_TRIES = 60, 10


def from_hub(load: Callable[[], Asked]) -> Asked:
    """Call a function that asks the hub, and again when the hub has had too many requests.

    Raises:
        RunFailure: if it fails otherwise.
    """
    for _ in range(RATE_LIMIT_TRIES):
        try:
            return load()
        except Exception as error:
            # The library raises errors of a dozen types, its own and those of what it is built on.
            seconds = _rate_limit(error)
            if seconds is None:
                reason = str(error).strip().splitlines()[0]
                raise RunFailure(reason) from error
            print(f"the hub asks to wait: {seconds} seconds", file=sys.stderr, flush=True)
            time.sleep(seconds)
    raise RunFailure(f"the hub has had too many requests, {RATE_LIMIT_TRIES} times; try again later")


def _rate_limit(error: BaseException | None) -> int | None:
    """Return how many seconds the hub asks to wait; None if the error is not a rate limit."""
    from huggingface_hub.utils import HfHubHTTPError, parse_ratelimit_headers

    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(error, HfHubHTTPError) and response is not None and response.status_code == 429:
            limit, seconds = parse_ratelimit_headers(response.headers), response.headers.get("retry-after", "")
            return limit.reset_in_seconds if limit else int(seconds) if seconds.isdigit() else RATE_LIMIT_SECONDS
        error = error.__cause__ or error.__context__
    return None


def local_or_hub(file: Path, name: str) -> str:
    """Return what a file names: a folder as an absolute path (relative ones are relative to the file), or a hub id."""
    folder = file.parent / Path(name).expanduser()
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    return str(folder.resolve()) if looks_local or folder.is_dir() else name
