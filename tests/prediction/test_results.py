"""post_eval.py --predictions: what is counted is what the files of labels hold, in table, figure and page."""

import csv
import json
import re
from pathlib import Path

import pytest

import post_eval
from tests.factories import check_layout, texts_of
from utils.figures.registers import chosen_bars, registers_figure
from utils.figures.style import STYLES
from utils.prediction.folder import LabelFolder
from utils.prediction.inputs import InputFile
from utils.prediction.parts import Counts, Part, part_path, write_part
from utils.prediction.records import RecordLayout
from utils.prediction.results import LabelCounts, label_counts, read_overview

LABELS = ["IN", "=OP", "<b>"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Labels of three files in two folders, as predict.py leaves them, and one file that is not finished."""
    monkeypatch.chdir(tmp_path)
    made = LabelFolder(Path("web"), "jsonl")
    about = {"model": "tiny-en", "labels": LABELS, "number_format": "fp32"}
    made.begin({"options": {"output_format": "jsonl"}, "root": "x"}, about, [], force=False)
    counts = {"eng/1": [6, 3, 1], "eng/2": [0, 0, 2], "fin/1": [1, 1, 1]}
    for name, numbers in counts.items():
        file = InputFile(Path(f"x/{name}.jsonl"), name, 9, 9)
        made.begin_file(file)
        total = sum(numbers)
        part = Counts(
            total + 1, total, 10 * total, 1, dict(zip(LABELS, numbers, strict=True)), [0, total] + [0] * 8, 2.0
        )
        bad = [{"row": total, "line": total + 1, "problem": "no text"}]
        write_part(part_path(made.parts(name), 0), Part(0, part, 9, bad), ["{}"] * total)
        assert made.finish_file(file, 1, RecordLayout(tuple(LABELS)))
    made.write_overview([*counts, "swe/1"], 0.5)
    return made.path


def test_table_figure_and_page(folder, invoke):
    status, output, errors = invoke(post_eval, "--predictions", "web")
    assert status == 0, errors
    assert re.search(r"all +15 +100\.0%  IN 46\.7%, <b> 26\.7%, =OP 26\.7%", output), output
    assert re.search(r"eng +12 ", output) and "not finished and not counted: 1 file" in output
    with (folder / "registers.csv").open(newline="") as file:
        rows = {(row["kind"], row["name"]): row for row in csv.DictReader(file)}
    assert [int(rows["folder", "eng"][name]) for name in ("num_texts", "IN", "'=OP", "<b>")] == [12, 6, 3, 3]
    assert [int(rows["file", "fin/1"][name]) for name in ("num_texts", "IN", "'=OP", "<b>")] == [3, 1, 1, 1]
    assert rows["all", "all"]["num_bad_rows"] == "3"
    assert (folder / "registers.png").stat().st_size > 5000
    page = (folder / "report.html").read_text()
    assert "15 texts in 3 files" in page and "1 file is not finished" in page and "3 rows have no label" in page
    assert "&lt;b&gt;" in page and "<td><b>" not in page and "<script" not in page
    assert [path.name for path in folder.glob("*.jsonl")] == ["bad_rows.jsonl"]


@pytest.mark.slow
def test_the_page_in_a_browser(folder, invoke, tmp_path):
    import shutil

    from tests.factories import skip

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        skip("no chromium; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    assert invoke(post_eval, "--predictions", "web")[0] == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        problems = []
        page.on("console", lambda message: problems.append(message.text))
        page.goto((tmp_path / "web/report.html").as_uri())
        widths = (
            page.locator("tbody tr")
            .first.locator(".bar span")
            .evaluate_all("spans => spans.map(span => span.getBoundingClientRect().width)")
        )
        assert widths == pytest.approx([sum(widths) * share for share in (7 / 15, 4 / 15, 4 / 15)], abs=1)
        assert page.locator("tbody tr").count() == 6 and not problems
        browser.close()


@pytest.mark.parametrize("given", ["--seeds", "--calibration", "--ignore_cfm", "--show_texts", "--compare"])
def test_options_about_evaluations_are_refused(folder, invoke, given):
    status, _, errors = invoke(post_eval, "--predictions", "web", given, *(["a", "b"] if given == "--compare" else []))
    assert status == 2 and f"{given} is about evaluations" in errors


def test_what_is_no_folder_of_labels(folder, invoke):
    status, _, errors = invoke(post_eval, "--predictions", "nowhere")
    assert status == 2 and "nowhere/predictions.json does not exist; label texts with predict.py" in errors
    content = json.loads((folder / "predictions.json").read_text())
    for damage, message in (({"files": 3}, "files: expected an object"), ({"num_texts": 0}, "no file has all its")):
        (folder / "predictions.json").write_text(json.dumps(content | damage))
        status, _, errors = invoke(post_eval, "--predictions", "web")
        assert status == 2 and message in errors
    (folder / "predictions.json").write_text("{")
    assert "not valid JSON" in invoke(post_eval, "--predictions", "web")[2]


@pytest.mark.parametrize("style", ["screen", "paper"])
@pytest.mark.parametrize("num_rows", [1, 2, 60])
def test_the_figure_has_room_for_its_texts(style, num_rows):
    registers = {f"R{number}": 100 - number for number in range(11)}
    total = sum(registers.values())
    rows = [
        LabelCounts(kind, name, total * 10**6, {key: value * 10**6 for key, value in registers.items()}, 0.123, 0, 0)
        for kind, name in [("all", "all"), *(("file", f"{'folder' * 9}/{n}") for n in range(num_rows))]
    ]
    figure = registers_figure(rows, "xlm-roberta-large-en-fr", 0.5, STYLES[style])
    check_layout(figure)
    shown = [text for text, _ in texts_of(figure)]
    assert shown.count("12%") >= min(num_rows + (num_rows > 1), 40) and "others" in shown


def test_bars(folder):
    counts = label_counts(read_overview(folder))
    bars, left_out = chosen_bars(counts)
    assert [bar.name for bar in bars] == ["all", "eng", "fin"] and left_out == 0
