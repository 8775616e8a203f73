"""run.json, and what makes a run another run."""

import signal
import time

import pytest

from utils.runs import record as record_module
from utils.runs import stop as stop_module
from utils.runs.files import read_json
from utils.runs.record import differences
from utils.runs.stop import STOP_SIGNALS, begin_run


def test_a_cancelled_job_is_noted_although_the_record_is_being_written(tmp_path, monkeypatch):
    """SIGTERM comes between the choice of the text and the rename that would bring back what was true before."""
    monkeypatch.setattr(stop_module.slurm_job, "was_cancelled", lambda: True)
    before = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    record, stop = begin_run(tmp_path / "run.json", {"seed": 1}, {"files": []}, tmp_path / "handover")
    stop.training = True
    stock, signals = record_module.write_json, [signal.SIGTERM]

    def interrupted(target, content):
        if signals:
            signal.raise_signal(signals.pop())
            time.sleep(0.1)
        stock(target, content)

    monkeypatch.setattr(record_module, "write_json", interrupted)
    record.progress(1.5, best_macro_f1=0.5)
    record.settle()
    content = read_json(record.path)
    assert (content["status"], content["error"], content["epoch"]) == ("failed", "the job was cancelled", 1.5)
    for signum, handler in before.items():
        signal.signal(signum, handler)


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
