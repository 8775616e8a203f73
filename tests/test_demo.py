"""The demo's inputs, and that a classifier learns from them."""

import csv
import filecmp
import json
import shutil
import struct
import subprocess
import sys

import pytest
import torch

import evaluate
import finetune
from demo.build import build_corpus
from demo.e5 import checkpoint
from tests.factories import PROJECT
from utils.data.batching import PaddingCollator
from utils.data.tokenization import load_tokenizer
from utils.errors import UserError
from utils.models.loading import build_classifier
from utils.models.packing import packing_collator


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


@pytest.fixture(scope="module")
def e5(tmp_path_factory):
    """multilingual-e5-small with its real weights: half a gigabyte, removed at the end."""
    folder = tmp_path_factory.mktemp("e5")
    yield checkpoint(folder)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_e5_puts_translations_beside_each_other(e5):
    """What an encoder with these weights does, and no other: a wrong nibble or name would show."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(e5), AutoModel.from_pretrained(e5).eval()
    sentences = [
        "query: The dog is sleeping in front of the door.",
        "query: Le chien dort devant la porte.",
        "query: Hunden sover framför dörren.",
        "query: The government has raised taxes on imported cars.",
    ]
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    cosines = means @ means.T
    assert cosines[:3, :3].min() > 0.87
    assert cosines[3, :3].max() < 0.76
    assert tokenizer.decode(batch["input_ids"][1], skip_special_tokens=True) == sentences[1]


@pytest.mark.slow
def test_e5_computes_packs_as_it_computes_padded_batches(e5):
    """With real weights, whose activations are large: the difference is that of two ways to add the same numbers."""
    model = build_classifier(e5, ["A", "B", "C"], pooling="mean").eval()
    generator = torch.Generator().manual_seed(0)
    rows = [{"input_ids": torch.randint(5, 250_000, (n,), generator=generator).tolist()} for n in (200, 129, 30, 2)]
    tokenizer = load_tokenizer(e5)
    with torch.no_grad():
        padded = model(**PaddingCollator(tokenizer)(rows)).logits
        packed = packing_collator(model, tokenizer)
        torch.testing.assert_close(model(**packed(rows)).logits, padded, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_e5_is_written_once_and_named_in_a_registry(e5):
    written = (e5 / "model.safetensors").stat().st_mtime_ns
    assert checkpoint(e5.parent) == e5
    assert (e5 / "model.safetensors").stat().st_mtime_ns == written


def test_a_file_of_another_kind(tmp_path):
    from demo import e5 as module

    (tmp_path / "other.bin").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UserError, match="other.bin: expected the magic number E5S1"):
        module._write(tmp_path / "other.bin", tmp_path / "e5")
    (tmp_path / "newer.bin").write_bytes(b"E5S1" + struct.pack("<8ifi", 2, *[1] * 7, 0.0, 32))
    with pytest.raises(UserError, match="version 2 with blocks of 32"):
        module._write(tmp_path / "newer.bin", tmp_path / "e5")
