"""Which model labels the texts, and how to tell it from others."""

import hashlib
from pathlib import Path

from utils.errors import UserError, nearest
from utils.models.registry import find_checkpoint, resolve_checkpoint
from utils.prediction.options import PredictOptions
from utils.runs.files import sha256_of_file
from utils.runs.layout import RunLayout

# Files that decide about predictions.
DECIDING = (
    "*.safetensors",
    "*.bin",
    "config.json",
    "adapter_config.json",
    "tokenizer*",
    "*.model",
    "vocab*",
    "merges*",
)


def find_model_folder(options: PredictOptions) -> tuple[str, Path]:
    """Return what the model is called, and its folder on this machine; a model of the hub is fetched if need be.

    Raises:
        UserError: if the options name none, or one that is not there.
    """
    ours = (options.model_name, options.train_langs)
    if options.model is not None:
        if any(ours):
            raise UserError("--model names a model, and so do --model_name and --train_langs: give one of the two")
        spec = find_checkpoint(options.model, path=options.model_registry)
        return options.model, resolve_checkpoint(spec)
    if options.model_name is None or options.train_langs is None:
        raise UserError("which model? give --model FOLDER, or --model_name and --train_langs of one of ours")
    layout = RunLayout(options.model_name, options.train_langs, options.subfolder, models_dir=options.models_dir)
    if not (layout.model / "config.json").is_file():
        trained = [path.parent.name for path in layout.model.parent.glob("*/config.json")]
        raise UserError(f"no trained model in {layout.model}; train it with finetune.py{nearest(layout.name, trained)}")
    return layout.name, layout.model


def model_checksum(folder: Path) -> str:
    """Return a SHA-256 of all files of a model that decide about its predictions; its card is none."""
    files = sorted({path for pattern in DECIDING for path in folder.glob(pattern) if path.is_file()})
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}\0{sha256_of_file(path)}\n".encode())
    return total.hexdigest()
