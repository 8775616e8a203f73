"""Labels for one text, a stream, a corpus; whatever happens to the process that makes them."""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard

import evaluate
import finetune
import predict
from tests.factories import FAST, PROJECT, Inputs
from tests.processes import finish, start
from utils.data.corpus_load import open_corpus, read_tsv

pytestmark = pytest.mark.slow
OURS = ["--model_name", "tiny", "--train_langs", "en-fr", "--precision", "fp32"]


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A folder with a trained model in it."""
    folder = tmp_path_factory.mktemp("trained")
    made = Inputs(small / "register-corpus", small / "model2chckpt.json", folder)
    finish(start("finetune.py", *OURS, *FAST, cwd=folder, **made.environment))
    return folder


@pytest.fixture
def model(trained, inputs):
    """The trained model in an empty working folder."""
    (inputs.folder / "models").symlink_to(trained / "models")
    shutil.copytree(trained / "outputs", inputs.folder / "outputs")
    return inputs


TEXTS = [
    "The minister said on Friday that the border would stay open.",
    "Buy now! Free delivery on all shoes.",
    "Thanks, that worked for me :)",
]


def texts(count, seed=0):
    """Texts of many lengths."""
    words = random.Random(0).choices("abcdefghij", k=50)
    generator = random.Random(seed)
    return [" ".join(generator.choices(words, k=generator.choice([1, 3, 9, 40, 200]))) for _ in range(count)]


def write_jsonl(path, rows):
    """Write texts, or rows, as lines of JSON, compressed if the name says so."""
    rows = [{"text": row} if isinstance(row, str) else row for row in rows]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress(content) if path.suffix == ".zst" else content)
    return path


def read_jsonl(path):
    content = path.read_bytes()
    if path.suffix == ".zst":
        content = zstandard.ZstdDecompressor().stream_reader(content).read()
    return [json.loads(line) for line in content.decode().splitlines()]


def contents(folder):
    """The files of labels, by name."""
    # What a killed writer has left of a file is no file, and the next one that writes there removes it.
    found = [path for path in folder.rglob("[!.]*.*") if ".predictions" not in path.parts and path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.name != "predictions.json"}


def test_the_numbers_are_those_of_evaluate(model, invoke):
    """The same probabilities, to a millionth, and so the same registers; also at another temperature."""
    config = json.loads((model.folder / "models/tiny-en-fr/config.json").read_text())
    assert config["calibration_temperature"] != 1
    for temperature in ([], ["--temperature", "2.5"]):
        shutil.rmtree("outputs/tiny-en-fr/eval", ignore_errors=True)
        assert invoke(evaluate, *OURS, "--eval_lang", "fr", *temperature)[0] == 0
        given = [*OURS, "--input", str(model.corpus / "corpus/test/fr.tsv"), *temperature]
        status, _, errors = invoke(predict, *given, "--keep_columns", "label", "--force")
        assert status == 0, errors
        from utils.evaluation.results import load_predictions

        table = load_predictions(Path("outputs/tiny-en-fr"), "fr")
        rows = read_jsonl(Path("predictions/fr.jsonl.zst"))
        assert [row["register"] for row in rows] == table["predicted"].tolist()
        assert [row["label"] for row in rows] == table["true"].tolist()
        assert [row["id"] for row in rows] == table["index"].tolist()
        registers = list(rows[0]["probabilities"])
        shares = table[registers].to_numpy()
        assert np.abs(shares.max(1) - [row["probability"] for row in rows]).max() <= 1e-6
        assert np.abs(shares - [[row["probabilities"][x] for x in registers] for row in rows]).max() <= 0.00005001
    assert json.loads(Path("outputs/tiny-en-fr/eval/fr.json").read_text())["temperature"] == 2.5


def test_one_text_has_one_line(model, invoke):
    status, output, errors = invoke(predict, *OURS, "--text", *TEXTS)
    assert status == 0, errors
    lines = [line.split("\t") for line in output.splitlines()]
    assert len(lines) == 3
    for register, probability, second, its in lines:
        assert register != second and 0 < float(its) <= float(probability) < 1
    status, output, _ = invoke(predict, *OURS, "--text", *TEXTS, "--format", "json", "--keep_text")
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row["register"] for row in rows] == [line[0] for line in lines]
    assert [row["text"] for row in rows] == TEXTS
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=0.001)
    assert not Path("predictions").exists()


def test_a_stream_is_answered_line_by_line(model):
    """Each line has its answer before the next one is given; nobody waits for a full batch."""
    command = [sys.executable, str(PROJECT / "predict.py"), "--model", "models/tiny-en-fr", "-", "--format", "json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=model.folder, text=True
    ) as process:
        for number, text in enumerate([*TEXTS, "h\u00e9 \u2028 wait"]):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == number
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_many_lines_of_a_stream(model, monkeypatch, invoke):
    lines = texts(700)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    status, output, errors = invoke(predict, *OURS, "-", "--format", "json")
    assert status == 0, errors
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert invoke(predict, *OURS, "-")[:2] == (0, "")
    write_jsonl(Path("in/all.jsonl"), lines)
    assert invoke(predict, *OURS, "--input", "in/all.jsonl")[0] == 0
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row["register"] for row in rows] == [
        row["register"] for row in read_jsonl(Path("predictions/all.jsonl.zst"))
    ]


@pytest.fixture
def corpus(model):
    """Files of three languages in several formats, some empty, some larger than a part."""
    write_jsonl(Path("corpus/eng/1.jsonl.zst"), [{"text": text, "url": f"u{n}"} for n, text in enumerate(texts(90))])
    write_jsonl(Path("corpus/eng/2.jsonl"), texts(35, 1))
    Path("corpus/fin").mkdir()
    Path("corpus/fin/1.txt").write_text("\n".join(texts(61, 2)))
    Path("corpus/fin/2.txt").write_text("")
    test = (model.corpus / "corpus/test/es.tsv").read_text(encoding="utf-8")
    Path("corpus/es.tsv").write_text(f"label\ttext\n{test}", encoding="utf-8")
    return model


CORPUS = [*OURS, "--input", "corpus", "--rows_per_part", "20"]
NAMES = {"eng/1": 90, "eng/2": 35, "fin/1": 61, "fin/2": 0}


def test_every_row_of_every_file_has_its_label(corpus, invoke):
    """With no process beside the model's, with one and with three; more processes than files or parts do no harm."""
    seen = {}
    Path("corpus/es.tsv").unlink()
    for workers in ("0", "1", "3"):
        status, output, errors = invoke(predict, *CORPUS, "--num_workers", workers, "--output_dir", f"out{workers}")
        assert status == 0, errors
        assert "4 files labelled" in output and "186 texts in 4 files" in output
        seen[workers] = contents(Path(f"out{workers}"))
    assert seen["0"] == seen["1"] == seen["3"]
    assert set(seen["0"]) == {f"{name}.jsonl.zst" for name in NAMES}
    for name, count in NAMES.items():
        rows = read_jsonl(Path(f"out1/{name}.jsonl.zst"))
        assert [row["id"] for row in rows] == list(range(count))
    for index, text in enumerate(texts(61, 2)):
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
    assert invoke(predict, *OURS, *more)[0] == 0
    assert invoke(predict, *OURS, *more, "--output_format", kind, "--output_dir", "other")[0] == 0
    expected = read_jsonl(Path("predictions/1.jsonl.zst"))
    path = f"other/1.{kind}"
    table = {"jsonl": lambda x: pd.read_json(x, lines=True), "csv": pd.read_csv, "parquet": pd.read_parquet}[kind](path)
    for name in ("id", "register", "probability", "num_tokens", "truncated", "text"):
        assert table[name].tolist() == pytest.approx([row[name] for row in expected])
    assert [row["text"] for row in expected] == texts(90) and expected[3]["id"] == "u3"


