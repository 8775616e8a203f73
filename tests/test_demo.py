"""The demo's inputs, and that a classifier learns from them."""

import csv
import filecmp
import json
import subprocess
import sys

import pytest

import evaluate
import finetune
from demo.build import build_corpus
from tests.factories import PROJECT


def test_the_corpus_has_every_register_in_three_languages(demo):
    for lang in ("en", "es", "fr"):
        for split in ("train", "test"):
            path = demo / "register-corpus" / "corpus" / split / f"{lang}.tsv"
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file, delimiter="\t"))
            assert {register for register, _ in rows} == {"IN", "OP", "RN", "JN", "HI", "LY", "ND", "AD"}
            assert all(text and "{" not in text for _, text in rows)


def test_the_corpus_is_the_same_every_time(demo, tmp_path):
    build_corpus(tmp_path)
    compared = filecmp.dircmp(demo / "register-corpus" / "corpus" / "train", tmp_path / "corpus" / "train")
    assert sorted(compared.same_files) == ["en.tsv", "es.tsv", "fr.tsv"]


@pytest.mark.slow
def test_the_model_and_its_tokenizer_are_the_same_every_time(demo, tmp_path):
    """In another process, where hashes are in another order."""
    subprocess.run([sys.executable, "-m", "demo.build", str(tmp_path)], cwd=PROJECT, check=True, capture_output=True)
    for path in (demo / "tiny-xlmr").iterdir():
        assert (tmp_path / "tiny-xlmr" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_the_demo_classifier_learns(demo, tmp_path, monkeypatch, invoke):
    """The recipe of demo/run.sh reaches a macro F1 above 0.8 on the test texts of its own language."""
    script = (PROJECT / "demo" / "run.sh").read_text(encoding="utf-8")
    recipe = script.partition("recipe=(")[2].partition(")")[0].split()
    assert recipe
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORPUS_PATH", str(demo / "register-corpus"))
    monkeypatch.setenv("MODEL_REGISTRY", str(demo / "model2chckpt.json"))
    arguments = ["--model_name", "tiny", "--train_langs", "en"]
    assert invoke(finetune, *arguments, *recipe)[0] == 0
    assert invoke(evaluate, *arguments, "--eval_langs", "en")[0] == 0
    result = json.loads((tmp_path / "outputs/tiny-en/eval/en.json").read_text())
    assert result["macro_f1"] > 0.8
