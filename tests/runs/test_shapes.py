"""Damaged records of runs are named, with the place in them and what to do, and never end in an error of Python's."""

import copy
import json

import pytest

import evaluate
import finetune
import post_eval
from tests.factories import FAST
from utils.errors import UserError
from utils.runs.files import read_json, write_json
from utils.runs.shapes import read_evaluation, read_record, read_report, read_result

RECORD = {
    "status": "complete", "options": {"model_name": "m"}, "data": {"files": [{"sha256": "0"}], "registers": ["IN"]},
    "seed": 1, "restarts": 0, "train_registers": {"IN": 3}, "validation_registers": {"IN": 1}, "versions": {},
}  # fmt: skip
SCORES = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
METRICS = dict.fromkeys(("accuracy", "precision", "recall", "micro_f1", "macro_f1", "weighted_f1"), 0.5)
EVALUATION = {
    "model": "m", "train_langs": "en", "eval_lang": "fr", "num_texts": 4, **METRICS, "registers": ["IN", "OP"],
    "per_register": {"IN": SCORES, "OP": SCORES}, "confusion_matrix": [[1, 1], [1, 1]],
    "confidence_intervals": {"macro_f1": [0.1, 0.9]}, "data": {"sha256": "0"},
}  # fmt: skip
EPOCH = {
    "epoch": 1,
    "loss": 0.5,
    "learning_rate": 1e-3,
    "seconds": 1.0,
    "validation": {"accuracy": 0.5, "macro_f1": 0.5},
}
REPORT = {"epochs": [EPOCH], "best_epoch": 1, "num_train_texts": 3, "seconds": 1.0}
RESULT = {
    "config": {},
    "best_epoch": 1,
    "validation": {"loss": 1.0},
    "evaluations": {"fr": {"accuracy": 1}},
    "seconds": 1,
}
READERS = {
    "record": (read_record, RECORD),
    "evaluation": (read_evaluation, EVALUATION),
    "report": (read_report, REPORT),
    "result": (read_result, RESULT),
}


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in below:
        yield from places(item, (*path, key))


def damaged(content):
    """Replace what is at each place by other things, and leave out each key."""
    for path in places(content):
        for other in (None, "x", -1.5, [], {}, [[]], True):
            changed = copy.deepcopy({"": content})
            at = changed
            for key in ("", *path)[:-1]:
                at = at[key]
            at[("", *path)[-1]] = other
            yield changed[""]
            if path and isinstance(path[-1], str):
                del at[path[-1]]
                yield changed[""]


@pytest.mark.parametrize("kind", READERS)
def test_any_damage_is_an_error_that_names_the_file_or_none_at_all(tmp_path, kind):
    read, content = READERS[kind]
    path = tmp_path / f"{kind}.json"
    write_json(path, content)
    assert read(path) == content
    assert read(tmp_path / "absent.json") is None
    refused = 0
    for changed in damaged(content):
        write_json(path, changed)
        try:
            read(path)
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and ("remove it" in str(error) or "again" in str(error))
    assert refused > 50
    for text in ("", "{", "[" * 20_000, "\x00", '{"a": 1}', "3", "null, 4"):
        path.write_text(text)
        with pytest.raises(UserError, match=str(path)):
            read(path)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match=str(path)):
        read(path)


@pytest.mark.slow
def test_scripts_name_the_damaged_file(inputs, invoke):
    """TypeError, KeyError, IndexError ... and no file."""
    command = ["--model_name", "tiny", "--train_langs", "en"]
    assert invoke(finetune, *command, *FAST, "--num_epochs", "1")[0] == 0
    assert invoke(evaluate, *command, "--eval_langs", "fr")[0] == 0
    outputs = inputs.folder / "outputs/tiny-en"
    count = 0
    for name, scripts in (
        ("run.json", [(finetune, command), (evaluate, [*command, "--eval_langs", "es"]), (post_eval, [])]),
        ("train.json", [(post_eval, ["--ignore_cfm", "--ignore_tve"])]),
        ("eval/fr.json", [(post_eval, [])]),
    ):
        content = read_json(outputs / name)
        for place, other in (
            (("status",), 3), (("data",), []), (("data", "files"), {"a": 1}), (("options",), "x"),
            (("train_registers",), 4),
            (("epochs",), {}), (("best_epoch",), 77), (("epochs", 0), []), (("confusion_matrix",), [[1, "2"]]),
            (("registers",), ["IN"]), (("per_register", "IN"), 3), (("macro_f1",), "high"), (("eval_lang",), None),
        ):  # fmt: skip
            changed = copy.deepcopy(content)
            at = changed
            for key in place[:-1]:
                at = at[key] if isinstance(at, dict) and key in at else {}
            if not isinstance(at, (dict, list)) or (isinstance(at, dict) and place[-1] not in at):
                continue
            at[place[-1]] = other
            (outputs / name).write_text(json.dumps(changed))
            for script, arguments in scripts:
                status, _, errors = invoke(script, *arguments)
                count += 1
                assert status == 2 and f"outputs/tiny-en/{name}: " in errors, (name, place, script.__name__, errors)
        (outputs / name).write_text(json.dumps(content))
    assert count > 15
