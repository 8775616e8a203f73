import csv
import json
import math
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

import evaluate
import finetune
import post_eval
from tests.factories import FAST, REGISTERS, TRAINED
from tests.processes import finish, start
from utils.data.corpus_load import read_tsv
from utils.data.registers import Registers, parse_registers
from utils.data.tokenization import load_tokenizer
from utils.evaluation.metrics import METRICS
from utils.evaluation.results import load_predictions
from utils.runs.files import read_json


def read_predictions(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check_against_predictions(results, lang):
    """Recompute every number of eval/LANG.json with scikit-learn from predictions/LANG.csv."""
    result = json.loads((results / "eval" / f"{lang}.json").read_text())
    rows = read_predictions(results / "predictions" / f"{lang}.csv")
    registers = result["registers"]
    true, predicted = [row["true"] for row in rows], [row["predicted"] for row in rows]
    assert [int(row["index"]) for row in rows] == list(range(result["num_texts"]))
    assert result["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    for average, names in (
        ("macro", ("precision", "recall", "macro_f1")),
        ("micro", (None, None, "micro_f1")),
        ("weighted", (None, None, "weighted_f1")),
    ):
        expected = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
        for name, value in zip(names, expected[:3], strict=True):
            assert name is None or result[name] == pytest.approx(value)
    assert result["confusion_matrix"] == confusion_matrix(true, predicted, labels=registers).tolist()
    single = precision_recall_fscore_support(true, predicted, labels=registers, average=None, zero_division=0)
    for index, register in enumerate(registers):
        for name, values in zip(("precision", "recall", "f1", "support"), single, strict=True):
            assert result["per_register"][register][name] == pytest.approx(values[index])
    for low, high in result["confidence_intervals"].values():
        assert 0 <= low <= high <= 1
    for row in rows:
        shares = [float(row[register]) for register in registers]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert registers[shares.index(max(shares))] == row["predicted"]
    return result


def test_results_equal_what_scikit_learn_computes_from_the_predictions(model, invoke):
    status, output, errors = invoke(evaluate, *TRAINED, "--eval_langs", "all")
    assert status == 0, errors
    results = model.folder / "outputs/tiny-en-fr"
    assert sorted(path.name for path in (results / "eval").iterdir()) == ["en.json", "es.json", "fr.json"]
    for lang in ("en", "es", "fr"):
        result = check_against_predictions(results, lang)
        assert (result["model"], result["train_langs"], result["eval_lang"]) == ("tiny", "en-fr", lang)
        assert f"{lang}: 24 texts" in output
        with (model.corpus / f"corpus/test/{lang}.tsv").open(encoding="utf-8", newline="") as file:
            labels = [register for register, _ in csv.reader(file, delimiter="\t")]
        assert [row["true"] for row in read_predictions(results / f"predictions/{lang}.csv")] == labels


def test_evaluation_reaches_the_validation_metrics(model, invoke, small):
    """The validation texts, written to a test file, get the macro F1 that train.json reports for the best epoch."""
    from utils.data.corpus_load import open_corpus
    from utils.data.splits import mix_languages, split_validation

    corpus = open_corpus(str(small / "register-corpus"))
    parts = {lang: corpus.load("train", lang) for lang in ("en", "fr")}
    rows = mix_languages({lang: np.array(part["label"][:]) for lang, part in parts.items()}, "equal", 0.3, 42)
    chosen = [parts[lang][int(row)] for lang in parts for row in rows[lang]]
    _, validation = split_validation(
        np.array([row["label"] for row in chosen]), np.array([row["lang"] for row in chosen]), 0.2, 42
    )
    shutil.copytree(small / "register-corpus", model.folder / "corpus")
    with (model.folder / "corpus/corpus/test/en.tsv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(
            (corpus.registers[chosen[i]["label"]], chosen[i]["text"]) for i in validation
        )
    status, _, errors = invoke(
        evaluate, *TRAINED, "--eval_lang", "en", "--corpus_path", str(model.folder / "corpus")
    )  # fmt: skip
    assert status == 0, errors
    result = json.loads((model.folder / "outputs/tiny-en-fr/eval/en.json").read_text())
    report = json.loads((model.folder / "outputs/tiny-en-fr/train.json").read_text())
    best = report["epochs"][report["best_epoch"] - 1]["validation"]
    for name in ("accuracy", "macro_f1", "weighted_f1"):
        assert result[name] == pytest.approx(best[name])


@pytest.mark.fault(8)
def test_one_model_load_and_a_failing_language_does_not_end_the_rest(model, invoke, monkeypatch, small):
    from utils.evaluation import inference

    loads = []
    load = inference.load_classifier
    monkeypatch.setattr(inference, "load_classifier", lambda *args: loads.append(args) or load(*args))
    shutil.copytree(small / "register-corpus", model.folder / "corpus")
    (model.folder / "corpus/corpus/test/es.tsv").write_text("IN\tfine\nIN broken\n")
    status, output, errors = invoke(
        evaluate, *TRAINED, "--eval_langs", "en", "es", "xx", "fr", "--corpus_path", str(model.folder / "corpus")
    )
    assert status == 1
    assert len(loads) == 1
    assert "es failed: " in errors and "es.tsv, line 2" in errors
    assert "xx failed: language 'xx' has no test file" in errors
    assert "Traceback" not in errors
    assert "en: 24 texts" in output and "fr: 24 texts" in output
    written = sorted(path.stem for path in (model.folder / "outputs/tiny-en-fr/eval").iterdir())
    assert written == ["en", "fr"]


@pytest.mark.slow
@pytest.mark.fault(13)
def test_the_saved_folder_is_enough(model, small):
    """No registry, no pretrained checkpoint, no network: only the trained model and the corpus."""
    done = finish(
        start(
            "evaluate.py", *TRAINED, "--eval_lang", "fr", cwd=model.folder,
            CORPUS_PATH=str(small / "register-corpus"), MODEL_REGISTRY="/nowhere", HF_HOME="/nowhere",
            HF_ENDPOINT="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9",
        )
    )  # fmt: skip
    assert "fr: 24 texts" in done


@pytest.mark.slow
@pytest.mark.fault(7)
def test_evaluations_at_the_same_time_lose_nothing(model):
    def run(lang):
        return finish(start("evaluate.py", *TRAINED, "--eval_lang", lang, cwd=model.folder, **model.environment))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, ["en", "es", "fr"]))
    for lang in ("en", "es", "fr"):
        check_against_predictions(model.folder / "outputs/tiny-en-fr", lang)


