"""Every benchmark runs, on tiny inputs; what they measure is for the machines that they are run on."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.factories import PROJECT

TINY = {
    "finetune_throughput": [
        *("--langs", "en", "fr", "--rounds", "1", "--train_steps", "2", "--batch_size", "8", "--eval_texts", "72"),
        *("--max_length", "64", "--json", "speed.json", "--figure", "speed.png", "--profile", "--variants"),
        *(f"train/{name}" for name in ("trainer_expert", "trainer_expert_own_dropout", "packed", "packed_own_dropout")),
        *("evaluate/trainer_expert", "evaluate/packed"),
    ],
    "predict_throughput": [
        *("--langs", "en", "fr", "--texts", "60", "--sets", "long", "--json", "speed.json"),
        *("--variants", "loop", "predict"),
    ],
    "masking_cost": ["--layers", "1", "--width", "64", "--batches", "2"],
    "figures": ["--train_sets", "1", "--eval_langs", "2"],
    "surprisal_throughput": ["--num_texts", "40", "--rounds", "1"],
    "duplicates": ["--num_texts", "200", "--peer_texts", "200"],
}
SAYS = {
    "finetune_throughput": (
        r"train/packed +\d+\.\d\d +[\d,]+ +0\.0% +\d+\.\d\dGB +\d+\.\ds +\d+\.\d% +\d+\.\d\d +\d+\.\d\d-\d+\.\d\d\n"
    ),
    "predict_throughput": r"long: 60 texts\n(?:  \w+ +\d+\.\d s +\d+\.\d\d texts/s +\d+\.\d\d x the loop\n){2}",
    "masking_cost": r"mask_random_spans +\d+\.\d\d ms, step +\d+\.\d ms: +\d+\.\d\d%",
    "duplicates": r"200 texts, 10 of them copies; [5-9] pairs of twins found\n.*\n.*texts/s\nsearch of the same",
    "surprisal_throughput": (
        r"test in fp64: 40 texts, (.+) tokens\n  bare .*\n  here .* x bare\n  minicons .* x bare\n"
        r"(?:epoch .*\n)+training in fp32\n  bare .*\n  here .* x bare\n"
    ),
    "figures": r"3 models with 3 panels each.*\n1 processor +\d+\.\d s\n",
}


def test_there_is_a_run_of_every_benchmark():
    assert {path.stem for path in (PROJECT / "benchmarks").glob("*.py")} == set(TINY)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_the_benchmark_runs_and_reports(inputs, name):
    needs_model = name in ("finetune_throughput", "predict_throughput")
    model = ["--checkpoint", str(inputs.registry.parent / "tiny-xlmr")] if needs_model else []
    output = run(inputs, name, *TINY[name], *model)
    assert re.search(SAYS[name], output), output
    if name == "finetune_throughput":
        check_figures(inputs.folder)
        assert "_TextAttentionBackward" in output, "where the time goes"


def run(inputs, name, *arguments):
    done = subprocess.run(
        [sys.executable, PROJECT / "benchmarks" / f"{name}.py", *arguments],
        cwd=inputs.folder,
        env=os.environ | inputs.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_figures(folder):
    """What finetune_throughput.py writes for others to read."""
    figures = json.loads((folder / "speed.json").read_text())
    train = ("trainer_expert", "trainer_expert_own_dropout")
    assert set(figures["train"]) == {*train, "packed", "packed_own_dropout"}
    assert set(figures["evaluate"]) == {"trainer_expert", "packed"}
    wanted = {"texts_per_second", "tokens_per_second", "padding", "peak_memory_bytes", "ratio_to_expert"}
    for task, variants in figures.items():
        for variant, row in variants.items():
            assert wanted <= set(row), f"{task}/{variant}"
            assert row["tokens_per_second"] > row["texts_per_second"] > 0
            assert (row["padding"] == 0) is (variant in ("packed", "packed_own_dropout"))
        assert variants["trainer_expert"]["ratio_to_expert"] == 1
    # Against the expert's Trainer with the same dropout.
    own = figures["train"]["packed_own_dropout"], figures["train"]["trainer_expert_own_dropout"]
    assert own[0]["ratio_to_expert"] == pytest.approx(own[0]["tokens_per_second"] / own[1]["tokens_per_second"])
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")
