import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from demo.build import make_texts
from tests.factories import PROJECT
from utils.data import tokenization
from utils.data.corpus_load import open_corpus
from utils.data.tokenization import encode, load_tokenizer, splits_at_spaces, tokenize

WORDS = [
    "harbour",
    "l'île",
    "Straße",
    "naïve",
    "東京",
    "これは長い文",
    "…",
    "😀",
    "a",
    "12.5",
    "don't",
    "x" * 40,
    "▁",
    "é",
]
SPACES = [" ", "  ", "\n", " \n ", "\t", "\u3000", "\u00a0", "\x85", "", "\u200b", " \u0301"]


def _tokenizers():
    """The kinds of tokenizers that multilingual models have: Unigram, WordPiece, byte-level and whole-text BPE."""
    import random

    texts = [text for lang in ("en", "fr") for _, text in make_texts(lang, 100, random.Random(lang))]
    texts += WORDS
    kinds = {
        "unigram": (
            models.Unigram(),
            normalizers.NFKC(),
            pre_tokenizers.Metaspace(),
            trainers.UnigramTrainer(
                vocab_size=400, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
            ),
        ),
        "wordpiece": (
            models.WordPiece(unk_token="<unk>"),
            normalizers.BertNormalizer(lowercase=False),
            pre_tokenizers.BertPreTokenizer(),
            trainers.WordPieceTrainer(vocab_size=400, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False),
        ),
        "byte-level": (
            models.BPE(),
            None,
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            trainers.BpeTrainer(vocab_size=500, special_tokens=["<s>", "</s>"], show_progress=False),
        ),
        "whole-text": (
            models.BPE(unk_token="<unk>"),
            normalizers.Replace(" ", "▁"),
            pre_tokenizers.Split(" ", "merged_with_previous"),
            trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False),
        ),
    }
    kinds["across-spaces"] = (
        models.BPE(unk_token="<unk>"),
        None,
        None,
        trainers.BpeTrainer(vocab_size=600, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False),
    )
    for name, (model, normalizer, pre_tokenizer, trainer) in kinds.items():
        tokenizer = Tokenizer(model)
        if normalizer:
            tokenizer.normalizer = normalizer
        if pre_tokenizer:
            tokenizer.pre_tokenizer = pre_tokenizer
        # Words one by one: no merge spans a space, as in the vocabularies of real models.
        mark = "▁" if name == "whole-text" else ""
        pieces = texts if name == "across-spaces" else [mark + word for text in texts for word in text.split()]
        tokenizer.train_from_iterator(pieces, trainer)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))],
        )
        yield name, PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="</s>")


TOKENIZERS = dict(_tokenizers())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SPACES)), max_size=120),
    max_length=st.integers(4, 24),
    characters=st.sampled_from([1, 2, 8]),
)
def test_cutting_characters_first_changes_no_token(monkeypatch, name, side, parts, max_length, characters):
    monkeypatch.setattr(tokenization, "CHARACTERS_PER_TOKEN", characters)
    text = "".join(word + space for word, space in parts)
    tokenizer = TOKENIZERS[name]
    monkeypatch.setattr(tokenizer, "truncation_side", side)
    whole = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    longer = len(tokenizer(text)["input_ids"]) > max_length
    assert encode([text], tokenizer, max_length) == ([whole], [longer])


@pytest.mark.slow
def test_cutting_characters_first_changes_no_token_of_real_texts(real_corpus, small):
    corpus = open_corpus(real_corpus)
    texts = [text for lang in ("sv", "zh", "ar") for text in corpus.load("test", lang)["text"]]
    for tokenizer in (load_tokenizer(small / "tiny-xlmr"), TOKENIZERS["wordpiece"], TOKENIZERS["byte-level"]):
        whole = tokenizer(texts, truncation=True, max_length=128)["input_ids"]
        tokens, cut = encode(texts, tokenizer, 128)
        assert tokens == whole
        assert cut == [len(ids) > 128 for ids in tokenizer(texts)["input_ids"]]


