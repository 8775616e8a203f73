"""How fast predict.py labels real texts, beside what others use: a pipeline, and a loop over sorted batches.

    CORPUS_PATH=../register-corpus python benchmarks/predict_throughput.py
    python benchmarks/predict_throughput.py --texts 600 --rounds 1 --variants predict loop --json speed.json

Every program reads a .jsonl.zst file and writes one with the probabilities of all labels, in a process of its own, from
its start to its end:

    pipeline   transformers' pipeline("text-classification"), batches of 32
    loop       what web corpora are labelled with: texts sorted by characters, batches of 64, padded, bf16 where the
               processor has it
    predict    predict.py as it is
    int8       predict.py --precision int8, on CPUs
    model      the model alone, of the same texts when these are tokens already: what the others cannot be faster than

Two sets of texts: `mixed`, half of which are cut to a few words, and `long`, most of which reach 512 tokens. The
weights are those of multilingual-e5-small, with a head of random ones.
"""

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PROJECT = Path(__file__).resolve().parent.parent
LABELS = ("IN", "OP", "RN", "JN", "HI", "LY", "ND", "AD")
VARIANTS = ("pipeline", "loop", "predict", "int8", "model")
SETS = ("mixed", "long")
# Characters of a text that most probably reaches 512 tokens.
LONG = 2500


def main() -> int:
    """Run the variants by turns and print what they took."""
    options = parse_arguments()
    if options.peer:
        return PEERS[options.peer](options)
    with tempfile.TemporaryDirectory() as folder:
        model = build_model(Path(folder), options.checkpoint)
        results = {}
        for name in options.sets:
            file = write_texts(Path(folder) / name / "texts.jsonl.zst", name, options)
            results[name] = measure(model, file, options)
    for name, seconds in results.items():
        show(name, seconds, options.texts)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=3000, help="texts of each set")
    parser.add_argument("--rounds", type=int, default=1, help="how often each variant runs")
    parser.add_argument("--langs", nargs="+", default=["sv", "fr"], help="languages of the register corpus")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--checkpoint", help="folder of another model than multilingual-e5-small")
    parser.add_argument("--json", help="also write the seconds to this file")
    parser.add_argument("--peer", choices=list(PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--input", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    return parser.parse_args()


def build_model(folder: Path, checkpoint: str | None) -> Path:
    """Write a classifier with real weights and a head of random ones; returns its folder."""
    import torch
    from transformers import AutoTokenizer

    from demo.e5 import checkpoint as e5
    from utils.models.loading import build_classifier

    source = Path(checkpoint) if checkpoint else e5(PROJECT / "demo" / "build")
    torch.manual_seed(0)
    build_classifier(source, list(LABELS)).save_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.model_max_length = min(512, tokenizer.model_max_length)
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def write_texts(path: Path, name: str, options: argparse.Namespace) -> Path:
    """Write one set of texts; returns the file."""
    import zstandard

    from utils.data.corpus_load import open_corpus

    corpus = open_corpus(os.environ.get("CORPUS_PATH", "../register-corpus"))
    found = [text for x in options.langs for _, text in corpus.rows("train", x)]
    generator = random.Random(0)
    generator.shuffle(found)
    if name == "long":
        found.sort(key=lambda text: len(text) < LONG)
    found = [found[index % len(found)] for index in range(options.texts)]
    if name == "mixed":
        found[::2] = [" ".join(text.split()[: generator.randint(3, 30)]) for text in found[::2]]
    generator.shuffle(found)
    path.parent.mkdir()
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in found)
    path.write_bytes(zstandard.compress(lines.encode()))
    return path


def measure(model: Path, file: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of every variant and round."""
    seconds: dict[str, list[float]] = {name: [] for name in options.variants}
    for number in range(options.rounds):
        for name in options.variants:
            output = file.parent / f"{name}-{number}"
            own = ["--precision", "int8"] if name == "int8" else []
            predict = [str(PROJECT / "predict.py"), "--model", str(model), "--input", str(file), *own]
            peer = [__file__, "--peer", name, "--model", str(model), "--input", str(file), "--output", str(output)]
            command = [*predict, "--output_dir", str(output)] if name in ("predict", "int8") else peer
            began = time.perf_counter()
            done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
            taken = time.perf_counter() - began
            # The model alone is timed by itself, without imports and tokens.
            seconds[name].append(float(done.stdout.split()[-1]) if name == "model" else taken)
            print(f"{file.parent.name} {name}: {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    return seconds


def show(name: str, seconds: dict[str, list[float]], texts: int) -> None:
    """Print a table: seconds, texts per second, and how often as fast as the loop."""
    print(f"{name}: {texts:,} texts")
    middle = {variant: statistics.median(values) for variant, values in seconds.items()}
    for variant, value in middle.items():
        ratio = f"{middle['loop'] / value:6.2f}" if "loop" in middle else "     -"
        print(f"  {variant:10} {value:8.1f} s {texts / value:9.2f} texts/s {ratio} x the loop")


def read_texts(path: str) -> Iterator[str]:
    """Yield the texts of a file, as the loops of others do."""
    import zstandard

    with Path(path).open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
            yield json.loads(line)["text"]


def write_labels(path: str, rows: list[dict[str, float]]) -> None:
    """Write a line for each text."""
    import zstandard

    with Path(path).open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as target:
        for row in rows:
            target.write((json.dumps({"web-register": row}) + "\n").encode())


def run_pipeline(options: argparse.Namespace) -> int:
    """A program around transformers' pipeline."""
    from transformers import pipeline

    classify = pipeline("text-classification", options.model, top_k=None, batch_size=32)
    rows = [
        {row["label"]: round(row["score"], 4) for row in found}
        for found in classify(read_texts(options.input), truncation=True, max_length=512)
    ]
    write_labels(options.output, rows)
    return 0


def run_loop(options: argparse.Namespace) -> int:
    """A loop over batches of texts that are sorted by their characters."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from utils.models.device import choose_precision

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model)
    if torch.cuda.is_available():
        model = model.cuda()
    if choose_precision("auto", model.config) == "bf16":
        model = model.to(torch.bfloat16)
    model.eval()
    texts = list(read_texts(options.input))
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True)
    rows: list[dict[str, float]] = [{}] * len(texts)
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        batch = [texts[index] for index in chosen]
        inputs = tokenizer(batch, padding=True, truncation=True, max_length=512, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            shares = model(**inputs).logits.float().softmax(-1).tolist()
        for index, values in zip(chosen, shares, strict=True):
            rows[index] = {name: round(x, 4) for name, x in zip(LABELS, values, strict=True)}
    write_labels(options.output, rows)
    return 0


def run_model(options: argparse.Namespace) -> int:
    """The model of predict.py alone, and how many seconds it computes."""
    from utils.data.tokenization import encode
    from utils.evaluation.inference import Classifier
    from utils.prediction.options import ROWS_PER_PART

    classifier = Classifier(Path(options.model), "auto")
    tokens, _ = encode(list(read_texts(options.input)), classifier.tokenizer, classifier.max_length)
    classifier.logits_of(tokens[:32], None)
    began = time.perf_counter()
    for start in range(0, len(tokens), ROWS_PER_PART):
        classifier.logits_of(tokens[start : start + ROWS_PER_PART], None)
    print(time.perf_counter() - began)
    return 0


PEERS = {"pipeline": run_pipeline, "loop": run_loop, "model": run_model}

if __name__ == "__main__":
    sys.exit(main())
