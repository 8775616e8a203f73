# PYTHON_ARGCOMPLETE_OK
"""Run the tasks of one YAML file in order: fine-tune, evaluate, parse the logs, put the results into one table.

    python run_pipeline.py config/agnews.yaml
    python run_pipeline.py config/agnews.yaml --tasks B C3_v1
    python run_pipeline.py config/agnews.yaml --dataset ../ag_news --tasks baseline
    python run_pipeline.py config/agnews.yaml --submit --timeout 8:00:00

The file says for every task and subtask what is done, with which model, training arguments and adapters (the README
describes its keys). A step that is finished is not repeated unless --force is given; a task that fails does not stop
the others. --submit runs the subtasks as one Slurm job array.
"""

import ctypes
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils import PROJECT
from utils.cli.options import DATA, MODEL, OTHER, SLURM, option
from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.data.language_database import open_task
from utils.errors import Interrupted, RunFailure, UserError
from utils.jobs.batch import TEMPLATES, Batch, SubmitOptions, check_submit_options
from utils.jobs.experiments import check_config, evaluation_arguments
from utils.models.registry import find_model
from utils.pipeline.config import LANGUAGE, TASK, PipelineFile, Subtask
from utils.runs.files import locked, write_json
from utils.runs.record import differences
from utils.runs.shapes import read_record
from utils.training.baseline import baseline_options
from utils.training.classifier_options import FREE_OPTIONS, resolve_settings

# From Linux's prctl.h.
PR_SET_PDEATHSIG = 1


@dataclass(kw_only=True)
class PipelineOptions(SubmitOptions):
    """The options of run_pipeline.py."""

    pipeline: list[str] = option(help="the YAML file of the pipeline", group=MODEL, positional=True)
    tasks: list[str] | None = option(None, "only these tasks or subtasks", group=MODEL, metavar="NAME")
    dataset: str | None = option(
        None, "where the data are, instead of what the file says", group=DATA, metavar="DIR_OR_ID"
    )
    force: bool = option(False, "repeat what is finished already", group=OTHER)
    submit: bool = option(False, "run the subtasks as one Slurm job array", group=SLURM)
    template: str = option(
        str(TEMPLATES / "pipeline-template.sh"), "template of the jobs", group=SLURM, aliases=["-t"], metavar="FILE"
    )


def main() -> int:
    """Run the script; returns 1 if a subtask failed."""
    options = parse_options(PipelineOptions, __doc__)
    if len(options.pipeline) > 1:
        raise UserError(f"one file describes a pipeline, got {' '.join(options.pipeline)}")
    check_submit_options(options)
    pipeline = PipelineFile(Path(options.pipeline[0]))
    if options.dataset:
        pipeline.data["dataset"] = options.dataset
    subtasks = pipeline.choose(options.tasks)
    if options.submit or options.no_submit or options.dry_run or options.status:
        for folder in {results_dir(subtask) for subtask in subtasks} if options.submit or options.no_submit else ():
            write_json(Path(folder) / "language-database.json", pipeline.database())
        batch = PipelineBatch(pipeline, subtasks, options)
        return batch.run(f"results   {results_dir(subtasks[0])}/results.md")
    for folder in {results_dir(subtask) for subtask in subtasks}:
        write_json(Path(folder) / "language-database.json", pipeline.database())
    failures = {}
    for number, subtask in enumerate(subtasks, 1):
        print(f"--- {subtask.name} ({number} of {len(subtasks)})", flush=True)
        try:
            run_subtask(subtask, options)
        except Interrupted:
            raise
        except Exception as error:
            # One task's trouble must not cost the others theirs.
            if options.debug:
                raise
            failures[subtask.name] = str(error) or type(error).__name__
            print(f"run_pipeline.py: error: {subtask.name}: {failures[subtask.name]}", file=sys.stderr, flush=True)
    tabulate(pipeline)
    if failures:
        print(f"run_pipeline.py: error: failed: {', '.join(failures)}", file=sys.stderr)
    return 1 if failures else 0


def results_dir(subtask: Subtask) -> str:
    """Return where a subtask's results go."""
    return subtask.settings["results_dir"]


