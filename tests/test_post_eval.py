import csv
import itertools
import json

import numpy as np
import pytest

import post_eval
from tests.factories import LANGS, REGISTERS, check_layout, write_results
from utils.evaluation.metrics import (
    METRICS,
)
from utils.evaluation.results import load_results
from utils.evaluation.selection import select_grid, select_matrices, shared_first
from utils.figures.cfm import confusion_figure
from utils.figures.style import STYLES, panels_of
from utils.figures.tve import split_pages, train_vs_eval_figure


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model, train in itertools.product(("mbert", "xlmr-large"), ("en", "fr", "en-fr")):
        write_results(tmp_path / "outputs", model, train, ["en", "fr", "tr"])
    return tmp_path / "outputs"


@pytest.mark.slow
@pytest.mark.fault(11)
@pytest.mark.parametrize(("count", "summary"), [(1, True), (1, False), (2, True), (3, True), (7, False), (19, True)])
def test_confusion_figure_is_readable_at_any_number_of_languages(tmp_path, count, summary):
    write_results(tmp_path, "xlmr", "en-fr", LANGS[-count:], num_texts=9000)
    (run,) = load_results(tmp_path)
    ((run, langs),) = select_matrices([run])
    figure = confusion_figure(run, langs, ignore_summary=not summary)
    assert len(panels_of(figure)) == count + summary
    check_layout(figure)


@pytest.mark.slow
@pytest.mark.fault(11)
@pytest.mark.parametrize(
    ("models", "trains", "evals", "metrics"),
    [
        (1, 1, 1, ["macro_f1"]),
        (1, 2, 19, ["macro_f1"]),
        (2, 3, 1, ["micro_f1", "macro_f1"]),
        (1, 1, 1, list(METRICS)),
        (3, 14, 19, ["micro_f1", "macro_f1"]),
    ],
)
def test_train_vs_eval_figure_is_readable_at_any_size(tmp_path, metrics, models, trains, evals):
    for model in ("mbert", "xlmr-large", "glot500")[:models]:
        for train in [*LANGS[:12], "en-fr", "-".join(LANGS[:7])][-trains:]:
            write_results(tmp_path, model, train, LANGS[:evals])
    runs = load_results(tmp_path)
    figure = train_vs_eval_figure(runs, select_grid(runs, metrics=metrics))
    assert len(panels_of(figure)) == models * len(metrics)
    check_layout(figure)


def test_the_figures_show_the_numbers(results):
    runs = load_results(results)
    run = next(run for run in runs if run.name == "xlmr-large-en-fr")
    figure = confusion_figure(run, ["en", "fr", "tr"], ignore_summary=False)
    bars, english = panels_of(figure)[:2]
    heights = [patch.get_height() for patch in bars.patches[:8]]
    assert heights == list(run.train_registers.values())
    matrix = np.array(run.evaluations["en"]["confusion_matrix"])
    cells = {tuple(map(int, text.get_position())): text.get_text() for text in english.texts if text.get_text()}
    assert cells == {(c, r): str(n) for (r, c), n in np.ndenumerate(matrix) if n}
    colors = english.collections[0].get_array()
    totals = matrix.sum(axis=1)
    for row, total in enumerate(totals):
        label = english.get_yticklabels()[row].get_text()
        assert label == f"{REGISTERS[row]} ({total})" if total else f"{REGISTERS[row]} (none)"
        if total:
            np.testing.assert_allclose(colors[row], matrix[row] / total)
        else:
            assert colors[row].mask.all()


def test_every_cell_of_the_train_vs_eval_matrix(results):
    runs = load_results(results)
    grid = select_grid(runs, metrics=["macro_f1"])
    assert (grid.rows, grid.columns) == (["en", "fr", "en-fr"], ["en", "fr", "tr"])
    figure = train_vs_eval_figure(runs, grid)
    for axes, model in zip(panels_of(figure), grid.models, strict=True):
        values = axes.collections[0].get_array()
        for (row, train), (column, lang) in itertools.product(enumerate(grid.rows), enumerate(grid.columns)):
            run = next(run for run in runs if (run.model, run.train_langs) == (model, train))
            assert values[row, column] == run.evaluations[lang]["macro_f1"]
            assert axes.texts[row * 5 + column].get_text() == f"{values[row, column]:.2f}"
        for row, train in enumerate(grid.rows):
            # Behind the languages the means over those that were trained on, and over the others.
            trained = [column for column, lang in enumerate(grid.columns) if lang in train.split("-")]
            others = [column for column in range(3) if column not in trained]
            assert values[row, 3] == pytest.approx(values[row, trained].mean())
            assert values[row, 4] == pytest.approx(values[row, others].mean())


