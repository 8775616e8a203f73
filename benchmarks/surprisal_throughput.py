"""How fast finetune_lm.py computes surprisals and trains, beside a bare loop of PyTorch and minicons.

    python benchmarks/surprisal_throughput.py
    python benchmarks/surprisal_throughput.py --model_name_or_path gpt2 --texts sentences.txt.gz --rounds 5

All variants run in one process, in turn, on the same texts in the same batches. The bare loop tokenizes, pads, runs the
model and keeps a number for each token; finetune_lm.py writes its whole tables; minicons returns lists of tokens and
their surprisals. In training the bare loop takes the model's own loss and steps; finetune_lm.py has its Trainer with
all that it keeps of the losses. Without --model_name_or_path, a small causal model with random weights is made.
"""

import argparse
import gzip
import importlib.util
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.build import make_texts
from demo.language_models import build_lm
from utils.cli.progress import progress
from utils.data.lm_examples import TextExamples
from utils.data.text_files import open_text_file
from utils.evaluation.surprisal import CHUNK, write_test_results
from utils.evaluation.token_table import TokenTable
from utils.models.registry import ModelSpec
from utils.runs.layout import LmLayout
from utils.runs.stop import StopFlag
from utils.training import lm_setup
from utils.training.lm_losses import OutputsDefaultLoss
from utils.training.lm_options import FinetuneLmOptions

BATCH = 32
DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}


