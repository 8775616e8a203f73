#!/usr/bin/env bash
# One task of the job array that submit_eval_jobs.sh submits: evaluate one trained model on its languages.
# Sites change the defaults below with SBATCH_* variables, or with options after -- of submit_eval_jobs.sh.
#SBATCH --job-name=evaluate
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --gres=gpu:1
#SBATCH --time=04:00:00
#SBATCH --requeue

set -euo pipefail

# shellcheck source=utils/jobs/job.sh
source "$1/utils/jobs/job.sh"
begin_task eval "$@"
load_environment
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"

status=0
python "$project/evaluate.py" "${arguments[@]}" || status=$?
end_task "$status"
