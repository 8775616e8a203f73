"""Fine-tune a language model (masked, causal or sequence-to-sequence), or compute its surprisals.

    python finetune_lm.py --model_name_or_path gpt2 --train_file train.txt.gz --validation_file dev.txt.gz
    python finetune_lm.py --model_name_or_path gpt2 --test_file test.txt.gz
    python finetune_lm.py --model_name_or_path gpt2 --train_file train.txt.gz --validation_file dev.txt.gz --do_optimize

Results go to outputs/TRAIN_FILE/MODEL/TIME, those of the second to outputs/test_only/MODEL.
Stopped by a signal or killed, the same command goes on where it was.
"""

import dataclasses
import hashlib
import json
import os
import random
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.cli.parser import parse_options
from utils.cli.progress import progress
from utils.cli.script import run_script
from utils.cli.values import object_path
from utils.data.text_files import METADATA, TextFile, dataset_name, open_text_file
from utils.errors import UserError
from utils.models.model_card import language_model_card
from utils.models.registry import ModelSpec, find_checkpoint, resolve_checkpoint
from utils.runs.files import check_writable, now, read_json, sha256_of_file, timestamp, write_json, write_text
from utils.runs.layout import TEST_ONLY, LmLayout, choose_folder, model_label
from utils.runs.record import RunRecord, differences
from utils.runs.resume import check_restarts, only_run, recorded
from utils.runs.stop import CANCELLED, StopFlag
from utils.training.lm_options import DRAWN_OPTIONS, FREE_OPTIONS, FinetuneLmOptions, check_options, read_token
from utils.training.trainer import run_trainer

# What is read of the folders that may be given one by one, as this script's own model/ and tokenizer/.
NEEDED = {"model": ("config", "weights"), "config": ("config",), "tokenizer": ("tokenizer",)}


@dataclass
class Run:
    """What one run is about, once its options are known to be sound."""

    options: FinetuneLmOptions
    layout: LmLayout
    specs: dict[str, ModelSpec]
    test_files: list[TextFile]
    text_files: dict[str, TextFile]
    record: RunRecord
    stop: StopFlag


def main() -> int:
    """Run the script; returns its exit status."""
    options = parse_options(FinetuneLmOptions, __doc__)
    check_options(options)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("finetune_lm.py runs in one process; start it without torchrun")
    options.token = read_token(options.token)
    specs = {
        name: find_checkpoint(given or options.model_name_or_path, options.model_revision, options.model_registry)
        for name, given in (
            ("model", None),
            ("config", options.config_name),
            ("tokenizer", options.tokenizer_name),
        )
    }
    # Read to their ends before anything is begun, so that no mistake in them comes late.
    text_files = {
        split: open_text_file(path)
        for split, path in (("train", options.train_file), ("validation", options.validation_file))
        if path
    }
    if options.do_optimize:
        # A study tests nothing, so that it is the same study with test files and without.
        options.test_file = None
    test_files = [open_text_file(path) for path in options.test_file or []]
    data = {"files": provenance([*text_files.values(), *test_files])}
    settings = {name: object_path(value) for name, value in asdict(options).items() if name not in ("token", "config")}
    layout = choose_layout(options, settings, data)
    check_writable(layout.outputs)

    with only_run(layout):
        if is_complete(layout, settings, data):
            print(f"{layout.test_results} is already complete; remove {layout.run_json} to compute it again")
            return 0
        settings["seed"] = options.seed = choose_seed(options, settings, data, layout)
        record = RunRecord(layout.run_json, settings, data)
        stop = StopFlag(layout.handover, lambda: record.write("failed", error=CANCELLED, ended=now()))
        stop.listen()
        write_config(layout.config, settings)
        with recorded(record, layout):
            check_restarts(record, layout.checkpoints, options.max_restarts)
            record.write("running")
            run = Run(options, layout, specs, test_files, text_files, record, stop)
            summary = optimize(run) if options.do_optimize else fit_and_test(run)
            record.write("complete", ended=now())
            shutil.rmtree(layout.checkpoints, ignore_errors=True)
            print(summary)
    return 0


def is_complete(layout: LmLayout, settings: dict[str, Any], data: dict[str, Any]) -> bool:
    """Return whether these test results are there already.

    Raises:
        UserError: if those of other options or data are, which would be lost.
    """
    previous = read_json(layout.run_json) or {}
    if previous.get("status") != "complete" or not layout.test_results.is_file():
        return False
    found = differences(previous, settings, data["files"], FREE_OPTIONS, DRAWN_OPTIONS)
    if found:
        raise UserError(
            f"{layout.test_results} is there already, of other options ({'; '.join(found)})\n"
            "give another --test_output_file_prefix, or remove it"
        )
    return True


