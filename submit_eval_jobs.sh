#!/usr/bin/env bash
# Evaluate every trained model on every evaluation language, as one Slurm job array with a task per model.
#
#     ./submit_eval_jobs.sh
#     ./submit_eval_jobs.sh --models "xlmr mbert" --langs "en fr en-fr" --eval_langs "en fr tr"
#     ./submit_eval_jobs.sh --after 1234
#     ./submit_eval_jobs.sh --dry_run
#     ./submit_eval_jobs.sh --status
#     ./submit_eval_jobs.sh -- --time=8:00:00
#
# Edit the variables below, or give options of the same names.
set -euo pipefail

# Abbreviations of model2chckpt.json, or all
models="all"
# Languages and mixes that the models were fine-tuned on, as in "en fr en-fr"; all is whatever they were
langs="all"
# Languages to evaluate on, or all
eval_langs="all"
# Folder below outputs/ and models/ that the models were trained in
subfolder=""
# Options of evaluate.py, the same for all
options=""
# Where results and trained models are
output_dir="outputs"
models_dir="models"

project=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=utils/jobs/job.sh
source "$project/utils/jobs/job.sh"
load_environment
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"
exec python -m utils.jobs eval \
    "models=$models" "langs=$langs" "eval_langs=$eval_langs" "subfolder=$subfolder" "options=$options" \
    "output_dir=$output_dir" "models_dir=$models_dir" \
    -- "$@"
