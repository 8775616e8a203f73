"""Puts together what fine-tuning a classifier needs: texts, tokens, model, loss, trainer; and says what it does."""

import contextlib
import math
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cli.options import DATA, HYPERPARAMETER, MODEL, empty_value, options_by_role
from utils.cli.values import plural
from utils.data.exclusions import Exclusions, training_texts
from utils.data.source import TextSource
from utils.data.twins import share_seen
from utils.data.windows import NO_FRAME, Frame, Reading, find_frame
from utils.errors import RunFailure, UserError
from utils.evaluation.labelling import Labelling, LabelSets, OneLabel
from utils.evaluation.metrics import metric_title
from utils.models.adapters import add_adapters, freeze_encoder, quantization
from utils.models.options import LONG_TEXTS
from utils.models.registry import ModelSpec, resolve_checkpoint
from utils.runs.layout import RunLayout
from utils.runs.record import RunRecord
from utils.runs.resume_points import ResumePoints, identity_of
from utils.runs.stop import StopFlag, begin_run
from utils.training.classifier_options import FREE_OPTIONS, FinetuneOptions
from utils.training.options import TEXTS_SHOWN, early_stopping, training_arguments

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from utils.data.splits import TrainingData
    from utils.training.classifier_trainer import ClassifierTrainer


# What a line of a run says of longer texts.
LONG_TEXTS_SHOWN = {
    "cut": "cut at {} tokens",
    "head_tail": "both ends read, {} tokens",
    "windows": "read in windows of {} tokens",
}


@dataclass
class Run:
    """What one training run is about, once its options are known to be sound."""

    options: FinetuneOptions
    settings: dict[str, Any]
    layout: RunLayout
    spec: ModelSpec
    texts: TextSource
    data: dict[str, Any]
    labelling: Labelling
    langs: list[str]
    exclusions: Exclusions | None = None
    points: ResumePoints = field(init=False)
    record: RunRecord = field(init=False)
    stop: StopFlag = field(init=False)
    # What a run that goes on had settled, perhaps on another machine.
    settled: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        lasting = {name: value for name, value in self.settings.items() if name not in FREE_OPTIONS}
        self.points = self.layout.points(identity_of(lasting, self.data["files"]))

    def begin(self, record: Path) -> None:
        """Begin to record the run in this file, and to listen for signals."""
        self.record, self.stop = begin_run(record, self.settings, self.data, self.layout.handover)
        if "precision" in self.record.previous and self.points.last():
            self.settled["precision"] = self.record.previous["precision"]
            # The other processes may read the record only after the first one has written this one.
            self.record.content |= self.settled


def make_labelling(texts: TextSource, langs: list[str]) -> Labelling:
    """Return how the logits of a model for these texts become labels."""
    names = texts.label_names(langs)
    return LabelSets(names, texts.subregisters) if texts.multilabel else OneLabel(names)


def describe_data(
    texts: TextSource, langs: list[str], labelling: Labelling, exclusions: Exclusions | None
) -> dict[str, Any]:
    """Return what run.json says of the training texts of these languages, and of those that are left out."""
    files = [*texts.provenance("train", langs), *([exclusions.provenance(langs)] if exclusions else [])]
    data = {"corpus": texts.name, "files": files, "registers": labelling.names}
    return data | ({"labels": "multi", "subregisters": texts.subregisters} if texts.multilabel else {})


def find_leakage(texts: TextSource, langs: list[str], seen: "np.ndarray") -> dict[str, float]:
    """Return which share of each language's test texts is among the texts that a model is trained on.

    Args:
        texts: to train on and to test with.
        langs: that are trained on; those without test texts that can be read are left out.
        seen: the hashes of the training texts.
    """
    found = {}
    for lang in langs:
        # What is wrong with test texts is no matter of training; evaluate.py says it.
        with contextlib.suppress(UserError, RunFailure, OSError):
            found[lang] = round(share_seen(texts.load("test", lang, " "), seen), 6)
    return found


@dataclass
class Prepared:
    """What a training begins with, and the trials of a study share."""

    folder: Path
    tokenizer: "PreTrainedTokenizerBase"
    data: "TrainingData"
    max_length: int
    reading: Reading
    frame: Frame


