"""Progress bars, all alike: on terminals only, and without color where NO_COLOR is set (https://no-color.org)."""

import os
from collections.abc import Iterable
from typing import Any


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return a tqdm bar that is shown on terminals and leaves nothing behind.

    Args:
        iterable: what to go through, unless the caller updates the bar.
        options: of tqdm, such as total, desc and unit.
    """
    from tqdm.auto import tqdm

    color = None if os.environ.get("NO_COLOR") else "#807dba"
    return tqdm(iterable, **{"disable": None, "leave": False, "colour": color, **options})
