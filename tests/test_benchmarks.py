"""Every benchmark runs, on tiny inputs; what they measure is for the machines that they are run on."""

import os
import re
import subprocess
import sys

import pytest

from tests.factories import PROJECT

TINY = {
    "finetune_throughput": [
        *("--langs", "en", "fr", "--rounds", "1", "--train_steps", "1", "--eval_texts", "64"),
        *("--layers", "1", "--hidden_size", "32"),
    ],
    "masking_cost": ["--layers", "1", "--width", "64", "--batches", "2"],
    "figures": ["--train_sets", "1", "--eval_langs", "2"],
}
SAYS = {
    "finetune_throughput": r"train/ours, attn 0 +\d+\.\d\d +\d+\.\d% +\d+\.\d\dGB +\d+\.\d\d +\d+\.\d\d",
    "masking_cost": r"mask_random_spans +\d+\.\d\d ms, step +\d+\.\d ms: +\d+\.\d\d%",
    "figures": r"3 models with 3 panels each.*\n1 processor +\d+\.\d s\n",
}


def test_there_is_a_run_of_every_benchmark():
    assert {path.stem for path in (PROJECT / "benchmarks").glob("*.py")} == set(TINY)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_the_benchmark_runs_and_reports(inputs, name):
    done = subprocess.run(
        [sys.executable, PROJECT / "benchmarks" / f"{name}.py", *TINY[name]],
        cwd=inputs.folder,
        env=os.environ | inputs.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(SAYS[name], done.stdout), done.stdout
