"""The Trainer subclass for language models.

The Trainer's loop does the work. What it does not express is done here: batches that know their texts and
metadata, several losses and the function that makes one of them, tables of surprisals, callbacks between the
backward pass and the optimizer's step (its `on_pre_optimizer_step`), validation losses that are means over
tokens, early stopping with a least number of epochs, and the best weights, which are kept in memory: the
Trainer would write the model and the optimizer to disk after each of the many short epochs.
"""

import itertools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from utils.data.lm_examples import Batch, TextExamples
from utils.data.masking import IGNORED
from utils.errors import Diverged, UserError
from utils.evaluation.surprisal import TableWriter, evaluate
from utils.evaluation.token_table import Row, TokenTable
from utils.evaluation.tokens import Tokens
from utils.models.adapters import is_adapted
from utils.models.device import to_device
from utils.models.packing import in_padded_places, pack_language_batch
from utils.runs.distributed import is_main_process
from utils.runs.stop import StopFlag
from utils.training.lm_history import EarlyStopping, LmHistory
from utils.training.lm_losses import Losses
from utils.training.trainer import ResumableTrainer, StopCallback, one_gpu, print_line

BEST_FILE = "best.safetensors"
# Rows of metrics kept in memory before they are written.
ROWS_KEPT = 20_000


