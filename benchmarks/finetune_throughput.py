"""Measure training and evaluation speed against the earlier loop and against the Trainer as an expert sets it.

    CORPUS_PATH=../register-corpus python benchmarks/finetune_throughput.py --json throughput.json --figure speed.png

The variants take turns, each in a process of its own, on the same real texts (sv and fr, a sample with the lengths of
the whole, at most 512 tokens) and the same model with real weights (multilingual-e5-small; --checkpoint takes another):

    earlier             everything padded to 512 tokens, fp32 on the CPU, plain PyTorch loop, evaluation batches of 64
    trainer             the Trainer with its default arguments
    trainer_expert      batches grouped by length, bf16 where the machine computes in it, the fused AdamW; evaluation
                        sorted by length, in bf16
    packed              this project: no padding
    int8                evaluation by this project with --precision int8, on CPUs
    length, random      this project with --train_sampling length or random

All train without dropout of attention weights but earlier, trainer and the two whose names end in own_dropout, which
keep the model's own. Where a machine has no bf16, nothing is computed in it. Texts per second are tokens per second by
the mean length of the sample's texts; the first step of every run is not counted, but its time is shown, with the
model's loading in it and without the imports, which are the same for all. The ratio to the expert's Trainer is that of
two runs of one round, with the same dropout; the table shows the median and the range over rounds.
"""

import contextlib
import io
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

from utils.cli.options import CommonOptions, option
from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.data.corpus_load import DEFAULT_CORPUS, open_corpus
from utils.errors import UserError, nearest
from utils.runs.files import atomic_path, write_json

PROJECT = Path(__file__).resolve().parent.parent
OWN_DROPOUT = ("earlier", "trainer", "trainer_expert_own_dropout", "packed_own_dropout")
OURS = ("packed", "packed_own_dropout", "length", "random", "int8")
# Dense bf16 peaks in FLOP/s, from NVIDIA's data sheets.
GPU_PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L40S": 362e12, "A40": 150e12, "RTX 4090": 165e12}


@dataclass(kw_only=True)
class BenchmarkOptions(CommonOptions):
    """The options of the benchmark."""

    checkpoint: str | None = option(None, "folder of a model; without it e5-small, built in demo/build", metavar="DIR")
    langs: list[str] | None = option(None, "languages of the texts; without it sv and fr", metavar="LANG")
    rounds: int = option(3, "how often every variant runs", minimum=1)
    train_steps: int = option(7, "training steps per run", minimum=2)
    batch_size: int = option(16, "texts of a training step", minimum=1)
    eval_texts: int = option(192, "texts evaluated per run", minimum=65)
    max_length: int = option(512, "tokens that texts are cut to", minimum=4)
    variants: list[str] | None = option(
        None, "measure these alone, as train/packed; ratios need train/trainer_expert", metavar="TASK/VARIANT"
    )
    corpus_path: str = option(DEFAULT_CORPUS, "folder of the register corpus", env="CORPUS_PATH", metavar="DIR")
    json: str | None = option(None, "write all figures to this file", metavar="FILE")
    figure: str | None = option(None, "draw texts per second into this PNG file", metavar="FILE")
    profile: bool = option(False, "also print where the time of this project's variants goes")


def main() -> None:
    """Prepare once, run the variants in turn, print the table."""
    # The server of processes looks for what it imports in advance on no other path than its own.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])

    options = parse_options(BenchmarkOptions, __doc__)
    names = choose_variants(options.variants)
    with tempfile.TemporaryDirectory() as folder:
        mean_length = prepare(options, Path(folder))
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for turn in range(options.rounds):
            for name, figures in rounds.items():
                profile = options.profile and turn == options.rounds - 1 and name.partition("/")[2] in OURS
                figures.append(in_its_own_process(measure, options, name, Path(folder), profile))
                figures[-1]["texts_per_second"] = figures[-1]["tokens_per_second"] / mean_length
                print(f"round {turn + 1}: {name}: {figures[-1]['texts_per_second']:.2f} texts/s", file=sys.stderr)
    summary = summarize(rounds)
    report(rounds, summary)
    print(f"imports before the first step: {import_seconds():.1f} s")
    if options.json:
        write_json(Path(options.json), summary)
        print(f"figures of all variants   {options.json}")
    if options.figure:
        draw(summary, Path(options.figure))
        print(f"figure                    {options.figure}")


