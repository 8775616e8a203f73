#!/usr/bin/env bash
# Label the files of a corpus, dealt out among the tasks of one Slurm job array.
#
#     ./submit_predict_jobs.sh --models xlmr --langs en-fr --input "/corpus/*.jsonl.zst" --output_dir predictions/web
#     ./submit_predict_jobs.sh --model OWNER/NAME --input /corpus --num_tasks 64 --options "--keep_columns url"
#     ./submit_predict_jobs.sh --models xlmr --langs en-fr --input /corpus --dry_run
#     ./submit_predict_jobs.sh --models xlmr --langs en-fr --input /corpus --status
#     ./submit_predict_jobs.sh --models xlmr --langs en-fr --input /corpus -- --time=8:00:00
#
# Edit the variables below, or give options of the same names. Submitted again, only what is missing runs.
set -euo pipefail

# Abbreviation of model2chckpt.json, and the languages that it was fine-tuned on, as in "en-fr"
models=""
langs=""
# Folder below models/ that it was trained in
subfolder=""
# Files, folders and globs of texts, with blanks between them
input=""
# Tasks of the array
num_tasks="8"
# Options of predict.py
options=""
# Where the labels go, and where trained models are
output_dir="predictions"
models_dir="models"

project=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=utils/jobs/job.sh
source "$project/utils/jobs/job.sh"
load_environment
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"
exec python -m utils.jobs predict \
    "models=$models" "langs=$langs" "subfolder=$subfolder" "input=$input" "num_tasks=$num_tasks" \
    "options=$options" "output_dir=$output_dir" "models_dir=$models_dir" \
    -- "$@"
