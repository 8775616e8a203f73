"""Texts that are longer than a model takes, from training to the registers of their windows."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evaluate
import finetune
import predict
from tests.factories import FAST, PROJECT, TRAINED, Inputs, working_copy
from tests.labels import read_jsonl
from tests.processes import finish, start

pytestmark = pytest.mark.slow

WORDS = {"IN": "river", "HI": "first", "OP": "believe"}
SETTINGS = ["--max_length", "24", "--num_epochs", "14", "--learning_rate", "5e-3"]
# Runs a script and says how many megabytes it took at most.
WITH_PEAK = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def write_corpus(folder: Path) -> Path:
    """Write texts whose register is said in their last words alone, far behind what the model takes at once."""
    (folder / "info").mkdir(parents=True)
    (folder / "info/reg_abbv.json").write_text(json.dumps(dict.fromkeys(WORDS, "")))
    (folder / "info/lang2name.json").write_text("{}")
    for split, size in (("train", 240), ("test", 60)):
        generator = np.random.default_rng(len(split))
        path = folder / f"corpus/{split}/en.tsv"
        path.parent.mkdir(parents=True)
        with path.open("w", newline="") as file:
            for number in range(size):
                register = list(WORDS)[number % 3]
                noise = generator.choice(["the", "of", "and", "year"], size=generator.integers(26, 36)).tolist()
                row = [register, " ".join([*noise, *[WORDS[register]] * 20])]
                csv.writer(file, delimiter="\t", lineterminator="\n").writerow(row)
    return folder


@pytest.fixture(scope="module")
def long_texts(small, tmp_path_factory) -> Inputs:
    """Models that read long texts in three ways."""
    folder = tmp_path_factory.mktemp("long")
    made = Inputs(write_corpus(folder / "corpus"), small / "model2chckpt.json", folder)
    for kind in ("cut", "head_tail", "windows"):
        given = ["--long_texts", kind, "--subfolder", kind, "--train_langs", "en"]
        more = ["--window_stride", "10"] if kind == "windows" else []
        finish(start("finetune.py", *TRAINED, *FAST, *SETTINGS, *given, *more, cwd=folder, **made.environment))
    return made


@pytest.fixture
def read(long_texts, tmp_path, monkeypatch) -> Inputs:
    """The same in a working folder."""
    return working_copy(long_texts, tmp_path, monkeypatch)


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["cut", "head_tail", "windows"])
def test_what_stands_at_the_end_is_read_or_not(read, invoke, kind):
    given = [*TRAINED, "--train_langs", "en", "--subfolder", kind, "--eval_lang", "en"]
    status, _, errors = invoke(evaluate, *given)
    assert status == 0, errors
    result = read_json(f"outputs/{kind}/tiny-en/eval/en.json")
    assert result["accuracy"] < 0.6 if kind == "cut" else result["accuracy"] > 0.95
    reading = result["reading"]
    assert (reading["long_texts"], reading["num_long_texts"]) == (kind, 60)
    from utils.data.tokenization import load_tokenizer

    tokenizer = load_tokenizer(Path(f"models/{kind}/tiny-en"))
    with (read.corpus / "corpus/test/en.tsv").open(newline="") as file:
        texts = [text for _, text in csv.reader(file, delimiter="\t")]
    numbers = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    assert reading["num_tokens"] == sum(numbers)
    assert reading["num_tokens_unseen"] == (0 if kind == "windows" else sum(number - 22 for number in numbers))
    assert reading["num_windows"] == (sum(-(-(n - 22) // 10) + 1 for n in numbers) if kind == "windows" else 60)


@pytest.mark.parametrize("kind", ["cut", "head_tail", "windows"])
def test_predict_reads_as_evaluate_does(read, invoke, kind):
    from utils.evaluation.results import load_predictions

    given = [*TRAINED, "--train_langs", "en", "--subfolder", kind]
    assert invoke(evaluate, *given, "--eval_lang", "en")[0] == 0
    status, _, errors = invoke(predict, *given, "--input", str(read.corpus / "corpus/test/en.tsv"), "--segments")
    assert status == 0, errors
    table = load_predictions(Path(f"outputs/{kind}/tiny-en"), "en")
    rows = read_jsonl(Path("predictions/en.jsonl.zst"))
    assert [row["register"] for row in rows] == table["predicted"].tolist()
    shares = [[row["probabilities"][name] for name in WORDS] for row in rows]
    assert np.abs(table[list(WORDS)].to_numpy() - shares).max() <= 0.00005001
    assert {row["truncated"] for row in rows} == {kind != "windows"}
    assert all(row["num_tokens"] == 24 for row in rows) == (kind != "windows")


def test_segments_say_where_a_register_stands(read, invoke):
    """The end of each text says its register; windows there have it, and their places are those of the words."""
    path = read.corpus / "corpus/test/en.tsv"
    given = [*TRAINED, "--train_langs", "en", "--subfolder", "windows", "--segments", "--keep_text"]
    assert invoke(predict, *given, "--input", str(path))[0] == 0
    rows = read_jsonl(Path("predictions/en.jsonl.zst"))
    with path.open(newline="") as file:
        registers = [register for register, _ in csv.reader(file, delimiter="\t")]
    last = [row["segments"][-1] for row in rows]
    assert np.mean([segment["register"] == register for segment, register in zip(last, registers, strict=True)]) > 0.95
    for row, register in zip(rows, registers, strict=True):
        segments, text = row["segments"], row["text"]
        assert segments[0]["start"] == 0 and segments[-1]["end"] == len(text)
        assert text[segments[-1]["start"] : segments[-1]["end"]].split()[-1] == WORDS[register]
        assert all(a["start"] < b["start"] <= a["end"] for a, b in itertools.pairwise(segments))
        assert set(segments[0]) == {"start", "end", "register", "probability", "probabilities"}
    # One text gets the same.
    lines = [*TRAINED, "--train_langs", "en", "--subfolder", "windows", "--segments", "--format", "json"]
    _, output, _ = invoke(predict, *lines, "--text", rows[0]["text"])
    assert json.loads(output)["segments"] == rows[0]["segments"]


def test_segments_of_a_model_that_cuts_are_one_behind_the_other(read, invoke):
    text = " ".join(["the"] * 50 + ["river"] * 12)
    given = [*TRAINED, "--train_langs", "en", "--subfolder", "cut", "--segments", "--format", "json", "--text", text]
    _, output, _ = invoke(predict, *given)
    record = json.loads(output)
    first, *_, last = record["segments"]
    assert first["probabilities"] == record["probabilities"] and record["truncated"]
    assert (first["start"], last["end"]) == (0, len(text))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--segments", "--output_format", "csv", "--input", "x.txt"], "--segments are lists: --output_format jsonl"),
        (["--segments", "--text", "x"], "--segments are lists: --format json"),
    ],
)
def test_segments_are_json(read, invoke, options, message):
    status, _, errors = invoke(predict, *TRAINED, "--train_langs", "en", "--subfolder", "windows", *options)
    assert status == 2 and message in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window_stride", "9"], "--window_stride is for --long_texts windows"),
        (["--window_pooling", "max"], "--window_pooling is for --long_texts windows"),
        (["--long_texts", "windows", "--window_stride", "23", "--max_length", "24"], "windows have 22 tokens"),
    ],
)
def test_what_is_refused(read, invoke, options, message):
    status, _, errors = invoke(finetune, *TRAINED, "--train_langs", "en", "--subfolder", "x", *options)
    assert status == 2 and message in errors


def test_a_training_on_windows_that_is_stopped_goes_on_with_the_same_ones(read, tmp_path):
    """The same weights as those of a training that nothing stopped."""
    from safetensors.numpy import load_file

    from utils.data.tokenization import load_tokenizer

    given = [*TRAINED, *FAST, "--train_langs", "en", "--max_length", "24", "--num_epochs", "2"]
    given += ["--long_texts", "windows"]
    env = read.environment
    finish(start("finetune.py", *given, "--subfolder", "one", cwd=tmp_path, **env))
    process = start("finetune.py", *given, "--subfolder", "two", cwd=tmp_path, **env)
    for line in process.stdout:
        if "step 3/" in line or "epoch 0.1" in line:
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(60)
    assert read_json(tmp_path / "outputs/two/tiny-en/run.json")["status"] != "complete"
    finish(start("finetune.py", *given, "--subfolder", "two", cwd=tmp_path, **env))
    weights = [load_file(tmp_path / f"models/{name}/tiny-en/model.safetensors") for name in ("one", "two")]
    assert all(np.array_equal(value, weights[1][name]) for name, value in weights[0].items())
    assert load_tokenizer(tmp_path / "models/one/tiny-en").model_max_length == 24
    assert "It reads long texts in windows" in (tmp_path / "models/one/tiny-en/README.md").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of Linux processes")
def test_a_text_of_a_million_characters_is_evaluated_in_bounded_memory(read, tmp_path):
    """1,100,000 characters, as the longest of the register corpus has, take little more than as many in short texts."""
    # In windows of 510 tokens, to be quicker.
    folder = tmp_path / "models/windows/tiny-en"
    for file, changed in (
        ("config.json", {"long_texts": {"long_texts": "windows", "stride": 510, "pooling": "mean"}}),
        ("tokenizer_config.json", {"model_max_length": 512}),
    ):
        (folder / file).write_text(json.dumps(read_json(folder / file) | changed))
    peaks = {}
    for name, rows, repeated in (("short", 1500, 10), ("long", 1, 15_000)):
        corpus = tmp_path / name
        shutil.copytree(read.corpus, corpus)
        text = "the minister said on friday that the border would stay open and the river " * repeated
        (corpus / "corpus/test/en.tsv").write_text(f"IN\t{text.strip()}\n" * rows + "OP\tbelieve\n")
        command = [*TRAINED, "--train_langs", "en", "--subfolder", "windows", "--eval_lang", "en", "--force"]
        environment = {**os.environ, **read.environment, "CORPUS_PATH": str(corpus)}
        run = subprocess.run(
            [sys.executable, "-c", WITH_PEAK, str(PROJECT / "evaluate.py"), *command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks[name] = int(run.stdout.rpartition("peak ")[2])
    assert peaks["long"] - peaks["short"] < 200, peaks
    reading = read_json(tmp_path / "outputs/windows/tiny-en/eval/en.json")["reading"]
    assert reading["num_tokens"] > 400_000 and reading["window_stride"] == 510


def test_more_than_512_tokens_in_packs_and_with_activations_computed_twice(read, invoke):
    """Of models that take as many: the same weights with --gradient_checkpointing as without."""
    import torch
    import transformers
    from safetensors.numpy import load_file

    source = read.registry.parent / "tiny-xlmr"
    config = transformers.AutoConfig.from_pretrained(source, max_position_embeddings=1026)
    torch.manual_seed(0)
    transformers.XLMRobertaForMaskedLM(config).save_pretrained("large")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.save_pretrained("large")
    Path("large.json").write_text(json.dumps({"tiny": {"checkpoint": "./large"}}))
    corpus = read.folder / "texts"
    shutil.copytree(read.corpus, corpus)
    for split in ("train", "test"):
        rows = [
            f"{list(WORDS)[n % 3]}\t{'the of and year ' * (30 * n)}{WORDS[list(WORDS)[n % 3]]}" for n in range(1, 13)
        ]
        (corpus / f"corpus/{split}/en.tsv").write_text("\n".join(rows) + "\n")
    given = [*TRAINED, *FAST, "--train_langs", "en", "--num_epochs", "1", "--max_length", "1024"]
    given += ["--corpus_path", str(corpus), "--model_registry", "large.json", "--validation_size", "3"]
    weights = []
    for name, more in (("plain", []), ("twice", ["--gradient_checkpointing"])):
        status, output, errors = invoke(finetune, *given, *more, "--subfolder", name)
        assert status == 0, errors
        assert "packed, at most" in output and "cut at 1024 tokens" in output
        weights.append(load_file(f"models/{name}/tiny-en/model.safetensors"))
    assert all(np.allclose(value, weights[1][key], atol=1e-6) for key, value in weights[0].items())
    assert invoke(evaluate, *TRAINED, "--train_langs", "en", "--subfolder", "plain", "--eval_lang", "en",
                  "--corpus_path", str(corpus))[0] == 0  # fmt: skip
    reading = read_json("outputs/plain/tiny-en/eval/en.json")["reading"]
    longest = [len(ids) for ids in tokenizer([row.split("\t")[1] for row in rows])["input_ids"]]
    assert max(longest) > 1024 and reading["num_long_texts"] == sum(length > 1024 for length in longest)
    status, _, errors = invoke(finetune, *given, "--max_length", "1025", "--subfolder", "x")
    assert status == 2 and "--max_length 1025: this model takes at most 1024 tokens" in errors