def choose_variants(given: list[str] | None) -> list[str]:
    """Return the names of what is to be measured, each a task and a variant.

    Raises:
        UserError: for a name that is not known.
    """
    from benchmarks.throughput.variants import VARIANTS
    from utils.models.device import choose_device

    known = [f"{task}/{variant}" for task, variants in VARIANTS.items() for variant in variants]
    for name in given or []:
        if name not in known:
            raise UserError(f"--variants: unknown variant {name!r}{nearest(name, known)}; known are {', '.join(known)}")
    return given or [name for name in known if name != "evaluate/int8" or choose_device().type == "cpu"]


def in_its_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a new process, in which nothing was done but importing the libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.throughput.variants"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def import_seconds() -> float:
    """Return how long a new process takes to import the libraries."""
    started = time.monotonic()
    command = [sys.executable, "-c", "import benchmarks.throughput.variants"]
    subprocess.run(command, check=True)
    return time.monotonic() - started


def checkpoint(options: BenchmarkOptions) -> Path:
    """Return the folder of the model."""
    if options.checkpoint:
        return Path(options.checkpoint)
    from demo.e5 import checkpoint as e5

    folder = PROJECT / "demo" / "build"
    folder.mkdir(parents=True, exist_ok=True)
    return e5(folder)


def prepare(options: BenchmarkOptions, folder: Path) -> float:
    """Tokenize the corpus, choose the texts; returns the mean length of those that are trained on."""
    import datasets
    import numpy as np

    from utils.data.tokenization import load_tokenizer, tokenize

    corpus = open_corpus(options.corpus_path)
    texts = datasets.concatenate_datasets([corpus.load("train", lang) for lang in options.langs or ["sv", "fr"]])
    tokens = tokenize(texts, load_tokenizer(checkpoint(options)), options.max_length, folder / "cache")
    lengths = np.array(tokens["length"][:])
    # A sample with the lengths of the whole: even steps through the sorted lengths, then shuffled.
    generator = np.random.default_rng(0)
    order = np.argsort(lengths, kind="stable")
    for task, count in (("train", options.batch_size * options.train_steps), ("evaluate", options.eval_texts)):
        spaced = order[((np.arange(count) + 0.5) / count * len(order)).astype(int)]
        tokens.select(generator.permutation(spaced)).save_to_disk(folder / task)
    tokens.select(grouped(lengths, options)).save_to_disk(folder / "train_grouped")
    print(
        f"{len(texts):,} texts, {lengths.mean():.0f} tokens on average, "
        f"{np.mean(lengths == options.max_length):.0%} reach {options.max_length}"
    )
    return float(lengths.mean())