def test_records_of_hplt(corpus, invoke):
    assert invoke(predict, *CORPUS, "--hplt", "--output_format", "jsonl")[0] == 0
    row = read_jsonl(Path("predictions/eng/2.jsonl"))[7]
    assert set(row) == {"id", "web-register"} and sum(row["web-register"].values()) == pytest.approx(1, abs=0.001)
    status, _, errors = invoke(predict, *CORPUS, "--hplt", "--output_format", "csv", "--output_dir", "other")
    assert status == 2 and "--hplt writes lines of JSON" in errors


def test_bad_rows_are_refused_or_listed(corpus, invoke):
    """One file is refused, the others are labelled; then its bad rows are left out, and said to be."""
    rows = texts(50, 3)
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


def test_twenty_kills_leave_one_complete_output(model):
    """kill -9 at random moments, also while a file is put together; in the end every row is there, byte for byte."""
    for number, count in enumerate((1500, 10, 700)):
        write_jsonl(Path(f"in/{number}.jsonl.zst"), texts(count, number))
    command = [*OURS, "--input", "in", "--rows_per_part", "20", "--num_workers", "2"]
    started = time.monotonic()
    finish(start("predict.py", *command, "--output_dir", "whole", cwd=model.folder))
    seconds = time.monotonic() - started
    generator, kills = random.Random(1), 0
    while kills < 20:
        process = start("predict.py", *command, "--output_dir", "killed", cwd=model.folder)
        time.sleep(generator.uniform(0.2, 0.9) * min(seconds, 3.0))
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        # Not for those that read, who see within seconds that they are alone.
        process.process.join()
        if process.returncode == 0:
            # All was done before the signal came: from the beginning.
            shutil.rmtree("killed")
        kills += process.returncode != 0
    finish(start("predict.py", *command, "--output_dir", "killed", cwd=model.folder))
    assert contents(Path("killed")) == contents(Path("whole"))
    for number, count in enumerate((1500, 10, 700)):
        assert [row["id"] for row in read_jsonl(Path(f"killed/{number}.jsonl.zst"))] == list(range(count))
    remains = [path for path in Path("killed/.predictions").rglob("*") if path.is_file()]
    assert {path.suffix for path in remains} == {".lock", ".json"}, remains


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_it_between_parts(model, signum):
    write_jsonl(Path("in/1.jsonl"), texts(4000))
    command = [*OURS, "--input", "in", "--rows_per_part", "50"]
    process = start("predict.py", *command, cwd=model.folder)
    folder = Path("predictions/.predictions/parts/1.parts")
    deadline = time.monotonic() + 60
    while len(list(folder.glob("0*.zst"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, output
    assert "the same command goes on behind the last part that is whole" in output
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("0*.zst")}
    assert len(kept) >= 3
    assert json.loads(Path("predictions/predictions.json").read_text())["unfinished"] == ["1"]
    output = finish(start("predict.py", *command, cwd=model.folder))
    assert "4,000 texts in 1 file" in output
    assert len(read_jsonl(Path("predictions/1.jsonl.zst"))) == 4000


def test_a_part_that_is_whole_is_not_computed_again(model, invoke, monkeypatch):
    from utils.evaluation.inference import Classifier

    write_jsonl(Path("in/1.jsonl"), texts(100))
    command = [*OURS, "--input", "in", "--rows_per_part", "20", "--num_workers", "0"]
    computed, stock = [], Classifier.logits_of

    def counted(self, input_ids, budget):
        computed.append(len(input_ids))
        if len(computed) == 4:
            raise MemoryError("out of memory")
        return stock(self, input_ids, budget)

    monkeypatch.setattr(Classifier, "logits_of", counted)
    status, _, errors = invoke(predict, *command)
    assert status == 1 and "MemoryError: out of memory" in errors
    (torn, *_) = sorted(Path("predictions/.predictions/parts/1.parts").glob("0*.zst"))
    torn.write_bytes(torn.read_bytes()[:-3])
    assert invoke(predict, *command)[0] == 0
    # Three were computed, the fourth failed; then the torn first one and the last two.
    assert computed == [20] * 4 + [20] * 3
    assert invoke(predict, *command)[0] == 0
    assert len(computed) == 7


def test_a_full_disk_costs_nothing(model):
    """Files can grow to 20 kB and no further, which the joined labels exceed."""
    write_jsonl(Path("in/1.jsonl"), texts(1500))
    command = [*OURS, "--input", "in", "--rows_per_part", "100", "--output_format", "jsonl"]
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    limit += f"sys.path.insert(0, {str(PROJECT)!r}); sys.argv[0] = 'predict.py'; "
    limit += f"runpy.run_path({str(PROJECT / 'predict.py')!r}, run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", limit, *command], cwd=model.folder, capture_output=True, text=True)
    assert result.returncode == 1
    assert "predict.py: error: " in result.stderr and "File too large" in result.stderr
    assert "Traceback" not in result.stderr and not list(Path("predictions").glob("*.jsonl"))
    finish(start("predict.py", *command, cwd=model.folder))
    assert len(read_jsonl(Path("predictions/1.jsonl"))) == 1500
    assert [path.name for path in Path("predictions").iterdir() if path.name.startswith(".")] == [".predictions"]


