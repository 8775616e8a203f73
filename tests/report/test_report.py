"""report.html in a real browser: Debian's chromium, driven by Playwright."""

import csv
import json

import numpy as np
import pytest

import finetune
import post_eval
from tests.factories import LANGS, REGISTERS, write_label_sets, write_results
from utils.evaluation.labelling import OneLabel
from utils.evaluation.metrics import METRICS
from utils.runs.files import write_json

pytestmark = pytest.mark.slow

MODELS = ("mbert", "xlmr-large", "glot500")
TRAIN_LANGS = [*LANGS[:12], "en-fr", "-".join(LANGS[:7])]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Results of 3 models x 14 training sets x 19 languages, with learning curves; and a corpus with their names."""
    folder = tmp_path_factory.mktemp("large")
    for model in MODELS:
        for train_langs in TRAIN_LANGS:
            write_results(folder / "outputs", model, train_langs, LANGS)
            epochs = [
                {"epoch": epoch, "loss": 1 / epoch, "learning_rate": 1e-5, "seconds": 10,
                 "validation": {"loss": 1.2 / epoch, "accuracy": 1 - 0.5 / epoch, "macro_f1": 0.9 - 0.5 / epoch}}
                for epoch in (1, 2, 3)
            ]  # fmt: skip
            content = {"epochs": epochs, "num_parameters": 278_000_000, "seconds": 30.5, "best_epoch": 3}
            write_json(folder / "outputs" / f"{model}-{train_langs}" / "train.json", content)
    write_json(
        folder / "register-corpus/info/reg_abbv.json", dict(zip(REGISTERS, map(str.title, REGISTERS), strict=True))
    )
    write_json(folder / "register-corpus/info/lang2name.json", {"en": "english", "fr": "french", "tr": "turkish"})
    return folder


@pytest.fixture(scope="module")
def report(large):
    """The report of `large`, written once."""
    from utils.evaluation.results import load_results
    from utils.figures.names import load_names
    from utils.report.report import report_data, write_report

    runs = load_results(large / "outputs")
    return write_report(large / "report.html", report_data(runs, load_names(str(large / "register-corpus"))))


@pytest.fixture
def page(browser):
    """A page that fails the test for anything said on the console, any error and any request of the network."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True, accept_downloads=True)
    made = context.new_page()
    complaints = []
    made.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on(
        "request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or complaints.append(request.url)
    )
    yield made
    context.close()
    assert not complaints


def open_report(page, path, where=""):
    page.goto(f"{path.resolve().as_uri()}{where}")
    page.wait_for_selector("main h2")


def column(page, table, number):
    return page.locator(f"#{table} tbody tr td:nth-child({number})").all_inner_texts()


def test_the_size_and_what_it_holds(report):
    assert report.stat().st_size < 5_000_000
    text = report.read_text(encoding="utf-8")
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_overview_names_the_best_model_of_every_language(page, report, large):
    open_report(page, report)
    rows = page.locator("#best tbody tr")
    assert rows.count() == len(LANGS)
    best = {}
    for path in (large / "outputs").glob("*/eval/tr.json"):
        best[path.parent.parent.name] = json.loads(path.read_text())["macro_f1"]
    name = max(best, key=best.get)
    turkish = page.locator("#best tbody tr", has_text="Turkish").inner_text()
    assert f"{name} {best[name]:.3f}" in turkish
    assert page.locator("#averages tbody tr").count() == len(MODELS) * len(TRAIN_LANGS)
    run = large / "outputs/mbert-en-fr/eval"
    values = {path.stem: json.loads(path.read_text())["macro_f1"] for path in run.glob("*.json")}
    inside = np.mean([values["en"], values["fr"]])
    zero = np.mean([value for lang, value in values.items() if lang not in ("en", "fr")])
    row = page.locator("#averages tbody tr", has=page.get_by_text("mbert-en-fr", exact=True)).inner_text().split("\t")
    assert [row[3], row[4]] == [f"{inside:.3f}", f"{zero:.3f}"]


