"""Searches for good hyperparameters with Optuna, in any number of processes at once.

A study lives in a journal file, which Optuna locks for every entry; jobs on several nodes work on it
together, and the same command goes on with an interrupted study. What Optuna leaves open is settled here:
`n_trials` counts the trials of the whole study, and the trial of a process that died is taken up again.
"""

import contextlib
import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from utils.cli.options import EFFORT, OPTUNA, PLACE, SEARCH, SEARCHING, option, options_by_role
from utils.cli.progress import progress
from utils.cli.values import Objects, resolve_objects
from utils.errors import Diverged, Interrupted, UserError, nearest
from utils.runs.files import locked
from utils.runs.processors import usable_processors
from utils.training.study_params import check_params, suggest

if TYPE_CHECKING:
    import optuna

# Keys of the study's options whose values are classes or functions.
STUDY_OBJECTS = Objects(
    modules=("optuna.samplers", "optuna.pruners"),
    keys=frozenset({"sampler", "pruner", "wrapped_pruner", "independent_sampler", "gamma", "weights"}),
    late=True,
)
OPTIMIZE_OBJECTS = Objects(keys=frozenset({"callbacks", "catch"}), late=True)
STUDY_HELP = "options of the study; a class given as KEY is made with the options under KEY_kwargs"
PARAMS_HELP = "what to search: --params.NAME.values LOW HIGH --params.NAME.suggest_kwargs.log"
# Takes an epoch and its value; ends the trial by an exception if it is pruned.
Report = Callable[[int, float], None]
Objective = Callable[[dict[str, Any], Report], float]


def study_defaults(direction: str) -> dict[str, Any]:
    """Return the default options of a study that minimizes or maximizes."""
    return {
        "study_name": None,
        "sampler": "optuna.samplers.GPSampler",
        "sampler_kwargs": {"deterministic_objective": True},
        "pruner": "optuna.pruners.PatientPruner",
        "pruner_kwargs": {
            "wrapped_pruner": "optuna.pruners.WilcoxonPruner",
            "wrapped_pruner_kwargs": {"p_threshold": 0.1, "n_startup_steps": 100},
            "patience": 30,
            "min_delta": 0.0,
        },
        "direction": direction,
    }


@dataclass(kw_only=True)
class OptimizationOptions:
    """The search for good hyperparameters."""

    GROUP: ClassVar[str] = SEARCHING
    KWARGS_GROUP: ClassVar[str] = OPTUNA

    do_optimize: bool = option(False, "search hyperparameters instead of training once")
    params: dict = option({"lr": {"values": [2e-6, 2e-5], "suggest_kwargs": {}}}, PARAMS_HELP, role=SEARCH)
    study_kwargs: dict = option(
        study_defaults("minimize"), STUDY_HELP, role=SEARCH, group=OPTUNA, imports=STUDY_OBJECTS
    )
    optimize_kwargs: dict = option(
        {"n_trials": 2, "gc_after_trial": True, "show_progress_bar": False},
        "options of optuna's optimize; n_trials counts those of all processes of the study",
        role=EFFORT,
        group=OPTUNA,
        imports=OPTIMIZE_OBJECTS,
    )


@dataclass(frozen=True)
class StudySettings:
    """What to search and how.

    Attributes:
        name: of the study in its journal.
        journal: the file that all processes share.
        study_kwargs: options of the study, see `--study_kwargs`; classes as import paths or themselves.
        optimize_kwargs: options of `Study.optimize`.
        params: per hyperparameter `values`, perhaps `type` and `suggest_kwargs`.
        defaults: the hyperparameters' values without a search; a list is searched entry by entry.
        seed: of the sampler.
        metric: what the value of a trial is called.
        options: of the script, whose bounds hold for what is suggested.
    """

    name: str
    journal: Path
    study_kwargs: dict[str, Any]
    optimize_kwargs: dict[str, Any]
    params: dict[str, dict[str, Any]]
    defaults: dict[str, Any]
    seed: int
    metric: str
    options: Any = None

    @property
    def place(self) -> str:
        """Where the study is kept, without a password."""
        shown = without_password({"study_kwargs": self.study_kwargs})["study_kwargs"].get("storage")
        return str(shown or self.journal)


