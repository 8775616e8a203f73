"""Flipped labels of real texts are found, and a model without them is better: AG News."""

import csv
import json
import os
import random
from pathlib import Path

import pytest

import check_corpus
import finetune
from tests.factories import skip
from tests.labels import read_jsonl
from utils.runs.files import read_json

pytestmark = pytest.mark.slow

NAMES = ["World", "Sports", "Business", "SciTech"]
NUM_TEXTS = {"train": 3000, "test": 1000}


def test_flipped_labels_of_ag_news(tmp_path, monkeypatch, invoke):
    source = os.environ.get("AG_NEWS_PATH")
    if not source:
        skip("AG_NEWS_PATH does not name a folder with AG News")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus" / "info").mkdir(parents=True)
    (tmp_path / "corpus" / "info" / "reg_abbv.json").write_text(json.dumps({name: name for name in NAMES}))
    (tmp_path / "corpus" / "info" / "lang2name.json").write_text("{}")
    generator, flipped = random.Random(1), set()
    for split, count in NUM_TEXTS.items():
        with (Path(source) / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row[0].isdigit()]
        generator.shuffle(rows)
        path = tmp_path / "corpus" / "corpus" / split / "en.tsv"
        path.parent.mkdir(parents=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            for number, (label, title, text) in enumerate(rows[:count], 1):
                name = NAMES[int(label) - 1]
                if split == "train" and generator.random() < 0.1:
                    name = generator.choice([other for other in NAMES if other != name])
                    flipped.add(number)
                writer.writerow([name, f"{title} {text}"])
    monkeypatch.setenv("CORPUS_PATH", str(tmp_path / "corpus"))
    status, _, errors = invoke(check_corpus, "--prune", "0.1")
    assert status == 0, errors
    found = {row["row"] for row in read_jsonl(Path("outputs/excluded.jsonl"))}
    assert len(found) == 300
    assert len(found & flipped) >= 0.7 * min(len(found), len(flipped))
    accuracy = {}
    for name, more in {"all": [], "pruned": ["--exclude", "outputs/excluded.jsonl"]}.items():
        command = ["--model_name", "tfidf", "--train_langs", "en", "--subfolder", name, *more]
        status, _, errors = invoke(finetune, *command)
        assert status == 0, errors
        accuracy[name] = read_json(Path(f"outputs/{name}/tfidf-en/eval/en.json"))["accuracy"]
    assert accuracy["pruned"] > accuracy["all"]
