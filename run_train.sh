#!/usr/bin/env bash
# One task of the job array that submit_train_jobs.sh submits: fine-tune one model on one language or mix.
# Sites change the defaults below with SBATCH_* variables, or with options after -- of submit_train_jobs.sh.
#SBATCH --job-name=finetune
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
begin_task train "$@"
load_environment

# One process per GPU that Slurm granted, one without GPUs, on every node.
nodes=$SLURM_JOB_NUM_NODES
processes=${SLURM_GPUS_ON_NODE:-1}
cpus=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cpus > processes ? cpus / processes : 1))}"
# A process that is left alone when another node fails is ended after a minute.
step=(srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$cpus" --wait=60)

# A large model's share among the processes: see config/fsdp.yaml.
accelerate_config=${4:-}

status=0
if ((nodes * processes == 1)); then
    "${step[@]}" python "$project/finetune.py" "${arguments[@]}" || status=$?
else
    # Free on this node, which is the first of the job, where the processes of all of them meet.
    port=$(python -m utils.jobs.launch --choose_port "$SLURM_JOB_ID")
    echo "$nodes x $processes processes meet at port $port"
    # shellcheck disable=SC2016  # expanded on each node
    "${step[@]}" bash -c 'exec python -m utils.jobs.launch --nodes "$SLURM_NNODES" --node_rank "$SLURM_NODEID" \
        --address "$SLURM_LAUNCH_NODE_IPADDR" "$@"' launch \
        --port "$port" --processes "$processes" ${accelerate_config:+--accelerate_config "$accelerate_config"} \
        "$project/finetune.py" "${arguments[@]}" || status=$?
fi
end_task "$status"
