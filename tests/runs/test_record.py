"""run.json, and what makes a run another run."""

import pytest

from utils.runs import record as record_module
from utils.runs.files import read_json
from utils.runs.record import RunRecord, differences


def test_a_record_that_a_signals_handler_writes_meanwhile_stays(tmp_path, monkeypatch):
    """The handler comes between the choice of the text and the rename that would bring back what was true before."""
    path = tmp_path / "run.json"
    record = RunRecord(path, {"seed": 1}, {"files": []})
    record.write("running")
    stock, interruptions = record_module.write_json, [1]

    def interrupted(target, content):
        if interruptions:
            interruptions.pop()
            record.write("failed", error="the job was cancelled")
        stock(target, content)

    monkeypatch.setattr(record_module, "write_json", interrupted)
    record.progress(1.5, best_macro_f1=0.5)
    content = read_json(path)
    assert (content["status"], content["error"], content["epoch"]) == ("failed", "the job was cancelled", 1.5)


@pytest.mark.parametrize(
    ("settings", "files", "found"),
    [
        ({"a": 1, "place": "x", "seed": 3}, ["0"], []),
        ({"a": 1, "place": "elsewhere", "seed": 3}, ["0"], []),
        ({"a": 2, "place": "x", "seed": 3}, ["0"], ["a 1 -> 2"]),
        ({"a": 1, "place": "x", "seed": 4}, ["0"], ["seed 3 -> 4"]),
        ({"a": 1, "place": "x", "seed": None}, ["0"], []),
        ({"a": 1, "place": "x", "seed": 3, "new": 5}, ["0"], ["new None -> 5"]),
        ({"a": 1, "place": "x", "seed": 3}, ["1"], ["the data files have changed"]),
        ({"a": 1, "place": "x", "seed": 3}, None, []),
    ],
)
def test_differences(settings, files, found):
    record = {"options": {"a": 1, "place": "x", "seed": 3}, "data": {"files": [{"sha256": "0"}]}}
    given = None if files is None else [{"sha256": digest} for digest in files]
    assert differences(record, settings, given, {"place"}, {"seed"}) == found
