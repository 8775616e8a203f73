"""Baselines beside the models: TF-IDF and linear probes of frozen encoders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
import finetune
import post_eval
from tests.factories import FAST, check_layout, write_label_sets
from utils.evaluation.results import load_predictions, load_results
from utils.evaluation.selection import select_grid
from utils.figures.style import PAPER, SCREEN, panels_of
from utils.figures.tve import train_vs_eval_figure

pytestmark = pytest.mark.slow


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["tfidf", "tiny-probe"])
def test_a_baseline_trains_and_validates_on_the_texts_of_finetune(inputs, invoke, name):
    texts = ["--train_langs", "en-fr", "--max_train_texts", "70", "--validation_size", "20"]
    status, output, errors = invoke(finetune, "--model_name", name, *texts)
    assert status == 0, errors
    assert f"{name}-en-fr: validation macro F1" in output
    given = ["--model_name", "tiny", "--num_epochs", "1", "--precision", "fp32"]
    assert invoke(finetune, *given, *FAST[2:], *texts)[0] == 0
    ours, theirs = (read_json(f"outputs/{x}-en-fr/run.json") for x in (name, "tiny"))
    for counts in ("train_registers", "validation_registers"):
        assert ours[counts] == theirs[counts] and sum(ours[counts].values()) in (70, 20)
    assert ours["data"] == theirs["data"] and ours["status"] == "complete"
    # All languages with test texts, at once; probabilities of every register.
    assert sorted(path.stem for path in Path(f"outputs/{name}-en-fr/eval").glob("*.json")) == ["en", "es", "fr"]
    table = load_predictions(Path(f"outputs/{name}-en-fr"), "es")
    registers = list(table.columns[3:])
    assert len(table) == 24 and np.allclose(table[registers].sum(axis=1), 1, atol=1e-6)
    assert "is already complete" in invoke(finetune, "--model_name", name, *texts)[1]
    assert not Path(f"models/{name}-en-fr").exists()


def test_a_probe_reads_the_mean_of_a_frozen_encoder(inputs, invoke):
    """The embeddings are those of transformers, whatever else is in the batch; and the same run gives the same."""
    import transformers

    from utils.evaluation.embeddings import Embedder
    from utils.models.registry import find_model

    spec = find_model("tiny", str(inputs.registry))
    texts = ["a short one", "the minister said on friday that the border would stay open " * 3, "x"]
    found = Embedder(spec, 64, "fp32", inputs.folder / "cache").embed(texts)
    folder = inputs.registry.parent / "tiny-xlmr"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    for text, vector in zip(texts, found, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=64)).last_hidden_state
        assert vector == pytest.approx(hidden[0].mean(0).numpy(), abs=1e-5)
    command = ["--model_name", "tiny-probe", "--train_langs", "en", "--precision", "fp32"]
    assert invoke(finetune, *command)[0] == 0
    first = Path("outputs/tiny-probe-en/predictions/fr.csv").read_bytes()
    assert invoke(finetune, *command, "--force")[0] == 0
    assert Path("outputs/tiny-probe-en/predictions/fr.csv").read_bytes() == first


@pytest.mark.parametrize("name", ["tfidf", "tiny-probe"])
def test_baselines_of_label_sets(inputs, invoke, monkeypatch, name):
    monkeypatch.setenv("CORPUS_PATH", str(write_label_sets(inputs.folder / "sets")))
    status, _, errors = invoke(finetune, "--model_name", name, "--train_langs", "en", "--threshold", "per_label")
    assert status == 0, errors
    result = read_json(f"outputs/{name}-en/eval/fr.json")
    assert result["labels"] == "multi" and result["micro_f1"] > 0.95
    assert result["threshold_source"]["chosen_on"] == "validation"


def test_baselines_have_rows_of_their_own_in_every_table_and_figure(inputs, invoke):
    given = ["--train_langs", "en", "--precision", "fp32"]
    assert invoke(finetune, "--model_name", "tfidf", *given)[0] == 0
    assert invoke(finetune, "--model_name", "tiny-probe", *given)[0] == 0
    # Imagined results of two models, with the files of a baseline.
    for model in ("one", "two"):
        folder = Path(f"outputs/{model}-en/eval")
        folder.mkdir(parents=True)
        for path in Path("outputs/tfidf-en/eval").glob("*.json"):
            (folder / path.name).write_text(json.dumps(read_json(path) | {"model": model}))
    status, _, errors = invoke(post_eval)
    assert status == 0, errors
    assert "tiny-probe,en," in Path("outputs/summary.csv").read_text()
    assert '"name":"tfidf-en"' in Path("outputs/report.html").read_text()
    runs = load_results(Path("outputs"))
    for style in (SCREEN, PAPER):
        figure = train_vs_eval_figure(runs, select_grid(runs), style)
        check_layout(figure)
        titles = [axes.get_title() for axes in panels_of(figure)]
        assert [title.partition(":")[0] for title in titles] == ["one", "two"] * 2 + ["tfidf", "tiny-probe"] * 2
        if style is SCREEN:
            heights = [round(axes.get_position().y0, 3) for axes in panels_of(figure)]
            assert heights[0] == heights[1] > heights[2] == heights[3] > heights[4] == heights[5] > heights[6]


def test_a_probe_reads_windows_too(inputs, invoke):
    """The vector of a long text is the mean of those of its windows."""
    from utils.data.windows import Reading
    from utils.evaluation.embeddings import Embedder
    from utils.models.registry import find_model

    spec = find_model("tiny", str(inputs.registry))
    text = "the minister said on friday that the border would stay open"
    cut = Embedder(spec, 12, "fp32", inputs.folder / "cache")
    windows = Embedder(spec, 12, "fp32", inputs.folder / "cache", Reading("windows", 10))
    tokens = windows.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(tokens) > 20
    assert not np.allclose(cut.embed([text]), windows.embed([text]))
    assert windows.embed(["x"]) == pytest.approx(cut.embed(["x"]), abs=1e-6)
    given = ["--model_name", "tiny-probe", "--train_langs", "en", "--max_length", "32", "--long_texts", "windows"]
    status, _, errors = invoke(finetune, *given)
    assert status == 0, errors
    status, _, errors = invoke(finetune, "--model_name", "tfidf", "--train_langs", "en", "--long_texts", "windows")
    assert status == 2 and "--long_texts windows: tfidf reads all of every text" in errors


def test_another_baseline_replaces_none_and_what_it_ignores_is_said(inputs, invoke):
    given = ["--model_name", "tfidf", "--train_langs", "en"]
    status, _, errors = invoke(finetune, *given, "--balanced", "--learning_rate", "1e-3", "--max_train_texts", "40")
    assert status == 0 and errors == "without effect on tfidf: --learning_rate, --balanced\n"
    before = Path("outputs/tfidf-en/eval/fr.json").read_bytes()
    status, _, errors = invoke(finetune, *given)
    assert status == 2 and "holds a run with other options (max_train_texts 40 -> None)" in errors
    assert Path("outputs/tfidf-en/eval/fr.json").read_bytes() == before
    assert invoke(finetune, *given, "--force")[0] == 0
    assert Path("outputs/tfidf-en/eval/fr.json").read_bytes() != before
    status, _, errors = invoke(finetune, *given, "--do_optimize")
    assert status == 2 and "--do_optimize: tfidf has no hyperparameters to search" in errors
    status, _, errors = invoke(evaluate, *given, "--eval_lang", "en")
    assert status == 2 and "tfidf-en is a baseline: finetune.py has evaluated it, and no model is kept" in errors


def test_a_language_that_fails_does_not_cost_the_others(inputs, invoke, monkeypatch):
    corpus = inputs.folder / "corpus"
    shutil.copytree(inputs.corpus, corpus)
    (corpus / "corpus/test/es.tsv").write_text("IN OP\ta text of two registers\n")
    monkeypatch.setenv("CORPUS_PATH", str(corpus))
    status, _, errors = invoke(finetune, "--model_name", "tfidf", "--train_langs", "en")
    assert status == 1 and "tfidf-en: es failed: " in errors and "es.tsv, line 1: 2 registers" in errors
    assert sorted(path.stem for path in Path("outputs/tfidf-en/eval").glob("*.json")) == ["en", "fr"]
    assert read_json("outputs/tfidf-en/run.json")["status"] == "complete"


def test_a_baseline_that_fails_says_so_in_its_record(inputs, invoke):
    (inputs.folder / "broken.json").write_text(json.dumps({"gone": {"checkpoint": "./nowhere"}}))
    given = ["--model_name", "gone-probe", "--train_langs", "en", "--model_registry", "broken.json"]
    status, _, errors = invoke(finetune, *given)
    assert status == 2 and "nowhere" in errors
    record = read_json("outputs/gone-probe-en/run.json")
    assert record["status"] == "failed" and "nowhere" in record["error"]


def test_a_probe_of_no_model(inputs, invoke):
    status, _, errors = invoke(finetune, "--model_name", "tyni-probe", "--train_langs", "en")
    assert status == 2 and "model 'tyni' is not in" in errors and "known: tiny" in errors
