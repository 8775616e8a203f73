"""The model registry, model2chckpt.json: abbreviation -> checkpoint, and the checkpoint's local folder.

Weights and tokenizer always come from a local folder (the hub's cache or a folder that the registry
names), so that nothing asks the hub on a compute node without internet.
"""

import json
import os
import re
import shlex
from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from utils import PROJECT
from utils.cli.config_files import parse_json
from utils.cli.options import PLACE, PLACES, option
from utils.data.hub import local_or_hub
from utils.errors import RunFailure, UserError, nearest
from utils.runs.files import CACHE_DIR
from utils.runs.layout import check_model_name

DEFAULT_REGISTRY = PROJECT / "model2chckpt.json"
FORMATS = ("hf", "nanogpt")
# In a folder of adapters, instead of weights.
ADAPTER_CONFIG = "adapter_config.json"
PARTS = ("config", "weights", "tokenizer")
NANOGPT_TOKENIZER = ("vocab", "merges")
TOKENIZER_FILES = ("*.json", "*.model", "*.txt", "*.tiktoken", "*.jinja")
WEIGHT_FORMATS = (("safetensors", "model", ".safetensors"), ("pytorch", "pytorch_model", ".bin"))


@dataclass(kw_only=True)
class RegistryOptions:
    """Which models there are."""

    model_registry: str | None = option(
        None,
        "the registry of models; without it model2chckpt.json",
        role=PLACE,
        group=PLACES,
        env="MODEL_REGISTRY",
        metavar="FILE",
    )


@dataclass(frozen=True)
class ModelSpec:
    """One line of the registry.

    `checkpoint` is a hub id, or an absolute path if it is a local folder. `batch_size` and `max_length`
    are the model's own defaults of these options; `license` goes to the cards of models that are trained from
    it; `sbatch_train` and `sbatch_eval` are options of sbatch, which the submit scripts read for themselves.
    """

    name: str
    checkpoint: str
    revision: str | None = None
    format: str = "hf"
    tokenizer: dict[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    max_length: int | None = None
    license: str = "unknown"
    sbatch_train: str = ""
    sbatch_eval: str = ""
    registry: str = ""

    @property
    def download_command(self) -> str:
        """The command that fetches it; `registry` is the file that names it."""
        other = self.registry and Path(self.registry).resolve() != DEFAULT_REGISTRY
        words = ["python", "download_model.py", "--models", self.name]
        return shlex.join([*words, *(["--model_registry", self.registry] if other else [])])

    @property
    def is_local(self) -> bool:
        """Whether the checkpoint is a folder on this machine rather than a repository of the hub."""
        return Path(self.checkpoint).is_absolute()


def registry_path(path: str | None = None) -> Path:
    """Return the registry file: `path`, else $MODEL_REGISTRY, else model2chckpt.json of the project."""
    return Path(path or os.environ.get("MODEL_REGISTRY") or DEFAULT_REGISTRY)


def load_registry(path: str | None = None) -> dict[str, ModelSpec]:
    """Read the registry into `ModelSpec` objects, in the file's order.

    Raises:
        UserError: if the file is missing or malformed, with the line or the offending key.
    """
    file = registry_path(path)
    try:
        content = parse_json(file.read_text(encoding="utf-8-sig"), file)
    except OSError as error:
        raise UserError(f"{file}: cannot read the model registry ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not valid UTF-8 ({error})") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f'{file}: expected {{"abbreviation": "checkpoint", ...}}')
    return {name: _model_spec(file, name, entry) for name, entry in content.items()}


def find_model(name: str, path: str | None = None) -> ModelSpec:
    """Return one model of the registry, or raise a `UserError` that names the nearest known one."""
    registry = load_registry(path)
    if name not in registry:
        raise UserError(f"model {name!r} is not in {registry_path(path)}{nearest(name, registry)}")
    return registry[name]


def find_checkpoint(name: str, revision: str | None = None, path: str | None = None) -> ModelSpec:
    """Return a model given as a folder, as an abbreviation of the registry, or as a model of the hub.

    Args:
        name: as the user gave it.
        revision: of the hub; None or "main" leaves it to the registry.
        path: the registry file, see `registry_path`.

    Raises:
        UserError: for a folder that does not exist or an invalid name.
    """
    revision = None if revision == "main" else revision
    if Path(name).expanduser().is_dir():
        return ModelSpec(name, str(Path(name).expanduser().resolve()))
    known = load_registry(path) if registry_path(path).is_file() else {}
    if name in known:
        return replace(known[name], revision=revision or known[name].revision)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise UserError(f"model {name!r}: there is no such folder, and models of the hub are named OWNER/NAME")
    return ModelSpec(name, name, revision=revision)


