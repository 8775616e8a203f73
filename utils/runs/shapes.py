"""What the JSON files of a run must look like, so that a damaged one is named instead of failing somewhere later."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.runs.files import read_json

# A shape is a type or several, a list with the shape of its items, a dictionary of the shapes of its keys (of which
# those in `Required` must be there), or a function that says whether a value is right.
Shape = Any
NUMBER = (int, float)
MAYBE_NUMBER = (int, float, type(None))
COUNTS: Shape = {str: int}


class Required(str):
    """A key that must be there."""

    __slots__ = ()


RECORD: Shape = {
    Required("status"): lambda value: value in ("running", "complete", "failed"),
    "options": dict,
    "data": {"files": [{Required("sha256"): str}], "registers": [str]},
    "seed": (int, type(None)),
    "restarts": int,
    "idle_restarts": int,
    "train_registers": COUNTS,
    "validation_registers": COUNTS,
    "epoch": NUMBER,
    "num_epochs": NUMBER,
    "best_macro_f1": MAYBE_NUMBER,
    "best_validation_loss": MAYBE_NUMBER,
    "versions": dict,
    "warnings": [str],
}
REPORT: Shape = {
    Required("epochs"): [
        {
            Required("epoch"): NUMBER,
            Required("loss"): MAYBE_NUMBER,
            "learning_rate": MAYBE_NUMBER,
            Required("seconds"): MAYBE_NUMBER,
            Required("validation"): {Required("macro_f1"): NUMBER, str: MAYBE_NUMBER},
        }
    ],
    Required("best_epoch"): NUMBER,
    "train": {str: NUMBER},
    **dict.fromkeys(("num_train_texts", "num_parameters", "num_trainable_parameters"), int),
    **dict.fromkeys(("seconds", "texts_per_second", "peak_memory_bytes"), MAYBE_NUMBER),
}
PER_REGISTER: Shape = {
    **{Required(name): NUMBER for name in ("precision", "recall", "f1")},
    Required("support"): int,
}
EVALUATION: Shape = {
    **{Required(name): str for name in ("model", "train_langs", "eval_lang")},
    **{Required(name): NUMBER for name in ("precision", "recall", "micro_f1", "macro_f1", "weighted_f1")},
    "accuracy": NUMBER,
    "subset_accuracy": NUMBER,
    "labels": lambda value: value == "multi",
    "hybrids": [
        {
            Required("registers"): [str],
            Required("texts"): int,
            Required("predicted"): [int],
            Required("complete"): int,
        }
    ],
    "subregisters": {str: [str]},
    "thresholds": {str: NUMBER},
    "task": str,
    "num_texts": int,
    Required("registers"): [str],
    Required("per_register"): {str: PER_REGISTER},
    Required("confusion_matrix"): [[lambda value: type(value) is int and value >= 0]],
    "confidence_intervals": {str: lambda value: _is_interval(value)},
    "data": {"sha256": str},
}
# Of a job of grid_search.py or finetuning_generator.py.
# What decides whether explanations are faithful, see `utils.explanation.faithfulness`.
FAITHFULNESS = ("comprehensiveness", "sufficiency", "random_comprehensiveness", "random_sufficiency")
KEYWORD_NUMBERS = ("score", "document_frequency", "num_texts", "stability", "num_runs")
EXPLANATION: Shape = {
    Required("method"): str,
    Required("num_texts"): int,
    Required("faithfulness"): {
        **{Required(name): NUMBER for name in FAITHFULNESS},
        Required("interval"): [NUMBER],
        Required("faithful"): bool,
    },
    Required("keywords"): [
        {
            **{Required(name): str for name in ("register", "word", "example")},
            **{Required(name): NUMBER for name in KEYWORD_NUMBERS},
        }
    ],
    "texts": [dict],
}
PLACE: Shape = {Required("language"): str, Required("split"): str, Required("row"): int}
CORPUS_FINDINGS: Shape = {
    Required("duplicates"): [{Required("a"): PLACE, Required("b"): PLACE}],
    Required("leaking"): {str: {Required("num_test_texts"): int}},
}
RESULT: Shape = {
    Required("config"): dict,
    Required("best_epoch"): NUMBER,
    Required("validation"): {str: MAYBE_NUMBER},
    Required("evaluations"): {str: {str: NUMBER}},
    Required("seconds"): NUMBER,
}


def read_record(path: Path) -> dict[str, Any] | None:
    """Read run.json; None if there is none.

    Raises:
        UserError: if it is damaged, naming the file and the place.
    """
    return read_shaped(path, RECORD, "remove it, and the run begins anew")


def read_report(path: Path) -> dict[str, Any] | None:
    """Read train.json of a classifier; None if there is none.

    Raises:
        UserError: as `read_record`.
    """
    report = read_shaped(path, REPORT, "remove it, or train again with --force")
    if report is not None and report["best_epoch"] not in [epoch["epoch"] for epoch in report["epochs"]]:
        raise UserError(f"{path}: best_epoch {report['best_epoch']} is not among its epochs; train again with --force")
    return report


def read_evaluation(path: Path) -> dict[str, Any] | None:
    """Read eval/LANG.json; None if there is none.

    Raises:
        UserError: as `read_record`.
    """
    advice = "remove it or evaluate again with evaluate.py --force"
    result = read_shaped(path, EVALUATION, advice)
    if result is not None:
        kind = "subset_accuracy" if result.get("labels") == "multi" else "accuracy"
        if kind not in result:
            raise UserError(f"{path}: {kind!r} is missing; {advice}")
        registers, matrix = result["registers"], result["confusion_matrix"]
        if {len(matrix), *map(len, matrix)} != {len(registers)} or not set(registers) <= set(result["per_register"]):
            raise UserError(f"{path}: its matrix and scores are not those of its {len(registers)} registers; {advice}")
    return result


def read_result(path: Path) -> dict[str, Any] | None:
    """Read result.json of a job; None if there is none.

    Raises:
        UserError: as `read_record`.
    """
    return read_shaped(path, RESULT, "remove it, and the job is submitted again")


def read_explanation(path: Path) -> dict[str, Any]:
    """Read explanations/LANG.json.

    Raises:
        UserError: as `read_record`.
    """
    return read_shaped(path, EXPLANATION, "remove it, or run explain.py again")


def read_corpus_findings(path: Path) -> dict[str, Any] | None:
    """Read corpus.json of check_corpus.py; None if there is none.

    Raises:
        UserError: as `read_record`.
    """
    return read_shaped(path, CORPUS_FINDINGS, "run check_corpus.py again")


def read_shaped(path: Path, shape: Shape, advice: str) -> Any:
    """Read a JSON file that must have this shape; None if there is none.

    Raises:
        UserError: if it is damaged, naming the file and the place, with the advice.
    """
    content = read_json(path, advice)
    if content is not None and (problem := find_problem(content, shape)):
        raise UserError(f"{path}: {problem}; {advice}")
    return content


def find_problem(value: Any, shape: Shape, where: str = "") -> str | None:
    """Return what is wrong with a value, and where in it; None if it has the shape."""
    place = f"{where}: " if where else ""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{place}expected an object, got {_shown(value)}"
        missing = next((key for key in shape if isinstance(key, Required) and key not in value), None)
        if missing is not None:
            return f"{place}{missing!r} is missing"
        others = shape.get(str)
        below = [(f"{where}.{key}" if where else key, item, shape.get(key, others)) for key, item in value.items()]
        return next((x for at, item, kind in below if kind is not None and (x := find_problem(item, kind, at))), None)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place}expected a list, got {_shown(value)}"
        found = (find_problem(item, shape[0], f"{where}[{index}]") for index, item in enumerate(value))
        return next((problem for problem in found if problem), None)
    if isinstance(shape, (type, tuple)):
        return None if isinstance(value, shape) else f"{place}unexpected {_shown(value)}"
    check: Callable[[Any], bool] = shape
    return None if check(value) else f"{place}unexpected {_shown(value)}"


def _is_interval(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(isinstance(x, NUMBER) for x in value))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
