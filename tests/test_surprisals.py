"""What finetune_lm.py writes of the texts that a model is tested on: surprisals, token by token."""

import gzip
import json
import math
import os
import re
import signal
import time
from pathlib import Path

import pandas
import pytest
import torch
from transformers import AutoTokenizer

import finetune_lm
from demo.language_models import build_lm
from tests.factories import FILES, TRAIN, only_folder, rows_of, skip, write_texts
from tests.processes import finish, start
from utils.models.loading import load_language_model

pytestmark = pytest.mark.slow


def test_surprisals_are_those_of_the_best_model(here, invoke):
    """Trained so that it gets worse, the first epoch's model is saved and tested."""
    status, _, err = invoke(
        finetune_lm, "--model_name_or_path", "gpt2", *TRAIN, "--epochs", "4", "--test_file", "test.txt.gz",
        "--train_optimizer_kwargs.lr", "0.5", "--train_optimizer", "torch.optim.SGD",
    )  # fmt: skip
    assert status == 0, err
    folder = only_folder(here)
    best = json.loads((folder / "train.json").read_text())
    model = load_language_model(folder / "model", "lm").double().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    total = count = 0
    for text in FILES["dev"]:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            total += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert total / count == pytest.approx(min(e["validation_loss"] for e in best["epochs"]), rel=1e-5)

    rows = rows_of(folder / "gpt2-test_results.csv.gz")
    ids = [tokenizer.bos_token_id, *tokenizer(FILES["test"][3])["input_ids"]]
    with torch.no_grad():
        bits = model(torch.tensor([ids])).logits[0].log_softmax(-1) / -math.log(2)
    own = [row for row in rows if row["line"] == "4"]
    assert [int(row["token_id"]) for row in own] == ids[1:]
    for place, row in enumerate(own):
        assert float(row["surprisal_bits"]) == pytest.approx(float(bits[place, ids[place + 1]]), abs=1e-5)


def test_test_only(here, invoke):
    arguments = ["--model_name_or_path", "gpt2", "--test_file", "'test.txt.gz'", "dev.txt.gz"]
    status, _, err = invoke(finetune_lm, *arguments, "--max_test_samples", "5")
    assert status == 0, err
    folder = here / "outputs/test_only/gpt2"
    rows = rows_of(folder / "gpt2-test_results.csv.gz")
    assert {(row["dataset_name"], row["line"]) for row in rows} == {
        (name, str(line)) for name in ("test", "dev") for line in range(1, 6)
    }
    assert all(row["group"] == "" for row in rows if row["dataset_name"] == "dev")
    before = (folder / "gpt2-test_results.csv.gz").read_bytes()

    assert "already complete" in invoke(finetune_lm, *arguments, "--max_test_samples", "5")[1]
    # What does not concern a test makes no other test.
    assert (
        "already complete"
        in invoke(
            finetune_lm,
            *arguments,
            "--max_test_samples",
            "5",
            "--epochs",
            "7",
            "--use_gpu",
            "--train_optimizer_kwargs.lr",
            "1",
        )[1]
    )
    status, _, err = invoke(finetune_lm, *arguments)
    assert status == 2 and "max_test_samples 5 -> None" in err and "--test_output_file_prefix" in err
    assert (folder / "gpt2-test_results.csv.gz").read_bytes() == before

    assert invoke(finetune_lm, *arguments, "--test_output_file_prefix", "all")[0] == 0
    assert len(rows_of(folder / "all-test_results.csv.gz")) > len(rows)
    assert json.loads((folder / "all-run.json").read_text())["status"] == "complete"

    # Another file's results do not replace the first one's, and are not refused.
    other = ["--model_name_or_path", "gpt2", "--test_file", "train.txt.gz", "--max_test_samples", "5"]
    status, output, err = invoke(finetune_lm, *other)
    assert status == 0, err
    assert str(Path("outputs/test_only/gpt2/gpt2-train-test_results.csv.gz")) in output
    assert {row["dataset_name"] for row in rows_of(folder / "gpt2-train-test_results.csv.gz")} == {"train"}
    assert (folder / "gpt2-test_results.csv.gz").read_bytes() == before
    assert "already complete" in invoke(finetune_lm, *other)[1]
    assert json.loads((folder / "run.json").read_text())["options"]["max_test_samples"] == 5
    assert "already complete" in invoke(finetune_lm, *arguments, "--max_test_samples", "5")[1]


