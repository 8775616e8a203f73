"""check_corpus.py from the command line, on corpora with planted faults."""

import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

import check_corpus
import evaluate
import finetune
from tests.factories import FAST, TRAINED, write_label_sets
from tests.labels import read_jsonl
from utils.data.delimited import read_rows
from utils.data.twins import text_hash
from utils.runs.files import read_json

pytestmark = pytest.mark.slow

ENGLISH = "The valve behind the lid is made of brass and it opens when the pressure in the vessel rises too far. "
HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)> "


def write_tsv(path, rows):
    path.write_text("".join(f"{label}\t{text}\n" for label, text in rows))


def num_judged(corpus, langs, of=("train", "test")):
    """How many texts of these splits have a register that ten texts of their language have."""
    count = 0
    for lang in langs:
        labels = {
            split: [row[0] for _, row in read_rows(corpus / "corpus" / split / f"{lang}.tsv")]
            for split in ("train", "test")
        }
        known = Counter(labels["train"] + labels["test"])
        count += sum(known[label] >= 10 for split in of for label in labels[split])
    return count


@pytest.fixture
def soiled(inputs):
    """The small corpus with faults: a doubled text with another label, test texts in training, a broken one."""
    folder = inputs.folder / "soiled"
    shutil.copytree(inputs.corpus, folder)
    train, test = ([row for _, row in read_rows(folder / "corpus" / split / "en.tsv")] for split in ("train", "test"))
    other = next(label for label, _ in train if label != train[0][0])
    train += [[other, train[0][1]], test[0], [test[1][0], f"{test[1][1]} {ENGLISH}"]]
    train.append([other, HOSTILE + ENGLISH * 3 + " dom\ufffdn"])
    for split, rows in (("train", train), ("test", test)):
        write_tsv(folder / "corpus" / split / "en.tsv", rows)
    return folder


def test_planted_faults_are_found(soiled, invoke):
    status, output, errors = invoke(check_corpus, "--corpus_path", soiled, "--model_name", "tiny", "--near", "0.6")
    assert status == 0, errors
    content = read_json(Path("outputs/corpus.json"))
    size = content["languages"]["en"]["train"]["num_texts"]
    first = content["duplicates"][0]
    assert first["label_conflict"] and first["similarity"] == 1
    assert (first["a"]["row"], first["b"]["row"]) == (1, size - 3)
    across = [
        (pair["a"]["row"], pair["b"]["row"])
        for pair in content["duplicates"]
        if pair["a"]["split"] != pair["b"]["split"]
    ]
    assert {(size - 2, 1), (size - 1, 2)} <= set(across)
    assert content["leakage"]["en"] > 1.9 / 24 and content["leakage"]["fr"] == 0
    assert {1, 2} <= set(content["leaking"]["en"]["rows"])
    problems = content["languages"]["en"]["train"]["problems"]
    assert size in problems["replacement"]["rows"] and size in problems["markup"]["rows"]
    registers = content["languages"]["fr"]["train"]["registers"]
    assert sum(own["num_texts"] for own in registers.values()) == content["languages"]["fr"]["train"]["num_texts"] == 50
    assert all(own["tokens"][2] <= own["max_length"] == 64 for own in registers.values())
    assert content["doubtful"] and set(content["doubtful"][0]) == {
        *("language", "split", "row", "given", "likely", "probability", "probability_of_given")
    }
    assert re.search(r"twins: \d+ pairs \(.*between training and test.*1 with different labels", output)
    assert "U+FFFD" in output and "under 10 test texts: en" in output
    assert not Path("outputs/corpus-report.html").read_text().count(HOSTILE)


def test_the_same_twice(soiled, invoke):
    made = []
    for folder in ("a", "b"):
        assert invoke(check_corpus, "--corpus_path", soiled, "--output_dir", folder)[0] == 0
        content = read_json(Path(f"{folder}/corpus.json"))
        content.pop("created")
        made.append(content)
    assert made[0] == made[1]


