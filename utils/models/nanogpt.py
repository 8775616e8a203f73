"""Reads nanoGPT checkpoints (https://github.com/karpathy/nanoGPT) as transformers' GPT-2.

nanoGPT's model is GPT-2 with three differences: linear layers where OpenAI's code has transposed ones, no
biases if it was trained so, and the exact GELU instead of its tanh approximation.
"""

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.runs.files import locked, sha256_of_file

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

MODEL_ARGS = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "bias")
# torch.compile puts this before every name.
COMPILED_PREFIX = "_orig_mod."
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# Part of a converted folder's name: raise it when the same checkpoint is converted differently.
CONVERSION = 1


END, PADDING = "<|endoftext|>", "<|pad|>"


def load_nanogpt(path: str | Path) -> "GPT2LMHeadModel":
    """Load a nanoGPT checkpoint, in float32, ready to evaluate.

    Args:
        path: of a ``ckpt.pt`` that nanoGPT's train.py wrote.

    Raises:
        UserError: if the file is no checkpoint, would run code when it is loaded, lacks keys, or holds weights
            that contradict its model_args.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    checkpoint = _read(Path(path))
    arguments = _model_args(Path(path), checkpoint)
    weights = _weights(Path(path), checkpoint, arguments)
    dropout = arguments.get("dropout", 0.0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=arguments["vocab_size"],
            n_positions=arguments["block_size"],
            n_embd=arguments["n_embd"],
            n_layer=arguments["n_layer"],
            n_head=arguments["n_head"],
            activation_function="gelu",
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            layer_norm_epsilon=1e-5,
            bos_token_id=None,
            eos_token_id=None,
            tie_word_embeddings=True,
        )
    )
    state = model.state_dict()
    for name, expected in state.items():
        state[name] = _weight(Path(path), weights, name, expected, arguments["bias"])
    _refuse_unknown(Path(path), weights, state)
    model.load_state_dict(state)
    return model.eval()


def _read(path: Path, mmap: bool = False) -> dict[str, Any]:
    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds more than tensors and numbers and would run code when it is loaded, or is damaged; "
            "expected a ckpt.pt of nanoGPT"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as a checkpoint ({str(error).partition(chr(10))[0] or type(error).__name__})"
        ) from None
    for key in ("model", "model_args"):
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(key), dict):
            raise UserError(f"{path}: no {key!r} in it; expected a ckpt.pt of nanoGPT")
    return checkpoint


def _model_args(path: Path, checkpoint: dict[str, Any]) -> dict[str, Any]:
    arguments = checkpoint["model_args"]
    for name in MODEL_ARGS:
        if name not in arguments:
            raise UserError(f"{path}: model_args has no {name!r}")
        if name != "bias" and (type(arguments[name]) is not int or arguments[name] < 1):
            raise UserError(f"{path}: model_args[{name!r}] must be a positive whole number, got {arguments[name]!r}")
    if arguments["n_embd"] % arguments["n_head"]:
        raise UserError(f"{path}: n_embd {arguments['n_embd']} is no multiple of n_head {arguments['n_head']}")
    return arguments


def _weights(path: Path, checkpoint: dict[str, Any], arguments: dict[str, Any]) -> dict[str, "torch.Tensor"]:
    """Return the weights by their names, after checking what decides how large the model is that is built for them."""
    import torch

    weights = {str(name).removeprefix(COMPILED_PREFIX): value for name, value in checkpoint["model"].items()}
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{path}: {name} is no tensor")
    for name, rows in (("transformer.wte.weight", "vocab_size"), ("transformer.wpe.weight", "block_size")):
        expected = [arguments[rows], arguments["n_embd"]]
        if name not in weights:
            raise UserError(f"{path}: the weights of {name!r} are missing")
        if list(weights[name].shape) != expected:
            raise UserError(_other_shape(path, name, weights[name], expected))
    present = {name.split(".")[2] for name in weights if name.startswith("transformer.h.")}
    if len(present) < arguments["n_layer"]:
        first = next(index for index in range(arguments["n_layer"]) if str(index) not in present)
        raise UserError(f"{path}: the weights of 'transformer.h.{first}.ln_1.weight' are missing")
    return weights


def _other_shape(path: Path, name: str, value: "torch.Tensor", expected: list[int]) -> str:
    return f"{path}: {name} has the shape {list(value.shape)}, but its model_args say {expected}"


def _weight(
    path: Path, weights: dict[str, "torch.Tensor"], name: str, expected: "torch.Tensor", has_bias: bool
) -> "torch.Tensor":
    """Return one of GPT-2's weights, whose shape is that of `expected`."""
    import torch

    if name.endswith(".bias") and name not in weights and not has_bias:
        return torch.zeros_like(expected)
    if name not in weights:
        raise UserError(f"{path}: the weights of {name!r} are missing")
    value = weights[name]
    value = value.t() if name.endswith(TRANSPOSED) else value
    if value.shape != expected.shape:
        wanted = expected.t() if name.endswith(TRANSPOSED) else expected
        raise UserError(_other_shape(path, name, weights[name], list(wanted.shape)))
    return value.float().contiguous()


