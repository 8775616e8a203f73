"""The parser of every script: dataclasses of options -> argparse, cascading config files, dotted keys.

The base is `transformers.HfArgumentParser`, which gives ``--both_spellings`` and ``--both-spellings``,
bare boolean flags, lists as several values and choices. This module adds:

- ``--config FILE ...``: JSON (with // comments) or YAML files, deep-merged left to right over config/default.json;
- environment variables that stand in for options (command line > config files > environment > default);
- dotted names for dictionary options, ``--lr_scheduler_kwargs.num_cycles 2``, merged into the default,
  where the value ``__delete_field__`` removes a key;
- values in quotes stay strings, ``None`` stands for no value (see `values`);
- options declared to take classes or functions, given by their import paths; no other option imports anything;
- bounds of numbers, and errors that name the nearest known option;
- groups of options in ``--help``.
"""

import argparse
import dataclasses
import json
import os
import sys
import typing
from argparse import ArgumentDefaultsHelpFormatter, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from transformers.hf_argparser import HfArgumentParser

from utils import PROJECT
from utils.cli.config_files import read_config
from utils.cli.options import (
    OTHER,
    OWN_METADATA,
    Need,
    aliases,
    bound_problem,
    option_groups,
)
from utils.cli.values import Objects, json_object, leaves, merge, nested, resolve_objects, scalar, value_type
from utils.errors import UserError, nearest

DEFAULT_CONFIG = PROJECT / "config" / "default.json"


