"""finetune_lm.py from the command line to the files it writes, on tiny models of the three kinds."""

import json
import math
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoTokenizer

import finetune_lm
from tests.factories import FILES, KINDS, TRAIN, only_folder, rows_of, write_texts
from tests.processes import finish, start
from utils.models.loading import load_language_model

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("gpt2", "identity"),
        ("bert", "data_preprocessing.mask_random_tokens"),
        ("t5", "utils.data.masking.mask_random_spans"),
    ],
)
def test_everything_it_writes(here, invoke, kind, function):
    masking = [f"--data_preprocessing_fn.{split}={function}" for split in ("train", "validation", "test")]
    masking += ["--data_preprocessing_fn_strategy.train", "per_batch"]
    status, out, err = invoke(
        finetune_lm, "--model_name_or_path", kind, *TRAIN, "--epochs", "3", "--test_file", "test.txt.gz", *masking
    )
    assert status == 0, err
    folder = only_folder(here, model=kind)
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} == {
        *("config.txt", "run.json", "train.json", "metrics.csv.gz", "loss_curves.pdf", "model", "tokenizer"),
        f"{kind}-test_results.csv.gz",
        f"{kind}-test_sentences.csv.gz",
    }
    assert f"{kind}-test_results.csv.gz" in out and "loss_curves.pdf" in out

    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["task"], record["seed"]) == ("complete", KINDS[kind], 1)
    config = yaml.safe_load((folder / "config.txt").read_text())
    assert config["train_optimizer"] == "torch.optim.adamw.AdamW" and config["epochs"] == 3
    assert "token" not in config

    train = json.loads((folder / "train.json").read_text())
    losses = [epoch["validation_loss"] for epoch in train["epochs"]]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert train["best_epoch"] == 1 + losses.index(min(losses))

    metrics = rows_of(folder / "metrics.csv.gz")
    batches = {(row["split"], int(row["epoch"]), int(row["batch"])) for row in metrics}
    assert batches == {("train", e, b) for e in (1, 2, 3) for b in (1, 2, 3)} | {
        ("validation", e, 1) for e in (1, 2, 3)
    }
    assert all(float(row["batch"]) and row["token_is_special"] in ("True", "False") for row in metrics)
    # The loss is the mean over tokens, in nats; where each has a row, the table gives it back.
    whole = [row for row in metrics if row["split"] == "validation" and row["epoch"] == "3"]
    if kind != "bert":
        mean = math.log(2) * sum(float(row["surprisal_bits"]) for row in whole) / len(whole)
        assert mean == pytest.approx(losses[2], rel=1e-5)
    assert all(float(row["loss"]) == pytest.approx(losses[2], rel=1e-5) for row in whole)

    results = rows_of(folder / f"{kind}-test_results.csv.gz")
    assert {row["group"] for row in results} == {"g0", "g1", "g2"}
    assert {int(row["item"]) for row in results} == {10 * index for index in range(14)}


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_packed_batches_train_as_padded_ones_do(here, invoke, kind):
    """The same losses and the same surprisals in the same rows, without dropout."""
    shutil.copytree(kind, "without")
    config = json.loads(Path("without/config.json").read_text())
    rates = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout_prob", "attention_probs_dropout_prob")
    Path("without/config.json").write_text(json.dumps(config | dict.fromkeys(rates, 0.0)))
    common = ["--model_name_or_path", "without", *TRAIN, "--epochs", "2"]
    tables = []
    for how, padding in (("packed without padding", []), ("padded (--pad_to_max_length)", ["--pad_to_max_length"])):
        status, output, errors = invoke(finetune_lm, *common, *padding, "--output_dir", how.split()[0])
        assert status == 0, errors
        assert f"training batches: {how}" in output
        (written,) = (here / how.split()[0]).rglob("metrics.csv.gz")
        tables.append(rows_of(written))
    packed, padded = tables
    assert len(packed) == len(padded) > 100
    for ours, expected in zip(packed, padded, strict=True):
        assert (ours["token"], ours["item"]) == (expected["token"], expected["item"])
        for name in ("surprisal_bits", "loss"):
            assert float(ours[name]) == pytest.approx(float(expected[name]), rel=1e-3, abs=1e-4)


