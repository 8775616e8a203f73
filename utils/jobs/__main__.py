"""The engine behind submit_train_jobs.sh, submit_eval_jobs.sh, submit_predict_jobs.sh and submit_lm_jobs.sh.

python -m utils.jobs train|eval|predict|lm [VARIABLE=VALUE ...] -- [OPTIONS] [-- OPTIONS OF SBATCH]
"""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from utils import PROJECT
from utils.cli.script import run_script
from utils.errors import UserError
from utils.jobs import slurm
from utils.jobs.combinations import Plan, Planner, make_planner
from utils.jobs.language_models import LmPlanner
from utils.jobs.options import parse_combination_options
from utils.jobs.predictions import PredictPlanner
from utils.jobs.status import status_table
from utils.jobs.submission import Array, Submission, Work, make_arrays
from utils.runs.files import check_writable

DESCRIPTIONS = {
    "train": """Fine-tune every model on every training language or mix, as one Slurm job array.

    ./submit_train_jobs.sh
    ./submit_train_jobs.sh --models "xlmr mbert" --langs "en fr en-fr"
    ./submit_train_jobs.sh --subfolder balanced --options "--balanced --num_epochs 5"
    ./submit_train_jobs.sh --dry_run
    ./submit_train_jobs.sh --status
    ./submit_train_jobs.sh -- --time=48:00:00 --partition=long

Edit the variables at its top, or give options of the same names. Options of sbatch go after --.""",
    "eval": """Evaluate every trained model on every evaluation language, as one Slurm job array with a task per model.

    ./submit_eval_jobs.sh
    ./submit_eval_jobs.sh --models "xlmr mbert" --langs "en fr en-fr" --eval_langs "en fr tr"
    ./submit_eval_jobs.sh --after 1234
    ./submit_eval_jobs.sh --dry_run
    ./submit_eval_jobs.sh --status
    ./submit_eval_jobs.sh -- --time=8:00:00

Edit the variables at its top, or give options of the same names. Options of sbatch go after --.""",
    "predict": """Label the files of a corpus, dealt out among the tasks of one Slurm job array.

    ./submit_predict_jobs.sh --models xlmr --langs en-fr --input "/corpus/*.jsonl.zst" --output_dir predictions/web
    ./submit_predict_jobs.sh --model OWNER/NAME --input /corpus --num_tasks 64 --options "--keep_columns url"
    ./submit_predict_jobs.sh --models xlmr --langs en-fr --input /corpus --dry_run
    ./submit_predict_jobs.sh --models xlmr --langs en-fr --input /corpus --status
    ./submit_predict_jobs.sh --models xlmr --langs en-fr --input /corpus -- --time=8:00:00

Edit the variables at its top, or give options of the same names. Options of sbatch go after --. Submitted again, only
what is missing runs.""",
    "lm": """Fine-tune language models, each on each training file with each seed, as one Slurm job array.

    ./submit_lm_jobs.sh --models gpt2 --train_files "a.txt.gz b.txt.gz" --validation_files dev.txt.gz
    ./submit_lm_jobs.sh --models "gpt2 bert" --train_files a.txt.gz --validation_files dev.txt.gz --seeds "1 2 3 4 5"
    ./submit_lm_jobs.sh --models gpt2 --train_files a.txt.gz --validation_files dev.txt.gz --dry_run
    ./submit_lm_jobs.sh --models gpt2 --train_files a.txt.gz --validation_files dev.txt.gz --status

Edit the variables at its top, or give options of the same names: --options "--use_gpu --epochs 20" goes to
finetune_lm.py. Options of sbatch go after --. Submitted again, only what is missing runs.""",
}
# What a further command must repeat of the user's options to be about the same combinations.
SELECTION = ("models", "langs", "subfolder", "output_dir", "models_dir")
LM_SELECTION = ("models", "train_files", "validation_files", "seeds", "options", "output_dir")
LABELS = (*SELECTION, "model", "input", "options")


