"""The language database: what it says is checked, and every kind of dataset gives the same texts and labels."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import datasets
import pytest

import evaluate
import finetune
import post_eval
from tests.databases import ENTRY, LABELS, TEXTS, database, rows, write
from tests.factories import COMMITS, FAST, PROJECT, Handler, Hub, skip, typed_registry
from utils.data.dataset_files import read_file
from utils.data.language_database import open_task, read_database
from utils.errors import UserError


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "saved"])
def test_every_kind_gives_the_same(tmp_path, kind):
    write(tmp_path / "data", kind, rows())
    data = open_task("t", ["xx"], path=database(tmp_path))
    loaded = data.load("test", "xx", "|")
    assert loaded["text"][:] == [f"{title}|{body}" for title, body in zip(TEXTS, TEXTS[::-1], strict=True)]
    assert data.label_names(["xx"]) == ["no", "yes"]
    assert loaded["label"][:] == [1, 0] * 4
    provenance = data.provenance("test", ["xx"])[0]
    assert (provenance["split"], provenance["columns"]) == ("dev", ["title", "body", "label"])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 10, 2, 0, 2, 10, 0, 2], ["0", "2", "10"]),
        ([0.0, 10.0, 2.0, 0.0, 2.0, 10.0, 0.0, 2.0], ["0", "2", "10"]),
        (["0", "10", "2", "0", "2", "10", "0", "2"], ["0", "2", "10"]),
        (["b", "c", "a", "b", "a", "c", "b", "a"], ["a", "b", "c"]),
        ("ClassLabel", ["c", "b", "a"]),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_labels_of_every_type(tmp_path, kind, labels, names):
    dataset = rows([1, 0, 2, 1, 2, 0, 1, 2] if labels == "ClassLabel" else labels)
    if labels == "ClassLabel":
        if kind == "jsonl":
            kind = "saved"
        dataset = dataset.cast_column("label", datasets.ClassLabel(names=names))
    write(tmp_path / "data", kind, dataset)
    data = open_task("t", ["xx"], path=database(tmp_path, classes=3))
    assert data.label_names(["xx"]) == names
    expected = (
        dataset["label"][:] if labels == "ClassLabel" else [names.index(str(x).removesuffix(".0")) for x in labels]
    )
    assert data.load("train", "xx", " ")["label"][:] == expected


def test_columns_are_joined_by_what_the_tokenizer_puts_between_texts(small, tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from utils.data.tokenization import load_tokenizer, separator

    tokenizer = load_tokenizer(small / "tiny-xlmr")
    write(tmp_path / "data", "csv", rows())
    text = open_task("t", ["xx"], path=database(tmp_path)).load("train", "xx", separator(tokenizer))["text"][2]
    (place,) = [
        number for number, token in enumerate(tokenizer(text)["input_ids"][:-1]) if token == tokenizer.sep_token_id
    ]
    pair = tokenizer(TEXTS[2], TEXTS[-3])["input_ids"]
    # XLM-R's own pairs have two separators.
    assert tokenizer(text)["input_ids"] == pair[: place + 1] + pair[place + 2 :]
    causal = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="<|endoftext|>")
    assert separator(causal) == "<|endoftext|>"


def test_the_hash_is_that_of_texts_and_labels(tmp_path):
    hashes = set()
    for kind, labels in (("csv", LABELS), ("parquet", LABELS), ("jsonl", LABELS[::-1])):
        write(tmp_path / kind, kind, rows(labels))
        data = open_task("t", ["xx"], path=database(tmp_path, dataset=f"{kind}/{{split}}.{kind}"))
        hashes.add((kind == "jsonl", data.provenance("train", ["xx"])[0]["sha256"]))
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": None}, "xx.t.one.classes is missing"),
        ({"clases": 2}, "xx.t.one.clases: unknown key; did you mean 'classes'?"),
        ({"classes": "2"}, "xx.t.one.classes: expected a whole number above 1, got '2'"),
        ({"splits": ["train"]}, "xx.t.one.splits: expected two different splits"),
        ({"splits": ["train", "train"]}, "xx.t.one.splits: expected two different splits"),
        ({"train_features": "title"}, "xx.t.one.train_features: expected a list of different columns"),
        ({"train_features": []}, "xx.t.one.train_features: expected a list of different columns"),
        ({"train_features": ["label"]}, "xx.t.one.train_features: expected columns other than the label's"),
        ({"task_type": "seq2seq"}, "xx.t.one.task_type: expected one of classification, multi_label, got 'seq2seq'"),
        ({"dataset": ""}, "xx.t.one.dataset: expected a string"),
        ({"dataset": "./data", "subset": "en"}, "subset and revision are for datasets of the hub"),
    ],
)
def test_what_a_database_must_say(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        read_database(database(tmp_path, **changes))
    assert message in str(error.value)
    assert str(tmp_path / "database.json") in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"../x": {"t": {"one": ENTRY}}}, "'../x' is not a language name"),
        ({"xx": []}, "xx: expected an object"),
        ({"xx": {"t": "data"}}, "xx.t: expected an object, got 'data'"),
    ],
)
def test_the_shape_of_a_database(tmp_path, content, message):
    path = tmp_path / "database.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_database(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title,body\na,b\n", "split train: no column 'label'"),
        ("title,body,label\na,b\n", "line 2: expected 3 columns (title, body, label), got 2"),
        ('title,body,label\n"a\nb",c,d\nx\n', "line 4: expected 3 columns"),
        ('title,body,label\n"a"b,c,d\n', "line 2: malformed row"),
        ("title,title,label\n", "line 1: expected a header with a different name for each column"),
        ("title,body,label\n", "there are no rows in it"),
        ("title,body,label\na,b,\n", "row 1: '' in 'label' is not a label"),
        ("title,body,label\na,b,c\na,b,d\na,b,e\n", "xx.t.one.classes: 2, but the data have 3 labels: c, d, e"),
    ],
)
def test_files_that_do_not_hold_what_they_should(tmp_path, content, message):
    (tmp_path / "data").mkdir()
    for split in ("train", "dev"):
        (tmp_path / f"data/{split}.csv").write_text(content)
    with pytest.raises(UserError) as error:
        open_task("t", ["xx"], path=database(tmp_path)).label_names(["xx"])
    assert message in str(error.value)
    assert "xx.t.one" in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"a": 1}\n{"a": 1,\n', "x.jsonl, line 2: not valid JSON"),
        ("x.jsonl", '{"a": 1}\n{"b": 1}\n', "x.jsonl, line 2: expected an object with the keys a"),
        ("x.jsonl", '{"a": 1}\n{"a": "x"}\n', "x.jsonl: a column holds values of several types"),
        ("x.jsonl", "[1]\n", "x.jsonl, line 1: expected an object"),
        ("x.tsv", b"a\tb\n\xff\t1\n", "x.tsv, line 2: not valid UTF-8"),
        ("x.parquet", b"PAR1", "x.parquet: not a Parquet file"),
    ],
)
def test_malformed_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        read_file(tmp_path / name)
    assert message in str(error.value)


def test_places_without_a_dataset(tmp_path):
    def complaint(dataset):
        with pytest.raises(UserError) as error:
            open_task("t", ["xx"], path=database(tmp_path, dataset=dataset)).label_names(["xx"])
        return str(error.value)

    assert "does not exist" in complaint("./nowhere")
    write(tmp_path / "data", "csv", rows())
    (tmp_path / "data/dev.csv").rename(tmp_path / "data/deve.csv")
    assert "did you mean 'deve'?" in complaint("./data")
    (tmp_path / "data/train.tsv").touch()
    assert "are both there" in complaint("./data")
    assert "is one file" in complaint("./data/train.csv")
    assert "expected a file of one of the types" in complaint("./data/{split}.xlsx")
    rows().save_to_disk(tmp_path / "single")
    assert "without splits" in complaint("./single")
    write(tmp_path / "saved", "saved", rows())
    with pytest.raises(UserError, match="no split 'test'; known: dev, train"):
        path = database(tmp_path, dataset="./saved", splits=["train", "test"])
        open_task("t", ["xx"], path=path).label_names(["xx"])


def test_choices_between_languages_and_datasets(tmp_path):
    write(tmp_path / "data", "csv", rows())
    write(tmp_path / "more", "csv", rows([*LABELS[:-1], "maybe"]))
    write(tmp_path / "other", "csv", rows(["ja", "nein"] * 4))
    content = {
        "xx": {"t": {"one": ENTRY, "two": ENTRY | {"dataset": "other"}}},
        "yy": {"t": {"one": ENTRY | {"dataset": "more", "classes": 3}}},
        "zz": {"t": {"three": ENTRY | {"dataset": "other"}}, "u": {"one": ENTRY}},
    }
    path = tmp_path / "database.json"
    path.write_text(json.dumps(content))

    def complaint(langs, **options):
        with pytest.raises(UserError) as error:
            open_task("t", langs, path=path, **options).label_names(langs)
        return str(error.value)

    assert "xx.t has several datasets; choose with --dataset, of: one, two" in complaint(["xx"])
    assert "has no dataset four" in complaint(["xx"], names=["four"])
    assert "2 classes in xx and 3 in yy" in complaint(["xx", "yy"], names=["one"])
    assert "labels no, yes in xx, ja, nein in zz" in complaint(["xx", "zz"], names=["one", "three"])
    assert "language 'ww' is not in the database" in complaint(["ww"])
    with pytest.raises(UserError, match="no language has the task 'v'"):
        open_task("v", path=path)
    assert open_task("t", ["xx", "zz"], names=["two", "three"], path=path).label_names(["xx", "zz"]) == ["ja", "nein"]
    assert open_task("t", names=["one"], path=path).languages("test") == ["xx", "yy"]


@pytest.mark.slow
def test_the_listing_names_what_cannot_be_used(tmp_path):
    write(tmp_path / "data", "csv", rows())
    content = {"xx": {"t": {"one": ENTRY, "two": ENTRY | {"dataset": "./nowhere"}}}}
    (tmp_path / "database.json").write_text(json.dumps(content))
    command = [sys.executable, "-m", "utils.data.language_database", "--language_database", tmp_path / "database.json"]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout.splitlines()[1].split() == ["xx.t.one", "8", "8", "no,", "yes"]
    assert "xx.t.two: error:" in result.stderr and "Traceback" not in result.stderr


@pytest.fixture
def typed(inputs, monkeypatch):
    """The inputs, with the tiny model also registered for phonemes."""
    monkeypatch.setenv("MODEL_REGISTRY", str(typed_registry(inputs)))
    return inputs


@pytest.mark.slow
def test_from_the_database_to_the_figures(typed, invoke):
    what = ["--task", "sentiment", "--train_langs", "russian-polish"]
    for model_type, name in (("normal", "tiny"), ("ipa", "tiny-ipa")):
        which = ["--model_name", "tiny", "--model_type", model_type]
        assert invoke(finetune, *which, *what, *FAST)[0] == 0
        # Its task and texts are those of the training.
        status, output, errors = invoke(evaluate, *which, "--train_langs", "russian-polish", "--eval_langs", "all")
        assert (status, errors) == (0, "")
        record = json.loads((typed.folder / f"outputs/{name}-russian-polish/run.json").read_text())
        columns = record["data"]["files"][0]["columns"]
        assert columns == ["review" + "-phoneme" * (model_type == "ipa"), "rating"]
        result = json.loads((typed.folder / f"outputs/{name}-russian-polish/eval/polish.json").read_text())
        assert result["registers"] == ["negative", "neutral", "positive"]
        assert (result["task"], result["num_texts"]) == ("sentiment", 60)
        assert "evaluated already" in invoke(
            evaluate, "--model_name", name, "--train_langs", "russian-polish", "--eval_lang", "polish"
        )[1]  # fmt: skip
    status, output, errors = invoke(post_eval, "--show_texts")
    assert (status, errors) == (0, "") and "2 models, 4 evaluations" in output
    # The texts of the run's own writing, of which the model got some wrong.
    report = (typed.folder / "outputs/report.html").read_text(encoding="utf-8")
    runs = json.loads(report.partition('id="data">')[2].partition("</script>")[0])["runs"]
    for run, phonemes in zip(runs, (False, True), strict=True):
        shown = [example for result in run["evals"].values() for example in result["examples"]]
        assert shown and all(example["true"] != example["predicted"] for example in shown)
        texts = open_task("sentiment", ["polish"], model_type="ipa" if phonemes else "normal").load(
            "test", "polish", " "
        )
        assert all(
            texts["text"][example["index"]].startswith(example["text"].rstrip(" \u2026"))
            for example in run["evals"]["polish"]["examples"]
        )
    assert (typed.folder / "outputs/tiny-ipa-russian-polish/cfm.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "sentiment", "--train_langs", "russian-french"], "language 'french' is not in the database"),
        (["--task", "sentimant", "--train_langs", "russian"], "did you mean 'sentiment'?"),
        (["--model_type", "ipa", "--train_langs", "en"], "--model_type ipa is for --task"),
        (["--dataset", "demo", "--train_langs", "en"], "--dataset is for --task"),
    ],
)
def test_mistakes_in_the_options(typed, invoke, arguments, message):
    status, _, errors = invoke(finetune, "--model_name", "tiny", *arguments)
    assert (status, message in errors) == (2, True), errors


def test_phonemes_need_a_model_of_their_own(inputs, invoke):
    named = ["--model_name", "tiny", "--model_type", "ipa", "--train_langs", "russian"]
    status, _, errors = invoke(finetune, *named, "--task", "sentiment")
    assert (status, "model 'tiny-ipa' is not in" in errors) == (2, True), errors


@pytest.mark.slow
def test_a_model_is_not_evaluated_on_texts_of_the_other_type(typed, invoke):
    named = ["--model_name", "tiny", "--train_langs", "russian"]
    assert invoke(finetune, *named, "--task", "sentiment", *FAST)[0] == 0
    status, _, errors = invoke(evaluate, *named, "--model_type", "ipa", "--eval_langs", "all")
    assert status == 2 and "no trained model in models/tiny-ipa-russian" in errors
    # Texts of the register corpus have other labels.
    status, _, errors = invoke(evaluate, *named, "--task", "sentiment", "--eval_langs", "polish", "klingon")
    assert status == 1 and "klingon failed" in errors
    assert (typed.folder / "outputs/tiny-russian/eval/polish.json").is_file()


@pytest.mark.slow
def test_real_ipa_checkpoints_and_tokenizers(inputs, invoke, monkeypatch):
    """nanoGPT models of both kinds learn the demo's sentences, far above chance."""
    folder = os.environ.get("IPA_DATA_PATH")
    if not folder or not Path(folder).is_dir():
        skip("IPA_DATA_PATH does not name a folder with tokenizers and nanoGPT checkpoints")
    registry = {
        f"rus-pol-{kind}": {
            "checkpoint": str(Path(folder, "checkpoints/rus-pol-ipa")),
            "format": "nanogpt",
            "tokenizer": {name: str(Path(folder, f"bpe-rus-pol-{kind}-{file}")) for name, file in FILES.items()},
        }
        for kind in ("ipa", "normal")
    }
    (inputs.folder / "registry.json").write_text(json.dumps(registry))
    monkeypatch.setenv("MODEL_REGISTRY", str(inputs.folder / "registry.json"))
    for kind in ("ipa", "normal"):
        named = ["--model_name", "rus-pol", "--model_type", kind, "--train_langs", "russian-polish"]
        recipe = ["--num_epochs", "8", "--learning_rate", "5e-3"]
        assert invoke(finetune, *named, "--task", "sentiment", *recipe)[0] == 0
        assert invoke(evaluate, *named, "--eval_langs", "all")[0] == 0
        for lang in ("russian", "polish"):
            path = inputs.folder / f"outputs/rus-pol-{kind}-russian-polish/eval/{lang}.json"
            assert json.loads(path.read_text())["macro_f1"] > 0.8


