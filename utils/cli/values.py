"""How values of options are read: numbers and constants, dictionaries, and objects by import path."""

import builtins
import functools
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import UserError, nearest

DELETE = "__delete_field__"
CONSTANTS = {"True": True, "False": False, "None": None}
PREFIXES = ("callable:", "import:")


@dataclass(frozen=True)
class Objects:
    """Which values of an option are classes and functions, and where bare names of them are looked up.

    Attributes:
        modules: modules whose names need no path, as ``identity`` for ``utils.data.masking.identity``.
        aliases: module names that stand for others, as ``data_preprocessing`` for ``utils.data.masking``.
        keys: keys of a dictionary option whose values are objects; None means all values.
        late: leave the names to whoever uses them, so that a library is imported only if it is needed.
    """

    modules: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    keys: frozenset[str] | None = None
    late: bool = False


def scalar(text: str) -> Any:
    """Read a value: True, False, None, a number, ``json:...``, else the text without one pair of quotes.

    Raises:
        UserError: for malformed JSON behind ``json:``.
    """
    if text in CONSTANTS:
        return CONSTANTS[text]
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return float(text)
    if text.startswith("json:"):
        try:
            return json.loads(text.removeprefix("json:"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{text[:60]}: not valid JSON ({error})") from None
    return unquoted(text)


def unquoted(text: str) -> str:
    """Return the text without one pair of quotes around it; they keep a number or a constant a string."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def nested(keys: list[str], value: Any) -> dict[str, Any]:
    """Return ``{key: {key: ... value}}``."""
    for key in reversed(keys):
        value = {key: value}
    return value


def leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dotted names and the values of what is in a value."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(f"{path}.{key}", below)
    else:
        yield path, value


def value_type(convert: Callable[[str], Any], takes_none: bool) -> Callable[[str], Any]:
    """Return a converter of an option that takes quotes off, and ``None`` for no value where that is one."""

    @functools.wraps(convert)
    def typed(text: Any) -> Any:
        if not isinstance(text, str):
            return convert(text)
        return None if takes_none and text == "None" else convert(unquoted(text))

    return typed


def plural(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 text``, ``2,000 texts``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def merge(base: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `update` merged into it, key by key; `DELETE` removes a key."""
    merged = dict(base)
    for key, value in update.items():
        if isinstance(value, str) and value == DELETE:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def json_object(text: str | dict) -> dict:
    """Read a whole dictionary option, as argparse's `type`."""
    if isinstance(text, dict):
        return text
    try:
        value = json.loads(text.removeprefix("json:"))
    except (json.JSONDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {text!r}")
    return value


json_object.__name__ = "JSON object"


def resolve_objects(value: Any, objects: Objects | None, origin: str, is_object: bool | None = None) -> Any:
    """Replace the names of objects in an option's value by the objects.

    Args:
        value: of the option: a string, a list or a dictionary of them.
        objects: what the option was declared to take; None if it takes no objects.
        origin: the option, for messages.
        is_object: whether this value is one; None at the top.

    Raises:
        UserError: if something cannot be imported, or is asked for where no object is expected.
    """
    if is_object is None:
        is_object = objects is not None and objects.keys is None
    if isinstance(value, dict):
        keys = (objects.keys if objects else None) or ()
        return {
            key: resolve_objects(below, objects, f"{origin}.{key}", is_object or key in keys)
            for key, below in value.items()
        }
    if isinstance(value, list):
        return [resolve_objects(item, objects, origin, is_object) for item in value]
    if not isinstance(value, str):
        return value
    if is_object:
        return import_object(value, origin, objects)
    if value.startswith(PREFIXES):
        raise UserError(f"{origin}: takes no classes or functions, got {value!r}")
    return value


def import_object(path: str, origin: str = "", objects: Objects | None = None) -> Any:
    """Import what a path such as ``torch.optim.AdamW`` names.

    ``callable:sum`` is a function of Python itself, ``import:math`` a module; a name without a dot is
    looked up in the modules that the option names. Modules in the working directory are found too.

    Raises:
        UserError: if the path has no dot, or the module or the name in it does not exist.
    """
    objects = objects or Objects()
    prefix = f"{origin}: " if origin else ""
    if path.startswith("callable:"):
        return _attribute(builtins, path.removeprefix("callable:"), prefix)
    if path.startswith("import:"):
        return _module(path.removeprefix("import:"), prefix)
    module_name, _, attribute = path.rpartition(".")
    if module_name:
        return _attribute(_module(objects.aliases.get(module_name, module_name), prefix), attribute, prefix)
    modules = [_module(name, prefix) for name in objects.modules]
    for module in modules:
        if hasattr(module, path):
            return getattr(module, path)
    known = [name for module in modules for name in vars(module) if not name.startswith("_")]
    raise UserError(f"{prefix}expected an import path such as torch.optim.AdamW, got {path!r}{nearest(path, known)}")


def object_path(value: Any) -> Any:
    """Return a value of an option with objects as their import paths, as it goes to JSON."""
    if isinstance(value, dict):
        return {key: object_path(below) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [object_path(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", str(value))
    return f"{module}.{name}" if module else f"import:{name}"


def _module(name: str, prefix: str) -> Any:
    if str(Path.cwd()) not in sys.path:
        # Last, so that nothing there hides a library.
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except (ImportError, ValueError) as error:
        raise UserError(f"{prefix}cannot import {name!r} ({error})") from None


def _attribute(module: Any, name: str, prefix: str) -> Any:
    if not hasattr(module, name):
        raise UserError(f"{prefix}{module.__name__} has no {name!r}{nearest(name, dir(module))}")
    return getattr(module, name)
