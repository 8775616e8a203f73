"""convert_corpus.py: texts of every form come out of the corpus as they went in, with their registers."""

import json
from collections import Counter

import datasets
import pytest

import check_corpus
import convert_corpus
from utils.data.conversion import Texts, split_test
from utils.data.corpus_load import open_corpus
from utils.data.delimited import write_table
from utils.errors import UserError

# Texts that readers of tables like to change.
ODD = ["NA", "nan", '"quoted" and\ttab', " blanks around ", "two\nlines", "a\rreturn", "=1+1", "007", "\N{SNOWMAN}"]


def pairs(corpus, lang, split):
    return [
        (" ".join(labels), text) for labels, text in open_corpus(str(corpus)).with_labels("auto", []).rows(split, lang)
    ]


def both(corpus, lang):
    return Counter(pairs(corpus, lang, "train") + pairs(corpus, lang, "test"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_tables_are_converted_whole(suffix, tmp_path, invoke):
    rows = [{"body": f"{text}{number}" if number else text, "kind": ("news", "a story")[number % 2]}
            for number in range(6) for text in ODD]  # fmt: skip
    table = tmp_path / f"texts{suffix}"
    if suffix == ".jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(table)
    else:
        write_table(table, rows)
    status, out, err = invoke(
        convert_corpus, "--input", table, "--lang", "en", "--language_name", "english", "--corpus_path",
        tmp_path / "corpus", "--text_column", "body", "--register_column", "kind",
    )  # fmt: skip
    assert status == 0 and "error" not in err
    assert both(tmp_path / "corpus", "en") == Counter((row["kind"].replace(" ", "-"), row["body"]) for row in rows)
    assert len(pairs(tmp_path / "corpus", "en", "test")) == round(0.2 * len(rows))
    assert json.loads((tmp_path / "corpus/info/reg_abbv.json").read_text()) == {"a-story": "a story", "news": "news"}
    assert json.loads((tmp_path / "corpus/info/lang2name.json").read_text()) == {"en": "english"}
    assert "news" in out and "python check_corpus.py --corpus_path" in out


def test_a_folder_for_each_register(tmp_path, invoke):
    for register in ("lyrics", "reviews"):
        (tmp_path / "texts" / register).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "texts" / register / f"{number}.txt").write_text(f"{register} of {number}\nand more\n")
    status, _, _ = invoke(
        convert_corpus,
        "--input",
        tmp_path / "texts",
        "--lang",
        "en",
        "--corpus_path",
        tmp_path / "corpus",
        "--test_size",
        4,
    )
    assert status == 0
    test = pairs(tmp_path / "corpus", "en", "test")
    assert Counter(register for register, _ in test) == {"lyrics": 2, "reviews": 2}
    assert both(tmp_path / "corpus", "en").keys() >= {("lyrics", "lyrics of 3\nand more")}
    assert invoke(check_corpus, "--corpus_path", tmp_path / "corpus", "--output_dir", tmp_path / "outputs")[0] == 0


def test_saved_datasets_keep_their_test_part_and_names(tmp_path, invoke):
    features = datasets.Features(
        {"text": datasets.Value("string"), "register": datasets.List(datasets.ClassLabel(names=["OP", "IN"]))}
    )
    splits = {
        split: datasets.Dataset.from_list(
            [{"text": f"{split} {n}", "register": [n % 2, 1]} for n in range(8)], features=features
        )
        for split in ("train", "test")
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    status, _, _ = invoke(
        convert_corpus, "--input", tmp_path / "saved", "--lang", "en", "--corpus_path", tmp_path / "corpus"
    )
    assert status == 0
    corpus = open_corpus(str(tmp_path / "corpus")).with_labels("auto", ["en"])
    assert corpus.multilabel
    assert [text for _, text in corpus.rows("test", "en")] == [f"test {n}" for n in range(8)]
    assert [labels for labels, _ in corpus.rows("train", "en")][:2] == [["IN", "OP"], ["IN"]]


@pytest.mark.parametrize("kind", ["saved", "files"])
def test_datasets_without_a_test_part_get_one(kind, tmp_path, invoke):
    rows = datasets.Dataset.from_list([{"text": f"text {n}", "register": "AB"[n % 2]} for n in range(20)])
    if kind == "saved":
        datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "given")
    else:
        write_table(tmp_path / "given" / "train.csv", rows.to_list())
    status, _, err = invoke(
        convert_corpus, "--input", tmp_path / "given", "--lang", "en", "--corpus_path", tmp_path / "corpus"
    )
    assert status == 0, err
    assert len(pairs(tmp_path / "corpus", "en", "test")) == 4


def test_a_language_is_added_and_none_is_lost(tmp_path, invoke):
    table = tmp_path / "texts.csv"
    write_table(table, [{"text": f"text {n}", "register": "news" if n % 2 else "story"} for n in range(10)])
    more = ("--corpus_path", tmp_path / "corpus", "--input", table)
    assert invoke(convert_corpus, *more, "--lang", "en")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "corpus").rglob("*.tsv")}
    write_table(table, [{"text": f"texte {n}", "register": "news" if n % 2 else "chanson"} for n in range(10)])
    status, _, err = invoke(convert_corpus, *more, "--lang", "en")
    assert status == 2 and "is there already; --force replaces it" in err
    assert invoke(convert_corpus, *more, "--lang", "fr")[0] == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    assert list(json.loads((tmp_path / "corpus/info/reg_abbv.json").read_text())) == ["news", "story", "chanson"]
    assert invoke(convert_corpus, *more, "--lang", "en", "--force")[0] == 0
    assert ("chanson", "texte 0") in both(tmp_path / "corpus", "en")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": " ", "register": "news"}], "row 1: no text"),
        ([{"text": "a", "register": "news"}, {"text": "b", "register": ""}], "row 2: no register"),
        ([{"text": "a", "register": "a b"}, {"text": "b", "register": "a-b"}], "'a-b' and 'a b' would both become a-b"),
        ([{"texts": "a", "register": "news"}], "no column 'text'; did you mean 'texts'?"),
        ([{"text": "a", "register": "news"}], "too few for a test part of 0.2"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_nothing_is_written(rows, message, tmp_path, invoke):
    write_table(tmp_path / "texts.csv", rows)
    status, _, err = invoke(
        convert_corpus, "--input", tmp_path / "texts.csv", "--lang", "en", "--corpus_path", tmp_path / "corpus"
    )
    assert status == 2 and message in err and not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("given", ["texts.docx", "nothing-here/at/all", "mytexts", "data/texts.csv"])
def test_inputs_of_other_kinds_are_named(given, tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.docx").write_text("x")
    status, _, err = invoke(convert_corpus, "--input", given, "--lang", "en", "--corpus_path", "corpus")
    assert status == 2 and given in err


def test_equal_texts_are_on_one_side():
    texts = Texts()
    for number in range(40):
        texts.add(f"text {number // 2}", ["news"], "")
    parts = split_test(texts, 0.25, 1)
    assert not set(parts["train"].texts) & set(parts["test"].texts)
    with pytest.raises(UserError, match="--test_size 40"):
        split_test(texts, 40, 1)
