import json
from pathlib import Path

import pytest

import evaluate
import post_eval
from tests.factories import TRAINED
from utils.evaluation.checklist import write_checklist

pytestmark = pytest.mark.slow


def test_what_the_records_say(model, invoke):
    assert invoke(evaluate, *TRAINED, "--eval_langs", "en", "fr")[0] == 0
    status, output, errors = invoke(post_eval, "--checklist")
    assert status == 0, errors
    assert "outputs/checklist.md" in output
    text = Path("outputs/checklist.md").read_text()
    record = json.loads(Path("outputs/tiny-en-fr/run.json").read_text())
    report = json.loads(Path("outputs/tiny-en-fr/train.json").read_text())
    train, validation = (sum(record[f"{part}_registers"].values()) for part in ("train", "validation"))
    assert f"| tiny-en-fr | {train} | {validation} | en 24, fr 24 |" in text
    assert f"| {report['num_parameters']:,} | {report['num_trainable_parameters']:,} | not recorded |" in text
    assert "`learning_rate` 0.001" in text and "`batch_size` 8" in text and "lora_r" not in text
    assert f"| torch | {record['versions']['torch']} |" in text and "| 1 | 42 |" in text
    assert f"(SHA-256 begins): en.tsv ({record['data']['files'][0]['sha256'][:12]})" in text
    assert "License of the texts: not recorded" in text and "Search: not recorded" in text
    assert "Test texts that are in training too: none." in text
    # Hours times power, and nothing else.
    seconds = report["seconds"] + sum(
        json.loads(Path(f"outputs/tiny-en-fr/eval/{lang}.json").read_text())["seconds"] for lang in ("en", "fr")
    )
    assert f"| {seconds / 3600:.3g} | " in text


def test_hostile_names_and_no_runs(tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    status, _, errors = invoke(post_eval, "--checklist")
    assert status == 2 and "no complete runs below outputs" in errors
    folder = tmp_path / "outputs" / "a|b-en"
    folder.mkdir()
    content = {
        "status": "complete", "options": {"model_name": "<b>|x", "train_langs": "en"}, "seed": 1, "data": {"files": []},
        "versions": {"torch": "2"}, "train_registers": {"A": 3}, "validation_registers": {"A": 1},
        "device": "NVIDIA H100",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(content))
    text = write_checklist(tmp_path / "outputs", lambda options: [])
    assert "\\<b\\>\\|x" in text and "a\\|b-en" in text and "0 kWh" in text