FILES = {"vocab": "vocab.json", "merges": "merges.txt"}


class DatasetHandler(Handler):
    """The hub of test_download.py with a dataset, someone/reviews, that asks to wait before it answers."""

    def answer(self, body):
        if self.server.refusals and self.path.startswith("/api/datasets/"):
            self.server.refusals -= 1
            return self.reply(b"", 429, {"RateLimit": '"api";r=0;t=1'})
        name = self.path.partition("?")[0].rpartition("/")[2]
        nowhere = "/resolve/" in self.path and name not in self.server.files
        if nowhere or ("/tree/" in self.path and name != COMMITS["main"]):
            return self.reply(b"", 404, {"X-Error-Code": "EntryNotFound"})
        self.path = self.path.replace("/datasets/someone/reviews", "/models/someone/tiny")
        self.path = self.path.removeprefix("/models") if "/resolve/" in self.path else self.path
        return super().answer(body)

    def do_POST(self):
        """Describe the files whose paths are asked for."""
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        files = [
            {"type": "file", "path": name, "size": len(content), "oid": "c" * 40}
            for name, content in self.server.files.items()
            if name in asked
        ]
        self.reply(json.dumps(files).encode())


@pytest.mark.slow
def test_datasets_of_the_hub_are_waited_for_and_kept(tmp_path):
    write(tmp_path / "data", "parquet", rows())
    hub = Hub(tmp_path / "data", DatasetHandler)
    hub.refusals = 2
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    path = database(tmp_path, dataset="someone/reviews", splits=["train", "validation"])
    command = [sys.executable, "-m", "utils.data.language_database", "--language_database", path]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}

    def listing(status, **more):
        result = subprocess.run(command, cwd=PROJECT, env=environment | more, capture_output=True, text=True)
        assert result.returncode == status, result.stderr
        return result.stdout.splitlines()[1:], result.stderr

    lines, errors = listing(0)
    assert lines[0].split() == ["xx.t.one", "8", "8", "no,", "yes"]
    assert "the hub asks to wait: 1 seconds" in errors
    hub.shutdown()
    hub.server_close()
    assert listing(0, HF_HUB_OFFLINE="1")[0] == lines
    lines, errors = listing(1, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty"))
    assert (
        lines == []
        and "where there is internet, python -m utils.data.language_database --task t" in errors
        and "Traceback" not in errors
    )


def test_tables_without_a_header_and_named_numbers(tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "dev"):
        (tmp_path / f"data/{split}.csv").write_text('"3","A ""b""","c \\ d"\n"1","NA","e"\n')
    keys = {"columns": ["label", "title", "body"], "label_names": ["World", "Sports"], "separator": " "}
    data = open_task("t", ["xx"], path=database(tmp_path, **keys))
    loaded = data.load("train", "xx", "[SEP]")
    assert loaded["text"][:] == ['A "b" c \\ d', "NA e"]
    assert (loaded["label"][:], data.label_names(["xx"])) == ([1, 0], ["World", "Sports"])
    with pytest.raises(UserError, match=r"xx.t.one.label_names: expected as many names as there are classes"):
        read_database(database(tmp_path, **keys | {"label_names": ["World"]}))
    with pytest.raises(UserError, match=r"line 1: expected 2 columns \(label, title\), got 3"):
        open_task("t", ["xx"], path=database(tmp_path, columns=["label", "title"])).label_names(["xx"])
