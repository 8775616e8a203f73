"""Puts together what fine-tuning a language model needs: model, tokenizer, examples, losses, callbacks, trainer."""

import copy
import inspect
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Trainer

from utils.data.lm_encoding import Task
from utils.data.lm_examples import TextExamples
from utils.data.masking import identity
from utils.data.text_files import dataset_name, read_text_file
from utils.data.tokenization import load_tokenizer
from utils.errors import UserError
from utils.evaluation.surprisal import TableWriter
from utils.evaluation.token_table import TokenTable
from utils.models.adapters import add_adapters, is_quantized, quantization
from utils.models.attention import use_cpu_dropout, use_text_attention
from utils.models.loading import (
    MAX_LENGTH,
    check_vocabulary,
    choose_max_length,
    find_task,
    load_config,
    load_language_model,
)
from utils.models.packing import why_padded
from utils.models.registry import ModelSpec
from utils.runs.distributed import is_main_process
from utils.runs.files import CACHE_DIR
from utils.runs.record import RunRecord
from utils.runs.resume_points import ResumePoints
from utils.runs.stop import StopFlag
from utils.training.lm_history import EarlyStopping, LmHistory
from utils.training.lm_losses import KLBaselineLoss, Losses, OutputsDefaultLoss
from utils.training.lm_options import FinetuneLmOptions, loss_list
from utils.training.lm_trainer import LanguageModelTrainer, lm_training_arguments
from utils.training.options import step_arguments

# What a token's row takes of a compressed table of metrics, measured, and what such a table may take unasked.
BYTES_OF_A_TOKEN, LARGEST_METRICS = 35, 100_000_000


@dataclass
class Loaded:
    """A language model as it is before fine-tuning, modifiers included."""

    model: torch.nn.Module
    tokenizer: Any
    task: Task
    device: torch.device

    def max_length(self, options: FinetuneLmOptions) -> int:
        """Return the length to cut texts to, in tokens."""
        return choose_max_length(self.model.config, options.max_length, MAX_LENGTH)


def load(options: FinetuneLmOptions, folders: dict[str, Path], spec: ModelSpec) -> Loaded:
    """Load model and tokenizer, run the model modifiers, and add adapters if any are to be trained.

    Args:
        options: as the user gave them.
        folders: of the model, the config and the tokenizer.
        spec: what the model is.

    Raises:
        UserError: for a model that does not say what it is, options of modifiers that they do not take.
    """
    use_gpu = options.use_gpu and torch.cuda.is_available()
    if options.use_gpu and not use_gpu:
        print("--use_gpu: PyTorch finds no GPU here; going on with the CPU", file=sys.stderr)
    config = load_config(folders["config"])
    task = find_task(config, options.model_task)
    tokenizer = load_tokenizer(folders["tokenizer"], use_fast=options.use_fast_tokenizer)
    given = config if folders["config"] != folders["model"] else None
    model = load_language_model(folders["model"], task, given, **quantization(options.load_in_4bit))
    check_vocabulary(tokenizer, model, folders["tokenizer"])
    functions: list[Any] = options.model_modifier_fns
    for function in functions:
        kwargs = options.model_modifier_fn_kwargs.get(function.__name__) or {}
        model, tokenizer = call(function, f"model_modifier_fn_kwargs.{function.__name__}", model, tokenizer, **kwargs)
    if options.lora_targets and options.train_file:
        model = add_adapters(model, options, task, spec, folders["model"])
    device = torch.device("cuda" if use_gpu else "cpu")
    choose_max_length(config, options.max_length, MAX_LENGTH)
    return Loaded(model, tokenizer, task, device)


def call(function: Callable, option: str, *arguments: Any, **kwargs: Any) -> Any:
    """Call what the user named with the user's options.

    Raises:
        UserError: for options that it does not take or needs and did not get.
    """
    try:
        inspect.signature(function).bind(*arguments, **kwargs)
    except TypeError as error:
        raise UserError(f"--{option}: {function.__name__}: {error}") from None
    except ValueError:
        # Some functions of C code do not say what they take.
        pass
    return function(*arguments, **kwargs)


