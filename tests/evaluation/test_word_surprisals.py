"""Windows, words, sentences and pairs: against brute force, and against minicons."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from minicons import scorer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from demo.language_models import build_lm
from tests.factories import TEXTS, rows_of_file, rows_of_tokens
from utils.data.lm_examples import TextExamples
from utils.data.lm_expansion import mask_each, slide
from utils.data.text_files import TextFile, open_text_file
from utils.data.token_words import IGNORED
from utils.errors import UserError
from utils.evaluation.sentences import Pairs, sentence_sums
from utils.evaluation.surprisal import file_tokens
from utils.evaluation.token_table import TokenTable
from utils.evaluation.tokens import arrow_table
from utils.evaluation.word_boundaries import CORRECTED, WordBoundaries
from utils.figures.surprisals import conditions_figure, words_figure
from utils.models.loading import load_language_model

SHORT = [" ".join(text.split()[: 4 + index % 9]) for index, text in enumerate(TEXTS[:20])]

TASKS = {"gpt2": "lm", "bert": "mlm", "t5": "seq2seq"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Models that expect very different things."""
    folder = tmp_path_factory.mktemp("models")
    made = {}
    for kind, task in TASKS.items():
        build_lm(kind, TEXTS, folder / kind)
        model = load_language_model(folder / kind, task).eval().double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 3
        made[kind] = model, AutoTokenizer.from_pretrained(folder / kind), folder / kind
    return made


def examples(texts, tokenizer, task, max_length=128, **more):
    import datasets

    data = datasets.Dataset.from_dict({"text": texts, "metadata": ["{}"] * len(texts)})
    return TextExamples("texts", data, tokenizer, task, max_length, **more)


def rows_of(loaded, kind, texts, batch_size=7, boundaries=False, **more):
    model, tokenizer, _ = loaded[kind]
    task = TASKS[kind]
    table = TokenTable(tokenizer, task, boundaries=WordBoundaries(tokenizer) if boundaries else None)
    return rows_of_file(table, model, examples(texts, tokenizer, task, **more), batch_size)


def log_probabilities(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)


@pytest.mark.parametrize(("length", "size", "context"), [(3, 8, 2), (8, 8, 3), (9, 8, 7), (50, 8, 1), (50, 8, 5)])
def test_windows_predict_every_token_once_and_with_context(length, size, context):
    ids = np.arange(100, 100 + length)
    predicted = []
    for part in slide(ids, size, context):
        places = np.arange(length) if part.places is None else part.places
        assert len(part.input_ids) == len(part.labels) == len(places) <= size
        assert part.input_ids.tolist() == ids[places].tolist()
        for position, (label, place) in enumerate(zip(part.labels, places, strict=True)):
            if label != IGNORED:
                assert label == ids[place] and (position >= context or position == place)
                predicted.append(place)
    assert predicted == list(range(length))


