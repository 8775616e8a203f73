"""Builds two small nanoGPT checkpoints with their tokenizers, of texts and of phonemes in Russian and Polish.

    python -m demo.nanogpt demo/checkpoints

They are trained for some seconds on the sentences of demo/sentiment, so that there is something to try the commands
with that read nanoGPT checkpoints; config/ipa-models.json names them.
"""

import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from utils.data.delimited import read_table
from utils.models.nanogpt import TRANSPOSED

SENTIMENT = Path(__file__).resolve().parent / "sentiment"
LANGUAGES = ("russian", "polish")
COLUMNS = {"rus-pol-normal": "review", "rus-pol-ipa": "review-phoneme"}
VOCABULARY, LENGTH, STEPS, BATCH = 512, 128, 150, 16
SIZES = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": LENGTH, "bias": False}


def build(folder: Path) -> list[Path]:
    """Write both checkpoints; returns their folders. The same sentences give the same files."""
    return [build_one(folder / name, read_texts(column)) for name, column in COLUMNS.items()]


def read_texts(column: str) -> list[str]:
    """Return the training texts of all languages."""
    return [row[column] for lang in LANGUAGES for row in read_table(SENTIMENT / lang / "train.tsv")]


def build_one(folder: Path, texts: list[str]) -> Path:
    """Write ckpt.pt, vocab.json and merges.txt of one kind of texts."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        # Room for the tokens of padding and of the end of a text.
        vocab_size=VOCABULARY - 2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.model.save(str(folder))
    model = train([tokenizer.encode(text).ids[:LENGTH] for text in texts])
    torch.save({"model": nanogpt_weights(model), "model_args": SIZES | {"vocab_size": VOCABULARY}}, folder / "ckpt.pt")
    return folder


def train(rows: list[list[int]]) -> GPT2LMHeadModel:
    """Train a small GPT-2 to predict the next token."""
    torch.manual_seed(0)
    draw = random.Random(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=LENGTH,
            n_embd=SIZES["n_embd"],
            n_layer=SIZES["n_layer"],
            n_head=SIZES["n_head"],
            activation_function="gelu",
            bos_token_id=None,
            eos_token_id=None,
            loss_type="ForCausalLM",
        )
    )
    # nanoGPT without biases has none.
    trained = [weights for name, weights in model.named_parameters() if not name.endswith(".bias")]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    for _ in range(STEPS):
        chosen = draw.sample(rows, min(BATCH, len(rows)))
        longest = max(map(len, chosen))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in chosen])
        sizes = torch.tensor([len(row) for row in chosen])
        mask = torch.arange(longest) < sizes[:, None]
        loss = model(ids, attention_mask=mask.long(), labels=ids.masked_fill(~mask, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def nanogpt_weights(model: GPT2LMHeadModel) -> dict[str, torch.Tensor]:
    """Return a GPT-2's weights as nanoGPT saves them: linear layers the other way round, no biases."""
    state = {name: weights for name, weights in model.state_dict().items() if not name.endswith(".bias")}
    return {
        name: weights.t().contiguous() if name.endswith(TRANSPOSED) else weights.clone()
        for name, weights in state.items()
    }


if __name__ == "__main__":
    for path in build(Path(sys.argv[1])):
        print(path)
