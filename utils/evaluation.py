"""What an evaluation writes: eval/LANG.json and predictions/LANG.csv."""

import csv
from typing import Any

import numpy as np

from utils.layout import RunLayout, atomic_path, write_json
from utils.metrics import confidence_intervals, confusion_matrix, per_register_metrics, summary_metrics


def write_evaluation(
    layout: RunLayout,
    lang: str,
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    registers: list[str],
    seconds: float,
    seed: int,
    task: str | None,
    data: dict[str, Any],
) -> dict[str, Any]:
    """Write the results on one language; returns the content of eval/LANG.json.

    Args:
        layout: of the model's run.
        lang: language of the texts.
        labels: true labels, shape [n].
        probabilities: of the registers, shape [n, number of registers].
        registers: their names.
        seconds: that the predictions took.
        seed: of the resamples.
        task: of the language database, None for registers.
        data: where the texts are, and their hash.
    """
    predictions = probabilities.argmax(1)
    matrix = confusion_matrix(labels, predictions, len(registers))
    result = {
        "model": layout.model_name,
        "train_langs": layout.train_langs,
        **({"task": task} if task else {}),
        "eval_lang": lang,
        "num_texts": len(labels),
        **{name: float(value) for name, value in summary_metrics(matrix).items()},
        "registers": registers,
        "per_register": per_register_metrics(matrix, registers),
        "confusion_matrix": matrix.tolist(),
        "confidence_intervals": confidence_intervals(matrix, seed),
        "seconds": round(seconds, 3),
        "texts_per_second": len(labels) / seconds,
        "data": data,
    }
    with (
        atomic_path(layout.predictions_csv(lang)) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "true", "predicted", *registers])
        for index, (label, prediction, row) in enumerate(zip(labels, predictions, probabilities, strict=True)):
            shares = [f"{share:.8g}" for share in row]
            writer.writerow([index, registers[label], registers[prediction], *shares])
    write_json(layout.eval_json(lang), result)
    return result