def test_long_texts_in_windows(loaded):
    model, tokenizer, _ = loaded["gpt2"]
    text = " ".join(TEXTS[:8])
    rows = rows_of(loaded, "gpt2", [SHORT[0], text], max_length=24, stride=10)
    own = [row for row in rows if row["line"] == 2]
    ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]
    assert [row["token_id"] for row in own] == ids[1:] and not any(row["truncated"] for row in rows)
    assert [row["token_num"] for row in own] == list(range(len(ids) - 1))
    for place, row in enumerate(own, 1):
        # Windows end after 24, 38, 52 ... tokens.
        stop = 24 if place < 24 else 24 + 14 * ((place - 24) // 14 + 1)
        start = stop - 24
        expected = log_probabilities(model, ids[start:place])[-1, ids[place]] / -math.log(2)
        assert row["surprisal_bits"] == pytest.approx(float(expected), abs=1e-8)
    words = {row["word_num"]: row for row in own}
    assert [row["word"] for row in words.values()] == text.split()
    for number, row in words.items():
        parts = [each["surprisal_bits"] for each in own if each["word_num"] == number]
        assert row["word_surprisal_bits"] == pytest.approx(sum(parts))
        assert row["token_is_word"] == (len(parts) == 1)


def test_without_a_token_before_it_the_first_has_no_surprisal(loaded):
    model, tokenizer, _ = loaded["gpt2"]
    rows = rows_of(loaded, "gpt2", SHORT[:3], bos="no")
    for line, text in enumerate(SHORT[:3], 1):
        ids = tokenizer(text)["input_ids"]
        own = [row for row in rows if row["line"] == line]
        assert [row["token_id"] for row in own] == ids[1:]
        expected = log_probabilities(model, ids)[range(len(ids) - 1), ids[1:]] / -math.log(2)
        assert [row["surprisal_bits"] for row in own] == pytest.approx(expected.tolist())
        for row in own:
            assert (row["word_surprisal_bits"] is None) == (row["word_num"] == 0)


def test_a_token_before_texts_where_there_is_none(loaded):
    tokenizer = AutoTokenizer.from_pretrained(loaded["gpt2"][2])
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(UserError, match="neither a token that begins texts"):
        examples(SHORT[:2], tokenizer, "lm", bos="yes")


def tiny_vocabulary():
    """Two tokens that begin words, two that continue them, and one around texts."""
    vocabulary = {"<|end|>": 0, "\u0120a": 1, "\u0120b": 2, "a": 3, "b": 4}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>")


class Table(torch.nn.Module):
    """A model of five tokens that looks at the last three."""

    def __init__(self):
        super().__init__()
        self.logits = torch.randn(5, 5, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2

    def next(self, ids):
        """Return the probabilities of what follows."""
        last = ([0, 0, 0, *ids])[-3:]
        return self.logits[tuple(last)].softmax(-1)


def probability(model, ids, context):
    total, before = 1.0, list(context)
    for token in ids:
        total *= float(model.next(before)[token])
        before.append(token)
    return total


@pytest.mark.parametrize("context", [[0], [0, 3], [0, 3, 4, 2, 3]])
def test_words_by_brute_force(context):
    """Corrected, the probabilities of all words add up to 1; each is that of its tokens with a boundary behind them."""
    model, boundaries = Table(), WordBoundaries(tiny_vocabulary())
    assert boundaries.begins.tolist() == [False, True, True, False, False]
    assert boundaries.ends.tolist() == [True, True, True, False, False]
    begins = [3, 4] if context == [0] else [1, 2]
    # In a place where a word begins: what all continuations that begin one have together.
    room = sum(float(model.next(context)[token]) for token in begins)
    total = 0.0
    for length in range(1, 9):
        for first, *rest in itertools.product(begins, *[[3, 4]] * (length - 1)):
            word = [first, *rest]
            brute = sum(probability(model, [*word, end], context) for end in (0, 1, 2)) / room
            ids = [*context, *word]
            logits = torch.stack([model.next(ids[: place + 1]).log() for place in range(len(ids))])[None]
            positions = torch.arange(len(context), len(ids))
            bits = boundaries.bits(logits, torch.zeros_like(positions), positions, torch.tensor(word))
            tokens = -math.log2(probability(model, word, context))
            corrected = tokens + bits["_after"][-1] - bits["_before"][0]
            assert corrected == pytest.approx(-math.log2(brute), abs=1e-9)
            total += 2.0**-corrected
    # What is missing are words of more than eight tokens.
    assert 0.97 < total <= 1


def test_corrected_surprisals_in_the_table(loaded):
    model, tokenizer, _ = loaded["gpt2"]
    boundaries = WordBoundaries(tokenizer)
    rows = rows_of(loaded, "gpt2", SHORT, boundaries=True)
    again = rows_of(loaded, "gpt2", SHORT, boundaries=True, max_length=12, stride=11)
    assert len(again) == len(rows) and "_before" not in rows[0]
    for line, text in enumerate(SHORT, 1):
        ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]
        found = log_probabilities(model, ids).exp()
        own = [row for row in rows if row["line"] == line]
        starts = [place for place, row in enumerate(own, 1) if row["token_is_start_of_word"]]
        for start, stop in itertools.pairwise([*starts, len(ids)]):
            expected = math.prod(float(found[place - 1, ids[place]]) for place in range(start, stop))
            expected *= float(found[stop - 1, boundaries.ends].sum())
            begins = boundaries.begins if boundaries.begins[ids[start]] else boundaries.continues
            expected /= float(found[start - 1, begins].sum())
            for row in own[start - 1 : stop - 1]:
                assert row[CORRECTED] == pytest.approx(-math.log2(expected), abs=1e-8)
    cut = rows_of(loaded, "gpt2", SHORT, boundaries=True, max_length=6)
    last = {row["line"]: row["word_num"] for row in cut}
    for row in cut:
        assert (row[CORRECTED] is None) == (row["truncated"] and row["word_num"] == last[row["line"]])


def test_words_cannot_be_told_by_tokens_that_do_not_mark_them(loaded):
    with pytest.raises(UserError, match="do not mark where words begin"):
        WordBoundaries(loaded["bert"][1])


def test_a_text_with_labels_has_no_pseudo_likelihood(loaded, tmp_path):
    import datasets

    data = datasets.Dataset.from_dict({"text": ["a b"], "labels": ["a b"], "metadata": ["{}"]})
    with pytest.raises(UserError, match="x has labels; --pll masks texts"):
        TextExamples("x", data, loaded["bert"][1], "mlm", 64, pll="original")


def test_figures_of_long_sentences_and_of_many_conditions():
    words = [(f"w{number}", float(number % 9)) for number in range(3000)]
    figure = words_figure({"a 1: long": words, "a 2: $x$": words[:2]})
    assert figure.get_figwidth() < 30 and "(40 of 3000 words)" in figure.axes[0].get_title(loc="left")
    values = {f"c{number}": [1.0] * (1 + number // 900) for number in range(1000)}
    figure = conditions_figure("item", values)
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    # Those of two sentences come before those of one.
    assert shown == [f"c{number}" for number in range(900, 960)] and "(60 of 1,000)" in figure.axes[0].get_title()
    assert figure.get_figheight() < 30


def test_masks_of_a_pseudo_likelihood():
    ids, words = np.array([1, 50, 51, 52, 2]), [None, 0, 0, 1, None]
    original = list(mask_each(ids, words, 9, "original"))
    assert [part.input_ids.tolist() for part in original] == [[1, 9, 51, 52, 2], [1, 50, 9, 52, 2], [1, 50, 51, 9, 2]]
    within = list(mask_each(ids, words, 9, "within_word_l2r"))
    assert [part.input_ids.tolist() for part in within] == [[1, 9, 9, 52, 2], [1, 50, 9, 52, 2], [1, 50, 51, 9, 2]]
    labels = [part.labels.tolist() for part in within]
    assert labels == [[-100, 50, -100, -100, -100], *[part.labels.tolist() for part in original[1:]]]


@pytest.mark.parametrize("kind", ["original", "within_word_l2r"])
def test_masked_models_agree_with_minicons(loaded, kind):
    model, tokenizer, _ = for_minicons(loaded["bert"])
    rows = rows_of(loaded, "bert", SHORT, pll=kind)
    theirs = scorer.MaskedLMScorer(model, "cpu", tokenizer=tokenizer).token_score(
        SHORT, surprisal=True, base_two=True, PLL_metric=kind
    )
    compare(rows, theirs, tokenizer)
    for line in range(1, len(SHORT) + 1):
        own = [row for row in rows if row["line"] == line]
        assert [row["token_num"] for row in own] == list(range(len(own)))
        for row in own:
            parts = [each["surprisal_bits"] for each in own if each["word_num"] == row["word_num"]]
            assert row["word_surprisal_bits"] == pytest.approx(sum(parts))


@pytest.mark.parametrize("kind", ["original", "within_word_l2r"])
def test_sequence_to_sequence_models_against_a_direct_computation(loaded, kind):
    """Each token, or each word, behind a sentinel; the decoder reads what comes before in the same word alone."""
    model, tokenizer, _ = loaded["t5"]
    rows = rows_of(loaded, "t5", SHORT, pll=kind)
    first, second = tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_1>"])
    for line, text in enumerate(SHORT, 1):
        encoded = tokenizer(text)
        ids, words = encoded["input_ids"], encoded.word_ids()
        own = [row for row in rows if row["line"] == line and not row["token_is_special"]]
        assert [row["token_id"] for row in own] == ids[:-1]
        assert [row["token_num"] for row in own] == list(range(len(own)))
        for place, row in enumerate(own):
            span = [place] if kind == "original" else [p for p, word in enumerate(words) if word == words[place]]
            given = torch.tensor([[*ids[: span[0]], first, *ids[span[-1] + 1 :]]])
            labels = torch.tensor([[first, *(ids[p] for p in span), second]])
            with torch.no_grad():
                found = model(input_ids=given, labels=labels).logits[0].log_softmax(-1)
            bits = -float(found[1 + span.index(place), ids[place]]) / math.log(2)
            assert row["surprisal_bits"] == pytest.approx(bits, abs=1e-9)
            parts = [each["surprisal_bits"] for each in own if each["word_num"] == row["word_num"]]
            assert row["word_surprisal_bits"] == pytest.approx(sum(parts))
            assert row["word"] == text.split()[row["word_num"]]


def test_causal_models_agree_with_minicons(loaded):
    model, tokenizer, _ = for_minicons(loaded["gpt2"])
    theirs = scorer.IncrementalLMScorer(model, "cpu", tokenizer=tokenizer).token_score(
        SHORT, surprisal=True, base_two=True, bos_token=True
    )
    compare(rows_of(loaded, "gpt2", SHORT), theirs, tokenizer)


def for_minicons(loaded):
    """minicons 0.3.39 still calls what version 5 of transformers has under another name."""
    model, _, folder = loaded
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.batch_encode_plus = tokenizer
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model, tokenizer, folder


def compare(rows, theirs, tokenizer):
    """The same tokens and values; minicons gives 0 to what stands before a text."""
    for line, expected in enumerate(theirs, 1):
        own = [row for row in rows if row["line"] == line]
        expected = expected[len(expected) - len(own) :]
        for row, (token, _) in zip(own, expected, strict=True):
            assert token in (row["token"], tokenizer.convert_ids_to_tokens(row["token_id"]))
        assert [row["surprisal_bits"] for row in own] == pytest.approx([bits for _, bits in expected], abs=1e-4)


def test_sentences_are_sums(loaded, tmp_path):
    model, tokenizer, _ = loaded["gpt2"]
    tokens = file_tokens(
        TokenTable(tokenizer, "lm"), model, examples(SHORT, tokenizer, "lm"), 7, {"dataset_name": "texts"}
    )
    rows = rows_of_tokens(tokens)
    found = arrow_table(sentence_sums(tokens, TextFile(tmp_path / "texts.txt.gz", len(SHORT), []))).to_pylist()
    assert [row["original_text"] for row in found] == SHORT
    for number, row in enumerate(found, 1):
        bits = [each["surprisal_bits"] for each in rows if each["line"] == number]
        assert row["surprisal_bits"] == pytest.approx(sum(bits))
        assert (row["num_tokens"], row["num_words"]) == (len(bits), len(SHORT[number - 1].split()))
        assert row["perplexity"] == pytest.approx(2 ** (sum(bits) / len(bits)))


def test_pairs_are_counted(tmp_path):
    path = tmp_path / "agreement.jsonl"
    lines = [{"sentence_good": f"The dogs run {n}", "sentence_bad": f"The dogs runs {n}", "UID": "x"} for n in range(4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = open_text_file(path, ["sentence_good", "sentence_bad"])
    assert (file.name, file.num_examples, file.metadata_keys) == ("agreement", 8, ["pair", "pair_side", "UID"])
    texts = next(file.chunks(100))["text"][:]
    assert texts[:2] == ["The dogs run 0", "The dogs runs 0"]
    pairs = Pairs()
    # Keys of the file that are ours.
    path.with_name("own.jsonl").write_text('{"good": "a b", "bad": "b a", "pair": 7}\n')
    own = open_text_file(path.with_name("own.jsonl"), ["good", "bad"])
    assert [json.loads(entry) for entry in next(own.chunks(9))["metadata"][:]] == [
        {"pair": 1, "pair_side": side, "metadata_pair": 7} for side in ("good", "bad")
    ]
    sides = ["sentence_good", "sentence_bad"]
    # A tie is no preference.
    values = [(1.0, 2.0), (3.0, 2.0), (1.0, 1.0), (1.0, 9.0)]
    rows = [
        {"pair": number, "pair_side": side, "surprisal_bits": value}
        for number, both in enumerate(values, 1)
        for side, value in zip(sides, both, strict=True)
    ]
    for part in (rows[:3], rows[3:]):
        pairs.add({name: [row[name] for row in part] for name in rows[0]}, file)
    result = pairs.result()["agreement"]
    assert (result["num_pairs"], result["num_better"], result["share"]) == (4, 2, 0.5)
    # Wilson's, by hand: (p + z2 / 2n +- z sqrt(p q / n + z2 / 4n2)) / (1 + z2 / n).
    assert result["confidence_interval"] == pytest.approx([0.15004, 0.84996], abs=1e-4)


@pytest.mark.parametrize(
    ("content", "pairs", "message"),
    [
        ('{"good": "a"}\n', None, "--pairs GOOD BAD"),
        ('{"good": "a", "bad": " "}\n', ["good", "bad"], "line 1: expected a sentence under 'bad'"),
        ('{"good": "a", "bda": "b"}\n', ["good", "bad"], "did you mean 'bda'"),
        ("", ["good", "bad"], "is empty"),
    ],
)
def test_files_that_hold_no_pairs(tmp_path, content, pairs, message):
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        open_text_file(path, pairs)
