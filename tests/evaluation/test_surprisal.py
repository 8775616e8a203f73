"""Surprisals equal a direct computation in float64, and every row says what it is about."""

import csv
import gzip
import io
import json
import math
import tracemalloc

import pyarrow
import pytest
import torch
from transformers import AutoTokenizer

from demo.language_models import build_lm
from tests.factories import TEXTS, rows_of_file, rows_of_tokens
from utils.data.lm_examples import TextExamples
from utils.data.masking import expand_with_masks, identity, mask_random_spans, mask_random_tokens
from utils.data.text_files import open_text_file
from utils.errors import UserError
from utils.evaluation.surprisal import TableWriter, columns_of, write_test_results
from utils.evaluation.token_table import TokenTable
from utils.models.loading import load_language_model

SHORT = [" ".join(text.split()[: 4 + index % 9]) for index, text in enumerate(TEXTS[:40])]
KINDS = {"gpt2": "lm", "bert": "mlm", "t5": "seq2seq"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    made = {}
    for kind, task in KINDS.items():
        build_lm(kind, TEXTS, folder / kind)
        model = load_language_model(folder / kind, task).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                # Predictions that are far from equal probabilities.
                parameter *= 3
        made[kind] = model, AutoTokenizer.from_pretrained(folder / kind)
    return made


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.txt.gz"
    path.write_bytes(gzip.compress("\n".join(SHORT).encode()))
    more = {"tags": ["a"], "token": "xyz", "split": "mine", "dataset_name": "own", "epoch": 7, "loss": 0, "batch": "b"}
    lines = [json.dumps({"item": 100 + index, **more}) for index in range(40)]
    (tmp_path / "texts_metadata.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def examples_of(path, kind, tokenizer, function=identity, strategy="once", **kwargs):
    data = next(open_text_file(path).chunks(1000))
    return TextExamples("texts", data, tokenizer, KINDS[kind], 128, function, kwargs, strategy)


def direct(model, task, input_ids, labels):
    """Surprisals of all labels of one example by itself, in float64: {position: bits}."""
    model = model.double()
    inputs = {"input_ids": torch.tensor([input_ids])}
    if task == "seq2seq":
        inputs["labels"] = torch.tensor([labels])
    with torch.no_grad():
        bits = model(**inputs).logits[0].log_softmax(-1) / -math.log(2)
    shift = task == "lm"
    return {i: float(bits[i - shift, label]) for i, label in enumerate(labels) if label != -100 and i >= shift}


CASES = [
    ("gpt2", identity, {}),
    ("bert", mask_random_tokens, {"replacement_props": {"mask": 1, "random": 0, "original": 0}}),
    ("bert", expand_with_masks, {}),
    ("bert", identity, {}),
    ("t5", mask_random_spans, {}),
    ("t5", identity, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "function", "kwargs"), CASES)
def test_equal_to_a_direct_computation(loaded, file, kind, function, kwargs):
    """In single precision, predictions as peaked as these are off by 1e-4 bits."""
    model, tokenizer = loaded[kind]
    data = examples_of(file, kind, tokenizer, function, **kwargs)
    rows = rows_of_file(TokenTable(tokenizer, KINDS[kind]), model.double(), data, 7)
    found = iter(rows)
    batch = data.batch(list(range(len(data))))
    for number, (ids, labels) in enumerate(zip(data.rows["input_ids"], data.rows["labels"], strict=True)):
        expected = direct(model, KINDS[kind], ids.tolist(), labels.tolist())
        for position, bits in expected.items():
            row = next(found)
            assert row["token_id"] == labels[position]
            assert row["line"] == batch.items[number] + 1
            assert row["original_text"] == batch.texts[number]
            assert abs(row["surprisal_bits"] - bits) < 1e-5
            assert row["predicted_token_surprisal_bits"] <= row["surprisal_bits"]
    assert next(found, None) is None


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_words_are_put_together(loaded, file, kind):
    model, tokenizer = loaded[kind]
    rows = rows_of_file(TokenTable(tokenizer, KINDS[kind]), model.float(), examples_of(file, kind, tokenizer), 8)
    for line in range(1, 41):
        own = [row for row in rows if row["line"] == line and not row["token_is_special"]]
        words = {}
        for row in own:
            words.setdefault(row["word_num"], []).append(row)
        assert list(words) == list(range(len(SHORT[line - 1].split())))
        for number, parts in words.items():
            assert [part["token_num_in_word"] for part in parts] == list(range(len(parts)))
            assert [part["token_is_start_of_word"] for part in parts] == [True] + [False] * (len(parts) - 1)
            assert all(part["token_is_word"] == (len(parts) == 1) for part in parts)
            assert "".join(parts[0]["word"].split()) == SHORT[line - 1].split()[number]
            total = sum(part["surprisal_bits"] for part in parts)
            assert all(part["word_surprisal_bits"] == pytest.approx(total) for part in parts)


def test_unknown_words_are_words(loaded, tmp_path):
    model, tokenizer = loaded["bert"]
    path = tmp_path / "odd.txt.gz"
    path.write_bytes(gzip.compress("The \u2603 is cold".encode()))
    rows = rows_of_file(TokenTable(tokenizer, "mlm"), model.float(), examples_of(path, "bert", tokenizer), 8)
    (row,) = (row for row in rows if row["token_id"] == tokenizer.unk_token_id)
    assert (row["word_num"], row["token_is_special"], row["token_is_word"]) == (1, False, True)


def test_words_of_spans(loaded, file):
    """Labels of sentinels and spans have the words of the text that they were taken from."""
    model, tokenizer = loaded["t5"]
    rows = rows_of_file(
        TokenTable(tokenizer, "seq2seq"), model.float(), examples_of(file, "t5", tokenizer, mask_random_spans), 8
    )
    specials = [row for row in rows if row["token_is_special"]]
    assert {row["token"] for row in specials} >= {"<extra_id_0>", "<extra_id_1>"}
    assert all(row["word"] is None and row["word_num"] is None for row in specials)
    for row in rows:
        if not row["token_is_special"]:
            assert row["word"] == SHORT[row["line"] - 1].split()[row["word_num"]]
            piece = tokenizer.convert_ids_to_tokens(row["token_id"])
            assert row["token_is_start_of_word"] == piece.startswith("\u2581")


@pytest.mark.parametrize("kind", ["bert", "t5"])
@pytest.mark.parametrize("strategy", ["once", "per_batch"])
def test_a_words_surprisal_is_the_sum_over_the_examples_that_it_became(loaded, file, kind, strategy):
    """Each has one of its tokens; the sum was that of this token, and T5's rows had no word to be aligned with."""
    model, tokenizer = loaded[kind]
    data = examples_of(file, kind, tokenizer, expand_with_masks, strategy=strategy)
    rows = rows_of_file(TokenTable(tokenizer, KINDS[kind]), model.float(), data, 5)
    words = {}
    for row in rows:
        if not row["token_is_special"]:
            words.setdefault((row["line"], row["word_num"]), []).append(row)
    assert len(words) == sum(len(text.split()) for text in SHORT)
    several = 0
    for (line, number), own in words.items():
        assert [row["token_num_in_word"] for row in own] == list(range(len(own)))
        assert {"".join(row["word"].split()) for row in own} == {SHORT[line - 1].split()[number]}
        total = sum(row["surprisal_bits"] for row in own)
        assert all(row["word_surprisal_bits"] == pytest.approx(total) for row in own)
        assert all(row["token_is_word"] == (len(own) == 1) for row in own)
        several += len(own) > 1
    assert several > 5


@pytest.mark.parametrize(
    ("kind", "function", "kwargs"),
    [
        ("bert", mask_random_tokens, {"mask_prop": 0.4}),
        ("bert", mask_random_tokens, {"replacement_props": {"mask": 0, "random": 1, "original": 0}}),
        ("bert", identity, {}),
        ("gpt2", identity, {}),
        ("t5", mask_random_spans, {}),
    ],
)
def test_the_mean_of_the_rows_is_the_loss(loaded, file, kind, function, kwargs):
    """Rows of replaced and of unchanged tokens were missing, and those of some examples stood for all tokens."""
    model, tokenizer = loaded[kind]
    model.float()
    data = examples_of(file, kind, tokenizer, function, **kwargs)
    batch = data.batch(list(range(len(data))))
    with torch.no_grad():
        outputs = model(**batch.inputs)
    rows = rows_of_tokens(TokenTable(tokenizer, KINDS[kind]).tokens(batch, outputs.logits))
    mean = sum(row["surprisal_bits"] for row in rows) / len(rows)
    assert mean * math.log(2) == pytest.approx(float(outputs.loss), rel=1e-4)
    if kind == "bert":
        masked = [row for row in rows if row["token_is_masked"]]
        expected = (batch.inputs["input_ids"] == tokenizer.mask_token_id).sum()
        assert len(masked) == expected


LIMITS = {"gpt2": 20, "bert": 12, "t5": 20}


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_rows_of_texts_that_were_cut_say_so(loaded, file, kind):
    model, tokenizer = loaded[kind]
    part = next(open_text_file(file).chunks(1000))
    data = TextExamples("texts", part, tokenizer, KINDS[kind], LIMITS[kind], identity)
    whole = TextExamples("texts", part, tokenizer, KINDS[kind], 128, identity)
    longer = {line for line, ids in enumerate(whole.rows["input_ids"], 1) if len(ids) > LIMITS[kind]}
    assert 0 < len(longer) < 40
    rows = rows_of_file(TokenTable(tokenizer, KINDS[kind]), model.float(), data, 8)
    assert {row["line"] for row in rows if row["truncated"]} == longer
    assert (data.num_truncated, whole.num_truncated) == (len(longer), 0)


def test_metadata_in_every_row(loaded, file):
    model, tokenizer = loaded["gpt2"]
    rows = rows_of_file(
        TokenTable(tokenizer, "lm"), model.float(), examples_of(file, "gpt2", tokenizer), 8, {"dataset_name": "d"}
    )
    assert all(row["item"] == 99 + row["line"] and row["tags"] == '["a"]' for row in rows)
    assert all(row["metadata_token"] == "xyz" and row["token"] != "xyz" for row in rows)
    # Names of the tables' own columns were overwritten.
    assert {row["dataset_name"] for row in rows} == {"d"}
    assert {row["metadata_dataset_name"] for row in rows} == {"own"}
    assert {(row["metadata_split"], row["metadata_epoch"], row["metadata_batch"]) for row in rows} == {("mine", 7, "b")}
    assert set(rows[0]) == set(columns_of([open_text_file(file)], "dataset_name"))


def test_two_keys_of_the_metadata_never_share_a_column(file):
    lines = [json.dumps({"split": 1, "metadata_split": 2})] * 40
    file.with_name("texts_metadata.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(UserError, match="'split' and 'metadata_split' both become 'metadata_split'"):
        columns_of([open_text_file(file)], "dataset_name")


def read(path):
    return list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))


def write(path, file, loaded, monkeypatch, keep_parts=None, max_examples=None):
    from utils.evaluation import surprisal

    monkeypatch.setattr(surprisal, "CHUNK", 16)
    model, tokenizer = loaded["gpt2"]

    class Progress:
        examples = 0

        def update(self, count):
            self.examples += count

    progress = Progress()
    computed = []

    def make(text_file, part, first):
        computed.append(first)
        return TextExamples(text_file.name, part, tokenizer, "lm", 128, identity, first_item=first)

    count = write_test_results(
        path, path.with_name("sentences.csv.gz"), [open_text_file(file)], make, model.float(),
        TokenTable(tokenizer, "lm"), 8,
        max_examples=max_examples, keep_parts=keep_parts, progress=progress,
    )  # fmt: skip
    return count, progress.examples, computed


def test_results_are_written_part_by_part(loaded, file, tmp_path, monkeypatch):
    path = tmp_path / "x-test_results.csv.gz"
    count, seen, computed = write(path, file, loaded, monkeypatch)
    assert (seen, computed) == (40, [0, 16, 32])
    rows = read(path)
    assert count == (len(rows), {"texts": 0})
    assert [int(row["line"]) for row in rows] == sorted(int(row["line"]) for row in rows)
    assert {row["dataset_name"] for row in rows} == {"texts"}
    model, tokenizer = loaded["gpt2"]
    whole = rows_of_file(TokenTable(tokenizer, "lm"), model, examples_of(file, "gpt2", tokenizer), 8)
    assert [float(row["surprisal_bits"]) for row in rows] == pytest.approx(
        [row["surprisal_bits"] for row in whole], abs=1e-5
    )
    assert write(path, file, loaded, monkeypatch, max_examples=3)[1] == 3


def test_an_interrupted_test_goes_on(loaded, file, tmp_path, monkeypatch):
    path = tmp_path / "x-test_results.csv.gz"
    write(path, file, loaded, monkeypatch)
    expected = read(path)
    path.unlink()

    def interrupt(self, rows, original=TableWriter.write, calls=[]):  # noqa: B006
        calls.append(1)
        # A part is written to two tables.
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(TableWriter, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write(path, file, loaded, monkeypatch, keep_parts="key")
    assert not path.exists() and len(list(tmp_path.glob("tmp-key-*"))) == 2
    next(tmp_path.glob("tmp-key-0-16*")).write_bytes(b"half")
    assert write(path, file, loaded, monkeypatch, keep_parts="key")[2] == [16, 32], "the first part was kept"
    assert read(path) == expected
    assert not list(tmp_path.glob("tmp-*"))


def test_a_table_cut_back(tmp_path):
    writer = TableWriter(tmp_path / "m.csv.gz", ["a", "b"])
    writer.write(pyarrow.table({"a": [1], "b": ["x\ny"]}))
    size = writer.size()
    writer.write(pyarrow.table({"a": [2]}))
    writer.cut(size)
    writer.write(pyarrow.table({"a": [3], "b": [None]}))
    writer.wait()
    assert read(tmp_path / "m.csv.gz") == [{"a": "1", "b": "x\ny"}, {"a": "3", "b": ""}]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(loaded, tmp_path, monkeypatch):
    peaks = []
    for copies in (4, 24):
        path = tmp_path / f"{copies}.txt.gz"
        path.write_bytes(gzip.compress("\n".join(SHORT * copies).encode()))
        tracemalloc.start()
        (count, _), *_ = write(tmp_path / "x.csv.gz", path, loaded, monkeypatch)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert count > 40 * 24 * 4
    # Six times the texts; what is in memory longer depends on when Python collects it.
    assert peaks[1] < 2.5 * peaks[0]
