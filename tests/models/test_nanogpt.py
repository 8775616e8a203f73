"""nanoGPT checkpoints give the numbers that nanoGPT computes, and broken ones are refused."""

import gzip
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.factories import skip
from utils.errors import UserError
from utils.models.nanogpt import convert, load_nanogpt, nanogpt_tokenizer
from utils.models.registry import load_registry

SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 64, "vocab_size": 320}


@pytest.fixture(scope="session")
def real_ipa():
    folder = Path(os.environ.get("IPA_DATA_PATH", ""))
    if not (folder / "checkpoints").is_dir():
        skip("IPA_DATA_PATH does not name a folder with nanoGPT checkpoints")
    return folder.resolve()


class NanoGPT(torch.nn.Module):
    """The forward pass of nanoGPT's model, written from its description, for checkpoints of our own."""

    def __init__(self, sizes, bias):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        width = sizes["n_embd"]
        shapes = {"transformer.wte.weight": (sizes["vocab_size"], width), "transformer.wpe.weight": (64, width)}
        for layer in range(sizes["n_layer"]):
            base = f"transformer.h.{layer}."
            linear = {"attn.c_attn": (3 * width, width), "attn.c_proj": (width, width)}
            linear |= {"mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
            for name, shape in linear.items():
                shapes[f"{base}{name}.weight"] = shape
                if bias:
                    shapes[f"{base}{name}.bias"] = shape[:1]
            for name in ("ln_1", "ln_2"):
                shapes[f"{base}{name}.weight"] = (width,)
                if bias:
                    shapes[f"{base}{name}.bias"] = (width,)
        shapes["transformer.ln_f.weight"] = (width,)
        if bias:
            shapes["transformer.ln_f.bias"] = (width,)
        self.sizes = sizes
        self.state = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        self.state["lm_head.weight"] = self.state["transformer.wte.weight"]

    def forward(self, ids):
        state, functional = self.state, torch.nn.functional
        width, heads = self.sizes["n_embd"], self.sizes["n_head"]

        def linear(name, x):
            return functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

        def norm(name, x):
            return functional.layer_norm(x, (width,), state[f"{name}.weight"], state.get(f"{name}.bias"), 1e-5)

        x = state["transformer.wte.weight"][ids] + state["transformer.wpe.weight"][: ids.shape[1]]
        for layer in range(self.sizes["n_layer"]):
            base = f"transformer.h.{layer}."
            q, k, v = (
                part.view(*ids.shape, heads, -1).transpose(1, 2)
                for part in linear(f"{base}attn.c_attn", norm(f"{base}ln_1", x)).split(width, dim=2)
            )
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + linear(f"{base}attn.c_proj", y.transpose(1, 2).reshape(*ids.shape, width))
            hidden = functional.gelu(linear(f"{base}mlp.c_fc", norm(f"{base}ln_2", x)))
            x = x + linear(f"{base}mlp.c_proj", hidden)
        return norm("transformer.ln_f", x) @ state["lm_head.weight"].T


def save(path, bias=False, prefix="", change=lambda checkpoint: None):
    model = NanoGPT(SIZES, bias)
    weights = {f"{prefix}{name}": value for name, value in model.state.items()}
    checkpoint = {"model": weights, "model_args": {**SIZES, "bias": bias, "dropout": 0.0}, "iter_num": 5}
    change(checkpoint)
    torch.save(checkpoint, path)
    return model


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_the_same_logits(tmp_path, bias, prefix):
    ids = torch.randint(0, 320, (3, 20), generator=torch.Generator().manual_seed(2))
    expected = save(tmp_path / "ckpt.pt", bias, prefix)(ids)
    model = load_nanogpt(tmp_path / "ckpt.pt")
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=0)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.config.activation_function == "gelu"