def test_texts_that_are_cut_are_said(here, invoke):
    arguments = ["--model_name_or_path", "gpt2", *TRAIN, "--epochs", "1", "--test_file", "test.txt.gz"]
    status, output, err = invoke(finetune_lm, *arguments, "--max_length", "8")
    assert status == 0, err
    for name in ("train", "dev", "test"):
        assert re.search(rf"^{name}: \d+ examples of more than 8 tokens, cut there \(column truncated\)$", output, re.M)
    rows = rows_of(only_folder(here) / "gpt2-test_results.csv.gz")
    cut = len({row["line"] for row in rows if row["truncated"] == "True"})
    assert f"test: {cut} examples of more than 8 tokens" in output


def test_an_interrupted_test_goes_on(here):
    write_texts(here / "long.txt.gz", [text.split()[0] for text in FILES["train"]] * 300)
    arguments = ["--model_name_or_path", "gpt2", "--test_file", "long.txt.gz", "--seed", "1"]
    finish(start("finetune_lm.py", *arguments, "--test_output_file_prefix", "whole", cwd=here))
    process = start("finetune_lm.py", *arguments, "--save_tmp_test_files", cwd=here)
    folder = here / "outputs/test_only/gpt2"
    deadline = time.monotonic() + 60
    while not list(folder.glob("tmp-*.json.gz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert "while testing; the same command goes on" in finish(process, 128 + signal.SIGTERM)
    assert not (folder / "gpt2-test_results.csv.gz").exists()
    (kept,) = folder.glob("tmp-*-0-0.json.gz")
    rows = json.loads(gzip.decompress(kept.read_bytes()))
    # Changed, so that it is seen whether it is used.
    kind, words = rows["columns"]["word"]
    rows["columns"]["word"] = [kind, ["kept"] * len(words)]
    kept.write_bytes(gzip.compress(json.dumps(rows).encode()))
    finish(start("finetune_lm.py", *arguments, "--save_tmp_test_files", cwd=here))
    assert not list(folder.glob("tmp-*"))
    whole, resumed = (rows_of(folder / f"{name}-test_results.csv.gz") for name in ("whole", "gpt2"))
    assert len({row["line"] for row in whole}) == 12_000 and len(resumed) == len(whole)
    assert [row["word"] for row in resumed[: len(rows)]] == ["kept"] * len(rows)
    assert resumed[-1000:] == whole[-1000:]


def test_the_saved_model_and_its_tokenizer_can_be_tested(here, invoke):
    arguments = ["--model_name_or_path", "gpt2", *TRAIN, "--epochs", "1", "--test_file", "test.txt.gz"]
    assert invoke(finetune_lm, *arguments)[0] == 0
    folder = only_folder(here)
    results = rows_of(folder / "gpt2-test_results.csv.gz")
    saved = ["--model_name_or_path", str(folder / "model"), "--tokenizer_name", str(folder / "tokenizer")]
    status, _, err = invoke(finetune_lm, *saved, "--test_file", "test.txt.gz", "--test_output_file_prefix", "again")
    assert status == 0, err
    assert rows_of(next((here / "outputs/test_only").glob("*/again-test_results.csv.gz"))) == results
    status, _, err = invoke(finetune_lm, *saved[:2], "--test_file", "test.txt.gz")
    assert status == 2 and "the tokenizer's files are missing" in err

    # Killed between training and test, the run only tests.
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "running"}))
    (folder / "gpt2-test_results.csv.gz").unlink()
    status, out, err = invoke(finetune_lm, *arguments)
    assert status == 0, err
    assert "epoch 1" not in out and only_folder(here) == folder
    assert rows_of(folder / "gpt2-test_results.csv.gz") == results


@pytest.fixture(scope="session")
def fillers(tmp_path_factory):
    """Real sentences with metadata, from $LM_DATA_PATH, and a small GPT-2 for them."""
    path = Path(os.environ.get("LM_DATA_PATH", "")) / "combined_fillers.txt.gz"
    if not path.is_file():
        skip("LM_DATA_PATH does not name a folder with combined_fillers.txt.gz")
    texts = gzip.decompress(path.read_bytes()).decode().splitlines()
    return path.resolve(), texts, build_lm("gpt2", texts, tmp_path_factory.mktemp("real") / "gpt2")


