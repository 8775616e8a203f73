#!/usr/bin/env bash
# A job of run_pipeline.py: one subtask of {search}.
# Fields in braces are filled in, quoted for the shell; literal braces are written twice.
#SBATCH --job-name={job_name}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
#SBATCH --gres=gpu:{gpus}
#SBATCH --time={timeout}
#SBATCH --requeue

set -euo pipefail

project={project}
# shellcheck source=/dev/null
source "$project/utils/jobs/job.sh"
begin_job "$project" {log}
load_environment
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-${{SLURM_CPUS_PER_TASK:-1}}}}"

status=0
python "$project/run_pipeline.py" {args} || status=$?
end_task "$status"
