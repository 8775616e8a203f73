import csv
import json
import shutil
import subprocess
import sys

import pytest

from tests.factories import PROJECT
from utils.data.corpus_load import open_corpus, read_tsv
from utils.data.registers import Registers
from utils.errors import UserError

NAMES = ["IN", "OP", "RN"]
REGISTERS = Registers(dict.fromkeys(NAMES, ""))


def write(tmp_path, content: str | bytes):
    path = tmp_path / "en.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.fault(2)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_text_comes_back_exactly(tmp_path, line_end):
    texts = [
        "the first text is no header",
        "NA",
        "nan",
        "null",
        "None",
        "",
        ' a "quoted" word ',
        '"wholly quoted"',
        "a\ttab",
        "a line\nbreak and a\r\nwindows one",
        "a lone \r carriage return",
        "\u2028 line separator, \x85 next line, \x1c file separator, \x0b vertical tab",
        "\ufeff byte order mark, \ufffd replacement, \U0001d11e clef, \ue000 private use",
        "x" * 1_000_000,
        "trailing space ",
        "12",
    ]
    path = tmp_path / "en.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator=line_end)
        writer.writerows((NAMES[i % 3], text) for i, text in enumerate(texts))
    rows = list(read_tsv(path, REGISTERS))
    assert [text for _, text in rows] == texts
    assert [register for register, _ in rows] == [[NAMES[i % 3]] for i in range(len(texts))]


def test_a_file_without_a_last_line_end_and_with_a_byte_order_mark(tmp_path):
    assert list(read_tsv(write(tmp_path, "\ufeffIN\tone\nOP\ttwo"), REGISTERS)) == [(["IN"], "one"), (["OP"], "two")]
    assert list(read_tsv(write(tmp_path, "IN\tone\n\n"), REGISTERS)) == [(["IN"], "one")]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("IN\tone\nOP two\n", 2, "expected 2 columns (register<tab>text), got 1"),
        ("OP\tx\nIN\tone\tmore\n", 2, "got 3"),
        ("IN\tone\n\nOP\ttwo\n", 2, "empty line between rows"),
        ("IN\tone\nin\ttwo\n", 2, "unknown register 'in'; did you mean 'IN'"),
        (
            "register\ttext\nIN\tone\n",
            1,
            "unknown register 'register'; known: IN, OP, RN; the file must not have a header",
        ),
        ('IN\t"a\nb"\nXX\tc\n', 3, "unknown register 'XX'"),
        ('IN\tone\nOP\t"never closed\n', 2, "malformed row"),
        ('IN\t"quoted" and more\n', 1, "malformed row"),
        (b"IN\tone\nOP\tcaf\xe9\n", 2, "not valid UTF-8 (byte 0xe9)"),
        ("IN\tone\rOP\ttwo\n", 1, "got 3"),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path, content, line, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError) as error:
        list(read_tsv(path, REGISTERS))
    assert f"{path}, line {line}: " in str(error.value)
    assert message in str(error.value)


def test_the_layout_of_the_corpus(small):
    corpus = open_corpus(str(small / "register-corpus"))
    assert corpus.registers == ["IN", "OP", "RN", "JN", "HI", "LY", "ND", "AD"]
    assert corpus.languages("train") == ["en", "es", "fr"]
    dataset = corpus.load("train", "fr")
    with (corpus.file("train", "fr")).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert dataset["text"][:] == [text for _, text in rows]
    assert [corpus.registers[label] for label in dataset["label"]] == [register for register, _ in rows]
    assert set(dataset["lang"]) == {"fr"}


def test_mistakes_in_the_layout(small, tmp_path):
    corpus = open_corpus(str(small / "register-corpus"))
    with pytest.raises(UserError, match="language 'frr' has no train file.*did you mean 'fr'"):
        corpus.file("train", "frr")
    with pytest.raises(UserError, match="does not exist; give it with --corpus_path"):
        open_corpus(str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"reg_abbv\.json does not exist"):
        open_corpus(str(tmp_path))
    (tmp_path / "info").mkdir()
    (tmp_path / "info" / "reg_abbv.json").write_text(json.dumps({"IN": "x"}))
    (tmp_path / "info" / "lang2name.json").write_text("{")
    with pytest.raises(UserError, match=r"lang2name\.json, line 1"):
        open_corpus(str(tmp_path))
    (tmp_path / "info" / "lang2name.json").write_text("{}")
    (tmp_path / "corpus" / "train").mkdir(parents=True)
    (tmp_path / "corpus" / "train" / "en.tsv").touch()
    with pytest.raises(UserError, match="the file is empty"):
        open_corpus(str(tmp_path)).load("train", "en")


def test_the_real_corpus_is_read_whole(real_corpus):
    corpus = open_corpus(real_corpus)
    swedish = corpus.load("train", "sv")
    assert len(swedish) == 1080
    assert max(map(len, swedish["text"])) == 315_534
    assert min(map(len, corpus.load("train", "fr")["text"])) == 21


MEASURE = """
import resource, sys
from pathlib import Path
import datasets, pyarrow
from utils.data.corpus_load import open_corpus
from utils.data.tokenization import load_tokenizer, tokenize

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

corpus, model = open_corpus(sys.argv[1]), Path(sys.argv[2])
tokenizer = load_tokenizer(model)
tokenizer(["warm up"] * 100)
before = peak()
loaded = corpus.load("train", "en")
after = peak()
tokens = tokenize(loaded, tokenizer, 16, Path(sys.argv[3]))
print(len(tokens), after - before, peak() - after)
"""


@pytest.mark.slow
def test_a_large_file_takes_little_more_memory_than_its_size(small, tmp_path):
    """It took eight times its size to be read, and once more to be tokenized."""
    for folder in ("train", "test"):
        (tmp_path / "corpus" / folder).mkdir(parents=True)
    shutil.copytree(small / "register-corpus/info", tmp_path / "info")
    text = "the minister said on Friday that " * 60
    path = tmp_path / "corpus/train/en.tsv"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"IN\t{number} {text}é\n" for number in range(40_000))
    arguments = [str(tmp_path), str(small / "tiny-xlmr"), str(tmp_path / "cache")]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    rows, loading, tokenizing = map(int, run.stdout.split())
    size = path.stat().st_size
    assert rows == 40_000 and size > 75e6
    assert loading < 2 * size, f"{loading / size:.1f} x the file"
    assert tokenizing < 0.75 * size, f"{tokenizing / size:.1f} x the file"


def test_texts_come_back_from_any_kind_of_line(tmp_path):
    """A lone carriage return in one text, private characters in another, a mark before the first."""
    rows = [("IN", "a\rb"), ("OP", "\ue000\ue001"), ("IN", "c\nd"), ("OP", "\u2028 e \x85"), ("IN", "\r")]
    path = tmp_path / "x.tsv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\r\n").writerows(rows)
    assert list(read_tsv(path, REGISTERS)) == [([register], text) for register, text in rows]
