"""Reads files of options: JSON, with // comments if need be, or YAML."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError

if TYPE_CHECKING:
    import yaml


def read_config(path: Path) -> dict[str, Any]:
    """Read one JSON or YAML file of options.

    Raises:
        UserError: if the file is missing, cannot be parsed (with its line) or does not hold a mapping.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this config file ({error})") from None
    try:
        if path.suffix == ".json":
            content = json.loads(_without_comments(text))
        else:
            content = yaml.load(text, Loader=_config_loader())  # noqa: S506
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of option names to values, got {type(content).__name__}")
    return content


def _without_comments(text: str) -> str:
    """Remove // comments from JSON, leaving strings and line numbers as they are."""
    return re.sub(r'("(?:\\.|[^"\\\n])*")|//[^\n]*', lambda match: match[1] or "", text)


def _config_loader() -> "type[yaml.SafeLoader]":
    """A safe YAML loader for which ``1e-5`` is a number and ``no`` is Norwegian, as in YAML 1.2."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )
    return Loader
