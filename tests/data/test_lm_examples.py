"""Examples keep their texts, labels and metadata through tokenizing, preprocessing and padding."""

import gzip
import json
import random
import tracemalloc

import datasets
import pytest
import torch

from demo.build import make_texts
from demo.language_models import bert_tokenizer, gpt2_tokenizer, t5_tokenizer
from utils.data.lm_encoding import Encoder
from utils.data.lm_examples import TextExamples
from utils.data.masking import IGNORED, expand_with_masks, identity, mask_random_spans, mask_random_tokens
from utils.data.text_files import read_text_file
from utils.errors import UserError

TEXTS = [text for _, text in make_texts("en", 60, random.Random(2))]
BERT, GPT2, T5 = bert_tokenizer(TEXTS), gpt2_tokenizer(TEXTS), t5_tokenizer(TEXTS)
SHORT = [" ".join(text.split()[: 3 + index]) for index, text in enumerate(TEXTS[:5])]


@pytest.fixture
def examples(tmp_path):
    path = tmp_path / "short.txt.gz"
    path.write_bytes(gzip.compress("\n".join(SHORT).encode()))
    lines = "\n".join(json.dumps({"number": index}) for index in range(5))
    (tmp_path / "short_metadata.json.gz").write_bytes(gzip.compress(lines.encode()))
    return read_text_file(path)


def test_causal_models_begin_with_a_token_to_predict_from(examples):
    data = TextExamples("short", examples, GPT2, "lm", 64, identity)
    assert all(row[0] == GPT2.bos_token_id and row[1] != GPT2.bos_token_id for row in data.rows["input_ids"])
    batch = data.batch([4, 0])
    assert batch.texts == [SHORT[4], SHORT[0]]
    assert [entry["number"] for entry in batch.metadata] == batch.items == [4, 0]
    sizes = [len(data.rows["input_ids"][index]) for index in (4, 0)]
    assert batch.inputs["attention_mask"].sum(1).tolist() == sizes == data.lengths[[4, 0]].tolist()
    padding = batch.inputs["attention_mask"] == 0
    assert padding.any() and (batch.inputs["labels"][padding] == IGNORED).all()
    assert GPT2.decode(batch.inputs["input_ids"][1][1 : sizes[1]]) == SHORT[0]
    assert data[2]["texts"] == data[2]["labels_text"] == SHORT[2] and data[2]["metadata"] == {"number": 2}
    cut = TextExamples("short", examples, GPT2, "lm", 4, identity)
    assert all(len(row) == 4 for row in cut.rows["input_ids"])


@pytest.mark.parametrize("strategy", ["once", "per_batch"])
def test_expanded_examples_keep_what_describes_them(examples, strategy):
    data = TextExamples("short", examples, BERT, "mlm", 64, expand_with_masks, strategy=strategy)
    batch = data.batch(list(range(len(data))))
    lengths = [len(BERT(text, add_special_tokens=False)["input_ids"]) for text in SHORT]
    assert batch.items == [item for item, length in enumerate(lengths) for _ in range(length)]
    assert len(data) == (sum(lengths) if strategy == "once" else 5)
    for row, label, text, described in zip(
        batch.inputs["input_ids"], batch.inputs["labels"], batch.texts, batch.metadata, strict=True
    ):
        restored = torch.where(label != IGNORED, label, row)
        kept = restored[: len(BERT(text)["input_ids"])].tolist()
        assert kept == BERT(text)["input_ids"]
        assert SHORT[described["number"]] == text


def test_once_masks_once_and_per_batch_every_time(examples):
    def masked(strategy, seed=1):
        function = (mask_random_tokens, {"mask_prop": 0.5}, strategy)
        data = TextExamples("s", examples, BERT, "mlm", 64, *function, seed=seed)
        return [str(data.batch([4], epoch).inputs["labels"].tolist()) for epoch in range(8)]

    assert len(set(masked("once"))) == 1
    assert len(set(masked("per_batch"))) > 1
    torch.manual_seed(5)
    again = masked("per_batch")
    torch.manual_seed(6)
    assert again == masked("per_batch"), "seed, epoch and examples alone decide"
    assert again != masked("per_batch", seed=2)


def test_tokenized_once(examples, tmp_path, monkeypatch):
    def encode(**settings):
        return TextExamples("short", examples, GPT2, "lm", 64, cache_dir=tmp_path / "cache", **settings)

    first = encode()
    monkeypatch.setattr(Encoder, "encode_batch", lambda *_, **__: pytest.fail("tokenized again"))
    again = encode()
    for before, after in (
        (first.encoded.input_ids, again.encoded.input_ids),
        (first.encoded.words, again.encoded.words),
    ):
        assert [row.tolist() for row in after] == [row.tolist() for row in before]
    monkeypatch.undo()
    file = next((tmp_path / "cache").glob("*.arrow"))
    before = file.stat().st_ino
    assert encode(overwrite_cache=True)[3] == first[3]
    assert file.stat().st_ino != before