def test_another_model_or_other_options_do_not_mix(corpus, invoke):
    assert invoke(predict, *CORPUS)[0] == 0
    before = contents(Path("predictions"))
    for more, difference in (
        (["--temperature", "2"], "temperature None -> 2.0"),
        (["--keep_text"], "keep_text False -> True"),
        (["--input", "corpus/eng"], "root "),
    ):
        status, _, errors = invoke(predict, *CORPUS, *more)
        assert status == 2 and "labels that were made with something else" in errors and difference in errors
    shutil.copytree("models/tiny-en-fr", "copy")
    config = json.loads(Path("copy/config.json").read_text())
    Path("copy/config.json").write_text(json.dumps(config | {"calibration_temperature": 3.0}))
    status, _, errors = invoke(predict, "--model", "copy", *CORPUS[4:])
    assert status == 2 and "model_sha256" in errors
    assert contents(Path("predictions")) == before
    assert invoke(predict, *CORPUS, "--output_format", "csv", "--force")[0] == 0
    assert set(contents(Path("predictions"))) == {f"{name}.csv" for name in (*NAMES, "es")}


def test_force_leaves_no_label_of_before(corpus, invoke):
    """Neither of files that were finished after the overview was written last, as a kill leaves it."""
    import utils.prediction.folder as module

    assert invoke(predict, *CORPUS)[0] == 0
    made = json.loads(Path("predictions/predictions.json").read_text())
    names, made["files"] = sorted(made["files"]), {}
    Path("predictions/predictions.json").write_text(json.dumps(made | {"unfinished": names}))
    before = contents(Path("predictions"))
    assert invoke(predict, *CORPUS, "--temperature", "9", "--force")[0] == 0
    after = contents(Path("predictions"))
    assert set(after) == set(before) and all(after[name] != before[name] for name in after if "fin/2" not in name)
    assert json.loads(Path("predictions/predictions.json").read_text())["num_texts"] == 210
    # What has just been begun, by another process of the same job, goes on.
    folder = module.LabelFolder(Path("predictions"), "jsonl.zst")
    again = made["made_with"] | {"root": "elsewhere"}
    first = folder.begin(again, {"number_format": "fp32"}, ["a"], force=True)
    assert folder.begin(again, {"number_format": "fp32"}, ["a"], force=True)["started"] == first["started"]
    assert not contents(Path("predictions"))