def test_sorting_and_filtering(page, report):
    open_report(page, report, "#table")
    total = len(MODELS) * len(TRAIN_LANGS) * len(LANGS)
    assert page.locator("#evaluations tbody tr").count() == total
    header = page.locator("#evaluations th", has_text="accuracy")
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    values = [float(x) for x in column(page, "evaluations", 6)]
    assert values == sorted(values, reverse=True) and len(set(values)) > 30
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert [float(x) for x in column(page, "evaluations", 6)] == sorted(values)
    # By the keyboard.
    page.locator("#evaluations th", has_text="evaluated on").get_by_role("button").focus()
    page.keyboard.press("Enter")
    names = column(page, "evaluations", 3)
    assert names == sorted(names, key=str.lower)
    page.get_by_role("searchbox", name="Filter").fill("xlmr turkish zero")
    assert page.get_by_text(f"{len(TRAIN_LANGS)} of {total} rows").is_visible()
    assert set(column(page, "evaluations", 3)) == {"Turkish"}


def test_the_matrices_switch_and_tell_their_values(page, report, large):
    open_report(page, report, "#matrices")
    cells = page.locator("#matrix td[data-tip]")
    assert cells.count() == len(TRAIN_LANGS) * len(LANGS)
    for model, metric in (("xlmr-large", "recall"), ("glot500", "macro_f1")):
        page.get_by_role("combobox", name="Model").select_option(model)
        page.get_by_role("combobox", name="Metric").select_option(metric)
        row = page.locator("#matrix tbody tr", has=page.get_by_role("rowheader", name="English + French"))
        headers = page.locator("#matrix thead th").all_inner_texts()
        cell = row.locator("td").nth(headers.index("Turkish"))
        result = json.loads((large / f"outputs/{model}-en-fr/eval/tr.json").read_text())
        assert cell.inner_text() == f"{result[metric]:.2f}"
        cell.hover()
        tip = page.locator("#tip")
        assert tip.is_visible()
        low, high = result["confidence_intervals"][metric]
        for part in (f"{result[metric]:.3f} [{low:.3f}, {high:.3f}]", "400 texts", "zero-shot", model):
            assert part in tip.inner_text()
    frames = page.locator("#matrix td.trained")
    assert frames.count() == 12 + 2 + 7
    page.mouse.move(0, 0)
    assert page.locator("#tip").is_hidden()


def test_the_keyboard_moves_over_the_matrix_and_opens_a_model(page, report):
    open_report(page, report, "#matrices")
    page.locator("#matrix td[tabindex='0']").focus()
    first = page.locator("#tip").inner_text()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    tip = page.locator("#tip").inner_text()
    assert tip != first and page.locator("#matrix td[tabindex='0']").count() == 1
    box, cell = page.locator("#tip").bounding_box(), page.locator("#matrix td:focus").bounding_box()
    assert box["y"] + box["height"] <= cell["y"] or box["y"] >= cell["y"] + cell["height"], "the tip hides its cell"
    page.keyboard.press("Enter")
    page.wait_for_selector("#confusion")
    assert "#model/" in page.url
    assert page.locator("main h2").inner_text().split(" trained on ")[0] in tip


def test_a_models_page(page, report, large):
    open_report(page, report, "#model/mbert-en-fr/tr")
    assert page.locator("main h2").inner_text() == "mbert trained on English + French"
    result = json.loads((large / "outputs/mbert-en-fr/eval/tr.json").read_text())
    matrix = np.array(result["confusion_matrix"])
    shown = [row.split("\t")[1:] for row in page.locator("#confusion tbody tr").all_inner_texts()]
    with_texts = matrix.sum(1) > 0
    for row, cells in enumerate(shown):
        assert cells == ([str(n) for n in matrix[row]] if with_texts[row] else [""] * 8)
    page.locator("#confusion td.trained").first.hover()
    tip = page.locator("#tip").inner_text()
    assert f"{matrix[0, 0]} of {matrix[0].sum()} texts ({100 * matrix[0, 0] / matrix[0].sum():.1f} %)" in tip
    assert f"{result['per_register']['IN']['f1']:.3f}" in column(page, "scores", 5)
    assert page.locator("main svg").count() == 2
    assert "278,000,000" in page.locator("dl").inner_text()
    page.get_by_role("combobox", name="Evaluated on").select_option("fr")
    assert "French: 400 texts, in-language" in page.locator("main").inner_text()
    page.locator("#run").select_option("glot500-en")
    assert page.locator("main h2").inner_text() == "glot500 trained on English"
    page.go_back()
    assert page.locator("main h2").inner_text() == "mbert trained on English + French"


