"""Measure how long the figures and the report of 42 models with 20 panels each take.

    python benchmarks/figures.py

Writes results of imagined models (3 models x 14 training sets, 19 evaluation languages), runs post_eval.py on them
with one processor and with all, and prints the seconds of both and their ratio.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.evaluation.labelling import OneLabel
from utils.evaluation.results import write_evaluation
from utils.runs.files import write_json
from utils.runs.layout import RunLayout

PROJECT = Path(__file__).resolve().parent.parent
MODELS = ("mbert", "xlmr", "glot500")
LANGS = [
    *("al", "ar", "ca", "de", "en", "es", "fa", "fi", "fr", "hi"),
    *("id", "jp", "no", "pt", "ru", "sv", "tr", "ur", "zh"),
]
TRAIN_LANGS = [*LANGS[:12], "en-fr", "al-ar-ca-de"]
REGISTERS = ["IN", "OP", "RN", "JN", "HI", "LY", "ND", "AD"]
NUM_TEXTS = 2_000


def write_results(folder: Path, train_sets: list[str], langs: list[str]) -> None:
    """Write the results of all models, as finetune.py and evaluate.py do.

    Args:
        folder: where to.
        train_sets: what each model is trained on.
        langs: evaluation languages.
    """
    generator = np.random.default_rng(1)
    counts = dict.fromkeys(REGISTERS, 1000)
    for model in MODELS:
        for train_langs in train_sets:
            layout = RunLayout(model, train_langs, output_dir=str(folder))
            for lang in langs:
                labels = generator.integers(0, len(REGISTERS), NUM_TEXTS)
                probabilities = generator.dirichlet(np.ones(len(REGISTERS)), NUM_TEXTS)
                probabilities[np.arange(NUM_TEXTS), labels] += 0.2
                write_evaluation(
                    layout,
                    lang,
                    labels,
                    probabilities / 1.2,
                    labelling=OneLabel(REGISTERS),
                    seconds=1.0,
                    seed=1,
                    task=None,
                    data={},
                    computed={"number_format": "fp32", "device": "cpu"},
                )
            write_json(
                layout.run_json,
                {"status": "complete", "train_registers": counts, "validation_registers": counts},
            )


def measure(folder: Path, processors: set[int]) -> float:
    """Return the seconds of post_eval.py with these processors; all figures are drawn anew."""
    for figure in folder.rglob("*.png"):
        figure.unlink()
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, str(PROJECT / "post_eval.py"), "--base_dir", str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_sets", type=int, default=len(TRAIN_LANGS), help="training sets of each model")
    parser.add_argument("--eval_langs", type=int, default=len(LANGS), help="evaluation languages")
    options = parser.parse_args()
    train_sets, langs = TRAIN_LANGS[: options.train_sets], LANGS[: options.eval_langs]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_results(folder, train_sets, langs)
        processors = os.sched_getaffinity(0)
        one, many = measure(folder, {min(processors)}), measure(folder, processors)
        size = (folder / "report.html").stat().st_size
    print(f"{len(MODELS) * len(train_sets)} models with {len(langs) + 1} panels each, train-vs-eval matrices, report")
    print(f"1 processor   {one:6.1f} s\n{len(processors)} processors  {many:6.1f} s ({one / many:.1f} x)")
    print(f"report.html   {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