def choose_seed(options: FinetuneLmOptions, settings: dict[str, Any], data: dict[str, Any], layout: LmLayout) -> int:
    """Return the seed: the given one, that with which the run began, that of the study, or one drawn now."""
    if options.seed is not None:
        return options.seed
    if options.do_optimize:
        from utils.training.study import free_in_study, study_name

        # All processes of a study train with the same seed, or its trials could not be compared.
        name = study_name(options, settings, data["files"], free_in_study(FinetuneLmOptions))
        return zlib.crc32(name.encode())
    previous = (read_json(layout.run_json) or {}).get("seed")
    return random.SystemRandom().randrange(2**32) if previous is None else previous


def provenance(files: list[TextFile]) -> list[dict[str, str]]:
    """Return path and SHA-256 of the data files and of their metadata, for run.json."""
    paths = [path for file in files for path in (file.path, file.path.with_name(file.name + METADATA)) if path.exists()]
    return [{"path": str(path), "sha256": sha256_of_file(path)} for path in paths]


def choose_layout(options: FinetuneLmOptions, settings: dict[str, Any], data: dict[str, Any]) -> LmLayout:
    """Return where this run's files go."""
    label, prefix = model_label(options.model_name_or_path), options.test_output_file_prefix
    if prefix and (Path(prefix).name != prefix or prefix.startswith(".")):
        raise UserError(f"--test_output_file_prefix must be the beginning of a file name, got {prefix!r}")
    if not options.train_file:
        return LmLayout(Path(options.output_dir) / TEST_ONLY / label, label, prefix, shared=True)
    parent = Path(options.output_dir) / dataset_name(options.train_file) / label
    # Processes of one study share its journal; what each of them writes has a folder of its own.
    folder = (
        parent / timestamp()
        if options.do_optimize
        else choose_folder(parent, settings, data["files"], FREE_OPTIONS, DRAWN_OPTIONS)
    )
    return LmLayout(folder, label, prefix)


def write_config(path: Path, settings: dict[str, Any]) -> None:
    """Write the options as YAML, which --config reads."""
    import yaml

    write_text(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def prepare(run: Run) -> Any:
    """Load model and tokenizer as `lm_setup.Loaded`."""
    options = run.options
    folders = {
        name: resolve_checkpoint(spec, options.cache_dir, options.token, NEEDED[name])
        for name, spec in run.specs.items()
    }
    if options.preprocessing_num_workers:
        # Of the library that tokenizes, which reads it before its first use.
        os.environ["RAYON_NUM_THREADS"] = str(options.preprocessing_num_workers)

    import datasets
    from transformers import set_seed
    from transformers.utils import logging

    from utils.models import device
    from utils.training import lm_setup

    device.keep_freed_memory()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    set_seed(options.seed)
    loaded = lm_setup.load(options, folders, run.specs["model"])
    run.record.content |= {"task": loaded.task, "device": device.describe_device(loaded.device)}
    return loaded


def fit_and_test(run: Run) -> str:
    """Fine-tune if there is something to fine-tune on, test if there is something to test; return the summary."""
    trained = run.layout.train_json.is_file()
    if trained:
        # Interrupted while it was tested.
        local = {name: ModelSpec(name, str(folder.resolve())) for name, folder in saved_folders(run.layout).items()}
        run.specs = local
        run.options = dataclasses.replace(run.options, model_modifier_fns=[], lora_targets=None)
    loaded = prepare(run)
    lines = []
    if run.options.train_file and not trained:
        lines.append(fit(run, loaded))
    if run.test_files:
        lines.append(test(run, loaded))
    return "\n".join([*lines, f"options  {run.layout.config}\nrecord   {run.layout.run_json}"])


def saved_folders(layout: LmLayout) -> dict[str, Path]:
    """Return where a fine-tuned model, its configuration and its tokenizer are."""
    return {"model": layout.model, "config": layout.model, "tokenizer": layout.tokenizer}


def fit(run: Run, loaded: Any) -> str:
    """Fine-tune and save the best weights, the losses and their curves; return the summary."""
    from utils.evaluation.surprisal import RowWriter, columns_of
    from utils.figures.curves import plot_loss_curves
    from utils.training.lm_setup import loss_names, make_trainer

    layout = run.layout
    names = [name for split in ("train", "validation") for name in loss_names(run.options, split)]
    columns = columns_of([*run.text_files.values()], "split", "dataset_name", "epoch", "batch", "loss", *names)
    metrics = RowWriter(layout.metrics, columns)
    trainer = make_trainer(run.options, loaded, layout.checkpoints, run.stop, record=run.record, metrics=metrics)
    print(
        f"{layout.outputs}: {loaded.task}, {len(trainer.train_examples):,} training and "
        f"{len(trainer.validation_examples):,} validation examples, at most {run.options.epochs} epochs, "
        f"seed {run.options.seed}, {run.record.content['device']}"
    )
    run_trainer(trainer, layout.checkpoints, None, run.stop)
    trainer.load_best()
    if run.options.merge_adapter:
        loaded.model = trainer.model.merge_and_unload()
    save(loaded.model, loaded.tokenizer, layout)
    history = trainer.history
    plot_loss_curves(layout.loss_curves, history.batches, history.epochs)
    files = provenance([*run.text_files.values()])
    card = language_model_card(
        "/".join(layout.outputs.parts[-3:]), run.specs["model"], run.record.content, files, history.best
    )
    write_text(layout.model / "README.md", card)
    write_json(layout.train_json, {"best_epoch": history.best["epoch"], "epochs": history.epochs})
    return (
        f"best epoch {history.best['epoch']} of {len(history.epochs)}: "
        f"validation loss {history.best['validation_loss']:.4f}\n"
        f"model    {layout.model}\nmetrics  {layout.metrics}\ncurves   {layout.loss_curves}"
    )


def save(model: Any, tokenizer: Any, layout: LmLayout) -> None:
    """Save model and tokenizer; a folder appears when it is whole."""
    for part, folder in ((model, layout.model), (tokenizer, layout.tokenizer)):
        staging = folder.with_name(f".{folder.name}")
        shutil.rmtree(staging, ignore_errors=True)
        part.save_pretrained(staging)
        if part is model:
            # Adapters are saved without it.
            model.config.save_pretrained(staging)
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)