def test_patience_delta_and_least_epochs(here, invoke):
    def epochs(*options):
        shutil.rmtree(here / "outputs", ignore_errors=True)
        assert invoke(finetune_lm, "--model_name_or_path", "gpt2", *TRAIN, "--epochs", "9", *options)[0] == 0
        return len(json.loads((only_folder(here) / "train.json").read_text())["epochs"])

    # Losses that fall, but by less than delta.
    assert epochs("--patience", "2", "--delta", "10") == 3
    assert epochs("--patience", "2", "--delta", "10", "--min_epochs", "5") == 5
    assert epochs("--patience", "2") == 9


def test_callbacks_train_only_what_they_should(here, invoke):
    (word,) = [w for w in ("the", "and") if len(AutoTokenizer.from_pretrained("gpt2")(f" {w}")["input_ids"]) == 1][:1]
    status, _, err = invoke(
        finetune_lm, "--model_name_or_path", "gpt2", *TRAIN, "--epochs", "2",
        "--model_modifier_fns", "model_modifiers.add_new_tokens",
        "--model_modifier_fn_kwargs.add_new_tokens.added_tokens", "blorked",
        "--model_pre_train_step_callbacks", "model_modifiers.UnfreezeWordTokensCallback",
        "--model_pre_train_step_callbacks_kwargs.UnfreezeWordTokensCallback.words_to_unfreeze", word, "blorked",
    )  # fmt: skip
    assert status == 0, err
    folder = only_folder(here)
    after = load_language_model(folder / "model", "lm").state_dict()
    before = load_language_model(here / "gpt2", "lm").state_dict()
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    assert len(tokenizer(" blorked")["input_ids"]) <= 2 and "blorked" in tokenizer.get_vocab()
    rows = {tokenizer(text)["input_ids"][-1] for text in (word, f" {word}", "blorked")}
    for name, weights in before.items():
        if "wte" in name or "lm_head" in name:
            moved = (after[name][: len(weights)] != weights).any(1).nonzero().flatten().tolist()
            # Single characters of a word that is no token of its own without the space are no rows of it.
            assert set(moved) <= rows and moved
        else:
            assert torch.equal(after[name], weights), name


def test_kl_keeps_the_model_closer(here, invoke):
    def loss_of(*options):
        shutil.rmtree(here / "outputs", ignore_errors=True)
        status, _, err = invoke(finetune_lm, "--model_name_or_path", "gpt2", *TRAIN, "--epochs", "2", *options)
        assert status == 0, err
        return json.loads((only_folder(here) / "train.json").read_text())["epochs"][-1]

    both = ["--loss_classes.train", "loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"]
    both += ["--loss_classes.validation", "OutputsDefaultLoss", "KLBaselineLoss"]
    for split in ("train", "validation"):
        both += [f"--loss_classes_kwargs.{split}.KLBaselineLoss.dataset", "'test.txt.gz'"]
    weak = loss_of(*both, "--loss_classes_kwargs.train.KLBaselineLoss.scaleby", "0")
    strong = loss_of(*both, "--loss_classes_kwargs.train.KLBaselineLoss.scaleby", "200")
    assert strong["losses"]["validation"]["KLBaselineLoss"] < 0.5 * weak["losses"]["validation"]["KLBaselineLoss"]
    parts = strong["losses"]["train"]
    assert parts["loss"] == pytest.approx(parts["OutputsDefaultLoss"] + parts["KLBaselineLoss"], rel=1e-5)
    header = rows_of(only_folder(here) / "metrics.csv.gz")[0]
    assert {"OutputsDefaultLoss", "KLBaselineLoss"} <= set(header)


