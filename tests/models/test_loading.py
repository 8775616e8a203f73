"""What a language model was trained to do, told by its configuration; where models come from."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BertConfig, GPT2Config

from tests.factories import KINDS
from utils.data.tokenization import load_tokenizer
from utils.errors import UserError
from utils.models.loading import (
    build_classifier,
    check_vocabulary,
    choose_max_length,
    classifier_labels,
    find_task,
    load_classifier,
    load_config,
    load_language_model,
    task_of,
)
from utils.models.registry import find_checkpoint


@pytest.mark.parametrize(
    ("model_type", "architecture", "task"),
    [
        ("gpt2", "GPT2LMHeadModel", "lm"),
        ("gpt2", None, "lm"),
        ("llama", "LlamaForCausalLM", "lm"),
        ("gpt_neox", None, "lm"),
        ("opt", "OPTForCausalLM", "lm"),
        ("bert", "BertForMaskedLM", "mlm"),
        ("bert", "BertModel", "mlm"),
        ("bert", "BertLMHeadModel", "lm"),
        ("bert", None, "mlm"),
        ("roberta", "RobertaForMaskedLM", "mlm"),
        ("xlm-roberta", None, "mlm"),
        ("modernbert", "ModernBertForMaskedLM", "mlm"),
        ("electra", None, "mlm"),
        ("t5", "T5ForConditionalGeneration", "seq2seq"),
        ("t5", None, "seq2seq"),
        ("mt5", "MT5ForConditionalGeneration", "seq2seq"),
        ("bart", "BartForConditionalGeneration", "seq2seq"),
    ],
)
def test_tasks_of_configurations(model_type, architecture, task):
    config = AutoConfig.for_model(model_type)
    config.architectures = [architecture] if architecture else None
    assert find_task(config) == task


def test_the_user_knows_better_and_some_configurations_know_nothing():
    assert find_task(BertConfig(), "lm") == "lm"
    with pytest.raises(UserError, match="does not say what it is; give --model_task"):
        find_task(AutoConfig.for_model("vit"))


@pytest.mark.parametrize(("kind", "task"), [("gpt2", "lm"), ("bert", "mlm"), ("t5", "seq2seq")])
def test_tasks_of_models(lm_inputs, kind, task):
    model = load_language_model(lm_inputs / kind, task)
    assert task_of(model) == task
    assert find_task(model.config) == task


def test_where_models_come_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "registry.json").write_text(
        '{"xlmr": {"checkpoint": "owner/xlmr", "revision": "abc"}, "gpt2": "other/gpt2"}'
    )
    monkeypatch.setenv("MODEL_REGISTRY", str(tmp_path / "registry.json"))
    assert find_checkpoint("gpt2").checkpoint == str(tmp_path / "gpt2"), "a folder first"
    assert find_checkpoint("xlmr", "main").revision == "abc"
    assert find_checkpoint("xlmr", "v2").revision == "v2"
    spec = find_checkpoint("google-t5/t5-small")
    assert (spec.checkpoint, spec.revision, spec.is_local) == ("google-t5/t5-small", None, False)
    for name in ("../nowhere", "/nowhere/at/all", "a/b/c", ".hidden"):
        with pytest.raises(UserError, match="there is no such folder"):
            find_checkpoint(name)


def test_another_configuration(lm_inputs):
    config = GPT2Config.from_pretrained(lm_inputs / "gpt2", resid_pdrop=0.5)
    assert load_language_model(lm_inputs / "gpt2", "lm", config).config.resid_pdrop == 0.5


def without(folder, *parts):
    """Take the weights away whose names hold one of these."""
    weights = load_file(folder / "model.safetensors")
    kept = {name: x for name, x in weights.items() if not any(part in name for part in parts)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def trained(small, tmp_path):
    """A folder as finetune.py saves one."""
    model = build_classifier(small / "tiny-xlmr", ["IN", "OP"])
    model.save_pretrained(tmp_path / "trained")
    load_tokenizer(small / "tiny-xlmr").save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.fault(16)
def test_a_layer_that_is_missing_is_no_random_layer(small, trained, tmp_path, lm_inputs):
    base = tmp_path / "base"
    shutil.copytree(small / "tiny-xlmr", base)
    build_classifier(base, ["IN", "OP"])
    without(base, "encoder.layer.1.output")
    with pytest.raises(UserError, match=r"base: weights are missing .*encoder\.layer\.1\.output.* and 1 more"):
        build_classifier(base, ["IN", "OP"])
    load_classifier(trained, torch.device("cpu"))
    without(trained, "classifier.out_proj.bias")
    with pytest.raises(UserError, match=r"trained: weights are missing .*classifier\.out_proj\.bias; fetch it again"):
        load_classifier(trained, torch.device("cpu"))
    for kind, task in KINDS.items():
        shutil.copytree(lm_inputs / kind, tmp_path / kind)
        load_language_model(tmp_path / kind, task)
        without(tmp_path / kind, {"gpt2": "h.1.mlp", "bert": "layer.0.attention", "t5": "decoder.block.1"}[kind])
        with pytest.raises(UserError, match=f"{kind}: weights are missing"):
            load_language_model(tmp_path / kind, task)


def test_a_layer_of_another_shape_is_refused_and_a_head_of_another_task_replaced(small, trained):
    assert build_classifier(trained, ["IN", "OP", "HI"]).config.num_labels == 3
    weights = load_file(trained / "model.safetensors")
    name = next(name for name in weights if "layer.0.intermediate.dense.bias" in name)
    save_file(weights | {name: weights[name][:3].clone()}, trained / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"of another shape: .*layer\.0\.intermediate\.dense\.bias"):
        build_classifier(trained, ["IN", "OP", "HI"])


def damages(folder):
    """Damage each file of a folder in several ways; yields what was done, with the folder damaged so."""
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        # Tokens of a damaged text or setting may be as good as others: only what cannot be read is tried.
        ways = [b"", content[: len(content) // 2], b"\x00" * 40 + content[40:], content[:10], b"[]", b"null", b"3"]
        if path.name == "config.json":
            settings = json.loads(content)
            for key, value in (
                ("num_hidden_layers", "2"), ("num_hidden_layers", None), ("hidden_size", "wide"), ("hidden_size", 7),
                ("hidden_size", -32), ("num_attention_heads", 0), ("num_attention_heads", [2]), ("vocab_size", 3),
                ("vocab_size", {}), ("id2label", {"0": "IN"}), ("id2label", 3), ("model_type", "bret"),
                ("model_type", 5), ("hidden_act", "gulp"), ("max_position_embeddings", "many"), ("pad_token_id", 10**6),
                ("max_position_embeddings", 10), ("intermediate_size", 1.5),
            ):  # fmt: skip
                ways.append(json.dumps(settings | {key: value}).encode())
        if path.name == "tokenizer_config.json":
            ways.append(json.dumps(json.loads(content) | {"model_max_length": "long"}).encode())
        for number, damaged in enumerate(ways):
            if damaged != content:
                path.write_bytes(damaged)
                yield f"{path.name} {number}"
        path.write_bytes(content)


def test_whatever_is_damaged_is_named(trained):
    """Errors of the libraries (TypeError, KeyError, SafetensorError ...) named no file."""
    batch = {"input_ids": torch.tensor([[0, 5, 6, 2]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    refused, count = [], 0
    for what in damages(trained):
        count += 1
        try:
            tokenizer = load_tokenizer(trained)
            choose_max_length(load_config(trained), None)
            model = load_classifier(trained, torch.device("cpu"))
            classifier_labels(model)
            check_vocabulary(tokenizer, model, trained)
            model(**batch)
        except UserError as error:
            refused.append(what)
            assert str(trained) in str(error) and "\n" not in str(error), what
            assert "again" in str(error), what
        except Exception as error:
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
    assert count > 30 and len(refused) > 0.8 * count, set(refused)
