# PYTHON_ARGCOMPLETE_OK
"""Fine-tune on every subset of some languages and evaluate each model on all of them, as one Slurm job array.

    python finetuning_generator.py config/finetune-rus-pol-sentiment.json --dry_run
    python finetuning_generator.py config/finetune-rus-pol-sentiment.json
    python finetuning_generator.py config/finetune-rus-pol-sentiment.json --subsets single --model_type ipa

For languages A and B these are the models A-B, A and B, each evaluated on A and on B, for texts (normal) and for
phonemes (ipa). What is complete or in the queue is not submitted again; post_eval.py draws the figures.
"""

from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Literal

from utils.cli.options import MODEL, SLURM, option
from utils.cli.script import run_script
from utils.errors import UserError
from utils.jobs.batch import TEMPLATES
from utils.jobs.experiments import (
    ExperimentBatch,
    JobOptions,
    check_languages,
    check_texts,
    make_jobs,
    parse_job_options,
)


@dataclass(kw_only=True)
class GeneratorOptions(JobOptions):
    """The options of finetuning_generator.py."""

    template: str = option(
        str(TEMPLATES / "finetune-template.sh"), "template of the jobs", group=SLURM, aliases=["-t"], metavar="FILE"
    )
    subsets: Literal["all", "single", "joint"] = option(
        "all", "languages to train on: every subset, each by itself, or all together", group=MODEL
    )


def main() -> int:
    """Run the script; returns its exit status."""
    options, base = parse_job_options(GeneratorOptions, __doc__)
    if options.model_type is None:
        options.model_type = ["normal", "ipa"] if base.get("task") else ["normal"]
    languages = check_languages(base, options)
    if len(languages) < 2 and options.subsets == "joint":
        raise UserError(f"--subsets joint needs several languages, there is one: {languages[0]}")
    train_langs = ["-".join(subset) for subset in choose_subsets(languages, options.subsets)]
    jobs = make_jobs(base, options, train_langs, languages)
    check_texts(jobs)
    print(f"{len(train_langs)} sets of training languages, each evaluated on {', '.join(languages)}")
    folder = jobs[0].layout.outputs.parent
    batch = ExperimentBatch(Path(options.config[-1]).stem, jobs, options)
    return batch.run(f"figures   python post_eval.py --base_dir {folder}")


def choose_subsets(languages: list[str], which: str) -> list[tuple[str, ...]]:
    """Return the sets of languages to train on, the largest first, languages in their given order."""
    sizes = {"all": range(len(languages), 0, -1), "single": [1], "joint": [len(languages)]}[which]
    return list(chain.from_iterable(combinations(languages, size) for size in sizes))


if __name__ == "__main__":
    run_script(main)
