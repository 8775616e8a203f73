"""The hyperparameters of a study: which can be searched, and how their values are suggested."""

from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from utils.cli.options import Need, bound_problem, empty_value
from utils.errors import UserError, nearest

if TYPE_CHECKING:
    import optuna


def check_params(params: dict[str, Any], defaults: dict[str, Any], options: Any = None) -> None:
    """Refuse hyperparameters that do not exist, cannot be suggested, or would leave their bounds.

    Args:
        params: what to search.
        defaults: the hyperparameters' values without a search.
        options: of the script, an instance of a class whose fields are made by `utils.cli.options.option`; those of
            its fields that are searched have bounds, whole numbers and needs. None checks none of it.

    Raises:
        UserError: naming the option.
    """
    declared = {field.name: field for field in fields(options)} if options is not None else {}
    if not params:
        raise UserError("--params is empty: give what to search, as --params.lr.values 1e-6 1e-4")
    for name, spec in params.items():
        if name not in defaults:
            raise UserError(f"--params.{name}: there is no such hyperparameter{nearest(name, defaults)}")
        values = spec.get("values") if isinstance(spec, dict) else None
        if not isinstance(values, list) or not values:
            raise UserError(f"--params.{name}.values: expected several values, got {values!r}")
        for key in spec:
            if key not in ("values", "type", "suggest_kwargs"):
                raise UserError(f"--params.{name}.{key}: unknown{nearest(key, ('values', 'type', 'suggest_kwargs'))}")
        kind = suggested_type(spec, defaults[name])
        if kind != "categorical" and (len(values) != 2 or not all(isinstance(v, (int, float)) for v in values)):
            raise UserError(f"--params.{name}.values: a range of {kind}s is two numbers, got {values}")
        if name in declared:
            _check_option(declared[name], kind, values, options)


def _check_option(field: Field, kind: str, values: list[Any], options: Any) -> None:
    where = f"--params.{field.name}"
    need: Need | None = field.metadata.get("needs")
    if need is not None and not need.is_met(getattr(options, need.option)):
        raise UserError(f"{where}: --{field.name} {need.advice}")
    if kind == "float" and type(empty_value(field)) is int:
        raise UserError(f"{where}.values: --{field.name} is a whole number, got {values}")
    for value in values:
        if problem := bound_problem(field, value):
            raise UserError(f"{where}.values: {problem}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def suggested_type(spec: dict[str, Any], default: Any) -> str:
    """Return how a hyperparameter is suggested: float, int or categorical.

    It is the values that decide: a range that ends in 0.5 is one of floats, whatever the default is. A range between
    two whole numbers is one of floats if the default is a float.

    Raises:
        UserError: if a type is asked for that values or default do not allow.
    """
    default = default[0] if isinstance(default, list) and default else default
    values, requested = spec["values"], spec.get("type")
    whole = all(isinstance(value, int) for value in values)
    if requested is None:
        if not _is_number(default):
            return "categorical"
        return "int" if whole and isinstance(default, int) else "float"
    if requested not in ("float", "int") or not _is_number(default):
        raise UserError(f"type {requested!r}: float or int, of hyperparameters that are numbers")
    if requested == "int" and not whole:
        raise UserError(f"type int: the ends of the range are no whole numbers, got {values}")
    return requested


def suggest(trial: "optuna.Trial", name: str, spec: dict[str, Any], default: Any) -> Any:
    """Suggest a value, or as many as the default is a list of."""
    if isinstance(default, list):
        return [suggest(trial, f"{name}_{index}", spec, value) for index, value in enumerate(default)]
    kind, values = suggested_type(spec, default), spec["values"]
    more = spec.get("suggest_kwargs") or {}
    if kind == "categorical":
        return trial.suggest_categorical(name, values)
    method = trial.suggest_int if kind == "int" else trial.suggest_float
    try:
        return method(name, min(values), max(values), **more)
    except (TypeError, ValueError) as error:
        raise UserError(f"--params.{name}: {error}") from None