def test_own_functions(here, invoke):
    (here / "mine.py").write_text(
        "import torch\n"
        "def drop_first(inputs, tokenizer, count=1):\n"
        "    inputs = {name: value[:, count:] for name, value in inputs.items()}\n"
        "    return {**inputs, 'labels': inputs['input_ids'].clone()}\n"
        "class Flat:\n"
        "    def __init__(self, model, tokenizer, value):\n"
        "        self.value = value\n"
        "    def __call__(self, outputs, labels):\n"
        "        return outputs.logits.sum() * 0 + self.value\n"
        "class Zero:\n"
        "    def __init__(self, model, tokenizer):\n"
        "        pass\n"
        "    def __call__(self, outputs, labels):\n"
        "        return outputs.logits.mul_(0).sum()\n"
        "def larger(first, second):\n"
        "    return torch.maximum(first, second)\n"
    )
    status, _, err = invoke(
        finetune_lm, "--model_name_or_path", "gpt2", *TRAIN, "--epochs", "1",
        "--data_preprocessing_fn.train", "mine.drop_first", "--data_preprocessing_fn_kwargs.train.count", "2",
        "--loss_classes.train", "OutputsDefaultLoss", "mine.Flat", "--loss_classes_kwargs.train.Flat.value", "50",
        "--loss_reduction_fns.train", "mine.larger", "--loss_classes.validation", "mine.Zero",
    )  # fmt: skip
    assert status == 0, err
    (epoch,) = json.loads((only_folder(here) / "train.json").read_text())["epochs"]
    assert (epoch["loss"], epoch["validation_loss"]) == (50, 0)
    assert epoch["losses"]["train"]["OutputsDefaultLoss"] < 10


def test_stopped_and_resumed(here):
    arguments = ["--model_name_or_path", "bert", *TRAIN, "--epochs", "12", "--test_file", "test.txt.gz"]
    for split in ("train", "validation", "test"):
        arguments += [f"--data_preprocessing_fn.{split}", "mask_random_tokens"]
    arguments += ["--data_preprocessing_fn_strategy.train", "per_batch"]
    finish(start("finetune_lm.py", *arguments, cwd=here))
    whole = only_folder(here, model="bert")
    whole.rename(here / "whole")
    for signum in (signal.SIGTERM, signal.SIGKILL):
        shutil.rmtree(here / "outputs", ignore_errors=True)
        process = start("finetune_lm.py", *arguments, cwd=here)
        for line in process.stdout:
            if line.startswith("epoch 2:"):
                process.send_signal(signum)
                break
        output, _ = process.communicate(timeout=120)
        if signum == signal.SIGTERM:
            assert process.returncode == 128 + signum and "saved, the same command goes on" in output, output
        broken = only_folder(here, model="bert")
        assert json.loads((broken / "run.json").read_text())["status"] == "running"
        assert not (broken / "model").exists()
        output = finish(start("finetune_lm.py", *arguments, cwd=here))
        assert ("going on from" in output) == (signum == signal.SIGTERM)
        assert only_folder(here, model="bert") == broken
        for name in ("model/model.safetensors", "metrics.csv.gz", "bert-test_results.csv.gz"):
            assert rows_or_bytes(broken / name) == rows_or_bytes(here / "whole" / name), name
        assert not (broken / "checkpoints").exists()


def rows_or_bytes(path):
    return rows_of(path) if path.name.endswith(".csv.gz") else path.read_bytes()


def test_two_at_once_have_folders_of_their_own(here):
    arguments = ["--model_name_or_path", "gpt2", *TRAIN, "--epochs", "2"]
    processes = [start("finetune_lm.py", *arguments, cwd=here) for _ in range(2)]
    for process in processes:
        finish(process)
    first, second = (here / "outputs/train/gpt2").glob("2*")
    assert (first / "model/model.safetensors").read_bytes() == (second / "model/model.safetensors").read_bytes()


def test_a_seed_is_drawn_and_noted(here, invoke):
    arguments = [argument for argument in TRAIN if argument not in ("--seed", "1")]
    seeds = set()
    for _ in range(2):
        shutil.rmtree(here / "outputs", ignore_errors=True)
        assert invoke(finetune_lm, "--model_name_or_path", "gpt2", *arguments, "--epochs", "1")[0] == 0
        seeds.add(json.loads((only_folder(here) / "run.json").read_text())["seed"])
    assert len(seeds) == 2
    config = only_folder(here) / "config.txt"
    assert yaml.safe_load(config.read_text())["seed"] in seeds
    # The config file runs it again.
    copy = here / "again.txt"
    shutil.copy(config, copy)
    first = (only_folder(here) / "model/model.safetensors").read_bytes()
    shutil.rmtree(here / "outputs")
    assert invoke(finetune_lm, "--config", str(copy))[0] == 0
    assert (only_folder(here) / "model/model.safetensors").read_bytes() == first


