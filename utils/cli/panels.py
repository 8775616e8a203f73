"""What scripts say at their start and end, a panel on terminals and the same lines in logs; and what to type next."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Iterable
from typing import Any

from utils.cli.options import default_of

# Options that say where a run is.
WHERE = ("subfolder", "output_dir", "models_dir", "corpus_path", "language_database")


def show(title: str, text: str) -> None:
    """Print lines about a run, in a panel if somebody is looking.

    Args:
        title: of the panel; logs do without.
        text: the lines.
    """
    if not sys.stdout.isatty():
        print(text, flush=True)
        return
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    # rich knows NO_COLOR and the terminal's width; paths are not cut, so that they can be copied.
    Console(soft_wrap=False).print(
        Panel(Text(text, overflow="fold"), title=title, border_style="#807dba", expand=False)
    )


def next_command(script: str, options: Any, names: Iterable[str], more: str = "") -> str:
    """Return the command to type next, with what was given to the script that ends.

    Args:
        script: to be run next.
        options: of the one that ends.
        names: of its options that both have; those at their defaults are left out.
        more: further arguments.
    """
    fields = {field.name: field for field in dataclasses.fields(options)}
    words = ["python", script]
    for name in names:
        value = getattr(options, name, None)
        if value in (None, "") or name not in fields or value == os.environ.get(fields[name].metadata.get("env") or ""):
            continue
        is_required = fields[name].default is fields[name].default_factory is dataclasses.MISSING
        if is_required or value != default_of(fields[name]):
            words += [f"--{name}", str(value)]
    return shlex.join(words) + more