def prepare(run: Run) -> Prepared:
    """Tokenize and split the texts."""
    # Heavy imports come after everything that can go wrong without them.
    folder = resolve_checkpoint(run.spec)

    from utils.data.splits import prepare_training_data
    from utils.data.tokenization import load_tokenizer, separator, with_padding
    from utils.models import device as machine
    from utils.models.loading import choose_max_length, load_config

    options = run.options
    machine.keep_freed_memory()
    tokenizer = with_padding(load_tokenizer(folder))
    max_length = choose_max_length(load_config(folder), run.settings["max_length"])
    reading = Reading(options.long_texts, options.window_stride, options.window_pooling)
    frame = find_frame(tokenizer) if reading.needs_whole_texts else NO_FRAME
    reading.stride_in(max_length - frame.size)
    data = prepare_training_data(
        {lang: training_texts(run.texts, lang, separator(tokenizer), run.exclusions) for lang in run.langs},
        tokenizer,
        max_length=max_length,
        cache_dir=Path(options.cache_dir),
        mix=options.mix,
        mix_exponent=options.mix_exponent,
        validation_size=options.validation_size,
        max_train_texts=options.max_train_texts,
        seed=options.seed,
        whole=reading.needs_whole_texts,
    )
    return Prepared(folder, tokenizer, data, max_length, reading, frame)


def make_trainer(run: Run, prepared: Prepared, options: FinetuneOptions, keep_best: bool = True) -> "ClassifierTrainer":
    """Build the model and its trainer.

    Args:
        run: which run it is.
        prepared: the data.
        options: of the run, or as a trial of a study changes them.
        keep_best: save every epoch and end with the best one's weights.
    """
    import numpy as np
    from transformers import set_seed

    from utils.data.windows import TrainingPieces, pieces_of, text_pieces
    from utils.models.attention import use_cpu_dropout
    from utils.models.device import choose_precision
    from utils.models.loading import build_classifier, check_vocabulary, load_config
    from utils.training.classifier_losses import make_loss
    from utils.training.classifier_trainer import ClassifierTrainer
    from utils.training.steps import choose_batches

    data, labelling = prepared.data, run.labelling
    precision = run.settled.get("precision") or choose_precision(options.precision, load_config(prepared.folder))
    labels = np.asarray(data.train["label"][:])
    arguments = training_arguments(
        options,
        run.layout.checkpoints,
        run.layout.name,
        batch_size=options.batch_size or run.settings["batch_size"],
        num_epochs=choose_num_epochs(options, len(labels)),
        precision=precision,
        keep_best=keep_best,
    )
    loss = make_loss(labels, labelling, options.balanced, options.focal_gamma, options.label_smoothing)
    set_seed(options.seed)
    model = build_classifier(
        prepared.folder,
        labelling.names,
        options.attention_dropout,
        options.pooling,
        labelling.subregisters if isinstance(labelling, LabelSets) else None,
        **quantization(options.load_in_4bit),
    )
    check_vocabulary(prepared.tokenizer, model, prepared.folder)
    if model.config.pad_token_id is None:
        # By it decoders find the last token of a text.
        model.config.pad_token_id = prepared.tokenizer.pad_token_id
    if arguments.device.type == "cpu":
        use_cpu_dropout(model)
    if options.freeze_encoder:
        freeze_encoder(model)
    if options.lora_targets:
        model = add_adapters(model, options, "classifier", run.spec, prepared.folder)
        if options.gradient_checkpointing:
            # Without it no gradient reaches the adapters from the frozen embeddings.
            model.enable_input_require_grads()
    train_texts: Any = data.train
    if prepared.reading.needs_whole_texts:
        pieces = text_pieces(data.train, prepared.frame, prepared.max_length, prepared.reading)
        train_texts = TrainingPieces(pieces, labels, options.seed)
        setattr(model.config, LONG_TEXTS, asdict(prepared.reading))
    batches = choose_batches(model, prepared.tokenizer, options, arguments.device, precision)
    return ClassifierTrainer(
        model=model,
        args=arguments,
        train_dataset=train_texts,
        eval_dataset=data.validation,
        processing_class=prepared.tokenizer,
        data_collator=batches.evaluation,
        compute_loss_func=loss,
        callbacks=early_stopping(options),
        lengths=np.asarray(data.train["length"][:]),
        num_cut=int(np.sum(data.train["cut"][:])),
        labelling=labelling,
        read=partial(pieces_of, frame=prepared.frame, max_length=prepared.max_length, reading=prepared.reading),
        step_collator=batches.training,
        batches_note=batches.note,
        precision=precision,
        token_budget=options.eval_token_budget,
        points=run.points,
        stop=run.stop,
        record=run.record,
    )


def choose_num_epochs(options: FinetuneOptions, num_texts: int) -> int:
    """Return the number of passes: the given one, or as many as show the model enough texts, up to --max_epochs."""
    return min(epochs_wanted(num_texts), options.max_epochs) if options.num_epochs is None else options.num_epochs


def epochs_note(options: FinetuneOptions, num_texts: int) -> str:
    """Return what to say of a number of epochs that --max_epochs has limited; empty if it has not."""
    wanted = epochs_wanted(num_texts)
    if options.num_epochs is not None or wanted <= options.max_epochs:
        return ""
    return f" (--max_epochs; {wanted:,} would show the model {TEXTS_SHOWN:,} texts)"


