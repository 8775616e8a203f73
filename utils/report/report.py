"""The HTML report: all results of a folder in one file that needs no network."""

import json
from pathlib import Path
from typing import Any

from utils.evaluation.results import RunResults, metrics_of, order_langs
from utils.figures.names import Names
from utils.report.render import render
from utils.runs.files import write_text
from utils.runs.shapes import read_record, read_report

# What a run's page says of it, from run.json and train.json; the rest is in the files themselves.
DETAILS = {
    "checkpoint": "options.checkpoint",
    "revision": "options.revision",
    "LoRA targets": "options.lora_targets",
    "status": "status",
    "started": "started",
    "ended": "ended",
    "Slurm job": "slurm_job_id",
    "device": "device",
    "processes": "num_processes",
    "number format": "precision",
    "seed": "seed",
    "epochs": "num_epochs",
    "longest text, tokens": "max_length",
    "batch size": "options.batch_size",
    "learning rate": "options.learning_rate",
    "validation size": "options.validation_size",
    "corpus": "data.corpus",
    "git commit": "git_commit",
    "Python": "versions.python",
    "torch": "versions.torch",
    "transformers": "versions.transformers",
}
TRAINING = {
    "training texts": "num_train_texts",
    "parameters": "num_parameters",
    "trained parameters": "num_trainable_parameters",
    "seconds": "seconds",
    "texts per second": "texts_per_second",
    "texts cut at the longest": "num_texts_cut",
    "padding, share of tokens": "padding_fraction",
    "peak memory, bytes": "peak_memory_bytes",
    "best epoch": "best_epoch",
}


def report_data(
    runs: list[RunResults],
    names: Names,
    *,
    reliabilities: dict[str, dict[str, Any]] | None = None,
    examples: dict[str, dict[str, Any]] | None = None,
    comparisons: list[dict[str, Any]] | None = None,
    seeds: list[dict[str, Any]] | None = None,
    explanations: dict[str, dict[str, Any]] | None = None,
    show_texts: bool = False,
) -> dict[str, Any]:
    """Return what the report shows, as the script in it reads it.

    Args:
        runs: the results.
        names: what languages and registers are called.
        reliabilities: per run and language, see `calibration.run_reliability`.
        examples: misclassified texts per run and language, see `examples.misclassified`.
        comparisons: rows of `comparison.compare`.
        seeds: rows of `seeds.seeds_table`.
        explanations: per run and language, see `utils.explanation.files.read_explanations`.
        show_texts: with the texts that explain.py has kept.
    """
    langs = {lang for run in runs for lang in (*run.evaluations, *run.train_langs.split("-"))}
    langs |= {lang for own in (explanations or {}).values() for lang in own}
    registers = {name for run in runs for result in run.evaluations.values() for name in result["registers"]}
    metrics = metrics_of(result for run in runs for result in run.evaluations.values())
    return {
        "metrics": metrics,
        "langs": {lang: names.lang(lang) for lang in sorted(langs)},
        "registers": {name: names.registers.get(name, name) for name in sorted(registers)},
        "runs": [
            _run_data(run, metrics, (reliabilities or {}).get(run.name, {}), (examples or {}).get(run.name, {}))
            for run in runs
        ],
        "comparisons": comparisons or [],
        "seeds": seeds or [],
        "explanations": {
            run: {lang: _explanation(content, show_texts) for lang, content in own.items()}
            for run, own in (explanations or {}).items()
        },
    }


def _explanation(content: dict[str, Any], show_texts: bool) -> dict[str, Any]:
    shown = ("method", "num_texts", "faithfulness", "keywords", *(("texts",) if show_texts else ()))
    return {name: content[name] for name in shown if name in content}


def _run_data(
    run: RunResults, metrics: list[str], reliabilities: dict[str, Any], examples: dict[str, Any]
) -> dict[str, Any]:
    record, report = read_record(run.folder / "run.json") or {}, read_report(run.folder / "train.json") or {}
    return {
        "name": run.name,
        "model": run.model,
        "train": run.train_langs,
        "counts": {
            name: [run.train_registers[name], run.validation_registers.get(name, 0)] for name in run.train_registers
        },
        "details": _entries(record, DETAILS) + _entries(report, TRAINING),
        "warning": report.get("warning"),
        "epochs": [_epoch(epoch) for epoch in report.get("epochs", [])],
        "evals": {
            lang: _evaluation(run.evaluations[lang], metrics)
            | ({"reliability": reliabilities[lang]} if lang in reliabilities else {})
            | ({"examples": examples[lang]} if lang in examples else {})
            for lang in order_langs(run, list(run.evaluations))
        },
    }


def _evaluation(result: dict[str, Any], metrics: list[str]) -> dict[str, Any]:
    scores = [[result["per_register"][name][key] for key in ("precision", "recall", "f1", "support")]
              for name in result["registers"]]  # fmt: skip
    intervals = result.get("confidence_intervals", {})
    several = result.get("labels") == "multi"
    own = {"hybrids": result["hybrids"], "subregisters": result["subregisters"]} if several else {}
    return own | {
        "texts": result["num_texts"] if several else sum(map(sum, result["confusion_matrix"])),
        "values": [result[metric] for metric in metrics],
        "intervals": [intervals.get(metric) for metric in metrics],
        "registers": result["registers"],
        "matrix": result["confusion_matrix"],
        "scores": [[round(value, 4) for value in row] for row in scores],
        "rare": result["rare_registers"],
        "warning": result.get("warning"),
    }


def _epoch(epoch: dict[str, Any]) -> dict[str, Any]:
    validation = epoch.get("validation", {})
    values = {"epoch": epoch["epoch"], "loss": epoch.get("loss"), "seconds": epoch.get("seconds")}
    names = ("loss", "accuracy" if "accuracy" in validation else "micro_f1", "macro_f1")
    return values | {f"validation_{name}": validation.get(name) for name in names}


def _entries(content: dict[str, Any], wanted: dict[str, str]) -> list[list[Any]]:
    """Return name and value of what is there; lists become words."""
    found = []
    for label, path in wanted.items():
        value: Any = content
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found.append([label, " ".join(map(str, value)) if isinstance(value, list) else value])
    return found


def write_report(path: Path, data: dict[str, Any]) -> Path:
    """Write the report, whose script and style are in it; returns its path.

    Args:
        path: of the HTML file.
        data: see `report_data`.
    """
    from markupsafe import Markup

    # A "<" of the data would end the script element that holds it.
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    pages = ("pages.js", *(("explanations.js",) if data["explanations"] else ()), "start.js")
    # Whatever the names and texts in it hold, this is JSON without "<".
    shown = {"data": Markup(content), "summary": data}  # noqa: S704
    write_text(path, render("report.html.j2", ("report.css",), ("report.js", *pages), **shown))
    return path
