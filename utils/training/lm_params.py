"""What a study can search of a language model's training, under which names, and what a trial makes of it."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

from utils.cli.options import (
    ADAPTERS,
    HYPERPARAMETER,
    IDENTITY,
    MODEL,
    OPTUNA,
    OTHER,
    PLACES,
    SEARCHING,
    options_by_role,
)
from utils.cli.values import resolve_objects
from utils.errors import UserError
from utils.evaluation.surprisal_options import SURPRISALS
from utils.models.loading import MAX_LENGTH
from utils.training.lm_options import FinetuneLmOptions, loss_list

# All trials share the model with its adapters, and nothing is tested in them.
SEARCHABLE = options_by_role(
    FinetuneLmOptions,
    IDENTITY,
    HYPERPARAMETER,
    without_groups=(MODEL, ADAPTERS, SURPRISALS, SEARCHING, OPTUNA, PLACES, OTHER),
)
SPLITS = ("train", "validation")


def hyperparameters(options: FinetuneLmOptions) -> dict[str, Any]:
    """Return what a study can search, with its values: options, and keys of dictionaries among them.

    Options of the optimizer have their own names (lr); those of losses are called SPLIT_CLASS_KEY
    (train_KLBaselineLoss_scaleby), those of preprocessing functions SPLIT_FUNCTION_KEY
    (train_mask_random_tokens_mask_prop).
    """
    # Without options, functions and losses get empty ones.
    options = copy.deepcopy(options)
    values = {name: getattr(options, name) for name in SEARCHABLE}
    found = {name: value for name, value in values.items() if not isinstance(value, dict)}
    # Where none is given, it is a number all the same.
    found["max_length"] = options.max_length or MAX_LENGTH
    for name, function, kwargs in _named(options):
        found |= {f"{name}_{key}": value for key, value in {**_default_kwargs(function), **kwargs}.items()}
    return found | _default_kwargs(cast(Any, options.train_optimizer)) | options.train_optimizer_kwargs


def _named(options: FinetuneLmOptions) -> Iterator[tuple[str, Callable, dict[str, Any]]]:
    """Yield what the names of losses and preprocessing functions begin with, these, and their options in `options`."""
    for split in SPLITS:
        functions = [(loss, options.loss_classes_kwargs.setdefault(split, {})) for loss in loss_list(options, split)]
        function = options.data_preprocessing_fn.get(split)
        for item, given in functions:
            yield f"{split}_{item.__name__}", item, given.setdefault(item.__name__, {})
        if function is not None:
            yield f"{split}_{function.__name__}", function, options.data_preprocessing_fn_kwargs.setdefault(split, {})


def _default_kwargs(function: Callable) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def full_names(params: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Return what to search by the names of `hyperparameters`, where shorter ones are given.

    KLBaselineLoss.scaleby is train_KLBaselineLoss_scaleby, mask_prop is train_mask_random_tokens_mask_prop; what does
    not occur in training is that of validation.

    Args:
        params: by the user's names; those with dots are dictionaries in dictionaries.
        known: as `hyperparameters` returns them.

    Raises:
        UserError: if a name may be several hyperparameters.
    """
    found = {}
    for given, spec in _leaves(params):
        name = given.replace(".", "_")
        if name not in known:
            for split in SPLITS:
                meant = [full for full in known if full.startswith(f"{split}_") and full.endswith(f"_{name}")]
                if len(meant) > 1:
                    raise UserError(f"--params.{given} may be {' or '.join(meant)}: give one of these names")
                if meant:
                    name = meant[0]
                    break
            else:
                # As the user wrote it, for the message.
                name = given
        found[name] = spec
    return found


def _leaves(params: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, spec in params.items():
        if isinstance(spec, dict) and spec and "values" not in spec and all(isinstance(v, dict) for v in spec.values()):
            yield from _leaves(spec, f"{before}{name}.")
        else:
            yield f"{before}{name}", spec


def with_values(options: FinetuneLmOptions, values: dict[str, Any]) -> FinetuneLmOptions:
    """Return the options of a trial, with suggested values by the names of `hyperparameters`."""
    changed = copy.deepcopy(options)
    imports = {field.name: field.metadata.get("imports") for field in dataclasses.fields(options)}
    named = {name: kwargs for name, _, kwargs in _named(changed)}
    for name, value in values.items():
        # One name may begin another.
        prefix = max((prefix for prefix in named if name.startswith(f"{prefix}_")), key=len, default=None)
        if name in SEARCHABLE:
            setattr(changed, name, resolve_objects(value, imports[name], f"--params.{name}.values"))
        elif prefix:
            named[prefix][name.removeprefix(f"{prefix}_")] = value
        else:
            changed.train_optimizer_kwargs[name] = value
    return changed
