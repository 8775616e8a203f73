"""post_eval.py --compare, --seeds, --calibration and --style, from files to files."""

import csv
import json
import shutil

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

import post_eval
from tests.factories import LANGS, REGISTERS, check_layout, texts_of, write_results
from utils.evaluation.calibration import run_reliability
from utils.evaluation.comparison import comparison_file
from utils.evaluation.labelling import OneLabel
from utils.evaluation.metrics import METRICS
from utils.evaluation.results import load_results, write_evaluation
from utils.evaluation.selection import select_grid, select_matrices
from utils.evaluation.significance import holm
from utils.figures.cfm import confusion_figure
from utils.figures.names import Names
from utils.figures.reliability import reliability_figure
from utils.figures.style import PAPER
from utils.figures.tve import train_vs_eval_figure
from utils.runs.files import write_json
from utils.runs.layout import RunLayout

NAMES = Names(
    {lang: f"a language/{lang}" for lang in LANGS} | {"zh": "chinese (simplified)"},
    {register: f"Register of {register} and more" for register in REGISTERS},
)
QUIET = ["--ignore_cfm", "--ignore_tve", "--ignore_report"]


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_run(folder, name, quality, *, langs=("en", "fr"), subfolder=None, seed=1, sha256="same", **options):
    """Write the results of an imagined model that is right this often; the true labels are always the same."""
    model, _, train_langs = name.partition("-")
    layout = RunLayout(model, train_langs, subfolder, str(folder))
    registers = ["NA", "IN", "OP"]
    for lang in langs:
        labels = np.random.default_rng(len(lang)).integers(0, 3, size=300)
        generator = np.random.default_rng(seed)
        right = generator.random(300) < quality
        predictions = np.where(right, labels, (labels + 1 + generator.integers(0, 2, size=300)) % 3)
        probabilities = np.full((300, 3), 0.1)
        probabilities[np.arange(300), predictions] = 0.8
        write_evaluation(
            layout, lang, labels, probabilities, labelling=OneLabel(registers), seconds=1, seed=1, task=None,
            data={"path": "x", "sha256": sha256},
            computed={"number_format": "fp32", "device": "cpu"},
        )  # fmt: skip
    settings = {"seed": seed, "subfolder": subfolder, "learning_rate": 1e-5} | options
    data = {"files": [{"path": "x", "sha256": "data"}]}
    write_json(layout.run_json, {"status": "complete", "options": settings, "seed": seed, "data": data})


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs"
    write_run(folder, "good-en", 0.8)
    write_run(folder, "poor-en", 0.6, seed=2)
    write_run(folder, "poor-en", 0.55, subfolder="lora", seed=3, lora_r=8)
    return folder


def test_a_comparison_of_three_runs(outputs, invoke):
    names = ["poor-en", "good-en", "lora/poor-en"]
    status, output, errors = invoke(post_eval, *QUIET, "--compare", *names)
    assert status == 0, errors
    rows = read_rows(outputs / "comparison_poor-en_good-en_lora.poor-en.csv")
    assert len(rows) == 3 * 2 * len(METRICS)
    predictions = {name: read_rows(outputs / name / "predictions/fr.csv") for name in names}
    key = {"first": "poor-en", "second": "good-en", "eval_lang": "fr"}
    row = next(row for row in rows if (key | {"metric": "macro_f1"}).items() <= row.items())
    for name, column in (("poor-en", "first_value"), ("good-en", "second_value")):
        true, predicted = ([line[x] for line in predictions[name]] for x in ("true", "predicted"))
        assert float(row[column]) == pytest.approx(f1_score(true, predicted, average="macro"))
    assert float(row["difference"]) == pytest.approx(float(row["second_value"]) - float(row["first_value"]))
    assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    assert float(row["p_randomisation"]) < 0.001 and row["p_mcnemar"] == ""
    right = [[line["true"] == line["predicted"] for line in predictions[name]] for name in names[:2]]
    only = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (right, right[::-1])]
    row = next(row for row in rows if (key | {"metric": "accuracy"}).items() <= row.items())
    assert float(row["p_mcnemar"]) == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    # Six comparisons of every metric are corrected together.
    same = [row for row in rows if row["metric"] == "accuracy"]
    assert [float(row["p_mcnemar_holm"]) for row in same] == pytest.approx(holm([float(x["p_mcnemar"]) for x in same]))
    assert "good-en against poor-en (p after Holm's correction for 6 comparisons)" in output
    assert "p < 0.001 *" in output


def test_names_as_a_shell_completes_them_and_many_of_them(outputs, invoke):
    assert invoke(post_eval, *QUIET, "--compare", "poor-en/", "good-en/")[0] == 0
    assert (outputs / "comparison_poor-en_good-en.csv").is_file()
    many = [f"subfolder{number}/good-en" for number in range(20)]
    first, second = comparison_file(many), comparison_file([*many, "poor-en"])
    assert first != second and max(len(first), len(second)) < 250