def epochs_wanted(num_texts: int) -> int:
    """Return the number of passes that show the model enough texts."""
    return max(1, math.ceil(TEXTS_SHOWN / num_texts))


def searchable(options: FinetuneOptions) -> dict[str, Any]:
    """Return the hyperparameters that a study can search, by name with their values (of None, a value of their type).

    All trials share model and texts, so what changes these cannot be searched; nor can lists and dictionaries.
    """
    by_name = {field.name: field for field in fields(options)}
    found = {
        name: empty_value(by_name[name]) if getattr(options, name) is None else getattr(options, name)
        for name in options_by_role(FinetuneOptions, HYPERPARAMETER, without_groups=(MODEL, DATA))
    }
    return {name: value for name, value in found.items() if isinstance(value, (bool, int, float, str))}


def count_registers(labels: Any, labelling: Labelling) -> dict[str, int]:
    """Count the texts of every register."""
    import numpy as np

    return dict(zip(labelling.names, labelling.count(np.asarray(labels)).tolist(), strict=True))


def describe_start(run: Run, trainer: "ClassifierTrainer") -> str:
    """Return the lines that say what is about to be trained."""
    from utils.training.classifier_outcome import count_parameters

    content: dict[str, Any] = run.record.content
    lengths = trainer.sampler.lengths
    subfolder = f" ({run.options.subfolder})" if run.options.subfolder else ""
    trained, parameters = count_parameters(trainer.model)
    lines = [
        f"{run.layout.name}{subfolder}: {plural(len(lengths), 'training text')} and "
        f"{plural(len(trainer.eval_dataset), 'validation text')}, {lengths.mean():.0f} tokens on average, "
        f"{plural(content['num_epochs'], 'epoch')}{epochs_note(run.options, len(lengths))}",
        f"{LONG_TEXTS_SHOWN[run.options.long_texts].format(content['max_length'])}: {trainer.num_cut:,} training "
        f"texts ({trainer.num_cut / len(lengths):.1%})",
        f"trained: {trained:,} of {parameters:,} parameters",
        f"{content['device']}; processes: {content['num_processes']}; {content['precision']}; "
        f"padding {trainer.padding_fraction():.1%} of all tokens",
        f"texts of a step: {trainer.batches_note}",
    ]
    if isinstance(run.labelling, LabelSets):
        total = sum(content["train_registers"].values())
        lines.append(f"labels: any number for each text, {total / len(lengths):.2f} on average")
    for part in ("train", "validation"):
        counts = [f"{name} {count:,}" for name, count in content[f"{part}_registers"].items()]
        lines.append(f"{'training' if part == 'train' else part} texts: {', '.join(counts)}")
    counts = content["train_registers"]
    alone = [name for name, count in counts.items() if count and not content["validation_registers"][name]]
    if alone:
        shown = ", ".join(f"{name} ({counts[name]})" for name in alone)
        lines.append(f"too few texts for the validation part: {shown}; the validation scores do not know them")
    if run.options.attention_dropout is not None:
        lines.append(f"attention dropout {run.options.attention_dropout} instead of the model's own")
    return "\n".join(lines)


def describe_end(layout: RunLayout, report: dict[str, Any]) -> str:
    """Return the lines that say what was reached and where it is."""
    best = next(epoch for epoch in report["epochs"] if epoch["epoch"] == report["best_epoch"])
    warning = f"{report['warning']}\n" if report.get("warning") else ""
    calibration = report.get("calibration")
    calibrated = ""
    if calibration:
        calibrated = (
            f"temperature {calibration['temperature']:.2f}: validation loss {calibration['validation_loss']:.3f} -> "
            f"{calibration['calibrated_validation_loss']:.3f}\n"
        )
    if calibration and "thresholds" in calibration:
        calibrated += describe_thresholds(calibration)
    return (
        f"{warning}best epoch {report['best_epoch']} of {len(report['epochs'])}: "
        f"validation macro F1 {best['validation']['macro_f1']:.3f}; "
        f"{report['texts_per_second']:.1f} texts/s\n{calibrated}"
        f"model    {layout.model}\nmetrics  {layout.train_json}\nrecord   {layout.run_json}"
    )


def describe_thresholds(calibration: dict[str, Any]) -> str:
    """Return the line that says which thresholds were chosen, and what for."""
    source, values = calibration["threshold_source"], sorted(set(calibration["thresholds"].values()))
    if source["choice"] == "0.5":
        return "threshold 0.5 for all labels\n"
    metric = source["metric"]
    shown = f"{values[0]:.2f}" if len(values) == 1 else f"{values[0]:.2f} to {values[-1]:.2f}"
    return (
        f"threshold {shown} ({source['choice']}): validation {metric_title(metric)} "
        f"{calibration[f'validation_{metric}_at_0.5']:.3f} at 0.5 -> {calibration[f'validation_{metric}']:.3f}\n"
    )