@pytest.mark.slow
def test_many_models_are_on_several_pages(tmp_path, invoke, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(42):
        write_results(tmp_path / "outputs", f"model{number}", "en", LANGS[:6])
    for more in ([], ["--style", "paper"]):
        assert invoke(post_eval, "--ignore_cfm", "--ignore_report", *more)[0] == 0
    runs = load_results(tmp_path / "outputs")
    # Inches: of A4 without margins; of what a browser shows without a search for its cells.
    figures = (("paper", ["macro_f1"], "tve-macro_f1", 6.31, 9.7), ("screen", None, "tve", 14.5, 31))
    for style, metrics, name, widest, highest in figures:
        parts = split_pages(runs, select_grid(runs, metrics=metrics), STYLES[style])
        assert [model for part in parts for model in part.models] == sorted({run.model for run in runs})
        for number, part in enumerate(parts, 1):
            assert list((tmp_path / "outputs").glob(f"{name}{f'-{number}' if number > 1 else ''}.p*")), number
            if number == 1:
                figure = train_vs_eval_figure(runs, part, STYLES[style])
                assert figure.get_figwidth() <= widest and figure.get_figheight() <= highest
                check_layout(figure)


def test_shared_languages_first():
    rows, columns = shared_first({"fr", "en", "en-fr", "sv"}, {"tr", "fr", "en", "al"})
    assert rows == ["en", "fr", "sv", "en-fr"]
    assert columns == ["en", "fr", "al", "tr"]


@pytest.mark.slow
def test_everything_is_written_and_named(results, invoke):
    status, output, errors = invoke(post_eval, "--format", "png", "pdf", "svg")
    assert status == 0, errors
    written = [line for line in output.splitlines() if line.startswith("outputs")]
    assert len(written) == 6 * 3 + 3 + 2
    for path in written:
        assert (results.parent / path).stat().st_size > 500
    with (results / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 3 * len(METRICS)
    assert set(rows[0]) == {"model", "train_langs", "eval_lang", "metric", "value", "low", "high", "rare_registers"}
    run = json.loads((results / "xlmr-large-en-fr/eval/tr.json").read_text())
    key = {"model": "xlmr-large", "train_langs": "en-fr", "eval_lang": "tr", "metric": "macro_f1"}
    (row,) = (row for row in rows if key.items() <= row.items())
    assert float(row["value"]) == run["macro_f1"]
    assert [float(row["low"]), float(row["high"])] == run["confidence_intervals"]["macro_f1"]


@pytest.mark.slow
@pytest.mark.fault(10)
def test_existing_figures_are_drawn_anew(results, invoke):
    old = results / "mbert-en/cfm.png"
    old.write_bytes(b"old")
    invoke(post_eval)
    assert old.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_only_what_has_changed_is_drawn(results, invoke):
    assert invoke(post_eval)[0] == 0
    figures = {path: path.stat().st_mtime_ns for path in results.rglob("*.png")}
    status, output, _ = invoke(post_eval)
    assert status == 0 and f"{len(figures)} figures left as they were" in output and ".png" not in output
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*.png")} == figures
    # One number, a damaged file, another style.
    path = results / "mbert-en/eval/tr.json"
    content = json.loads(path.read_text())
    content["confusion_matrix"][0][0] += 1
    path.write_text(json.dumps(content))
    (results / "mbert-fr/cfm.png").write_bytes((results / "mbert-fr/cfm.png").read_bytes()[:50])
    status, output, _ = invoke(post_eval)
    drawn = {line for line in output.splitlines() if line.endswith(".png")}
    wanted = {f"outputs/{name}" for name in ("mbert-en/cfm.png", "mbert-fr/cfm.png", "tve.png")}
    assert drawn == wanted | ({"outputs/tve.png"} & drawn)
    assert "left as they were" not in invoke(post_eval, "--style", "paper", "--format", "png")[1]


@pytest.mark.slow
def test_filtered_results_leave_the_others_as_they_are(results, invoke):
    """Filters overwrote tve.png and the report with a part of the results."""
    assert invoke(post_eval)[0] == 0
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    only = ["--tve_models", "mbert", "--tve_eval_langs", "tr", "--cfm_models", "mbert", "--cfm_eval_langs", "tr"]
    for more, name in (([], "filtered"), (["--name", "turkish"], "turkish")):
        status, output, errors = invoke(post_eval, *only, *more)
        assert status == 0, errors
        for written in (f"tve-{name}.png", f"report-{name}.html", f"summary-{name}.csv", f"mbert-en/cfm-{name}.png"):
            assert f"outputs/{written}" in output and (results / written).stat().st_size > 100
        with (results / f"summary-{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {(row["model"], row["eval_lang"]) for row in rows} == {("mbert", "tr")}
        assert "xlmr-large" not in (results / f"report-{name}.html").read_text()
    assert all(path.read_bytes() == content for path, content in before.items())
    status, _, errors = invoke(post_eval, "--name", "../x")
    assert status == 2 and "--name must be the end of a file name" in errors


def test_options_choose_what_is_drawn(results, invoke):
    status, output, _ = invoke(
        post_eval, "--ignore_tve", "--cfm_ignore_summary", "--cfm_models", "mbert", "--cfm_train_langs", "en-fr",
        "--cfm_eval_langs", "tr",
    )  # fmt: skip
    assert status == 0
    assert sorted(path.name for path in results.rglob("*.png")) == ["cfm-filtered.png"]
    only = ["--ignore_cfm", "--tve_models", "mbert", "--tve_metrics", "recall"]
    status, output, _ = invoke(post_eval, "--base-dir", results, *only)
    assert status == 0
    assert str(results / "tve-filtered.png") in output
    status, _, _ = invoke(post_eval, "--output_dir", results.parent, "--subfolder", "outputs", "--ignore-cfm")
    assert status == 0


@pytest.mark.fault(11)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tve_eval_langs", "en", "tur"], "--tve_eval_langs: no results for 'tur'"),
        (["--tve_train_langs", "en-tr"], "--tve_train_langs: no results for 'en-tr'; did you mean 'en-fr'"),
        (["--tve_models", "mbret"], "did you mean 'mbert'"),
        (["--tve_metrics", "macro_f"], "did you mean 'macro_f1'"),
        (["--cfm_models", "x"], "--cfm_models: no results for 'x'"),
        (["--cfm_eval_langs", "x"], "--cfm_eval_langs: no results for 'x'"),
        (["--cfm_train_langs", "x"], "--cfm_train_langs: no results for 'x'"),
        (["--format", "jpg"], "invalid choice: 'jpg'"),
        (["--base_dir", "nowhere"], "nowhere does not exist"),
        (["--subfolder", "mbert-en"], "no evaluation results below"),
    ],
)
def test_filters_refuse_what_has_no_results(results, invoke, arguments, message):
    status, _, errors = invoke(post_eval, *arguments)
    assert status == 2
    assert message in errors
    assert not list(results.rglob("*.png")), "nothing is drawn before every filter is checked"


def test_damaged_results_are_named(results, invoke):
    path = results / "mbert-en/eval/tr.json"
    content = path.read_text()
    path.write_text(content[:100])
    status, _, errors = invoke(post_eval)
    assert (status, "eval/tr.json, line 1" in errors) == (2, True)
    path.write_text('{"model": "mbert"}')
    status, _, errors = invoke(post_eval)
    assert (status, "'train_langs' is missing" in errors) == (2, True)


@pytest.mark.slow
def test_results_without_a_run_record(results, invoke):
    (results / "mbert-en/run.json").unlink()
    status, _, errors = invoke(post_eval)
    assert status == 0, errors
