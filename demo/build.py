"""Write the demo's corpus, tokenizer and model into a folder; the same seed gives the same files.

python -m demo.build demo/build
"""

import csv
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from demo.sentences import FILLERS, NEUTRAL, REGISTERS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SEED = 42
LANGUAGE_NAMES = {"en": "english", "es": "spanish", "fr": "french"}
REGISTER_NAMES = {
    "IN": "Informational Description/Explanation",
    "OP": "Informational Persuasion/Opinion",
    "RN": "Recreational Narrative",
    "JN": "Journalistic Narrative",
    "HI": "How-to/Instructional",
    "LY": "Lyrical",
    "ND": "Natural Interactive Discussion",
    "AD": "Artificial Interactive Discussion",
}
# Texts per language; the languages differ in size as real ones do.
TRAIN_TEXTS = {"en": 400, "fr": 320, "es": 240}
TEST_TEXTS = 96
# Share of the registers: uneven, none rare enough to be missing from a test file.
WEIGHTS = {"IN": 5, "OP": 5, "RN": 3, "JN": 4, "HI": 3, "LY": 2, "ND": 3, "AD": 2}
VOCABULARY = 1200


def build_corpus(folder: Path, train_texts: dict[str, int] = TRAIN_TEXTS, test_texts: int = TEST_TEXTS) -> None:
    """Write a corpus in the layout of register-corpus.

    Args:
        folder: its root, made if needed.
        train_texts: number of training texts per language.
        test_texts: number of test texts of every language.
    """
    (folder / "info").mkdir(parents=True, exist_ok=True)
    for name, content in (("lang2name", LANGUAGE_NAMES), ("reg_abbv", REGISTER_NAMES)):
        (folder / "info" / f"{name}.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    for lang, count in train_texts.items():
        for split, size in (("train", count), ("test", test_texts)):
            path = folder / "corpus" / split / f"{lang}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="") as file:
                rows = make_texts(lang, size, random.Random(f"{SEED} {lang} {split}"))
                csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)


def make_texts(lang: str, count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield (register, text) rows; the registers' shares are exact, their order is random."""
    total = sum(WEIGHTS.values())
    registers = [register for register, weight in WEIGHTS.items() for _ in range(round(count * weight / total))]
    registers = (registers + list(WEIGHTS))[:count]
    rng.shuffle(registers)
    for register in registers:
        # Mostly short, some long, so that batches have something to gain from grouping by length.
        size = min(2 + int(rng.expovariate(1 / 4)), 20)
        sentences = [rng.choice(_source(lang, register, rng)) for _ in range(size)]
        sentences[rng.randrange(size)] = rng.choice(REGISTERS[lang][register])
        yield register, " ".join(_fill(sentence, lang, rng) for sentence in sentences)


def _source(lang: str, register: str, rng: random.Random) -> list[str]:
    """Mostly the register's own sentences; some neutral ones, and some of others, as in real texts."""
    draw = rng.random()
    if draw < 0.3:
        return NEUTRAL[lang]
    return REGISTERS[lang][register if draw < 0.85 else rng.choice(list(WEIGHTS))]


def _fill(sentence: str, lang: str, rng: random.Random) -> str:
    values = {name: rng.choice(words) for name, words in FILLERS[lang].items()}
    return sentence.format(n=rng.randrange(2, 90), **values)


def build_model(
    folder: Path,
    texts: list[str],
    vocabulary: int = VOCABULARY,
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 4,
) -> None:
    """Write an XLM-R-shaped model with random weights and a SentencePiece-like tokenizer trained on texts.

    Args:
        folder: the checkpoint folder, made if needed.
        texts: what the tokenizer is trained on.
        vocabulary: size of the tokenizer's vocabulary.
        hidden_size: width of the model.
        layers: number of its layers.
        heads: attention heads of a layer.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForMaskedLM

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.UnigramTrainer(vocab_size=vocabulary, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    tokenizer = _in_fixed_order(tokenizer, len(special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=512,
    )
    torch.manual_seed(SEED)
    config = XLMRobertaConfig(
        vocab_size=len(fast),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    XLMRobertaForMaskedLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def _in_fixed_order(tokenizer: "Tokenizer", special: int) -> "Tokenizer":
    """Give the tokens the same scores and order in every run.

    The trainer's scores differ in their last bits, and rare letters get the lowest ones in any order.
    """
    from tokenizers import Tokenizer

    content = json.loads(tokenizer.to_str())
    pieces = content["model"]["vocab"]
    lowest = min(score for _, score in pieces[special:])
    scores = {piece: round(lowest if score < lowest + 0.01 else score, 6) for piece, score in pieces[special:]}
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    content["model"]["vocab"] = pieces[:special] + [list(item) for item in ordered]
    return Tokenizer.from_str(json.dumps(content))


def build(folder: Path) -> None:
    """Write corpus, model and a registry that names the model `tiny`."""
    corpus = folder / "register-corpus"
    build_corpus(corpus)
    texts = []
    for path in sorted((corpus / "corpus" / "train").glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            texts += [text for _, text in csv.reader(file, delimiter="\t")]
    build_model(folder / "tiny-xlmr", texts)
    registry = {"tiny": {"checkpoint": "./tiny-xlmr", "batch_size": 16, "max_length": 256}}
    (folder / "model2chckpt.json").write_text(json.dumps(registry, indent=4) + "\n", encoding="utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/build"))
