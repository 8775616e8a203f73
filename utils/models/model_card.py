"""Model cards: README.md in the folder of every trained model, as the hub of Hugging Face reads it.

https://huggingface.co/docs/hub/model-cards
"""

import json
import re
import sys
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from utils.errors import UserError
from utils.models.options import LONG_TEXTS, TEMPERATURE, THRESHOLDS
from utils.models.pooling import is_stock
from utils.models.registry import ModelSpec
from utils.runs.files import locked, read_json, write_text
from utils.runs.layout import RunLayout
from utils.runs.shapes import read_evaluation, read_record, read_report

# A card with this line is written anew after every evaluation; without it, it is the user's.
MARK = "<!-- Written by register-finetuning; remove this line to keep your own changes. -->"
POOLED = {"cls": "the first token", "mean": "the mean of all tokens", "last": "the last token"}
# In the examples of its use.
TEXT = "The minister said on Friday that ..."
CARD_METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1"}
CARD_METRICS_OF_LABEL_SETS = {"subset_accuracy": "subset accuracy", "micro_f1": "micro F1", "macro_f1": "macro F1"}


def write_classifier_card(layout: RunLayout, hyperparameters: Collection[str]) -> Path | None:
    """Write the card of a classifier from what its run has recorded; returns its path, None if it was left alone.

    The card lists the evaluations that there are, so it is written after each; any number of processes may do so
    at once. A card that the user has made their own stays as it is.

    Args:
        layout: of the run.
        hyperparameters: names of the options that the card shows, where they were given.
    """
    path = layout.model / "README.md"
    with locked(layout.outputs / ".card.lock"):
        if not is_ours(path):
            return None
        try:
            files = sorted((layout.outputs / "eval").glob("[!.]*.json"))
            evaluations = [result for file in files if (result := read_evaluation(file))]
            record, report = read_record(layout.run_json) or {}, read_report(layout.train_json) or {}
            write_text(path, classifier_card(layout, record, report, evaluations, hyperparameters))
        except UserError as error:
            print(f"no model card: {error}", file=sys.stderr)
            return None
        except (OSError, KeyError) as error:
            # The results are safe; a card is no reason to fail.
            reason = (
                f"cannot write {path} ({error.strerror})"
                if isinstance(error, OSError)
                else f"{error} is not in {layout.run_json}"
            )
            print(f"no model card: {reason}", file=sys.stderr)
            return None
    return path


def is_ours(path: Path) -> bool:
    """Return whether a card may be replaced: there is none, or it has our mark."""
    return not path.is_file() or MARK in path.read_text(encoding="utf-8", errors="replace")


def classifier_card(
    layout: RunLayout,
    record: dict[str, Any],
    report: dict[str, Any],
    evaluations: list[dict[str, Any]],
    hyperparameters: Collection[str],
) -> str:
    """Return the card of a classifier.

    Args:
        layout: of the run.
        record: content of run.json.
        report: content of train.json.
        evaluations: contents of eval/*.json.
        hyperparameters: names of the options that it shows.
    """
    options, data = record["options"], record["data"]
    base, registers = options["checkpoint"], data["registers"]
    langs = layout.train_langs.split("-")
    label = "label" if options.get("task") else "register"
    what = plain(options.get("task") or label)
    adapters = f" with LoRA adapters on {' '.join(options['lora_targets'])}" if options.get("lora_targets") else ""
    if options.get("load_in_4bit"):
        adapters += " beside weights in 4 bits (NF4), with which it was validated and evaluated"
    sections = [
        f"# {layout.name}",
        f"{_name(base)}, fine-tuned{adapters} on {' and '.join(langs)} to classify the {what} "
        f"of texts: {', '.join(map(plain, registers))}." + _several(report, data),
        *_use(layout, options),
        "## Results",
        _results(report, evaluations, langs),
        "## Training data",
        _training_data(record, data, label),
        "## Training",
        _table(["option", "value"], _hyperparameters(record, report, hyperparameters)),
        "## License",
        "That of the pretrained model and of the training texts; the field `license` above says what the model "
        "registry says. Change it if you know better.",
    ]
    metadata = _metadata(layout.name, base, record.get("license"), "text-classification", language=langs)
    if evaluations:
        metadata["model-index"] = [{"name": layout.name, "results": [_index_entry(result) for result in evaluations]}]
    return _card(metadata, sections)