def test_all_real_sentences_in_one_go(fillers, tmp_path, monkeypatch, invoke):
    path, texts, model = fillers
    monkeypatch.chdir(tmp_path)
    batches = ["--per_device_test_batch_size", "256", "--test_precision", "fp32"]
    status, out, err = invoke(finetune_lm, "--model_name_or_path", model, "--test_file", path, *batches)
    assert status == 0, err
    assert f"{len(texts):,} examples" in out
    (results,) = (tmp_path / "outputs/test_only").glob("*/*-test_results.csv.gz")
    frame = pandas.read_csv(results, keep_default_na=False)
    words = frame[frame["token_is_start_of_word"]].groupby("line")["word"].agg(" ".join)
    assert list(words) == [" ".join(text.split()) for text in texts], "every word of every sentence, in order"
    metadata = path.with_name("combined_fillers_metadata.json.gz")
    verbs = [json.loads(line)["verb"] for line in gzip.decompress(metadata.read_bytes()).splitlines()]
    assert list(frame.groupby("line")["verb"].first()) == verbs
    assert (frame["surprisal_bits"] >= frame["predicted_token_surprisal_bits"]).all()


def test_real_sentences_with_a_new_word(fillers, tmp_path, monkeypatch, invoke):
    """The experiment of the data: a new verb is learned from 160 sentences, and the rest must not be forgotten."""
    path, _, model = fillers
    monkeypatch.chdir(tmp_path)
    new = path.with_name("blorked.txt.gz")
    status, _, err = invoke(
        finetune_lm, "--model_name_or_path", model, "--train_file", new, "--validation_file", new,
        "--test_file", new, "--epochs", "3", "--train_optimizer_kwargs.lr", "1e-2", "--seed", "1",
        "--model_modifier_fns", "add_new_tokens", "--model_modifier_fn_kwargs.add_new_tokens.added_tokens", "blorked",
        "--loss_classes.train", "OutputsDefaultLoss", "KLBaselineLoss",
        "--loss_classes_kwargs.train.KLBaselineLoss.dataset", path,
        "--loss_classes_kwargs.train.KLBaselineLoss.max_samples_per_dataset", "500",
    )  # fmt: skip
    assert status == 0, err
    (folder,) = (tmp_path / "outputs/blorked").glob("*/2*")
    frames = pandas.read_csv(folder / "metrics.csv.gz"), pandas.read_csv(next(folder.glob("*-test_results.csv.gz")))
    first = frames[0][(frames[0]["epoch"] == 1) & (frames[0]["split"] == "train") & (frames[0]["batch"] == 1)]
    bits = [frame[frame["token"] == "blorked"]["surprisal_bits"] for frame in (first, frames[1])]
    assert len(bits[1]) == 160 and bits[1].mean() < bits[0].mean() - 2