class Bench:
    """A model, its tokenizer and texts.

    Args:
        options: of this script.
        folder: for what is made.
    """

    def __init__(self, options: argparse.Namespace, folder: Path):
        texts = [" ".join(text.split()[:12]) for _, text in make_texts("en", options.num_texts, random.Random(0))]
        if options.texts:
            with gzip.open(options.texts, "rt", encoding="utf-8") as file:
                texts = file.read().splitlines()[: options.num_texts]
        self.texts, self.folder, self.precision = texts, folder, options.precision
        (folder / "texts.txt.gz").write_bytes(gzip.compress("\n".join(texts).encode()))
        self.file = open_text_file(folder / "texts.txt.gz")
        path = Path(options.model_name_or_path or build_lm("gpt2", texts, folder / "gpt2"))
        name = str(folder / "texts.txt.gz")
        self.options = FinetuneLmOptions(
            model_name_or_path=str(path), train_file=name, validation_file=name, epochs=2, seed=1,
            max_validation_samples=BATCH, metrics_every="none", use_gpu=options.use_gpu,
            train_optimizer=torch.optim.AdamW,
            loss_classes={"train": [OutputsDefaultLoss], "validation": [OutputsDefaultLoss]},
            loss_reduction_fns=dict.fromkeys(("train", "validation"), torch.sum),
            data_preprocessing_fn={}, precision=options.train_precision,
        )  # fmt: skip
        folders = dict.fromkeys(("model", "config", "tokenizer"), path)
        self.loaded = lm_setup.load(self.options, folders, ModelSpec("model", str(path)))
        self.max_length = self.loaded.max_length(self.options)
        if self.loaded.task == "seq2seq":
            raise SystemExit("causal and masked models alone are compared")

    @property
    def model(self) -> torch.nn.Module:
        """In evaluation."""
        return self.loaded.model

    def prepare_test(self) -> None:
        """Put the model into the format of the test."""
        self.model.to(self.loaded.device, DTYPES[self.precision]).eval()

    def batches(self, shuffle: bool = False) -> list[list[list[int]]]:
        """Tokenize the texts and return their ids in batches: of similar length as finetune_lm.py, or at random."""
        tokenizer = self.loaded.tokenizer
        ids = tokenizer(self.texts, truncation=True, max_length=self.max_length)["input_ids"]
        if self.loaded.task == "lm":
            ids = [[tokenizer.bos_token_id or tokenizer.eos_token_id, *row][: self.max_length] for row in ids]
        if shuffle:
            random.Random(0).shuffle(ids)
            return [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
        found = []
        for chunk in range(0, len(ids), CHUNK):
            rows = sorted(ids[chunk : chunk + CHUNK], key=len, reverse=True)
            found += [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        return found

    def padded(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        """Return a batch as tensors."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return {"input_ids": ids.to(self.loaded.device), "attention_mask": mask.to(self.loaded.device)}

    def test_bare(self) -> int:
        """Compute the surprisal of every token in a loop; returns their number."""
        kept: list[list[float]] = []
        is_causal = self.loaded.task == "lm"
        for rows in self.batches():
            inputs = self.padded(rows)
            with torch.inference_mode():
                scores = self.model(**inputs).logits.log_softmax(-1)
            shift = int(is_causal)
            ids = inputs["input_ids"][:, shift:, None]
            found = scores[:, : scores.shape[1] - shift].gather(2, ids)[..., 0].tolist()
            kept += [values[: len(row) - shift] for values, row in zip(found, rows, strict=True)]
        return sum(map(len, kept))

    def test_here(self) -> int:
        """Write the tables of finetune_lm.py; returns the number of rows."""
        tokenizer, task = self.loaded.tokenizer, self.loaded.task

        def make(file: Any, part: Any, first: int) -> TextExamples:
            return TextExamples(file.name, part, tokenizer, task, self.max_length, first_item=first)

        with progress(total=len(self.texts), desc="testing", unit="example", disable=True) as bar:
            count, _ = write_test_results(
                self.folder / "results.csv.gz", self.folder / "sentences.csv.gz", [self.file], make, self.model,
                TokenTable(tokenizer, task), BATCH, max_examples=None, keep_parts=None, progress=bar,
            )  # fmt: skip
        return count

    def test_minicons(self) -> int:
        """Score the texts with minicons, shortest first; returns the number of tokens."""
        from minicons import scorer

        tokenizer = self.loaded.tokenizer
        # What version 5 of transformers has under another name.
        tokenizer.batch_encode_plus = tokenizer
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        one = scorer.IncrementalLMScorer(self.model, str(self.loaded.device), tokenizer=tokenizer)
        texts = sorted(self.texts, key=len)
        found: list[Any] = []
        for start in range(0, len(texts), BATCH):
            found += one.token_score(texts[start : start + BATCH], surprisal=True, base_two=True, bos_token=True)
        return sum(map(len, found))

    def train_bare(self) -> float:
        """Train on all texts in a loop, the second time; returns the seconds."""
        model = self.model.float().to(self.loaded.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
        formats = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.options.precision)
        seconds = 0.0
        for _ in range(2):
            began = time.perf_counter()
            for rows in self.batches(shuffle=True):
                inputs = self.padded(rows)
                labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
                with torch.autocast(self.loaded.device.type, formats, enabled=formats is not None):
                    loss = model(**inputs, labels=labels).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            loss.item()
            seconds = time.perf_counter() - began
        return seconds

    def train_here(self) -> float:
        """Train on all texts as finetune_lm.py does; returns the seconds of the second epoch."""
        self.options.train_optimizer_kwargs = {"lr": 1e-6}
        self.model.float()
        stop = StopFlag(self.folder / "handover", lambda: None)
        points = LmLayout(self.folder / "run", "model", None).points("benchmark")
        trainer = lm_setup.make_trainer(self.options, self.loaded, points, stop, copy_model=True)
        trainer.train()
        return trainer.history.epochs[-1]["seconds"]


def compare(title: str, count: int, variants: dict[str, Callable[[], float]], rounds: int) -> None:
    """Run variants in turn; print medians, and how fast each is beside the first."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            seconds[name].append(run())
    first = statistics.median(next(iter(seconds.values())))
    print(title)
    for name, values in seconds.items():
        middle = statistics.median(values)
        spread = f"{min(values):.2f}-{max(values):.2f} s"
        print(f"  {name:10} {middle:8.2f} s ({spread})  {count / middle:10,.0f} tokens/s  {first / middle:5.2f} x bare")


def timed(run: Callable[[], int]) -> float:
    """Return the seconds that a run takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Print a table for the test and one for training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", help="folder of a causal or masked model; without it one is made")
    parser.add_argument("--texts", help="a .txt.gz file; without it the beginnings of the demo's")
    parser.add_argument("--num_texts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=tuple(DTYPES), default="fp64", help="of the test")
    parser.add_argument("--train_precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--use_gpu", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        model = bench.model
        count = int(np.sum([len(row) for rows in bench.batches() for row in rows]))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(
            f"{bench.loaded.device}, {torch.get_num_threads()} threads; {bench.loaded.task}, {parameters:,} parameters"
        )
        bench.prepare_test()
        tests = {"bare": bench.test_bare, "here": bench.test_here}
        if bench.loaded.task == "lm" and importlib.util.find_spec("minicons"):
            tests["minicons"] = bench.test_minicons
        found = {name: (lambda run=run: timed(run)) for name, run in tests.items()}
        compare(
            f"test in {options.precision}: {len(bench.texts):,} texts, {count:,} tokens", count, found, options.rounds
        )
        trainings = {"bare": bench.train_bare, "here": bench.train_here}
        compare(f"training in {options.train_precision}", count, trainings, options.rounds)


if __name__ == "__main__":
    main()