class _HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """One spelling and one metavar per option, defaults that say something, line breaks of docstrings kept."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, "", []) or action.required or isinstance(action.default, dict):
            # What --print_config shows of a dictionary would fill the page.
            return action.help
        return super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        spellings = [s for s in action.option_strings if "-" not in s.lstrip("-") or "_" not in action.dest]
        if action.nargs in (0, "?"):
            return ", ".join(spellings)
        metavar = self._format_args(action, self._get_default_metavar_for_optional(action).rpartition("_")[2])
        return f"{', '.join(spellings)} {metavar}"


class OptionParser(HfArgumentParser):
    """Parser of one script's option dataclass.

    Args:
        options_class: a dataclass whose fields are made by `option`.
        description: shown above the options by ``--help``; usually the script's docstring.
        default_config: the file at the bottom of the cascade (skipped when it does not exist).
        passes_on: a dataclass of another script's options: what config files say of those is not taken but
            collected in `passed_on`, for a script that starts the other one.
        prog: what the script is called; None is the file's name.
    """

    def __init__(
        self,
        options_class: type,
        description: str = "",
        default_config: Path = DEFAULT_CONFIG,
        passes_on: type | None = None,
        prog: str | None = None,
    ):
        self.fields = {field.name: field for field in dataclasses.fields(options_class)}
        self.passes_on = {field.name for field in dataclasses.fields(passes_on)} if passes_on else set()
        self.passed_on: dict[str, Any] = {}
        # Config files may use any of an option's names.
        self.names = {**(aliases(passes_on) if passes_on else {}), **aliases(options_class)}
        # What other programs call options that are called otherwise here, or are not needed.
        self.hints = {
            name: f"; {hint}" for cls in (options_class, passes_on) for name, hint in getattr(cls, "HINTS", {}).items()
        }
        self.default_config = default_config
        self.origins: dict[str, str] = {}
        super().__init__(
            options_class,
            description=description,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            add_help=False,
            prog=prog,
        )
        for action in self._actions:
            if action.type is not None and action.dest in self.fields:
                action.type = value_type(action.type, self._takes_none(action.dest))
            if action.option_strings and action.option_strings[0].startswith("--no_"):
                action.help = f"not --{action.dest}"
        required = [" ".join([*a.option_strings[:1], a.dest.upper()]) for a in self._actions if a.required]
        self.usage = " ".join(["%(prog)s", *required, "[options]"])

    def _add_dataclass_arguments(self, dtype: type) -> None:
        """Add the groups in their order, then the options, each to its own."""
        titles = getattr(dtype, "GROUP_TITLES", {})
        grouped = option_groups(dtype)
        groups = {group: self.add_argument_group(titles.get(group, group)) for group in grouped}
        groups[OTHER].add_argument("-h", "--help", action="help", help="show this help and end")
        self.groups = {field.name: groups[group] for group, fields in grouped.items() for field in fields}
        super()._add_dataclass_arguments(dtype)

    @staticmethod
    def _parse_dataclass_field(parser: Any, field: dataclasses.Field) -> None:
        if field.metadata.get("positional"):
            is_optional = field.metadata["positional"] == "optional"
            more = {"nargs": "?", "choices": typing.get_args(field.type)[0].__args__} if is_optional else {"nargs": "+"}
            parser.groups[field.name].add_argument(field.name, help=field.metadata["help"], **more)
            return
        parser = parser.groups[field.name]
        public = {key: value for key, value in field.metadata.items() if key not in OWN_METADATA}
        plain: Any = dataclasses.field(default=field.default, default_factory=field.default_factory, metadata=public)
        plain.name, plain.type = field.name, json_object if field.type in (dict, dict | None) else field.type
        HfArgumentParser._parse_dataclass_field(parser, plain)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage: two lines are enough for a mistyped option."""
        raise UserError(f"{message}\nsee {self.prog} --help")

    def parse(self, argv: list[str] | None = None, layers: Sequence[tuple[str, dict[str, Any]]] = ()) -> Any:
        """Parse `argv` (default: the command line) into an instance of the options class.

        Args:
            argv: the arguments.
            layers: where they come from and options, as if from config files given after all others.

        Raises:
            UserError: for anything that the user got wrong, in the command line or in a config file.
        """
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(self)
        argv = list(sys.argv[1:] if argv is None else argv)
        if not argv and not layers:
            self._show_short_help()
        argv, dotted = self._take_dotted(argv)
        self._take_environment()
        self._take_config(argv, layers)
        if {"--print_config", "--print-config"} & set(argv):
            for action in self._actions:
                # What is missing is seen.
                action.required = False
        try:
            namespace, unknown = self.parse_known_args(argv)
        except ArgumentError as error:
            self.error(str(error))
        for token in unknown:
            if token.startswith("-"):
                self.error(f"unknown option {token.split('=')[0]}{self._nearest_option(token)}")
            self.error(f"unexpected value {token!r}")
        values = {name: getattr(namespace, name) for name in self.fields}
        for (name, *keys), value in dotted:
            values[name] = merge(values[name] or {}, nested(keys, value))
        if values.get("print_config"):
            print("\n".join(self._explain(values, argv, dotted)))
            raise SystemExit(0)
        given = {name for action in self._given(argv) if (name := action.dest) in self.fields}
        self._check_bounds(values, given)
        self._check_needs(values, given)
        for name, field in self.fields.items():
            values[name] = _resolve(values[name], field)
        return self.dataclass_types[0](**values)

    def _show_short_help(self) -> None:
        """Show what the script is for, with examples, if it cannot run without arguments; ends the process."""
        given = read_config(self.default_config) if self.default_config.is_file() else {}
        wanted = [action for action in self._actions if action.required and action.dest not in given]
        if not wanted:
            return
        lines = [f"usage: {self.usage % {'prog': self.prog}}", "", (self.description or "").strip(), ""]
        for action in wanted:
            lines.append(f"  {' '.join([*action.option_strings[:1], action.dest.upper()]):28} {action.help}")
        print("\n".join([*lines, "", f"{self.prog} --help lists all options"]), file=sys.stderr)
        raise SystemExit(2)

    def _explain(self, values: dict[str, Any], argv: list[str], dotted: list[tuple[list[str], Any]]) -> Iterator[str]:
        """Yield a line per value: the value as YAML, and as a comment where it comes from."""
        given = {action.dest for action in self._given(argv)} | {".".join(keys) for keys, _ in dotted}
        for name in self.fields:
            if name in ("config", "print_config"):
                continue
            for path, value in leaves(name, values[name]):
                origin = "command line" if {name, path} & given else self.origins.get(path, "default")
                shown = "***" if name == "token" and value else json.dumps(value, ensure_ascii=False)
                yield f"{path}: {shown}  # {origin}"

    def _given(self, argv: list[str]) -> list[argparse.Action]:
        """Return the options that stand on the command line."""
        heads = {token.partition("=")[0] for token in argv}
        return [action for action in self._actions if heads & set(action.option_strings)]

    def _nearest_option(self, token: str) -> str:
        name = token.lstrip("-").split("=")[0].split(".")[0].replace("-", "_")
        if name in self.hints:
            return self.hints[name]
        close = nearest(name, self.fields)
        return close.replace("mean '", "mean '--") if "did you mean" in close else ""

    def _takes_none(self, name: str) -> bool:
        return type(None) in typing.get_args(self.fields[name].type)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if value is not None:
            super()._check_value(action, value)

    def _is_shared(self, name: str) -> bool:
        return self.fields[name].metadata.get("shared", True)

    def _is_dict(self, name: str) -> bool:
        return name in self.fields and self.fields[name].type in (dict, dict | None)

    def _take_dotted(self, argv: list[str]) -> tuple[list[str], list[tuple[list[str], Any]]]:
        """Split ``--name.key value ...`` off the command line."""
        rest, dotted, i = [], [], 0
        while i < len(argv):
            token, i = argv[i], i + 1
            head, has_value, inline = token.partition("=")
            if not head.startswith("--") or "." not in head:
                rest.append(token)
                continue
            name, *keys = head[2:].split(".")
            name = name.replace("-", "_")
            if not self._is_dict(name):
                if name in self.fields:
                    self.error(f"--{name} takes no dotted keys: {head}")
                self.error(f"unknown option {head}{self._nearest_option(head)}")
            if not all(keys):
                self.error(f"empty key in {head}")
            values = [inline] if has_value else []
            while not has_value and i < len(argv) and not argv[i].startswith("--"):
                values.append(argv[i])
                i += 1
            parsed = [scalar(value) for value in values]
            dotted.append(([name, *keys], True if not parsed else parsed[0] if len(parsed) == 1 else parsed))
        return rest, dotted

    def _take_environment(self) -> None:
        for name, field in self.fields.items():
            variable = field.metadata.get("env")
            if variable and os.environ.get(variable):
                self._set_default(name, os.environ[variable], f"environment variable {variable}")

    def _take_config(self, argv: list[str], layers: Sequence[tuple[str, dict[str, Any]]]) -> None:
        if self.default_config.is_file():
            for key, value in read_config(self.default_config).items():
                name = key.replace("-", "_")
                if name in self.fields and name != "config" and self._is_shared(name):
                    self._set_default(name, value, str(self.default_config))
        for origin, content in (*((path, read_config(Path(path))) for path in self._config_paths(argv)), *layers):
            taken: dict[str, str] = {}
            for key, value in content.items():
                name = self.names.get(key.replace("-", "_"), key.replace("-", "_"))
                if taken.setdefault(name, key) != key:
                    raise UserError(f"{origin}: {taken[name]} and {key} are the same option; which value is meant?")
                if name in self.passes_on and (name not in self.fields or not self._is_shared(name)):
                    self.passed_on = merge(self.passed_on, {name: value})
                elif name not in self.fields or name == "config":
                    hint = self.hints.get(name) or nearest(name, {*self.fields, *self.passes_on})
                    raise UserError(f"{origin}: unknown key {key!r}{hint}")
                else:
                    self._set_default(name, value, origin)

    def _config_paths(self, argv: list[str]) -> list[str]:
        """Find the config files on a command line whose other options have not been read yet."""
        if "config" not in self.fields:
            return []
        if self.fields["config"].metadata.get("positional"):
            # What is required may come from the files.
            required = [action for action in self._actions if action.required and action.dest != "config"]
            for action in required:
                action.required = False
            try:
                paths = self.parse_known_args(argv)[0].config
            except ArgumentError as error:
                self.error(str(error))
            for action in required:
                action.required = True
            return paths
        paths, reading = [], False
        for token in argv:
            if token == "--config":
                reading = True
            elif token.startswith("--config="):
                paths.append(token.partition("=")[2])
            elif token.startswith("--"):
                reading = False
            elif reading:
                paths.append(token)
        return paths

    def _set_default(self, name: str, value: Any, origin: str) -> None:
        """Make `value` the default of an option after the checks that argparse would make."""
        action = next(action for action in self._actions if action.dest == name)
        self.origins |= {path: origin for path, _ in leaves(name, value)}
        if isinstance(value, dict):
            if not self._is_dict(name):
                raise UserError(f"{origin}: {name} takes no keys below it, got {value!r}")
            value = merge(action.default or {}, value)
        elif value is None:
            if not self._takes_none(name):
                raise UserError(f"{origin}: {name} has no value; leave the key out for the default")
        else:
            several = isinstance(value, list)
            if several and action.nargs != "+":
                raise UserError(f"{origin}: {name} takes one value, got {value!r}")
            try:
                checked = [self._get_values_checked(action, item) for item in (value if several else [value])]
            except ArgumentError as error:
                raise UserError(f"{origin}: {name}: {error.message}") from None
            value = checked if action.nargs == "+" else checked[0]
        action.default, action.required = value, False

    def _get_values_checked(self, action: argparse.Action, item: Any) -> Any:
        value = self._get_value(action, str(item))
        self._check_value(action, value)
        return value

    def _refuse(self, name: str, given: Collection[str], problem: str) -> NoReturn:
        """Raise an error about an option where it was given: on the command line, or in a file."""
        if name not in given and name in self.origins:
            raise UserError(f"{self.origins[name]}: {name} {problem}")
        self.error(f"--{name} {problem}")

    def _check_needs(self, values: dict[str, Any], given: Collection[str]) -> None:
        """Refuse options that would be accepted and ignored."""
        for name, field in self.fields.items():
            need: Need | None = field.metadata.get("needs")
            if need is None or need.is_met(values[need.option]):
                continue
            in_file = self.origins.get(name, str(self.default_config)) != str(self.default_config)
            # A file that lists all options, as config.txt does, says that it is about none of these.
            listed = values[name] == field.default and need.option in self.origins
            if name in given or (in_file and not listed):
                self._refuse(name, given, need.advice)

    def _check_bounds(self, values: dict[str, Any], given: Collection[str]) -> None:
        for name, field in self.fields.items():
            if problem := bound_problem(field, values[name]):
                self._refuse(name, given, problem)


def parse_options(options_class: type, description: str) -> Any:
    """Parse the command line of a script; ``--help`` and mistakes end the process as argparse would."""
    return OptionParser(options_class, description=description).parse()


def _resolve(value: Any, field: dataclasses.Field) -> Any:
    objects: Objects | None = field.metadata.get("imports")
    if (objects is None and not isinstance(value, dict)) or (objects is not None and objects.late):
        # What looks like an import is a file name or another text there.
        return value
    return resolve_objects(value, objects, f"--{field.name}")