def test_little_of_a_long_text_is_read(small):
    tokenizer = load_tokenizer(small / "tiny-xlmr")
    seen = []

    class Spy:
        backend_tokenizer, truncation_side = tokenizer.backend_tokenizer, "right"

        def __call__(self, parts, **kwargs):
            seen.extend(map(len, parts))
            return tokenizer(parts, **kwargs)

    encode(["harbour and garden " * 60_000], Spy(), 128)
    assert max(seen) < 5000


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "safe"),
    [
        (None, pre_tokenizers.Metaspace(), True),
        (None, pre_tokenizers.Metaspace(split=False), False),
        (None, pre_tokenizers.ByteLevel(), True),
        (None, pre_tokenizers.ByteLevel(use_regex=False), False),
        (None, None, False),
        (None, pre_tokenizers.Split(" ", "merged_with_previous"), False),
        (None, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]), True),
        (normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), True),
        # XLM-R, mT5 and Glot500; Gemma and mmBERT.
        (normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), "\u2581")]),
         pre_tokenizers.Metaspace(), True),
        (normalizers.Replace(" ", "\u2581"), pre_tokenizers.Split(" ", "merged_with_previous"), False),
        (normalizers.Replace(" ", "\u2581"), pre_tokenizers.WhitespaceSplit(), False),
        (normalizers.Prepend("\u2581"), pre_tokenizers.Metaspace(), False),
    ],
)  # fmt: skip
def test_which_tokenizers_split_at_spaces(normalizer, pre_tokenizer, safe):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert splits_at_spaces(wrapped) == safe
    wrapped.truncation_side = "left"
    assert not splits_at_spaces(wrapped)
    wrapped.truncation_side = "right"
    wrapped.add_tokens(["New York"])
    assert not splits_at_spaces(wrapped)


def test_tokenized_once_and_shared(small, tmp_path, monkeypatch):
    tokenizer = load_tokenizer(small / "tiny-xlmr")
    dataset = datasets.Dataset.from_dict({"text": ["one text", "another, longer text"], "label": [1, 0]})
    first = tokenize(dataset, tokenizer, 16, tmp_path)
    assert first.column_names == ["input_ids", "length", "cut", "label"]
    monkeypatch.setattr(tokenization, "encode", lambda *_: pytest.fail("tokenized twice"))
    again = tokenize(dataset, tokenizer, 16, tmp_path)
    assert again["input_ids"][:] == first["input_ids"][:]
    assert again["label"][:] == [1, 0]


def test_the_cache_tells_texts_lengths_and_tokenizers_apart(small, tmp_path):
    tokenizer = load_tokenizer(small / "tiny-xlmr")
    dataset = datasets.Dataset.from_dict({"text": ["one text", "another, longer text"]})
    tokenize(dataset, tokenizer, 16, tmp_path)
    tokenize(dataset, tokenizer, 5, tmp_path)
    tokenize(dataset, TOKENIZERS["wordpiece"], 16, tmp_path)
    tokenize(datasets.Dataset.from_dict({"text": ["one", "text another, longer text"]}), tokenizer, 16, tmp_path)
    assert len(list(tmp_path.glob("*.arrow"))) == 4
    tokenize(dataset, load_tokenizer(small / "tiny-xlmr"), 16, tmp_path)
    assert len(list(tmp_path.glob("*.arrow"))) == 4


def test_a_damaged_cache_file_is_made_again(small, tmp_path):
    tokenizer = load_tokenizer(small / "tiny-xlmr")
    dataset = datasets.Dataset.from_dict({"text": ["one text", "another, longer text"]})
    expected = tokenize(dataset, tokenizer, 16, tmp_path)["input_ids"][:]
    (path,) = tmp_path.glob("*.arrow")
    path.write_bytes(path.read_bytes()[:100])
    assert tokenize(dataset, tokenizer, 16, tmp_path)["input_ids"][:] == expected


@pytest.mark.slow
def test_concurrent_processes_share_the_cache(small, tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from utils.data.corpus_load import open_corpus\n"
        "from utils.data.tokenization import load_tokenizer, tokenize\n"
        f"dataset = open_corpus('{small}/register-corpus').load('train', 'en')\n"
        f"tokens = tokenize(dataset, load_tokenizer(Path('{small}/tiny-xlmr')), 64, Path('{tmp_path}'))\n"
        "print(sum(map(sum, tokens['input_ids'])))\n"
    )

    def run(_):
        return subprocess.run(
            [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
        ).stdout

    with ThreadPoolExecutor(4) as pool:
        outputs = set(pool.map(run, range(4)))
    assert len(outputs) == 1
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".lock"] == [".arrow"]
