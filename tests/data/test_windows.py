"""What is read of texts that are longer than a model takes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.data.tokenization import encode_whole, load_tokenizer, tokenize
from utils.data.windows import (
    Reading,
    TextPieces,
    TrainingPieces,
    count_unseen,
    find_frame,
    read_spans,
    text_pieces,
)
from utils.errors import UserError


def test_a_text_that_fits_is_read_as_it_is():
    for kind in ("cut", "head_tail", "windows"):
        assert read_spans(510, 510, kind, 255) == [[(0, 510)]]
        assert read_spans(0, 510, kind, 255) == [[(0, 0)]]
        assert count_unseen(510, 510, kind) == 0


def test_both_ends():
    """The lengths of Sun et al. (2019)."""
    assert read_spans(1000, 510, "head_tail", 255) == [[(0, 128), (618, 1000)]]
    assert read_spans(511, 510, "head_tail", 255) == [[(0, 128), (129, 511)]]
    assert count_unseen(1000, 510, "head_tail") == count_unseen(1000, 510, "cut") == 490


def test_windows():
    assert read_spans(1000, 510, "windows", 255) == [[(0, 510)], [(255, 765)], [(490, 1000)]]
    assert read_spans(1020, 510, "windows", 510) == [[(0, 510)], [(510, 1020)]]
    assert read_spans(511, 510, "windows", 255) == [[(0, 510)], [(1, 511)]]


@given(st.integers(1, 2000), st.integers(1, 300), st.data())
def test_windows_see_every_token(num_tokens, room, data):
    stride = data.draw(st.integers(1, room))
    spans = [piece[0] for piece in read_spans(num_tokens, room, "windows", stride)]
    seen = np.zeros(num_tokens, dtype=int)
    for start, stop in spans:
        assert stop - start == min(room, num_tokens)
        seen[start:stop] += 1
    assert seen.all() and len(set(spans)) == len(spans)
    assert all(after[0] - before[0] <= stride for before, after in itertools.pairwise(spans))


def test_pieces_have_the_special_tokens_of_whole_texts(small):
    tokenizer = load_tokenizer(small / "tiny-xlmr")
    text = "the minister said on friday that " * 20
    tokens = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])

    def read(max_length, kind):
        numbers = np.array([len(tokens)])
        pieces = TextPieces(numbers, lambda row: tokens, find_frame(tokenizer), max_length, Reading(kind, 15))
        return pieces.input_ids(np.arange(len(pieces.spans)))

    (whole,) = read(len(tokens) + 2, "windows")
    assert whole.tolist() == tokenizer(text)["input_ids"]
    (cut,) = read(32, "cut")
    assert cut.tolist() == tokenizer(text, truncation=True, max_length=32)["input_ids"]
    assert all(len(piece) == 32 and piece[0] == whole[0] and piece[-1] == whole[-1] for piece in read(32, "windows"))
    (ends,) = read(32, "head_tail")
    assert len(ends) == 32 and ends[-23:-1].tolist() == tokens[-22:].tolist()


def test_a_tokenizer_that_puts_tokens_within_texts():
    class Odd:
        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [1, 5, 2, 6] if add_special_tokens else [5, 6]}

    with pytest.raises(UserError, match="Odd puts special tokens within texts"):
        find_frame(Odd())


def read_pieces(tokens, frame, max_length, kind, stride):
    """The pieces of a text, one after the other."""
    spans = read_spans(len(tokens), max_length - frame.size, kind, stride)
    return [frame.around(np.concatenate([tokens[start:stop] for start, stop in piece])) for piece in spans]


def pieces_of_texts(tokenizer, tmp_path, texts, reading, max_length=20):
    import datasets

    dataset = datasets.Dataset.from_dict({"text": texts, "label": list(range(len(texts)))})
    whole = tokenize(dataset, tokenizer, max_length, tmp_path, whole=True)
    return whole, text_pieces(whole, find_frame(tokenizer), max_length, reading)


@pytest.mark.parametrize("kind", ["cut", "head_tail", "windows"])
def test_pieces_are_those_of_each_text_and_pooled_by_text(small, tmp_path, kind):
    tokenizer = load_tokenizer(small / "tiny-xlmr")
    texts = ["one", "the minister said on friday that the border would stay open " * 9, "", "a river of stone " * 40]
    whole, pieces = pieces_of_texts(tokenizer, tmp_path, texts, Reading(kind, 7))
    frame = find_frame(tokenizer)
    expected = []
    for text in texts:
        tokens = np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)
        expected.append(read_pieces(tokens, frame, 20, kind, 7))
    flat = [piece for several in expected for piece in several]
    found = pieces.input_ids(np.arange(len(flat)))
    assert all(np.array_equal(a, b) for a, b in zip(found, flat, strict=True))
    assert pieces.lengths.tolist() == [len(piece) for piece in flat]
    assert whole["length"][:] == [min(len(tokenizer(text)["input_ids"]), 20) for text in texts]
    assert [bool(x) for x in whole["cut"][:]] == [len(tokenizer(text)["input_ids"]) > 20 for text in texts]
    logits = np.random.default_rng(0).normal(size=(len(flat), 3)).astype(np.float32)
    parts = np.split(logits, np.cumsum([len(several) for several in expected])[:-1])
    assert pieces.pool(logits) == pytest.approx(np.array([part.mean(0) for part in parts]), abs=1e-6)
    pieces.reading = Reading(kind, 7, "max")
    assert pieces.pool(logits) == pytest.approx(np.array([part.max(0) for part in parts]))
    summary = pieces.summary()
    numbers = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert (summary["num_tokens"], summary["num_windows"]) == (sum(numbers), len(flat))
    unseen = 0 if kind == "windows" else sum(max(0, number - 18) for number in numbers)
    assert (summary["num_long_texts"], summary["num_tokens_unseen"]) == (2, unseen)


def test_training_draws_a_window_per_text_and_epoch(small, tmp_path):
    """A function of seed, epoch and text: a run that goes on draws the same; every window has its turn."""
    tokenizer = load_tokenizer(small / "tiny-xlmr")
    texts = [" ".join(str(number) for number in range(60)), "one"]
    _, pieces = pieces_of_texts(tokenizer, tmp_path, texts, Reading("windows", 9))
    drawn = TrainingPieces(pieces, np.array([4, 5]), seed=1)
    again = TrainingPieces(pieces, np.array([4, 5]), seed=1)
    seen = set()
    for epoch in range(400):
        drawn.set_epoch(epoch)
        again.set_epoch(epoch)
        row = drawn[0]
        assert row["input_ids"].tolist() == again[0]["input_ids"].tolist() and row["label"] == 4
        seen.add(tuple(row["input_ids"].tolist()))
        assert drawn[1]["input_ids"].tolist() == tokenizer("one")["input_ids"]
    assert len(seen) == pieces.counts[0] > 5 and len(drawn) == 2


def test_a_stride_that_leaves_tokens_out_is_refused():
    with pytest.raises(UserError, match="--window_stride 19: windows have 18 tokens"):
        Reading("windows", 19).stride_in(18)
    assert Reading("windows").stride_in(18) == 9 and Reading("windows", 18).stride_in(18) == 18


@pytest.mark.parametrize("name", ["tiny-xlmr", "minilm", "gpt2"])
def test_texts_tokenized_in_parts_have_the_tokens_of_the_whole(small, lm_inputs, monkeypatch, name):
    from utils.data import tokenization

    folders = {"tiny-xlmr": small / "tiny-xlmr", "gpt2": lm_inputs / "gpt2"}
    if name == "minilm":
        from demo.minilm import checkpoint

        folders["minilm"] = checkpoint()
    tokenizer = load_tokenizer(folders[name])
    generator = np.random.default_rng(0)
    words = [
        "minister",
        "L'eau",
        "\u00e9t\u00e9",
        "a",
        "  ",
        "\n",
        "1,100.5",
        "\u4e2d\u6587\u5b57",
        "na\u0308ive",
        "\t",
        "x" * 50,
        "!?",
    ]
    for _ in range(20):
        text = " ".join(generator.choice(words, size=generator.integers(1, 200)))
        whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        for characters in (30, 77, 10_000):
            monkeypatch.setattr(tokenization, "CHARACTERS_AT_ONCE", characters)
            monkeypatch.setattr(tokenization, "CHARACTERS_TOGETHER", 3 * characters)
            (_, _), (tokens, places), (nothing, _) = encode_whole(["one", text, ""], tokenizer)
            assert tokens.tolist() == whole["input_ids"] and not len(nothing)
            assert places.tolist() == [list(pair) for pair in whole["offset_mapping"]]


def test_a_text_of_a_million_characters_takes_little_memory(small, tmp_path):
    """Its windows overlap, so together they have twice its tokens; few of them are there at a time."""
    import tracemalloc

    tokenizer = load_tokenizer(small / "tiny-xlmr")
    text = "the minister said on friday that the border would stay open and the river " * 15_000
    assert len(text) > 1_100_000
    _, pieces = pieces_of_texts(tokenizer, tmp_path, [text, "one"], Reading("windows", 64), max_length=128)
    tracemalloc.start()
    total = sum(len(ids) for start in range(0, len(pieces.spans), 32) for ids in pieces.input_ids(
        np.arange(start, min(start + 32, len(pieces.spans)))
    ))  # fmt: skip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == pieces.lengths.sum() > 1.9 * pieces.num_tokens.sum()
    # Once as they are stored, once as the model wants them.
    assert peak < 16 * pieces.num_tokens.sum(), f"{peak / 1e6:.1f} MB"


def test_an_empty_set_of_texts(small):
    tokenizer = load_tokenizer(small / "tiny-xlmr")
    pieces = TextPieces(np.zeros(0, dtype=int), lambda row: np.zeros(0), find_frame(tokenizer), 20, Reading("windows"))
    assert pieces.pool(np.zeros((0, 3))).shape == (0, 3)
