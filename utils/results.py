"""The saved results of evaluations, as post_eval.py reads them: no model, no corpus, no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import UserError, nearest
from utils.layout import read_json
from utils.metrics import METRICS

REQUIRED = ("model", "train_langs", "eval_lang", "registers", "confusion_matrix", "per_register", *METRICS)


@dataclass
class RunResults:
    """All evaluations of one trained model.

    `evaluations` maps an evaluation language to the content of its eval/LANG.json; `train_registers` and
    `validation_registers` count the texts that the model was trained on, empty where run.json is missing.
    """

    folder: Path
    model: str
    train_langs: str
    evaluations: dict[str, dict[str, Any]]
    train_registers: dict[str, int] = field(default_factory=dict)
    validation_registers: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name, ``model-langs``."""
        return f"{self.model}-{self.train_langs}"


def load_results(base_dir: Path) -> list[RunResults]:
    """Load every evaluated run directly below a folder, sorted by model and training languages.

    Raises:
        UserError: if the folder is missing or holds no results, or a file in it is damaged.
    """
    if not base_dir.is_dir():
        raise UserError(f"the results folder {base_dir} does not exist; give it with --base_dir")
    runs = [run for folder in sorted(base_dir.iterdir()) if (run := _load_run(folder))]
    if not runs:
        raise UserError(
            f"no evaluation results below {base_dir} (expected MODEL-LANGS/eval/LANG.json); run evaluate.py first"
        )
    return sorted(runs, key=lambda run: (run.model, run.train_langs))


def _load_run(folder: Path) -> RunResults | None:
    files = sorted(path for path in (folder / "eval").glob("*.json") if not path.name.startswith("."))
    if not files:
        return None
    evaluations = {}
    for path in files:
        content = read_json(path)
        missing = [key for key in REQUIRED if not isinstance(content, dict) or key not in content]
        if missing:
            raise UserError(f"{path}: no evaluation result ({missing[0]!r} is missing); remove it or evaluate again")
        evaluations[content["eval_lang"]] = content
    first = next(iter(evaluations.values()))
    record = read_json(folder / "run.json") or {}
    return RunResults(
        folder,
        first["model"],
        first["train_langs"],
        evaluations,
        record.get("train_registers", {}),
        record.get("validation_registers", {}),
    )


def choose(known: list[str], wanted: list[str] | None, option: str) -> list[str]:
    """Return the wanted names in the order they were given, or all known ones.

    Raises:
        UserError: for the first name that no result has.
    """
    if wanted is None:
        return known
    for name in wanted:
        if name not in known:
            raise UserError(f"{option}: no results for {name!r}{nearest(name, known)}")
    return list(dict.fromkeys(wanted))


def order_langs(run: RunResults, langs: list[str]) -> list[str]:
    """Put the languages that a model was trained on first."""
    trained = [lang for lang in run.train_langs.split("-") if lang in langs]
    return trained + sorted(lang for lang in langs if lang not in trained)


def tidy_table(runs: list[RunResults]) -> list[dict[str, Any]]:
    """Return one row per run, evaluation language and metric, with its confidence interval."""
    rows = []
    for run in runs:
        for lang in order_langs(run, list(run.evaluations)):
            result = run.evaluations[lang]
            for metric in METRICS:
                low, high = result.get("confidence_intervals", {}).get(metric, (None, None))
                rows.append(
                    {
                        "model": run.model,
                        "train_langs": run.train_langs,
                        "eval_lang": lang,
                        "metric": metric,
                        "value": result[metric],
                        "low": low,
                        "high": high,
                    }
                )
    return rows
