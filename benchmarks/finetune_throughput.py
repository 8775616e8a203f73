"""Measure training and evaluation speed against the earlier loop and against the plain Trainer, in one run.

    CORPUS_PATH=../register-corpus python benchmarks/finetune_throughput.py

The variants take turns, each in a process of its own, on the same texts (sv and fr, a sample with the
lengths of the whole) and the same model (6 layers of width 384 with random weights, max_length 512):

    earlier          everything padded to 512 tokens, fp32 on the CPU, plain PyTorch loop, evaluation batches of 64
    trainer          the Trainer with its default arguments
    ours             this project with the model's own dropout
    ours, attn 0     this project with --attention_dropout 0

Prints texts per second (median over rounds), padding fraction, peak memory and ratios; on a GPU also the
fraction of its peak that model FLOPs, padding not counted, make up.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.cli.options import CommonOptions, option
from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.data.corpus_load import DEFAULT_CORPUS, open_corpus

VARIANTS = {
    "train": ["earlier", "trainer", "ours", "ours, attn 0"],
    "evaluate": ["earlier", "trainer", "ours"],
}
MAX_LENGTH = 512
# Dense bf16 peaks in FLOP/s, from NVIDIA's data sheets.
GPU_PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L40S": 362e12, "A40": 150e12, "RTX 4090": 165e12}


@dataclass(kw_only=True)
class BenchmarkOptions(CommonOptions):
    """The options of the benchmark."""

    langs: list[str] | None = option(None, "languages of the texts; without it sv and fr", metavar="LANG")
    rounds: int = option(3, "how often every variant runs", minimum=1)
    train_steps: int = option(6, "training steps of 16 texts per run", minimum=1)
    eval_texts: int = option(192, "texts evaluated per run", minimum=64)
    layers: int = option(6, "layers of the model", minimum=1)
    hidden_size: int = option(384, "width of the model; a head is 32 wide", minimum=32)
    corpus_path: str = option(DEFAULT_CORPUS, "folder of the register corpus", env="CORPUS_PATH", metavar="DIR")
    run_variant: str | None = option(None, "internal: run one variant and print its figures as JSON")
    folder: str | None = option(None, "internal: where the model and the tokenized texts are")


def main() -> None:
    """Prepare once, run the variants in turn, print the table."""
    options = parse_options(BenchmarkOptions, __doc__)
    if options.run_variant:
        print(json.dumps(run_variant(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(options, Path(folder))
        figures: dict[str, list[dict[str, Any]]] = {}
        for turn in range(options.rounds):
            for task, variants in VARIANTS.items():
                for variant in variants:
                    name = f"{task}/{variant}"
                    figures.setdefault(name, []).append(measure(name, folder))
                    print(f"round {turn + 1}: {name}: {figures[name][-1]['rate']:.2f} texts/s", file=sys.stderr)
        report(figures)


def measure(name: str, folder: str) -> dict[str, Any]:
    """Run one variant in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--run_variant", name, "--folder", folder]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(output.stdout.splitlines()[-1])


def prepare(options: BenchmarkOptions, folder: Path) -> None:
    """Build the model and its tokenizer, tokenize the corpus, choose the texts."""
    import datasets
    import numpy as np

    from demo.build import build_model
    from utils.data.tokenization import load_tokenizer, tokenize

    corpus = open_corpus(options.corpus_path)
    texts = datasets.concatenate_datasets([corpus.load("train", lang) for lang in options.langs or ["sv", "fr"]])
    build_model(
        folder / "model", [text[:5000] for text in texts["text"][:]], vocabulary=32_000,
        hidden_size=options.hidden_size, layers=options.layers, heads=options.hidden_size // 32,
    )  # fmt: skip
    tokens = tokenize(texts, load_tokenizer(folder / "model"), MAX_LENGTH, folder / "cache")
    lengths = np.array(tokens["length"][:])
    # A sample with the lengths of the whole: even steps through the sorted lengths, then shuffled.
    generator = np.random.default_rng(0)
    order = np.argsort(lengths, kind="stable")
    for task, count in (("train", 16 * options.train_steps), ("evaluate", options.eval_texts)):
        spaced = order[((np.arange(count) + 0.5) / count * len(order)).astype(int)]
        tokens.select(generator.permutation(spaced)).save_to_disk(folder / task)
    print(
        f"{len(texts):,} texts, {lengths.mean():.0f} tokens on average, "
        f"{np.mean(lengths == MAX_LENGTH):.0%} reach {MAX_LENGTH}"
    )


