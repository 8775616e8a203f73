# PYTHON_ARGCOMPLETE_OK
"""Fine-tune a pretrained multilingual model to classify the register of texts.

    python finetune.py --model_name xlmr --train_langs en-fr
    python finetune.py --model_name xlmr --train_langs en-fr --balanced --num_epochs 5 --subfolder balanced
    python finetune.py --model_name xlmr --train_langs en-fr --do_optimize --optimize_kwargs.n_trials 20
    python finetune.py --model_name xlmr --task sentiment --train_langs russian-polish
    python finetune.py --model_name tfidf --train_langs en-fr
    python finetune.py --model_name xlmr-probe --train_langs en-fr
    torchrun --nproc-per-node=2 finetune.py --model_name xlmr --train_langs en-fr

The trained model goes to models/[SUBFOLDER/]MODEL-LANGS, its metrics to outputs/[SUBFOLDER/]MODEL-LANGS.
Stopped by a signal or killed, the same command goes on where it was. The models tfidf and MODEL-probe are baselines,
fitted in seconds and evaluated at once.
"""

import contextlib
import sys
from dataclasses import replace
from typing import Any

from utils.cli.panels import next_command, show
from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.data.exclusions import read_exclusions
from utils.data.source import open_texts
from utils.data.twins import leakage_warning, write_hashes
from utils.errors import UserError
from utils.models.adapters import check_adapter_options
from utils.models.model_card import write_classifier_card
from utils.models.registry import find_model, load_registry, typed_name
from utils.report.options import PostEvalOptions
from utils.runs.distributed import is_main_process, leave_process_group
from utils.runs.files import check_writable, now, timestamp, write_json
from utils.runs.layout import RunLayout, split_langs
from utils.runs.resume import check_restarts, clear_results, may_run, only_run, recorded
from utils.runs.stop import COMPLETE
from utils.training.baseline import TFIDF, baseline_spec, ignored_options, is_baseline, train_baseline
from utils.training.classifier_options import (
    FREE_OPTIONS,
    EvaluateOptions,
    FinetuneOptions,
    card_options,
    check_label_options,
    resolve_settings,
)
from utils.training.classifier_setup import (
    Prepared,
    Run,
    count_registers,
    describe_data,
    describe_end,
    describe_start,
    find_leakage,
    make_labelling,
    make_trainer,
    prepare,
    searchable,
)
from utils.training.options import prepare_tracker


def main() -> int:
    """Run the script; returns its exit status."""
    options = parse_options(FinetuneOptions, __doc__)
    if is_baseline(options.model_name, load_registry(options.model_registry)):
        if is_main_process():
            summary = fit_baseline(options)
            command = next_command("post_eval.py", PostEvalOptions, options)
            show(f"{options.model_name}-{options.train_langs}", f"{summary}\nnext     {command}")
        return 0
    run = plan(options)
    if options.do_optimize:
        search(run)
    else:
        train(run)
    return 0


def plan(options: FinetuneOptions) -> Run:
    """Find model and texts and check all that can be wrong before anything is loaded or written."""
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
    texts = open_texts(options, langs).with_labels(options.labels, langs)
    check_label_options(options, texts.multilabel)
    labelling = make_labelling(texts, langs)
    exclusions = read_exclusions(options.exclude)
    data = describe_data(texts, langs, labelling, exclusions)
    prepare_tracker(options.report_to, layout.outputs)
    check_adapter_options(options)
    check_writable(layout.outputs, layout.model)
    settings = resolve_settings(options, spec)
    if options.do_optimize and settings["num_processes"] > 1:
        raise UserError("--do_optimize: a trial runs in one process; start the same command several times instead")
    run = Run(options, settings, layout, spec, texts, data, labelling, langs, exclusions)
    run.points.check()
    return run


def fit_baseline(options: FinetuneOptions) -> str:
    """Fit one of scikit-learn's models instead, and evaluate it; returns the summary for the user."""
    spec = baseline_spec(options.model_name, options.model_registry)
    layout = RunLayout(
        options.model_name, options.train_langs, options.subfolder, options.output_dir, options.models_dir
    )
    langs = split_langs(options.train_langs)
    texts = open_texts(options, langs).with_labels(options.labels, langs)
    check_label_options(options, texts.multilabel)
    if options.model_name == TFIDF and options.long_texts != "cut":
        raise UserError(f"--long_texts {options.long_texts}: {options.model_name} reads all of every text")
    if options.do_optimize:
        raise UserError(f"--do_optimize: {options.model_name} has no hyperparameters to search")
    if ignored := ignored_options(options):
        print(f"without effect on {options.model_name}: {', '.join(f'--{name}' for name in ignored)}", file=sys.stderr)
    check_writable(layout.outputs)
    with only_run(layout):
        return train_baseline(layout, options, texts, spec, options.force)


