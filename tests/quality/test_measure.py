import numpy as np
import pytest

from utils.quality.measure import FEW_BATCHES, PROBLEMS, measure, measure_all, runs_of_words
from utils.quality.rows import joined

SOUND = {
    "en": "The valve behind the lid is made of brass, and it opens when the pressure in the vessel rises too far. " * 2,
    "fr": "Le ministre a déclaré vendredi que le déficit de l’année prochaine serait plus élevé que prévu. " * 2,
    "sv": "Regeringen meddelade på fredagen att förslaget ska behandlas av riksdagen före sommaren. " * 2,
    "zh": "阀门位于盖子后面，由黄铜制成，当容器中的压力过高时，它会自动打开。" * 5,
}
BROKEN = {
    "empty": " \n-- ...",
    "short": "See you there!",
    "replacement": SOUND["sv"] + "n\ufffdtet",
    "control": SOUND["fr"] + "\x85 a \x92 b",
    "mojibake": SOUND["fr"].encode().decode("cp1252", "replace").replace("\ufffd", ""),
    "markup": SOUND["en"] + "<div class='x'>read&nbsp;more</div>",
    "language": SOUND["sv"],
}


def problems(text, lang):
    found = int(measure([text], lang).problems[0])
    return [name for bit, name in enumerate(PROBLEMS) if found >> bit & 1]


@pytest.mark.parametrize("lang", SOUND)
def test_sound_texts_have_no_problem(lang):
    assert problems(SOUND[lang], lang) == []
    assert problems("Is 3 < 4, and a & b? R&D; x <y> " + SOUND["en"], "en") == []


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_is_seen(name):
    lang = {"replacement": "sv", "control": "fr", "mojibake": "fr"}.get(name, "en")
    assert name in problems(BROKEN[name], lang)


def test_languages_without_a_code_that_is_known_are_not_doubted():
    assert "language" not in problems(SOUND["sv"], "old_norse")


def test_runs_of_words():
    runs = runs_of_words(["a", "b", "c", "d", "e", "f"])
    assert len(runs) == 2 and len(runs_of_words(["a", "b", "c", "d", "e"])) == 1
    assert np.intersect1d(runs, runs_of_words(["x", "b", "c", "d", "e", "f"])).size == 1
    assert len(runs_of_words([])) == 0
    # Order counts, and a short text is no part of a longer one.
    assert not np.intersect1d(runs_of_words(["b", "a"]), runs_of_words(["a", "b"])).size
    assert not np.intersect1d(runs_of_words(["a", "b"]), runs_of_words(["a", "b", "c"])).size


def test_processes_find_what_one_does_in_the_same_order():
    texts = [f"{SOUND['en']} number {number} of {number * number}" for number in range(30 * (FEW_BATCHES + 2))]
    batches = [(texts[start : start + 30], "en") for start in range(0, len(texts), 30)]
    alone, together = (joined(list(measure_all(iter(batches), workers))) for workers in (1, 2))
    for name in ("hashes", "characters", "problems", "signatures"):
        assert np.array_equal(getattr(alone, name), getattr(together, name))
    assert all(map(np.array_equal, alone.runs, together.runs)) and alone.beginnings == together.beginnings