class PipelineBatch(Batch):
    """The subtasks as jobs, each of which calls this script for itself.

    Args:
        pipeline: that they are of.
        jobs: some of its subtasks.
        options: of the script.
    """

    def __init__(self, pipeline: PipelineFile, jobs: Sequence[Subtask], options: PipelineOptions):
        super().__init__(pipeline.path.stem, jobs, options)
        self.pipeline = pipeline

    def arguments(self, job: Subtask) -> dict[str, list[str]]:
        """Return the command line of one subtask."""
        words = [*self.options.pipeline, "--tasks", job.name]
        words += ["--dataset", self.options.dataset] if self.options.dataset else []
        return {"args": words + (["--force"] if self.options.force else [])}

    def is_complete(self, job: Subtask) -> bool:
        """Return whether a subtask has been evaluated and its logs have been parsed."""
        from utils.pipeline.results import results_row

        if self.options.force:
            return False
        self.check_settings(job)
        done = not job.settings["evaluate"] or results_row(job) is not None
        logged = not job.settings["parse_logs"] or job.is_baseline or job.log.is_file()
        return done and logged

    def check_settings(self, job: Subtask) -> None:
        """Refuse a subtask that is trained already, but with other settings than the file has now."""
        record = read_record(job.layout.run_json)
        if record is None or record["status"] != "complete":
            return
        options = check_config(job.config, job.name)
        if job.is_baseline:
            settings = baseline_options(options)
        else:
            settings = resolve_settings(options, find_model(options.model_name, options.model_registry))
        found = differences(record, settings, None, FREE_OPTIONS | {"num_processes"})
        if found:
            raise UserError(
                f"{job.name}: {job.layout.outputs} holds a run with other options ({'; '.join(found)})\n"
                "give the subtask another name, or --force to repeat it"
            )

    def missing(self, jobs: Sequence[Subtask]) -> list[str]:
        """Return what jobs would not find: models, and the data."""
        lines = super().missing([job for job in jobs if not job.is_baseline])
        # Written when the pipeline runs; until then a copy of it serves.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "language-database.json"
            write_json(file, self.pipeline.database())
            try:
                texts = open_task(TASK, [LANGUAGE], path=file)
                texts.require("train", [LANGUAGE])
                texts.require("test", [LANGUAGE])
            except (UserError, RunFailure) as error:
                real = str(Path(results_dir(self.pipeline.subtasks[0])) / file.name)
                lines.append(str(error).replace(str(file), real))
        return lines


def run_subtask(subtask: Subtask, options: PipelineOptions) -> None:
    """Do the steps of one subtask that its file asks for.

    Raises:
        StepFailed: if a step does not end well.
    """
    settings = subtask.settings
    if subtask.is_baseline:
        if settings["fine_tune"] or settings["evaluate"]:
            run_baseline(subtask, options)
        return
    if settings["fine_tune"] or settings["pretrained"]:
        config = subtask.layout.outputs.parent / "config.json"
        write_json(config, subtask.config)
        call("finetune.py", "--config", str(config), *(["--force"] if options.force else []))
    if settings["evaluate"]:
        call("evaluate.py", *evaluation_arguments(subtask, subtask.eval_langs), *(["--force"] if options.force else []))
    if settings["parse_logs"]:
        from utils.pipeline.results import parse_logs

        files = parse_logs(subtask)
        print(f"logs         {files[0]}" if files else f"logs         none of {subtask.name} yet")


def run_baseline(subtask: Subtask, options: PipelineOptions) -> None:
    """Train and evaluate TF-IDF with a linear model."""
    from utils.data.source import open_texts
    from utils.training.baseline import TFIDF, baseline_spec, train_baseline

    checked = check_config(subtask.config, subtask.name)
    texts = open_texts(checked, [LANGUAGE])
    print(train_baseline(subtask.layout, checked, texts, baseline_spec(TFIDF), options.force))


def end_with_parent() -> None:
    """Ask Linux to send SIGTERM to this process when the one that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class StepFailed(Exception):
    """A script that a subtask called ended with an error, which it has printed itself."""


def call(script: str, *arguments: str) -> None:
    """Run one of the project's scripts in a process of its own, which gives its memory back.

    A signal that stops this script stops that one too, which saves what it can; if this one is killed, the
    other gets SIGTERM.

    Raises:
        StepFailed: if it fails.
        Interrupted: once it has ended, if a signal came.
    """
    child = subprocess.Popen([sys.executable, str(PROJECT / script), *arguments], preexec_fn=end_with_parent)
    try:
        status = child.wait()
    except Interrupted as stop:
        # A terminal has sent Ctrl-C to both; twice, it would end the other one at once.
        child.send_signal(signal.SIGTERM if stop.signum == signal.SIGINT else stop.signum)
        child.wait()
        raise Interrupted(stop.signum, f"{stop} during {script}; the same command goes on") from None
    if status:
        raise StepFailed(f"{script} ended with status {status}")


def tabulate(pipeline: PipelineFile) -> None:
    """Write the results table of all subtasks that have been evaluated, and show it.

    Subtasks may be jobs that end at the same moment: whoever holds the lock sees all that others have tabulated.
    """
    from utils.pipeline.results import markdown, results_row, write_results

    for folder in dict.fromkeys(map(results_dir, pipeline.subtasks)):
        with locked(Path(folder) / ".results.lock"):
            rows = [results_row(subtask) for subtask in pipeline.subtasks if results_dir(subtask) == folder]
            found = [row for row in rows if row is not None]
            files = write_results(found, Path(folder)) if found else []
        if found:
            print(markdown(found), end="")
            print("\n".join(map(str, files)))


if __name__ == "__main__":
    run_script(main)