def _several(report: dict[str, Any], data: dict[str, Any]) -> str:
    """Return what to know of labels of which a text may have any number; empty if it has one."""
    if data.get("labels") != "multi":
        return ""
    calibration = report.get("calibration", {})
    values = sorted(set(calibration.get("thresholds", {}).values())) or [0.5]
    shown = f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g} (of each label its own)"
    chosen = ", chosen on validation texts" if "chosen_on" in calibration.get("threshold_source", {}) else ""
    return (
        f"\n\nA text may have any number of them: those whose probability reaches the threshold, {shown} "
        f"(`{THRESHOLDS}` in config.json){chosen}."
    )


def _use(layout: RunLayout, options: dict[str, Any]) -> list[str]:
    """Return how to use a model, and what must be known where transformers alone would load it as another."""
    config = read_json(layout.model / "config.json") or {}
    temperature = config.get(TEMPERATURE) or 1
    pools_otherwise = not is_stock(SimpleNamespace(**config)) if config else False
    own = f"With register-finetuning:\n\n```bash\npython predict.py --model MODEL --text {json.dumps(TEXT)}\n```"
    if pools_otherwise:
        return [
            "## Use",
            own,
            f"Its head reads {POOLED[options['pooling']]} (`classifier_pooling` in config.json). transformers' own "
            "class would give it another, and with it other predictions: load the model with `load_classifier` of "
            "`utils.models.loading`, from register-finetuning.",
        ]
    if options.get("lora_targets") and not options.get("merge_adapter"):
        return ["## Use", own]
    # Of all labels, not of the most probable one alone.
    which = ", top_k=None" if config.get("problem_type") == "multi_label_classification" else ""
    code = f'classify = pipeline("text-classification", "MODEL"{which})\nclassify({json.dumps(TEXT)}, truncation=True)'
    note = (
        f"For calibrated probabilities, logits are divided by {temperature:g}, which suits the validation texts best "
        f"(`{TEMPERATURE}` in config.json); predict.py does so, the pipeline does not."
    )
    pipeline = f"With transformers:\n\n```python\nfrom transformers import pipeline\n\n{code}\n```"
    return ["## Use", pipeline, own, *([note] if temperature != 1 else []), *_reading(config)]


def _reading(config: dict[str, Any]) -> list[str]:
    """Return what to know of long texts of which more than the beginning is read."""
    read = (config.get(LONG_TEXTS) or {}).get("long_texts")
    if read is None:
        return []
    what = "both ends of long texts" if read == "head_tail" else "long texts in windows, whose logits are pooled"
    return [f"It reads {what} (`{LONG_TEXTS}` in config.json); predict.py does so, the pipeline cuts them."]


def language_model_card(
    name: str, spec: ModelSpec, record: dict[str, Any], files: list[dict[str, str]], best: dict[str, Any]
) -> str:
    """Return the card of a language model.

    Args:
        name: of the run.
        spec: the model that it was made from.
        record: content of run.json.
        files: paths and SHA-256 of the texts that it was trained on and validated with.
        best: the best epoch, with its validation loss.
    """
    tags = {"lm": "text-generation", "mlm": "fill-mask", "seq2seq": "text2text-generation"}
    named = [[Path(file["path"]).name, file["sha256"][:12]] for file in files]
    epoch = [["validation loss", f"{best['validation_loss']:.4f}"], ["epoch", str(best["epoch"])]]
    sections = [
        f"# {name}",
        f"{_name(spec.checkpoint)}, fine-tuned as a language model (`{record['task']}`).",
        "## Results",
        _table(["", "best epoch"], epoch),
        "## Training data",
        _table(["file", "SHA-256 begins"], named),
        "## Training",
        _table(["", "value"], [["seed", str(record["seed"])], ["git commit", str(record["git_commit"])]]),
        "## License",
        "That of the pretrained model and of the training texts.",
    ]
    return _card(_metadata(name, spec.checkpoint, spec.license, tags[record["task"]]), sections)


def _card(metadata: dict[str, Any], sections: list[str]) -> str:
    import yaml

    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n{MARK}\n\n" + "\n\n".join(sections) + "\n"


def _metadata(name: str, base: str, license: str | None, tag: str, **more: Any) -> dict[str, Any]:
    metadata = {
        "model_name": name,
        "license": license or "unknown",
        "library_name": "transformers",
        "pipeline_tag": tag,
        "tags": ["register-finetuning"],
        **more,
    }
    # A folder of this machine says nothing to others.
    return metadata if Path(base).is_absolute() else metadata | {"base_model": base}


def _name(base: str) -> str:
    return Path(base).name if Path(base).is_absolute() else f"[{base}](https://huggingface.co/{base})"


