"""The Trainer subclass for classifiers and its callbacks.

What the Trainer's own means get wrong or leave out (each has a test): batches without padding that resume
exactly, a loss that is right under gradient accumulation and with several processes, an evaluation that
counts every text once, a stop on signals that all processes agree on, and resume points known to be whole.
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from utils.data.batching import StepCollator
from utils.data.windows import TextPieces, WholeTexts
from utils.errors import Diverged, UserError
from utils.evaluation.inference import predict_logits
from utils.evaluation.labelling import Labelling
from utils.evaluation.metrics import metric_title
from utils.models.device import to_device
from utils.runs.distributed import is_sharded
from utils.training.trainer import History, ResumableTrainer, print_line

# Lines of progress where no bar is shown.
LOGS_PER_RUN = 20


@dataclass(eq=False)
class ClassifierHistory(History):
    """`epochs` are the finished epochs as in train.json; the other fields belong to the epoch under way."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float | torch.Tensor = 0.0
    steps: int = 0
    seconds: float = 0.0

    def state(self) -> dict[str, Any]:
        """Return the attributes as the Trainer stores them, as numbers."""
        return {"args": {}, "attributes": vars(self) | {"loss_sum": float(self.loss_sum)}}

    def end_epoch(self, epoch: dict[str, Any]) -> None:
        """Add a finished epoch and begin the next."""
        self.epochs.append(epoch)
        self.loss_sum, self.steps, self.seconds = 0.0, 0, 0.0


