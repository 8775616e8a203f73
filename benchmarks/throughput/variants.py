"""The variants: the earlier loop, the Trainer as it is and as an expert sets it, and this project."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

from benchmarks.throughput.meter import Meter
from utils.data.windows import WholeTexts
from utils.evaluation.inference import predict_logits
from utils.evaluation.labelling import OneLabel
from utils.models.attention import use_cpu_dropout
from utils.models.device import keep_freed_memory
from utils.models.packing import evaluation_collator
from utils.models.weights import convert_weights
from utils.runs.resume_points import ResumePoints
from utils.runs.stop import StopFlag
from utils.training.classifier_losses import ClassificationLoss
from utils.training.classifier_options import FinetuneOptions
from utils.training.classifier_trainer import ClassifierTrainer
from utils.training.options import training_arguments
from utils.training.steps import choose_batches


@dataclass
class Setting:
    """What every variant gets."""

    model: Any
    tokenizer: Any
    dataset: Any
    batch_size: int
    max_length: int
    precision: str
    device: torch.device
    scratch: Path
    meter: Meter

    @property
    def rows(self) -> Any:
        """The dataset as transformers' collators take it."""
        return self.dataset.rename_column("label", "labels").select_columns(["input_ids", "labels", "length"])


class NoteSteps(TrainerCallback):
    """Notes the end of every step, behind the optimizer's."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.batches: list[Any] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the batches that training_step has left here."""
        self.meter.step(self.batches)


class TimedTrainer(Trainer):
    """Leaves every step's batch to be noted."""

    notes: NoteSteps

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Compute a step."""
        self.notes.batches = [inputs]
        return super().training_step(model, inputs, num_items_in_batch)


class TimedClassifierTrainer(ClassifierTrainer):
    """Leaves every step's batches to be noted."""

    notes: NoteSteps

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Compute a step."""
        self.notes.batches = inputs["batches"]
        return super().training_step(model, inputs, num_items_in_batch)


def note_steps(trainer: TimedTrainer | TimedClassifierTrainer, meter: Meter) -> None:
    """Make a trainer note its steps."""
    trainer.notes = NoteSteps(meter)
    trainer.add_callback(trainer.notes)


def train_earlier(setting: Setting) -> None:
    """The loop of the earlier scripts: everything padded to the longest length, fp32 on the CPU, no grouping."""
    loader = DataLoader(setting.dataset, setting.batch_size, shuffle=True, collate_fn=_pad_all(setting))
    on_gpu = setting.device.type == "cuda"
    model = setting.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    scaler = torch.amp.GradScaler(enabled=on_gpu)
    for batch in loader:
        batch = {name: tensor.to(setting.device) for name, tensor in batch.items()}
        optimizer.zero_grad()
        with torch.autocast(setting.device.type, enabled=on_gpu):
            loss = torch.nn.functional.cross_entropy(model(**batch).logits, batch["labels"])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        setting.meter.step([batch])


def evaluate_earlier(setting: Setting) -> None:
    """Batches of 64, padded to the longest length."""
    model = setting.model.eval()
    for batch in DataLoader(setting.dataset, 64, collate_fn=_pad_all(setting)):
        with torch.no_grad():
            model(**{name: tensor.to(setting.device) for name, tensor in batch.items()}).logits.argmax(-1).cpu()


def _pad_all(setting: Setting) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = {"input_ids": [row["input_ids"] for row in rows]}
        batch = setting.tokenizer.pad(
            ids, padding="max_length", max_length=setting.max_length, return_tensors="pt"
        )  # fmt: skip
        return {**batch, "labels": torch.tensor([row["label"] for row in rows])}

    return collate


def train_trainer(setting: Setting) -> None:
    """The Trainer with default arguments, but the same batch size."""
    _trainer(setting, per_device_train_batch_size=setting.batch_size).train()


def train_expert(setting: Setting) -> None:
    """The Trainer as an expert sets it: batches of similar length, the fused AdamW, bf16 where the machine has it.

    The dataset's rows stand in the order in which train_sampling_strategy="group_by_length" draws them from a corpus.
    """
    _trainer(
        setting,
        per_device_train_batch_size=setting.batch_size,
        train_sampling_strategy="sequential",
        optim="adamw_torch_fused",
        bf16=setting.precision == "bf16",
    ).train()


def evaluate_trainer(setting: Setting) -> None:
    """The Trainer's `predict` with default arguments."""
    _trainer(setting).predict(setting.rows)


