"""Texts with several labels and a hierarchy of them, from the corpus to the report."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

import evaluate
import finetune
import post_eval
import predict
from tests.factories import FAST, TRAINED, Inputs, check_layout, working_copy, write_label_sets
from tests.labels import read_jsonl
from tests.processes import finish, start
from utils.evaluation.labelling import label_matrix
from utils.evaluation.results import load_predictions, load_results
from utils.figures.cfm import confusion_figure
from utils.figures.style import PAPER, SCREEN

pytestmark = pytest.mark.slow

NAMES = ["IN", "dt", "en", "HI", "re", "OP"]
LEARN = ["--num_epochs", "12", "--learning_rate", "5e-3"]
RUN = Path("outputs/tiny-en-fr")


@pytest.fixture(scope="module")
def learned(small, tmp_path_factory) -> Inputs:
    """A model that has learned label sets, evaluated on both languages."""
    folder = tmp_path_factory.mktemp("learned")
    made = Inputs(write_label_sets(folder / "corpus"), small / "model2chckpt.json", folder)
    finish(start("finetune.py", *TRAINED, *FAST, *LEARN, cwd=folder, **made.environment))
    finish(start("evaluate.py", *TRAINED, "--eval_langs", "all", "--oracle_threshold", cwd=folder, **made.environment))
    return made


@pytest.fixture
def sets(learned, tmp_path, monkeypatch) -> Inputs:
    """The trained model and its results in a working folder."""
    return working_copy(learned, tmp_path, monkeypatch)


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_label_sets_are_learned_and_hybrids_come_out_as_both(sets):
    for lang in ("en", "fr"):
        result = read_json(RUN / f"eval/{lang}.json")
        assert result["labels"] == "multi" and result["registers"] == NAMES
        assert result["micro_f1"] > 0.95 and result["subset_accuracy"] > 0.8
        hybrids = {"+".join(row["registers"]): row for row in result["hybrids"]}
        assert {"IN+OP", "IN+HI", "HI+OP"} == set(hybrids)
        assert all(row["texts"] == 12 and row["complete"] >= 11 for row in hybrids.values())


def test_the_files_agree_with_each_other_and_with_scikit_learn(sets):
    result, table = read_json(RUN / "eval/en.json"), load_predictions(RUN, "en")
    true, predicted = (label_matrix(table[name].tolist(), NAMES) for name in ("true", "predicted"))
    for average in ("micro", "macro", "weighted"):
        assert result[f"{average}_f1"] == pytest.approx(f1_score(true, predicted, average=average, zero_division=0))
    assert result["confusion_matrix"] == (true.astype(int).T @ predicted).tolist()
    # What was written reaches the thresholds that were written, or is the register of what does.
    reached = table[NAMES].to_numpy() >= np.array([result["thresholds"][name] for name in NAMES]) - 1e-6
    above = {"dt": "IN", "en": "IN", "re": "HI"}
    for place, name in enumerate(NAMES):
        below = [NAMES.index(x) for x, register in above.items() if register == name]
        assert (predicted[:, place].astype(bool) == reached[:, [place, *below]].any(1)).all()
    for child, register in above.items():
        assert (table[register] >= table[child] - 1e-7).all()
    with (sets.corpus / "corpus/test/en.tsv").open(newline="") as file:
        rows = [set(labels.split()) for labels, _ in csv.reader(file, delimiter="\t")]
    assert [set(labels.split()) - set(above) for labels in table["true"]] == [labels - set(above) for labels in rows]


def test_the_threshold_is_never_chosen_on_test_texts(sets, invoke):
    """Wrong test labels change the scores and the oracle's threshold, not the model's."""
    before = read_json(RUN / "eval/en.json")
    assert before["threshold_source"] == {
        **{"choice": "global", "metric": "micro_f1"},
        **{"chosen_on": "validation", "num_texts": 72},
    }
    corpus = sets.folder / "other"
    shutil.copytree(sets.corpus, corpus)
    path = corpus / "corpus/test/en.tsv"
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    path.write_text("".join(f"OP\t{text}\n" for _, text in rows))
    given = [*TRAINED, "--eval_lang", "en", "--corpus_path", str(corpus)]
    assert invoke(evaluate, *given, "--oracle_threshold")[0] == 0
    after = read_json(RUN / "eval/en.json")
    assert after["micro_f1"] < 0.5 < before["micro_f1"]
    assert after["thresholds"] == before["thresholds"] and after["oracle"] != before["oracle"]
    assert len(set(after["thresholds"].values())) == 1
    assert before["oracle"]["micro_f1"] >= before["micro_f1"]


@pytest.mark.parametrize(
    ("options", "choice"), [(["--threshold", "0.5"], "0.5"), (["--threshold", "per_label"], "per_label")]
)
def test_other_thresholds(sets, invoke, options, choice):
    command = [*TRAINED, *FAST, *options, "--subfolder", "other"]
    status, output, errors = invoke(finetune, *command, "--num_epochs", "3", "--learning_rate", "5e-3")
    assert status == 0, errors
    report = read_json("outputs/other/tiny-en-fr/train.json")["calibration"]
    assert report["validation_micro_f1"] >= report["validation_micro_f1_at_0.5"] or choice == "0.5"
    config = read_json("models/other/tiny-en-fr/config.json")
    if choice == "0.5":
        assert "threshold 0.5 for all labels" in output and set(config["label_thresholds"]["values"]) == {0.5}
    else:
        assert report["threshold_source"]["choice"] in ("per_label", "global")
        assert list(report["thresholds"].values()) == config["label_thresholds"]["values"]
    assert config["problem_type"] == "multi_label_classification"
    assert config["subregisters"] == {"IN": ["dt", "en"], "HI": ["re"]}


@pytest.mark.parametrize("temperature", [[], ["--temperature", "2.5"]])
def test_predict_gives_the_labels_of_evaluate(sets, invoke, temperature):
    """Also at another temperature: the thresholds move with the probabilities."""
    assert invoke(evaluate, *TRAINED, "--eval_lang", "fr", *temperature, "--force")[0] == 0
    given = [*TRAINED, "--input", str(sets.corpus / "corpus/test/fr.tsv"), *temperature]
    status, _, errors = invoke(predict, *given)
    assert status == 0, errors
    table, rows = load_predictions(RUN, "fr"), read_jsonl(Path("predictions/fr.jsonl.zst"))
    assert [" ".join(row["registers"]) for row in rows] == table["predicted"].tolist()
    assert set(rows[0]) == {"id", "registers", "probabilities", "num_tokens", "truncated"}
    shares = [[row["probabilities"][name] for name in NAMES] for row in rows]
    assert np.abs(table[NAMES].to_numpy() - shares).max() <= 0.00005001
    overview = read_json("predictions/predictions.json")
    assert overview["label_kind"] == "multi" and overview["subregisters"] == {"IN": ["dt", "en"], "HI": ["re"]}
    assert overview["registers"]["IN"] == sum("IN" in row["registers"] for row in rows)
    assert invoke(post_eval, "--predictions", "predictions")[0] == 0
    with Path("predictions/registers.csv").open(newline="") as file:
        (everything, *_) = csv.DictReader(file)
    assert int(everything["dt"]) == overview["registers"]["dt"]


def test_a_temperature_does_not_change_labels(sets, invoke):
    before = load_predictions(RUN, "en")["predicted"].tolist()
    assert invoke(evaluate, *TRAINED, "--eval_lang", "en", "--temperature", "3", "--force")[0] == 0
    assert load_predictions(RUN, "en")["predicted"].tolist() == before


@pytest.mark.parametrize("output_format", ["csv", "parquet", "jsonl"])
def test_label_sets_in_every_format(sets, invoke, output_format):
    path = sets.folder / "texts.txt"
    path.write_text("river river river stone stone stone the of and\nbelieve believe believe first first first\n")
    given = [*TRAINED, "--input", str(path), "--output_format", output_format]
    assert invoke(predict, *given)[0] == 0
    target = Path(f"predictions/texts.{output_format}")
    if output_format == "parquet":
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(target).to_pylist()
    elif output_format == "csv":
        with target.open(newline="") as file:
            found = [row | {"registers": row["registers"].split()} for row in csv.DictReader(file)]
    else:
        found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["registers"][0] for row in found] == ["IN", "HI"] and "OP" in found[1]["registers"]


def test_lines_of_label_sets(sets, invoke):
    text = "believe believe believe first first first the of"
    _, output, _ = invoke(predict, *TRAINED, "--text", text)
    registers, shares, other, share = output.rstrip("\n").split("\t")
    assert registers == "HI OP" and len(shares.split()) == 2 and other in NAMES
    assert float(share) < min(map(float, shares.split()))
    _, output, _ = invoke(predict, *TRAINED, "--format", "json", "--text", text)
    assert json.loads(output)["registers"] == ["HI", "OP"]


def test_transformers_reads_the_model_as_one_of_label_sets(sets, invoke):
    from transformers import pipeline

    text = "believe believe believe first first first the of"
    classify = pipeline("text-classification", "models/tiny-en-fr", top_k=None)
    theirs = {found["label"]: found["score"] for found in classify([text])[0]}
    assert sum(theirs.values()) > 1.2
    # Registers have at least what their subregisters have, which transformers does not know.
    _, output, _ = invoke(predict, *TRAINED, "--temperature", "1", "--format", "json", "--text", text)
    ours = json.loads(output)["probabilities"]
    for name in ("dt", "en", "re", "OP"):
        assert ours[name] == pytest.approx(theirs[name], abs=6e-5)
    assert ours["HI"] == pytest.approx(max(theirs["HI"], theirs["re"]), abs=6e-5)


def test_figures_tables_and_statistics(sets, invoke):
    shutil.copytree(RUN, "outputs/other-en-fr")
    for path in Path("outputs/other-en-fr/eval").glob("*.json"):
        path.write_text(json.dumps(read_json(path) | {"model": "other"}))
    status, output, errors = invoke(
        post_eval, "--compare", "tiny-en-fr", "other-en-fr", "--calibration", "--show_texts"
    )
    assert status == 0, errors
    assert "subset_accuracy, McNemar" in output and output.count("p = 1.000") == 4
    with Path("outputs/summary.csv").open(newline="") as file:
        metrics = {row["metric"] for row in csv.DictReader(file)}
    assert {"subset_accuracy", "micro_f1", "macro_f1"} <= metrics and "accuracy" not in metrics
    with Path("outputs/calibration.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["model"], row["eval_lang"]) == ("tiny", "en")]
    assert [row["register"] for row in rows] == ["", *NAMES] and {row["num_texts"] for row in rows} == {"108"}
    report = Path("outputs/report.html").read_text(encoding="utf-8")
    assert '"subregisters":{"IN":["dt","en"],"HI":["re"]}' in report and '"hybrids":[' in report
    card = Path("models/tiny-en-fr/README.md").read_text(encoding="utf-8")
    assert "A text may have any number of them" in card and "micro F1" in card and "top_k=None" in card


@pytest.mark.parametrize("style", [SCREEN, PAPER], ids=["screen", "paper"])
def test_the_confusion_matrix_of_label_sets_is_readable(sets, style):
    (run,) = load_results(Path("outputs"))
    check_layout(confusion_figure(run, ["en", "fr"], False, style))


@pytest.mark.parametrize(
    ("labels", "names", "multilabel"),
    [("main", ["IN", "HI", "OP"], True), ("auto", NAMES, True), ("multi", NAMES, True)],
)
def test_what_labels_a_run_has(sets, invoke, labels, names, multilabel):
    given = [*TRAINED, *FAST, "--num_epochs", "1", "--labels", labels, "--subfolder", labels]
    status, _, errors = invoke(finetune, *given)
    assert status == 0, errors
    config = read_json(f"models/{labels}/tiny-en-fr/config.json")
    assert list(config["id2label"].values()) == names
    assert (config["problem_type"] == "multi_label_classification") == multilabel
    assert invoke(evaluate, *TRAINED, "--subfolder", labels, "--eval_lang", "en")[0] == 0
    assert read_json(f"outputs/{labels}/tiny-en-fr/eval/en.json")["registers"] == names


@pytest.mark.filterwarnings("error:Creating a tensor from a list")
def test_windows_of_label_sets(sets, invoke):
    given = [*TRAINED, "--subfolder", "windows"]
    options = [*FAST, "--num_epochs", "6", "--learning_rate", "5e-3", "--max_length", "14", "--long_texts", "windows"]
    status, _, errors = invoke(finetune, *given, *options)
    assert status == 0, errors
    assert invoke(evaluate, *given, "--eval_lang", "en")[0] == 0
    result = read_json("outputs/windows/tiny-en-fr/eval/en.json")
    assert result["labels"] == "multi" and result["reading"]["num_long_texts"] > 50
    text = "river river river stone stone stone the of and with year river river the of and believe believe believe"
    _, output, _ = invoke(predict, *given, "--segments", "--format", "json", "--text", text)
    record = json.loads(output)
    assert len(record["segments"]) > 2 and all("registers" in segment for segment in record["segments"])


def test_what_is_refused(sets, invoke):
    status, _, errors = invoke(finetune, *TRAINED, *FAST, "--labels", "single", "--subfolder", "x")
    path = sets.corpus / "corpus/train/en.tsv"
    assert status == 2 and not Path("outputs/x").exists()
    assert errors.startswith(f"finetune.py: error: {path}, line 2: 2 registers (IN dt) of a text; train with --labels")
    assert "--labels multi, or take it for IN with --labels main" in errors
    given = [*TRAINED, "--subfolder", "x"]
    status, _, errors = invoke(finetune, *given, "--label_smoothing", "0.1")
    assert status == 2 and "--label_smoothing is for texts with one label" in errors
    status, _, errors = invoke(finetune, *given, "--threshold", "0.5", "--threshold_metric", "macro_f1")
    assert status == 2 and "--threshold_metric is for a threshold that is chosen" in errors
    config = read_json("models/tiny-en-fr/config.json")
    config["label_thresholds"]["values"][0] = 1.5
    Path("models/tiny-en-fr/config.json").write_text(json.dumps(config))
    status, _, errors = invoke(evaluate, *TRAINED, "--eval_lang", "en", "--force")
    assert status == 2 and "label_thresholds: expected 6 numbers between 0 and 1" in errors


def test_options_of_label_sets_are_refused_for_single_labels(inputs, invoke):
    status, _, errors = invoke(finetune, *TRAINED, "--threshold", "global")
    assert status == 2 and "--threshold is for texts with several labels" in errors
    # A model of single labels does not take a hybrid for one of them.
    assert invoke(finetune, *TRAINED, *FAST, "--num_epochs", "1")[0] == 0
    corpus = inputs.folder / "hybrid"
    shutil.copytree(inputs.corpus, corpus)
    with (corpus / "corpus/test/en.tsv").open("a") as file:
        file.write("IN OP\ta text of two registers\n")
    status, _, errors = invoke(evaluate, *TRAINED, "--eval_lang", "en", "--corpus_path", str(corpus))
    assert status == 1 and "line 25: 2 registers (IN OP) of a text; train with --labels multi, or leave one" in errors
    status, _, errors = invoke(evaluate, *TRAINED, "--eval_lang", "en", "--oracle_threshold")
    assert status == 2 and "--oracle_threshold: tiny-en-fr gives each text one label" in errors


def test_real_label_sets(sets, invoke, monkeypatch):
    """Real texts with 60 labels: hybrids, subregisters, and one that stands under two registers."""
    from tests.factories import MULTILABEL_CORPUS, skip

    if not MULTILABEL_CORPUS:
        skip("MULTILABEL_PATH does not name a corpus of texts with several labels")
    monkeypatch.setenv("CORPUS_PATH", MULTILABEL_CORPUS)
    given = ["--model_name", "tiny", "--train_langs", "sv", "--precision", "fp32", "--subfolder", "real"]
    options = ["--max_length", "64", "--max_train_texts", "200", "--num_epochs", "1", "--balanced"]
    status, output, errors = invoke(finetune, *given, *options, "--focal_gamma", "2", "--threshold", "per_label")
    assert status == 0, errors
    assert "labels: any number for each text, 1.8" in output
    assert invoke(evaluate, *given, "--eval_langs", "zh", "ar")[0] == 0
    result, table = read_json("outputs/real/tiny-sv/eval/zh.json"), load_predictions(Path("outputs/real/tiny-sv"), "zh")
    assert len(result["registers"]) == 60 and result["num_texts"] == 146 == len(table)
    assert result["label_cardinality"] == pytest.approx(1.69, abs=0.005)
    assert sum("dp" in labels.split() for labels in table["true"]) == result["per_register"]["dp"]["support"]
    assert invoke(post_eval, "--subfolder", "real", "--format", "png")[0] == 0
