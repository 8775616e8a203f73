"""Labels for one text and for a stream, the numbers of evaluate.py, and models of all kinds."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evaluate
import finetune
import predict
from tests.factories import FAST, PROJECT, TRAINED
from tests.labels import read_jsonl, texts_of_all_lengths, write_jsonl
from utils.data.corpus_load import open_corpus

pytestmark = pytest.mark.slow


TEXTS = [
    "The minister said on Friday that the border would stay open.",
    "Buy now! Free delivery on all shoes.",
    "Thanks, that worked for me :)",
]


def test_the_numbers_are_those_of_evaluate(model, invoke):
    """The same probabilities, to a millionth, and so the same registers; also at another temperature."""
    config = json.loads((model.folder / "models/tiny-en-fr/config.json").read_text())
    assert config["calibration_temperature"] != 1
    for temperature in ([], ["--temperature", "2.5"]):
        shutil.rmtree("outputs/tiny-en-fr/eval", ignore_errors=True)
        assert invoke(evaluate, *TRAINED, "--eval_lang", "fr", *temperature)[0] == 0
        given = [*TRAINED, "--input", str(model.corpus / "corpus/test/fr.tsv"), *temperature]
        status, _, errors = invoke(predict, *given, "--keep_columns", "label", "--force")
        assert status == 0, errors
        from utils.evaluation.results import load_predictions

        table = load_predictions(Path("outputs/tiny-en-fr"), "fr")
        rows = read_jsonl(Path("predictions/fr.jsonl.zst"))
        assert [row["register"] for row in rows] == table["predicted"].tolist()
        assert [row["label"] for row in rows] == table["true"].tolist()
        assert [row["id"] for row in rows] == table["index"].tolist()
        registers = list(rows[0]["probabilities"])
        shares = table[registers].to_numpy()
        assert np.abs(shares.max(1) - [row["probability"] for row in rows]).max() <= 1e-6
        assert np.abs(shares - [[row["probabilities"][x] for x in registers] for row in rows]).max() <= 0.00005001
    assert json.loads(Path("outputs/tiny-en-fr/eval/fr.json").read_text())["temperature"] == 2.5


def test_one_text_has_one_line(model, invoke):
    status, output, errors = invoke(predict, *TRAINED, "--text", *TEXTS)
    assert status == 0, errors
    lines = [line.split("\t") for line in output.splitlines()]
    assert len(lines) == 3
    for register, probability, second, its in lines:
        assert register != second and 0 < float(its) <= float(probability) < 1
    status, output, _ = invoke(predict, *TRAINED, "--text", *TEXTS, "--format", "json", "--keep_text")
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row["register"] for row in rows] == [line[0] for line in lines]
    assert [row["text"] for row in rows] == TEXTS
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=0.001)
    assert not Path("predictions").exists()


def test_a_stream_is_answered_line_by_line(model):
    """Each line has its answer before the next one is given; nobody waits for a full batch."""
    command = [sys.executable, str(PROJECT / "predict.py"), "--model", "models/tiny-en-fr", "-", "--format", "json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=model.folder, text=True
    ) as process:
        for number, text in enumerate([*TEXTS, "h\u00e9 \u2028 wait"]):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == number
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_many_lines_of_a_stream(model, monkeypatch, invoke):
    lines = texts_of_all_lengths(700)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    status, output, errors = invoke(predict, *TRAINED, "-", "--format", "json")
    assert status == 0, errors
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert invoke(predict, *TRAINED, "-")[:2] == (0, "")
    write_jsonl(Path("in/all.jsonl"), lines)
    assert invoke(predict, *TRAINED, "--input", "in/all.jsonl")[0] == 0
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row["register"] for row in rows] == [
        row["register"] for row in read_jsonl(Path("predictions/all.jsonl.zst"))
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--text", "a"], "which model? give --model FOLDER"),
        (["--model", "x", "--model_name", "tiny", "--text", "a"], "give one of the two"),
        (["--model", "nowhere", "--text", "a"], "nowhere"),
        (["--model_name", "tiny", "--train_langs", "en", "--text", "a"], "no trained model in models/tiny-en"),
        (["--model_name", "../x", "--train_langs", "en", "--text", "a"], "is not a model abbreviation"),
        ([*TRAINED], "nothing to label"),
        ([*TRAINED, "--text", "a", "--input", "b"], "--text and --input exclude each other"),
        ([*TRAINED, "--text", " "], "text 1 is empty"),
        ([*TRAINED, "--text", "a", "--skip_bad_rows"], "--skip_bad_rows has no effect with --text"),
        ([*TRAINED, "--input", "outputs", "--format", "json"], "--format has no effect with --input"),
        ([*TRAINED, "--text", "a", "--temperature", "0"], "--temperature must be above 0"),
        ([*TRAINED, "--input", "in", "--share", "plan.json:0"], "--input and --share exclude each other"),
        ([*TRAINED, "--share", "plan.json"], "expected FILE:NUMBER"),
        ([*TRAINED, "--share", "plan.json:0"], "plan.json does not exist"),
    ],
)
def test_mistakes(model, invoke, given, message):
    status, _, errors = invoke(predict, *given)
    assert status == 2 and message in errors and len(errors.splitlines()) <= 2, errors


def test_a_pretrained_model_is_no_classifier(model, invoke, small):
    status, _, errors = invoke(predict, "--model", str(small / "tiny-xlmr"), "--text", "a")
    assert status == 2 and "weights are missing or of another shape: classifier" in errors


def test_classifiers_of_others(model, invoke, small):
    """Several labels that do not exclude each other, no limit in the tokenizer's files, no padding token."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = Path("published")
    config = {"num_labels": 3, "problem_type": "multi_label_classification", "id2label": {0: "NE", 1: "OP", 2: "HI"}}
    AutoModelForSequenceClassification.from_pretrained(small / "tiny-xlmr", **config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(small / "tiny-xlmr")
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(folder)
    status, output, errors = invoke(predict, "--model", "published", "--text", "word " * 900, "--format", "json")
    assert status == 0, errors
    row = json.loads(output)
    assert list(row["probabilities"]) == ["NE", "OP", "HI"] and row["num_tokens"] == 512
    assert all(0.3 < share < 0.7 for share in row["probabilities"].values())


def test_adapters(model, invoke):
    recipe = [*FAST, "--lora_targets", "query", "--subfolder", "lora"]
    shutil.rmtree("models")
    assert invoke(finetune, *TRAINED, *recipe)[0] == 0
    assert Path("models/lora/tiny-en-fr/adapter_model.safetensors").is_file()
    first = invoke(predict, *TRAINED, "--subfolder", "lora", "--text", *TEXTS)
    second = invoke(predict, "--model", "models/lora/tiny-en-fr", "--precision", "fp32", "--text", *TEXTS)
    assert first[0] == second[0] == 0 and first[1] == second[1]


def test_transformers_own_pipeline_reads_our_models(model, invoke):
    """As the README and the model's card show it; its probabilities are those at temperature 1."""
    from transformers import pipeline

    classify = pipeline("text-classification", "models/tiny-en-fr", top_k=None, truncation=True)
    found = [{row["label"]: row["score"] for row in rows} for rows in classify(TEXTS)]
    _, output, _ = invoke(predict, *TRAINED, "--temperature", "1", "--format", "json", "--text", *TEXTS)
    for theirs, line in zip(found, output.splitlines(), strict=True):
        ours = json.loads(line)["probabilities"]
        assert ours == {name: pytest.approx(theirs[name], abs=6e-5) for name in ours}


def test_real_texts(real_corpus, model, invoke):
    """A test file of the real corpus: as many labels as rows, in their order."""
    path = Path(real_corpus) / "corpus/test/sv.tsv"
    status, _, errors = invoke(predict, *TRAINED, "--input", str(path), "--keep_columns", "label")
    assert status == 0, errors
    labels = [label for [label], _ in open_corpus(real_corpus).rows("test", "sv")]
    assert [row["label"] for row in read_jsonl(Path("predictions/sv.jsonl.zst"))] == labels