def evaluate_expert(setting: Setting) -> None:
    """The Trainer's `predict` on texts sorted by length, the model in bf16 where the machine has it."""
    trainer = _trainer(setting, per_device_eval_batch_size=32, bf16_full_eval=setting.precision == "bf16")
    trainer.predict(setting.rows.sort("length", reverse=True))


def _trainer(setting: Setting, **arguments: Any) -> TimedTrainer:
    trainer = TimedTrainer(
        setting.model,
        TrainingArguments(
            str(setting.scratch), num_train_epochs=1, save_strategy="no", disable_tqdm=True, report_to="none",
            use_cpu=setting.device.type == "cpu", dataloader_pin_memory=setting.device.type == "cuda", **arguments
        ),
        train_dataset=setting.rows,
        data_collator=DataCollatorWithPadding(setting.tokenizer),
    )  # fmt: skip
    note_steps(trainer, setting.meter)
    return trainer


def train_ours(setting: Setting, sampling: str) -> None:
    """What finetune.py does."""
    options = FinetuneOptions(model_name="benchmark", train_langs="all", train_sampling=sampling)
    arguments = training_arguments(
        options,
        setting.scratch,
        "benchmark",
        batch_size=setting.batch_size,
        num_epochs=1,
        precision=setting.precision,
    )
    arguments.set_evaluate("no")
    arguments.set_save("no")
    arguments.load_best_model_at_end = False
    keep_freed_memory()
    if setting.device.type == "cpu":
        use_cpu_dropout(setting.model)
    batches = choose_batches(setting.model, setting.tokenizer, options, setting.device, setting.precision)
    trainer = TimedClassifierTrainer(
        model=setting.model,
        args=arguments,
        train_dataset=setting.dataset,
        data_collator=batches.evaluation,
        step_collator=batches.training,
        batches_note=batches.note,
        compute_loss_func=ClassificationLoss(),
        lengths=setting.dataset.with_format("numpy")["length"][:],
        num_cut=0,
        labelling=OneLabel([setting.model.config.id2label[index] for index in range(setting.model.config.num_labels)]),
        precision=setting.precision,
        token_budget=None,
        points=ResumePoints(setting.scratch / "points", "benchmark"),
        stop=StopFlag(setting.scratch / "handover", lambda: None),
        record=None,
    )
    note_steps(trainer, setting.meter)
    trainer.train()


def evaluate_ours(setting: Setting, precision: str | None = None) -> None:
    """What evaluate.py does."""
    keep_freed_memory()
    precision = precision or setting.precision
    convert_weights(setting.model, setting.device, precision)
    collator = evaluation_collator(setting.model, setting.tokenizer, setting.device, precision)
    predict_logits(setting.model, WholeTexts(setting.dataset), collator, setting.device, precision=precision)


VARIANTS: dict[str, dict[str, Callable[[Setting], None]]] = {
    "train": {
        "earlier": train_earlier,
        "trainer": train_trainer,
        "trainer_expert": train_expert,
        "trainer_expert_own_dropout": train_expert,
        "packed": partial(train_ours, sampling="packed"),
        "packed_own_dropout": partial(train_ours, sampling="packed"),
        "length": partial(train_ours, sampling="length"),
        "random": partial(train_ours, sampling="random"),
    },
    "evaluate": {
        "earlier": evaluate_earlier,
        "trainer": evaluate_trainer,
        "trainer_expert": evaluate_expert,
        "packed": evaluate_ours,
        "int8": partial(evaluate_ours, precision="int8"),
    },
}


def run(task: str, variant: str, setting: Setting) -> None:
    """Run a variant; the meter has its figures."""
    if task == "evaluate":

        def note(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            setting.meter.step([kwargs])

        setting.model.register_forward_hook(note, with_kwargs=True)
    VARIANTS[task][variant](setting)