def test_a_comparison_says_the_same_when_repeated(outputs, invoke):
    tables = []
    for _ in range(2):
        invoke(post_eval, *QUIET, "--compare", "poor-en", "good-en")
        tables.append((outputs / "comparison_poor-en_good-en.csv").read_bytes())
    assert tables[0] == tables[1]


def test_a_comparison_says_the_same_whichever_comes_first(outputs, invoke):
    """p was .017 one way and .013 the other."""
    write_run(outputs, "fair-en", 0.62)
    tables = []
    for names in (("fair-en", "poor-en"), ("poor-en", "fair-en")):
        status, output, _ = invoke(post_eval, *QUIET, "--compare", *names)
        assert status == 0
        tables.append(read_rows(outputs / f"comparison_{'_'.join(names)}.csv"))
        assert "to cite: approximate randomization for F1, McNemar's test for accuracy" in output
    for one, other in zip(*tables, strict=True):
        for column in ("p_bootstrap", "p_randomisation", "p_mcnemar", "p_bootstrap_holm", "p_randomisation_holm"):
            assert one[column] == other[column], column
        assert (one["first"], one["first_value"]) == (other["second"], other["second_value"])
        assert float(one["difference"]) == -float(other["difference"])
        assert (float(one["low"]), float(one["high"])) == (-float(other["high"]), -float(other["low"]))
    assert len({row["p_randomisation"] for row in tables[0] if row["metric"] == "macro_f1"}) > 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["good-en"], "--compare wants at least two different runs, got good-en"),
        (["good-en", "good-en"], "at least two different runs"),
        (["good-en", "poor-er"], "no results in outputs/poor-er; did you mean 'poor-en'?"),
        (["good-en", "../outputs/poor-en"], "'..' is not"),
        (["good-en", ""], "'.' is not"),
        (["good-en", "other-en"], "good-en and other-en were evaluated on different en texts"),
        (["good-en", "labels-en"], "good-en and labels-en were evaluated on different en texts"),
        (["good-en", "far-en"], "evaluated on no language together"),
        (["good-en", "lost-en"], "predictions/en.csv does not exist; evaluate again"),
    ],
)
def test_what_cannot_be_compared(outputs, invoke, names, message):
    write_run(outputs, "other-en", 0.7, sha256="other")
    write_run(outputs, "labels-en", 0.7)
    path = outputs / "labels-en/predictions/en.csv"
    path.write_text(path.read_text().replace("\n0,", "\n0,OP", 1))
    write_run(outputs, "far-en", 0.7, langs=["tr"])
    write_run(outputs, "lost-en", 0.7)
    (outputs / "lost-en/predictions/en.csv").unlink()
    before = sorted(outputs.rglob("*"))
    status, _, errors = invoke(post_eval, "--compare", *names)
    assert status == 2
    assert message in errors
    assert sorted(outputs.rglob("*")) == before, "nothing is written"


def test_mean_and_deviation_over_seeds(outputs, invoke):
    for seed, quality in ((1, 0.6), (2, 0.7), (3, 0.9)):
        for subfolder in ("", "lora-"):
            rate = 1e-3 if subfolder else 1e-5
            write_run(outputs, "m-en", quality, subfolder=f"{subfolder}seed{seed}", seed=seed, learning_rate=rate)
    # Not the same data: no part of any group.
    write_run(outputs, "m-en", 0.1, subfolder="other", seed=9)
    record = json.loads((outputs / "other/m-en/run.json").read_text())
    record["data"]["files"][0]["sha256"] = "other"
    write_json(outputs / "other/m-en/run.json", record)
    status, _, errors = invoke(post_eval, *QUIET, "--seeds")
    assert status == 0, errors
    rows = read_rows(outputs / "seeds.csv")
    assert len(rows) == 2 * 2 * len(METRICS)
    assert {row["variant"] for row in rows} == {"seed1", "lora-seed1"}
    row = next(r for r in rows if (r["variant"], r["eval_lang"], r["metric"]) == ("seed1", "fr", "macro_f1"))
    values = [json.loads((outputs / f"seed{n}/m-en/eval/fr.json").read_text())["macro_f1"] for n in (1, 2, 3)]
    assert float(row["mean"]) == pytest.approx(np.mean(values))
    assert float(row["std"]) == pytest.approx(np.std(values, ddof=1))
    assert (row["num_seeds"], row["seeds"]) == ("3", "1 2 3")
    assert (outputs / "seeds.png").stat().st_size > 1000


