"""Many fine-tunings as Slurm jobs: a config file and a script for each, one job array for all.

A job fine-tunes a model, evaluates it, and notes what came out in result.json (see `utils.job_result`), which is the
mark of its completeness.
"""

import itertools
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from utils import slurm
from utils.classification import ClassifierOptions, FinetuneOptions, open_texts, typed_name
from utils.errors import RunFailure, UserError, nearest
from utils.language_database import ModelType
from utils.layout import RunLayout, atomic_path, check_lang, read_json, split_langs, timestamp, write_json, write_text
from utils.options import PROJECT, OptionParser, option
from utils.registry import find_model, load_registry

TEMPLATES = PROJECT / "jobs" / "templates"
# Every template must have these; the scripts fill others in besides.
REQUIRED_FIELDS = ("job_name", "cpus", "gpus", "timeout", "args")
# Options of evaluate.py that are not about the classifier and that a config of a job may set.
EVALUATION_OPTIONS = ("precision", "eval_token_budget", "cache_dir", "output_dir", "models_dir", "seed")
# The tasks of an array differ in the script that they run.
ARRAY_SCRIPT = """
set -euo pipefail

# What to run is this task's line of the manifest, counted from an offset.
exec "$(sed -n "$(($2 + SLURM_ARRAY_TASK_ID + 1))p" "$1")"
"""


@dataclass(kw_only=True)
class SubmitOptions:
    """How jobs are made and submitted."""

    template: str = option("", "template of the jobs", aliases=["-t"], metavar="FILE")
    template_fields: dict = option({}, "further fields of the template: --template_fields.account abc123")
    output_dir: str = option("jobs/generated", "where the jobs' scripts are written", shared=False)
    timeout: str = option("24:00:00", "time limit of a job")
    cpus: int = option(2, "CPUs of a job", minimum=1)
    gpus: int = option(1, "GPUs of a job", minimum=0)
    max_jobs: int | None = option(None, "run at most so many jobs at once", minimum=1, metavar="N")
    after: list[str] | None = option(None, "begin when these jobs have ended well", metavar="JOBID")
    confirm_above: int = option(100, "ask before more jobs than this are submitted", minimum=0, metavar="N")
    yes: bool = option(False, "do not ask")
    dry_run: bool = option(False, "show what would be submitted; write and submit nothing")
    debug: bool = option(False, "show tracebacks")


@dataclass(kw_only=True)
class JobOptions(SubmitOptions):
    """What grid_search.py and finetuning_generator.py have in common."""

    config: list[str] = option(
        help="JSON or YAML files with options of finetune.py and of this script, merged left to right",
        positional=True,
    )
    languages: list[str] | None = option(
        None, "the languages; without it all of the task or of the corpus", metavar="LANG"
    )
    model_type: list[str] | None = option(
        None, "what the texts are, see finetune.py: normal, ipa or both", choices=get_args(ModelType)
    )
    models_dir: str | None = option(None, "where trained models are kept; without it as the configs say", shared=False)
    seed: int | None = option(None, "seed of the runs; without it as the configs say", shared=False, minimum=0)
    print_config: bool = option(False, "print all options and where their values come from, and end")


@dataclass
class Job:
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


def check_submit_options(options: SubmitOptions) -> None:
    """Raise a `UserError` for a time limit or the number of a job that is none."""
    slurm.parse_timeout(options.timeout)
    for job in options.after or []:
        if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
            raise UserError(f"--after {job}: expected the number of a job")


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
    if len(set(options.languages or [])) < len(options.languages or []):
        raise UserError(f"--languages: a language is given twice: {' '.join(options.languages)}")
    return options.languages or known


def make_jobs(
    base: dict[str, Any], options: JobOptions, train_langs: Iterable[str], eval_langs: list[str], name: str = ""
) -> list[Job]:
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
            jobs.append(Job("_".join(filter(None, (f"{model}-{langs}", name))), job, eval_langs))
    return jobs


