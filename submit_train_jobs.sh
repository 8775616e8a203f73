#!/usr/bin/env bash
# Fine-tune every model on every training language or mix, as one Slurm job array.
#
#     ./submit_train_jobs.sh
#     ./submit_train_jobs.sh --models "xlmr mbert" --langs "en fr en-fr"
#     ./submit_train_jobs.sh --subfolder balanced --options "--balanced --num_epochs 5"
#     ./submit_train_jobs.sh --dry_run
#     ./submit_train_jobs.sh --status
#     ./submit_train_jobs.sh -- --time=48:00:00 --partition=long
#
# Edit the variables below, or give options of the same names.
set -euo pipefail

# Abbreviations of model2chckpt.json, or all
models="all"
# Languages and mixes of them, as in "en fr en-fr"; all is each language of the corpus by itself
langs="all"
# Folder below outputs/ and models/, for experiments that differ otherwise
subfolder=""
# Options of finetune.py, the same for all
options=""
# Configuration of accelerate, for models too large for one GPU: config/fsdp.yaml
accelerate_config=""
# Where results and trained models go
output_dir="outputs"
models_dir="models"

project=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=utils/jobs/job.sh
source "$project/utils/jobs/job.sh"
load_environment
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"
exec python -m utils.jobs train \
    "models=$models" "langs=$langs" "subfolder=$subfolder" "options=$options" \
    "accelerate_config=$accelerate_config" "output_dir=$output_dir" "models_dir=$models_dir" \
    -- "$@"