def test_a_file_that_has_changed_is_not_taken_for_the_one_that_was_labelled(corpus, invoke):
    assert invoke(predict, *CORPUS)[0] == 0
    write_jsonl(Path("corpus/eng/2.jsonl"), texts(36, 1))
    status, output, errors = invoke(predict, *CORPUS)
    assert status == 2 and "4 labelled before, 1 not labelled" in output
    assert errors.splitlines() == [
        "predict.py: error: corpus/eng/2.jsonl has changed since it was labelled in predictions; give another "
        "--output_dir, or --force"
    ]
    assert len(read_jsonl(Path("predictions/eng/2.jsonl.zst"))) == 35


def test_new_files_are_added(corpus, invoke):
    assert invoke(predict, *CORPUS)[0] == 0
    write_jsonl(Path("corpus/swe/1.jsonl"), texts(5))
    status, output, _ = invoke(predict, *CORPUS)
    assert status == 0 and "1 file labelled, 5 labelled before" in output and "215 texts in 6 files" in output


def test_several_processes_of_one_job_share_the_files(corpus):
    """As torchrun starts them, one for each GPU; a large file is shared too."""
    write_jsonl(Path("corpus/eng/big.jsonl"), texts(900, 9))
    finish(start("predict.py", *CORPUS, "--output_dir", "alone", cwd=corpus.folder))
    processes = [
        start("predict.py", *CORPUS, cwd=corpus.folder, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="3")
        for rank in range(3)
    ]
    outputs = [finish(process) for process in processes]
    assert "labels    predictions" in outputs[0] and outputs[1] == outputs[2] == ""
    assert contents(Path("predictions")) == contents(Path("alone"))
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
    path = write_jsonl(Path("torn.jsonl.zst"), texts(3000))
    path.write_bytes(path.read_bytes()[:-500])
    Path("folder.txt").mkdir()
    Path("loop.txt").symlink_to("loop.txt")
    Path("fine.exe").write_text("fine")
    status, _, errors = invoke(predict, *OURS, "--input", name)
    expected, message = HOSTILE[name]
    assert status == expected and len(errors.splitlines()) == 1, errors
    assert errors.startswith("predict.py: error: ") and message in errors


