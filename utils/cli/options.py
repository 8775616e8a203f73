"""How options are declared: once, with a role and a group.

From the roles is derived which options make a run another run, name a study, group seeds, fill a grid or stand in a
model card (`options_by_role`); no list of option names is kept by hand. The groups are the headings of ``--help``.
"""

import copy
import dataclasses
import operator
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

# What `option` adds to a field and argparse must not see.
OWN_METADATA = (
    *("role", "group", "env", "imports", "shared", "positional", "needs"),
    *("minimum", "maximum", "above", "below"),
)

# Of a `Need`: any value but none.
GIVEN = object()

# What an option is for; see `option`.
IDENTITY, HYPERPARAMETER, SEARCH, PLACE, EFFORT = "identity", "hyperparameter", "search", "place", "effort"
ROLES = (IDENTITY, HYPERPARAMETER, SEARCH, PLACE, EFFORT)

# The groups of --help, in their order; groups with other names come between these and PLACES.
MODEL, DATA, TRAINING, MEMORY = "what to train", "data", "training", "speed and memory"
ADAPTERS, SEARCHING, PLACES, SLURM = "adapters", "search", "where things are", "Slurm"
OTHER, OPTUNA = "other options", "Optuna"
FIRST_GROUPS = (MODEL, DATA, TRAINING, MEMORY, ADAPTERS, SEARCHING)
LAST_GROUPS = (PLACES, SLURM, OTHER, OPTUNA)


@dataclass(frozen=True)
class Need:
    """What an option is for: another option, which must have this value, or any (`GIVEN`); `advice` says how."""

    option: str
    value: Any
    advice: str

    def is_met(self, value: Any) -> bool:
        """Return whether the other option has a value with which this one has an effect."""
        return bool(value) if self.value is GIVEN else value == self.value


def option(
    default: Any = dataclasses.MISSING, help: str = "", role: str | None = None, group: str | None = None, **more: Any
) -> Any:
    """Declare one option as a dataclass field.

    The class that declares it may set `ROLE` and `GROUP` for all of its options; an option's own win.

    Args:
        default: the default value; without it the option is required. Lists and dictionaries are copied.
        help: one sentence for ``--help``.
        role: "identity" (the default) makes another run: model, data; "hyperparameter" too, and can be searched, be
            part of a grid and stands in the model card; "search" makes another study, but not another training;
            "place" says where things are; "effort" how, without changing what comes out.
        group: heading in ``--help``.
        more: `aliases` (list of option strings), `metavar`, `choices`; `env` (name of an environment variable that
            stands in); `imports` (an `Objects`: the value, or some of it, are classes or functions);
            `shared` (False: config/default.json does not set it); `positional` (given without its name); `needs`
            (a `Need`: without it the option would be ignored, and is refused);
            `minimum`, `maximum` (inclusive bounds), `above`, `below` (exclusive bounds).
    """
    if role not in (None, *ROLES):
        raise ValueError(f"unknown role {role!r}")
    metadata = {**more, "help": help.replace("%", "%%"), "role": role, "group": group}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def declared(options_class: type, field: dataclasses.Field, name: str) -> str | None:
    """Return an option's role or group: its own, else that of the class which declares it."""
    if field.metadata.get(name):
        return field.metadata[name]
    owner = next(cls for cls in options_class.__mro__ if field.name in vars(cls).get("__annotations__", {}))
    return vars(owner).get(name.upper())


def option_groups(options_class: type) -> dict[str, list[dataclasses.Field]]:
    """Return a script's options by their groups, these in the order in which they are shown."""
    found: dict[str, list[dataclasses.Field]] = {}
    for field in dataclasses.fields(options_class):
        found.setdefault(declared(options_class, field, "group") or OTHER, []).append(field)
    between = [group for group in found if group not in (*FIRST_GROUPS, *LAST_GROUPS)]
    return {
        group: found.get(group, []) for group in (*FIRST_GROUPS, *between, *LAST_GROUPS) if group in (*found, OTHER)
    }


def options_by_role(
    options_class: type, *roles: str, groups: Collection[str] | None = None, without_groups: Collection[str] = ()
) -> list[str]:
    """Return the names of a script's options that have one of these roles, in the order of their declaration.

    Args:
        options_class: a dataclass whose fields are made by `option`.
        roles: see `option`.
        groups: only options of these groups; None is all.
        without_groups: leave out options of these.
    """
    found = []
    for field in dataclasses.fields(options_class):
        role, group = (
            declared(options_class, field, "role") or IDENTITY,
            declared(options_class, field, "group") or OTHER,
        )
        if role in roles and (groups is None or group in groups) and group not in without_groups:
            found.append(field.name)
    return found


def aliases(options_class: type) -> dict[str, str]:
    """Return the options' names by their other names, without dashes: ``epochs`` is ``num_epochs``."""
    return {
        alias.lstrip("-").replace("-", "_"): field.name
        for field in dataclasses.fields(options_class)
        for alias in field.metadata.get("aliases", [])
    }


BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("at least", operator.ge),
    "maximum": ("at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
}


def bound_problem(field: dataclasses.Field, value: Any) -> str | None:
    """Return what is wrong with the value of an option that has bounds; None if it keeps them."""
    for kind, (words, holds) in BOUNDS.items():
        bound = field.metadata.get(kind)
        if bound is not None and value is not None and not holds(value, bound):
            return f"must be {words} {bound}, got {value}"
    return None


def default_of(field: dataclasses.Field) -> Any:
    """Return the default value of an option."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def empty_value(field: dataclasses.Field) -> Any:
    """Return a value of the type that an option has when it is not None, from its annotation: 0, 0.0, "" ..."""
    types = [part for part in typing.get_args(field.type) if part is not type(None)] or [field.type]
    return types[0]() if types[0] in (int, float, str, bool) else None


@dataclass
class ScriptOptions:
    """The options that every script has."""

    config: list[str] | None = option(
        None,
        "JSON or YAML files with options, merged left to right; the command line wins",
        role=PLACE,
        group=OTHER,
        metavar="FILE",
    )
    output_dir: str = option("outputs", "where results are written", role=PLACE, group=PLACES, metavar="DIR")
    models_dir: str = option("models", "where trained models are kept", role=PLACE, group=PLACES, metavar="DIR")
    print_config: bool = option(
        False, "print all options and where their values come from, and end", role=EFFORT, group=OTHER
    )
    debug: bool = option(False, "show tracebacks", role=EFFORT, group=OTHER)


@dataclass
class CommonOptions(ScriptOptions):
    """The options of scripts in which something is random."""

    seed: int = option(42, "seed of everything random", role=HYPERPARAMETER, group=OTHER, minimum=0, maximum=2**32 - 1)