def test_the_download_is_the_tidy_table(page, report, large, tmp_path):
    open_report(page, report)
    with page.expect_download() as started:
        page.get_by_role("button", name="Download CSV").click()
    assert started.value.suggested_filename == "summary.csv"
    started.value.save_as(tmp_path / "downloaded.csv")
    with (tmp_path / "downloaded.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(MODELS) * len(TRAIN_LANGS) * len(LANGS) * len(METRICS)
    for row in rows[::97]:
        result = json.loads(
            (large / f"outputs/{row['model']}-{row['train_langs']}/eval/{row['eval_lang']}.json").read_text()
        )
        assert float(row["value"]) == result[row["metric"]]
        assert [float(row["low"]), float(row["high"])] == result["confidence_intervals"][row["metric"]]


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, report):
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    for where in ("#overview", "#matrices", "#table", "#model/mbert-en-fr/tr"):
        open_report(page, report, where)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, where
    open_report(page, report, "#matrices")
    page.locator("#matrix td[data-tip]").first.tap()
    context.close()


def test_it_prints_without_its_controls(page, report):
    open_report(page, report, "#model/mbert-en-fr/tr")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden() and page.get_by_role("combobox", name="Metric").is_hidden()
    assert page.locator("#confusion").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def write_predictions(folder, corpus, train_langs, lang, texts, seed=1):
    """Write the predictions of an imagined model on the texts of a corpus, in the files that evaluate.py writes."""
    from utils.evaluation.results import write_evaluation
    from utils.runs.files import sha256_of_file
    from utils.runs.layout import RunLayout

    path = corpus / f"corpus/test/{lang}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(texts)
    generator = np.random.default_rng(seed)
    labels = np.array([["NA", "IN"].index(register) for register, _ in texts])
    write_evaluation(
        RunLayout("tiny", train_langs, None, str(folder)),
        lang,
        labels,
        generator.dirichlet([1, 1], len(texts)),
        labelling=OneLabel(["NA", "IN"]),
        seconds=1.0,
        seed=1,
        task=None,
        data={"path": str(path), "sha256": sha256_of_file(path)},
        computed={"number_format": "fp32", "device": "cpu"},
    )


@pytest.fixture
def private(tmp_path, monkeypatch):
    """Two runs evaluated on texts that try to break the page."""
    monkeypatch.chdir(tmp_path)
    corpus = tmp_path / "register-corpus"
    write_json(corpus / "info/reg_abbv.json", {"NA": "Narrative", "IN": "Information"})
    write_json(corpus / "info/lang2name.json", {"en": "english"})
    texts = [("NA", f"secret {n} </script><script>alert(1)</script><b>bold</b>") for n in range(20)]
    texts += [("IN", f"secret {n} \u0627\u0644\u0639\u0631\u0628\u064a\u0629 " * 60) for n in range(20, 40)]
    for seed, train_langs in enumerate(("en", "fr")):
        write_predictions(tmp_path / "outputs", corpus, train_langs, "en", texts, seed)
    monkeypatch.setenv("CORPUS_PATH", str(corpus))
    return tmp_path / "outputs"


