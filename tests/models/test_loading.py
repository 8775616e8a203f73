"""What a language model was trained to do, told by its configuration; where models come from."""

import pytest
from transformers import AutoConfig, BertConfig, GPT2Config

from utils.errors import UserError
from utils.models.loading import find_task, load_language_model, task_of
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
