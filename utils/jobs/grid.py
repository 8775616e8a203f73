"""Grids of hyperparameters: what a file of them says, their permutations, and the table of what came out.

{"parameters": {"learning_rate": [1e-3, 1e-4], "batch_size": [16, 32], "epochs": 3},   // options of finetune.py
 "languages": {"train": "all", "eval": "all"}}                                        // or names of languages
"""

import hashlib
import itertools
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from utils.cli.config_files import read_config
from utils.cli.options import HYPERPARAMETER, aliases, options_by_role
from utils.cli.values import merge, nested
from utils.errors import UserError, nearest
from utils.evaluation.metrics import METRICS, MULTILABEL_METRICS
from utils.evaluation.results import metrics_of
from utils.jobs.experiments import Experiment, check_config
from utils.runs.layout import check_lang, split_langs
from utils.runs.shapes import read_result
from utils.training.classifier_options import FinetuneOptions

# Longer names of permutations are cut, and told apart by a hash.
LONGEST_NAME = 100
HASH_DIGITS = 8
# What can be varied; the rest of finetune.py's options say what a run is and how it is run.
PARAMETERS = options_by_role(FinetuneOptions, HYPERPARAMETER)
ALIASES = aliases(FinetuneOptions)


@dataclass(frozen=True)
class Grid:
    """What a grid file says: values by parameter (dotted names reach into options with keys), and languages."""

    parameters: dict[str, list[Any]]
    train: str | list[str]
    eval: str | list[str]

    @property
    def varying(self) -> list[str]:
        """The parameters with more than one value."""
        return [name for name, values in self.parameters.items() if len(values) > 1]

    def permutations(self) -> list[dict[str, Any]]:
        """Return every combination of values, by parameter; the last parameter varies fastest."""
        return [
            dict(zip(self.parameters, values, strict=True)) for values in itertools.product(*self.parameters.values())
        ]


def read_grid(path: Path, base: dict[str, Any]) -> Grid:
    """Read a grid and check every value of it.

    Args:
        path: of the file, JSON (with // comments if need be) or YAML.
        base: options of finetune.py that are the same for all permutations.

    Raises:
        UserError: with file and key, for a malformed file, an unknown parameter, or what finetune.py would refuse.
    """
    content = read_config(path)
    for key in content:
        if key not in ("parameters", "languages"):
            raise UserError(f"{path}: unknown key {key!r}{nearest(key, ('parameters', 'languages'))}")
    given, languages = content.get("parameters"), content.get("languages", {})
    if not isinstance(given, dict) or not given:
        raise UserError(f'{path}: parameters: expected an object, {{"learning_rate": [1e-3, 1e-4], ...}}')
    others = {field.name for field in fields(FinetuneOptions)} - set(PARAMETERS)
    parameters: dict[str, list[Any]] = {}
    for key, values in given.items():
        head, *rest = key.split(".")
        name = ".".join([ALIASES.get(head, head), *rest])
        if name.partition(".")[0] not in PARAMETERS:
            reason = "is for the config" if head in others else "is no hyperparameter"
            raise UserError(f"{path}: parameters.{key} {reason}{'' if head in others else nearest(head, PARAMETERS)}")
        if name in parameters:
            raise UserError(f"{path}: parameters.{key}: {name} is given twice")
        parameters[name] = values if isinstance(values, list) else [values]
        if not parameters[name] or len({json.dumps(value) for value in parameters[name]}) < len(parameters[name]):
            raise UserError(f"{path}: parameters.{key}: expected one or more different values, got {values}")
    # Together with the others, some of which may be needed for others to have an effect.
    first = base
    for name, values in parameters.items():
        first = merge(first, nested(name.split("."), values[0]))
    for name, values in parameters.items():
        for value in values:
            check_config(merge(first, nested(name.split("."), value)), f"{path}: parameters.{name}")
    if not isinstance(languages, dict) or not set(languages) <= {"train", "eval"}:
        raise UserError(f'{path}: languages: expected {{"train": ..., "eval": ...}}, got {languages}')
    return Grid(parameters, languages.get("train", "all"), languages.get("eval", "all"))


def choose_languages(path: Path, which: str, wanted: Any, known: list[str]) -> list[str]:
    """Return the languages that a grid names.

    Args:
        path: of the grid.
        which: "train" or "eval".
        wanted: "all" (each by itself), a name or a list of names; several joined by ``-`` are trained on together.
        known: single languages there are.

    Raises:
        UserError: for a language that is not known.
    """
    names = known if wanted == "all" else [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: languages.{which}: expected all, a language or a list of them, got {wanted!r}")
    for name in names:
        try:
            parts = split_langs(name) if which == "train" else [check_lang(name)]
        except UserError as error:
            raise UserError(f"{path}: languages.{which}: {error}") from None
        for part in parts:
            if part not in known:
                raise UserError(f"{path}: languages.{which}: no texts in {part!r}{nearest(part, known)}")
    return list(dict.fromkeys(names))


def permutation_name(values: dict[str, Any]) -> str:
    """Return a name for a folder that tells a permutation from all others: ``learning_rate-0.001_batch_size-16``."""
    full = "_".join(
        f"{name}-{value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()
    )
    name = re.sub(r"[^\w.+-]+", "_", full)
    if name == full and len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - HASH_DIGITS - 1]}-{hashlib.sha256(full.encode()).hexdigest()[:HASH_DIGITS]}"


def configure(base: dict[str, Any], values: dict[str, Any], search: str) -> dict[str, Any]:
    """Return the options of one permutation: its values, and a subfolder of its own."""
    config = dict(base)
    for name, value in values.items():
        config = merge(config, nested(name.split("."), value))
    folders = (base.get("subfolder"), search, permutation_name(values))
    return config | {"subfolder": "/".join(filter(None, folders))}


def results_table(jobs: list[Experiment], grid: Grid) -> list[dict[str, Any]]:
    """Return a row per complete job: what it is, its parameters, its validation metrics, those of every language."""
    rows = []
    for job in jobs:
        result = read_result(job.result_json)
        if result is None:
            continue
        row: dict[str, Any] = {"model": job.config["model_name"], "train_langs": job.config["train_langs"]}
        for name in grid.parameters:
            value: Any = job.config
            for key in name.split("."):
                value = value[key]
            row[name] = value
        row |= {f"validation_{name}": value for name, value in result["validation"].items()}
        row |= {"best_epoch": result["best_epoch"], "seconds": result["seconds"]}
        for lang, metrics in result["evaluations"].items():
            row |= {f"{lang}_{metric}": metrics[metric] for metric in metrics_of([metrics])}
        rows.append(row | {"name": job.name, "outputs": str(job.layout.outputs)})
    return rows


def sort_table(rows: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Return the rows with the best first: the lowest loss, the highest of any other metric.

    Raises:
        UserError: if the rows have no such metric.
    """
    known = [name for name, value in rows[0].items() if name.rpartition("_")[2] == "loss" or is_metric(name)]
    if metric not in known:
        raise UserError(f"--metric: the results have no {metric!r}{nearest(metric, known)}")
    # A run that has not been evaluated on a language of the others is last.
    worst = float("inf")
    sign = 1 if metric.endswith("loss") else -1
    return sorted(rows, key=lambda row: (sign * row[metric] if metric in row else worst, row["name"]))


def is_metric(name: str) -> bool:
    """Return whether a column of the table holds a metric."""
    return any(name.endswith(f"_{metric}") for metric in (*METRICS, *MULTILABEL_METRICS))