def test_mistakes(model, invoke):
    status, _, errors = invoke(evaluate, "--model_name", "tniy", "--train_langs", "en-fr", "--eval_lang", "en")
    assert (status, "did you mean 'tiny-en-fr'" in errors) == (2, True)
    status, _, errors = invoke(evaluate, *TRAINED)
    assert (status, "--eval_langs" in errors) == (2, True)
    record = model.folder / "outputs/tiny-en-fr/run.json"
    record.write_text(record.read_text().replace('"complete"', '"running"'))
    status, _, errors = invoke(evaluate, *TRAINED, "--eval_lang", "en")
    assert (status, "not trained to its end" in errors) == (2, True)


def test_a_corpus_with_other_registers_is_refused(model, invoke, small):
    shutil.copytree(small / "register-corpus", model.folder / "corpus")
    names = model.folder / "corpus/info/reg_abbv.json"
    names.write_text(json.dumps(json.loads(names.read_text()) | {"XX": "something new"}))
    status, _, errors = invoke(
        evaluate, *TRAINED, "--eval_lang", "en", "--corpus_path", str(model.folder / "corpus")
    )  # fmt: skip
    assert (status, "was not trained on: XX" in errors) == (2, True)


def test_registers_in_another_order_keep_their_names(model, invoke, small):
    invoke(evaluate, *TRAINED, "--eval_lang", "en")
    path = model.folder / "outputs/tiny-en-fr/eval/en.json"
    before = json.loads(path.read_text())
    shutil.copytree(small / "register-corpus", model.folder / "corpus")
    names = model.folder / "corpus/info/reg_abbv.json"
    names.write_text(json.dumps(dict(reversed(json.loads(names.read_text()).items()))))
    invoke(evaluate, *TRAINED, "--eval_lang", "en", "--corpus_path", str(model.folder / "corpus"))
    assert json.loads(path.read_text())["confusion_matrix"] == before["confusion_matrix"]


