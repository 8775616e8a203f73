"""Phonemes by espeak-ng: a text's words stay its words, a row's phonemes stay in its row."""

import json
import shutil

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.factories import PROJECT, skip
from utils.data import transcribe
from utils.data.dataset_files import read_file

pytest.importorskip("phonemizer")
if not shutil.which("espeak-ng"):

    @pytest.fixture(autouse=True)
    def _without_espeak():
        skip("espeak-ng is not installed")


@pytest.fixture(scope="module")
def english():
    return transcribe.Transcriber("en-us")


def test_words_that_are_spoken_as_one_stay_apart(english):
    texts = ["He is in the house.", "It is one of the best, in the end!", "in the 20 houses of the 3 towns"]
    run_together = english.backend.phonemize(texts[:1], english.separator, strip=True)[0].split()
    assert len(run_together) < 5
    for text, phonemes in zip(texts[:2], english(texts), strict=False):
        assert len(phonemes.split()) == len(text.split())
    assert list(english(texts))[1].endswith("!")
    assert "ɪnðə" not in list(english(texts))[2].replace("ˈ", "")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="abe in the of\n\t.,!?—«»1", max_size=30), max_size=6))
def test_as_many_texts_and_at_least_as_many_words(english, texts):
    phonemes = list(english(texts))
    assert len(phonemes) == len(texts)
    for text, spoken in zip(texts, phonemes, strict=True):
        words = [word for word in text.split() if transcribe.num_words([word])]
        assert transcribe.num_words(spoken.split()) >= len(words)
        if not words:
            assert spoken == " ".join(text.split())


def test_the_order_of_texts_does_not_matter(english):
    texts = ["the house", "", "?!", "a small dog", "42"]
    assert list(english(texts[::-1])) == list(english(texts))[::-1]


def test_voices_by_the_names_of_languages(invoke):
    voices = {"russian": "ru", "polish": "pl", "Turkish": "tr", "en-us": "en-us", "english_america": "en-us"}
    assert {name: transcribe.find_voice(name) for name in voices} == voices
    assert transcribe.find_voice("english", "en-gb") == "en-gb"
    status, _, errors = invoke(transcribe, "--task", "sentiment", "--voices.german", "de")
    assert status == 2 and "--voices.german: not one of the languages, polish, russian" in errors
    status, _, errors = invoke(transcribe, "--task", "sentiment", "--voices.polish", "xx")
    assert status == 2 and "espeak-ng has no voice 'xx'" in errors


def test_what_the_name_leaves_open_is_asked():
    with pytest.raises(transcribe.UserError, match=r"several voices: .*en-us.* --voices.english CODE"):
        transcribe.find_voice("english")
    with pytest.raises(transcribe.UserError, match="no voice of that name"):
        transcribe.find_voice("klingonese")


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    """A copy of the demo's Polish reviews without phonemes, in every format, and a database of them."""
    tasks = {}
    source = read_file(PROJECT / "demo/sentiment/polish/test.tsv")
    for kind in ("csv", "tsv", "jsonl", "parquet", "saved"):
        folder = tmp_path / kind
        plain = source.remove_columns("review-phoneme").select(range(10))
        if kind == "saved":
            labelled = plain.class_encode_column("rating")
            datasets.DatasetDict({"train": labelled, "test": labelled}).save_to_disk(folder)
        else:
            folder.mkdir()
            for split in ("train", "test"):
                transcribe.write_file(plain, folder / f"{split}.{kind}")
        entry = {"dataset": kind, "train_features": ["review"], "eval_feature": "rating", "splits": ["train", "test"]}
        tasks[kind] = {"one": entry | {"task_type": "classification", "classes": 3}}
    (tmp_path / "database.json").write_text(json.dumps({"polish": tasks}))
    monkeypatch.chdir(tmp_path)
    return list(transcribe.Transcriber("pl")(source["review"][:10]))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_files_get_the_column(reviews, tmp_path, invoke, kind):
    command = ["--task", kind, "--language_database", "database.json"]
    path = tmp_path / kind / f"test.{kind}"
    before = read_file(path)
    status, output, errors = invoke(transcribe, *command)
    assert (status, errors) == (0, "")
    assert "10 texts by the voice pl" in output
    after = read_file(path)
    assert after["review-phoneme"][:] == reviews
    assert after.remove_columns("review-phoneme").to_list() == before.to_list()
    assert invoke(transcribe, *command)[1].count("has phonemes already") == 2
    assert "10 texts" in invoke(transcribe, *command, "--force")[1]
    assert read_file(path).to_list() == after.to_list()


def test_saved_datasets_go_to_another_folder(reviews, tmp_path, invoke):
    command = ["--task", "saved", "--language_database", "database.json"]
    status, _, errors = invoke(transcribe, *command)
    assert status == 2 and "give --output_dir" in errors
    status, output, _ = invoke(transcribe, *command, "--output_dir", "made")
    assert status == 0 and '"dataset": ' in output
    made = read_file(tmp_path / "made/polish-saved-one/test.parquet")
    assert made["review-phoneme"][:] == reviews
    assert made.features["rating"].names == ["negative", "neutral", "positive"]


def test_a_text_that_is_none_costs_nothing(reviews, tmp_path, invoke):
    path = tmp_path / "jsonl/test.jsonl"
    path.write_text(path.read_text() + json.dumps({"review": None, "rating": "neutral"}) + "\n")
    before = path.read_bytes()
    status, _, errors = invoke(transcribe, "--task", "jsonl", "--language_database", "database.json")
    assert status == 2 and "split test, row 11: expected a text in 'review'" in errors
    assert path.read_bytes() == before
