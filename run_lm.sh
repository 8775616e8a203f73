#!/usr/bin/env bash
# One task of the job array that submit_lm_jobs.sh submits: fine-tune one language model on one file with one seed.
# Sites change the defaults below with SBATCH_* variables, or with options after -- of submit_lm_jobs.sh.
#SBATCH --job-name=finetune_lm
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --gres=gpu:1
#SBATCH --time=24:00:00
#SBATCH --requeue
# Five minutes ahead of the time limit the training processes save a resume point, and the task is queued again.
#SBATCH --signal=USR1@300

set -euo pipefail

# shellcheck source=utils/jobs/job.sh
source "$1/utils/jobs/job.sh"
begin_task lm "$@"
load_environment

status=0
run_processes "$project/finetune_lm.py" || status=$?
end_task "$status"