class LanguageModelTrainer(ResumableTrainer):
    """Fine-tunes a language model.

    Args:
        train: training examples.
        validation: validation examples, whose loss chooses the best weights.
        losses: of `train` and `validation`.
        modifiers: called with epoch and batch before the optimizer's step; `restore`, if they have it, after.
        early_stopping: says when training is over.
        table: makes the rows of the metrics.
        metrics: where the surprisals of all batches go; None computes none.
        packs: compute the training batches as rows without padding.
        on_epoch: called with the history after every epoch.
        kwargs: as for `ResumableTrainer`.
    """

    def __init__(
        self,
        *,
        train: TextExamples,
        validation: TextExamples,
        losses: dict[str, Losses],
        modifiers: list[Any],
        early_stopping: EarlyStopping,
        table: TokenTable,
        metrics: TableWriter | None = None,
        packs: bool = False,
        on_epoch: Callable[[LmHistory], None] | None = None,
        **kwargs: Any,
    ):
        kwargs |= {"train_dataset": range(len(train)), "eval_dataset": range(len(validation))}
        super().__init__(lengths=train.lengths, history=LmHistory(), **kwargs)
        # The loss is what the loss classes say; where several batches make a step, `compute_loss` weights them.
        self.model_accepts_loss_kwargs = True
        # Of the batches of a step, the one under way, from 1.
        self.batch_of_step = 0
        self.train_examples, self.validation_examples = train, validation
        self.losses, self.modifiers, self.early_stopping = losses, modifiers, early_stopping
        self.table, self.metrics, self.on_epoch, self.packs = table, metrics, on_epoch, packs
        self.best_weights: dict[str, Tensor] | None = None
        self.waiting: list[Tokens] = []

    def make_recorder(self) -> TrainerCallback:
        """Return the callback that fills the history and decides about the next epoch."""
        return EpochCallback(self)

    def make_stop_callback(self, stop: StopFlag) -> StopCallback:
        """Return the callback that alone saves resume points."""
        return SaveOnStop(self, stop)

    @property
    def training_collator(self) -> Callable[[list[int]], dict[str, Any]]:
        """What makes a batch of numbers of examples, with what describes them under the key batch."""
        return self._collate

    def _collate(self, indices: list[int]) -> dict[str, Any]:
        batch = self.train_examples.batch(indices, self.sampler.epoch)
        return {**batch.inputs, "batch": batch}

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return a loader that `evaluation_loop` does not read; batches are made there."""
        return DataLoader(self.eval_dataset)

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        """Train, unless what was trained before was enough."""
        if resume_from_checkpoint is None and self.metrics:
            # Those of a run that was killed before its first resume point.
            self.metrics.cut(0)
        if not self.early_stopping(self.history):
            super().train(resume_from_checkpoint=resume_from_checkpoint)
        if self.metrics:
            self.metrics.wait()

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, int]:
        """Return the batches of a step, and how many tokens are predicted in them."""
        samples, _ = super().get_batch_samples(*args, **kwargs)
        self.batch_of_step = 0
        tokens = sum(count_labels(inputs["batch"], self.table.task) for inputs in samples)
        return samples, int(self.added([float(tokens)])[0])

    def added(self, numbers: list[float]) -> list[float]:
        """Return numbers added up over all processes."""
        if self.args.world_size == 1:
            return numbers
        both = torch.tensor(numbers, dtype=torch.float64, device=self.args.device)
        torch.distributed.all_reduce(both)
        return both.tolist()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a training batch; its parts and surprisals go to the history and the metrics."""
        batch: Batch = inputs.pop("batch")
        self.batch_of_step += 1
        packed = pack_language_batch(batch.inputs, self.model, self.table.task == "lm") if self.packs else None
        packed = packed and to_device(packed, self.args.device)
        rows = packed.pop("packed_rows") if packed else None
        outputs = model(**(packed or inputs))
        loss, parts = self.losses["train"](outputs, inputs["labels"])
        tokens = count_labels(batch, self.table.task)
        where = {"split": "train", "epoch": self.sampler.epoch + 1, "batch": self.batch_number + 1}
        logits = outputs.logits
        if rows is not None and self.metrics:
            logits = in_padded_places(logits.detach(), rows, tuple(inputs["input_ids"].shape))
        values = [float(value) for value in parts.values()]
        total, *sums = self.added([tokens, *(value * tokens for value in values)])
        if self.args.world_size > 1 and total:
            values = [value / total for value in sums]
        self._note({**where, **dict(zip(parts, values, strict=True)), "tokens": int(total)}, batch, logits)
        batches = self.args.gradient_accumulation_steps * self.args.world_size
        if batches > 1 and num_items_in_batch:
            # The mean over the tokens of the step, as if its batches were one; processes share the mean of theirs.
            loss = loss * (tokens * self.args.world_size / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    @property
    def batch_number(self) -> int:
        """Number of the batch under way in its epoch, from 0."""
        batches = self.args.gradient_accumulation_steps
        steps = -(-len(self.sampler) // batches)
        return self.state.global_step % steps * batches + self.batch_of_step - 1

    def _note(self, row: Row, batch: Batch, logits: Tensor) -> None:
        """Keep the losses of a batch, and the surprisals of its tokens if these are written."""
        if not math.isfinite(row["loss"]):
            raise Diverged(
                f"the {row['split']} loss is {row['loss']} in batch {row['batch']} of epoch {row['epoch']}\n"
                "a lower learning rate may help: --train_optimizer_kwargs.lr"
            )
        self.history.batches.append(row)
        if self.metrics:
            name = (self.train_examples if row["split"] == "train" else self.validation_examples).name
            more = {key: value for key, value in row.items() if key != "tokens"}
            self.waiting.append(self.table.tokens(batch, logits, {**more, "dataset_name": name}))
            if sum(map(len, self.waiting)) > ROWS_KEPT:
                self._write_rows()

    def _write_rows(self) -> None:
        if self.metrics and self.waiting:
            self.metrics.write(Tokens.joined(self.waiting).to_arrow(self.table.decode))
            self.waiting = []

    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Compute the validation losses: means over the tokens that have labels, not over batches."""
        epoch = round(self.state.epoch or 0)
        data = self.validation_examples
        # What the losses draw is the same after every epoch, and training draws as if nothing was validated.
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(self.args.seed)
            share = self.args.process_index, self.args.world_size
            batches = evaluate(self.model, data, self.args.per_device_eval_batch_size, epoch, share=share)
            noted = len(self.history.batches)
            for number, (_, batch, outputs) in enumerate(batches, 1):
                _, parts = self.losses["validation"](outputs, batch.inputs["labels"].to(self.args.device))
                numbers = {name: float(value) for name, value in parts.items()}
                row = {"split": "validation", "epoch": epoch, "batch": number, **numbers}
                self._note({**row, "tokens": count_labels(batch, self.table.task)}, batch, outputs.logits)
        if share[1] > 1:
            self.history.batches[noted:] = self._gathered(self.history.batches[noted:])
        means = self.mean_losses("validation", epoch)
        return EvalLoopOutput(
            predictions=None,
            label_ids=None,
            metrics={f"{metric_key_prefix}_{name}": value for name, value in means.items()},
            num_samples=len(data),
        )

    def _gathered(self, rows: list[Row]) -> list[Row]:
        """Return the rows of all processes, numbered anew."""
        parts: list[list[Row]] = [[] for _ in range(self.args.world_size)]
        torch.distributed.all_gather_object(parts, rows)
        return [row | {"batch": number} for number, row in enumerate(itertools.chain.from_iterable(parts), 1)]

    def mean_losses(self, split: str, epoch: int) -> dict[str, float]:
        """Return the losses of an epoch: means over the tokens of its batches."""
        batches = [row for row in self.history.batches if row["split"] == split and row["epoch"] == epoch]
        tokens = sum(row["tokens"] for row in batches)
        if not tokens:
            raise UserError(
                f"no {split} example has a token to predict: --data_preprocessing_fn.{split} has masked nothing"
            )
        names = [name for name in batches[0] if name not in ("split", "epoch", "batch", "tokens")]
        return {name: sum(row[name] * row["tokens"] for row in batches) / tokens for name in names}

    def keep_best(self) -> None:
        """Keep the weights as they are: of a model with adapters, those that are trained."""
        model = self.model
        # What lies frozen beside adapters may be packed in 4 bits, which load_state_dict() does not take back.
        weights = {n: p for n, p in model.named_parameters() if p.requires_grad} if is_adapted(model) else None
        self.best_weights = {
            name: value.detach().to("cpu", copy=True) for name, value in (weights or model.state_dict()).items()
        }

    def load_best(self) -> None:
        """Give the model the weights of the best epoch."""
        # Training in fewer bits has put casts around the model, of which the test knows nothing.
        model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        model.load_state_dict(self.best_weights, strict=not is_adapted(self.model))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the weights of a resume point with the best ones, and all rows of metrics that belong to it."""
        from safetensors.torch import save_file

        # Before the Trainer's state, which is written last and holds the history.
        self._write_rows()
        self.history.metrics_size = self.metrics.size() if self.metrics else 0
        super().save_model(output_dir, _internal_call)
        if self.best_weights is not None and output_dir is not None:
            save_file(self.best_weights, str(Path(output_dir) / BEST_FILE))

    def load_history(self, checkpoint: Path) -> None:
        """Continue with the epochs, the best weights and the metrics of a resume point."""
        from safetensors.torch import load_file

        super().load_history(checkpoint)
        if (checkpoint / BEST_FILE).is_file() and is_main_process():
            self.best_weights = load_file(str(checkpoint / BEST_FILE))
        if self.metrics:
            self.metrics.cut(self.history.metrics_size)


class EpochCallback(TrainerCallback):
    """Calls the modifiers around the optimizer's step; after an epoch, notes it and decides about the next."""

    def __init__(self, trainer: LanguageModelTrainer):
        self.trainer = trainer
        self.started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started = time.monotonic()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for modifier in self.trainer.modifiers:
            modifier(epoch=self.trainer.sampler.epoch, batch=self.trainer.batch_number)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for modifier in self.trainer.modifiers:
            if hasattr(modifier, "restore"):
                modifier.restore()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.monotonic()
        self.trainer.history.seconds += now - self.started
        self.started = now

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        trainer, history = self.trainer, self.trainer.history
        trainer._write_rows()
        number = round(state.epoch)
        before = history.best
        train, validation = trainer.mean_losses("train", number), trainer.mean_losses("validation", number)
        history.epochs.append(
            {
                "epoch": number,
                "loss": train["loss"],
                "validation_loss": validation["loss"],
                "losses": {"train": train, "validation": validation},
                "seconds": round(history.seconds, 3),
            }
        )
        history.seconds = 0.0
        is_best = before is None or history.best is not before
        if is_best and state.is_world_process_zero:
            trainer.keep_best()
        if trainer.record and state.is_world_process_zero:
            trainer.record.progress(state.epoch, best_validation_loss=history.best["validation_loss"])
        line = f"epoch {number}: loss {train['loss']:.4f}, validation loss {validation['loss']:.4f}"
        line += f" ({history.epochs[-1]['seconds']:.1f} s{', best' if is_best else ''})"
        line += f"; {trainer.clock(state)}"
        if state.is_world_process_zero:
            print_line(args, line)
        self.started = time.monotonic()
        if trainer.on_epoch:
            trainer.on_epoch(history)
        control.should_training_stop = control.should_training_stop or trainer.early_stopping(history)
        return control


class SaveOnStop(StopCallback):
    """Saves a resume point on a signal and every half hour, at the end of an epoch too."""

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self.agreed or self.is_due:
            # After the evaluation, which comes first.
            control.should_save = True
        return control


def count_labels(batch: Batch, task: str) -> int:
    """Return how many tokens of a batch are predicted."""
    labels = batch.inputs["labels"]
    return int((labels[:, 1:] if task == "lm" else labels).ne(IGNORED).sum())


def lm_training_arguments(
    checkpoints: Path,
    steps: dict[str, Any],
    *,
    epochs: int,
    train_batch_size: int,
    validation_batch_size: int,
    seed: int,
    use_gpu: bool,
) -> TrainingArguments:
    """Return the Trainer's arguments; nothing is written but by `SaveOnStop`.

    Args:
        checkpoints: folder of the resume points.
        steps: as `utils.training.options.step_arguments` returns them.
        epochs: passes over the training examples.
        train_batch_size, validation_batch_size: examples.
        seed: of everything random.
        use_gpu: or the CPU.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    arguments = TrainingArguments(
        output_dir=str(checkpoints.resolve()),
        num_train_epochs=epochs,
        per_device_train_batch_size=train_batch_size,
        per_device_eval_batch_size=validation_batch_size,
        seed=seed,
        use_cpu=not use_gpu,
        dataloader_pin_memory=False,
        eval_strategy="epoch",
        save_strategy="no",
        save_total_limit=1,
        # What trackers show.
        logging_strategy="no" if steps["report_to"] == "none" else "epoch",
        logging_nan_inf_filter=False,
        disable_tqdm=not sys.stderr.isatty(),
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        **steps,
    )
    one_gpu(arguments)
    return arguments
