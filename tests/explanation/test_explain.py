"""explain.py from the command line: a planted keyword is found, explanations are tested, the report shows them."""

import csv
import json
import random
from pathlib import Path

import pytest

import explain
import finetune
import post_eval
from tests.factories import write_label_sets
from utils.runs.files import read_json

pytestmark = pytest.mark.slow

# What gives a register away, in texts of words that say nothing; of the last register there is nothing else.
PLANTED = {"A": "zebra", "B": "Quartz", "=C": "fjord", "D": None}
NEUTRAL = [f"{a}{b}" for a in ("ba", "de", "ki", "lo", "mu") for b in ("ra", "ne", "ti", "so", "pu")]
# A pretrained model knows its mask; this one learns in training that it says nothing.
MASKED = 0.4
TRAIN = ["--learning_rate", "2e-3", "--num_epochs", "40", "--attention_dropout", "0", "--batch_size", "8"]
TRAIN += ["--precision", "fp32"]
NAMED = ["--model_name", "tiny", "--train_langs", "en"]


def write_planted(folder):
    (folder / "info").mkdir(parents=True)
    (folder / "info" / "reg_abbv.json").write_text(json.dumps({name: name for name in PLANTED}))
    (folder / "info" / "lang2name.json").write_text('{"en": "english"}')
    for split, size in (("train", 240), ("test", 64)):
        generator = random.Random(split)
        path = folder / "corpus" / split / "en.tsv"
        path.parent.mkdir(parents=True)
        with path.open("w", newline="") as file:
            for number in range(size):
                label = list(PLANTED)[number % 4]
                words = ["<mask>" if generator.random() < MASKED else word for word in generator.choices(NEUTRAL, k=11)]
                words.append(PLANTED[label] or generator.choice(NEUTRAL))
                generator.shuffle(words)
                csv.writer(file, delimiter="\t", lineterminator="\n").writerow([label, " ".join(words)])
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Two seeds of a model of a corpus whose registers have a word each, evaluated."""
    from demo.build import build_model
    from tests.processes import finish, start

    folder = tmp_path_factory.mktemp("planted")
    corpus = write_planted(folder / "corpus")
    words = [*NEUTRAL, *filter(None, PLANTED.values())]
    texts = [" ".join(random.Random(number).choices(words, k=30)) for number in range(60)]
    build_model(folder / "tiny-xlmr", texts, vocabulary=200, hidden_size=32)
    (folder / "models.json").write_text(json.dumps({"tiny": {"checkpoint": "./tiny-xlmr", "max_length": 64}}))
    environment = {"CORPUS_PATH": str(corpus), "MODEL_REGISTRY": str(folder / "models.json")}
    for seed in ("1", "2"):
        own = ["--seed", seed, "--subfolder", f"seed{seed}"]
        finish(start("finetune.py", *NAMED, *TRAIN, *own, cwd=folder, **environment))
        named = [*NAMED, "--subfolder", f"seed{seed}", "--eval_langs", "en"]
        finish(start("evaluate.py", *named, cwd=folder, **environment))
    return folder, environment


@pytest.fixture
def here(planted, tmp_path, monkeypatch):
    import shutil

    folder, environment = planted
    for name in ("models", "outputs"):
        shutil.copytree(folder / name, tmp_path / name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_planted_keywords_are_found_and_carry_the_predictions(here, invoke, method):
    command = [*NAMED, "--subfolder", "seed1", "--langs", "en", "--num_texts", "48", "--method", method]
    status, output, errors = invoke(explain, *command)
    assert status == 0, errors
    assert "en: faithful: deleting the highest 10 %" in output and "NOT FAITHFUL" not in output
    folder = Path("outputs/seed1/tiny-en/explanations")
    content = read_json(folder / "en.json")
    assert content["num_texts"] == 48 and content["num_incomplete"] == 0 and "texts" not in content
    test = content["faithfulness"]
    assert test["comprehensiveness"] > 0.2 > test["random_comprehensiveness"] + 0.1
    assert test["sufficiency"] < test["random_sufficiency"]
    evaluated = read_json(Path("outputs/seed1/tiny-en/eval/en.json"))
    assert evaluated["accuracy"] > 0.8
    first = {}
    for row in content["keywords"]:
        assert row["word"] in row["example"].lower()
        first.setdefault(row["register"], row)
    for register, word in {"A": "zebra", "B": "quartz", "=C": "fjord"}.items():
        assert (
            first[register]["word"] == word
            and first[register]["document_frequency"] == first[register]["num_texts"] >= 5
        )
    # A spreadsheet takes it for text.
    assert "en,'=C,fjord," in (folder / "keywords.csv").read_text()
    assert {"keywords-A.png", "keywords-B.png", "keywords-_C.png"} <= {path.name for path in folder.glob("*.png")}


def test_seeds_and_texts(here, invoke):
    command = [*NAMED, "--subfolder", "seed1", "--langs", "en", "--num_texts", "24", "--seeds", "--show_texts"]
    status, output, errors = invoke(explain, *command)
    assert status == 0, errors
    assert "outputs/seed2/tiny-en" in output
    content = read_json(Path("outputs/seed1/tiny-en/explanations/en.json"))
    assert content["runs"] == ["outputs/seed1/tiny-en", "outputs/seed2/tiny-en"]
    assert len(content["faithfulness_of_runs"]) == 2 and len(content["texts"]) == 24
    rows = content["keywords"]
    assert {row["num_runs"] for row in rows} == {2}
    assert rows[0]["stability"] == 1
    text = content["texts"][0]
    whole = "".join(gap + word for gap, word, _ in text["words"])
    assert len(whole.split()) == 12
    wrong = [entry["predicted"] != entry["true"] for entry in content["texts"]]
    assert wrong == sorted(wrong, reverse=True)


def test_the_same_twice(here, invoke):
    made = []
    for _ in range(2):
        assert invoke(explain, *NAMED, "--subfolder", "seed1", "--langs", "en", "--num_texts", "9")[0] == 0
        made.append(Path("outputs/seed1/tiny-en/explanations/keywords.csv").read_text())
    assert made[0] == made[1]


def test_label_sets(tmp_path, monkeypatch, invoke, small):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORPUS_PATH", str(write_label_sets(tmp_path / "corpus", langs=("en",))))
    monkeypatch.setenv("MODEL_REGISTRY", str(small / "model2chckpt.json"))
    assert invoke(finetune, *NAMED, *TRAIN)[0] == 0
    status, _, errors = invoke(explain, *NAMED, "--langs", "en", "--num_texts", "12", "--show_texts")
    assert status == 0, errors
    content = read_json(Path("outputs/tiny-en/explanations/en.json"))
    assert content["num_explanations"] > content["num_texts"] == 12
    assert any(" " in text["true"] for text in content["texts"])


def test_languages_that_were_explained_before_stay_in_the_table(here, invoke):
    folder = Path("outputs/seed1/tiny-en/explanations")
    assert invoke(explain, *NAMED, "--subfolder", "seed1", "--langs", "en", "--num_texts", "40")[0] == 0
    (folder / "en.json").rename(folder / "fr.json")
    assert invoke(explain, *NAMED, "--subfolder", "seed1", "--langs", "en", "--num_texts", "40")[0] == 0
    table = (folder / "keywords.csv").read_text()
    assert "\nen,A,zebra," in table and "\nfr,A,zebra," in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--langs", "en", "--subfolder", "nowhere"], "no trained model"),
        (["--langs", "xx", "--subfolder", "seed1"], "xx failed: language 'xx' has no test file"),
        (["--langs", "en", "--subfolder", "seed1", "--method", "occlusion", "--steps", "9"], "--steps"),
    ],
)
def test_mistakes(here, invoke, arguments, message):
    status, _, errors = invoke(explain, *NAMED, *arguments)
    assert status in (1, 2) and message in errors, errors
    assert not list(here.rglob("explanations/*.json"))


def test_the_report_shows_keywords_and_texts(here, invoke):
    command = [*NAMED, "--subfolder", "seed1", "--langs", "en", "--num_texts", "40", "--show_texts"]
    assert invoke(explain, *command)[0] == 0
    status, _, errors = invoke(post_eval, "--subfolder", "seed1", "--show_texts")
    assert status == 0, errors
    page = Path("outputs/seed1/report.html").read_text()
    assert "zebra" in page and '"words":[' in page
    assert invoke(post_eval, "--subfolder", "seed1")[0] == 0
    page = Path("outputs/seed1/report.html").read_text()
    assert "zebra" in page and '"words":[' not in page
