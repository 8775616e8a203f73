"""LoRA: the right matrices of every architecture, the head with them, saved, resumed, evaluated and merged."""

import json
import math
import random
import re
import signal

import pytest
import torch
import transformers
from safetensors.torch import load_file

import evaluate
import finetune
import finetune_lm
from demo.build import build_model, make_texts
from tests.factories import FAST, TRAIN, only_folder, rows_of
from tests.processes import finish, start, stop_at
from utils.errors import UserError
from utils.models.adapters import (
    AdapterOptions,
    add_adapters,
    find_targets,
    freeze_encoder,
    head_modules,
    quantization,
)
from utils.models.loading import build_classifier, load_classifier
from utils.models.registry import ModelSpec
from utils.runs.files import read_json, write_json

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 2}
DISTILBERT = {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 37}
BERT_LIKE = {"query": {"query"}, "key": {"key"}, "value": {"value"}, "attention": {"query", "key", "value", "dense"}}
# For each architecture its classifier, what each target adapts (last parts of names), and its head.
ARCHITECTURES = {
    "Bert": (SMALL, BERT_LIKE, {"pooler", "classifier"}),
    "Roberta": (SMALL, BERT_LIKE, {"classifier"}),
    "XLMRoberta": (SMALL, BERT_LIKE, {"classifier"}),
    "DistilBert": (
        DISTILBERT,
        {"query": {"q_lin"}, "key": {"k_lin"}, "value": {"v_lin"}, "attention": {"q_lin", "k_lin", "v_lin", "out_lin"}},
        {"pre_classifier", "classifier"},
    ),
    "ModernBert": (SMALL, {"attention": {"Wqkv", "Wo"}}, {"head", "classifier"}),
    "GPT2": (GPT2, {"attention": {"c_attn", "c_proj"}}, {"score"}),
    "Llama": (
        SMALL,
        {"query": {"q_proj"}, "key": {"k_proj"}, "value": {"v_proj"},
         "attention": {"q_proj", "k_proj", "v_proj", "o_proj"}},
        {"score"},
    ),
}  # fmt: skip
IN_ATTENTION = re.compile(r"\.(attention|attn|self_attn)\.")


def classifier(name):
    settings, _, _ = ARCHITECTURES[name]
    config = getattr(transformers, f"{name}Config")(**settings, num_labels=3, pad_token_id=0)
    torch.manual_seed(0)
    return getattr(transformers, f"{name}ForSequenceClassification")(config)


def adapt(model, tmp_path, **options):
    spec = ModelSpec("m", str(tmp_path))
    return add_adapters(model, AdapterOptions(**options), "classifier", spec, tmp_path)


