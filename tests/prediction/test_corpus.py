"""Labels of many files: every row has one, in whatever format, and no row costs the others theirs."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

import predict
from tests.factories import PROJECT, TRAINED
from tests.labels import CORPUS, label_files, read_jsonl, texts_of_all_lengths, write_jsonl
from tests.processes import finish, start

pytestmark = pytest.mark.slow


NAMES = {"eng/1": 90, "eng/2": 35, "fin/1": 61, "fin/2": 0}


def test_every_row_of_every_file_has_its_label(corpus, invoke):
    """With no process beside the model's, with one and with three; more processes than files or parts do no harm."""
    seen = {}
    Path("corpus/es.tsv").unlink()
    for workers in ("0", "1", "3"):
        status, output, errors = invoke(predict, *CORPUS, "--num_workers", workers, "--output_dir", f"out{workers}")
        assert status == 0, errors
        assert "4 files labelled" in output and "186 texts in 4 files" in output
        seen[workers] = label_files(Path(f"out{workers}"))
    assert seen["0"] == seen["1"] == seen["3"]
    assert set(seen["0"]) == {f"{name}.jsonl.zst" for name in NAMES}
    for name, count in NAMES.items():
        rows = read_jsonl(Path(f"out1/{name}.jsonl.zst"))
        assert [row["id"] for row in rows] == list(range(count))
    for index, text in enumerate(texts_of_all_lengths(61, 2)):
        assert rows_of_text(text) == read_jsonl(Path("out1/fin/1.jsonl.zst"))[index]["num_tokens"]


def rows_of_text(text):
    from utils.data.tokenization import load_tokenizer

    tokenizer = load_tokenizer(Path("models/tiny-en-fr"))
    return len(tokenizer(text, truncation=True, max_length=tokenizer.model_max_length)["input_ids"])


def test_the_overview(corpus, invoke):
    assert invoke(predict, *CORPUS)[0] == 0
    overview = json.loads(Path("predictions/predictions.json").read_text())
    rows = {name: read_jsonl(Path(f"predictions/{name}.jsonl.zst")) for name in overview["files"]}
    every = [row for found in rows.values() for row in found]
    assert overview["num_texts"] == len(every) == 210 and overview["unfinished"] == []
    assert overview["registers"] == {
        name: sum(row["register"] == name for row in every) for name in overview["registers"]
    }
    english = rows["eng/1"] + rows["eng/2"]
    assert overview["folders"]["eng"]["num_texts"] == len(english)
    assert overview["folders"]["eng"]["num_tokens"] == sum(row["num_tokens"] for row in english)
    assert overview["num_truncated"] == sum(row["truncated"] for row in every) > 0
    low = sum(row["probability"] < 0.5 for row in every) / len(every)
    assert overview["low_confidence"] == {"below": 0.5, "share": pytest.approx(low, abs=1e-4)}
    assert sum(overview["probabilities"]) == 210
    assert len(overview["made_with"]["model_sha256"]) == 64
    assert overview["model"] == "tiny-en-fr" and overview["number_format"] == "fp32"
    assert not list(Path("predictions/.predictions/parts").rglob("*.*"))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_format_has_the_same_labels(corpus, invoke, kind):
    import pandas as pd

    more = ["--input", "corpus/eng/1.jsonl.zst", "--id_column", "url", "--keep_text"]
    assert invoke(predict, *TRAINED, *more)[0] == 0
    assert invoke(predict, *TRAINED, *more, "--output_format", kind, "--output_dir", "other")[0] == 0
    expected = read_jsonl(Path("predictions/1.jsonl.zst"))
    path = f"other/1.{kind}"
    table = {"jsonl": lambda x: pd.read_json(x, lines=True), "csv": pd.read_csv, "parquet": pd.read_parquet}[kind](path)
    for name in ("id", "register", "probability", "num_tokens", "truncated", "text"):
        assert table[name].tolist() == pytest.approx([row[name] for row in expected])
    assert [row["text"] for row in expected] == texts_of_all_lengths(90) and expected[3]["id"] == "u3"


def test_records_of_hplt(corpus, invoke):
    assert invoke(predict, *CORPUS, "--hplt", "--output_format", "jsonl")[0] == 0
    row = read_jsonl(Path("predictions/eng/2.jsonl"))[7]
    assert set(row) == {"id", "web-register"} and sum(row["web-register"].values()) == pytest.approx(1, abs=0.001)
    status, _, errors = invoke(predict, *CORPUS, "--hplt", "--output_format", "csv", "--output_dir", "other")
    assert status == 2 and "--hplt writes lines of JSON" in errors


