"""What a trained classifier leaves: its report, its temperature, its folder."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer

from utils.evaluation.calibration import fit_temperature
from utils.evaluation.labelling import OneLabel, fit_thresholds
from utils.evaluation.thresholds import Metric, ThresholdChoice
from utils.models.adapters import ADAPTER_FILES
from utils.models.options import TEMPERATURE, THRESHOLDS
from utils.runs.files import UMASK
from utils.training.classifier_trainer import ClassifierTrainer


def train_report(trainer: ClassifierTrainer, peak_memory: int) -> dict[str, Any]:
    """Return the content of train.json."""
    epochs = trainer.history.epochs
    seconds = sum(epoch["seconds"] for epoch in epochs)
    lengths = trainer.sampler.lengths
    rate = len(epochs) / seconds if seconds else 0.0
    trained, parameters = count_parameters(trainer.model)
    best = max(epochs, key=lambda epoch: epoch["validation"]["macro_f1"])
    labels = np.asarray(trainer.eval_dataset["label"][:])
    warning = trainer.labelling.warning(labels, best["validation"], "validation")
    return {
        "epochs": epochs,
        "best_epoch": best["epoch"],
        **({"warning": warning} if warning and best["epoch"] else {}),
        "num_train_texts": len(lengths),
        "num_texts_cut": trainer.num_cut,
        "num_parameters": parameters,
        "num_trainable_parameters": trained,
        "seconds": round(seconds + sum(epoch["validation"]["seconds"] for epoch in epochs), 3),
        "texts_per_second": len(lengths) * rate,
        "tokens_per_second": float(lengths.sum()) * rate,
        "padding_fraction": trainer.padding_fraction(),
        "peak_memory_bytes": peak_memory,
    }


def calibrate(trainer: ClassifierTrainer, choice: ThresholdChoice, metric: Metric) -> dict[str, Any]:
    """Fit temperature and thresholds of a trained model to the validation texts; the model's configuration gets them.

    Args:
        trainer: with the trained model.
        choice: of thresholds, where texts have any number of labels.
        metric: for which they are the best.

    Returns:
        temperature, and the validation loss without it and with it; the thresholds and what the metric is with them.
    """
    labelling = trainer.labelling
    found = trainer.predict(trainer.eval_dataset, metric_key_prefix="calibration")
    logits, labels = found.predictions, found.label_ids
    temperature = fit_temperature(logits, labels, labelling)
    config = trainer.accelerator.unwrap_model(trainer.model).config
    setattr(config, TEMPERATURE, temperature)
    losses = [labelling.loss(logits / divisor, labels) for divisor in (1.0, temperature)]
    report = {"temperature": temperature, "validation_loss": losses[0], "calibrated_validation_loss": losses[1]}
    if isinstance(labelling, OneLabel):
        return report
    probabilities = labelling.probabilities(logits.astype(np.float64) / temperature)
    chosen = fit_thresholds(labelling, labels, probabilities, choice, metric)
    setattr(config, THRESHOLDS, {"values": chosen.limits.tolist(), **chosen.source})
    values = [labelling.score(labels, x.decide(probabilities))[metric] for x in (labelling, chosen)]
    thresholds = dict(zip(chosen.names, chosen.limits.tolist(), strict=True))
    return report | {
        "threshold_source": chosen.source,
        "thresholds": thresholds,
        f"validation_{metric}_at_0.5": values[0],
        f"validation_{metric}": values[1],
    }


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Return how many parameters of a model are trained, and how many it has."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def save_model(trainer: Trainer, folder: Path, max_length: int, merge: bool = False) -> None:
    """Save weights or adapters, configuration and tokenizer; config.json comes last and marks the folder as whole.

    All processes call it, because each may hold a part of the weights; one writes.

    Args:
        trainer: with the model as it shall be saved.
        folder: where to.
        max_length: to which evaluation cuts texts, as training did.
        merge: add adapters to the weights.
    """
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if not trainer.is_world_process_zero():
        return
    staging = folder / ".final"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if merge:
        model.merge_and_unload().save_pretrained(staging)
    else:
        model.save_pretrained(staging, state_dict=weights)
    # Adapters are saved without it.
    model.config.save_pretrained(staging)
    trainer.processing_class.model_max_length = max_length
    trainer.processing_class.save_pretrained(staging)
    # peft's own card, which says nothing yet.
    (staging / "README.md").unlink(missing_ok=True)
    written = sorted(staging.iterdir(), key=lambda path: path.name == "config.json")
    # Weights of a run that this one replaces, if it was of another kind.
    for name in {*ADAPTER_FILES, "model.safetensors"} - {file.name for file in written}:
        (folder / name).unlink(missing_ok=True)
    for file in written:
        # safetensors lets nobody else read what it writes.
        file.chmod(0o666 & ~UMASK)
        file.replace(folder / file.name)
    staging.rmdir()