def test_sentences_pairs_and_figures(here, invoke):
    pairs = [{"good": text, "bad": " ".join(reversed(text.split())), "UID": "order"} for text in FILES["test"][:9]]
    (here / "order.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    arguments = ["--model_name_or_path", "gpt2", "--test_file", "test.txt.gz", "order.jsonl", "--pairs", "good", "bad"]
    more = ["--word_correction", "--plot_items", "1", "3", "--plot_by", "group", "--test_precision", "fp32"]
    status, output, err = invoke(finetune_lm, *arguments, *more)
    assert status == 0, err
    folder = here / "outputs/test_only/gpt2"
    rows = rows_of(folder / "gpt2-test_results.csv.gz")
    sentences = rows_of(folder / "gpt2-test_sentences.csv.gz")
    assert len(sentences) == len(FILES["test"]) + 18
    for row in sentences:
        own = [r for r in rows if (r["dataset_name"], r["line"]) == (row["dataset_name"], row["line"])]
        total = sum(float(r["surprisal_bits"]) for r in own)
        assert float(row["surprisal_bits"]) == pytest.approx(total) and int(row["num_tokens"]) == len(own)
        assert all(float(r["word_surprisal_corrected_bits"]) > 0 for r in own)
        assert row["group"] == own[0]["group"] and row["pair"] == own[0]["pair"]
    totals = {(row["pair"], row["pair_side"]): float(row["surprisal_bits"]) for row in sentences if row["pair"]}
    better = sum(totals[str(n), "good"] < totals[str(n), "bad"] for n in range(1, 10))
    result = json.loads((folder / "gpt2-test_pairs.json").read_text())["order"]
    assert (result["num_pairs"], result["num_better"]) == (9, better)
    assert f"in {better / 9:.1%} of 9 pairs [" in output
    for name in ("words.png", "words.pdf", "conditions.png", "conditions.pdf"):
        assert (folder / f"gpt2-test_{name}").stat().st_size > 1000 and f"gpt2-test_{name}" in output
    assert json.loads((folder / "run.json").read_text())["test_precision"] == "fp32"
    # Of what is there, figures are drawn without computing it again.
    (folder / "gpt2-test_words.png").unlink()
    status, output, err = invoke(finetune_lm, *arguments, *more[:-2], "--test_precision", "fp32")
    assert status == 0 and "already complete" in output and (folder / "gpt2-test_words.png").is_file()


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("gpt2", ["--plot_by", "gruop"], "did you mean 'group'"),
        ("gpt2", ["--plot_items", "15"], "--plot_items 15: expected lines of a test file, 1 to 14"),
        ("gpt2", ["--plot_items", "9", "--max_test_samples", "8"], "1 to 8"),
        ("gpt2", ["--plot_items", *map(str, [1] * 21)], "has room for 20 sentences, got 21"),
        ("gpt2", ["--pairs", "good"], "expected two keys"),
        ("gpt2", ["--pairs", "good", "bad"], "--pairs is for test files NAME.jsonl"),
        ("gpt2", ["--test_file", "absent.txt.gz"], "absent.txt.gz does not exist"),
        ("gpt2", ["--stride", "0"], "--stride must be at least 1"),
        ("bert", ["--bos", "no"], "--bos is for causal language models; this one is mlm"),
        ("gpt2", ["--pll", "original"], "--pll is for masked and sequence-to-sequence language models; this one is lm"),
        ("gpt2", ["--stride", "500"], "expected less than the 128 tokens"),
        ("bert", ["--stride", "5"], "--stride is for causal language models; this one is mlm"),
        ("bert", ["--word_correction"], "--word_correction is for causal"),
        ("bert", ["--pll", "original", "--data_preprocessing_fn.test", "mask_random_tokens"], "leave --data_prep"),
    ],
)
def test_what_cannot_be_computed_is_refused_before_it_begins(here, invoke, model, arguments, message):
    status, _, err = invoke(finetune_lm, "--model_name_or_path", model, "--test_file", "test.txt.gz", *arguments)
    assert status == 2 and message in err, err
    assert not list((here / "outputs").rglob("*test_results*"))


@pytest.mark.parametrize(
    "option", [["--stride", "5"], ["--pll", "original"], ["--word_correction"], ["--pairs", "a", "b"],
               ["--plot_items", "1"], ["--plot_by", "group"], ["--test_precision", "fp32"]],
)  # fmt: skip
def test_what_is_for_tests_is_not_ignored_without_one(here, invoke, option):
    status, _, err = invoke(finetune_lm, "--model_name_or_path", "gpt2", *TRAIN, *option)
    assert status == 2 and f"{option[0]} is for --test_file" in err
    assert not (here / "outputs").exists()


def test_results_of_other_options_are_kept_though_sentences_are_missing(here, invoke):
    arguments = ["--model_name_or_path", "gpt2", "--test_file", "test.txt.gz"]
    assert invoke(finetune_lm, *arguments)[0] == 0
    folder = here / "outputs/test_only/gpt2"
    before = (folder / "gpt2-test_results.csv.gz").read_bytes()
    (folder / "gpt2-test_sentences.csv.gz").unlink()
    status, _, err = invoke(finetune_lm, *arguments, "--bos", "no")
    assert status == 2 and "bos auto -> no" in err
    assert (folder / "gpt2-test_results.csv.gz").read_bytes() == before
    # The same options compute what is missing.
    assert invoke(finetune_lm, *arguments)[0] == 0 and (folder / "gpt2-test_sentences.csv.gz").is_file()


def test_pseudo_likelihoods_of_a_file(here, invoke):
    arguments = ["--model_name_or_path", "bert", "--test_file", "test.txt.gz", "--pll", "within_word_l2r"]
    status, _, err = invoke(finetune_lm, *arguments)
    assert status == 0, err
    folder = here / "outputs/test_only/bert"
    rows = rows_of(folder / "bert-test_results.csv.gz")
    assert {row["token_is_masked"] for row in rows} == {"True"}
    for line, text in enumerate(FILES["test"], 1):
        own = [row for row in rows if int(row["line"]) == line]
        assert [int(row["token_num"]) for row in own] == list(range(len(own)))
        assert len({row["word_num"] for row in own}) == len(text.split())