def test_bad_rows_are_refused_or_listed(corpus, invoke):
    """One file is refused, the others are labelled; then its bad rows are left out, and said to be."""
    rows = texts_of_all_lengths(50, 3)
    path = Path("corpus/eng/3.jsonl")
    path.write_text(
        "\n".join(["{broken" if n in (21, 44) else json.dumps({"text": row}) for n, row in enumerate(rows)])
    )
    status, output, errors = invoke(predict, *CORPUS)
    assert status == 2
    (line,) = errors.splitlines()
    assert line.startswith("predict.py: error: corpus/eng/3.jsonl, line 22: not valid JSON")
    assert "5 files labelled, 1 not labelled" in output and "not finished: 1 file" in output
    assert json.loads(Path("predictions/predictions.json").read_text())["unfinished"] == ["eng/3"]
    assert not Path("predictions/eng/3.jsonl.zst").exists()
    status, output, errors = invoke(predict, *CORPUS, "--skip_bad_rows")
    assert status == 0, errors
    assert "1 file labelled, 5 labelled before" in output
    assert "2 rows without a label: predictions/bad_rows.jsonl" in output
    listed = read_jsonl(Path("predictions/bad_rows.jsonl"))
    assert [(row["file"], row["row"], row["line"]) for row in listed] == [
        ("corpus/eng/3.jsonl", 21, 22),
        ("corpus/eng/3.jsonl", 44, 45),
    ]
    labelled = read_jsonl(Path("predictions/eng/3.jsonl.zst"))
    assert [row["id"] for row in labelled] == [n for n in range(50) if n not in (21, 44)]


def test_several_processes_of_one_job_share_the_files(corpus):
    """As torchrun starts them, one for each GPU; a large file is shared too."""
    write_jsonl(Path("corpus/eng/big.jsonl"), texts_of_all_lengths(900, 9))
    finish(start("predict.py", *CORPUS, "--output_dir", "alone", cwd=corpus.folder))
    processes = [
        start("predict.py", *CORPUS, cwd=corpus.folder, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="3")
        for rank in range(3)
    ]
    outputs = [finish(process) for process in processes]
    assert "labels    predictions" in outputs[0] and outputs[1] == outputs[2] == ""
    assert label_files(Path("predictions")) == label_files(Path("alone"))
    overview = json.loads(Path("predictions/predictions.json").read_text())
    assert overview["unfinished"] == [] and overview["num_texts"] == 1110


HOSTILE = {
    "torn.jsonl.zst": (1, "torn.jsonl.zst: cannot be read behind line "),
    "folder.txt": (2, "nothing to label in folder.txt"),
    "loop.txt": (2, "loop.txt: a link to nowhere, or to itself"),
    "nowhere.txt": (2, "nowhere.txt does not exist"),
    "fine.exe": (2, "fine.exe: expected .txt, .csv"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_answered_in_a_line(model, invoke, name):
    path = write_jsonl(Path("torn.jsonl.zst"), texts_of_all_lengths(3000))
    path.write_bytes(path.read_bytes()[:-500])
    Path("folder.txt").mkdir()
    Path("loop.txt").symlink_to("loop.txt")
    Path("fine.exe").write_text("fine")
    status, _, errors = invoke(predict, *TRAINED, "--input", name)
    expected, message = HOSTILE[name]
    assert status == expected and len(errors.splitlines()) == 1, errors
    assert errors.startswith("predict.py: error: ") and message in errors


def test_an_output_folder_that_cannot_be_written(model, invoke):
    write_jsonl(Path("in/1.jsonl"), ["a text"])
    Path("file").write_text("")
    for folder in ("/sys/predictions", "file/predictions"):
        status, _, errors = invoke(predict, *TRAINED, "--input", "in", "--output_dir", folder)
        assert status == 2 and len(errors.splitlines()) == 1 and f"cannot write to {folder}" in errors


def test_memory_is_bounded(model):
    """800 MB of texts, rows of 20 MB among them, in a process that takes no more than for a few short ones."""
    long, short = json.dumps({"text": "word " * 4_000_000}) + "\n", json.dumps({"text": "word " * 200}) + "\n"
    content = zstandard.ZstdCompressor().compressobj()
    Path("in").mkdir()
    with Path("in/1.jsonl.zst").open("wb") as file:
        for number in range(3000):
            file.write(content.compress((long if number % 75 == 0 else short).encode()))
        file.write(content.flush())
    write_jsonl(Path("few/1.jsonl.zst"), texts_of_all_lengths(10))
    peaks = []
    for given in ("few", "in"):
        command = [sys.executable, str(PROJECT / "predict.py"), *TRAINED, "--num_workers", "1", "--input", given]
        with subprocess.Popen([*command, "--output_dir", f"out-{given}"], cwd=model.folder) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss * 1024)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peaks[1] - peaks[0] < 150e6, peaks
    # The process that reads: some rows, never the file.
    assert children - peaks[0] < 600e6, (children, peaks)
