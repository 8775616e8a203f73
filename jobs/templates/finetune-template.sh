#!/usr/bin/env bash
# A job of finetuning_generator.py: fine-tune a model, evaluate it, note the result.
# Fields in braces are filled in, quoted for the shell; literal braces are written twice.
#SBATCH --job-name={job_name}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
#SBATCH --gres=gpu:{gpus}
#SBATCH --time={timeout}
#SBATCH --requeue
# Five minutes ahead of the time limit training saves a resume point, and the job is queued again.
#SBATCH --signal=USR1@300

set -euo pipefail

project={project}
# shellcheck source=/dev/null
source "$project/utils/jobs/job.sh"
begin_job "$project" {log}
load_environment
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-${{SLURM_CPUS_PER_TASK:-1}}}}"

# In a job srun passes Slurm's signals on; without Slurm the script runs as it is.
step=(${{SLURM_JOB_ID:+srun}})
status=0
"${{step[@]}}" python "$project/finetune.py" {args} || status=$?
((status)) || "${{step[@]}}" python "$project/evaluate.py" {eval_args} || status=$?
((status)) || python -m utils.jobs.result {result_args} || status=$?
end_task "$status"
