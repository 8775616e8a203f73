"""Many fine-tunings as Slurm jobs: a config file and a script for each, one job array for all.

A job fine-tunes a model, evaluates it, and notes what came out in result.json (see `utils.jobs.result`), which is the
mark of its completeness.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from utils.cli.options import MODEL, OTHER, PLACES, option
from utils.cli.parser import OptionParser
from utils.data.language_database import ModelType
from utils.data.source import open_texts
from utils.errors import UserError, nearest
from utils.jobs import batch
from utils.jobs.batch import SubmitOptions, check_submit_options
from utils.models.registry import find_model, load_registry, typed_name
from utils.runs.layout import RunLayout, check_lang, split_langs
from utils.runs.shapes import read_result
from utils.training.classifier_options import EvaluateOptions, FinetuneOptions


@dataclass(kw_only=True)
class JobOptions(SubmitOptions):
    """What grid_search.py and finetuning_generator.py have in common."""

    config: list[str] = option(
        help="JSON or YAML files with options of finetune.py and of this script, merged left to right",
        group=MODEL,
        positional=True,
    )
    languages: list[str] | None = option(
        None, "the languages; without it all of the task or of the corpus", group=MODEL, metavar="LANG"
    )
    model_type: list[str] | None = option(
        None, "what the texts are, see finetune.py: normal, ipa or both", group=MODEL, choices=get_args(ModelType)
    )
    models_dir: str | None = option(
        None, "where trained models are kept; without it as the configs say", group=PLACES, shared=False, metavar="DIR"
    )
    seed: int | None = option(
        None, "seed of the runs; without it as the configs say", group=MODEL, shared=False, minimum=0
    )
    print_config: bool = option(False, "print all options and where their values come from, and end", group=OTHER)


@dataclass
class Experiment:
    """One fine-tuning: its name, the options of finetune.py that make it up, and what to evaluate it on."""

    name: str
    config: dict[str, Any]
    eval_langs: list[str]

    @property
    def layout(self) -> RunLayout:
        """Where its results are."""
        c = self.config
        return RunLayout(
            c["model_name"], c["train_langs"], c.get("subfolder"), c["output_dir"], c["models_dir"]
        )  # fmt: skip

    @property
    def result_json(self) -> Path:
        """What came out; there when the job is complete."""
        return self.layout.outputs / "result.json"


def parse_job_options(options_class: type, description: str) -> tuple[Any, dict[str, Any]]:
    """Parse the command line of a script that plans jobs.

    Returns:
        The script's own options, and the options of finetune.py from the config files.
    """
    parser = OptionParser(options_class, description=description, passes_on=FinetuneOptions)
    options = parser.parse()
    base = dict(parser.passed_on)
    base |= {name: getattr(options, name) for name in ("models_dir", "seed") if getattr(options, name) is not None}
    for name in ("train_langs", "do_optimize", "force"):
        if name in base:
            raise UserError(
                f"{', '.join(options.config)}: {name} is for finetune.py alone, these jobs choose it themselves"
            )
    if "model_name" not in base:
        raise UserError(f"{', '.join(options.config)}: model_name is missing")
    check_submit_options(options)
    return options, base


def check_config(content: dict[str, Any], origin: str, **more: Any) -> FinetuneOptions:
    """Return options of finetune.py as it would read them.

    Args:
        content: the options.
        origin: what to name when one of them is wrong.
        more: options that the job sets itself.

    Raises:
        UserError: if finetune.py would refuse them.
    """
    parser = OptionParser(FinetuneOptions)
    return parser.parse([], layers=[("the job", {"train_langs": "en"} | more), (origin, content)])


def check_languages(base: dict[str, Any], options: JobOptions) -> list[str]:
    """Return the languages to choose from, as given or all there are."""
    names = ("task", "language_database", "dataset", "corpus_path")
    checked = check_config({key: value for key, value in base.items() if key in names}, "the configs", model_name="x")
    known = open_texts(checked, None).languages("train")
    for lang in options.languages or []:
        if check_lang(lang) not in known:
            raise UserError(f"--languages: no texts in {lang!r}{nearest(lang, known)}")
    given = options.languages or []
    if len(set(given)) < len(given):
        raise UserError(f"--languages: a language is given twice: {' '.join(given)}")
    return options.languages or known


def make_jobs(
    base: dict[str, Any], options: JobOptions, train_langs: Iterable[str], eval_langs: list[str], name: str = ""
) -> list[Experiment]:
    """Return a job per kind of texts and set of training languages, after all checks that need no training.

    Args:
        base: options of finetune.py for all of them.
        options: of the script.
        train_langs: each a language or several joined by ``-``.
        eval_langs: languages to evaluate on.
        name: what the jobs' names end with.
    """
    jobs, origin = [], ", ".join(options.config)
    for model_type in dict.fromkeys(options.model_type or ["normal"]):
        config = dict(base)
        if base.get("task"):
            config["model_type"] = model_type
        elif model_type == "ipa":
            raise UserError("--model_type ipa: the configs name no task, and the register corpus has no phonemes")
        for langs in train_langs:
            checked = check_config(config, origin, train_langs=langs)
            known = load_registry(checked.model_registry)
            model = typed_name(checked.model_name, model_type, known)
            find_model(model, checked.model_registry)
            job = config | {"model_name": model, "train_langs": langs}
            job |= {"output_dir": checked.output_dir, "models_dir": checked.models_dir, "seed": checked.seed}
            jobs.append(Experiment("_".join(filter(None, (f"{model}-{langs}", name))), job, eval_langs))
    return jobs


def check_texts(jobs: list[Experiment]) -> None:
    """Refuse languages whose texts are missing or whose labels differ, before any job is submitted."""
    for model_type in {job.config.get("model_type") for job in jobs}:
        chosen = [job for job in jobs if job.config.get("model_type") == model_type]
        eval_langs = chosen[0].eval_langs
        mixes = {job.config["train_langs"]: split_langs(job.config["train_langs"]) for job in chosen}
        train_langs = list(dict.fromkeys(itertools.chain.from_iterable(mixes.values())))
        texts = open_texts(check_config(chosen[0].config, chosen[0].name), list({*train_langs, *eval_langs}))
        texts.require("train", train_langs)
        texts.require("test", eval_langs)
        for langs in mixes.values():
            texts.label_names(list(dict.fromkeys([*langs, *eval_langs])))


def is_complete(job: Experiment) -> bool:
    """Return whether a job has a result.

    Raises:
        UserError: if it was made with other options.
    """
    result = read_result(job.result_json)
    if result is None:
        return False
    before = result["config"]
    for key in sorted(before.keys() | job.config.keys()):
        if before.get(key) != job.config.get(key):
            raise UserError(
                f"{job.result_json} was made with {key} {before.get(key)!r}, not {job.config.get(key)!r}; "
                "choose another subfolder in the config, or remove that result"
            )
    return set(job.eval_langs) <= set(result["evaluations"])


def evaluation_arguments(job: batch.Job, eval_langs: list[str]) -> list[str]:
    """Return the arguments of evaluate.py for a job: the options of finetune.py that evaluate.py has too."""
    arguments = []
    for field in fields(EvaluateOptions):
        value = job.config.get(field.name)
        if value is not None:
            arguments += [f"--{field.name}", *map(str, value if isinstance(value, list) else [value])]
    return [*arguments, "--eval_langs", *eval_langs]


class ExperimentBatch(batch.Batch):
    """Fine-tunings as jobs, each of which is evaluated and notes its result."""

    def arguments(self, job: Experiment) -> dict[str, list[str]]:
        """Return the command lines of finetune.py, evaluate.py and of what notes the result."""
        config = str(self.configs / f"{job.name}.json")
        return {
            "args": ["--config", config],
            "eval_args": evaluation_arguments(job, job.eval_langs),
            "result_args": [config, "--eval_langs", *job.eval_langs],
        }

    def is_complete(self, job: Experiment) -> bool:
        """Return whether a job has a result on all of its languages."""
        return is_complete(job)
