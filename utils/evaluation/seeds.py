"""Mean and standard deviation over runs that differ by their seed alone: `post_eval.py --seeds`."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.evaluation.results import RunResults, load_run, metrics_of, order_langs
from utils.runs.shapes import read_record


@dataclass
class SeedGroup:
    """Runs of the same model, options and data, by seed; `variant` tells groups of the same name apart."""

    runs: dict[int, RunResults]
    variant: str = ""

    @property
    def first(self) -> RunResults:
        """One of the runs, for what they have in common."""
        return next(iter(self.runs.values()))

    @property
    def langs(self) -> list[str]:
        """Languages that two or more of the runs were evaluated on."""
        counted = [lang for run in self.runs.values() for lang in run.evaluations]
        return order_langs(self.first, [lang for lang in dict.fromkeys(counted) if counted.count(lang) > 1])


def find_groups(base_dir: Path, free: Collection[str]) -> list[SeedGroup]:
    """Group the runs below a folder, at any depth, by everything but their seed.

    Args:
        base_dir: the folder.
        free: options that may differ, see `utils.runs.record.differences`.

    Raises:
        UserError: if no two runs differ by their seed alone, naming what else differs.
    """
    groups: dict[str, dict[int, RunResults]] = {}
    settings: dict[str, list[dict[str, Any]]] = {}
    for folder in sorted(path.parent for path in base_dir.rglob("eval") if path.is_dir()):
        run, record = load_run(folder), read_record(folder / "run.json") or {}
        if run is None or not {"options", "data", "seed"} <= set(record):
            continue
        options = {name: value for name, value in record["options"].items() if name not in {*free, "seed"}}
        files = [file["sha256"] for file in record["data"].get("files", [])]
        key = json.dumps([run.name, options, files], sort_keys=True)
        groups.setdefault(key, {}).setdefault(record["seed"], run)
        settings.setdefault(run.name, []).append(options | {"the training data": files})
    found = [SeedGroup(dict(sorted(runs.items()))) for _, runs in sorted(groups.items()) if len(runs) > 1]
    if not found:
        raise UserError(f"--seeds: no two runs below {base_dir} differ only by their --seed{_differences(settings)}")
    for group in found:
        same = [other for other in found if other.first.name == group.first.name]
        if len(same) > 1:
            # The folder of the first seed, which the user has named.
            group.variant = group.first.folder.parent.relative_to(base_dir).as_posix()
    return [group for group in found if group.langs]


def _differences(settings: dict[str, list[dict[str, Any]]]) -> str:
    for name, (first, *others) in settings.items():
        for other in others:
            different = sorted(key for key in {*first, *other} if first.get(key) != other.get(key))
            if different:
                return f"; those of {name} differ in {', '.join(different)}"
    return "; train with --seed 1 --subfolder seed1, --seed 2 --subfolder seed2 ..."


def seeds_table(groups: list[SeedGroup]) -> list[dict[str, Any]]:
    """Return a row per group, evaluation language and metric: mean and sample standard deviation over the seeds."""
    rows = []
    for group in groups:
        for lang in group.langs:
            runs = {seed: run for seed, run in group.runs.items() if lang in run.evaluations}
            for metric in metrics_of(run.evaluations[lang] for run in runs.values()):
                values = [run.evaluations[lang][metric] for run in runs.values()]
                rows.append(
                    {
                        "model": group.first.model,
                        "train_langs": group.first.train_langs,
                        "variant": group.variant,
                        "eval_lang": lang,
                        "metric": metric,
                        "num_seeds": len(values),
                        "mean": float(np.mean(values)),
                        "std": float(np.std(values, ddof=1)),
                        "min": min(values),
                        "max": max(values),
                        "seeds": " ".join(map(str, runs)),
                    }
                )
    return rows


def mean_runs(groups: list[SeedGroup]) -> list[RunResults]:
    """Return the groups as runs whose metrics are means, with standard deviations (``macro_f1_std``), for figures."""
    by_place: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in seeds_table(groups):
        place = (row["model"], row["train_langs"], row["variant"])
        result = by_place.setdefault(place, {}).setdefault(row["eval_lang"], {})
        result |= {row["metric"]: row["mean"], f"{row['metric']}_std": row["std"], "num_seeds": row["num_seeds"]}
    return [
        RunResults(Path(), f"{model} ({variant})" if variant else model, train_langs, evaluations)
        for (model, train_langs, variant), evaluations in by_place.items()
    ]


def describe_seeds(rows: list[dict[str, Any]], metric: str = "macro_f1") -> str:
    """Return means and deviations for people to read, of one metric; empty without rows."""
    lines = [f"{metric} over seeds: mean and sample standard deviation"] if rows else []
    for row in rows:
        if row["metric"] == metric:
            name = f"{row['model']}-{row['train_langs']}{' ' + row['variant'] if row['variant'] else ''}"
            lines.append(
                f"  {name:28} {row['eval_lang']:8} {row['mean']:.3f} +- {row['std']:.3f}  "
                f"[{row['min']:.3f}, {row['max']:.3f}]  seeds {row['seeds']}"
            )
    return "\n".join(lines)