@pytest.mark.parametrize("name", ["rus-pol-ipa", "small-bias"])
def test_real_checkpoints(real_ipa, name):
    folder = real_ipa / "checkpoints" / name
    expected = np.load(folder / "expected.npz")
    model = load_nanogpt(folder / "ckpt.pt")
    with torch.no_grad():
        outputs = model(torch.from_numpy(expected["input_ids"]).long(), output_hidden_states=True)
    assert np.abs(outputs.logits.numpy() - expected["logits"]).max() < 1e-5


class Command:
    def __reduce__(self):
        return os.system, ("touch ran",)


def change_shape(checkpoint):
    checkpoint["model"]["transformer.h.0.mlp.c_fc.weight"] = torch.zeros(8, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("model_args"), "no 'model_args' in it"),
        (lambda c: c.pop("model"), "no 'model' in it"),
        (lambda c: c["model_args"].pop("n_head"), "model_args has no 'n_head'"),
        (lambda c: c["model_args"].update(n_layer="2"), "must be a positive whole number, got '2'"),
        (lambda c: c["model_args"].update(n_head=5), "n_embd 32 is no multiple of n_head 5"),
        (lambda c: c["model_args"].update(n_layer=3), "the weights of 'transformer.h.2.ln_1.weight' are missing"),
        (lambda c: c["model_args"].update(n_layer=1), "is no weight of a GPT-2 as its model_args describe it"),
        (lambda c: c["model_args"].update(bias=True), "the weights of 'transformer.h.0.ln_1.bias' are missing"),
        (lambda c: c["model_args"].update(vocab_size=300), "has the shape [320, 32], but its model_args say [300, 32]"),
        (change_shape, "c_fc.weight has the shape [8, 32], but its model_args say [128, 32]"),
        (lambda c: c.update(config=Command()), "would run code when it is loaded"),
    ],
)
def test_broken_checkpoints(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "ckpt.pt", change=change)
    with pytest.raises(UserError) as error:
        load_nanogpt(tmp_path / "ckpt.pt")
    assert message in str(error.value) and "ckpt.pt" in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps([1, 2])])
