"""What one run of finetune_lm.py is about: its folder, its seed, its models and texts, and what it leaves."""

import hashlib
import json
import os
import random
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.cli.options import ADAPTERS, HYPERPARAMETER, IDENTITY, MEMORY, SEARCHING, TRAINING, options_by_role
from utils.data.text_files import TextFile, dataset_name
from utils.errors import UserError
from utils.models.registry import ModelSpec, resolve_checkpoint
from utils.runs.distributed import from_the_first, is_main_process
from utils.runs.files import sha256_of_file, timestamp, write_text
from utils.runs.layout import TEST_ONLY, LmLayout, choose_folder, model_label
from utils.runs.record import RunRecord, differences
from utils.runs.resume_points import ResumePoints, identity_of
from utils.runs.shapes import read_record
from utils.runs.stop import StopFlag, begin_run
from utils.training.lm_options import DRAWN_OPTIONS, FREE_OPTIONS, FinetuneLmOptions, tokenizer_threads

# File systems take 255 bytes.
LONGEST_PREFIX = 180
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
    settings: dict[str, Any]
    data: dict[str, Any]
    points: ResumePoints = field(init=False)
    record: RunRecord = field(init=False)
    stop: StopFlag = field(init=False)

    def begin(self) -> None:
        """Begin to record the run, and to listen for signals; a run that goes on keeps its seed."""
        seed = choose_seed(self.options, self.settings, self.data, self.layout)
        self.settings["seed"] = self.options.seed = from_the_first(seed, self.options.use_gpu)
        layout = self.layout
        lasting = {name: value for name, value in self.settings.items() if name not in FREE_OPTIONS}
        self.points = layout.points(identity_of(lasting, self.data["files"]))
        self.points.check()
        self.record, self.stop = begin_run(layout.run_json, self.settings, self.data, layout.handover)
        if is_main_process():
            write_config(self.layout.config, self.settings)


def is_complete(layout: LmLayout, settings: dict[str, Any], data: dict[str, Any]) -> bool:
    """Return whether these test results are there already.

    Raises:
        UserError: if those of other options or data are, which would be lost.
    """
    previous = read_record(layout.run_json) or {}
    if previous.get("status") != "complete" or not layout.test_results.is_file():
        return False
    found = other_results(previous, settings, data)
    if found:
        raise UserError(
            f"{layout.test_results} is there already, of other options ({'; '.join(found)})\n"
            "give another --test_output_file_prefix, or remove it"
        )
    return layout.test_sentences.is_file()


def other_results(record: dict[str, Any], settings: dict[str, Any], data: dict[str, Any]) -> list[str]:
    """Return in what a record's results are others than these options would give; without training, of tests alone."""
    if settings["train_file"] is None:
        record, settings = record | {"options": test_options(record.get("options", {}))}, test_options(settings)
    return differences(record, settings, data["files"], FREE_OPTIONS, DRAWN_OPTIONS)


def test_options(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the options that decide about the surprisals of a test without training."""
    groups = (TRAINING, MEMORY, ADAPTERS, SEARCHING)
    without = options_by_role(FinetuneLmOptions, IDENTITY, HYPERPARAMETER, groups=groups)
    # The texts themselves are compared.
    without += ["test_file", "max_train_samples", "max_validation_samples", "test_output_file_prefix"]
    without += ["model_pre_train_step_callbacks", "model_pre_train_step_callbacks_kwargs"]
    kept = {name: value for name, value in settings.items() if name not in without or name == "seed"}
    return kept | {
        name: value.get("test") for name, value in kept.items() if name.startswith("data_preprocessing_fn") and value
    }


def choose_seed(options: FinetuneLmOptions, settings: dict[str, Any], data: dict[str, Any], layout: LmLayout) -> int:
    """Return the seed: the given one, that with which the run began, that of the study, or one drawn now."""
    if options.seed is not None:
        return options.seed
    if options.do_optimize:
        from utils.training.study import free_in_study, study_name

        # All processes of a study train with the same seed, or its trials could not be compared.
        name = study_name(options, settings, data["files"], free_in_study(FinetuneLmOptions))
        return zlib.crc32(name.encode())
    previous = (read_record(layout.run_json) or {}).get("seed")
    return random.SystemRandom().randrange(2**32) if previous is None else previous


def provenance(files: list[TextFile]) -> list[dict[str, str]]:
    """Return path and SHA-256 of the data files and of their metadata, for run.json."""
    paths = [path for file in files for path in (file.path, file.metadata_path) if path.exists()]
    return [{"path": str(path), "sha256": sha256_of_file(path)} for path in paths]


def choose_layout(options: FinetuneLmOptions, settings: dict[str, Any], data: dict[str, Any]) -> LmLayout:
    """Return where this run's files go."""
    label, prefix = model_label(options.model_name_or_path), options.test_output_file_prefix
    if prefix and (Path(prefix).name != prefix or prefix.startswith(".")):
        raise UserError(f"--test_output_file_prefix must be the beginning of a file name, got {prefix!r}")
    if not options.train_file:
        folder = Path(options.output_dir) / TEST_ONLY / label
        layout = LmLayout(folder, label, prefix, shared=True)
        if prefix is None and is_taken(layout, data):
            # The results of other files stay; these are named after theirs.
            names = "_".join(dataset_name(path) for path in options.test_file or [])
            layout = LmLayout(folder, label, f"{label}-{names}"[:LONGEST_PREFIX], shared=True)
        return layout
    parent = Path(options.output_dir) / dataset_name(options.train_file) / label
    # Processes of one study share its journal; what each of them writes has a folder of its own.
    folder = (
        parent / timestamp()
        if options.do_optimize
        else choose_folder(parent, settings, data["files"], FREE_OPTIONS, DRAWN_OPTIONS)
    )
    return LmLayout(folder, label, prefix)


def is_taken(layout: LmLayout, data: dict[str, Any]) -> bool:
    """Return whether a folder holds results of other texts."""
    record = read_record(layout.run_json)
    if record is None or not layout.test_results.is_file():
        return False
    before = [file["sha256"] for file in record.get("data", {}).get("files", [])]
    return before != [file["sha256"] for file in data["files"]]


def write_config(path: Path, settings: dict[str, Any]) -> None:
    """Write the options as YAML, which --config reads."""
    import yaml

    # Of options alone.
    settings = {name: value for name, value in settings.items() if name != "num_processes"}
    write_text(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def prepare(run: Run) -> Any:
    """Load model and tokenizer as `lm_setup.Loaded`."""
    options = run.options
    folders = {
        name: resolve_checkpoint(spec, options.cache_dir, options.token, NEEDED[name])
        for name, spec in run.specs.items()
    }
    if threads := tokenizer_threads(options):
        # Of the library that tokenizes, which reads it before its first use.
        os.environ["RAYON_NUM_THREADS"] = str(threads)

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


def saved_folders(layout: LmLayout) -> dict[str, Path]:
    """Return where a fine-tuned model, its configuration and its tokenizer are."""
    return {"model": layout.model, "config": layout.model, "tokenizer": layout.tokenizer}


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


def fingerprint(run: Run) -> str:
    """Return a name for all that test results depend on."""
    weights = sorted(Path(run.specs["model"].checkpoint).glob("*.safetensors"))
    state = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in weights]
    content = [run.record.content["options"], run.record.content["data"], state]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
