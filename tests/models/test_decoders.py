"""Decoders as classifiers: tiny random ones, with adapters, from training to labels."""

import json
import shutil

import pytest
import torch
import transformers

import evaluate
import finetune
import predict
from tests.factories import FAST, PROJECT
from utils.models.registry import load_registry

pytestmark = pytest.mark.slow

SMALL = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
    **{"head_dim": 16, "intermediate_size": 37, "max_position_embeddings": 600},
}
KINDS = {"qwen3": transformers.Qwen3Config, "gemma3": transformers.Gemma3TextConfig}


@pytest.fixture
def decoders(inputs):
    """A registry with random decoders that have the tokenizer of the small encoder, without a token for padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(inputs.registry.parent / "tiny-xlmr")
    registry = {}
    for name, make in KINDS.items():
        config = make(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=2, pad_token_id=None, **SMALL)
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(inputs.folder / name)
        tokenizer.save_pretrained(inputs.folder / name)
        described = inputs.folder / name / "tokenizer_config.json"
        content = json.loads(described.read_text())
        described.write_text(json.dumps({key: value for key, value in content.items() if key != "pad_token"}))
        registry[name] = {"checkpoint": f"./{name}", "max_length": 64}
    (inputs.folder / "decoders.json").write_text(json.dumps(registry))
    return inputs


@pytest.mark.parametrize("in_4bit", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_with_adapters_is_evaluated_as_it_was_validated(decoders, invoke, kind, in_4bit):
    if in_4bit:
        pytest.importorskip("bitsandbytes")
    given = ["--model_name", kind, "--train_langs", "en", "--precision", "fp32"]
    options = [*FAST[:4], "--batch_size", "8", "--lora_targets", "attention", "--pooling", "last"]
    options += ["--load_in_4bit"] if in_4bit else []
    registry = ["--model_registry", "decoders.json"]
    status, output, errors = invoke(finetune, *given, *options, *registry)
    assert status == 0, errors
    assert "padded in pieces" in output or kind == "qwen3"
    run = decoders.folder / f"outputs/{kind}-en"
    validation = json.loads((run / "train.json").read_text())["epochs"]
    assert validation[-1]["validation"]["loss"] < 3
    assert invoke(evaluate, *given, "--eval_langs", "en", "fr")[0] == 0
    # One text at a time, and many in a batch: the last token is found in both.
    shutil.rmtree("predictions", ignore_errors=True)
    path = decoders.corpus / "corpus/test/fr.tsv"
    status, _, errors = invoke(predict, *given, "--input", str(path), "--output_format", "jsonl")
    assert status == 0, errors
    first = json.loads((decoders.folder / "predictions/fr.jsonl").read_text().splitlines()[0])
    text = path.read_text().splitlines()[0].split("\t")[1]
    _, output, _ = invoke(predict, *given, "--format", "json", "--text", text)
    alone = json.loads(output)["probabilities"]
    assert alone == {
        name: pytest.approx(share, abs=2e-3 if in_4bit else 2e-4) for name, share in first["probabilities"].items()
    }


def test_pooling_of_a_decoder(decoders, invoke):
    given = ["--model_name", "qwen3", "--train_langs", "en", "--model_registry", "decoders.json", "--precision", "fp32"]
    status, _, errors = invoke(finetune, *given, "--num_epochs", "1", "--pooling", "mean")
    assert status == 0, errors
    card = (decoders.folder / "models/qwen3-en/README.md").read_text()
    assert "Its head reads the mean of all tokens" in card
    status, _, errors = invoke(finetune, *given, "--pooling", "cls", "--subfolder", "x")
    assert status == 2 and "--pooling cls: the first token of qwen3 models has seen no other" in errors


def test_the_registry_of_decoders():
    registry = load_registry(str(PROJECT / "config/models-llm.json"))
    assert {"qwen3-0.6b", "gemma3-1b"} <= set(registry)
    assert all("/" in spec.checkpoint for spec in registry.values())