def run_study(settings: StudySettings, objective: Objective) -> "optuna.Study":
    """Work on a study until it has its trials.

    Args:
        settings: of the study.
        objective: given hyperparameters by name and a function that reports an epoch's value (and ends the
            trial by an exception if it is pruned), trains and returns the final value.

    Returns:
        The study as it is then; other processes may still be at work.

    Raises:
        UserError: for options that Optuna refuses.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    # An error in a trial ends the script, which says it in a line.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Of the sampler and the pruners that are the defaults here.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    check_params(settings.params, settings.defaults, settings.options)
    kwargs = _instantiate(resolve_objects(settings.study_kwargs, STUDY_OBJECTS, "--study_kwargs"), settings.seed)
    optimize = dict(resolve_objects(settings.optimize_kwargs, OPTIMIZE_OBJECTS, "--optimize_kwargs"))
    jobs = optimize.pop("n_jobs", 1)
    if type(jobs) is not int or jobs == 0 or jobs < -1:
        raise UserError(f"--optimize_kwargs.n_jobs must be a number of processes, or -1 for all cores; got {jobs!r}")
    trials = optimize.get("n_trials")
    if trials is not None and (type(trials) is not int or trials < 0):
        raise UserError(f"--optimize_kwargs.n_trials must be a whole number or None, got {trials!r}")
    known = inspect.signature(optuna.Study.optimize).parameters
    for name in optimize:
        if name not in known:
            raise UserError(f"--optimize_kwargs.{name}: unknown{nearest(name, known)}")
    storage = kwargs.pop("storage", None)
    settings.journal.parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            **{**kwargs, "study_name": settings.name},
            storage=storage or JournalStorage(JournalFileBackend(str(settings.journal))),
            load_if_exists=True,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"--study_kwargs: {error}") from None
    except (OSError, ImportError, SQLAlchemyError) as error:
        raise UserError(f"--study_kwargs.storage: {str(error).splitlines()[0]}") from None
    with helpers((usable_processors() if jobs == -1 else jobs) - 1), Worker(study, settings) as worker:
        worker.work(objective, optimize)
    return study


@contextlib.contextmanager
def helpers(count: int) -> Iterator[None]:
    """Let the same command work on the same study in other processes too; they end with this one.

    All share the cores of this machine among them. One that ends with an error has said why; the study goes on.
    """
    command = [sys.executable, *sys.argv, "--optimize_kwargs.n_jobs", "1"]
    environment = dict(os.environ)
    if count:
        import torch

        # Processes that share a core wait for each other's threads.
        threads = max(1, usable_processors() // (count + 1))
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    processes = [subprocess.Popen(command, env=environment) for _ in range(count)]
    try:
        yield
        if failed := sum(process.wait() != 0 for process in processes):
            print(
                f"{failed} of the {count} other processes of the study ended with an error, see above", file=sys.stderr
            )
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()


class Worker:
    """One process's part in a study.

    Args:
        study: shared with other processes.
        settings: of the study.
    """

    def __init__(self, study: "optuna.Study", settings: StudySettings):
        self.study = study
        self.settings = settings
        self.name = uuid.uuid4().hex[:12]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Worker":
        # Held as long as this process lives; who can take it knows that it does not.
        self._stack.enter_context(locked(self._lock_file(self.name)))
        # On a file system without locks nobody can tell, and no trial is taken from anybody.
        self._locks_work = self._is_alive(self.name)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()
        self._lock_file(self.name).unlink(missing_ok=True)

    def _lock_file(self, name: str) -> Path:
        return self.settings.journal.with_name(f".{self.settings.journal.stem}.{name}.lock")

    def work(self, objective: Objective, optimize: dict[str, Any]) -> None:
        """Run trials until the study has as many as it should, or its time is over."""
        wanted = optimize.pop("n_trials", None)
        timeout = optimize.pop("timeout", None)
        deadline = None if timeout is None else time.monotonic() + timeout
        show = optimize.pop("show_progress_bar", False)
        with progress(total=wanted, desc="trials", disable=not show, leave=True) as bar:
            while deadline is None or time.monotonic() < deadline:
                with contextlib.ExitStack() as claim:
                    # From counting the trials to the beginning of a new one, no other process counts.
                    claim.enter_context(locked(self._lock_file("claim")))
                    if not self._is_one_left(wanted):
                        return
                    self._run_trial(objective, optimize, claim)
                bar.update()

    def _is_one_left(self, wanted: int | None) -> bool:
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_abandoned(trial):
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.study.enqueue_trial(trial.params)
        counted = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
        return wanted is None or len(self.study.get_trials(deepcopy=False, states=counted)) < wanted

    def _is_abandoned(self, trial: "optuna.trial.FrozenTrial") -> bool:
        worker = trial.user_attrs.get("worker")
        # Without a worker, the process ended before it had noted which one it is.
        return self._locks_work and (worker is None or not self._is_alive(worker))

    def _is_alive(self, worker: str) -> bool:
        import filelock

        try:
            with locked(self._lock_file(worker), wait=False):
                pass
        except filelock.Timeout:
            return True
        self._lock_file(worker).unlink(missing_ok=True)
        return False

    def _run_trial(self, objective: Objective, optimize: dict[str, Any], claim: contextlib.ExitStack) -> None:
        """Run one trial; the claim is given up as soon as others can see it."""
        number = len(self.study.get_trials(deepcopy=False))
        _reseed(self.study, self.settings, number)
        started: list[optuna.Trial] = []

        def run(trial: "optuna.Trial") -> float:
            started.append(trial)
            trial.set_user_attr("worker", self.name)
            claim.close()
            return self._evaluate(trial, objective)

        try:
            self.study.optimize(run, n_trials=1, **optimize)
        except (Interrupted, KeyboardInterrupt):
            if started:
                self.study.enqueue_trial(started[0].params)
            raise

    def _evaluate(self, trial: "optuna.Trial", objective: Objective) -> float:
        import optuna

        settings = self.settings
        values = {name: suggest(trial, name, spec, settings.defaults[name]) for name, spec in settings.params.items()}
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        print(f"trial {trial.number}: {shown}", flush=True)

        def report(step: int, value: float) -> None:
            trial.report(value, step)
            if trial.should_prune():
                print(f"trial {trial.number}: pruned after {step} epochs", flush=True)
                raise optuna.TrialPruned

        try:
            value = objective(values, report)
        except UserError as error:
            raise UserError(f"trial {trial.number} ({shown}): {error}") from None
        except Diverged as error:
            print(f"trial {trial.number}: {str(error).splitlines()[0]}", flush=True)
            raise optuna.TrialPruned from error
        print(f"trial {trial.number}: {settings.metric} {value:.6g}", flush=True)
        return value


def _instantiate(kwargs: dict[str, Any], seed: int, where: str = "--study_kwargs") -> dict[str, Any]:
    """Make objects of the classes among options: KEY with the options under KEY_kwargs."""
    made = {}
    for key, value in kwargs.items():
        if key.endswith("_kwargs") and key.removesuffix("_kwargs") in kwargs:
            continue
        if inspect.isclass(value):
            own = _instantiate(kwargs.get(f"{key}_kwargs") or {}, seed, f"{where}.{key}_kwargs")
            try:
                if key == "sampler" and "seed" in inspect.signature(value).parameters:
                    own = {"seed": seed, **own}
                value = value(**own)
            except (TypeError, ValueError) as error:
                raise UserError(f"{where}.{key}: {error}") from None
        if value is not None:
            made[key] = value
    return made


def _reseed(study: "optuna.Study", settings: StudySettings, number: int) -> None:
    """Make the next trial's suggestions depend on its number: processes must not suggest the same."""
    kwargs = resolve_objects(settings.study_kwargs, STUDY_OBJECTS, "--study_kwargs")
    if "seed" not in (kwargs.get("sampler_kwargs") or {}):
        sampler = _instantiate(kwargs, (settings.seed + number) % 2**32).get("sampler")
        if sampler is not None:
            study.sampler = sampler


def without_password(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a script's options as they may be noted: of a database's address, all but the password."""
    kwargs = settings.get("study_kwargs") or {}
    if not isinstance(kwargs.get("storage"), str):
        return settings
    # To the last @: nobody's mistake in writing an address shows what it holds.
    shown = re.sub(r"(://[^/@:]*):.*@", r"\1:***@", kwargs["storage"])
    return settings | {"study_kwargs": kwargs | {"storage": shown}}


def free_in_study(options_class: type) -> list[str]:
    """Return the options that may change while a study goes on."""
    return options_by_role(options_class, PLACE, EFFORT)


def study_name(
    options: OptimizationOptions, settings: dict[str, Any], files: list[dict[str, str]], free: Collection[str]
) -> str:
    """Return the name of a study: the given one, or one that the same options and data always give.

    Args:
        options: with the study's.
        settings: all options as they go to run.json.
        files: the data, each with its sha256.
        free: options that may change while a study goes on, by their roles.
    """
    given = options.study_kwargs.get("study_name")
    if given is not None:
        return str(given)
    content = {name: value for name, value in settings.items() if name not in free}
    content["data"] = [file["sha256"] for file in files]
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return "-".join([str(options.study_kwargs.get("direction")), *options.params, key])