def grouped(lengths: Any, options: BenchmarkOptions) -> Any:
    """Return row numbers of steps as transformers groups all texts by length: evenly drawn from short to long ones.

    Among the few texts of a run there would be nothing to group.
    """
    import numpy as np
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    seed = torch.Generator().manual_seed(0)
    order = np.array(list(LengthGroupedSampler(options.batch_size, lengths=lengths.tolist(), generator=seed)))
    steps = order[: len(order) // options.batch_size * options.batch_size].reshape(-1, options.batch_size)
    steps = steps[np.argsort(lengths[steps].mean(axis=1), kind="stable")]
    spaced = ((np.arange(options.train_steps) + 0.5) / options.train_steps * len(steps)).astype(int)
    # The first step, which is not counted, is one of the middle.
    middle = options.train_steps // 2
    return steps[[spaced[middle], *np.delete(spaced, middle)]].reshape(-1)


def measure(options: BenchmarkOptions, name: str, folder: Path, profile: bool) -> dict[str, Any]:
    """Run one variant; returns its figures."""
    started = time.time()
    import datasets
    import torch
    from transformers import set_seed

    from benchmarks.throughput.meter import Meter, matmul_peak
    from benchmarks.throughput.variants import Setting, run
    from utils.data.tokenization import load_tokenizer
    from utils.models import device as machine
    from utils.models.loading import build_classifier, load_config

    task, _, variant = name.partition("/")
    device = machine.choose_device()
    precision = machine.choose_precision("auto", load_config(checkpoint(options)))
    set_seed(0)
    labels = list(open_corpus(options.corpus_path).registers)
    model = build_classifier(checkpoint(options), labels, None if variant in OWN_DROPOUT else 0.0).to(device)
    meter = Meter.of(model, device)
    part = "train_grouped" if task == "train" and variant.startswith("trainer_expert") else task
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(
            model=model,
            tokenizer=load_tokenizer(checkpoint(options)),
            dataset=datasets.load_from_disk(str(folder / part)),
            batch_size=options.batch_size,
            max_length=options.max_length,
            precision=precision,
            device=device,
            scratch=Path(scratch),
            meter=meter,
        )
        with (
            contextlib.redirect_stdout(io.StringIO()),
            torch.profiler.profile() if profile else contextlib.nullcontext() as profiler,
        ):
            run(task, variant, setting)
        if profile:
            print(f"{task}/{variant}", flush=True)
            for place in ("cpu", "device") if device.type == "cuda" else ("cpu",):
                print(profiler.key_averages().table(f"self_{place}_time_total", row_limit=18), flush=True)
    memory = machine.peak_memory_bytes(device)
    on_gpu = device.type == "cuda"
    machine_name = torch.cuda.get_device_name() if on_gpu else machine.describe_device(device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    peak = next((peak for known, peak in GPU_PEAKS.items() if known in machine_name), None)
    return {
        **meter.figures(started, task == "train"),
        "peak_memory_bytes": memory,
        "precision": precision,
        "device": machine_name,
        "matmul_flops_per_second": peak or matmul_peak(dtype, device),
    }


def summarize(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the medians over rounds, by task and variant, and the ratios to the expert's Trainer of the same round."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for name, figures in rounds.items():
        task, _, variant = name.partition("/")
        expert = "trainer_expert_own_dropout" if task == "train" and variant in OWN_DROPOUT else "trainer_expert"
        row = {
            key: statistics.median(one[key] for one in figures)
            for key, value in figures[0].items()
            if isinstance(value, (int, float))
        }
        others = rounds.get(f"{task}/{expert}")
        if others:
            ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(figures, others, strict=True)]
            row |= {
                "ratio_to_expert": statistics.median(ratios),
                "ratio_to_expert_low": min(ratios),
                "ratio_to_expert_high": max(ratios),
            }
        summary.setdefault(task, {})[variant] = row
    return summary


def report(rounds: dict[str, list[dict[str, Any]]], summary: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the table."""
    one = next(iter(rounds.values()))[0]
    peak = statistics.median(figure["matmul_flops_per_second"] for figures in rounds.values() for figure in figures)
    print(f"{one['device']}; {one['precision']}; product of large matrices: {peak / 1e9:,.0f} GFLOP/s")
    print(
        f"{'variant':33} {'texts/s':>8} {'tokens/s':>9} {'padding':>8} {'memory':>8} {'first step':>10} {'of peak':>8} "
        f"{'x expert':>9}  range"
    )
    for task, variants in summary.items():
        for variant, row in variants.items():
            ratio = (
                f"{row['ratio_to_expert']:9.2f}  {row['ratio_to_expert_low']:.2f}-{row['ratio_to_expert_high']:.2f}"
                if "ratio_to_expert" in row
                else ""
            )
            print(
                f"{task + '/' + variant:33} {row['texts_per_second']:8.2f} {row['tokens_per_second']:9,.0f} "
                f"{row['padding']:8.1%} {row['peak_memory_bytes'] / 2**30:6.2f}GB {row['first_step_seconds']:9.1f}s "
                f"{row['flops_per_second'] / peak:8.1%} {ratio}"
            )


def draw(summary: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Draw texts per second of all variants, training and evaluation side by side."""
    from utils.figures.style import LINE_COLORS, new_figure

    figure = new_figure(9.0, 0.5 + 0.34 * max(map(len, summary.values())))
    for index, (task, variants) in enumerate(summary.items()):
        axes = figure.add_subplot(1, len(summary), index + 1)
        values = [row["texts_per_second"] for row in variants.values()]
        colors = [LINE_COLORS[3 if name in OURS else 2] for name in variants]
        bars = axes.barh(list(variants), values, color=colors)
        notes = [f"{row['texts_per_second']:.1f}" for row in variants.values()]
        axes.bar_label(bars, notes, padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.15 * max(values))
        axes.set_xlabel("texts per second")
        axes.set_title({"train": "training", "evaluate": "evaluation"}.get(task, task))
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


if __name__ == "__main__":
    run_script(main)
