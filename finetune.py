"""Fine-tune a pretrained multilingual model to classify the register of texts.

    python finetune.py --model_name xlmr --train_langs en-fr
    python finetune.py --model_name xlmr --train_langs en-fr --balanced --num_epochs 5 --subfolder balanced
    python finetune.py --model_name xlmr --train_langs en-fr --do_optimize --optimize_kwargs.n_trials 20
    python finetune.py --model_name xlmr --task sentiment --train_langs russian-polish
    torchrun --nproc-per-node=2 finetune.py --model_name xlmr --train_langs en-fr

The trained model goes to models/[SUBFOLDER/]MODEL-LANGS, its metrics to outputs/[SUBFOLDER/]MODEL-LANGS.
Stopped by a signal or killed, the same command goes on where it was.
"""

import contextlib
import math
import os
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from utils.adapters import add_adapters, check_adapter_options, freeze_encoder, quantization
from utils.classification import FinetuneOptions, open_texts, typed_name
from utils.corpus_load import Corpus
from utils.distributed import is_main_process, leave_process_group
from utils.errors import UserError, run_script
from utils.language_database import TaskData
from utils.layout import RunLayout, RunRecord, check_writable, now, split_langs, timestamp, write_json
from utils.metrics import METRICS
from utils.model_card import write_classifier_card
from utils.option_values import object_path
from utils.options import parse_options
from utils.registry import ModelSpec, find_model, load_registry, resolve_checkpoint
from utils.resume import (
    CANCELLED,
    StopFlag,
    check_restarts,
    clear_results,
    may_run,
    only_run,
    recorded,
    run_trainer,
)
from utils.training_options import (
    DEFAULT_BATCH_SIZE,
    TEXTS_SHOWN,
    early_stopping,
    prepare_tracker,
    training_arguments,
)

# Hyperparameters that --params can name, with the type of those that have no value of their own.
SEARCHABLE = {
    "num_epochs": 1,
    "batch_size": DEFAULT_BATCH_SIZE,
    "learning_rate": None,
    "warmup_ratio": None,
    "weight_decay": None,
    "label_smoothing": None,
    "gradient_accumulation_steps": None,
    "lr_scheduler_type": None,
    "balanced": None,
    "attention_dropout": 0.1,
}


@dataclass
class Run:
    """What one training run is about, once its options are known to be sound."""

    options: FinetuneOptions
    settings: dict[str, Any]
    layout: RunLayout
    spec: ModelSpec
    texts: Corpus | TaskData
    registers: list[str]
    langs: list[str]
    record: RunRecord
    stop: StopFlag


def main() -> int:
    """Run the script; returns its exit status."""
    options = parse_options(FinetuneOptions, __doc__)
    known = load_registry(options.model_registry)
    options = replace(options, model_name=typed_name(options.model_name, options.model_type, known))
    layout = RunLayout(
        options.model_name,
        options.train_langs,
        options.subfolder,
        options.output_dir,
        options.models_dir,
        options.checkpoints_dir,
    )
    spec = find_model(options.model_name, options.model_registry)
    langs = split_langs(options.train_langs)
    texts = open_texts(options, langs)
    registers = texts.label_names(langs)
    data = {"corpus": texts.name, "files": texts.provenance("train", langs), "registers": registers}
    prepare_tracker(options.report_to, layout.outputs)
    check_adapter_options(options)
    check_writable(layout.outputs, layout.model)
    settings = resolve_settings(options, spec)

    if options.do_optimize:
        search(options, settings, layout, spec, texts, registers, langs, data)
        return 0
    with only_run(layout) if is_main_process() else contextlib.nullcontext():
        if not may_run(layout, settings, data, options.force):
            print(f"{layout.name} is already complete; --force trains it again")
            return 0
        record = RunRecord(layout.run_json, settings, data)
        stop = StopFlag(layout.handover, lambda: record.write("failed", error=CANCELLED, ended=now()))
        run = Run(options, settings, layout, spec, texts, registers, langs, record, stop)
        stop.listen()
        train(run)
    return 0


def search(options: FinetuneOptions, settings: dict[str, Any], layout: RunLayout, *what: Any) -> None:
    """Work on a study; any number of processes may do so at once, each with a record of its own."""
    if settings["num_processes"] > 1:
        raise UserError("--do_optimize: a trial runs in one process; start the same command several times instead")
    *described, data = what
    record = RunRecord(layout.study / f"run-{timestamp()}.json", settings, data)
    stop = StopFlag(layout.handover, lambda: record.write("failed", error=CANCELLED, ended=now()))
    run = Run(options, settings, layout, *described, record, stop)
    stop.listen()
    with recorded(record, layout):
        record.write("running")
        summary = optimise(run)
        record.write("complete", ended=now())
        print(summary)


