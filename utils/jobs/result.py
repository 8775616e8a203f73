"""Notes what came out of a job of grid_search.py or finetuning_generator.py in result.json, beside its other results.

    python -m utils.jobs.result CONFIG_OF_THE_JOB --eval_langs russian polish

is the end of the job's script.
"""

from dataclasses import dataclass
from pathlib import Path

from utils.cli.config_files import read_config
from utils.cli.options import option
from utils.cli.parser import OptionParser
from utils.cli.script import run_script
from utils.errors import RunFailure
from utils.evaluation.results import complete_evaluation, metrics_of
from utils.jobs.experiments import Experiment
from utils.runs.files import now, write_json
from utils.runs.shapes import read_evaluation, read_record, read_report
from utils.training.classifier_options import FinetuneOptions


@dataclass(kw_only=True)
class ResultOptions:
    """The options of ``python -m utils.jobs.result``."""

    config: list[str] = option(help="the config file of a job", positional=True)
    eval_langs: list[str] = option(help="languages that it was evaluated on", metavar="LANG")


def main() -> int:
    """Write result.json of a job that is complete."""
    parser = OptionParser(ResultOptions, description=__doc__, passes_on=FinetuneOptions)
    options = parser.parse()
    job = Experiment(Path(options.config[0]).stem, read_config(Path(options.config[0])), options.eval_langs)
    write_result(job)
    print(f"result    {job.result_json}")
    return 0


def write_result(job: Experiment) -> None:
    """Gather what finetune.py and evaluate.py have written into result.json.

    Raises:
        RunFailure: if one of them has not come to its end.
    """
    layout, record = job.layout, read_record(job.layout.run_json) or {}
    trained = read_report(layout.train_json)
    found = {lang: read_evaluation(layout.eval_json(lang)) for lang in job.eval_langs}
    evaluations = {lang: complete_evaluation(result) for lang, result in found.items() if result is not None}
    missing = [lang for lang in found if lang not in evaluations]
    if record.get("status") != "complete" or trained is None or missing:
        raise RunFailure(f"{job.name} is not complete: {layout.outputs} lacks {', '.join(missing) or 'the training'}")
    best = next(epoch for epoch in trained["epochs"] if epoch["epoch"] == trained["best_epoch"])
    content = {
        "name": job.name,
        "config": job.config,
        "best_epoch": trained["best_epoch"],
        "validation": {key: best["validation"][key] for key in ("loss", *metrics_of([best["validation"]]))},
        "evaluations": {
            lang: {metric: result[metric] for metric in metrics_of([result])} for lang, result in evaluations.items()
        },
        "seconds": trained["seconds"],
        "num_train_texts": trained["num_train_texts"],
        "finished": now(),
    }
    write_json(job.result_json, content)


if __name__ == "__main__":
    run_script(main)
