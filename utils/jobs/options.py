"""The options of submit_train_jobs.sh and its like, which are the variables at their top too."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from utils.cli.options import MODEL, OTHER, PLACES, SLURM, option
from utils.cli.parser import OptionParser
from utils.prediction.options import ROWS_PER_PART

ALL = "all"


@dataclass(kw_only=True)
class SubmitOptions:
    """What all submit scripts have: variables at their top, and options of the same names."""

    GROUP: ClassVar[str] = SLURM

    options: str = option("", "options of the script, the same for all combinations", group=MODEL, metavar="OPTIONS")
    output_dir: str = option("outputs", "where results are", group=PLACES, shared=False, metavar="DIR")
    max_jobs: int | None = option(None, "run at most so many tasks at once", minimum=1, metavar="N")
    dry_run: bool = option(False, "print what would be submitted, submit nothing")
    force: bool = option(False, "repeat what is complete")
    status: bool = option(False, "print a table of all combinations")
    debug: bool = option(False, "show tracebacks", group=OTHER)


@dataclass(kw_only=True)
class CombinationOptions(SubmitOptions):
    """What the submit scripts of classifiers have."""

    models: str = option(
        ALL, "abbreviations of the registry, with blanks between them, or all", group=MODEL, metavar="NAMES"
    )
    subfolder: str = option("", "folder below outputs/ and models/", group=MODEL, metavar="FOLDER")
    models_dir: str = option("models", "where trained models are", group=PLACES, shared=False, metavar="DIR")


@dataclass(kw_only=True)
class TrainJobOptions(CombinationOptions):
    """The options of submit_train_jobs.sh."""

    langs: str = option(
        ALL, "languages and mixes (en-fr), or all: each language by itself", group=MODEL, metavar="LANGS"
    )
    baselines: bool = option(
        False, "also the baselines: tfidf, and the linear probe MODEL-probe of each model", group=MODEL
    )
    after: str = option("", "begin when these jobs have ended well", group=SLURM, metavar="JOB")
    accelerate_config: str = option(
        "",
        "configuration of accelerate, for models too large for one GPU: config/fsdp.yaml",
        group=SLURM,
        metavar="FILE",
    )


@dataclass(kw_only=True)
class EvalJobOptions(CombinationOptions):
    """The options of submit_eval_jobs.sh."""

    GROUP_TITLES: ClassVar[dict[str, str]] = {MODEL: "what to evaluate"}

    langs: str = option(ALL, "what the models were trained on (en fr en-fr), or all", group=MODEL, metavar="LANGS")
    eval_langs: str = option(ALL, "languages to evaluate on, or all", group=MODEL, metavar="LANGS")
    after: str = option("", "wait for each model's own training, of these jobs", group=SLURM, metavar="JOB")


@dataclass(kw_only=True)
class PredictJobOptions(CombinationOptions):
    """The options of submit_predict_jobs.sh."""

    GROUP: ClassVar[str] = SLURM
    GROUP_TITLES: ClassVar[dict[str, str]] = {MODEL: "what to label, and with which model"}

    models: str = option("", "abbreviations of the models, with blanks between them", group=MODEL, metavar="NAMES")
    langs: str = option("", "what they were trained on (en fr en-fr)", group=MODEL, metavar="LANGS")
    model: str = option("", "instead of these two: folder or hub id of any classifier", group=MODEL, metavar="MODEL")
    input: str = option(
        "", "files, folders and globs of texts, in quotation marks, with blanks between them", group=MODEL
    )
    output_dir: str = option(
        "predictions",
        "where the labels are written; of several models, each below a folder of its name",
        group=PLACES,
        shared=False,
        metavar="DIR",
    )
    num_tasks: int = option(8, "tasks of the array, among which the files are dealt out", minimum=1, metavar="N")
    rows_per_part: int = option(
        ROWS_PER_PART, "rows of the parts that large files are cut into", minimum=1, metavar="ROWS"
    )
    after: str = option("", "begin when these jobs have ended well", metavar="JOB")


@dataclass(kw_only=True)
class LmJobOptions(SubmitOptions):
    """The options of submit_lm_jobs.sh."""

    GROUP: ClassVar[str] = SLURM

    models: str = option(
        "", "folders, abbreviations of the registry, models of the hub, with blanks between them", group=MODEL
    )
    train_files: str = option("", "files to train on, .txt.gz or .json.gz, with blanks between them", group=MODEL)
    validation_files: str = option("", "one for all of them, or one for each in the same order", group=MODEL)
    seeds: str = option("1 2 3", "one run for each", group=MODEL)
    after: str = option("", "begin when these jobs have ended well", metavar="JOB")


JobOptions = TrainJobOptions | EvalJobOptions | PredictJobOptions | LmJobOptions
OPTIONS: dict[str, type[JobOptions]] = {
    "train": TrainJobOptions,
    "eval": EvalJobOptions,
    "predict": PredictJobOptions,
    "lm": LmJobOptions,
}


def parse_combination_options(
    kind: str, argv: Sequence[str], variables: dict[str, str], prog: str, description: str
) -> Any:
    """Parse the options of a submit script.

    Args:
        kind: train, eval, predict or lm.
        argv: the user's arguments.
        variables: those at the top of the script.
        prog: the script's name.
        description: shown by --help.
    """
    parser = OptionParser(OPTIONS[kind], description=description, default_config=Path("none"), prog=prog)
    flags = {f"--{field.name}" for field in fields(OPTIONS[kind]) if field.type is bool}
    return parser.parse(_joined(argv, flags), layers=[(f"the variables of {prog}", variables)])


def _joined(argv: Sequence[str], flags: set[str]) -> list[str]:
    """Return arguments with each value joined to its option: for argparse ``--balanced`` is no value of --options."""
    joined, words = [], iter(argv)
    for word in words:
        takes_value = word.startswith("--") and "=" not in word and f"--{word[2:].replace('-', '_')}" not in flags
        value = next(words, None) if takes_value and word != "--help" else None
        joined.append(word if value is None else f"{word}={value}")
    return joined