def test_an_output_folder_that_cannot_be_written(model, invoke):
    write_jsonl(Path("in/1.jsonl"), TEXTS)
    Path("file").write_text("")
    for folder in ("/sys/predictions", "file/predictions"):
        status, _, errors = invoke(predict, *OURS, "--input", "in", "--output_dir", folder)
        assert status == 2 and len(errors.splitlines()) == 1 and f"cannot write to {folder}" in errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--text", "a"], "which model? give --model FOLDER"),
        (["--model", "x", "--model_name", "tiny", "--text", "a"], "give one of the two"),
        (["--model", "nowhere", "--text", "a"], "nowhere"),
        (["--model_name", "tiny", "--train_langs", "en", "--text", "a"], "no trained model in models/tiny-en"),
        (["--model_name", "../x", "--train_langs", "en", "--text", "a"], "is not a model abbreviation"),
        ([*OURS], "nothing to label"),
        ([*OURS, "--text", "a", "--input", "b"], "--text and --input exclude each other"),
        ([*OURS, "--text", " "], "text 1 is empty"),
        ([*OURS, "--text", "a", "--skip_bad_rows"], "--skip_bad_rows has no effect with --text"),
        ([*OURS, "--input", "outputs", "--format", "json"], "--format has no effect with --input"),
        ([*OURS, "--text", "a", "--temperature", "0"], "--temperature must be above 0"),
        ([*OURS, "--input", "in", "--share", "plan.json:0"], "--input and --share exclude each other"),
        ([*OURS, "--share", "plan.json"], "expected FILE:NUMBER"),
        ([*OURS, "--share", "plan.json:0"], "plan.json does not exist"),
    ],
)
def test_mistakes(model, invoke, given, message):
    status, _, errors = invoke(predict, *given)
    assert status == 2 and message in errors and len(errors.splitlines()) <= 2, errors