def _model_spec(file: Path, name: str, entry: Any) -> ModelSpec:
    where = f"{file}: {name}"
    try:
        check_model_name(name)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    if isinstance(entry, str):
        entry = {"checkpoint": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("checkpoint"), str) or not entry["checkpoint"]:
        raise UserError(f"{where}: expected a checkpoint (hub id or folder) or an object with the key 'checkpoint'")
    known = set(ModelSpec.__dataclass_fields__) - {"name", "registry"}
    for key in entry:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}{nearest(key, known)}")
    for key in ("batch_size", "max_length"):
        if key in entry and (type(entry[key]) is not int or entry[key] < 1):
            raise UserError(f"{where}: {key} must be a positive whole number, got {entry[key]!r}")
    for key, what in (
        ("sbatch_train", " of options for sbatch"),
        ("sbatch_eval", " of options for sbatch"),
        ("license", ""),
    ):
        if not isinstance(entry.get(key, ""), str):
            raise UserError(f"{where}: {key} must be a string{what}, got {entry[key]!r}")
    if entry.get("format", "hf") not in FORMATS:
        raise UserError(f"{where}: unknown format {entry['format']!r}; known: {', '.join(FORMATS)}")
    others = {key: value for key, value in entry.items() if key != "checkpoint"}
    checkpoint = local_or_hub(file, entry["checkpoint"])
    if entry.get("format") == "nanogpt":
        checkpoint = str((file.parent / Path(entry["checkpoint"]).expanduser()).resolve())
        others["tokenizer"] = _nanogpt_tokenizer(file, where, entry.get("tokenizer"))
    elif "tokenizer" in entry:
        raise UserError(f"{where}: tokenizer is for checkpoints of the format nanogpt, which come without one")
    return ModelSpec(name, checkpoint, registry=str(file), **others)


def _nanogpt_tokenizer(file: Path, where: str, given: Any) -> dict[str, str]:
    """Return the paths of a tokenizer's two files, absolute; relative ones are relative to the registry file."""
    if not isinstance(given, dict) or set(given) != set(NANOGPT_TOKENIZER):
        raise UserError(f'{where}: the format nanogpt needs a tokenizer: {{"vocab": FILE, "merges": FILE}}')
    return {name: str((file.parent / Path(str(path)).expanduser()).resolve()) for name, path in given.items()}


def nanogpt_files(spec: ModelSpec) -> list[Path]:
    """Return the files of a nanoGPT model: ckpt.pt, vocab.json, merges.txt."""
    checkpoint = Path(spec.checkpoint)
    # Given as prefix/name, where nanoGPT's own script writes it.
    checkpoint = checkpoint if checkpoint.suffix == ".pt" else checkpoint / "ckpt.pt"
    return [checkpoint, *(Path(spec.tokenizer[name]) for name in NANOGPT_TOKENIZER)]


def model_problem(spec: ModelSpec, folder: Path, parts: tuple[str, ...] = PARTS) -> str | None:
    """Return what a model lacks, None if it is complete; `folder` is its `cached_folder`."""
    if spec.format == "nanogpt":
        return next((f"{path} does not exist" for path in nanogpt_files(spec) if not path.is_file()), None)
    return checkpoint_problem(folder, parts)


def missing_model(spec: ModelSpec) -> str | None:
    """Return a line that says what a model lacks here and how to get it; None if it can be loaded without network."""
    problem = model_problem(spec, cached_folder(spec))
    if problem is None and spec.format == "nanogpt":
        from utils.models.nanogpt import find_problem

        problem = find_problem(*nanogpt_files(spec))
    if problem is None:
        return None
    advice = "" if spec.is_local or spec.format != "hf" else f"; `{spec.download_command}` fetches it"
    return f"model {spec.name}: {spec.checkpoint}: {problem}{advice}"


def checkpoint_problem(folder: Path, parts: tuple[str, ...] = PARTS) -> str | None:
    """Return which of the `parts` (config, weights, tokenizer) a checkpoint folder lacks, None if it has them."""
    if not folder.is_dir():
        return "not downloaded"
    if "config" in parts and not (folder / "config.json").is_file():
        return "config.json is missing"
    missing = [_missing_weights(folder, stem, suffix) for _, stem, suffix in WEIGHT_FORMATS]
    if "weights" in parts and all(missing) and not (folder / ADAPTER_CONFIG).is_file():
        return f"weights are missing: {missing[0] if len(missing[0]) < 200 else missing[0][:200] + '...'}"
    vocabularies = (
        "tokenizer.json",
        "sentencepiece.bpe.model",
        "tokenizer.model",
        "spiece.model",
        "vocab.txt",
        "vocab.json",
    )
    if "tokenizer" in parts and not any((folder / name).is_file() for name in vocabularies):
        return "the tokenizer's files are missing"
    return None


