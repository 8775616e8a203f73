"""Run the tasks of one YAML file in order: fine-tune, evaluate, parse the logs, put the results into one table.

    python run_pipeline.py config/agnews.yaml
    python run_pipeline.py config/agnews.yaml --tasks B C3_v1
    python run_pipeline.py config/agnews.yaml --dataset ../ag_news --tasks baseline
    python run_pipeline.py config/agnews.yaml --submit --timeout 8:00:00

The file says for every task and subtask what is done, with which model, training arguments and adapters (the README
describes its keys). A step that is finished is not repeated unless --force is given; a task that fails does not stop
the others. --submit runs the subtasks as one Slurm job array.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from utils import PROJECT
from utils.cli.options import DATA, MODEL, OTHER, SLURM, option
from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.errors import UserError
from utils.jobs.batch import TEMPLATES, Batch, SubmitOptions, check_submit_options
from utils.jobs.experiments import check_config, evaluation_arguments
from utils.pipeline.config import LANGUAGE, PipelineFile, Subtask
from utils.runs.files import locked, write_json


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
    if options.submit or options.dry_run or options.status:
        PipelineBatch(pipeline.path.stem, subtasks, options).run(f"results   {results_dir(subtasks[0])}/results.md")
        return 0
    for folder in {results_dir(subtask) for subtask in subtasks}:
        write_json(Path(folder) / "language-database.json", pipeline.database())
    failures = {}
    for number, subtask in enumerate(subtasks, 1):
        print(f"--- {subtask.name} ({number} of {len(subtasks)})", flush=True)
        try:
            run_subtask(subtask, options)
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
    """The subtasks as jobs, each of which calls this script for itself."""

    def arguments(self, job: Subtask) -> dict[str, list[str]]:
        """Return the command line of one subtask."""
        words = [*self.options.pipeline, "--tasks", job.name]
        words += ["--dataset", self.options.dataset] if self.options.dataset else []
        return {"args": words + (["--force"] if self.options.force else [])}

    def is_complete(self, job: Subtask) -> bool:
        """Return whether a subtask has been evaluated and its logs have been parsed."""
        from utils.pipeline.results import results_row

        done = not job.settings["evaluate"] or results_row(job) is not None
        logged = not job.settings["parse_logs"] or job.is_baseline or job.log.is_file()
        return done and logged and not self.options.force


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
    from utils.training.baseline import train_baseline

    checked = check_config(subtask.config, subtask.name)
    print(train_baseline(subtask.layout, checked, open_texts(checked, [LANGUAGE]), options.force))


class StepFailed(Exception):
    """A script that a subtask called ended with an error, which it has printed itself."""


def call(script: str, *arguments: str) -> None:
    """Run one of the project's scripts in a process of its own, which gives its memory back.

    Raises:
        StepFailed: if it fails.
    """
    status = subprocess.run([sys.executable, str(PROJECT / script), *arguments]).returncode
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