def test_a_pretrained_model_is_no_classifier(model, invoke, small):
    status, _, errors = invoke(predict, "--model", str(small / "tiny-xlmr"), "--text", "a")
    assert status == 2 and "weights are missing or of another shape: classifier" in errors


def test_classifiers_of_others(model, invoke, small):
    """Several labels that do not exclude each other, no limit in the tokenizer's files, no padding token."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = Path("published")
    config = {"num_labels": 3, "problem_type": "multi_label_classification", "id2label": {0: "NE", 1: "OP", 2: "HI"}}
    AutoModelForSequenceClassification.from_pretrained(small / "tiny-xlmr", **config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(small / "tiny-xlmr")
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(folder)
    status, output, errors = invoke(predict, "--model", "published", "--text", "word " * 900, "--format", "json")
    assert status == 0, errors
    row = json.loads(output)
    assert list(row["probabilities"]) == ["NE", "OP", "HI"] and row["num_tokens"] == 512
    assert all(0.3 < share < 0.7 for share in row["probabilities"].values())


def test_adapters(model, invoke):
    recipe = [*FAST, "--lora_targets", "query", "--subfolder", "lora"]
    (model.folder / "models").unlink()
    assert invoke(finetune, *OURS, *recipe)[0] == 0
    assert Path("models/lora/tiny-en-fr/adapter_model.safetensors").is_file()
    first = invoke(predict, *OURS, "--subfolder", "lora", "--text", *TEXTS)
    second = invoke(predict, "--model", "models/lora/tiny-en-fr", "--precision", "fp32", "--text", *TEXTS)
    assert first[0] == second[0] == 0 and first[1] == second[1]


def test_memory_is_bounded(model):
    """800 MB of texts, rows of 20 MB among them, in a process that takes no more than for a few short ones."""
    long, short = json.dumps({"text": "word " * 4_000_000}) + "\n", json.dumps({"text": "word " * 200}) + "\n"
    content = zstandard.ZstdCompressor().compressobj()
    Path("in").mkdir()
    with Path("in/1.jsonl.zst").open("wb") as file:
        for number in range(3000):
            file.write(content.compress((long if number % 75 == 0 else short).encode()))
        file.write(content.flush())
    write_jsonl(Path("few/1.jsonl.zst"), texts(10))
    peaks = []
    for given in ("few", "in"):
        command = [sys.executable, str(PROJECT / "predict.py"), *OURS, "--num_workers", "1", "--input", given]
        with subprocess.Popen([*command, "--output_dir", f"out-{given}"], cwd=model.folder) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss * 1024)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peaks[1] - peaks[0] < 150e6, peaks
    # The process that reads: some rows, never the file.
    assert children - peaks[0] < 600e6, (children, peaks)


def test_transformers_own_pipeline_reads_our_models(model, invoke):
    """As the README and the model's card show it; its probabilities are those at temperature 1."""
    from transformers import pipeline

    classify = pipeline("text-classification", "models/tiny-en-fr", top_k=None, truncation=True)
    found = [{row["label"]: row["score"] for row in rows} for rows in classify(TEXTS)]
    _, output, _ = invoke(predict, *OURS, "--temperature", "1", "--format", "json", "--text", *TEXTS)
    for theirs, line in zip(found, output.splitlines(), strict=True):
        ours = json.loads(line)["probabilities"]
        assert ours == {name: pytest.approx(theirs[name], abs=6e-5) for name in ours}


def test_real_texts(real_corpus, model, invoke):
    """A test file of the real corpus: as many labels as rows, in their order."""
    path = Path(real_corpus) / "corpus/test/sv.tsv"
    status, _, errors = invoke(predict, *OURS, "--input", str(path), "--keep_columns", "label")
    assert status == 0, errors
    labels = [label for label, _ in read_tsv(path, open_corpus(real_corpus).registers)]
    assert [row["label"] for row in read_jsonl(Path("predictions/sv.jsonl.zst"))] == labels
