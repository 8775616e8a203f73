#!/usr/bin/env bash
# One task of the job array that submit_predict_jobs.sh submits: label its share of the files.
# Sites change the defaults below with SBATCH_* variables, or with options after -- of submit_predict_jobs.sh.
#SBATCH --job-name=predict
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:1
#SBATCH --time=24:00:00
#SBATCH --requeue
# A minute ahead of the time limit the processes end, and the task is queued again.
#SBATCH --signal=USR1@60

set -euo pipefail

# shellcheck source=utils/jobs/job.sh
source "$1/utils/jobs/job.sh"
begin_task predict "$@"
load_environment

# One process per GPU that Slurm granted, one without GPUs; each labels files of its own.
processes=${SLURM_GPUS_ON_NODE:-1}
processes=$((processes > 1 ? processes : 1))
cpus=${SLURM_CPUS_PER_TASK:-1}
cpus=$((cpus > processes ? cpus / processes : 1))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$cpus}"

status=0
# shellcheck disable=SC2016  # expanded in each process
srun --nodes=1 --ntasks="$processes" --overcommit --cpus-per-task="$cpus" bash -c \
    'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS; exec python "$@"' predict \
    "$project/predict.py" "${arguments[@]}" || status=$?
end_task "$status"