def test_tokens_never_reach_a_file(here, invoke):
    (here / "secret").write_text("hf_from_file\n")
    for prefix, token in {"a": ["--token", "hf_given"], "b": ["--token=hf_given"], "c": ["--token", "secret"]}.items():
        arguments = ["--test_file", "test.txt.gz", "--test_output_file_prefix", prefix, *token]
        assert invoke(finetune_lm, "--model_name_or_path", "gpt2", *arguments)[0] == 0
    written = [path for path in (here / "outputs").rglob("*") if path.suffix in (".json", ".txt")]
    assert len(written) == 6
    assert not [path for path in written if "hf_" in path.read_text()]


def test_nothing_to_predict(here, invoke):
    words = ["--data_preprocessing_fn.train", "mask_words", "--data_preprocessing_fn_kwargs.train.words_to_mask"]
    common = ["--model_name_or_path", "bert", *TRAIN, "--epochs", "1", "--per_device_train_batch_size", "1"]
    # A word that is in some of the sentences: batches without it count nothing.
    assert sum("the" in text.split() for text in FILES["train"]) not in (0, 40)
    status, _, err = invoke(finetune_lm, *common, *words, "the")
    assert status == 0, err
    status, _, err = invoke(finetune_lm, *common, *words, "zzz")
    assert status == 2 and "no train example has a token to predict" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train_file", "train.txt.gz"], "--train_file needs --validation_file"),
        ([], "nothing to do"),
        (["--test_file", "none.txt.gz"], "none.txt.gz does not exist"),
        (["--test_file", "bad.txt.gz"], "bad.txt.gz, line 2: empty"),
        (["--test_file", "short.txt.gz"], "short_metadata.json.gz has 1 lines, but short.txt.gz has 2"),
        ([*TRAIN, "--epochs", "2", "--min_epochs", "3"], "--min_epochs 3 is more than --epochs 2"),
        ([*TRAIN, "--loss_classes.train", "KLBaselineLos"], "did you mean 'KLBaselineLoss'"),
        ([*TRAIN, "--loss_classes_kwargs.train.KLBaselineLoss.scaleby", "1"], "is not among those that were given"),
        ([*TRAIN, "--loss_classes.train", "KLBaselineLoss"], "missing a required argument: 'dataset'"),
        ([*TRAIN, "--data_preprocessing_fn.tests", "identity"], "expected one of train, validation, test"),
        ([*TRAIN, "--data_preprocessing_fn_kwargs.train.prop", "1"], "unexpected keyword argument 'prop'"),
        ([*TRAIN, "--data_preprocessing_fn_strategy.train", "twice"], "must be once or per_batch, got 'twice'"),
        ([*TRAIN, "--data_preprocessing_fn.train", "mask_random_tokens"], "has no mask token"),
        (
            [
                *("--model_name_or_path", "bert", *TRAIN, "--data_preprocessing_fn.train", "mask_random_tokens"),
                *("--data_preprocessing_fn_kwargs.train.mask_prop", "most"),
            ],
            "mask_prop must be above 0 and at most 1, got 'most'",
        ),
        ([*TRAIN, "--train_optimizer_kwargs.lr", "-1"], "AdamW: Invalid learning rate: -1"),
        ([*TRAIN, "--train_optimizer_kwargs.lr", "fast"], "--train_optimizer_kwargs: AdamW: "),
        ([*TRAIN, "--train_optimizer_kwargs.momentum", "1"], "unexpected keyword argument 'momentum'"),
        ([*TRAIN, "--loss_reduction_fns.train", "torch.stack", "--epochs", "1"], "stack does not take 1 losses"),
        (
            [
                *TRAIN,
                "--loss_classes.train",
                *["OutputsDefaultLoss"] * 2,
                "--loss_reduction_fns.train",
                "torch.sigmoid",
            ],
            "sigmoid must return one number",
        ),
        (["--test_file", "test.txt.gz", "--max_length", "999"], "this model takes at most 128 tokens"),
        (["--test_file", "test.txt.gz", "--test_output_file_prefix", "../x"], "must be the beginning of a file name"),
        (["--test_file", "test.txt.gz", "--model_name_or_path", "./nowhere"], "there is no such folder"),
        (["--test_file", "test.txt.gz", "--do_optimize"], "--do_optimize needs --train_file"),
    ],
)
def test_mistakes(here, invoke, arguments, message):
    write_texts(here / "bad.txt.gz", ["one", "", "three"])
    write_texts(here / "short.txt.gz", ["one", "two"])
    write_texts(here / "short_metadata.json.gz", ["{}"])
    status, _, err = invoke(finetune_lm, "--model_name_or_path", "gpt2", *arguments)
    assert (status, len(err.splitlines())) in ((2, 1), (2, 2)), err
    assert message in err


