"""What the token-masking functions cost, as a share of the training step that they prepare.

    python benchmarks/masking_cost.py
    python benchmarks/masking_cost.py --texts combined_fillers.txt.gz --layers 6 --width 384

Batches of 32 examples, models with random weights: BERT for the functions that mask, T5 for those that make
spans. Each function runs on every batch before the step that trains on what it returns, in one process; the
median of both over all batches is compared.
"""

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.build import make_texts
from demo.language_models import bert_tokenizer, t5_tokenizer
from utils.data import masking
from utils.data.lm_examples import TextExamples
from utils.data.text_files import read_text_file

BATCH = 32
FUNCTIONS = {
    "bert": {
        "identity": {},
        "remove_non_mask_tokens_from_labels": {},
        "mask_random_tokens": {},
        "mask_word_tokens": {"word_tokens_to_mask": []},
        "mask_words": {"words_to_mask": []},
        "expand_with_masks": {},
    },
    "t5": {"mask_random_spans": {}, "mask_truerandom_spans": {}},
}


def build_model(kind: str, size: int, layers: int, width: int) -> torch.nn.Module:
    """Return a model with random weights."""
    heads = max(1, width // 64)
    if kind == "bert":
        return BertForMaskedLM(
            BertConfig(
                vocab_size=size,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * width,
            )
        )
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=size,
            d_model=width,
            d_kv=64,
            d_ff=4 * width,
            num_layers=layers,
            num_heads=heads,
            decoder_start_token_id=0,
        )
    )


def measure(model: torch.nn.Module, data: TextExamples, function, kwargs: dict, tokenizer) -> tuple[float, float]:
    """Return the median seconds of the function and of the step, over all whole batches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    masked, trained = [], []
    for start in range(0, len(data) - BATCH + 1, BATCH):
        inputs = data.batch(list(range(start, start + BATCH))).inputs
        began = time.perf_counter()
        inputs = function(inputs, tokenizer, **kwargs)
        masked.append(time.perf_counter() - began)
        inputs.pop("expanded_lengths", None)
        began = time.perf_counter()
        model(**{name: value[: 4 * BATCH] for name, value in inputs.items()}).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        trained.append(
            (time.perf_counter() - began) * len(inputs["input_ids"]) / min(len(inputs["input_ids"]), 4 * BATCH)
        )
    return statistics.median(masked[1:]), statistics.median(trained[1:])


def main() -> None:
    """Print a line per function."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", help="a .txt.gz file; without it the demo's texts")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--batches", type=int, default=8)
    options = parser.parse_args()
    count = BATCH * options.batches
    if options.texts:
        examples = read_text_file(options.texts)
        examples = examples.shuffle(seed=0).select(range(min(count, len(examples))))
    else:
        import datasets

        texts = [text for _, text in make_texts("en", count, random.Random(0))]
        examples = datasets.Dataset.from_dict({"text": texts, "metadata": ["{}"] * len(texts)})
    tokenizers = {"bert": bert_tokenizer, "t5": t5_tokenizer}
    words = sorted({word for text in examples["text"][:200] for word in text.split() if word.isalpha()})[:8]
    torch.manual_seed(0)
    print(
        f"{torch.get_num_threads()} threads, {options.layers} layers of width {options.width}, {BATCH} examples a batch"
    )
    for kind, functions in FUNCTIONS.items():
        tokenizer = tokenizers[kind](examples["text"][:])
        task = "mlm" if kind == "bert" else "seq2seq"
        data = TextExamples("texts", examples, tokenizer, task, 128, strategy="per_batch", function=keep)
        model = build_model(kind, len(tokenizer), options.layers, options.width)
        print(f"{kind}: {data.lengths.mean():.0f} tokens an example")
        for name, kwargs in functions.items():
            singles = [word for word in words if len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1]
            filled = {key: singles if "tokens" in key else words for key in kwargs}
            seconds, step = measure(model, data, getattr(masking, name), filled, tokenizer)
            print(
                f"  {name:35} {1000 * seconds:7.2f} ms, step {1000 * step:8.1f} ms: {seconds / step:6.2%}", flush=True
            )


def keep(inputs: masking.Inputs, tokenizer: object) -> masking.Inputs:
    """Leave the batch to the function that is measured."""
    return inputs


if __name__ == "__main__":
    main()