def main() -> int:
    """Plan, then print the table, print the commands or submit; returns its exit status."""
    kind, variables, given, sbatch_options = split_call(sys.argv[1:])
    options = parse_combination_options(kind, given, variables, script_name(kind), DESCRIPTIONS[kind])
    if kind == "predict":
        return submit_predictions(PredictPlanner(options), sbatch_options, repeated(options, variables, *LABELS))
    planner = LmPlanner(options) if kind == "lm" else make_planner(kind, options)
    check_slurm(planner, options)
    planner.read_queue()
    if options.status:
        print(status_table(planner.statuses()))
        return 0
    plan = planner.plan()
    limit = slurm.DEFAULT_ARRAY_LIMIT if options.dry_run else slurm.array_limit()
    manifest = new_manifest(planner)
    work = [planner.work(combination) for combination in plan.work]
    submission = prepare(planner, work, limit, manifest, sbatch_options)
    if options.dry_run:
        print_commands(submission)
        print_counts(planner, plan, "to submit", len(plan.work))
        return 0
    if submission.arrays:
        submission.run(manifest, planner.ledger)
    print_counts(planner, plan, "submitted", sum(len(x.work) for x in submission.arrays if x not in submission.refused))
    if submission.jobs:
        print_next(planner, submission, variables)
    if failure := submission.failure():
        raise failure
    return 0


def submit_predictions(planner: PredictPlanner, sbatch_options: list[str], same: str) -> int:
    """Plan the labelling of files, then print the table, print the commands or submit; returns its exit status.

    Args:
        planner: of the files.
        sbatch_options: of the user.
        same: the options that a further call needs to be about the same files.
    """
    options = planner.options
    check_slurm(planner, options)
    planner.read_queue()
    if options.status:
        print(planner.status_table())
        return 0
    limit = slurm.DEFAULT_ARRAY_LIMIT if options.dry_run else slurm.array_limit()
    manifest = new_manifest(planner)
    stamp = manifest.stem.partition("-")[2]
    submission = prepare(planner, planner.plan(stamp), limit, manifest, sbatch_options)
    planner.say_missing()
    if options.dry_run:
        print_commands(submission)
        print(planner.describe("to label"))
        return 0
    planner.write_plans(stamp)
    if submission.arrays:
        submission.run(manifest, planner.ledger)
    print(planner.describe("submitted"))
    if submission.jobs:
        print(f"logs      {planner.jobs_dir}/*-task-*/predict.txt, Slurm's own {planner.jobs_dir}/predict-JOB.txt")
        print(f"follow    ./submit_predict_jobs.sh{same} --status")
        print(f"summary   python post_eval.py --predictions {shlex.quote(str(planner.results_dir))}")
        print(f"cancel    scancel {' '.join(submission.jobs)}")
    if failure := submission.failure():
        raise failure
    return 0


def check_slurm(planner: Any, options: Any) -> None:
    """Raise a `UserError` unless jobs can be submitted, if they are to be."""
    if not (options.status or options.dry_run):
        slurm.require_sbatch()
        check_writable(planner.jobs_dir)


def split_call(argv: list[str]) -> tuple[str, dict[str, str], list[str], list[str]]:
    """Return the kind of jobs, the script's variables, the user's options, and those of sbatch."""
    if len(argv) < 2 or argv[0] not in DESCRIPTIONS or "--" not in argv:
        raise UserError("this is called by submit_train_jobs.sh and its like; use these")
    end = argv.index("--")
    variables = dict(pair.split("=", 1) for pair in argv[1:end])
    given = argv[end + 1 :]
    if "--" not in given:
        return argv[0], variables, given, []
    split = given.index("--")
    return argv[0], variables, given[:split], given[split + 1 :]


def script_name(kind: str) -> str:
    """Return the name of the submit script."""
    return f"submit_{kind}_jobs.sh"