def make_wide(folder):
    """Replace a linked language model by one of a width that weights in 4 bits can have, in blocks of 64."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config.update({"d_model": 64, "d_kv": 32} if config.model_type == "t5" else {"hidden_size": 64})
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    folder.unlink()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    getattr(transformers, config.architectures[0])(config).save_pretrained(folder)


def adapted_modules(model):
    return {name.partition(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("target", ["query", "key", "value", "attention", "all-linear"])
def test_what_is_adapted_in_every_architecture(name, target, tmp_path):
    _, targets, head = ARCHITECTURES[name]
    model = classifier(name)
    assert set(head_modules(model)) == head
    plain = {key: value.clone() for key, value in model.state_dict().items()}
    if target not in targets and target != "all-linear":
        with pytest.raises(UserError, match=r"for it alone: it computes .* at once .*possible: attention, all-linear"):
            find_targets(model, [target])
        return
    adapted = adapt(model, tmp_path, lora_targets=[target], lora_r=2)
    modules = adapted_modules(adapted)
    assert modules and not any(part in head for module in modules for part in module.split("."))
    if target != "all-linear":
        assert {module.rpartition(".")[2] for module in modules} == targets[target]
        assert all(IN_ATTENTION.search(module) for module in modules)
    else:
        assert len(modules) > 2 * len(targets["attention"])
    # What is trained: the adapters, and the head whole.
    trained = [key for key, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert all(".lora_" in key or any(part in head for part in key.split(".")) for key in trained)
    for part in head:
        assert any(f".{part}.modules_to_save." in key for key in trained)
    # Adapters begin as nothing.
    inputs = torch.arange(1, 9).reshape(2, 4)
    for module in (adapted, model):
        module.eval()
    fresh = classifier(name).eval()
    fresh.load_state_dict(plain)
    assert torch.allclose(adapted(input_ids=inputs).logits, fresh(input_ids=inputs).logits, atol=1e-6)


@pytest.mark.parametrize("name", ["Bert", "DistilBert", "GPT2"])
def test_only_the_head_of_a_frozen_encoder_is_trained(name):
    model = classifier(name)
    freeze_encoder(model)
    trained = {key.split(".")[0] for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"bert", "classifier"} if name == "Bert" else ARCHITECTURES[name][2]
    if name == "Bert":
        assert {k for k, p in model.named_parameters() if p.requires_grad and k.startswith("bert")} == {
            "bert.pooler.dense.weight",
            "bert.pooler.dense.bias",
        }


def test_rank_stabilization_and_decomposition(tmp_path):
    for rslora, scale in ((False, 16 / 4), (True, 16 / math.sqrt(4))):
        model = adapt(classifier("Bert"), tmp_path, lora_targets=["query"], lora_r=4, lora_alpha=16, rslora=rslora)
        scales = {m.scaling["default"] for m in model.modules() if isinstance(getattr(m, "scaling", None), dict)}
        assert scales == {scale}
    model = adapt(classifier("Bert"), tmp_path, lora_targets=["query"], dora=True)
    assert any("lora_magnitude_vector" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rslora"], "--rslora is for adapters; say which with --lora_targets"),
        (["--merge_adapter"], "--merge_adapter is for adapters"),
        (["--lora_targets", "queries"], "invalid choice: 'queries'"),
        (["--lora_targets", "query", "--lora_r", "0"], "--lora_r must be at least 1"),
        (["--lora_targets", "query", "--load_in_4bit", "--merge_adapter"], "cannot be added to weights in 4 bits"),
    ],
)
def test_mistakes(inputs, invoke, arguments, message):
    status, _, errors = invoke(finetune, "--model_name", "tiny", "--train_langs", "en", *arguments)
    assert (status, message in errors) == (2, True), errors


LORA = ["--lora_targets", "query", "value", "--lora_r", "4"]


@pytest.mark.fault(15)
def test_options_of_adapters_without_targets_are_refused_everywhere(inputs, invoke, tmp_path):
    """They trained the whole model."""
    for name, value in (("lora_r", 8), ("lora_alpha", 3.0), ("lora_dropout", 0.1), ("dora", True)):
        words = [f"--{name}", *([] if value is True else [str(value)])]
        for script, first in (
            (finetune, ["--model_name", "tiny", "--train_langs", "en"]),
            (finetune_lm, ["--model_name_or_path", "gpt2", "--test_file", "x.txt.gz"]),
        ):
            status, _, errors = invoke(script, *first, *words)
            assert status == 2 and f"--{name} is for adapters; say which with --lora_targets" in errors, errors
        (tmp_path / "lora.json").write_text(json.dumps({name: value}))
        status, _, errors = invoke(
            finetune, "--model_name", "tiny", "--train_langs", "en", "--config", str(tmp_path / "lora.json")
        )
        assert status == 2 and f"lora.json: {name} is for adapters" in errors
    for words in (["--mix_exponent", "0.5"], ["--freeze_encoder", "--lora_targets", "query"]):
        status, _, errors = invoke(finetune, "--model_name", "tiny", "--train_langs", "en", *words)
        assert status == 2 and words[0] in errors, errors


@pytest.mark.fault(16)
@pytest.mark.slow
def test_what_was_validated_in_4_bits_is_evaluated_in_4_bits(inputs, invoke, monkeypatch):
    """Merging the adapters into the weights in full precision made another model of it."""
    from utils.training import classifier_outcome

    texts = [text for lang in ("en", "fr") for _, text in make_texts(lang, 60, random.Random(lang))]
    # As wide as a block of weights that share a scale.
    build_model(inputs.folder / "wide", texts, vocabulary=600, hidden_size=64)
    write_json(inputs.folder / "wide.json", {"tiny": {"checkpoint": "./wide", "max_length": 64}})
    command = ["--model_name", "tiny", "--train_langs", "en"]
    monkeypatch.setenv("MODEL_REGISTRY", str(inputs.folder / "wide.json"))
    batch = {"input_ids": torch.arange(5, 65).reshape(3, 20), "attention_mask": torch.ones(3, 20, dtype=torch.long)}
    stock, validated = classifier_outcome.save_model, []

    def save(trainer, *rest):
        with torch.no_grad():
            validated.append(trainer.model.eval()(**batch).logits)
        return stock(trainer, *rest)

    monkeypatch.setattr(classifier_outcome, "save_model", save)
    status, _, errors = invoke(finetune, *command, *FAST, "--lora_targets", "attention", "--load_in_4bit")
    assert status == 0, errors
    folder = inputs.folder / "models/tiny-en"
    assert "beside weights in 4 bits (NF4)" in (folder / "README.md").read_text()
    assert "LoRA" in (folder / "README.md").read_text() and (folder / "adapter_model.safetensors").is_file()
    loaded = load_classifier(folder, torch.device("cpu"))
    with torch.no_grad():
        found = loaded(**batch).logits
    torch.testing.assert_close(found, validated[0], atol=5e-5, rtol=1e-5)
    status, _, errors = invoke(evaluate, *command, "--eval_langs", "en", "--precision", "fp32")
    assert status == 0, errors
    # Without the mark, it would be another model.
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {name: x for name, x in config.items() if name != "quantization_config"})
    with torch.no_grad():
        other = load_classifier(folder, torch.device("cpu"))(**batch).logits
    assert (other - found).abs().max() > 20 * (validated[0] - found).abs().max()


@pytest.mark.slow
def test_trained_saved_evaluated_and_merged(inputs, invoke):
    command = ["--model_name", "tiny", "--train_langs", "en", *FAST, "--num_epochs", "3"]
    for subfolder, extra in (("adapter", []), ("merged", ["--merge_adapter"])):
        assert invoke(finetune, *command, *LORA, *extra, "--subfolder", subfolder)[0] == 0
        named = ["--model_name", "tiny", "--train_langs", "en", "--subfolder", subfolder, "--precision", "fp32"]
        assert invoke(evaluate, *named, "--eval_langs", "fr")[0] == 0
    models = inputs.folder / "models"
    assert not (models / "adapter/tiny-en/model.safetensors").exists()
    assert not (models / "merged/tiny-en/adapter_config.json").exists()
    config = json.loads((models / "adapter/tiny-en/adapter_config.json").read_text())
    base = inputs.registry.parent / "tiny-xlmr"
    assert config["base_model_name_or_path"] == str(base)
    report = read_json(inputs.folder / "outputs/adapter/tiny-en/train.json")
    # Two layers with two adapters of 2 x 4 x 32 each, and the head of XLM-R.
    head = 32 * 32 + 32 + 8 * 32 + 8
    assert report["num_trainable_parameters"] == 2 * 2 * 2 * 4 * 32 + head
    # Nothing of the frozen model has moved, and what was trained is the same in both.
    plain, merged = load_file(base / "model.safetensors"), load_file(models / "merged/tiny-en/model.safetensors")
    moved = {name for name in plain if name in merged and not torch.equal(plain[name], merged[name])}
    queries_and_values = [f"roberta.encoder.layer.{layer}.attention.self" for layer in (0, 1)]
    assert moved == {f"{path}.{part}.weight" for path in queries_and_values for part in ("query", "value")}
    results = [
        (inputs.folder / f"outputs/{name}/tiny-en/predictions/fr.csv").read_text() for name in ("adapter", "merged")
    ]
    assert results[0] == results[1]
    loaded = load_classifier(models / "adapter/tiny-en", torch.device("cpu"))
    assert torch.equal(loaded.classifier.out_proj.weight, merged["classifier.out_proj.weight"])

    # Another kind of training in the same folder leaves nothing of the first.
    assert invoke(finetune, *command, "--subfolder", "adapter", "--force")[0] == 0
    assert not (models / "adapter/tiny-en/adapter_config.json").exists()
    assert (models / "adapter/tiny-en/model.safetensors").exists()


@pytest.mark.slow
def test_adapters_without_their_model_are_refused(inputs, invoke):
    assert invoke(finetune, "--model_name", "tiny", "--train_langs", "en", *FAST, *LORA)[0] == 0
    path = inputs.folder / "models/tiny-en/adapter_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"base_model_name_or_path": "someone/gone"}))
    named = ["--model_name", "tiny", "--train_langs", "en"]
    status, _, errors = invoke(evaluate, *named, "--eval_langs", "fr")
    assert status == 2 and "holds adapters of someone/gone: not downloaded; fetch it" in errors


@pytest.mark.slow
def test_a_run_with_adapters_is_stopped_and_goes_on(inputs):
    command = ["--model_name", "tiny", "--train_langs", "en", "--num_epochs", "4", "--batch_size", "4"]
    command += ["--learning_rate", "1e-3", "--early_stopping_patience", "9", *LORA]
    finish(start("finetune.py", *command, "--subfolder", "whole", cwd=inputs.folder))
    status, output = stop_at(inputs, "epoch 1.2", signal.SIGTERM, *LORA, "--subfolder", "broken")
    assert status == 128 + signal.SIGTERM, output
    output = finish(start("finetune.py", *command, "--subfolder", "broken", cwd=inputs.folder))
    assert "going on from" in output
    first, second = (
        (inputs.folder / f"models/{name}/tiny-en/adapter_model.safetensors").read_bytes()
        for name in ("whole", "broken")
    )
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("in_4bit", [False, pytest.param(True, marks=pytest.mark.fault(16))])
@pytest.mark.parametrize(("kind", "targets"), [("gpt2", "attention"), ("bert", "query"), ("t5", "value")])
def test_language_models_with_adapters(here, invoke, kind, targets, in_4bit):
    """The adapters alone are saved, and give the same surprisals when they are loaded again, merged or not."""
    if in_4bit:
        make_wide(here / kind)
    command = ["--model_name_or_path", kind, *TRAIN, "--epochs", "2", "--lora_targets", targets]
    command += ["--load_in_4bit"] if in_4bit else []
    command += ["--train_optimizer_kwargs.lr", "1e-2", "--test_file", "test.txt.gz"]
    masking = {"bert": "mask_random_tokens", "t5": "mask_random_spans"}.get(kind, "identity")
    masked = [f"--data_preprocessing_fn.{split}={masking}" for split in ("train", "validation", "test")]
    status, _, errors = invoke(finetune_lm, *command, *masked)
    assert status == 0, errors
    folder = only_folder(here, model=kind)
    assert not (folder / "model/model.safetensors").exists()
    size = (folder / "model/adapter_model.safetensors").stat().st_size
    assert size < (here / kind / "model.safetensors").stat().st_size / 4
    before = rows_of(folder / f"{kind}-test_results.csv.gz")
    saved = ["--model_name_or_path", str(folder / "model"), "--tokenizer_name", str(folder / "tokenizer")]
    status, _, errors = invoke(
        finetune_lm, *saved, "--test_file", "test.txt.gz", *masked, "--seed", "1", "--test_output_file_prefix", "again"
    )  # fmt: skip
    assert status == 0, errors
    (again,) = (here / "outputs/test_only").glob("*/again-test_results.csv.gz")
    for first, second in zip(before, rows_of(again), strict=True):
        assert float(second["surprisal_bits"]) == pytest.approx(float(first["surprisal_bits"]), abs=1e-4)


@pytest.mark.fault(16)
def test_an_evaluation_takes_no_gradients_from_weights_in_4_bits(tmp_path):
    """On CPUs with bf16, bitsandbytes packs them anew at the first evaluation, for good."""
    config = transformers.BertConfig(**(SMALL | {"hidden_size": 64, "intermediate_size": 64}))
    transformers.BertModel(config).save_pretrained(tmp_path)
    model = adapt(
        build_classifier(tmp_path, ["a", "b"], **quantization(True)),
        tmp_path,
        lora_targets=["attention"],
        load_in_4bit=True,
    )
    batch = {"input_ids": torch.arange(5, 65).reshape(3, 20), "labels": torch.tensor([0, 1, 1])}
    gradients = []
    for _ in range(2):
        with torch.no_grad():
            loss = model.eval()(**batch).loss if gradients else None
        model.zero_grad()
        # Evaluation mode, so that nothing is dropped.
        trained = model.eval()(**batch).loss
        trained.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert torch.equal(loss, trained.detach())
    lowest = [n for n in gradients[0] if ".layer.0." in n]
    assert lowest and gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.slow
def test_a_language_model_with_a_new_word_is_saved_whole(here, invoke):
    command = ["--model_name_or_path", "gpt2", *TRAIN, "--epochs", "1", "--lora_targets", "attention"]
    command += ["--model_modifier_fns", "add_new_tokens"]
    command += ["--model_modifier_fn_kwargs.add_new_tokens.added_tokens", "blork"]
    status, _, errors = invoke(finetune_lm, *command)
    assert status == 2 and "--lora_targets with --model_modifier_fns needs --merge_adapter" in errors
    status, _, errors = invoke(finetune_lm, *command, "--merge_adapter")
    assert status == 0, errors
    folder = only_folder(here)
    assert (folder / "model/model.safetensors").is_file() and not (folder / "model/adapter_config.json").exists()


def test_real_weights_with_few_parameters_trained(tmp_path):
    """The real all-MiniLM-L6-v2: under 5 % of its parameters are trained, and the rest are those of the package."""
    from demo.minilm import checkpoint

    plain = load_file(checkpoint() / "model.safetensors")
    model = build_classifier(checkpoint(), ["a", "b", "c", "d"])
    model = add_adapters(
        model, AdapterOptions(lora_targets=["query"]), "classifier", ModelSpec("m", str(checkpoint())), checkpoint()
    )
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    assert 0 < sum(size for size, trained in sizes if trained) < 0.05 * sum(size for size, _ in sizes)
    weight = model.get_base_model().bert.encoder.layer[5].attention.self.query.base_layer.weight
    assert torch.equal(weight, plain["encoder.layer.5.attention.self.query.weight"])
