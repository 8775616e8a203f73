"""What submit_train_jobs.sh and submit_eval_jobs.sh submit: combinations of models and training languages.

A combination with something to do becomes a line of the manifest, outputs/[SUBFOLDER/]jobs/KIND-DATE.tsv: its folder,
the evaluation languages (- in training) and the arguments of the script, with tabs between them.
"""

import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from utils.cli.parser import OptionParser
from utils.data.source import TextSource, open_texts
from utils.errors import UserError
from utils.jobs import slurm
from utils.jobs.options import ALL, EvalJobOptions, TrainJobOptions
from utils.jobs.status import JobStatus
from utils.jobs.submission import Ledger, Work
from utils.models.registry import ModelSpec, find_model, load_registry, registry_path, typed_name
from utils.runs.layout import RunLayout, check_lang, split_langs
from utils.runs.record import differences
from utils.runs.resume import is_trained
from utils.runs.shapes import read_record
from utils.training.baseline import PROBE, TFIDF, baseline_options, baseline_spec, is_baseline
from utils.training.classifier_options import (
    FREE_OPTIONS,
    EvaluateOptions,
    FinetuneOptions,
    resolve_settings,
)


@dataclass
class Combination:
    """A model and its training languages, and what becomes of it."""

    spec: ModelSpec
    langs: str
    layout: RunLayout
    # Evaluation languages without a result, and those in the queue.
    missing: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    # The training task that its evaluation waits for.
    awaited: str | None = None

    @property
    def name(self) -> str:
        """MODEL-LANGS."""
        return self.layout.name


@dataclass
class Plan:
    """Combinations by what becomes of them."""

    work: list[Any] = field(default_factory=list)
    complete: list[Any] = field(default_factory=list)
    queued: list[Any] = field(default_factory=list)
    untrained: list[Combination] = field(default_factory=list)
    # Complete, but with other options, with what differs.
    different: list[tuple[Combination, list[str]]] = field(default_factory=list)


def check_argument(word: str) -> None:
    """Raise a `UserError` for what cannot be part of a manifest's line."""
    if re.search(r"[\t\n\r\0]", word):
        raise UserError(f"tabs and line breaks cannot be passed to a job, got {word!r}")


