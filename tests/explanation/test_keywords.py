import numpy as np

from utils.explanation.faithfulness import describe, summarize
from utils.explanation.keywords import Scored, example, keywords


def texts(word, score, count=5, noise=0.1):
    """Texts that have a word with this score beside words of no account."""
    generator = np.random.default_rng(0)
    made = []
    for row in range(count):
        words = ["The", word, "of", ",", f"w{row}"]
        scores = generator.normal(0, noise, len(words))
        scores[1] = score
        made.append(Scored(row + 1, words, scores))
    return made


def test_words_of_many_texts_and_most_models():
    runs = [texts("river", 2.0), texts("river", 1.0), texts("stone", 3.0)]
    found = keywords(runs)
    by_word = {row["word"]: row for row in found}
    assert found[0]["word"] == "river" and "stone" not in by_word
    assert by_word["river"]["score"] == 1 and by_word["river"]["stability"] == round(2 / 3, 3)
    assert by_word["river"]["document_frequency"] == by_word["river"]["num_texts"] == 5
    # In one text each, or without a letter.
    assert not {"w0", "w4", ","} & set(by_word)
    assert "river of" in by_word["river"]["example"]


def test_words_that_speak_against_a_register_are_no_keywords():
    assert "river" not in {row["word"] for row in keywords([texts("river", -2.0)])}
    assert keywords([]) == keywords([[]]) == []


def test_case_does_not_count_and_one_text_counts_once():
    text = Scored(1, ["River", "river", "RIVER"], np.array([1.0, 1.0, 0.4]))
    (row,) = keywords([[text] * 3])
    assert row["word"] == "river" and row["document_frequency"] == 3 and row["score"] == 0.8
    assert example("river", [text]) == "River river RIVER"


def falls(comprehensiveness, others, count=40):
    generator = np.random.default_rng(1)
    return [
        {
            "comprehensiveness": comprehensiveness + generator.normal(0, 0.05),
            "sufficiency": 0.1,
            "random_comprehensiveness": others + generator.normal(0, 0.05),
            "random_sufficiency": 0.4,
        }
        for _ in range(count)
    ]


def test_an_explanation_that_does_no_better_than_chance_is_said_to_fail():
    good, bad = summarize(falls(0.3, 0.1), 1), summarize(falls(0.1, 0.1), 1)
    assert good["faithful"] and good["interval"][0] > 0.1 and describe(good).startswith("faithful: ")
    assert not bad["faithful"] and describe(bad).startswith("NOT FAITHFUL, do not interpret")
