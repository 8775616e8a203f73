"""The options that every training script has, and their translation into those of the Trainer."""

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from utils.cli.options import (
    DATA,
    EFFORT,
    HYPERPARAMETER,
    MEMORY,
    OTHER,
    PLACE,
    PLACES,
    SLURM,
    TRAINING,
    CommonOptions,
    Need,
    option,
)
from utils.errors import UserError, nearest
from utils.models.options import CacheOptions, ComputeOptions
from utils.models.registry import RegistryOptions

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainingArguments

# What trackers call the project.
PROJECT_NAME = "register-finetuning"
TEXTS_SHOWN = 50_000
DEFAULT_BATCH_SIZE = 16


@dataclass(kw_only=True)
class RestartOptions:
    """What becomes of a job that Slurm starts again."""

    max_restarts: int = option(
        3,
        "give up when Slurm has started the job so often without progress",
        role=EFFORT,
        group=SLURM,
        minimum=1,
        metavar="TIMES",
    )


@dataclass(kw_only=True)
class StepOptions:
    """How the optimizer's steps are made, whatever is trained."""

    ROLE: ClassVar[str] = HYPERPARAMETER
    GROUP: ClassVar[str] = TRAINING

    warmup_ratio: float = option(0.1, "part of the steps in which the learning rate rises", minimum=0, below=1)
    lr_scheduler_type: str = option(
        "linear", "schedule after the warm-up: linear, cosine, constant_with_warmup, ...", metavar="TYPE"
    )
    lr_scheduler_kwargs: dict = option({}, "settings of the schedule, as --lr_scheduler_kwargs.KEY VALUE")
    gradient_accumulation_steps: int = option(1, "batches per optimizer step", minimum=1, metavar="STEPS")
    max_grad_norm: float = option(
        1.0, "scale gradients down to this norm where they are larger; 0 leaves them as they are", minimum=0
    )
    gradient_checkpointing: bool = option(False, "compute activations twice to save memory", group=MEMORY)
    torch_compile: bool = option(False, "compile the model first (pays off in long runs)", group=MEMORY)
    report_to: Literal["none", "tensorboard", "wandb", "mlflow"] = option(
        "none", "also log to this tracker", role=EFFORT, group=OTHER
    )


@dataclass(kw_only=True)
class TrainingOptions(StepOptions, ComputeOptions, CacheOptions, RestartOptions, RegistryOptions, CommonOptions):
    """How to train, whatever the task."""

    ROLE: ClassVar[str] = HYPERPARAMETER
    GROUP: ClassVar[str] = TRAINING
    # The Trainer's own arguments that are called otherwise here, or are always so.
    HINTS: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("bf16", "fp16"), "the number format is --precision bf16, fp16, fp32 or auto"),
        **dict.fromkeys(
            ("per_device_eval_batch_size", "eval_batch_size"),
            "evaluation makes its batches by --eval_token_budget, in tokens",
        ),
        **dict.fromkeys(
            ("eval_strategy", "evaluation_strategy", "save_strategy", "load_best_model_at_end"),
            "every epoch is validated and the best one kept, always",
        ),
        "save_total_limit": "two resume points are kept: that of the best and that of the last epoch",
        "metric_for_best_model": "the best epoch is that of the best validation macro F1",
        "warmup_steps": "the warm-up is --warmup_ratio, a part of all steps",
        "group_by_length": "the texts of a step are packed without padding: --train_sampling",
        "train_batch_size": "texts per step and device are --batch_size",
        "optim": "the optimizer is AdamW",
        "resume_from_checkpoint": "the same command goes on by itself",
    }

    num_epochs: int | None = option(
        None,
        f"passes over the training texts; without it as many as show the model {TEXTS_SHOWN:,} texts; 0 trains "
        "nothing and saves the pretrained model with a new head",
        aliases=["--epochs", "--num_train_epochs"],
        minimum=0,
    )
    batch_size: int | None = option(
        None,
        f"training texts per step and device; without it the registry's, else {DEFAULT_BATCH_SIZE}",
        minimum=1,
        aliases=["--per_device_train_batch_size"],
    )
    learning_rate: float = option(5e-5, "highest learning rate", above=0)
    weight_decay: float = option(0.01, "weight decay of AdamW", minimum=0)
    early_stopping_patience: int | None = option(
        None, "stop after so many epochs without a better validation macro F1", minimum=1, metavar="EPOCHS"
    )
    attention_dropout: float | None = option(
        None,
        "dropout of attention weights; without it the model's own; 0 is faster, and on GPUs wanted for packed texts",
        minimum=0,
        below=1,
    )
    max_length: int | None = option(
        None,
        "cut texts to this many tokens; without it the registry's, else 512 or the model's limit",
        group=DATA,
        minimum=4,
        aliases=["--max_seq_length"],
    )
    train_sampling: Literal["packed", "length", "random"] = option(
        "packed",
        "compute the texts of a step as one row without padding, in padded pieces of similar length, or padded whole; "
        "models that cannot be packed are computed in pieces",
        group=MEMORY,
    )
    train_token_budget: int | None = option(
        None,
        "--train_sampling packed: tokens at once on a device; more are computed one after the other, and their "
        "gradients add up; without it 8,192 on a CPU, what the memory holds on a GPU",
        role=EFFORT,
        group=MEMORY,
        minimum=1,
        metavar="TOKENS",
        needs=Need("train_sampling", "packed", "is for --train_sampling packed"),
    )
    deterministic: bool = option(False, "use deterministic algorithms on GPUs too (slower)", group=MEMORY)
    checkpoints_dir: str | None = option(
        None,
        "where resume points are kept while it trains, in DIR/[SUBFOLDER/]MODEL-LANGS/checkpoints; without it in the "
        "model's folder",
        role=PLACE,
        group=PLACES,
        metavar="DIR",
    )
    keep_checkpoints: bool = option(
        False,
        "keep the resume points of the last and the best epoch when the run is complete",
        role=EFFORT,
        group=OTHER,
    )
    force: bool = option(
        False, "train anew even if this run is complete or was made with other options", role=EFFORT, group=OTHER
    )


