"""A damaged cache of tokens is made again, with a line that says so; nobody trains on it."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import pyarrow
import pytest

from demo.build import make_texts
from demo.language_models import bert_tokenizer
from utils.data import token_cache
from utils.data.lm_examples import TextExamples
from utils.data.token_cache import FOOTER, LISTS, NUMBERS, cached_rows
from utils.data.tokenization import tokenize

ROWS = [([1, 2, 3], 3), ([], 0), ([7] * 400, 400)]
COLUMNS = {"input_ids": LISTS, "length": NUMBERS}


def make():
    yield [ids for ids, _ in ROWS[:2]], [length for _, length in ROWS[:2]]
    yield [ROWS[2][0]], [ROWS[2][1]]


def content(dataset):
    return list(zip(dataset["input_ids"][:], dataset["length"][:], strict=True))


def no_rows():
    raise AssertionError("the rows are in the cache")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"\x07\x00\x00\x00" * 5) + 8] ^= 1
    path.write_bytes(data)


def short_but_valid(path: Path) -> None:
    """An Arrow file of two rows, as it was written before rows were counted."""
    schema = pyarrow.schema({"input_ids": pyarrow.list_(pyarrow.int32()), "length": pyarrow.int32()})
    with pyarrow.ipc.new_stream(str(path), schema) as writer:
        writer.write_batch(pyarrow.record_batch(list(next(make())), schema=schema))


def short_and_sealed(path: Path) -> None:
    """A file of two rows with the checksum of its own."""
    path.unlink()
    cached_rows(path, 2, COLUMNS, lambda: iter([next(make())]))


HARMS = {
    "flipped": (flip_a_bit, "this cache file is damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-30]), "this cache file is incomplete"),
    "empty": (lambda path: path.write_bytes(b""), "this cache file is incomplete"),
    "short": (short_but_valid, "this cache file is incomplete"),
    "other rows": (short_and_sealed, "this cache file has 2 rows, expected 3"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_is_made_again_and_said(tmp_path, capsys, harm):
    path = tmp_path / "tokens.arrow"
    assert content(cached_rows(path, 3, COLUMNS, make)) == ROWS
    assert content(cached_rows(path, 3, COLUMNS, no_rows)) == ROWS
    assert capsys.readouterr().err == ""
    change, reason = HARMS[harm]
    change(path)
    assert content(cached_rows(path, 3, COLUMNS, make)) == ROWS
    assert capsys.readouterr().err == f"{path}: {reason}; the texts are tokenized again\n"
    assert content(cached_rows(path, 3, COLUMNS, no_rows)) == ROWS


def test_the_footer_is_not_part_of_the_rows(tmp_path):
    path = tmp_path / "tokens.arrow"
    cached_rows(path, 3, COLUMNS, make)
    rows, _, mark = FOOTER.unpack(path.read_bytes()[-FOOTER.size :])
    assert (rows, mark) == (3, token_cache.MARK)


def test_many_at_once_make_the_rows_once(tmp_path):
    calls = []

    def counted():
        calls.append(1)
        yield from make()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: content(cached_rows(tmp_path / "t.arrow", 3, COLUMNS, counted)), range(8)))
    assert found == [ROWS] * 8 and len(calls) == 1


@pytest.fixture(scope="module")
def texts():
    return [text for _, text in make_texts("en", 40, random.Random(5))]


def test_classifiers_never_see_a_flipped_bit(tmp_path, texts, capsys):
    dataset = datasets.Dataset.from_dict({"text": texts, "label": [0] * len(texts)})
    tokenizer = bert_tokenizer(texts)
    whole = tokenize(dataset, tokenizer, 32, tmp_path)["input_ids"][:]
    (path,) = tmp_path.glob("*.arrow")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    assert tokenize(dataset, tokenizer, 32, tmp_path)["input_ids"][:] == whole
    assert "is damaged; the texts are tokenized again" in capsys.readouterr().err


def test_language_models_heal_too(tmp_path, texts, capsys):
    examples = datasets.Dataset.from_dict({"text": texts, "metadata": ["{}"] * len(texts)})
    tokenizer = bert_tokenizer(texts)

    def rows():
        found = TextExamples("texts", examples, tokenizer, "mlm", 32, cache_dir=tmp_path).rows["input_ids"]
        return [row.tolist() for row in found]

    whole = rows()
    (path,) = tmp_path.glob("*.arrow")
    path.write_bytes(path.read_bytes()[:200])
    assert rows() == whole
    assert f"{path}: this cache file is incomplete" in capsys.readouterr().err