def test_other_files(tmp_path, content):
    (tmp_path / "ckpt.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"ckpt\.pt"):
        load_nanogpt(tmp_path / "ckpt.pt")
    with pytest.raises(UserError, match="does not exist"):
        load_nanogpt(tmp_path / "none.pt")


@pytest.fixture
def tokenizer_files(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["a small text of a few small words"] * 3, trainer)
    tokenizer.model.save(str(tmp_path))
    return {"vocab": str(tmp_path / "vocab.json"), "merges": str(tmp_path / "merges.txt")}


def test_converted_to_an_ordinary_folder(tmp_path, tokenizer_files):
    save(tmp_path / "ckpt.pt")
    files = [tmp_path / name for name in ("ckpt.pt", "vocab.json", "merges.txt")]
    folder = convert(*files, tmp_path / "cache")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert convert(*files, tmp_path / "cache") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before, "converted once"

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "a small \u0255\u02b2 text"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.pad_token_id not in (*ids, tokenizer.eos_token_id)
    assert tokenizer.padding_side == "right" and tokenizer.model_max_length == 64

    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    assert model.config.pad_token_id == tokenizer.pad_token_id < model.config.vocab_size
    both = tokenizer([text, "a"], padding=True, return_tensors="pt")
    with torch.no_grad():
        alone = model(**tokenizer("a", return_tensors="pt")).logits
        torch.testing.assert_close(model(**both).logits[1:], alone, atol=1e-5, rtol=0)


def test_tokens_without_an_embedding(tmp_path, tokenizer_files):
    with pytest.raises(UserError, match="the model has embeddings for 99 tokens only"):
        nanogpt_tokenizer(Path(tokenizer_files["vocab"]), Path(tokenizer_files["merges"]), 99)
    with pytest.raises(UserError, match=r"none\.txt does not exist"):
        nanogpt_tokenizer(Path(tokenizer_files["vocab"]), tmp_path / "none.txt", 999)


@pytest.mark.slow
def test_real_tokenizers(real_ipa):
    for kind, text in (("ipa", "prʲɪˈvʲet mʲir"), ("normal", "Привет, мир! Dzień dobry")):
        files = [real_ipa / f"bpe-rus-pol-{kind}-{name}" for name in ("vocab.json", "merges.txt")]
        tokenizer = nanogpt_tokenizer(*files, 50_304)
        assert len(tokenizer) == 50_002
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.fixture
def registered(tmp_path, tokenizer_files, monkeypatch):
    """A registry with a nanoGPT model, its checkpoint given as prefix/name."""
    (tmp_path / "prefix/name").mkdir(parents=True)
    save(tmp_path / "prefix/name/ckpt.pt")
    entry = {"checkpoint": "prefix/name", "format": "nanogpt"}
    entry["tokenizer"] = {"vocab": "vocab.json", "merges": "merges.txt"}
    (tmp_path / "registry.json").write_text(json.dumps({"ipa": entry}))
    monkeypatch.setenv("MODEL_REGISTRY", str(tmp_path / "registry.json"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_classifiers_of_nanogpt_models(registered, small, monkeypatch, invoke):
    import evaluate
    import finetune

    monkeypatch.setenv("CORPUS_PATH", str(small / "register-corpus"))
    arguments = ["--model_name", "ipa", "--train_langs", "en"]
    status, _, err = invoke(finetune, *arguments, "--num_epochs", "1", "--max_length", "64")
    assert status == 0, err
    assert json.loads((registered / "models/ipa-en/config.json").read_text())["model_type"] == "gpt2"
    # Evaluated from the saved folder alone.
    (registered / "prefix/name/ckpt.pt").unlink()
    (registered / "registry.json").unlink()
    assert invoke(evaluate, *arguments, "--eval_langs", "en", "es")[0] == 0


def test_surprisals_of_nanogpt_models(registered, invoke):
    import finetune_lm
    from utils.evaluation.token_table import surprisals

    (registered / "test.txt.gz").write_bytes(gzip.compress(b"a small text\n"))
    status, _, err = invoke(finetune_lm, "--model_name_or_path", "ipa", "--test_file", "test.txt.gz")
    assert status == 0, err
    frame = pandas.read_csv(registered / "outputs/test_only/ipa/ipa-test_results.csv.gz")
    folder = next((registered / ".cache").glob("nanogpt-*/"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer("a small text")["input_ids"]]])
    logits = NanoGPT(SIZES, False)(ids)
    places = torch.arange(ids.shape[1] - 1)
    # The model never saw a beginning of a text, whose embedding the conversion leaves as it is.
    bits, *_ = surprisals(logits, torch.zeros_like(places), places, ids[0, 1:])
    assert list(frame["surprisal_bits"]) == pytest.approx(bits, abs=1e-4)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"format": "nanogpt", "checkpoint": "x"}, 'needs a tokenizer: {"vocab": FILE, "merges": FILE}'),
        ({"format": "nanogpt", "checkpoint": "x", "tokenizer": {"vocab": "v"}}, "needs a tokenizer"),
        ({"checkpoint": "x/y", "tokenizer": {"vocab": "v", "merges": "m"}}, "is for checkpoints of the format nanogpt"),
    ],
)
def test_mistakes_in_the_registry(tmp_path, entry, message):
    (tmp_path / "registry.json").write_text(json.dumps({"a": entry}))
    with pytest.raises(UserError) as error:
        load_registry(str(tmp_path / "registry.json"))
    assert message in str(error.value)


def test_what_a_nanogpt_model_lacks(registered, invoke):
    import download_model

    status, out, _ = invoke(download_model)
    assert status == 0 and "complete" in out
    (registered / "merges.txt").unlink()
    status, out, _ = invoke(download_model, "--check")
    assert status == 1 and "merges.txt does not exist" in out