def prepare_tracker(name: str, folder: Path) -> None:
    """Tell a tracker where its files go, unless the user's environment does; without internet wandb keeps them there.

    Args:
        name: of the tracker.
        folder: of the run's results; the Trainer's own choice for TensorBoard is the folder of the resume
            points, which are removed at the end.

    Raises:
        UserError: if it is not installed.
    """
    packages = {"none": (), "tensorboard": ("tensorboard", "tensorboardX")}.get(name, (name,))
    if packages and not any(importlib.util.find_spec(package) for package in packages):
        raise UserError(f"--report_to {name}: the package {name} is not installed; pip install {name}")
    defaults = {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard")},
        "wandb": {"WANDB_PROJECT": PROJECT_NAME, "WANDB_DIR": str(folder)},
        "mlflow": {"MLFLOW_EXPERIMENT_NAME": PROJECT_NAME},
    }.get(name, {})
    if name == "wandb" and os.environ.get("HF_HUB_OFFLINE") == "1":
        defaults["WANDB_MODE"] = "offline"
    for variable, value in defaults.items():
        os.environ.setdefault(variable, value)


def training_arguments(
    options: TrainingOptions,
    checkpoints: Path,
    run_name: str,
    *,
    batch_size: int,
    num_epochs: int,
    precision: str,
    keep_best: bool = True,
) -> "TrainingArguments":
    """Translate the options into those of the Trainer.

    Args:
        options: as the user gave them.
        checkpoints: folder of the resume points.
        run_name: what trackers call the run.
        batch_size: texts per step and device.
        num_epochs: passes over the training texts.
        precision: fp32, bf16 or fp16.
        keep_best: save every epoch, and load the best one at the end.

    Raises:
        UserError: if the schedule is unknown.
    """
    import torch
    from transformers import TrainingArguments
    from transformers.utils import logging

    from utils.training.trainer import one_gpu

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gpus = torch.cuda.device_count()
    arguments = TrainingArguments(
        # Absolute: the best resume point is remembered by its path.
        output_dir=str(checkpoints.resolve()),
        num_train_epochs=num_epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        seed=options.seed,
        full_determinism=options.deterministic,
        use_cpu=gpus == 0,
        dataloader_pin_memory=gpus > 0,
        eval_strategy="epoch",
        save_strategy="epoch" if keep_best else "no",
        save_total_limit=2,
        load_best_model_at_end=keep_best,
        metric_for_best_model="macro_f1",
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,
        logging_strategy="steps",
        # It reads the loss of every batch, and so waits for the GPU.
        logging_nan_inf_filter=False,
        disable_tqdm=not sys.stderr.isatty(),
        run_name=run_name,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        **step_arguments(options, precision),
    )
    one_gpu(arguments)
    return arguments


def step_arguments(options: StepOptions, precision: str) -> dict[str, Any]:
    """Return what the Trainer is told of the optimizer's steps.

    Args:
        options: as the user gave them.
        precision: fp32, bf16 or fp16.

    Raises:
        UserError: if the schedule is unknown.
    """
    from transformers import SchedulerType

    schedules = [schedule.value for schedule in SchedulerType]
    if options.lr_scheduler_type not in schedules:
        raise UserError(
            f"--lr_scheduler_type: unknown schedule {options.lr_scheduler_type!r}"
            f"{nearest(options.lr_scheduler_type, schedules)}"
        )
    return {
        "lr_scheduler_type": options.lr_scheduler_type,
        "lr_scheduler_kwargs": options.lr_scheduler_kwargs or None,
        # A number below 1 is a ratio.
        "warmup_steps": options.warmup_ratio,
        "gradient_accumulation_steps": options.gradient_accumulation_steps,
        "max_grad_norm": options.max_grad_norm,
        "activation_checkpointing": options.gradient_checkpointing,
        "torch_compile": options.torch_compile,
        "report_to": options.report_to,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
    }


def early_stopping(options: TrainingOptions) -> "list[TrainerCallback]":
    """Return the callback of --early_stopping_patience, if it was given."""
    from transformers import EarlyStoppingCallback

    patience = options.early_stopping_patience
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience else []