def make_examples(
    options: FinetuneLmOptions, loaded: Loaded, split: str, name: str, examples: Any, first_item: int = 0
) -> TextExamples:
    """Tokenize and preprocess examples of train, validation or test.

    Args:
        options: as the user gave them.
        loaded: model and tokenizer.
        split: which function of preprocessing to use.
        name: of the dataset.
        examples: as `text_files.read_text_file` returns them.
        first_item: number of the first one in its file.
    """
    function = options.data_preprocessing_fn.get(split) or identity
    kwargs = options.data_preprocessing_fn_kwargs.get(split) or {}
    option = f"data_preprocessing_fn_kwargs.{split}"
    max_length = loaded.max_length(options)
    try:
        inspect.signature(function).bind({}, loaded.tokenizer, **kwargs)
    except TypeError as error:
        raise UserError(f"--{option}: {function.__name__}: {error}") from None
    return TextExamples(
        name,
        examples,
        loaded.tokenizer,
        loaded.task,
        max_length,
        function,
        kwargs,
        options.data_preprocessing_fn_strategy.get(split) or "once",
        seed=cast(int, options.seed),
        first_item=first_item,
        pad_to=max_length if options.pad_to_max_length else None,
        # Parts of a test file are read once and not kept.
        cache_dir=None if split == "test" else Path(CACHE_DIR),
        overwrite_cache=options.overwrite_cache,
        bos=options.bos,
        stride=options.stride if split == "test" else None,
        pll=options.pll if split == "test" else None,
    )


def set_test_precision(loaded: Loaded, wanted: str) -> str:
    """Put the model into the number format of the test, and onto its device; return the format.

    In single precision, surprisals are off by up to 1e-4 bits, more for large models; GPUs compute slowly in double.

    Args:
        loaded: the model.
        wanted: auto, fp64, fp32 or bf16.

    Raises:
        UserError: for another than auto of a model in 4 bits, which stays as it is.
    """
    if is_quantized(loaded.model.config):
        if wanted != "auto":
            raise UserError(f"--test_precision {wanted}: a model in 4 bits is tested as it is; leave it out")
        return "4bit"
    if wanted == "auto":
        wanted = "fp32" if loaded.device.type == "cuda" else "fp64"
    formats = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}
    loaded.model.to(loaded.device, formats[wanted])
    return wanted


def loss_names(options: FinetuneLmOptions, split: str) -> list[str]:
    """Return what the losses of a split are called: by their classes, with a number before repeated ones."""
    names = [loss_class.__name__ for loss_class in loss_list(options, split)]
    counts = [names[:index].count(name) + 1 for index, name in enumerate(names)]
    return [name if count == 1 else f"{count}.{name}" for name, count in zip(names, counts, strict=True)]


def make_losses(options: FinetuneLmOptions, model: Any, tokenizer: Any) -> dict[str, Losses]:
    """Make the losses of training and validation."""
    made = {}
    for split in ("train", "validation"):
        losses = []
        for loss_class in loss_list(options, split):
            name = loss_class.__name__
            kwargs = (options.loss_classes_kwargs.get(split) or {}).get(name) or {}
            # What concerns all texts of the run concerns those of its losses too.
            shared = {"max_length": options.max_length, "seed": options.seed, "bos": options.bos}
            taken = inspect.signature(loss_class).parameters
            kwargs = {key: value for key, value in shared.items() if key in taken} | kwargs
            losses.append(call(loss_class, f"loss_classes_kwargs.{split}.{name}", model, tokenizer, **kwargs))
            if not callable(losses[-1]) and not hasattr(losses[-1], "forward"):
                raise UserError(f"--loss_classes.{split}: {name} has neither __call__ nor forward, which give the loss")
        if not losses:
            raise UserError(f"--loss_classes.{split}: no loss")
        named = list(zip(loss_names(options, split), losses, strict=True))
        made[split] = Losses(named, options.loss_reduction_fns.get(split) or torch.sum)
    return made