@pytest.mark.slow
def test_the_whole_chain_on_real_texts(real_corpus, tmp_path, invoke, monkeypatch):
    """A small XLM-R from scratch on Swedish and French, through every script."""
    import pandas as pd

    import post_eval
    from demo.build import build_model
    from utils.data.corpus_load import open_corpus

    corpus = open_corpus(real_corpus)
    texts = [text[:300] for lang in ("sv", "fr") for text in corpus.load("train", lang)["text"][::4]]
    build_model(tmp_path / "scratch", texts, vocabulary=2000)
    registry = tmp_path / "models.json"
    registry.write_text('{"scratch": {"checkpoint": "./scratch", "max_length": 96}}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORPUS_PATH", real_corpus)
    monkeypatch.setenv("MODEL_REGISTRY", str(registry))
    arguments = ["--model_name", "scratch", "--train_langs", "sv-fr"]
    recipe = ["--num_epochs", "2", "--learning_rate", "2e-3", "--attention_dropout", "0"]
    status, _, errors = invoke(finetune, *arguments, *recipe)
    assert status == 0, errors
    status, _, errors = invoke(evaluate, *arguments, "--eval_langs", "all")
    assert status == 0, errors
    status, output, errors = invoke(post_eval)
    assert status == 0, errors
    results = tmp_path / "outputs/scratch-sv-fr"
    for lang, count in {"sv": 400, "fr": 377, "fi": 400, "id": 111, "zh": 108, "ar": 32}.items():
        assert check_against_predictions(results, lang)["num_texts"] == count
    report = json.loads((results / "train.json").read_text())
    assert report["num_train_texts"] == 1728
    first, last = (epoch["loss"] for epoch in report["epochs"])
    assert last < first < math.log(8), "better than equal probabilities"
    table = pd.read_csv(tmp_path / "outputs/summary.csv", keep_default_na=False)
    assert len(table) == 6 * len(METRICS)
    assert output.splitlines()[-1] == "next: open outputs/report.html in a browser"
    for path in output.splitlines()[-4:-1]:
        assert (tmp_path / path).stat().st_size > 0


@pytest.mark.slow
def test_what_a_result_says_of_how_it_came_about(model, invoke):
    """The same command computes in bf16 on one machine and in fp32 on the next."""
    command = ["--model_name", "tiny", "--train_langs", "en-fr", "--eval_langs", "es", "--force"]
    for precision in ("int8", "fp32", "bf16"):
        status, output, errors = invoke(evaluate, *command, "--precision", precision)
        assert status == 0, errors
        result = read_json(model.folder / "outputs/tiny-en-fr/eval/es.json")
        assert result["number_format"] == precision
        assert result["device"].startswith("cpu" if not torch.cuda.is_available() else "NVIDIA")
    matrix = np.array(result["confusion_matrix"])
    assert result["num_registers_averaged"] == np.count_nonzero(matrix.sum(0) + matrix.sum(1))
    assert result["num_registers_present"] == np.count_nonzero(matrix.sum(1)) == 8
    f1 = [result["per_register"][name]["f1"] for name in result["registers"]]
    assert result["macro_f1"] == pytest.approx(sum(f1) / result["num_registers_averaged"])
    assert result["macro_f1_present"] == pytest.approx(sum(f1) / 8)
    # 24 texts of 8 registers.
    assert set(result["rare_registers"]) == set(result["registers"])
    assert f"under 10 texts of IN {result['rare_registers']['IN']}, " in output
    status, output, _ = invoke(evaluate, *command[:-1])
    assert f"es: evaluated already, accuracy {result['accuracy']:.3f}, macro F1" in output


@pytest.mark.slow
def test_a_model_at_chance_does_not_end_without_a_word(inputs, invoke):
    command = ["--model_name", "tiny", "--train_langs", "en"]
    status, output, _ = invoke(finetune, *command, *FAST, "--learning_rate", "1e-9", "--num_epochs", "1")
    assert status == 0
    assert "no better than chance on the validation texts: macro F1" in output
    report = read_json(inputs.folder / "outputs/tiny-en/train.json")
    assert report["warning"].startswith("no better than chance")
    status, output, _ = invoke(evaluate, *command, "--eval_langs", "fr")
    assert "fr: warning: no better than chance on the fr texts" in output
    card = (inputs.folder / "models/tiny-en/README.md").read_text()
    assert card.count("**Warning**: no better than chance") == 2
    assert invoke(post_eval, "--ignore_cfm", "--ignore_tve")[0] == 0
    assert "no better than chance on the fr texts" in (inputs.folder / "outputs/report.html").read_text()


@pytest.mark.slow
def test_what_the_start_of_a_training_says(inputs, invoke):
    shutil.copytree(inputs.corpus, inputs.folder / "corpus")
    path = inputs.folder / "corpus/corpus/train/en.tsv"
    rows = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith("LY")]
    path.write_text("".join([*rows, "LY\tla la la\n"]))
    command = ["--model_name", "tiny", "--train_langs", "en", "--subfolder", "s", "--max_length", "16"]
    status, output, errors = invoke(
        finetune, *command, *FAST[2:], "--max_epochs", "1", "--corpus_path", str(inputs.folder / "corpus")
    )
    assert status == 0, errors
    report = read_json(inputs.folder / "outputs/s/tiny-en/train.json")
    first = output.splitlines()[0]
    assert first.startswith("tiny-en (s): ") and "1 epoch (--max_epochs; " in first, first
    tokenizer = load_tokenizer(inputs.registry.parent / "tiny-xlmr")
    scheme = parse_registers(json.loads((inputs.corpus / "info/reg_abbv.json").read_text()))
    texts = [text for _, text in read_tsv(path, scheme)]
    longer = sum(len(ids) > 16 for ids in tokenizer(texts)["input_ids"])
    assert 0 < report["num_texts_cut"] <= longer
    assert f"cut at 16 tokens: {report['num_texts_cut']} training texts" in output
    assert f"trained: {report['num_parameters']:,} of {report['num_parameters']:,} parameters" in output
    assert "too few texts for the validation part: LY (1); the validation scores do not know them" in output