class ClassifierTrainer(ResumableTrainer):
    """Trains a classifier on steps of random texts.

    Args:
        lengths: tokens of every training text, shape [n].
        num_cut: how many of the training texts had more tokens.
        labelling: how logits become labels.
        read: gives the rows that are read of texts when they are evaluated.
        step_collator: makes of a step's texts the batches that are computed one by one.
        batches_note: says how these are.
        precision: fp32, bf16 or fp16; of evaluation (that of training is in the arguments).
        token_budget: tokens per evaluation batch, None for what suits the device.
        kwargs: as for `ResumableTrainer`.
    """

    def __init__(
        self,
        *,
        lengths: np.ndarray,
        num_cut: int,
        labelling: Labelling,
        step_collator: StepCollator,
        batches_note: str,
        precision: str,
        token_budget: int | None,
        read: Callable[[Any], WholeTexts | TextPieces] = WholeTexts,
        **kwargs: Any,
    ):
        super().__init__(lengths=lengths, history=ClassifierHistory(), **kwargs)
        self.num_cut = num_cut
        self.labelling = labelling
        self.read = read
        self.precision = precision
        self.token_budget = token_budget
        self.step_collator = step_collator
        self.batches_note = batches_note
        if self.is_fsdp_enabled:
            self._choose_sharded_layers()
        elif is_sharded():
            raise UserError("accelerate shards models among GPUs only, one process each; without them leave FSDP out")
        # A number and not a ratio, which a resumed run would take for a change.
        steps = self.args.num_train_epochs * len(self.sampler) / self.args.gradient_accumulation_steps
        self.args.logging_steps = max(1, math.ceil(steps / LOGS_PER_RUN))

    def make_recorder(self) -> TrainerCallback:
        """Return the callback that fills the history."""
        return EpochRecorder(self)

    def _choose_sharded_layers(self) -> None:
        """Shard the layers as units, but not what holds the input embeddings.

        accelerate makes a unit of the embeddings by themselves and fails if one around them exists, which
        it makes of XLM-R's own list of what not to split.
        """
        plugin, embeddings = self.accelerator.state.fsdp_plugin, self.model.get_input_embeddings()
        if plugin.transformer_cls_names_to_wrap is None:
            plugin.transformer_cls_names_to_wrap = sorted(
                {
                    type(module).__name__
                    for module in self.model.modules()
                    if type(module).__name__ in self.model._no_split_modules
                    and not any(part is embeddings for part in module.modules())
                }
            )

    def training_step(
        self, model: Any, inputs: dict[str, torch.Tensor], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Compute the step's batches one by one; their gradients add up, and processes exchange them once."""
        batches = [to_device(batch, self.args.device) for batch in inputs["batches"]]
        loss = torch.zeros((), dtype=torch.float64, device=self.args.device)
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss += super().training_step(model, batch, num_items_in_batch).double()
        # A tensor, because reading a number would wait for the GPU.
        self.history.loss_sum = self.history.loss_sum + loss
        return loss

    @property
    def training_collator(self) -> StepCollator:
        """What makes the batches of a step."""
        return self.step_collator

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return a loader whose dataset `evaluation_loop` reads; batches are made there."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return DataLoader(dataset, collate_fn=self.data_collator)

    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Predict every text once, over all processes, and compute the metrics from the whole.

        Raises:
            Diverged: if the loss is NaN or infinite.
        """
        dataset = dataloader.dataset
        logits = predict_logits(
            self.model,
            self.read(dataset),
            self.data_collator,
            self.args.device,
            token_budget=self.token_budget,
            precision=self.precision,
            description="validating" if self.is_world_process_zero() else None,
        )
        labels = np.asarray(dataset["label"][:])
        decided = self.labelling.decide(self.labelling.probabilities(logits))
        metrics = self.labelling.score(labels, decided) | {"loss": self.labelling.loss(logits, labels)}
        if not math.isfinite(metrics["loss"]):
            # The metrics of such a model look like those of a bad one.
            raise Diverged(
                f"the loss is {metrics['loss']} after {self.state.epoch:.3g} epochs, so the model is of no use\n"
                "a lower --learning_rate may help, or --precision fp32"
            )
        return EvalLoopOutput(
            predictions=logits,
            label_ids=labels,
            metrics={f"{metric_key_prefix}_{name}": value for name, value in metrics.items()},
            num_samples=len(labels),
        )

    def note_progress(self) -> None:
        """Note the epoch and the best macro F1 in run.json."""
        if self.is_world_process_zero() and self.record:
            scores = [epoch["validation"]["macro_f1"] for epoch in self.history.epochs]
            self.record.progress(self.state.epoch, best_macro_f1=max(scores, default=None))

    def padding_fraction(self) -> float:
        """Return the padding in one epoch, all processes together."""
        sampler = self.sampler
        shares = [sampler.share(step, rank) for step in sampler.steps(1) for rank in range(sampler.num_processes)]
        return self.step_collator.padding_fraction(sampler.lengths, shares)


class EpochRecorder(TrainerCallback):
    """Keeps the history of the epochs and prints it: a line per epoch, some in between where no bar is shown."""

    def __init__(self, trainer: ClassifierTrainer):
        self.trainer = trainer
        self.started = 0.0
        self.learning_rate = None
        # Whether the epoch has been saved, and what saving one took.
        self.saved = False
        self.save_seconds = 0.0

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.saved:
            self.save_seconds = time.monotonic() - self.started
        self.started = time.monotonic()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Read before the schedule moves on.
        self.learning_rate = kwargs["lr_scheduler"].get_last_lr()[0]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.history.steps += 1
        now = time.monotonic()
        self.trainer.history.seconds += now - self.started
        self.started = now

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        self.trainer.note_progress()
        if args.disable_tqdm and state.is_world_process_zero:
            rate = logs["learning_rate"]
            print(f"epoch {state.epoch:.2f}, step {state.global_step}/{state.max_steps}: ", end="")
            line = f"loss {float(logs['loss']):.4f}, learning rate {rate:.2e}; {self.trainer.clock(state)}"
            print(line, flush=True)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        history = self.trainer.history
        loss = torch.as_tensor(history.loss_sum, dtype=torch.float64, device="cpu").to(args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(loss)
        epoch: dict[str, Any] = {
            "epoch": round(state.epoch),
            # Nothing was trained with --num_epochs 0.
            "loss": float(loss) / args.world_size / history.steps if history.steps else None,
            "learning_rate": self.learning_rate,
            "seconds": round(history.seconds, 3),
            "validation": {
                name.removeprefix("eval_"): value
                for name, value in (metrics or {}).items()
                if name != "epoch" and "_per_second" not in name
            },
        }
        validation = epoch["validation"]
        validation["seconds"] = validation.pop("runtime", None)
        history.end_epoch(epoch)
        control.should_save = control.should_save and self._is_worth_saving(args, state, control)
        self.trainer.note_progress()
        self.started = time.monotonic()
        self.saved = False
        if state.is_world_process_zero:
            loss = "" if epoch["loss"] is None else f"loss {epoch['loss']:.4f}, "
            headline = self.trainer.labelling.headline
            line = (
                f"epoch {epoch['epoch']}: {loss}validation loss {validation['loss']:.4f}, "
                f"{metric_title(headline)} {validation[headline]:.3f}, macro F1 {validation['macro_f1']:.3f} "
                f"({epoch['seconds']:.0f} s + {validation['seconds']:.0f} s); {self.trainer.clock(state)}"
            )
            print_line(args, line)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.saved = True

    def _is_worth_saving(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> bool:
        """Return whether to save a resume point: not of an epoch that took less time than saving it would.

        The best one so far is always saved, since training may end with its weights, and the last one, which is kept
        where the user wants it.
        """
        epochs = self.trainer.history.epochs
        *earlier, score = (epoch["validation"]["macro_f1"] for epoch in epochs)
        last = control.should_training_stop or state.global_step >= state.max_steps
        if last or score > max(earlier, default=-1.0):
            return True
        quick = torch.tensor(epochs[-1]["seconds"] < self.save_seconds, dtype=torch.float32, device=args.device)
        if args.world_size > 1:
            # Times differ between processes, and all of them take part in saving.
            torch.distributed.all_reduce(quick)
        return float(quick) < args.world_size


class EpochReport(TrainerCallback):
    """Reports the validation macro F1 of every epoch, for a study.

    Args:
        report: called with the epoch and the macro F1; ends the training by an exception.
    """

    def __init__(self, report: Callable[[int, float], None]):
        self.report = report

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.report(round(state.epoch), (metrics or {})["eval_macro_f1"])