def new_manifest(planner: Planner | PredictPlanner | LmPlanner) -> Path:
    """Return a file for the manifest that no other submission has."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    return (planner.jobs_dir / f"{planner.kind}-{stamp}.tsv").absolute()


def prepare(
    planner: Planner | PredictPlanner | LmPlanner,
    work: list[Work],
    limit: int,
    manifest: Path,
    sbatch_options: list[str],
) -> Submission:
    """Return the arrays to submit."""
    log = planner.jobs_dir / f"{planner.kind}-%A.txt"
    accelerate = getattr(planner.options, "accelerate_config", "")

    def command(array: Array) -> list[str]:
        script = PROJECT / f"run_{planner.kind}.sh"
        return [str(script), str(PROJECT), str(manifest), str(array.offset), *([accelerate] if accelerate else [])]

    return Submission(
        make_arrays(work, limit),
        command,
        [f"--output={log}", "--open-mode=append", *sbatch_options],
        planner.options.max_jobs,
    )


def print_commands(submission: Submission) -> None:
    """Print what would be submitted."""
    previous = None
    for number, array in enumerate(submission.arrays, 1):
        print(" ".join(work.name for work in array.work.values()))
        print(f"    {shlex.join(submission.sbatch(array, previous))}")
        previous = f"JOB{number}"


def print_counts(planner: Planner | LmPlanner, plan: Plan, word: str, number: int) -> None:
    """Print what becomes of all combinations; `word` is for those with something to do."""
    for combination, found in plan.different:
        print(f"{combination.name} is complete with other options: {'; '.join(found)}")
    if plan.different:
        print("these are left alone; use --subfolder for another experiment, or --force to replace them")
    text = f"{len(planner.combinations)} combinations: {number} {word}"
    text += f", {len(plan.complete)} complete and skipped (--force repeats them)" if plan.complete else ""
    text += f", {len(plan.different)} complete with other options" if plan.different else ""
    text += f", {len(plan.queued)} in the queue already" if plan.queued else ""
    if plan.untrained:
        names = " ".join(combination.name for combination in plan.untrained)
        text += f", {len(plan.untrained)} not trained and left out: {names}"
    print(text)


def repeated(options: Any, variables: dict[str, str], *names: str) -> str:
    """Return the options that another call needs to be about the same combinations."""
    values = {name: str(getattr(options, name)) for name in names}
    return "".join(f" --{name} {shlex.quote(x)}" for name, x in values.items() if x != variables.get(name, ""))


def print_next(planner: Planner | LmPlanner, submission: Submission, variables: dict[str, str]) -> None:
    """Print how to go on."""
    results, kind = planner.results_dir, planner.kind
    if isinstance(planner, LmPlanner):
        same = repeated(planner.options, variables, *LM_SELECTION)
        print(f"logs      {planner.jobs_dir}/MODEL-FILE-SEED/lm.txt, Slurm's own {planner.jobs_dir}/lm-JOB.txt")
        print(f"follow    ./{script_name(kind)}{same} --status")
        print(f"results   {results}/FILE/MODEL/TIME")
        if not planner.uses_gpu:
            print("computed  on CPUs; on GPUs with --use_gpu among --options")
        print(f"cancel    scancel {' '.join(submission.jobs)}")
        return
    same = repeated(planner.options, variables, *SELECTION, *(["eval_langs"] if kind == "eval" else []))
    print(f"logs      {results}/MODEL-LANGS/{kind}.txt, Slurm's own {planner.jobs_dir}/{kind}-JOB.txt")
    print(f"follow    ./{script_name(kind)}{same} --status")
    if kind == "train":
        print(f"evaluate  ./{script_name('eval')}{same} --after {':'.join(submission.jobs)}")
    else:
        print(f"figures   python post_eval.py --base_dir {shlex.quote(str(results))}")
    print(f"cancel    scancel {' '.join(submission.jobs)}")


if __name__ == "__main__":
    run_script(main, script_name(sys.argv[1]) if sys.argv[1:2] and sys.argv[1] in DESCRIPTIONS else None)
