"""The optimizer's steps of language models: several batches in one, schedules, clipping, fewer bits."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

import finetune_lm
from tests.factories import TRAIN, only_folder, rows_of
from tests.processes import finish, start
from utils.errors import UserError
from utils.models.loading import load_language_model
from utils.training.lm_losses import KLBaselineLoss
from utils.training.lm_setup import parameter_groups

pytestmark = pytest.mark.slow

SGD = ["--train_optimizer", "torch.optim.SGD", "--train_optimizer_kwargs.lr", "0.1"]
RATES = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout_prob", "attention_probs_dropout_prob")


@pytest.fixture
def train(here, invoke):
    """Train and return the folder of the run."""
    for kind in ("gpt2", "bert"):
        shutil.copytree(kind, f"{kind}-dry")
        config = json.loads(Path(f"{kind}-dry/config.json").read_text())
        Path(f"{kind}-dry/config.json").write_text(json.dumps(config | dict.fromkeys(RATES, 0.0)))

    def run(name, *options, kind="gpt2", status=0):
        found, _, errors = invoke(
            finetune_lm, "--model_name_or_path", f"{kind}-dry", *TRAIN, "--epochs", "2", "--output_dir", name, *options
        )
        assert found == status, errors
        if status:
            return errors
        (folder,) = (here / name / "train" / f"{kind}-dry").glob("2*")
        return folder

    return run


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def change(folder, kind="gpt2"):
    before = load_file(f"{kind}-dry/model.safetensors")
    return {name: value - before[name] for name, value in weights(folder).items() if name in before}


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_batches_of_one_step_are_as_one_batch(train, kind):
    """The loss of a step is the mean over all its tokens, however they lie in batches of texts of other lengths."""
    whole = train("whole", *SGD, kind=kind)
    parts = ["--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "4"]
    several = train("several", *SGD, *parts, kind=kind)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(several)[name], value, rtol=1e-4, atol=1e-6)
    seen = {(row["epoch"], row["batch"]) for row in rows_of(several / "metrics.csv.gz") if row["split"] == "train"}
    # 40 examples in batches of 4, the last step of half as many.
    assert seen == {(str(epoch), str(batch)) for epoch in (1, 2) for batch in range(1, 11)}


def test_the_rate_follows_its_schedule(train):
    constant = train("constant", *SGD)
    falling = train("falling", *SGD, "--lr_scheduler_type", "linear")
    size = [sum(float(value.norm() ** 2) for value in change(folder).values()) for folder in (constant, falling)]
    assert 0 < size[1] < 0.7 * size[0]
    errors = train("unknown", "--lr_scheduler_type", "linaer", status=2)
    assert "did you mean 'linear'" in errors
    assert "constant_with_warmup" in train("warm", "--warmup_ratio", "0.1", status=2)


def test_gradients_are_clipped(train):
    options = ["--epochs", "1", "--per_device_train_batch_size", "40", "--train_optimizer_kwargs.lr", "1"]
    folder = train("clipped", *SGD, *options, "--max_grad_norm", "0.01")
    # One step, as long as the norm of its gradient.
    assert sum(float(value.norm() ** 2) for value in change(folder).values()) ** 0.5 <= 0.0101


def test_in_fewer_bits_the_test_is_of_the_saved_model(train, invoke):
    folder = train("few", "--precision", "bf16", "--test_file", "test.txt.gz")
    assert {value.dtype for value in weights(folder).values()} == {torch.float32}
    full = train("full", "--test_file", "test.txt.gz")
    assert any(not torch.equal(value, weights(full)[name]) for name, value in weights(folder).items())
    tested = ["--model_name_or_path", str(folder / "model"), "--tokenizer_name", str(folder / "tokenizer")]
    status, _, errors = invoke(finetune_lm, *tested, "--test_file", "test.txt.gz", "--test_output_file_prefix", "x")
    assert status == 0, errors
    (again,) = Path("outputs/test_only").rglob("x-test_results.csv.gz")
    assert rows_of(again) == rows_of(next(folder.glob("*-test_results.csv.gz")))


def test_steps_of_several_batches_stopped_and_resumed(here):
    options = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "2", "--max_grad_norm", "1"]
    options += ["--lr_scheduler_type", "linear", "--warmup_ratio", "0.2", "--precision", "bf16"]
    arguments = ["--model_name_or_path", "gpt2", *TRAIN, *options, "--epochs", "12"]
    finish(start("finetune_lm.py", *arguments, cwd=here))
    only_folder(here).rename(here / "whole")
    shutil.rmtree(here / "outputs")
    process = start("finetune_lm.py", *arguments, cwd=here)
    for line in process.stdout:
        if line.startswith("epoch 2:"):
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "going on from" in finish(start("finetune_lm.py", *arguments, cwd=here))
    folder = only_folder(here)
    assert (folder / "model/model.safetensors").read_bytes() == (here / "whole/model/model.safetensors").read_bytes()
    assert rows_of(folder / "metrics.csv.gz") == rows_of(here / "whole/metrics.csv.gz")


def test_activations_computed_twice_change_no_weight(train):
    once, twice = train("once"), train("twice", "--gradient_checkpointing")
    for name, value in weights(once).items():
        torch.testing.assert_close(weights(twice)[name], value, rtol=1e-5, atol=1e-7)


def test_what_this_machine_cannot_do_is_refused(train):
    assert "--precision fp16 needs --use_gpu and a GPU" in train("half", "--precision", "fp16", status=2)
    assert "the package mlflow is not installed" in train("tracked", "--report_to", "mlflow", status=2)


def test_the_baseline_reads_what_the_model_reads(here):
    model, tokenizer = load_language_model(Path("gpt2"), "lm"), AutoTokenizer.from_pretrained("gpt2")
    loss = KLBaselineLoss(model, tokenizer, "dev.txt.gz", bos="no")
    assert loss.datasets[0].rows["input_ids"][0][0] != tokenizer.bos_token_id


def test_optimizers_that_compute_the_loss_themselves_are_refused(train):
    errors = train("closure", "--train_optimizer", "torch.optim.LBFGS", status=2)
    assert "--train_optimizer LBFGS computes the loss several times in a step" in errors and "AdamW" in errors


def test_weights_decay_but_for_biases_and_norms(here):
    model = load_language_model(Path("gpt2"), "lm")
    decayed, others = parameter_groups(model, torch.optim.AdamW)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kept = {names[id(parameter)] for parameter in others["params"]}
    assert others["weight_decay"] == 0 and "weight_decay" not in decayed
    assert kept == {name for name in names.values() if name.endswith("bias") or ".ln_" in name}
    assert len(kept) + len(decayed["params"]) == len(names)
    with pytest.raises(UserError, match="Rprop has no weight_decay"):
        parameter_groups(model, torch.optim.Rprop)
