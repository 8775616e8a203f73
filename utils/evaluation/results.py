"""What an evaluation writes: eval/LANG.json and predictions/LANG.csv."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.data.delimited import as_given, inert, write_rows
from utils.errors import UserError
from utils.evaluation.clusters import clustered_intervals, describe_clusters, write_clusters
from utils.evaluation.labelling import Labelling, LabelSets
from utils.evaluation.metrics import METRICS, MULTILABEL_METRICS, chance_warning, rare_registers, summary_metrics
from utils.runs.files import atomic_path, write_json
from utils.runs.layout import RunLayout
from utils.runs.shapes import read_evaluation, read_record

if TYPE_CHECKING:
    import pandas as pd


def write_evaluation(
    layout: RunLayout,
    lang: str,
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    labelling: Labelling,
    seconds: float,
    seed: int,
    task: str | None,
    data: dict[str, Any],
    computed: dict[str, Any],
    with_oracle: bool = False,
    clusters: np.ndarray | None = None,
) -> dict[str, Any]:
    """Write the results on one language; returns the content of eval/LANG.json.

    Args:
        layout: of the model's run.
        lang: language of the texts.
        labels: true labels, shape [n]; or 0 and 1, shape [n, number of registers].
        probabilities: of the registers, shape [n, number of registers].
        labelling: how these become labels.
        seconds: that the predictions took.
        seed: of the resamples.
        task: of the language database, None for registers.
        data: where the texts are, and their hash.
        computed: how: `number_format` (fp32, bf16, fp16 or int8), `device` and `temperature`.
        clusters: of the texts, shape [n]; intervals then draw whole ones.
        with_oracle: of texts with any number of labels, also note the scores at the threshold that suits them best.
    """
    oracle = {}
    if with_oracle and isinstance(labelling, LabelSets):
        oracle["oracle"] = labelling.oracle(labels, probabilities)
    grouped = {}
    if clusters is not None:
        decided = labelling.decide(probabilities)
        found = clustered_intervals(labels, decided, len(labelling.names), clusters, seed)
        grouped = {"confidence_intervals": found, "intervals": describe_clusters(clusters)}
        write_clusters(layout.clusters_csv(lang), clusters)
    else:
        layout.clusters_csv(lang).unlink(missing_ok=True)
    result = {
        "model": layout.model_name,
        "train_langs": layout.train_langs,
        **({"task": task} if task else {}),
        "eval_lang": lang,
        "num_texts": len(labels),
        **labelling.describe(labels, probabilities, lang, seed),
        **oracle,
        **grouped,
        **computed,
        "seconds": round(seconds, 3),
        "texts_per_second": len(labels) / seconds,
        "data": data,
    }
    _write_predictions(layout.predictions_csv(lang), labels, probabilities, labelling)
    write_json(layout.eval_json(lang), result)
    return result


def _write_predictions(path: Path, labels: np.ndarray, probabilities: np.ndarray, labelling: Labelling) -> None:
    def rows() -> Iterator[list[Any]]:
        yield ["index", "true", "predicted", *map(inert, labelling.names)]
        true, predicted = labelling.shown(labels), labelling.shown(labelling.decide(probabilities))
        for index, (own, found, shares) in enumerate(zip(true, predicted, probabilities, strict=True)):
            yield [index, inert(own), inert(found), *(f"{share:.8g}" for share in shares)]

    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, rows())


def metrics_of(evaluations: Iterable[dict[str, Any]]) -> list[str]:
    """Return the metrics that all of these evaluations have: of texts with one label, with several, or with either."""
    evaluations, known = list(evaluations), dict.fromkeys([*MULTILABEL_METRICS, *METRICS])
    if all("accuracy" in result for result in evaluations):
        known = dict.fromkeys(METRICS)
    return [name for name in known if all(name in result for result in evaluations)]


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


def load_results(base_dir: Path, required: bool = True) -> list[RunResults]:
    """Load every evaluated run directly below a folder, sorted by model and training languages.

    Args:
        base_dir: the folder.
        required: there must be one.

    Raises:
        UserError: if the folder is missing or holds no results though it must, or a file in it is damaged.
    """
    if not base_dir.is_dir():
        raise UserError(f"the results folder {base_dir} does not exist; give it with --base_dir")
    runs = [run for folder in sorted(base_dir.iterdir()) if (run := load_run(folder))]
    if not runs and required:
        raise UserError(
            f"no evaluation results below {base_dir} (expected MODEL-LANGS/eval/LANG.json); run evaluate.py first"
        )
    return sorted(runs, key=lambda run: (run.model, run.train_langs))


def load_run(folder: Path) -> RunResults | None:
    """Load a run from its folder of results; None if it has not been evaluated.

    Raises:
        UserError: if a file is damaged.
    """
    files = sorted(path for path in (folder / "eval").glob("*.json") if not path.name.startswith("."))
    if not files:
        return None
    evaluations = {}
    for path in files:
        content = read_evaluation(path)
        if content is None:
            continue
        content = complete_evaluation(content)
        evaluations[content["eval_lang"]] = content
    first = next(iter(evaluations.values()))
    record = read_record(folder / "run.json") or {}
    return RunResults(
        folder,
        first["model"],
        first["train_langs"],
        evaluations,
        record.get("train_registers", {}),
        record.get("validation_registers", {}),
    )


def complete_evaluation(content: dict[str, Any]) -> dict[str, Any]:
    """Add to an evaluation of an earlier version what its confusion matrix tells."""
    if content.get("labels") == "multi":
        return content
    matrix = np.array(content["confusion_matrix"])
    values: dict[str, Any] = {name: float(value) for name, value in summary_metrics(matrix).items()}
    values["rare_registers"] = rare_registers(matrix.sum(1), content["registers"])
    if warning := chance_warning(matrix.sum(1), values["macro_f1_present"], content["eval_lang"]):
        values["warning"] = warning
    return values | content


def load_predictions(folder: Path, lang: str) -> "pd.DataFrame":
    """Load predictions/LANG.csv of a run: index, true, predicted, and the probability of every register.

    Raises:
        UserError: if the file is missing or damaged.
    """
    import pandas as pd

    path = folder / "predictions" / f"{lang}.csv"
    names = {"true": str, "predicted": str}
    try:
        # NA is the name of a register, not a missing value.
        table = pd.read_csv(path, dtype=names, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; evaluate again with evaluate.py --force") from None
    except ValueError as error:
        raise UserError(f"{path}: no predictions ({error}); evaluate again with evaluate.py --force") from None
    table = table.rename(columns=as_given)
    missing = [name for name in ("index", "true", "predicted") if name not in table]
    if missing or not len(table):
        what = f"the column {missing[0]!r} is missing" if missing else "no rows"
        raise UserError(f"{path}: no predictions ({what}); evaluate again with evaluate.py --force")
    return table.assign(**{name: table[name].map(as_given) for name in ("true", "predicted")})


def order_langs(run: RunResults, langs: list[str]) -> list[str]:
    """Put the languages that a model was trained on first."""
    trained = [lang for lang in run.train_langs.split("-") if lang in langs]
    return trained + sorted(lang for lang in langs if lang not in trained)


def tidy_table(runs: list[RunResults]) -> list[dict[str, Any]]:
    """Return one row per run, evaluation language and metric, with its confidence interval.

    `rare_registers` counts the registers with under 10 texts: where it is not 0, intervals of averages over
    registers are too narrow.
    """
    rows = []
    for run in runs:
        for lang in order_langs(run, list(run.evaluations)):
            result = run.evaluations[lang]
            for metric in metrics_of([result]):
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
                        "rare_registers": len(result["rare_registers"]),
                    }
                )
    return rows