@pytest.mark.slow
def test_a_file_of_another_name_does_not_stop_all_languages(model, invoke, small):
    shutil.copytree(small / "register-corpus", model.folder / "corpus")
    folder = model.folder / "corpus/corpus/test"
    shutil.copy(folder / "es.tsv", folder / "es old.tsv")
    command = ["--model_name", "tiny", "--train_langs", "en-fr", "--corpus_path", str(model.folder / "corpus")]
    status, output, errors = invoke(evaluate, *command, "--eval_langs", "all")
    assert status == 0 and "es old.tsv is left out: 'es old' is not a language name" in errors
    assert [line.split(":")[0] for line in output.splitlines() if " texts, accuracy" in line] == ["en", "es", "fr"]
    status, _, errors = invoke(evaluate, *command, "--eval_langs", "en-fr")
    assert status == 2 and "a model is evaluated on one language at a time, got 'en-fr': --eval_langs en fr" in errors


@pytest.mark.slow
def test_labels_that_are_formulas_elsewhere(inputs, invoke):
    """A spreadsheet runs what begins with =, and tables are read back as they were."""
    shutil.copytree(inputs.corpus, inputs.folder / "corpus")
    scheme = Registers(dict.fromkeys(REGISTERS, ""))
    names = {"IN": "=1+1", "OP": "@x", "RN": "a\n| b |<b>"}
    for path in (inputs.folder / "corpus/corpus").glob("*/*.tsv"):
        rows = [(names.get(register, register), text) for [register], text in read_tsv(path, scheme)]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t").writerows(rows)
    registers = {names.get(name, name): name for name in REGISTERS}
    (inputs.folder / "corpus/info/reg_abbv.json").write_text(json.dumps(registers))
    command = ["--model_name", "tiny", "--train_langs", "en", "--corpus_path", str(inputs.folder / "corpus")]
    assert invoke(finetune, *command, *FAST, "--num_epochs", "1")[0] == 0
    assert invoke(evaluate, *command, "--eval_langs", "fr")[0] == 0
    path = inputs.folder / "outputs/tiny-en/predictions/fr.csv"
    with path.open(encoding="utf-8", newline="") as file:
        assert not any(cell[:1] in "=@" for row in csv.reader(file) for cell in row if cell)
    table = load_predictions(path.parent.parent, "fr")
    assert set(table["true"]) <= set(registers) and "=1+1" in set(table["true"])
    assert list(registers) == [name for name in table.columns if name not in ("index", "true", "predicted")]
    status, _, errors = invoke(post_eval, "--calibration", "--corpus_path", str(inputs.folder / "corpus"))
    assert status == 0, errors
    card = (inputs.folder / "models/tiny-en/README.md").read_text()
    assert "a \\| b \\|\\<b\\>" in card and "<b>" not in card.replace("\\<b\\>", "")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_stopped_evaluation_says_what_is_left(model, signum):
    arguments = ["--model_name", "tiny", "--train_langs", "en-fr", "--eval_langs", "en", "es", "fr", "--force"]
    process = start("evaluate.py", *arguments, "--eval_token_budget", "1", cwd=model.folder)
    for line in process.stdout:
        if line.startswith("en: 24"):
            process.send_signal(signum)
            break
    output, _ = process.communicate(timeout=120)
    if process.returncode:
        assert process.returncode == 128 + signum and "Traceback" not in output, output
        assert "the same command evaluates what is left: " in output
