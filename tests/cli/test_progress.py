"""Where there is no terminal, long work prints dated lines with the time left."""

import re

from utils.cli import progress as module
from utils.cli.progress import Lines, progress, time_left


def test_lines_with_clock_and_time_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    bar = progress(range(10), desc="drawing", unit="figure")
    assert isinstance(bar, Lines)
    for _ in bar:
        now[0] += 20
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5, "every half minute, not every time"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d drawing: 2 of 10 figures, 3 min left", lines[0])
    assert lines[-1].endswith("drawing: 10 of 10 figures, 0 s left")


def test_short_work_says_nothing(capsys):
    with progress(total=1000, desc="x") as bar:
        for _ in range(1000):
            bar.update()
    assert list(progress([1, 2], disable=True)) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_times_in_words():
    assert [time_left(seconds) for seconds in (3, 200, 9000)] == ["3 s left", "3 min left", "2.5 h left"]


def test_nothing_done_for_long_is_no_division(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    bar = progress(total=3, desc="labelling", unit="megabyte")
    now[0] += 60
    bar.update(0)
    assert capsys.readouterr().err.endswith("labelling: 0 megabytes\n")