def test(run: Run, loaded: Any) -> str:
    """Compute the surprisals of the test files; return the summary."""
    from utils.evaluation.surprisal import TokenTable, write_test_results
    from utils.training.lm_setup import make_examples

    options, layout = run.options, run.layout
    run.stop.phase = "while testing; " + (
        "the same command goes on" if options.save_tmp_test_files else "no results yet (see --save_tmp_test_files)"
    )
    # In single precision, surprisals are off by up to 1e-4 bits, more for large models.
    loaded.model.to(loaded.device).double().eval()
    limit = options.max_test_samples
    total = sum(min(file.num_examples, limit or file.num_examples) for file in run.test_files)
    with progress(total=total, desc="testing", unit="example") as bar:
        count = write_test_results(
            layout.test_results,
            run.test_files,
            lambda file, part, first: make_examples(options, loaded, "test", file.name, part, first),
            loaded.model,
            TokenTable(loaded.tokenizer, loaded.task),
            options.per_device_test_batch_size,
            max_examples=limit,
            keep_parts=fingerprint(run) if options.save_tmp_test_files else None,
            progress=bar,
        )
    return f"tested   {total:,} examples, {count:,} tokens: {layout.test_results}"


def fingerprint(run: Run) -> str:
    """Return a name for all that test results depend on."""
    weights = sorted(Path(run.specs["model"].checkpoint).glob("*.safetensors"))
    state = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in weights]
    content = [run.record.content["options"], run.record.content["data"], state]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def optimize(run: Run) -> str:
    """Search hyperparameters; return the summary."""
    from utils.figures.study import write_results
    from utils.training import lm_setup, study

    options, layout = run.options, run.layout
    defaults = lm_setup.hyperparameters(options)
    study.check_params(options.params, defaults)
    settings = study.StudySettings(
        name=study.study_name(
            options,
            run.record.content["options"],
            run.record.content["data"]["files"],
            study.free_in_study(FinetuneLmOptions),
        ),
        journal=layout.outputs.parent / "study.journal",
        study_kwargs=options.study_kwargs,
        optimize_kwargs=options.optimize_kwargs,
        params=options.params,
        defaults=defaults,
        seed=options.seed,
    )
    run.stop.phase = "in the middle of a trial, which the same command begins anew"
    loaded: list[Any] = []

    def objective(values: dict[str, Any], report: study.Report) -> float:
        if not loaded:
            loaded.append(prepare(run))
        from transformers import set_seed

        set_seed(options.seed)
        trainer = lm_setup.make_trainer(
            lm_setup.with_values(options, values),
            loaded[0],
            layout.checkpoints,
            run.stop,
            on_epoch=lambda history: report(len(history.epochs), history.epochs[-1]["validation_loss"]),
            copy_model=True,
        )
        trainer.train()
        loss = trainer.history.best["validation_loss"]
        with layout.config.open("a", encoding="utf-8") as file:
            file.write(f"# tried {json.dumps(values)}: validation loss {loss}\n")
        return loss

    found = study.run_study(settings, objective)
    summary = write_results(found, settings, layout.study_results, layout.study_plots)
    return f"{summary}\noptions  {layout.config}\nrecord   {layout.run_json}"


if __name__ == "__main__":
    run_script(main)