def _results(report: dict[str, Any], evaluations: list[dict[str, Any]], langs: list[str]) -> str:
    best = next((epoch for epoch in report.get("epochs", []) if epoch["epoch"] == report.get("best_epoch")), None)
    lines = []
    if best:
        values = best["validation"]
        scores = ", ".join(f"{title} {values[name]:.3f}" for name, title in _card_metrics(values).items())
        lines.append(f"Best epoch {best['epoch']}: validation {scores} (texts kept from the training data).\n")
    if report.get("warning"):
        lines.append(f"**Warning**: {report['warning']}.\n")
    if not evaluations:
        return "\n".join([*lines, "Not evaluated on test texts yet."])
    rows, metrics = [], _card_metrics(evaluations[0])
    for result in evaluations:
        intervals = result.get("confidence_intervals", {})
        shown = [f"{result[metric]:.3f}{_interval(intervals.get(metric))}" for metric in metrics]
        kind = "in-language" if result["eval_lang"] in langs else "zero-shot"
        rows.append([result["eval_lang"], kind, f"{result['num_texts']:,}", *shown])
    table = _table(["evaluated on", "", "texts", *metrics.values()], rows)
    over = "all registers" if "accuracy" not in metrics else "the registers that occur in texts or predictions"
    notes = [f"\n95 % bootstrap intervals; macro F1 is over {over}."]
    rare = [result["eval_lang"] for result in evaluations if result.get("rare_registers")]
    if rare:
        notes.append(f"Too narrow, because some registers have under 10 texts: {', '.join(rare)}.")
    notes += [f"\n**Warning**: {result['warning']}." for result in evaluations if result.get("warning")]
    return "\n".join([*lines, table, *notes])


def _card_metrics(result: dict[str, Any]) -> dict[str, str]:
    """Return the metrics that a card shows, with their names, of texts with one label or with any number."""
    return CARD_METRICS if "accuracy" in result else CARD_METRICS_OF_LABEL_SETS


def _training_data(record: dict[str, Any], data: dict[str, Any], label: str) -> str:
    validation = record.get("validation_registers", {})
    counts = [
        [plain(name), f"{count:,}", f"{validation.get(name, 0):,}"]
        for name, count in record.get("train_registers", {}).items()
    ]
    # Those of a task are datasets: a file, a folder, or an id of the hub.
    files = ", ".join(
        f"{_name_of(file.get('path') or file['dataset'])} ({file['sha256'][:12]})" for file in data["files"]
    )
    left_out = sum(file.get("excluded", 0) for file in data["files"])
    note = f" {left_out:,} rows that the last of them names were left out." if left_out else ""
    return f"{_table([label, 'training texts', 'validation texts'], counts)}\n\nFiles (SHA-256 begins): {files}.{note}"


def _name_of(place: str) -> str:
    """Return what a place of data is called for others: without the folders of this machine."""
    return Path(place).name if place.startswith((".", "/")) or Path(place).exists() else place


def _hyperparameters(record: dict[str, Any], report: dict[str, Any], names: Collection[str]) -> list[list[str]]:
    options = record["options"]
    shown = {name: options[name] for name in names if options.get(name) not in (None, False, {}, [])}
    # As the run has settled them, where the options leave it open.
    settled = ("num_epochs", "max_length", "seed", "precision")
    shown |= {name: record[name] for name in settled if record.get(name) is not None}
    shown |= {"trained parameters": report.get("num_trainable_parameters"), "git commit": record.get("git_commit")}
    shown |= record.get("versions", {})
    return [[name, _words(value)] for name, value in shown.items() if value is not None]


def _words(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:,}" if type(value) is int and value >= 10_000 else str(value)


def _interval(pair: list[float] | None) -> str:
    return f" [{pair[0]:.3f}, {pair[1]:.3f}]" if pair else ""


def plain(name: str) -> str:
    """Return a name that says itself in Markdown, on one line, whatever it holds."""
    return re.sub(r"([\\`*\[\]<>|#&~])", r"\\\1", " ".join(name.split()))


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])


def _index_entry(result: dict[str, Any]) -> dict[str, Any]:
    """Return an evaluation as the hub's model-index has it."""
    lang, what = result["eval_lang"], result.get("task", "register")
    return {
        "task": {"type": "text-classification"},
        "dataset": {"name": f"{what} {lang}", "type": what, "config": lang},
        "metrics": [
            {"type": "f1" if metric.endswith("f1") else "accuracy", "name": name, "value": round(result[metric], 4)}
            for metric, name in _card_metrics(result).items()
        ],
    }