def check_texts(jobs: list[Job]) -> None:
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


def is_complete(job: Job) -> bool:
    """Say whether a job has a result.

    Raises:
        UserError: if it was made with other options.
    """
    result = read_json(job.result_json)
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


class Batch:
    """The jobs of one command: written to a folder, and submitted as one array.

    Args:
        name: of the folder below --output_dir.
        jobs: all of them.
        options: of the script.
        config_dir: where their config files go; None is a folder beside the scripts.
    """

    def __init__(self, name: str, jobs: list[Job], options: SubmitOptions, config_dir: str | None = None):
        self.name, self.jobs, self.options = name, jobs, options
        self.folder = (Path(options.output_dir) / name).resolve()
        self.configs = (Path(config_dir) / name).resolve() if config_dir else self.folder / "configs"
        self.submitted_tsv = self.folder / "submitted.tsv"

    def run(self, script: str) -> None:
        """Submit what is not complete and not in the queue.

        Args:
            script: what to tell the user to call for the results.
        """
        left = [job for job in self.jobs if not self.is_complete(job)]
        complete = len(self.jobs) - len(left)
        headers = [array_header(self.fill(job, job_name=self.name)) for job in left]
        if len(set(headers)) > 1:
            differing = next(a for a, b in zip(*map(str.splitlines, sorted(set(headers))[:2]), strict=True) if a != b)
            raise UserError(f"template {self.options.template}: {differing!r} differs between jobs of one array")
        limit = 1001 if self.options.dry_run else slurm.array_limit()
        queued = set() if self.options.dry_run else self.queued()
        waiting = sum(job.name in queued for job in left)
        left = [job for job in left if job.name not in queued]
        print(self.describe(len(left), complete, waiting))
        if not left:
            return
        if self.options.dry_run:
            print("\n".join(job.name for job in left))
            print(f"their scripts, configs and the array would be in {self.folder}")
            return
        self.confirm(len(left))
        self.submit(left, headers[0], limit, script)

    def describe(self, left: int, complete: int, waiting: int) -> str:
        """Return the line that says how much there is to do."""
        hours = left * slurm.parse_timeout(self.options.timeout) / 3600
        text = f"{len(self.jobs)} jobs: {left} to submit"
        text += f", at most {hours:,.1f} node-hours ({self.options.timeout} each)" if left else ""
        text += f", {complete} complete and skipped" if complete else ""
        return text + (f", {waiting} in the queue already" if waiting else "")

    def confirm(self, count: int) -> None:
        """Ask the user when there are many jobs."""
        if count <= self.options.confirm_above or self.options.yes:
            return
        if not sys.stdin.isatty():
            raise UserError(
                f"{count} jobs are more than --confirm_above {self.options.confirm_above}; --yes submits them"
            )
        if input(f"submit {count} jobs? [y/N] ").strip().lower() not in ("y", "yes"):
            raise UserError("nothing is submitted")

    def fill(self, job: Job, **changes: str) -> str:
        """Return the script of a job."""
        values = {
            "job_name": job.name,
            "cpus": str(self.options.cpus),
            "gpus": str(self.options.gpus),
            "timeout": self.options.timeout,
            "project": str(PROJECT),
            "log": str((job.layout.outputs / "train.txt").resolve()),
            "search": self.name,
        } | {name: str(value) for name, value in self.options.template_fields.items()}
        for name, value in values.items():
            if "\n" in value:
                raise UserError(f"--template_fields.{name}: a field cannot hold a line break")
        quoted = {name: shlex.quote(value) for name, value in (values | changes).items()}
        quoted |= {name: shlex.join(words) for name, words in self.arguments(job).items()}
        return slurm.fill_template(Path(self.options.template), quoted, REQUIRED_FIELDS)

    def arguments(self, job: Job) -> dict[str, list[str]]:
        """Return the fields of the template that are command lines."""
        config = str(self.configs / f"{job.name}.json")
        return {
            "args": ["--config", config],
            "eval_args": evaluation_arguments(job),
            "result_args": [config, "--eval_langs", *job.eval_langs],
        }

    def is_complete(self, job: Job) -> bool:
        """Say whether there is nothing left to do for a job."""
        return is_complete(job)

    def queued(self) -> set[str]:
        """Return the names of jobs in the queue."""
        tasks, names = slurm.queued_tasks(), set()
        if self.submitted_tsv.is_file():
            for line in self.submitted_tsv.read_text(encoding="utf-8").splitlines():
                task, name = line.split("\t")
                names |= {name} if task in tasks else set()
        return names

    def submit(self, jobs: list[Job], header: str, limit: int, script: str) -> None:
        """Write the files of these jobs and submit them, in pieces where Slurm limits arrays."""
        for job in jobs:
            write_json(self.configs / f"{job.name}.json", job.config)
            self.write_script(self.folder / f"{job.name}.sh", self.fill(job))
        # To the nanosecond: what is submitted next must not replace the manifest of tasks that wait.
        stamp = timestamp()
        manifest, array = self.folder / f"manifest-{stamp}.txt", self.folder / f"array-{stamp}.sh"
        write_text(manifest, "".join(f"{self.folder / job.name}.sh\n" for job in jobs))
        log = f"#SBATCH --output={shlex.quote(str(self.folder / 'slurm-%A.txt'))}\n#SBATCH --open-mode=append\n"
        self.write_script(array, f"#!/usr/bin/env bash\n{log}{header}{ARRAY_SCRIPT}")
        ids: list[str] = []
        for offset in range(0, len(jobs), limit):
            piece = jobs[offset : offset + limit]
            wait = [f"afterok:{':'.join(self.options.after)}"] if self.options.after else []
            # Pieces run one after the other, or together they would run more than so many jobs.
            wait += [f"afterany:{ids[-1]}"] if ids and self.options.max_jobs else []
            command = slurm.array_command(
                array, [str(manifest), str(offset)], len(piece), max_jobs=self.options.max_jobs, wait=wait
            )
            try:
                ids.append(slurm.submit(command))
            except RunFailure as failure:
                submitted = f"submitted: {' '.join(ids)}" if ids else "nothing is submitted"
                raise RunFailure(
                    f"sbatch refused {len(piece)} jobs, {piece[0].name} ... {piece[-1].name}: {failure}\n"
                    f"{submitted}; the same command submits the rest"
                ) from None
            with self.submitted_tsv.open("a", encoding="utf-8") as file:
                file.writelines(f"{ids[-1]}_{index}\t{job.name}\n" for index, job in enumerate(piece))
            print(f"job {ids[-1]}: {len(piece)} tasks, {piece[0].name} ... {piece[-1].name}")
        print(f"scripts   {self.folder}\nconfigs   {self.configs}\nlogs      {jobs[0].layout.outputs}/train.txt, ...")
        print(f"follow    squeue --me\n{script}\ncancel    scancel {' '.join(ids)}")

    @staticmethod
    def write_script(path: Path, text: str) -> None:
        """Write a script that can be run."""
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        path.chmod(path.stat().st_mode | 0o111)


def array_header(script: str) -> str:
    """Return the #SBATCH lines of a script."""
    return "".join(f"{line}\n" for line in script.split("\n") if line.startswith("#SBATCH"))


def evaluation_arguments(job: Job) -> list[str]:
    """Return the arguments of evaluate.py for a job."""
    names = [field.name for field in fields(ClassifierOptions) if field.name not in ("config", "print_config", "debug")]
    arguments = []
    for name in dict.fromkeys([*names, *EVALUATION_OPTIONS]):
        value = job.config.get(name)
        if value is not None:
            arguments += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return [*arguments, "--eval_langs", *job.eval_langs]