def run_variant(options: BenchmarkOptions) -> dict[str, Any]:
    """Run one variant; returns texts per second, padding fraction, peak memory and FLOPs."""
    import datasets
    import numpy as np
    import torch
    from transformers import set_seed

    from utils.data.tokenization import load_tokenizer
    from utils.models import device as machine
    from utils.models.loading import build_classifier

    task, variant = options.run_variant.split("/")
    folder = Path(options.folder)
    dataset = datasets.load_from_disk(str(folder / task))
    tokenizer = load_tokenizer(folder / "model")
    device = machine.choose_device()
    ours = variant.startswith("ours")
    if ours:
        machine.keep_freed_memory()
    set_seed(0)
    labels = list(open_corpus(options.corpus_path).registers)
    model = build_classifier(folder / "model", labels, 0.0 if variant == "ours, attn 0" else None).to(device)
    functions = {"earlier": earlier, "trainer": plain_trainer, "ours": this_project}
    function = functions[variant.split(",")[0]]
    with tempfile.TemporaryDirectory() as scratch:
        seconds, padding = function(task, model, dataset, tokenizer, device, scratch)
    lengths = np.array(dataset["length"][:])
    body = sum(p.numel() for name, p in model.named_parameters() if "embedding" not in name)
    width, layers = model.config.hidden_size, model.config.num_hidden_layers
    # 2 FLOPs per weight and token, attention scores and values; the backward pass costs twice the forward pass.
    flops = float((2 * body * lengths + 4 * layers * width * lengths.astype(float) ** 2).sum())
    return {
        "rate": len(dataset) / seconds,
        "padding": padding,
        "memory": machine.peak_memory_bytes(device),
        "flops": flops * (3 if task == "train" else 1) / seconds,
        "precision": machine.choose_precision("auto") if ours else "default",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else machine.describe_device(device),
    }


def earlier(task: str, model: Any, dataset: Any, tokenizer: Any, device: Any, scratch: str) -> tuple[float, float]:
    """The loop of the earlier scripts: everything padded to 512, no grouping."""
    import torch
    from torch.utils.data import DataLoader

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = tokenizer.pad(
            {"input_ids": [row["input_ids"] for row in rows]},
            padding="max_length",
            max_length=MAX_LENGTH,
            return_tensors="pt",
        )
        return {**batch, "labels": torch.tensor([row["label"] for row in rows])}

    training = task == "train"
    loader = DataLoader(dataset, batch_size=16 if training else 64, shuffle=training, collate_fn=collate)
    padding = 1 - sum(dataset["length"][:]) / (MAX_LENGTH * len(dataset))
    on_gpu = device.type == "cuda"
    started = time.monotonic()
    if training:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
        scaler = torch.amp.GradScaler(enabled=on_gpu)
        for batch in loader:
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            optimizer.zero_grad()
            with torch.autocast(device.type, enabled=on_gpu):
                outputs = model(**batch)
                loss = torch.nn.functional.cross_entropy(outputs.logits, batch["labels"])
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    else:
        model.eval()
        for batch in loader:
            with torch.no_grad():
                model(**{name: tensor.to(device) for name, tensor in batch.items()}).logits.argmax(-1).cpu()
    _wait(device)
    return time.monotonic() - started, padding