def test_no_runs_that_differ_by_seed_alone(outputs, invoke):
    shutil.rmtree(outputs / "lora")
    status, _, errors = invoke(post_eval, "--seeds")
    assert status == 2 and "no two runs below outputs differ only by their --seed; train with --seed 1" in errors
    write_run(outputs, "m-en", 0.6, subfolder="seed1", seed=1)
    write_run(outputs, "m-en", 0.6, subfolder="seed2", seed=2, learning_rate=2e-5)
    status, _, errors = invoke(post_eval, "--seeds")
    assert status == 2 and "those of m-en differ in learning_rate" in errors


def test_calibration_table_and_diagram(outputs, invoke):
    status, _, errors = invoke(post_eval, "--ignore_cfm", "--ignore_tve", "--calibration")
    assert status == 0, errors
    rows = read_rows(outputs / "calibration.csv")
    assert len(rows) == 4
    (row,) = (row for row in rows if (row["model"], row["eval_lang"]) == ("good", "fr"))
    # Every prediction is 0.8 sure, so one bin holds all.
    accuracy = json.loads((outputs / "good-en/eval/fr.json").read_text())["accuracy"]
    assert float(row["expected_calibration_error"]) == pytest.approx(abs(0.8 - accuracy))
    assert float(row["mean_confidence"]) == pytest.approx(0.8)
    assert (outputs / "good-en/reliability.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("style", ["screen", "paper"])
def test_reliability_diagrams_are_readable(outputs, style):
    from utils.figures.style import STYLES

    for lang in LANGS:
        write_run(outputs, "good-en", 0.8, langs=[lang])
    run = next(run for run in load_results(outputs) if run.model == "good")
    figure = reliability_figure(run, run_reliability(run), STYLES[style], NAMES)
    check_layout(figure)
    assert (style == "screen") == (figure.get_figwidth() > PAPER.widths[-1])


@pytest.mark.slow
@pytest.mark.parametrize("languages", [1, 3, 19])
def test_paper_figures_fit_a_column_or_a_page(tmp_path, languages):
    for train in [*LANGS[:12], "en-fr", "-".join(LANGS[:7])][-max(2, languages) :]:
        write_results(tmp_path, "xlmr-large", train, LANGS[-languages:], num_texts=9000)
    runs = load_results(tmp_path)
    matrix = confusion_figure(*select_matrices(runs)[0], False, PAPER, NAMES)
    grid = train_vs_eval_figure(runs, select_grid(runs, metrics=["macro_f1"]), PAPER, NAMES)
    for figure in (matrix, grid):
        check_layout(figure)
        width, height = figure.get_size_inches()
        assert width in PAPER.widths and height < 9.7
        assert min(text.get_fontsize() for text in figure.findobj(lambda x: hasattr(x, "get_fontsize"))) >= 4
    assert any("Chinese (simplified)" in text for text, _ in texts_of(matrix))
    assert any("Register of HI" in text.replace("\n", " ") for text, _ in texts_of(matrix))


@pytest.mark.slow
def test_paper_style_embeds_its_fonts(outputs, invoke):
    status, _, errors = invoke(post_eval, "--style", "paper", "--ignore_report")
    assert status == 0, errors
    assert {path.name for path in outputs.glob("tve*")} == {"tve-micro_f1.pdf", "tve-macro_f1.pdf"}
    content = (outputs / "good-en/cfm.pdf").read_bytes()
    assert b"/FontFile2" in content and b"/Type3" not in content
    invoke(post_eval, "--style", "paper", "--ignore_report", "--format", "svg")
    assert "<text" not in (outputs / "good-en/cfm.svg").read_text(), "letters are outlines, whatever fonts there are"


@pytest.mark.slow
def test_figures_are_the_same_when_drawn_again(outputs, invoke):
    drawn = []
    for _ in range(2):
        invoke(post_eval, "--format", "png", "pdf", "svg", "--ignore_report")
        drawn.append({path.name: path.read_bytes() for path in sorted((outputs / "good-en").glob("cfm.*"))})
    assert drawn[0] == drawn[1] and len(drawn[0]) == 3


@pytest.mark.slow
def test_names_come_from_the_corpus(outputs, invoke, monkeypatch):
    corpus = outputs.parent / "elsewhere"
    write_json(corpus / "info/reg_abbv.json", {"NA": "Narrative", "IN": "Information", "OP": "Opinion"})
    write_json(corpus / "info/lang2name.json", {"en": "english", "fr": "farsi/persian"})
    monkeypatch.setenv("CORPUS_PATH", str(corpus))
    status, _, errors = invoke(post_eval)
    assert status == 0, errors
    report = (outputs / "report.html").read_text(encoding="utf-8")
    assert '"Farsi/Persian"' in report and '"Narrative"' in report
    monkeypatch.setenv("CORPUS_PATH", "nowhere")
    status, _, errors = invoke(post_eval)
    assert status == 2 and "the corpus folder nowhere does not exist" in errors
    shutil.rmtree(corpus)