def test_pruned_rows_are_left_out_of_training(inputs, invoke):
    status, output, _ = invoke(check_corpus, "--langs", "en", "fr", "--prune", "0.1")
    rows = read_jsonl(Path("outputs/excluded.jsonl"))
    # A tenth of those that are judged.
    expected = round(0.1 * num_judged(inputs.corpus, ("en", "fr"), ("train",)))
    assert status == 0 and f"excluded.jsonl ({expected};" in output
    assert len(rows) == expected > 5 and {row["split"] for row in rows} == {"train"}
    named = next(row for row in rows if row["language"] == "en")
    text = [row for _, row in read_rows(inputs.corpus / "corpus" / "train" / "en.tsv")][named["row"] - 1][1]
    assert named["hash"] == f"{text_hash(text):016x}"
    command = [*TRAINED, *FAST, "--mix", "all"]
    status, output, errors = invoke(finetune, *command, "--exclude", "outputs/excluded.jsonl")
    assert status == 0, errors
    record = read_json(Path("outputs/tiny-en-fr/run.json"))
    counts = sum(record["train_registers"].values()) + sum(record["validation_registers"].values())
    assert counts == 110 - len(rows)
    assert record["data"]["files"][-1]["excluded"] == len(rows)
    assert (
        f"{len(rows)} rows that the last of them names were left out" in Path("models/tiny-en-fr/README.md").read_text()
    )
    # Without the list it is another run.
    status, output, errors = invoke(finetune, *command)
    assert status == 2 and "the data files have changed" in errors
    status, _, errors = invoke(
        finetune,
        "--model_name",
        "tfidf",
        "--train_langs",
        "en-fr",
        "--mix",
        "all",
        "--exclude",
        "outputs/excluded.jsonl",
    )
    assert status == 0, errors
    assert read_json(Path("outputs/tfidf-en-fr/train.json"))["num_train_texts"] + sum(
        read_json(Path("outputs/tfidf-en-fr/run.json"))["validation_registers"].values()
    ) == 110 - len(rows)


def test_a_list_is_never_used_for_other_texts(inputs, invoke):
    wrong = {"language": "en", "split": "train", "row": 3, "hash": "0" * 16}
    lines = {
        "{": r"list\.jsonl, line 1: expected",
        json.dumps(wrong): "line 1: row 3 of en has another text; the corpus has changed",
        json.dumps(wrong | {"row": 3000}): "line 1: en has 60 training texts, not 3,000",
        json.dumps(wrong | {"split": "test"}): "line 1: expected",
        json.dumps(wrong | {"row": 0}): "line 1: expected",
    }
    for line, message in lines.items():
        Path("list.jsonl").write_text(f"{line}\n")
        status, _, errors = invoke(finetune, *TRAINED, *FAST, "--exclude", "list.jsonl")
        assert status == 2 and re.search(message, errors), errors
        assert not (inputs.folder / "models" / "tiny-en-fr" / "config.json").exists()
    status, _, errors = invoke(finetune, *TRAINED, "--exclude", "nowhere.jsonl")
    assert status == 2 and "--exclude nowhere.jsonl" in errors


def test_leakage_is_noted_by_training_and_evaluation(soiled, invoke):
    corpus = ["--corpus_path", soiled]
    # All texts of both languages, so that those that leak are among them.
    status, _, errors = invoke(finetune, *TRAINED, *FAST, *corpus, "--mix", "all")
    assert status == 0 and "warning: 4.2% of the test texts of en are among the training texts" in errors, errors
    record = read_json(Path("outputs/tiny-en-fr/run.json"))
    assert record["leakage"] == {"en": pytest.approx(1 / 24, abs=1e-5), "fr": 0}
    status, output, _ = invoke(evaluate, *TRAINED, *corpus, "--eval_langs", "en", "fr", "es")
    assert status == 0 and "en: warning: 4.2% of the test texts" in output and "fr: warning: 0" not in output
    for lang, share in (("en", 1 / 24), ("fr", 0), ("es", 0)):
        assert read_json(Path(f"outputs/tiny-en-fr/eval/{lang}.json"))["leakage"] == pytest.approx(share)
    status, _, errors = invoke(finetune, "--model_name", "tfidf", "--train_langs", "en", *corpus)
    assert status == 0, errors
    assert read_json(Path("outputs/tfidf-en/eval/en.json"))["leakage"] == pytest.approx(1 / 24)