@pytest.mark.parametrize(("tokenizer", "task"), [(GPT2, "lm"), (BERT, "mlm"), (T5, "seq2seq")])
def test_words_are_what_white_space_separates(tokenizer, task):
    text = f" {SHORT[4]}  {SHORT[1].split()[0]}.{SHORT[0]}   {SHORT[2]}."
    examples = datasets.Dataset.from_dict({"text": [text], "metadata": ["{}"]})
    data = TextExamples("s", examples, tokenizer, task, 64)
    pieces: dict[int, list[int]] = {}
    for token, word in zip(data.rows["input_ids"][0].tolist(), data.encoded.words[0].tolist(), strict=True):
        pieces.setdefault(word, []).append(token)
    assert set(pieces.pop(-1, [])) <= set(tokenizer.all_special_ids)
    assert list(pieces) == list(range(len(text.split())))
    for number, word in enumerate(text.split()):
        # WordPiece splits at punctuation and decodes with spaces.
        decoded = "".join(tokenizer.decode(pieces[number]).split())
        assert decoded == word or tokenizer.unk_token_id in pieces[number]


def test_padding_to_one_length(examples):
    batch = TextExamples("s", examples, BERT, "mlm", 64, pad_to=64).batch([0])
    assert batch.inputs["input_ids"].shape == batch.inputs["labels"].shape == (1, 64)


@pytest.mark.parametrize("strategy", ["once", "per_batch"])
def test_labels_of_spans_are_shown_as_they_are(examples, strategy):
    data = TextExamples("s", examples, T5, "seq2seq", 64, mask_random_spans, {"mask_prop": 0.3}, strategy)
    batch = data.batch([3])
    tokens = [token for token in batch.inputs["labels"][0].tolist() if token != IGNORED]
    assert batch.labels == [T5.decode(tokens)]
    assert "<extra_id_0>" in batch.labels[0] and batch.texts == [SHORT[3]]


def test_given_labels(tmp_path):
    words = SHORT[4].split()
    target = next(w for w in words if len(BERT(w, add_special_tokens=False)["input_ids"]) == 1)
    lines = [{"text": SHORT[4].replace(target, "[MASK]", 1), "labels": SHORT[4]}]
    path = tmp_path / "given.json.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    data = TextExamples("given", read_text_file(path), BERT, "mlm", 64, identity)
    assert data.batch([0]).inputs["labels"][0].tolist() == BERT(SHORT[4])["input_ids"]
    assert data.batch([0]).labels == [SHORT[4]]
    # A causal model's labels are its inputs.
    causal = TextExamples("given", read_text_file(path), GPT2, "lm", 64, identity).batch([0]).inputs
    assert torch.equal(causal["labels"], causal["input_ids"])
    lines[0]["labels"] += " and more"
    path.write_bytes(gzip.compress(json.dumps(lines[0]).encode()))
    with pytest.raises(UserError, match="given, line 1: the text has"):
        TextExamples("given", read_text_file(path), BERT, "mlm", 64, identity)


def test_functions_of_users_are_checked(examples):
    def halve(inputs, tokenizer):
        return {name: value[:2] for name, value in inputs.items()}

    def wrong(inputs, tokenizer):
        return {**inputs, "expanded_lengths": torch.tensor([1, 1, -1])}

    for function, message in ((halve, "another number of examples"), (wrong, "expanded_lengths do not add up")):
        with pytest.raises(UserError, match=message):
            TextExamples("s", examples, BERT, "mlm", 64, function)


def test_what_a_long_text_becomes_does_not_make_others_long(examples):
    """Padded to the longest, what 3,000 short texts became took 500 MB beside one long text."""
    texts = [SHORT[1]] * 300 + [" ".join(TEXTS)]
    many = datasets.Dataset.from_dict({"text": texts, "metadata": ["{}"] * len(texts)})
    tracemalloc.start()
    data = TextExamples("many", many, BERT, "mlm", 512, expand_with_masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    short = len(BERT(SHORT[1])["input_ids"])
    assert data.lengths.tolist() == [short] * (short - 2) * 300 + [512] * 510
    # 32-bit numbers of inputs and labels, and some megabytes for what is under way.
    assert peak < 8 * data.lengths.sum() + 8e6
    assert data.batch([0, len(data) - 1]).texts == [texts[0], texts[-1]]


@pytest.mark.parametrize("strategy", ["once", "per_batch"])
def test_the_ids_alone_and_all_that_belongs_to_an_example(examples, strategy):
    data = TextExamples("short", examples, BERT, "mlm", 64, mask_random_tokens, strategy=strategy)
    assert set(data[3]) - {"labels"} == {"input_ids", "attention_mask", "texts", "labels_text", "metadata"}
    assert data[3]["texts"] == SHORT[3] and data[3]["metadata"] == {"number": 3}
    assert data.texts == data.labels == SHORT and [entry["number"] for entry in data.metadata] == [0, 1, 2, 3, 4]
    assert data.dataset.num_rows == len(data) == 5
    assert data.dataset[3] == {name: value for name, value in data[3].items() if name in data.dataset.column_names}
    assert ("labels" in data.dataset.column_names) == (strategy == "once")


def test_models_without_sentinels_have_no_pseudo_likelihood_of_spans(examples):
    with pytest.raises(UserError, match="--pll of sequence-to-sequence models needs sentinel tokens"):
        TextExamples("s", examples, BERT, "seq2seq", 64, pll="original")
    with pytest.raises(UserError, match="--pll: the tokenizer has no mask token"):
        TextExamples("s", examples, GPT2, "mlm", 64, pll="original")
