"""What scripts say at their start and end, a panel on terminals and the same lines in logs; and what to type next."""

import dataclasses
import os
import shlex
import sys
from typing import Any

from utils.cli.options import PLACE, declared, default_of


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
    panel = Panel(Text(text, overflow="fold"), title=title, border_style="#807dba", expand=False)
    Console().print(panel)


def next_command(script: str, takes: type, options: Any, more: str = "") -> str:
    """Return the command to type next, with what was given to this script: what it needs, where things are.

    Args:
        script: to be run next.
        takes: its class of options.
        options: of this script.
        more: further arguments.
    """
    given = {field.name: field for field in dataclasses.fields(options)}
    words = ["python", script]
    for field in dataclasses.fields(takes):
        value = getattr(options, field.name, None)
        is_needed = dataclasses.MISSING is field.default is field.default_factory
        if not isinstance(value, str) or not value or not (is_needed or declared(takes, field, "role") == PLACE):
            continue
        from_environment = os.environ.get(given[field.name].metadata.get("env") or "")
        if is_needed or value not in (from_environment, default_of(field)):
            words += [f"--{field.name}", value]
    return shlex.join(words) + more
