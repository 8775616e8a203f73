"""Models for others: files that run without PyTorch, and models on the hub."""

import contextlib
import importlib.util
import io
import itertools
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import RunFailure, UserError
from utils.prediction.inputs import find_inputs
from utils.prediction.model import find_model_folder
from utils.prediction.options import PredictOptions
from utils.prediction.readers import BadRow, Columns, Reader
from utils.runs.files import UMASK, UNFINISHED, check_writable

# The file that a program opens, and the packages that write and read it.
TARGETS = {"onnx": ("model.onnx", ("onnx", "onnxscript", "onnxruntime")), "openvino": ("model.xml", ("openvino",))}
# Texts with which an exported model is compared with the original, and how far probabilities may be apart.
CHECKED_TEXTS, TOLERANCE = 100, 1e-4
# Run in numpy arrays of input_ids and attention_mask; gives logits.
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


def export_model(options: PredictOptions) -> int:
    """Write a model for ONNX Runtime or OpenVINO, by transformers' exporters, and compare it with the original.

    Raises:
        UserError: if packages are missing, or for a model in 4 bits.
        RunFailure: if the exported model's probabilities are not those of the original; nothing is written then.
    """
    target = str(options.export)
    file, packages = TARGETS[target]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--export {target} needs {', '.join(missing)}; pip install -e '.[export]'")
    _, folder = find_model_folder(options)
    if options.output_dir is None and not Path(options.model or ".").is_dir():
        raise UserError("where to? give --output_dir for a model of the hub")
    output = Path(options.output_dir or folder / target)
    check_writable(output)

    import torch

    from utils.evaluation.inference import Classifier

    classifier = Classifier(folder, "fp32", options.temperature, torch.device("cpu"))
    if getattr(classifier.model, "is_quantized", False):
        raise UserError(f"{folder}: weights in 4 bits cannot be exported; train with --merge_adapter")
    texts = list(_texts(options, classifier))
    with tempfile.TemporaryDirectory(dir=output, prefix=".", suffix=UNFINISHED) as staging:
        with _quiet():
            _write(classifier.model, target, Path(staging) / file)
        farthest = _compare(classifier, texts, _load(target, Path(staging) / file))
        if not farthest <= TOLERANCE:
            raise RunFailure(f"the exported model's probabilities are up to {farthest:.2g} from the original's")
        classifier.model.config.save_pretrained(staging)
        classifier.tokenizer.save_pretrained(staging)
        for path in Path(staging).iterdir():
            path.chmod(0o666 & ~UMASK)
            path.replace(output / path.name)
    print(f"{len(texts)} texts: probabilities differ from the original's by {farthest:.1g} at most")
    print(f"model  {output / file}")
    return 0


def _write(model: Any, target: str, path: Path) -> None:
    import torch
    from transformers import exporters

    names = {"onnx": ("OnnxExporter", "OnnxConfig"), "openvino": ("OpenVINOExporter", "OpenVINOConfig")}[target]
    exporter, config = (getattr(exporters, name) for name in names)
    sample = {"input_ids": torch.ones(2, 16, dtype=torch.long), "attention_mask": torch.ones(2, 16, dtype=torch.long)}
    sample["input_ids"] *= model.config.eos_token_id or 2
    shape = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    exported = exporter().export(
        model, sample, config=config(dynamic=True, dynamic_shapes=dict.fromkeys(sample, shape))
    )
    exporter.save_program(exported.program, path)


def _load(target: str, path: Path) -> Run:
    """Return a function that runs an exported model as other programs do."""
    if target == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda ids, mask: session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]
    import openvino

    # Its default is bf16 where the processor has it.
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})["logits"]


def _compare(classifier: Any, texts: list[str], run: Run) -> float:
    """Return how far probabilities of the exported model are from the original's, at most."""
    farthest = 0.0
    for start in range(0, len(texts), 10):
        encoded = classifier.tokenizer(
            texts[start : start + 10],
            truncation=True,
            max_length=classifier.max_length,
            padding=True,
            return_tensors="np",
        )
        ids, mask = encoded["input_ids"].astype(np.int64), encoded["attention_mask"].astype(np.int64)
        rows = [row[kept.astype(bool)] for row, kept in zip(ids, mask, strict=True)]
        theirs = classifier.probabilities(run(ids, mask))
        farthest = max(
            farthest, float(np.abs(theirs - classifier.probabilities(classifier.logits_of(rows, None))).max())
        )
    return farthest


def _texts(options: PredictOptions, classifier: Any) -> Iterator[str]:
    """Yield texts to compare with: the first of --input, else some made of the model's own vocabulary."""
    if options.input:
        _, files = find_inputs(options.input, Path(options.output_dir or "predictions"))
        readers = (Reader(file.path, Columns(options.text_column, options.id_column)) for file in files)
        yield from itertools.islice(_sound(readers), CHECKED_TEXTS)
        return
    generator = np.random.default_rng(0)
    size = len(classifier.tokenizer)
    for _ in range(CHECKED_TEXTS):
        length = int(generator.integers(1, classifier.max_length))
        yield classifier.tokenizer.decode(generator.integers(0, size, length), skip_special_tokens=True) or "a"


def _sound(readers: Iterator[Reader]) -> Iterator[str]:
    for reader in readers:
        for number, row in enumerate(reader):
            with contextlib.suppress(BadRow):
                yield reader.parse(row, number)[1]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporters say of their own inner life."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def push_model(options: PredictOptions) -> int:
    """Upload a model and its card to the hub; a repository that is not there yet is made, private.

    Raises:
        RunFailure: if the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    name, folder = find_model_folder(options)
    if not (folder / "README.md").is_file():
        raise UserError(f"{folder} has no model card, README.md; finetune.py and evaluate.py write one")
    repository = str(options.push_to_hub)
    try:
        api = HfApi()
        url = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            folder_path=folder,
            commit_message=f"{name}, by register-finetuning",
            # Resume points, and what is being written.
            ignore_patterns=["checkpoints/**", ".*"],
        )
    except Exception as error:
        # Besides the hub's own errors, those of whichever HTTP library its client is built on.
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RunFailure(f"cannot upload {folder} to {repository} ({reason})") from error
    print(f"uploaded {folder}\nto       {url}")
    return 0