def test_the_other_options(here, invoke, monkeypatch):
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    status, _, err = invoke(
        finetune_lm, "--model_name_or_path", "./gpt2/", *TRAIN, "--epochs", "1", "--test_file", "test.txt.gz",
        "--config_name", "gpt2", "--tokenizer_name", "gpt2", "--use_fast_tokenizer", "False",
        "--model_revision", "main", "--cache_dir", "hub", "--model_task", "lm", "--use_gpu", "--overwrite_cache",
        "--preprocessing_num_workers", "2",
        "--max_length", "24", "--pad_to_max_length", "--max_train_samples", "20", "--max_validation_samples", "5",
        "--max_test_samples", "3", "--per_device_validation_batch_size", "2", "--per_device_test_batch_size", "2",
        "--ignore_pad_for_token_loss", "False", "--patience", "None", "--test_output_file_prefix", "'7'",
        "--loss_reduction_fns.train", "callable:sum", "--train_optimizer", "torch.optim.SGD",
        "--train_optimizer_kwargs.momentum", "0.9",
    )  # fmt: skip
    assert status == 0, err
    if not torch.cuda.is_available():
        assert "going on with the CPU" in err
    folder = only_folder(here)
    assert {row["line"] for row in rows_of(folder / "7-test_results.csv.gz")} == {"1", "2", "3"}
    metrics = rows_of(folder / "metrics.csv.gz")
    assert {row["batch"] for row in metrics if row["split"] == "train"} == {"1", "2"}
    assert {row["batch"] for row in metrics if row["split"] == "validation"} == {"1", "2", "3"}


def test_a_loss_that_is_no_number(here, invoke):
    status, _, err = invoke(
        finetune_lm, "--model_name_or_path", "gpt2", *TRAIN, "--train_optimizer_kwargs.lr", "1e20",
        "--train_optimizer", "torch.optim.SGD",
    )  # fmt: skip
    assert status == 1 and "loss is nan" in err and "a lower learning rate may help" in err
    assert json.loads((only_folder(here) / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("every", ["none", "auto"])
def test_what_metrics_hold(here, invoke, monkeypatch, every):
    """Surprisals of all tokens in all batches soon fill disks: they are written unasked up to a size."""
    from utils.training import lm_setup

    monkeypatch.setattr(lm_setup, "LARGEST_METRICS", 1000)
    arguments = ["--model_name_or_path", "gpt2", *TRAIN, "--epochs", "2", "--metrics_every", every]
    status, out, err = invoke(finetune_lm, *arguments)
    assert status == 0, err
    folder = only_folder(here)
    assert ("would take up to" in out) == (every == "auto")
    assert (folder / "metrics.csv.gz").exists() == (every != "none") == (f"{folder.name}/metrics.csv.gz" in out)
    if every != "none":
        epochs = json.loads((folder / "train.json").read_text())["epochs"]
        found = [
            (row["split"], row["epoch"], float(row["OutputsDefaultLoss"])) for row in rows_of(folder / "metrics.csv.gz")
        ]
        assert found == [
            (split, str(epoch["epoch"]), epoch["losses"][split]["loss"])
            for epoch in epochs
            for split in ("train", "validation")
        ]
