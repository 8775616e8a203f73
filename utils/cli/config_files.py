"""Reads the files that users write: JSON, with // comments if need be, or YAML.

A key that stands twice in an object is refused, as are files that are small to store and endless to go through:
nested too deeply, or YAML whose aliases multiply.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError

if TYPE_CHECKING:
    import yaml

# Values in a file, aliases written out; more than anybody writes by hand.
MOST_VALUES = 100_000
TOO_DEEP = "nested too deeply"


def read_config(path: Path) -> dict[str, Any]:
    """Read one JSON or YAML file of options.

    Raises:
        UserError: if the file is missing, cannot be parsed (with its line), holds a key twice (with its line) or does
            not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this config file ({error})") from None
    content = parse_json(_without_comments(text), path) if path.suffix == ".json" else parse_yaml(text, path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of option names to values, got {type(content).__name__}")
    return content


def parse_json(text: str, path: Path) -> Any:
    """Parse JSON.

    Raises:
        UserError: with file and line, for what is no JSON or holds a key twice in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except _RepeatedKeyError as error:
        raise UserError(
            f"{path}, line {_line_of_repeated(text)}: the key {error} is given twice; which value is meant?"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: {TOO_DEEP}") from None


class _RepeatedKeyError(Exception):
    """Of an object of JSON; the key is the message."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(repr(next(key for index, key in enumerate(keys) if key in keys[:index])))
    return content


def _line_of_repeated(text: str) -> int:
    """Return the line of the first key that its object has already, in JSON that is sound otherwise."""
    objects: list[set[str]] = []
    for token in re.finditer(r'("(?:\\.|[^"\\])*")(\s*:)?|[{}]', text):
        if token[0] == "{":
            objects.append(set())
        elif token[0] == "}":
            objects.pop()
        elif token[2]:
            key = json.loads(token[1])
            if key in objects[-1]:
                return text.count("\n", 0, token.start()) + 1
            objects[-1].add(key)
    raise AssertionError("no key is repeated")


def _without_comments(text: str) -> str:
    """Remove // comments from JSON, leaving strings and line numbers as they are."""
    return re.sub(r'("(?:\\.|[^"\\\n])*")|//[^\n]*', lambda match: match[1] or "", text)


def parse_yaml(text: str, path: Path) -> Any:
    """Parse YAML, of which ``1e-5`` is a number and ``no`` is Norwegian, as in YAML 1.2.

    Raises:
        UserError: with file and line, for what is no YAML or holds a key twice in one mapping.
    """
    import yaml

    loader = _config_loader()(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check_nodes(root, path)
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    except RecursionError:
        raise UserError(f"{path}: {TOO_DEEP}") from None
    except ValueError as error:
        # Dates that no calendar has.
        raise UserError(f"{path}: not valid YAML: {error}") from None
    finally:
        loader.dispose()


def _check_nodes(root: "yaml.Node", path: Path) -> None:
    """Refuse repeated keys, aliases that contain themselves, and those that multiply beyond `MOST_VALUES`."""
    import yaml

    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MOST_VALUES
            below = [node.value] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                _check_keys(node, path)
                below = [part for pair in node.value for part in pair]
            sizes[id(node)] = 1 + sum(size(part) for part in below if isinstance(part, yaml.Node))
        return sizes[id(node)]

    if size(root) >= MOST_VALUES:
        raise UserError(f"{path}: its aliases contain themselves, or make more than {MOST_VALUES:,} values of it")


def _check_keys(node: "yaml.MappingNode", path: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key.value, str) and key.value != "<<":
            if (key.tag, key.value) in seen:
                line = key.start_mark.line + 1
                raise UserError(f"{path}, line {line}: the key {key.value!r} is given twice; which value is meant?")
            seen.add((key.tag, key.value))


def _config_loader() -> "type[yaml.SafeLoader]":
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