def _refuse_unknown(path: Path, weights: dict[str, "torch.Tensor"], known: dict[str, Any]) -> None:
    # Older versions of nanoGPT keep the causal mask with the weights.
    unknown = [name for name in weights if name not in known and not name.endswith(("attn.bias", "attn.masked_bias"))]
    if unknown:
        raise UserError(f"{path}: {unknown[0]!r} is no weight of a GPT-2 as its model_args describe it")


def nanogpt_tokenizer(vocabulary: Path, merges: Path, rows: int) -> "PreTrainedTokenizerBase":
    """Make a byte-level BPE tokenizer of its two files, with tokens for the end of a text and for padding.

    Neither is a token that stands for text: the padding of a classifier must not be taken for its last token.

    Args:
        vocabulary: ``vocab.json``.
        merges: ``merges.txt``.
        rows: of the model's embeddings, for the message.

    Raises:
        UserError: if a file is missing or malformed, or has tokens for which the model has no embedding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    for path in (vocabulary, merges):
        if not path.is_file():
            raise UserError(f"{path} does not exist")
    try:
        model = models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:
        raise UserError(f"{vocabulary}, {merges}: not the files of a BPE tokenizer ({error})") from None
    tokenizer = Tokenizer(model)
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise UserError(f"{vocabulary}: has token {largest:,}, but the model has embeddings for {rows:,} tokens only")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PADDING, padding_side="right"
    )


def find_problem(checkpoint: Path, vocabulary: Path, merges: Path) -> str | None:
    """Return why a checkpoint and its tokenizer do not go together, without reading the weights; None if they do."""
    try:
        content = _read(checkpoint, mmap=True)
        arguments = _model_args(checkpoint, content)
        _weights(checkpoint, content, arguments)
        nanogpt_tokenizer(vocabulary, merges, arguments["vocab_size"])
    except UserError as error:
        return str(error)
    return None


def convert(checkpoint: Path, vocabulary: Path, merges: Path, cache: Path) -> Path:
    """Return a nanoGPT model as an ordinary Hugging Face folder, converted once and kept.

    Args:
        checkpoint: ``ckpt.pt``.
        vocabulary: ``vocab.json``.
        merges: ``merges.txt``.
        cache: folder of the converted checkpoints.
    """
    paths = [checkpoint, vocabulary, merges]
    key = hashlib.sha256(json.dumps([CONVERSION, *map(sha256_of_file, paths)]).encode()).hexdigest()[:16]
    folder = cache / f"nanogpt-{key}"
    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _convert(paths, folder)
    return folder


def _convert(paths: list[Path], folder: Path) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = load_nanogpt(paths[0])
    tokenizer = nanogpt_tokenizer(paths[1], paths[2], model.config.vocab_size)
    if len(tokenizer) > model.config.vocab_size:
        # nanoGPT rounds the vocabulary up, so there are usually unused rows for the two new tokens.
        model.resize_token_embeddings(len(tokenizer))
    model.config.bos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.model_max_length = model.config.n_positions
    staging = folder.with_name(f".{folder.name}")
    shutil.rmtree(staging, ignore_errors=True)
    model.save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    staging.rename(folder)
