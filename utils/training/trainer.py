"""What the trainers of classifiers and of language models share: history, batches, progress, stopping, resuming."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState

from utils.cli.progress import clock, time_left
from utils.data.batching import TrainBatchSampler
from utils.errors import Interrupted
from utils.runs.distributed import is_main_process
from utils.runs.record import RunRecord
from utils.runs.resume_points import TRAINER_STATE, ResumePoints, read_history
from utils.runs.stop import AFTER, StopFlag, name_of


@dataclass(eq=False)
class History(TrainerCallback, ExportableState):
    """What has been trained so far; a callback only so that the Trainer saves and restores it with its state.

    The Trainer writes `state` to trainer_state.json and makes a new object of it when it resumes, so a trainer's
    history is looked up among its callbacks (`ResumableTrainer.history`). Names of subclasses end in History, by
    which `utils.runs.resume_points.read_history` finds them.
    """

    def state(self) -> dict[str, Any]:
        """Return the attributes as the Trainer stores them."""
        return {"args": {}, "attributes": asdict(self)}


class EpochDataLoader(DataLoader):
    """A DataLoader that passes the Trainer's `set_epoch` on to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) whose batches the next iteration gives."""
        self.batch_sampler.set_epoch(epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class ResumableTrainer(Trainer):
    """A Trainer whose batches are a function of seed and epoch, that stops on signals and resumes exactly.

    Args:
        lengths: tokens of every training example, shape [n].
        history: of this training, empty.
        points: where resume points are saved.
        stop: the flag that signals set.
        record: where progress is noted; None notes nothing.
        kwargs: as for `transformers.Trainer`.
    """

    def __init__(
        self,
        *,
        lengths: np.ndarray,
        history: History,
        points: ResumePoints,
        stop: StopFlag,
        record: RunRecord | None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.points = points
        self.record = record
        # When, and at which step, this process began to train.
        self.began: tuple[float, int] | None = None
        self.sampler = TrainBatchSampler(
            lengths,
            self.args.per_device_train_batch_size,
            seed=self.args.seed,
            num_processes=self.args.world_size,
            process_index=self.args.process_index,
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        if not self.args.disable_tqdm:
            self.add_callback(ProgressBar())
        self.add_callback(history)
        self.add_callback(self.make_recorder())
        self.add_callback(self.make_stop_callback(stop))

    def make_recorder(self) -> TrainerCallback:
        """Return the callback that fills the history."""
        raise NotImplementedError

    def make_stop_callback(self, stop: StopFlag) -> "StopCallback":
        """Return the callback that saves resume points and ends the training on a signal."""
        return StopCallback(self, stop)

    @property
    def history(self) -> Any:
        """The history: the one given, or the one that the Trainer has made of a resume point."""
        return next(callback for callback in self.callback_handler.callbacks if isinstance(callback, History))

    def load_history(self, checkpoint: Path) -> None:
        """Continue with the history of a resume point."""
        for name, value in read_history(checkpoint).items():
            setattr(self.history, name, value)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the weights of a resume point, the first of its files."""
        if is_main_process():
            self.points.prepare()
        # The others write their random states without waiting, and nothing may lie there before the mark.
        self.accelerator.wait_for_everyone()
        super().save_model(output_dir, _internal_call)

    def clock(self, state: TrainerState) -> str:
        """Return the time, and how long training will take if all goes on as since it began or went on."""
        if self.began is None or state.global_step <= self.began[1]:
            return clock()
        started, step = self.began
        rate = (time.monotonic() - started) / (state.global_step - step)
        return f"{clock()}, {time_left(rate * (state.max_steps - state.global_step))}"

    @property
    def training_collator(self) -> Callable[[list[Any]], dict[str, Any]]:
        """What makes a batch of training examples."""
        return self.data_collator

    def get_train_dataloader(self) -> DataLoader:
        """Return this process's batches; they are not sharded again by accelerate."""
        return EpochDataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=self.training_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )


def one_gpu(arguments: TrainingArguments) -> None:
    """Keep the Trainer from torch.nn.DataParallel, which is slower than one GPU; say how all of them can be used."""
    if arguments.n_gpu > 1:
        gpus, arguments._n_gpu = arguments.n_gpu, 1
        print(f"using 1 of {gpus} GPUs; all of them: torchrun --nproc-per-node={gpus} {' '.join(sys.argv)}")


def run_trainer(trainer: ResumableTrainer, patience: int | None, stop: StopFlag) -> None:
    """Train, continuing from the newest sound resume point if there is one.

    Args:
        trainer: of the run.
        patience: of transformers' early stopping, None without.
        stop: the flag that signals set.
    """
    if is_main_process():
        for name in trainer.points.remove_unsound():
            print(f"removed {name}, which was not written to its end, has been damaged or is another run's")
    trainer.accelerator.wait_for_everyone()
    point = trainer.points.last()
    if point is not None:
        trainer.load_history(point)
        if is_main_process():
            print(f"going on from {point}")
    if point is not None and patience_exhausted(point, patience):
        trainer.state = TrainerState.load_from_json(str(point / TRAINER_STATE))
        trainer._load_best_model()
    else:
        stop.training = True
        trainer.train(resume_from_checkpoint=str(point) if point else None)
        stop.training = False
    stop.phase = AFTER


def patience_exhausted(checkpoint: Path, patience: int | None) -> bool:
    """Return whether early stopping had already decided to stop when this resume point was written."""
    if patience is None:
        return False
    state = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
    stored = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {})
    stored = stored[0] if isinstance(stored, list) else stored
    return stored.get("attributes", {}).get("early_stopping_patience_counter", 0) >= patience


class ProgressBar(ProgressCallback):
    """The Trainer's bar without its dictionaries of logged values, which the recorders print as sentences."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Print nothing."""


def print_line(args: TrainingArguments, line: str) -> None:
    """Print a line of progress, over the bar where one is shown."""
    print(line if args.disable_tqdm else f"\r\033[K{line}", file=sys.stdout, flush=True)


class StopCallback(TrainerCallback):
    """Saves a resume point at the end of a step when a signal came, and every half hour.

    A signal may reach one process alone: all agree at the end of a step, about once a second, since asking waits for
    the GPUs. A signal in the last step of an epoch, or during an evaluation, takes effect when the epoch is evaluated
    and saved.

    Args:
        trainer: whose steps these are.
        stop: the flag that signals set.

    Raises:
        Interrupted: on every process, once the resume point is written.
    """

    SAVE_SECONDS = 1800
    ASK_SECONDS = 1.0

    def __init__(self, trainer: ResumableTrainer, stop: StopFlag):
        self.trainer = trainer
        self.stop = stop
        self.last_save = time.monotonic()
        self.agreed: int | None = None
        self.steps_per_epoch = 0
        # When the processes have last asked each other, at which step, and at which they do next.
        self.asked = (time.monotonic(), 0)
        self.next_question = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.began = (time.monotonic(), state.global_step)
        self.steps_per_epoch = -(-len(self.trainer.sampler) // args.gradient_accumulation_steps)
        self.last_save = time.monotonic()
        self.asked = (self.last_save, state.global_step)
        self.next_question = state.global_step + 1

    @property
    def is_due(self) -> bool:
        """Whether the last resume point is old enough for another."""
        return time.monotonic() - self.last_save > self.SAVE_SECONDS

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if args.world_size > 1 and state.global_step < self.next_question:
            return control
        signum, due = self._agree(args, self.stop.look(), self.is_due, state.global_step)
        self.agreed = signum or None
        if (signum or due) and state.global_step % self.steps_per_epoch:
            control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:
            # All processes have written their parts.
            torch.distributed.barrier()
        if is_main_process():
            self.trainer.points.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.last_save = time.monotonic()
        if self.agreed is None:
            # A signal during the evaluation, which one process alone may have heard.
            self.agreed = self._agree(args, self.stop.look(), False, state.global_step)[0] or None
        if self.agreed is not None:
            if args.world_size > 1:
                torch.distributed.barrier()
            done = f"at step {state.global_step} of {state.max_steps}; saved, the same command goes on"
            raise Interrupted(self.agreed, f"{name_of(self.agreed)} {done}")

    def _agree(self, args: TrainingArguments, signum: int, due: bool, step: int) -> tuple[int, bool]:
        """Return the highest signal number and whether a save is due on any process; choose when to ask next."""
        if args.world_size == 1:
            return signum, due
        before, last = self.asked
        self.asked = (time.monotonic(), step)
        milliseconds = 1000 * (self.asked[0] - before) / max(1, step - last)
        flags = torch.tensor([signum, int(due), int(milliseconds)], device=args.device)
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        # The same number on all processes: the slowest one's steps.
        self.next_question = step + max(1, round(1000 * self.ASK_SECONDS / max(1, int(flags[2]))))
        return int(flags[0]), bool(flags[1])