def train(run: Run) -> None:
    """Train from the data to the saved model, recording in run.json how it went; nothing if that is done already."""
    layout = run.layout
    with only_run(layout) if is_main_process() else contextlib.nullcontext():
        if not may_run(layout, run.points, run.settings, run.data, FREE_OPTIONS, run.options.force):
            print(f"{layout.name} is already complete; --force trains it again")
            return
        run.begin(layout.run_json)
        if not is_main_process():
            fit(run)
            leave_process_group()
            return
        with recorded(run.record, layout, run.points):
            check_restarts(run.record, run.points, run.options.max_restarts)
            run.record.write("running")
            summary = fit(run)
            clear_results(layout)
            run.record.write("complete", ended=now())
            run.stop.phase = COMPLETE
            if not run.options.keep_checkpoints:
                run.points.remove()
            command = next_command("evaluate.py", EvaluateOptions, run.options, " --eval_langs all")
            show(f"{layout.name} is trained", f"{summary}\nnext     {command}")
            leave_process_group()
        # The run is complete, with a card or without.
        write_classifier_card(layout, card_options(run.settings))


def fit(run: Run) -> str:
    """Prepare data and model, train, save; returns the summary for the user."""
    prepared = prepare(run)

    from utils.models import device as machine
    from utils.training.classifier_outcome import calibrate, save_model, train_report
    from utils.training.trainer import run_trainer

    trainer = make_trainer(run, prepared, run.options)
    labelling, arguments = run.labelling, trainer.args
    run.record.content |= {
        "device": machine.describe_device(arguments.device),
        "num_processes": arguments.world_size,
        "precision": trainer.precision,
        "license": run.spec.license,
        "num_epochs": int(arguments.num_train_epochs),
        "max_length": prepared.max_length,
        "train_registers": count_registers(prepared.data.train["label"][:], labelling),
        "validation_registers": count_registers(prepared.data.validation["label"][:], labelling),
    }
    if is_main_process():
        write_hashes(run.layout.train_hashes, prepared.data.hashes)
        run.record.content["leakage"] = find_leakage(run.texts, run.langs, prepared.data.hashes)
        run.record.write("running")
        show(f"training {run.layout.name}", describe_start(run, trainer))
        for lang, share in run.record.content["leakage"].items():
            if warning := leakage_warning(share, lang):
                print(f"warning: {warning}", file=sys.stderr)

    calibration = {}
    if arguments.num_train_epochs:
        run_trainer(trainer, run.options.early_stopping_patience, run.stop)
        choice, metric = run.options.threshold or "global", run.options.threshold_metric or "micro_f1"
        calibration = calibrate(trainer, choice, metric)
    else:
        trainer.state.epoch = 0
        trainer.evaluate()

    report = train_report(trainer, machine.peak_memory_bytes(arguments.device)) | {"calibration": calibration}
    if run.options.evaluate_train:
        metrics = trainer.predict(prepared.data.train, metric_key_prefix="train").metrics
        report["train"] = {name: metrics[f"train_{name}"] for name in ("loss", *labelling.metrics)}
    save_model(trainer, run.layout.model, prepared.max_length, run.options.merge_adapter)
    if is_main_process():
        write_json(run.layout.train_json, report)
    trainer.accelerator.wait_for_everyone()
    return describe_end(run.layout, report)


def search(run: Run) -> None:
    """Search hyperparameters; any number of processes may work on a study at once, each with a record of its own."""
    run.begin(run.layout.study / f"run-{timestamp()}.json")
    run.stop.phase = "in the middle of a trial, which the same command begins anew"
    with recorded(run.record, run.layout, run.points):
        run.record.write("running")
        summary = run_trials(run)
        run.record.write("complete", ended=now())
        print(f"{summary}\nrecord   {run.record.path}")


def run_trials(run: Run) -> str:
    """Search for the best validation macro F1; returns the summary for the user."""
    from utils.figures.study import write_results
    from utils.training import study
    from utils.training.classifier_trainer import EpochReport

    options, folder = run.options, run.layout.study
    settings = study.StudySettings(
        name=study.study_name(options, run.settings, run.data["files"], study.free_in_study(FinetuneOptions)),
        journal=folder / "study.journal",
        study_kwargs=options.study_kwargs,
        optimize_kwargs=options.optimize_kwargs,
        params=options.params,
        defaults=searchable(options),
        seed=options.seed,
        metric="validation macro F1",
        options=options,
    )
    prepared: list[Prepared] = []

    def objective(values: dict[str, Any], report: study.Report) -> float:
        if not prepared:
            prepared.append(prepare(run))
        trainer = make_trainer(run, prepared[0], replace(options, **values), keep_best=False)
        trainer.add_callback(EpochReport(report))
        trainer.train()
        return max(epoch["validation"]["macro_f1"] for epoch in trainer.history.epochs)

    found = study.run_study(settings, objective)
    return write_results(found, settings, folder / "optimization_results.csv.gz", folder / "optimization_plots.pdf")


if __name__ == "__main__":
    run_script(main)
