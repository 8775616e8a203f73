# shellcheck shell=bash
# What run_train.sh, run_eval.sh and the templates of jobs/ share, inside a job: what it is about, its log, its
# environment, its end.

# begin_task KIND PROJECT MANIFEST OFFSET
# Read this task's line of the manifest into `folder` and `arguments`, and send all output to the combination's log.
begin_task() {
    local line number=$(($4 + SLURM_ARRAY_TASK_ID + 1))
    kind=$1 project=$2
    task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    line=$(sed -n "${number}p" "$3")
    if [[ -z $line ]]; then
        echo "$task: line $number of $3 is missing or empty" >&2
        exit 1
    fi
    # Folder, languages, then the arguments of the script.
    mapfile -t -d $'\t' arguments < <(printf '%s' "$line")
    folder=${arguments[0]}
    arguments=("${arguments[@]:2}")
    open_log "$folder/$kind.txt"
}

# begin_job PROJECT LOG: the same for a script that knows what it is about, in a job or, without Slurm, outside.
begin_job() {
    kind=train project=$1
    task=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    task=${task:-${SLURM_JOB_ID:-}}
    open_log "$2"
}

# open_log FILE: send all output there.
open_log() {
    mkdir -p "$(dirname "$1")"
    exec >>"$1" 2>&1
    echo "=== job $task, restart ${SLURM_RESTART_COUNT:-0}, on ${SLURM_JOB_NODELIST:-}, starts $(date +%FT%T%z)"
    # Slurm signals this shell too: it stays to say how the script ended.
    trap : TERM
    export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
    export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"
}

# Make Python and the libraries available: the site's load_env.sh, else what `make setup` made.
load_environment() {
    set +eu
    if [[ -f $project/load_env.sh ]]; then
        # shellcheck source=/dev/null
        source "$project/load_env.sh"
    elif [[ -f $project/.venv/bin/activate ]]; then
        # shellcheck source=/dev/null
        source "$project/.venv/bin/activate"
    fi
    set -eu
    if ! command -v python >/dev/null; then
        echo "${0##*/}: error: there is no python here; run make setup, or name an environment in load_env.sh" >&2
        exit 2
    fi
}

# run_processes SCRIPT [ACCELERATE_CONFIG]
# Run a script of Python with `arguments`: a process per GPU that Slurm granted, one without GPUs, on every node.
run_processes() {
    local nodes=$SLURM_JOB_NUM_NODES processes=${SLURM_GPUS_ON_NODE:-1} cpus=${SLURM_CPUS_PER_TASK:-1} port
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cpus > processes ? cpus / processes : 1))}"
    # A process that is left alone when another node fails is ended after a minute.
    local step=(srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$cpus" --wait=60)
    if ((nodes * processes == 1)); then
        "${step[@]}" python "$1" "${arguments[@]}"
        return
    fi
    # Free on this node, which is the first of the job, where the processes of all of them meet.
    port=$(python -m utils.jobs.launch --choose_port "$SLURM_JOB_ID") || return
    echo "$nodes x $processes processes meet at port $port"
    # shellcheck disable=SC2016  # expanded on each node
    "${step[@]}" bash -c 'exec python -m utils.jobs.launch --nodes "$SLURM_NNODES" --node_rank "$SLURM_NODEID" \
        --address "$SLURM_LAUNCH_NODE_IPADDR" "$@"' launch \
        --port "$port" --processes "$processes" ${2:+--accelerate_config "$2"} "$1" "${arguments[@]}"
}

# may_go_on: whether this task should be queued again after a signal. Not if somebody cancelled it or Slurm
# has queued it again already; at their time limit not evaluations, which would only be repeated.
may_go_on() {
    local answer
    [[ $task ]] || return 1
    answer=$(scontrol show job --oneliner "$task") || return 1
    [[ $answer == *" Restarts=${SLURM_RESTART_COUNT:-0} "* ]] || return 1
    [[ $answer == *" JobState=RUNNING "* || ($kind != eval && $answer == *" Reason=TimeLimit "*) ]]
}

# end_task STATUS: say how the script ended, queue the task again if a signal stopped it, and exit with its status.
end_task() {
    local status=$1
    echo "=== job $task, ends $(date +%FT%T%z), status $status"
    # 128 + SIGUSR1 and 128 + SIGTERM
    if ((status == 138 || status == 143)) && may_go_on; then
        echo "=== job $task is queued again and goes on where it was"
        # The task's own id: that of the array would queue all its tasks.
        scontrol requeue "$task" || echo "=== job $task cannot be queued again; submit it again to go on"
    fi
    exit "$status"
}
