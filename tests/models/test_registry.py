import json

import pytest

from tests.factories import PROJECT
from utils.errors import UserError
from utils.models.registry import checkpoint_problem, download_patterns, find_model, load_registry


def write(tmp_path, content) -> str:
    path = tmp_path / "models.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.fault(12)
def test_the_projects_registry_is_the_only_list_of_models():
    registry = load_registry(str(PROJECT / "model2chckpt.json"))
    assert {"mbert", "xlmr", "glot500", "xlmr-large", "mmbert"} <= set(registry)
    assert registry["xlmr"].checkpoint == "FacebookAI/xlm-roberta-base"
    for script in PROJECT.glob("*.py"):
        assert "glot500" not in script.read_text(encoding="utf-8"), script


def test_entries_as_strings_objects_and_local_folders(tmp_path):
    (tmp_path / "local").mkdir()
    path = write(
        tmp_path,
        {
            "a": "org/model",
            "b": {"checkpoint": "org/model", "revision": "v1", "batch_size": 4, "max_length": 128},
            "c": "./local",
            "d": "local",
        },
    )
    registry = load_registry(path)
    assert (registry["a"].checkpoint, registry["a"].is_local) == ("org/model", False)
    assert (registry["b"].revision, registry["b"].batch_size, registry["b"].max_length) == ("v1", 4, 128)
    assert registry["c"].checkpoint == registry["d"].checkpoint == str(tmp_path / "local")


def test_the_environment_names_the_registry(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_REGISTRY", write(tmp_path, {"mine": "org/model"}))
    assert find_model("mine").name == "mine"
    with pytest.raises(UserError, match="'mien' is not in .*did you mean 'mine'"):
        find_model("mien")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{\n  'a': 1}", "line 2: not valid JSON"),
        ({}, "expected"),
        ({"a": 3}, "a: expected a checkpoint"),
        ({"a": {"checkpoint": "x/y", "revison": "v"}}, "unknown key 'revison'; did you mean 'revision'"),
        ({"a": {"checkpoint": "x/y", "batch_size": 0}}, "batch_size must be a positive whole number"),
        ({"a": {"checkpoint": "x/y", "format": "onnx"}}, "unknown format 'onnx'"),
        ({"../a": "x/y"}, "not a model abbreviation"),
    ],
)
def test_mistakes_in_the_registry(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError) as error:
        load_registry(path)
    assert message in str(error.value)
    assert path in str(error.value)


def test_weights_in_one_format_only():
    common = ["config.json", "tokenizer.json", "sentencepiece.bpe.model", "README.md", "onnx/model.onnx"]
    both = [*common, "model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "tf_model.h5"]
    assert download_patterns(both) == sorted([*common[:3], "model.safetensors"])
    assert "pytorch_model.bin" in download_patterns([*common, "pytorch_model.bin", "training_args.bin"])
    assert "training_args.bin" not in download_patterns([*common, "pytorch_model.bin", "training_args.bin"])
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    old = ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"]
    assert set(download_patterns([*common, *shards, *old])) == {*common[:3], *shards}


def test_incomplete_checkpoints_are_told_from_complete_ones(small, tmp_path):
    assert checkpoint_problem(small / "tiny-xlmr") is None
    assert checkpoint_problem(tmp_path / "absent") == "not downloaded"
    assert "config.json" in checkpoint_problem(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "model.safetensors" in checkpoint_problem(tmp_path)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").touch()
    assert checkpoint_problem(tmp_path) == "weights are missing: model-2.safetensors"
    (tmp_path / "model-2.safetensors").touch()
    assert "tokenizer" in checkpoint_problem(tmp_path)