def plain_trainer(
    task: str, model: Any, dataset: Any, tokenizer: Any, device: Any, scratch: str
) -> tuple[float, float]:
    """The Trainer with default arguments, but the same batch size in training."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    arguments = TrainingArguments(
        scratch, num_train_epochs=1, per_device_train_batch_size=16, save_strategy="no", disable_tqdm=True
    )
    dataset = dataset.rename_column("label", "labels").select_columns(["input_ids", "labels"])
    padded: list[tuple[int, int]] = []
    collator = DataCollatorWithPadding(tokenizer)

    def collate(rows: list[dict[str, Any]]) -> Any:
        batch = collator(rows)
        padded.append((batch["attention_mask"].numel(), int(batch["attention_mask"].sum())))
        return batch

    trainer = Trainer(model, arguments, train_dataset=dataset, eval_dataset=dataset, data_collator=collate)
    started = time.monotonic()
    trainer.train() if task == "train" else trainer.predict(dataset)
    _wait(device)
    seconds = time.monotonic() - started
    return seconds, 1 - sum(tokens for _, tokens in padded) / sum(size for size, _ in padded)


def this_project(task: str, model: Any, dataset: Any, tokenizer: Any, device: Any, scratch: str) -> tuple[float, float]:
    """What finetune.py and evaluate.py do."""
    import numpy as np

    from utils.data.batching import make_collator, padding_fraction, token_budget_batches
    from utils.evaluation.inference import default_token_budget, predict_logits
    from utils.models.attention import use_cpu_dropout
    from utils.models.device import choose_precision
    from utils.runs.resume_points import ResumePoints
    from utils.runs.stop import StopFlag
    from utils.training.classifier_losses import ClassificationLoss
    from utils.training.classifier_trainer import ClassifierTrainer
    from utils.training.options import TrainingOptions, training_arguments

    precision = choose_precision("auto")
    collator = make_collator(tokenizer, device)
    lengths = np.array(dataset["length"][:])
    if task == "evaluate":
        started = time.monotonic()
        predict_logits(model, dataset, collator, device, precision=precision)
        seconds = time.monotonic() - started
        return seconds, padding_fraction(lengths, token_budget_batches(lengths, default_token_budget(device)))
    arguments = training_arguments(
        TrainingOptions(), Path(scratch), "benchmark", batch_size=16, num_epochs=1, precision=precision
    )
    arguments.set_evaluate("no")
    arguments.set_save("no")
    arguments.load_best_model_at_end = False
    if device.type == "cpu":
        use_cpu_dropout(model)
    trainer = ClassifierTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        compute_loss_func=ClassificationLoss(),
        lengths=lengths,
        num_cut=0,
        group_by_length=True,
        precision=precision,
        token_budget=None,
        points=ResumePoints(Path(scratch) / "points", "benchmark"),
        stop=StopFlag(Path(scratch) / "handover", lambda: None),
        record=None,
    )
    started = time.monotonic()
    trainer.train()
    _wait(device)
    return time.monotonic() - started, trainer.padding_fraction()


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def report(figures: dict[str, list[dict[str, Any]]]) -> None:
    """Print the table and the ratios, round by round, of which the median counts."""
    one = next(iter(figures.values()))[0]
    print(f"device: {one['device']}")
    peak = next((peak for name, peak in GPU_PEAKS.items() if name in one["device"]), None)
    print(
        f"{'variant':24} {'texts/s':>8} {'padding':>8} {'memory':>8} {'x earlier':>10} {'x trainer':>10} {'of peak':>8}"
    )
    for name, rounds in figures.items():
        task = name.split("/")[0]
        ratios = [
            statistics.median(a["rate"] / b["rate"] for a, b in zip(rounds, figures[f"{task}/{other}"], strict=True))
            for other in ("earlier", "trainer")
        ]
        share = f"{statistics.median(r['flops'] for r in rounds) / peak:.1%}" if peak else "-"
        print(
            f"{name:24} {statistics.median(r['rate'] for r in rounds):8.2f} {rounds[0]['padding']:8.1%} "
            f"{max(r['memory'] for r in rounds) / 2**30:6.2f}GB {ratios[0]:10.2f} {ratios[1]:10.2f} {share:>8}"
        )
    print(f"precision of this project: {figures['train/ours'][0]['precision']}")


if __name__ == "__main__":
    run_script(main)