def test_texts_are_shown_only_when_asked_for(private, invoke, page):
    status, _, errors = invoke(post_eval, "--ignore_cfm", "--ignore_tve")
    assert status == 0, errors
    assert "secret" not in (private / "report.html").read_text(encoding="utf-8")
    status, _, errors = invoke(
        post_eval, "--ignore_cfm", "--ignore_tve", "--show_texts", "--calibration", "--compare", "tiny-en", "tiny-fr"
    )
    assert (status, errors) == (0, "")
    open_report(page, private / "report.html", "#model/tiny-en/en")
    rows = page.locator("#examples tbody tr").all_inner_texts()
    with (private / "tiny-en/predictions/en.csv").open(newline="") as file:
        wrong = [row for row in csv.DictReader(file) if row["true"] != row["predicted"]]
    surest = max(wrong, key=lambda row: float(row[row["predicted"]]))
    assert len(rows) == 5
    assert rows[0].startswith(f"{surest['index']}\t{surest['true']}\t{surest['predicted']}")
    assert f"secret {surest['index']} " in rows[0]
    assert page.locator("main b, main script").count() == 0
    assert all(len(row) < 300 for row in rows)
    assert "Expected calibration error" in page.locator("main").inner_text()
    page.get_by_role("link", name="Comparisons").click()
    table = read_rows(private / "comparison_tiny-en_tiny-fr.csv")
    row = next(row for row in table if row["metric"] == "macro_f1")
    assert f"{float(row['p_randomisation_holm']):.3f}" in page.locator("#tests tbody tr").first.inner_text()


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_texts_without_a_corpus_are_refused_first(private, invoke, monkeypatch):
    monkeypatch.delenv("CORPUS_PATH")
    (private.parent / "register-corpus").rename(private.parent / "elsewhere")
    status, _, errors = invoke(post_eval, "--show_texts")
    assert status == 2 and errors.count("\n") == 1
    assert "the corpus folder ../register-corpus does not exist; give it with --corpus_path" in errors
    assert not (private / "report.html").exists()


def test_texts_that_have_changed_are_not_shown(private, invoke):
    path = private.parent / "register-corpus/corpus/test/en.tsv"
    path.write_text(path.read_text().replace("secret 0", "other 0"))
    status, _, errors = invoke(post_eval, "--ignore_cfm", "--ignore_tve", "--show_texts")
    assert status == 0
    assert "no texts shown for 2 evaluations; the first: " in errors and errors.count("\n") == 1
    assert "the en test texts are not those that tiny-en was evaluated on" in errors
    assert "secret" not in (private / "report.html").read_text(encoding="utf-8")


def test_a_single_run_without_records(tmp_path, monkeypatch, invoke, page):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "outputs", "xlmr", "en", ["en"])
    (tmp_path / "outputs/xlmr-en/run.json").unlink()
    status, _, errors = invoke(post_eval)
    assert status == 0, errors
    for where in ("", "#matrices", "#table", "#model", "#model/no-such-run/xx", "#nowhere", "#seeds"):
        open_report(page, tmp_path / "outputs/report.html", where)


def test_a_click_on_a_register_shows_its_subregisters(inputs, invoke, monkeypatch, page):
    """Of texts with several labels: registers first, what stands under them when asked for, hybrids below."""
    monkeypatch.setenv("CORPUS_PATH", str(write_label_sets(inputs.folder / "sets")))
    assert invoke(finetune, "--model_name", "tfidf", "--train_langs", "en")[0] == 0
    assert invoke(post_eval, "--calibration")[0] == 0
    open_report(page, inputs.folder / "outputs/report.html", "#model/tfidf-en/fr")

    def rows(table):
        return page.locator(f"#{table} tbody tr th").all_inner_texts()

    assert rows("confusion") == ["IN (60)", "HI (48)", "OP (36)", "HI+OP (12)", "IN+HI (12)", "IN+OP (12)"]
    assert column(page, "scores", 1) == ["IN", "HI", "OP"]
    matrix, scores = page.locator("button.open[data-register=IN]").all()
    matrix.click()
    assert rows("confusion")[:4] == ["IN (60)", "dt (12)", "en (12)", "HI (48)"]
    assert page.locator("#confusion thead th").all_inner_texts() == ["IN", "dt", "en", "HI", "OP", "missed"]
    assert matrix.get_attribute("aria-expanded") == "true" and scores.get_attribute("aria-expanded") == "false"
    scores.click()
    assert column(page, "scores", 1) == ["IN", "dt", "en", "HI", "OP"]
    matrix.click()
    assert len(rows("confusion")) == 6
    page.locator("button", has_text="all").first.click()
    assert "re (24)" in rows("confusion")
    cell = page.locator("#confusion tbody tr").nth(0).locator("td").nth(0)
    assert cell.get_attribute("data-tip").startswith("true Informational, got Informational\n")
    assert column(page, "calibration", 1) == ["IN", "dt", "en", "HI", "re", "OP"]
    text = page.locator("main").inner_text()
    assert "subset accuracy" in text and "Of each label by itself." in text
