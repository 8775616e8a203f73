#!/usr/bin/env bash
# Fine-tune language models, each on each training file with each seed, as one Slurm job array.
#
#     ./submit_lm_jobs.sh --models gpt2 --train_files "a.txt.gz b.txt.gz" --validation_files dev.txt.gz
#     ./submit_lm_jobs.sh --models "gpt2 bert" --train_files a.txt.gz --validation_files dev.txt.gz --seeds "1 2 3 4 5"
#     ./submit_lm_jobs.sh --models gpt2 --train_files a.txt.gz --validation_files dev.txt.gz --dry_run
#     ./submit_lm_jobs.sh --models gpt2 --train_files a.txt.gz --validation_files dev.txt.gz --status
#     ./submit_lm_jobs.sh --models gpt2 --train_files a.txt.gz --validation_files dev.txt.gz -- --time=8:00:00
#
# Edit the variables below, or give options of the same names. Submitted again, only what is missing runs.
set -euo pipefail

# Folders, abbreviations of model2chckpt.json or models of the hub, with blanks between them
models=""
# Files to train on, and one to validate on for all of them, or one for each
train_files=""
validation_files=""
# One run for each
seeds="1 2 3"
# Options of finetune_lm.py, the same for all
options=""
# Where results go
output_dir="outputs"

project=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=utils/jobs/job.sh
source "$project/utils/jobs/job.sh"
load_environment
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"
exec python -m utils.jobs lm \
    "models=$models" "train_files=$train_files" "validation_files=$validation_files" "seeds=$seeds" \
    "options=$options" "output_dir=$output_dir" \
    -- "$@"