def resolve_settings(options: FinetuneOptions, spec: ModelSpec) -> dict[str, Any]:
    """Return all options with the registry's defaults filled in, as they go to run.json."""
    return object_path(asdict(options)) | {
        "batch_size": options.batch_size or spec.batch_size or DEFAULT_BATCH_SIZE,
        "max_length": options.max_length or spec.max_length,
        "checkpoint": spec.checkpoint,
        "revision": spec.revision,
        "num_processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def train(run: Run) -> None:
    """Train from the data to the saved model, recording in run.json how it went."""
    if not is_main_process():
        fit(run)
        leave_process_group()
        return
    with recorded(run.record, run.layout):
        check_restarts(run.record, run.layout.checkpoints, run.options.max_restarts)
        run.record.write("running")
        summary = fit(run)
        clear_results(run.layout)
        run.record.write("complete", ended=now())
        shutil.rmtree(run.layout.checkpoints, ignore_errors=True)
        print(summary)
        leave_process_group()
    # The run is complete, with a card or without.
    write_classifier_card(run.layout)


@dataclass
class Prepared:
    """What a training begins with, and the trials of a study share."""

    folder: Path
    tokenizer: Any
    data: Any
    max_length: int
    precision: str


def prepare(run: Run) -> Prepared:
    """Tokenise and split the texts."""
    # Heavy imports come after everything that can go wrong without them.
    folder = resolve_checkpoint(run.spec)

    from utils import device as machine
    from utils.models import choose_max_length, load_config
    from utils.splits import prepare_training_data
    from utils.tokenization import load_tokenizer, separator

    options = run.options
    machine.keep_freed_memory()
    tokenizer = load_tokenizer(folder)
    max_length = choose_max_length(load_config(folder), run.settings["max_length"])
    data = prepare_training_data(
        {lang: run.texts.load("train", lang, separator(tokenizer)) for lang in run.langs},
        tokenizer,
        max_length=max_length,
        cache_dir=Path(options.cache_dir),
        mix=options.mix,
        mix_exponent=options.mix_exponent,
        validation_size=options.validation_size,
        max_train_texts=options.max_train_texts,
        seed=options.seed,
    )
    return Prepared(folder, tokenizer, data, max_length, machine.choose_precision(options.precision))


def make_trainer(run: Run, prepared: Prepared, options: FinetuneOptions, keep_best: bool = True) -> Any:
    """Build the model and its trainer.

    Args:
        run: which run it is.
        prepared: the data.
        options: of the run, or as a trial of a study changes them.
        keep_best: save every epoch and end with the best one's weights.
    """
    import numpy as np
    from transformers import set_seed

    from utils.batching import make_collator
    from utils.cpu_dropout import use_cpu_dropout
    from utils.losses import ClassificationLoss, balanced_class_weights
    from utils.models import build_classifier
    from utils.training import ClassifierTrainer

    data, registers = prepared.data, run.registers
    labels = np.asarray(data.train["label"])
    arguments = training_arguments(
        options,
        run.layout.checkpoints,
        run.layout.name,
        batch_size=options.batch_size or run.settings["batch_size"],
        num_epochs=choose_num_epochs(options, len(labels)),
        precision=prepared.precision,
        keep_best=keep_best,
    )
    weights = balanced_class_weights(labels, len(registers)) if options.balanced else None
    set_seed(options.seed)
    model = build_classifier(prepared.folder, registers, options.attention_dropout, **quantization(options))
    if arguments.device.type == "cpu":
        use_cpu_dropout(model)
    if options.freeze_encoder:
        freeze_encoder(model)
    if options.lora_targets:
        model = add_adapters(model, options, "classifier", run.spec, prepared.folder)
        if options.gradient_checkpointing:
            # Without it no gradient reaches the adapters from the frozen embeddings.
            model.enable_input_require_grads()
    return ClassifierTrainer(
        model=model,
        args=arguments,
        train_dataset=data.train,
        eval_dataset=data.validation,
        processing_class=prepared.tokenizer,
        data_collator=make_collator(prepared.tokenizer, arguments.device),
        compute_loss_func=ClassificationLoss(weights, options.label_smoothing),
        callbacks=early_stopping(options),
        lengths=np.asarray(data.train["length"]),
        group_by_length=options.train_sampling == "length",
        precision=prepared.precision,
        token_budget=options.eval_token_budget,
        stop=run.stop,
        record=run.record,
    )


def choose_num_epochs(options: FinetuneOptions, num_texts: int) -> int:
    """Return the number of passes: the given one, or as many as show the model enough texts."""
    return max(1, math.ceil(TEXTS_SHOWN / num_texts)) if options.num_epochs is None else options.num_epochs


def fit(run: Run) -> str:
    """Prepare data and model, train, save; returns the summary for the user."""
    prepared = prepare(run)

    from utils import device as machine
    from utils.training import save_model, train_report

    trainer = make_trainer(run, prepared, run.options)
    registers, arguments = run.registers, trainer.args
    run.record.content |= {
        "device": machine.describe_device(arguments.device),
        "num_processes": arguments.world_size,
        "precision": prepared.precision,
        "license": run.spec.license,
        "num_epochs": int(arguments.num_train_epochs),
        "max_length": prepared.max_length,
        "train_registers": count_registers(prepared.data.train["label"], registers),
        "validation_registers": count_registers(prepared.data.validation["label"], registers),
    }
    if is_main_process():
        run.record.write("running")
        print(describe_start(run, trainer))

    if arguments.num_train_epochs:
        run_trainer(trainer, run.layout.checkpoints, run.options.early_stopping_patience, run.stop)
    else:
        trainer.state.epoch = 0
        trainer.evaluate()

    report = train_report(trainer, machine.peak_memory_bytes(arguments.device))
    if run.options.evaluate_train:
        metrics = trainer.predict(prepared.data.train, metric_key_prefix="train").metrics
        report["train"] = {name: metrics[f"train_{name}"] for name in ("loss", *METRICS)}
    save_model(trainer, run.layout.model, prepared.max_length, run.options.merge_adapter)
    if is_main_process():
        write_json(run.layout.train_json, report)
    trainer.accelerator.wait_for_everyone()
    return describe_end(run.layout, report)


def optimise(run: Run) -> str:
    """Search hyperparameters for the best validation macro F1; returns the summary for the user."""
    from utils import study
    from utils.training import EpochReport

    options, layout = run.options, run.layout
    settings = study.StudySettings(
        name=study.study_name(options, run.settings),
        journal=layout.study / "study.journal",
        study_kwargs=options.study_kwargs,
        optimize_kwargs=options.optimize_kwargs,
        params=options.params,
        defaults={
            name: fallback if getattr(options, name) is None else getattr(options, name)
            for name, fallback in SEARCHABLE.items()
        },
        seed=options.seed,
    )
    run.stop.phase = "in the middle of a trial, which the same command begins anew"
    prepared: list[Prepared] = []

    def objective(values: dict[str, Any], report: Any) -> float:
        if not prepared:
            prepared.append(prepare(run))
        trainer = make_trainer(run, prepared[0], replace(options, **values), keep_best=False)
        trainer.add_callback(EpochReport(report))
        trainer.train()
        return max(epoch["validation"]["macro_f1"] for epoch in trainer.history.epochs)

    found = study.run_study(settings, objective)
    summary = study.write_results(
        found, settings, layout.study / "optimization_results.csv.gz", layout.study / "optimization_plots.pdf"
    )
    return f"{summary}\nrecord   {run.record.path}"


def count_registers(labels: Any, registers: list[str]) -> dict[str, int]:
    """Count the texts of every register."""
    counts = Counter(int(label) for label in labels)
    return {register: counts[index] for index, register in enumerate(registers)}


def describe_start(run: Run, trainer: Any) -> str:
    """Return the lines that say what is about to be trained."""
    content, lengths = run.record.content, trainer.sampler.lengths
    lines = [
        f"{run.layout.name}: {len(lengths):,} training and {len(trainer.eval_dataset):,} validation texts, "
        f"{lengths.mean():.0f} tokens on average, {content['num_epochs']} epochs",
        f"{content['device']}; processes: {content['num_processes']}; {content['precision']}; "
        f"padding {trainer.padding_fraction():.1%} of all tokens",
    ]
    for part in ("train", "validation"):
        counts = [f"{name} {count:,}" for name, count in content[f"{part}_registers"].items()]
        lines.append(f"{'training' if part == 'train' else part} texts: {', '.join(counts)}")
    if run.options.attention_dropout is not None:
        lines.append(f"attention dropout {run.options.attention_dropout} instead of the model's own")
    return "\n".join(lines)


def describe_end(layout: RunLayout, report: dict[str, Any]) -> str:
    """Return the lines that say what was reached and where it is."""
    best = next(epoch for epoch in report["epochs"] if epoch["epoch"] == report["best_epoch"])
    return (
        f"best epoch {report['best_epoch']} of {len(report['epochs'])}: "
        f"validation macro F1 {best['validation']['macro_f1']:.3f}; {report['texts_per_second']:.1f} texts/s\n"
        f"model    {layout.model}\nmetrics  {layout.train_json}\nrecord   {layout.run_json}"
    )


if __name__ == "__main__":
    run_script(main)