def make_trainer(
    options: FinetuneLmOptions,
    loaded: Loaded,
    points: ResumePoints,
    stop: StopFlag,
    *,
    record: RunRecord | None = None,
    columns: Collection[str] = (),
    on_epoch: Callable[[LmHistory], None] | None = None,
    copy_model: bool = False,
) -> LanguageModelTrainer:
    """Make a trainer of the model.

    Args:
        options: as the user gave them, or as a trial of a study changed them.
        loaded: model and tokenizer.
        points: where resume points are saved.
        stop: the flag that signals set.
        record: run.json, or None.
        columns: for the losses, of the table of metrics.
        on_epoch: called after every epoch.
        copy_model: train a copy, so that the model can serve again.
    """
    model = copy.deepcopy(loaded.model) if copy_model else loaded.model
    model.to(loaded.device)
    if loaded.device.type == "cpu":
        use_cpu_dropout(model)
    if options.precision == "fp16" and loaded.device.type != "cuda":
        raise UserError("--precision fp16 needs --use_gpu and a GPU; bf16 and fp32 run on the CPU too")
    padded = why_padded_training(options, loaded, model)
    if padded is None:
        use_text_attention(model)
    if record and is_main_process():
        print(f"training batches: {'packed without padding' if padded is None else f'padded ({padded})'}")
    examples = {
        split: make_examples(options, loaded, split, dataset_name(path), read_text_file(path, limit))
        for split, path, limit in (
            ("train", cast(str, options.train_file), options.max_train_samples),
            ("validation", cast(str, options.validation_file), options.max_validation_samples),
        )
    }
    callbacks: list[Any] = options.model_pre_train_step_callbacks
    modifiers = [
        call(
            callback,
            f"model_pre_train_step_callbacks_kwargs.{callback.__name__}",
            model,
            loaded.tokenizer,
            **(options.model_pre_train_step_callbacks_kwargs.get(callback.__name__) or {}),
        )
        for callback in callbacks
    ]
    optimizer_class: Any = options.train_optimizer
    step = inspect.signature(optimizer_class.step).parameters if hasattr(optimizer_class, "step") else {}
    if "closure" in step and step["closure"].default is inspect.Parameter.empty:
        raise UserError(
            f"--train_optimizer {optimizer_class.__name__} computes the loss several times in a step, which training "
            "does not here; take one of those that do not, such as torch.optim.AdamW"
        )
    try:
        kwargs = options.train_optimizer_kwargs
        params = parameter_groups(model, optimizer_class) if options.decay_groups else model.parameters()
        optimizer = call(optimizer_class, "train_optimizer_kwargs", params=params, **kwargs)
    except (ValueError, TypeError) as error:
        # Optimizers check their numbers themselves.
        raise UserError(f"--train_optimizer_kwargs: {optimizer_class.__name__}: {error}") from None
    return LanguageModelTrainer(
        model=model,
        args=lm_training_arguments(
            points.folder,
            step_arguments(options, options.precision),
            epochs=options.epochs,
            train_batch_size=options.per_device_train_batch_size,
            validation_batch_size=options.per_device_validation_batch_size,
            seed=cast(int, options.seed),
            use_gpu=loaded.device.type == "cuda",
        ),
        optimizers=(optimizer, None),
        losses=make_losses(options, model, loaded.tokenizer),
        modifiers=modifiers,
        early_stopping=EarlyStopping(options.patience, options.min_epochs, options.delta),
        table=TokenTable(loaded.tokenizer, loaded.task, columns),
        packs=padded is None,
        points=points,
        stop=stop,
        record=record,
        on_epoch=on_epoch,
        train=examples["train"],
        validation=examples["validation"],
    )


def parameter_groups(model: torch.nn.Module, optimizer_class: Any) -> list[dict[str, Any]]:
    """Return the parameters in two groups, whose weights decay as the optimizer says and do not, as the Trainer's.

    Raises:
        UserError: for an optimizer without weight decay.
    """
    if "weight_decay" not in inspect.signature(optimizer_class).parameters:
        raise UserError(f"--decay_groups: {optimizer_class.__name__} has no weight_decay")
    # It reads nothing of the Trainer that it is a method of.
    decayed = set(Trainer.get_decay_parameter_names(cast(Any, None), model))
    named = list(model.named_parameters())
    return [
        {"params": [parameter for name, parameter in named if name in decayed]},
        {"params": [parameter for name, parameter in named if name not in decayed], "weight_decay": 0.0},
    ]


def add_metrics(trainer: LanguageModelTrainer, every: str, path: Path, columns: list[str]) -> str:
    """Let the trainer write the surprisals of all batches, if these are wanted; return what is written.

    Args:
        trainer: with its examples.
        every: auto, none, epoch or batch.
        path: of the table of metrics.
        columns: of that of all batches.
    """
    tokens = trainer.train_examples.lengths.sum() + trainer.validation_examples.lengths.sum()
    size = int(tokens * trainer.args.num_train_epochs * BYTES_OF_A_TOKEN)
    if trainer.args.world_size > 1:
        if every == "batch":
            raise UserError("--metrics_every batch: the surprisals of all batches are written by one process alone")
        return "epoch" if every == "auto" else every
    if every == "auto":
        every = "batch" if size <= LARGEST_METRICS else "epoch"
        if every == "epoch":
            print(
                f"metrics: the losses of epochs; the surprisals of all tokens in all batches would take up to "
                f"{size / 10**9:.1f} GB (--metrics_every batch)"
            )
    if every == "batch":
        trainer.metrics = TableWriter(path, columns)
    return every


def why_padded_training(options: FinetuneLmOptions, loaded: Loaded, model: torch.nn.Module) -> str | None:
    """Return why training batches are padded; None if they are packed."""
    if loaded.task == "seq2seq":
        return "sequence-to-sequence models are not computed in packs"
    if options.pad_to_max_length:
        return "--pad_to_max_length"
    # These read the model's own loss, or nothing; others may read the logits of padded batches.
    others = [loss.__name__ for loss in loss_list(options, "train") if loss not in (OutputsDefaultLoss, KLBaselineLoss)]
    if others:
        return f"{others[0]} may read the logits of padded batches"
    return why_padded(model, loaded.device, options.precision, training=True)