def _missing_weights(folder: Path, stem: str, suffix: str) -> str:
    index = folder / f"{stem}{suffix}.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return ", ".join(name for name in names if not (folder / name).is_file())
    return "" if (folder / f"{stem}{suffix}").is_file() else f"{stem}{suffix}"


def cached_folder(spec: ModelSpec, cache_dir: str | None = None) -> Path:
    """Return the local folder of a checkpoint without any network access; it need not exist or be complete.

    Args:
        spec: the model.
        cache_dir: where downloaded models are; None is huggingface_hub's own folder.
    """
    if spec.is_local:
        return Path(spec.checkpoint)
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(spec.checkpoint, "config.json", cache_dir=cache_dir, revision=spec.revision)
    return Path(config).parent if isinstance(config, str) else Path(spec.checkpoint)


def download_patterns(files: list[str]) -> list[str]:
    """Choose what to fetch of a repository: configuration, tokenizer and the weights in one format.

    Args:
        files: every file of the repository. Safetensors are preferred to PyTorch's pickles.
    """
    for _, stem, suffix in WEIGHT_FORMATS:
        weights = [f for f in files if re.fullmatch(rf"{stem}(-\d+-of-\d+)?{re.escape(suffix)}(\.index\.json)?", f)]
        if weights:
            break
    # *.json would bring the index of the other format too; it names files that are not fetched.
    others = [f for f in files if "/" not in f and not f.endswith(".index.json") and Path(f).match("*.json")]
    others += [f for f in files if "/" not in f and any(Path(f).match(p) for p in TOKENIZER_FILES[1:])]
    return sorted({*weights, *others})


def download(spec: ModelSpec, cache_dir: str | None = None, token: str | None = None) -> Path:
    """Fetch a checkpoint into the hub's cache (resuming what is there) and return its folder.

    Args:
        spec: the model.
        cache_dir: where downloaded models are; None is huggingface_hub's own folder.
        token: access token of the hub; None is the one that huggingface_hub knows.

    Raises:
        RunFailure: if the hub cannot be reached or has no such repository or revision.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        # The revision is resolved once, so that the list of files and the files themselves agree.
        info = HfApi(token=token).model_info(spec.checkpoint, revision=spec.revision)
        patterns = download_patterns([sibling.rfilename for sibling in info.siblings or []])
        return Path(
            snapshot_download(
                spec.checkpoint, revision=spec.revision, allow_patterns=patterns, cache_dir=cache_dir, token=token
            )
        )
    except Exception as error:
        # Besides the hub's own errors, those of whichever HTTP library its client is built on.
        reason = str(error).strip().splitlines()[0]
        revision = f" at revision {spec.revision}" if spec.revision else ""
        raise RunFailure(f"cannot fetch {spec.checkpoint}{revision} ({reason})") from error


def resolve_checkpoint(
    spec: ModelSpec, cache_dir: str | None = None, token: str | None = None, parts: tuple[str, ...] = PARTS
) -> Path:
    """Return a complete local folder of a checkpoint, from the cache if it is there, else from the hub.

    A nanoGPT checkpoint is converted into an ordinary folder, once.

    Args:
        spec: the model.
        cache_dir: where downloaded models are; None is huggingface_hub's own folder.
        token: access token of the hub.
        parts: what the folder must have.

    Raises:
        UserError: if the folder or the cached copy is incomplete and cannot be fetched.
    """
    folder = cached_folder(spec, cache_dir)
    problem = model_problem(spec, folder, parts)
    if problem is None and spec.format == "nanogpt":
        from utils.models.nanogpt import convert

        checkpoint, vocabulary, merges = nanogpt_files(spec)
        return convert(checkpoint, vocabulary, merges, Path(CACHE_DIR))
    if problem is None:
        return folder
    if spec.is_local:
        raise UserError(f"model {spec.name}: {folder}: {problem}")
    try:
        return download(spec, cache_dir, token)
    except RunFailure as failure:
        raise UserError(
            f"model {spec.name}: {spec.checkpoint} is not in the local cache ({problem}) and the hub did not give it\n"
            f"run `{spec.download_command}` where there is internet; {failure}"
        ) from None


def typed_name(model_name: str, model_type: str | None, known: Container[str]) -> str:
    """Return the name of the model for one kind of texts: ``rus-pol`` is ``rus-pol-ipa`` for IPA.

    Args:
        model_name: as the user gave it.
        model_type: "ipa", "normal" or None.
        known: names of models; normal texts are read by the model of the plain name if the other is not known.
    """
    typed = f"{model_name}-{model_type}"
    if model_type is None or model_name.endswith(f"-{model_type}"):
        return model_name
    return typed if model_type == "ipa" or typed in known else model_name
