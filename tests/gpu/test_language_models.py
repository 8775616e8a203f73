"""finetune_lm.py on a GPU: packed training in half precision, surprisals in single precision."""

import json
import shutil
from pathlib import Path

import pytest

import finetune_lm
from tests.factories import TRAIN, only_folder, rows_of

RATES = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout_prob", "attention_probs_dropout_prob")


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_surprisals_are_those_of_the_cpu(here, invoke, kind):
    found = {}
    for name, options in {"cpu": [], "gpu": ["--use_gpu"]}.items():
        arguments = ["--model_name_or_path", kind, "--test_file", "test.txt.gz", "--output_dir", name, *options]
        if kind != "gpt2":
            arguments += ["--pll", "within_word_l2r"]
        status, _, err = invoke(finetune_lm, *arguments)
        assert status == 0, err
        folder = here / name / "test_only" / kind
        record = json.loads((folder / "run.json").read_text())
        assert record["test_precision"] == {"cpu": "fp64", "gpu": "fp32"}[name]
        found[name] = [float(row["surprisal_bits"]) for row in rows_of(folder / f"{kind}-test_results.csv.gz")]
    assert found["gpu"] == pytest.approx(found["cpu"], abs=2e-2)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_packed_training_in_half_precision(here, invoke, kind):
    shutil.copytree(kind, "dry")
    config = json.loads(Path("dry/config.json").read_text())
    Path("dry/config.json").write_text(json.dumps(config | dict.fromkeys(RATES, 0.0)))
    losses = []
    for precision, word in (("fp32", "padded (packs are computed in bf16"), ("bf16", "packed without padding")):
        arguments = ["--model_name_or_path", "dry", *TRAIN, "--epochs", "3", "--use_gpu", "--precision", precision]
        status, out, err = invoke(finetune_lm, *arguments, "--output_dir", precision)
        assert status == 0 and f"training batches: {word}" in out, (out, err)
        (folder,) = (here / precision / "train" / "dry").glob("2*")
        losses.append([epoch["validation_loss"] for epoch in json.loads((folder / "train.json").read_text())["epochs"]])
    assert losses[1] == pytest.approx(losses[0], rel=2e-2) and losses[1][2] < losses[1][0]


def test_studies_and_resume_points_on_a_gpu(here, invoke):
    arguments = ["--model_name_or_path", "gpt2", *TRAIN, "--epochs", "1", "--use_gpu", "--do_optimize"]
    status, out, err = invoke(finetune_lm, *arguments, "--params.lr.values", "1e-4", "1e-3")
    assert status == 0 and "2 complete" in out, err
    assert only_folder(here).joinpath("optimization_plots.pdf").is_file()