def test_label_sets(tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    folder = write_label_sets(tmp_path / "corpus")
    status, _, errors = invoke(check_corpus, "--corpus_path", folder)
    assert status == 0, errors
    content = read_json(Path("outputs/corpus.json"))
    counts = content["languages"]["en"]["train"]["registers"]
    assert counts["IN"]["num_texts"] == 100 and counts["dt"]["num_texts"] == 20
    assert "labels_judged_by" in content and content["num_judged"] == 2 * 288


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--langs", "xx"], "language 'xx' has no test file"),
        (["--submit"], "--submit is for --with_model"),
        (["--near", "0.1"], "near"),
        (["--folds", "1"], "folds"),
        (["--folds", "101"], "folds"),
        (["--prune", "1"], "prune"),
        (["--subfolder", "x"], "--subfolder is for --with_model"),
        (["--status"], "--with_model"),
        (["--gpus", "2"], "--gpus is for --submit"),
        (["--num_workers", "0"], "num_workers"),
        (["--model_name", "nowhere"], "nowhere"),
        (["--corpus_path", "nowhere"], "nowhere does not exist"),
        (["--with_model", "tiny-en"], "no trained model"),
    ],
)
def test_mistakes(inputs, invoke, arguments, message):
    status, _, errors = invoke(check_corpus, *arguments)
    assert status == 2 and message in errors, errors
    assert not (inputs.folder / "outputs" / "corpus.json").exists()


def test_random_words_hold_no_twins(tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    generator = random.Random(1)
    folder = write_label_sets(tmp_path / "corpus", langs=("en",), sizes=(9, 0))
    words = [f"w{number}" for number in range(200)]
    write_tsv(
        folder / "corpus" / "train" / "en.tsv", [("OP", " ".join(generator.choices(words, k=60))) for _ in range(4)]
    )
    (folder / "corpus" / "test" / "en.tsv").unlink()
    status, output, errors = invoke(check_corpus, "--corpus_path", folder)
    assert status == 0 and "twins: 0 pairs\ntest texts with a twin in training: none" in output
    assert "en: too few texts to judge their labels" in errors
    page = Path("outputs/corpus-report.html").read_text()
    assert "There are no test texts" in page and "too few texts to judge them" in page


def test_a_trained_model_judges(inputs, invoke):
    command = [*TRAINED, *FAST, "--subfolder", "own"]
    assert invoke(finetune, *command)[0] == 0
    judged = ["--with_model", "tiny-en-fr", "--subfolder", "own", "--folds", "2"]
    status, output, errors = invoke(check_corpus, *judged)
    assert status == 0, errors
    assert "es: the model was not trained on it" in errors and "by tiny-en-fr" in output
    content = read_json(Path("outputs/corpus.json"))
    assert content["num_judged"] == num_judged(inputs.corpus, ("en", "fr")) > 100 and content["folds"] == 2
    parts = []
    for number in range(2):
        folder = Path(f"outputs/own/folds/2-42/{number}/tiny-en-fr")
        record = read_json(folder / "run.json")
        # The model's own options, on other texts.
        assert record["options"]["num_epochs"] == 2 and record["options"]["learning_rate"] == 1e-3
        corpus = Path(record["data"]["corpus"]) / "corpus"
        train, test = ([row[1] for _, row in read_rows(corpus / split / "en.tsv")] for split in ("train", "test"))
        assert not set(train) & set(test)
        parts.append(test)
    own = [row[1] for split in ("train", "test") for _, row in read_rows(inputs.corpus / "corpus" / split / "en.tsv")]
    assert sorted(parts[0] + parts[1]) == sorted(own)
    # What is there is not trained again.
    before = Path("outputs/own/folds/2-42/0/tiny-en-fr/run.json").stat().st_mtime_ns
    assert invoke(check_corpus, *judged)[0] == 0
    assert Path("outputs/own/folds/2-42/0/tiny-en-fr/run.json").stat().st_mtime_ns == before
    assert read_json(Path("outputs/corpus.json"))["doubtful"] == content["doubtful"]
    invoke(finetune, "--model_name", "tfidf", "--train_langs", "en")
    status, _, errors = invoke(check_corpus, "--with_model", "tfidf-en")
    assert status == 2 and "is a baseline" in errors