def split_words(option: str, text: str) -> list[str]:
    """Return an option's value as arguments, as a shell would.

    Raises:
        UserError: for quotation marks that do not close.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option} {text!r}: {error}") from None


class Planner:
    """Finds the combinations and plans what is to be done for them.

    Args:
        options: of the submit script.

    Raises:
        UserError: for anything that could not run: names, languages without texts, options of the script.
    """

    kind: ClassVar[str]
    script_options: ClassVar[type]

    def __init__(self, options: Any):
        self.options = options
        self.results_dir = Path(options.output_dir) / options.subfolder
        self.jobs_dir = self.results_dir / "jobs"
        self.ledger = Ledger(self.jobs_dir / f"{self.kind}.tsv")
        self.after = slurm.parse_after(options.after)
        self.extra = split_words("--options", options.options)
        for word in (options.subfolder, options.output_dir, options.models_dir, *self.extra):
            check_argument(word)
        self.script = self.check_options()
        self.texts: TextSource = open_texts(self.script, None)
        registry = getattr(self.script, "model_registry", None)
        self.registry_file = registry_path(registry)
        self.registry = load_registry(registry)
        self.eval_langs = self.find_eval_langs()
        # Of trainings that are awaited, the task by name.
        self.training: dict[str, str] = self.find_training()
        self.combinations = self.find_combinations()
        self.queue: dict[str, str] = {}
        # By name: the last task submitted, the task in the queue, and the evaluation languages of such tasks.
        self.last_task: dict[str, str] = {}
        self.queued_task: dict[str, str] = {}
        self.queued_langs: dict[str, list[str]] = {}

    def own_arguments(self, model: str, langs: str) -> list[str]:
        """Return the arguments of the script that the combination decides."""
        subfolder = ["--subfolder", self.options.subfolder] if self.options.subfolder else []
        places = ["--output_dir", self.options.output_dir, "--models_dir", self.options.models_dir]
        return ["--model_name", model, "--train_langs", langs, *subfolder, *places]

    def check_options(self) -> Any:
        """Parse --options as the script does, which refuses what it would refuse; returns its options."""
        chosen = {"model_name": "model", "train_langs": "en", "subfolder": self.options.subfolder or None}
        chosen |= {"output_dir": self.options.output_dir, "models_dir": self.options.models_dir}
        # Refuses a subfolder that leads out of its folder.
        RunLayout("model", "en", chosen["subfolder"], self.options.output_dir, self.options.models_dir)
        try:
            parsed = OptionParser(self.script_options).parse([*self.own_arguments("model", "en"), *self.extra])
        except UserError as error:
            raise UserError(f"--options: {str(error).splitlines()[0]}" if self.extra else str(error)) from None
        for name, value in chosen.items():
            if getattr(parsed, name) != value:
                raise UserError(f"--options: --{name} is not for --options; it differs between combinations or folders")
        return parsed

    def find_eval_langs(self) -> list[str]:
        """Return the languages to evaluate on; none in training."""
        return []

    def find_training(self) -> dict[str, str]:
        """Return the training tasks to wait for by name; none in training."""
        return {}

    def all_langs(self, model: str) -> list[str]:
        """Return the training languages and mixes of a model that ``all`` stands for."""
        raise NotImplementedError

    def check_langs(self, langs: str) -> None:
        """Raise a `UserError` for names of training languages that are not valid or have no texts."""
        split_langs(langs)

    def find_combinations(self) -> list[Combination]:
        """Return the combinations in the order in which they were given, each once."""
        options, found = self.options, {}
        models = list(self.registry) if options.models == ALL else options.models.split()
        if not models or not options.langs.split():
            raise UserError("no models or no langs are given")
        specs = {}
        for model in models:
            name = typed_name(model, self.script.model_type, self.registry)
            specs[name] = self.find_spec(name)
        specs |= {name: self.find_spec(name) for name in self.baselines(list(specs))}
        for name, spec in specs.items():
            for langs in self.all_langs(name) if options.langs == ALL else options.langs.split():
                self.check_langs(langs)
                layout = RunLayout(name, langs, options.subfolder or None, options.output_dir, options.models_dir)
                found[layout.name] = Combination(spec, langs, layout)
        if not found:
            raise UserError(
                f"nothing to do: no languages in {self.texts.name}, or no trained models in {self.results_dir}"
            )
        return list(found.values())

    def find_spec(self, name: str) -> ModelSpec:
        """Return a model of the registry, or what stands in for it with a baseline."""
        find = baseline_spec if is_baseline(name, self.registry) else find_model
        return find(name, str(self.registry_file))

    def baselines(self, models: list[str]) -> list[str]:
        """Return the baselines that are wanted beside these models; none in evaluation."""
        return []

    def read_queue(self) -> None:
        """Ask Slurm which tasks are in the queue, and find what they do."""
        self.queue = slurm.queue()
        for task, line in self.ledger.tasks():
            folder, langs = line.split("\t")[:2]
            name = Path(folder).name
            self.last_task[name] = task
            if task in self.queue:
                self.queued_task[name] = task
                self.queued_langs.setdefault(name, []).extend(langs.split())

    def plan(self) -> Plan:
        """Return what becomes of each combination; `read_queue` comes first."""
        raise NotImplementedError

    def statuses(self) -> list[JobStatus]:
        """Return the status of each combination; `read_queue` comes first."""
        return [
            self.status(combination, read_record(combination.layout.run_json) or {})
            for combination in self.combinations
        ]

    def status(self, combination: Combination, record: dict[str, Any], **more: Any) -> JobStatus:
        """Return the status of a combination whose run has left this record."""
        name = combination.name
        return JobStatus(
            name,
            queued=self.queue.get(self.queued_task.get(name, ""), ""),
            task=self.last_task.get(name),
            record=record,
            log=combination.layout.outputs / f"{self.kind}.txt",
            **more,
        )

    def work(self, combination: Combination) -> Work:
        """Return what a task does for a combination."""
        own = self.own_arguments(combination.layout.model_name, combination.langs)
        force = ["--force"] if self.options.force else []
        langs = " ".join(combination.missing) or "-"
        words = [str(combination.layout.outputs), langs, *own, *self.more_arguments(combination), *force, *self.extra]
        for word in words:
            check_argument(word)
        wait, index = self.wait_of(combination)
        return Work(combination.name, "\t".join(words), wait, index, self.need_of(combination.spec))

    def more_arguments(self, combination: Combination) -> list[str]:
        """Return arguments of this kind of script."""
        raise NotImplementedError

    def wait_of(self, combination: Combination) -> tuple[str, int | None]:
        """Return what a task waits for, and the index that it must have for that."""
        return (f"afterok:{':'.join(self.after)}" if self.after else ""), None

    def need_of(self, spec: ModelSpec) -> tuple[str, ...]:
        """Return the options of sbatch that the registry gives a model."""
        name = f"sbatch_{self.kind}"
        return tuple(split_words(f"{self.registry_file}: {spec.name}: {name}", getattr(spec, name)))

    def results(self, combination: Combination) -> list[str]:
        """Return the evaluation languages that have a result."""
        return [lang for lang in self.eval_langs if combination.layout.eval_json(lang).is_file()]


class TrainPlanner(Planner):
    """Plans trainings."""

    kind = "train"
    script_options = FinetuneOptions

    def __init__(self, options: TrainJobOptions):
        if options.accelerate_config and not Path(options.accelerate_config).is_file():
            raise UserError(f"cannot read {options.accelerate_config}")
        super().__init__(options)

    def baselines(self, models: list[str]) -> list[str]:
        """Return the baselines of --baselines."""
        if not self.options.baselines:
            return []
        return [TFIDF, *(f"{model}{PROBE}" for model in models if not is_baseline(model, self.registry))]

    def all_langs(self, model: str) -> list[str]:
        """Return each language by itself."""
        return self.texts.languages("train")

    def check_langs(self, langs: str) -> None:
        """Raise a `UserError` unless each language has training texts."""
        self.texts.require("train", split_langs(langs))

    def plan(self) -> Plan:
        """Return what becomes of each combination."""
        plan = Plan()
        for combination in self.combinations:
            record = read_record(combination.layout.run_json)
            if not self.options.force and is_trained(record, combination.layout):
                found = self.differences(combination, record)
                if found:
                    plan.different.append((combination, found))
                else:
                    plan.complete.append(combination)
            elif combination.name in self.queued_task:
                plan.queued.append(combination)
            else:
                plan.work.append(combination)
        return plan

    def status(self, combination: Combination, record: dict[str, Any], **more: Any) -> JobStatus:
        """Return the status of a training."""
        return super().status(combination, record, finished=record.get("status") == "complete")

    def differences(self, combination: Combination, record: dict[str, Any] | None) -> list[str]:
        """Return the options in which a complete run differs from the one that is asked for.

        The number of processes is known in the job alone.
        """
        options = replace(self.script, model_name=combination.layout.model_name, train_langs=combination.langs)
        settings = resolve_settings(options, combination.spec)
        if is_baseline(combination.layout.model_name, self.registry):
            settings = {name: settings[name] for name in baseline_options(options)}
        return differences(record or {}, settings, None, FREE_OPTIONS | {"num_processes"})

    def more_arguments(self, combination: Combination) -> list[str]:
        """Return where texts and models are."""
        return ["--corpus_path", self.script.corpus_path, "--model_registry", str(self.registry_file)]


class EvalPlanner(Planner):
    """Plans evaluations."""

    kind = "eval"
    script_options = EvaluateOptions

    def find_spec(self, name: str) -> ModelSpec:
        """Return a model of the registry; baselines are evaluated when they are trained."""
        if is_baseline(name, self.registry):
            raise UserError(f"{name} is a baseline: its training evaluates it, and no model is kept")
        return super().find_spec(name)

    def find_eval_langs(self) -> list[str]:
        """Return the languages to evaluate on, each with test texts."""
        given = self.options.eval_langs
        langs = self.texts.languages("test") if given == ALL else given.split()
        if not langs:
            raise UserError(f"no eval_langs are given, and {self.texts.name} has no test texts")
        for lang in langs:
            if "-" in lang:
                raise UserError(f"eval_langs are single languages, got {lang!r}")
            check_lang(lang)
        self.texts.require("test", langs)
        return list(dict.fromkeys(langs))

    def find_training(self) -> dict[str, str]:
        """Return the tasks of the trainings that --after names, by combination."""
        found, jobs = {}, set()
        for task, line in Ledger(self.jobs_dir / "train.tsv").tasks():
            job = task.partition("_")[0]
            if job in self.after:
                jobs.add(job)
                found[Path(line.partition("\t")[0]).name] = task
        for job in self.after:
            if job not in jobs:
                raise UserError(f"--after {job}: not a job of submit_train_jobs.sh (see {self.jobs_dir}/train.tsv)")
        return found

    def all_langs(self, model: str) -> list[str]:
        """Return what this model was or is being fine-tuned on."""
        runs = [path.parent.name for path in sorted(self.results_dir.glob(f"{model}-*/run.json"))]
        found = []
        for name in dict.fromkeys([*self.training, *runs]):
            # xlmr-large-en is of the model xlmr-large, not of xlmr.
            known = {*self.registry, *(f"{other}{PROBE}" for other in self.registry), model}
            owners = [other for other in known if name.startswith(f"{other}-")]
            if name.startswith(f"{model}-") and max(owners, key=len) == model:
                found.append(name.removeprefix(f"{model}-"))
        return found

    def plan(self) -> Plan:
        """Return what becomes of each combination."""
        plan = Plan()
        for combination in self.combinations:
            combination.waiting = [x for x in self.eval_langs if x in self.queued_langs.get(combination.name, [])]
            done = [] if self.options.force else self.results(combination)
            combination.missing = [x for x in self.eval_langs if x not in (*combination.waiting, *done)]
            if not combination.missing:
                (plan.queued if combination.waiting else plan.complete).append(combination)
                continue
            trained = is_trained(read_record(combination.layout.run_json), combination.layout)
            task = self.training.get(combination.name)
            combination.awaited = task if task in self.queue and not trained else None
            (plan.work if trained or combination.awaited else plan.untrained).append(combination)
        return plan

    def status(self, combination: Combination, record: dict[str, Any], **more: Any) -> JobStatus:
        """Return the status of an evaluation."""
        done, wanted = len(self.results(combination)), len(self.eval_langs)
        return super().status(combination, record, finished=done == wanted, trains=False, evaluated=f"{done}/{wanted}")

    def more_arguments(self, combination: Combination) -> list[str]:
        """Return where the texts are, and the languages that have no result yet."""
        return ["--corpus_path", self.script.corpus_path, "--eval_langs", *combination.missing]

    def wait_of(self, combination: Combination) -> tuple[str, int | None]:
        """Return the training to wait for, and its task's index."""
        if combination.awaited is None:
            return "", None
        job, index = combination.awaited.split("_")
        return f"aftercorr:{job}", int(index)


def make_planner(kind: str, options: TrainJobOptions | EvalJobOptions) -> Planner:
    """Return the planner of trainings or evaluations."""
    planners: dict[str, type[Planner]] = {"train": TrainPlanner, "eval": EvalPlanner}
    return planners[kind](options)
