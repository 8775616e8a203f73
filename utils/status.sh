# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the scripts that source this
# The table of --status: what has become of each combination, from Slurm's queue and run.json. Needs no sacct.

print_status() {
    local name state task evaluated width=11 line="" states="done running pending failed never_submitted"
    declare -A counts=()
    for name in "${combinations[@]}"; do
        ((${#name} <= width)) || width=${#name}
    done
    [[ $kind == train ]] && evaluated="" || evaluated="evaluated"
    row combination state job epoch "best macro F1" log
    for name in "${combinations[@]}"; do
        read_record "$name"
        [[ $kind == train ]] || count_results "$name"
        find_state "$name"
        [[ $kind == train ]] || slurm_job_id=""
        task=${task_of[$name]:-$slurm_job_id}
        counts[$state]=$((${counts[$state]:-0} + 1))
        [[ ! $epoch ]] || printf -v epoch '%g/%s' "$epoch" "${num_epochs:-?}"
        [[ ! $best_macro_f1 ]] || printf -v best_macro_f1 %.3f "$best_macro_f1"
        row "$name" "${state/_/ }" "${task:--}" "${epoch:--}" "${best_macro_f1:--}" "$(log_of "$name")"
    done
    for state in $states; do
        line+=", ${counts[$state]:-0} ${state/_/ }"
    done
    echo "${line#, }"
}

row() {
    printf "%-${width}s  %-15s  %-10s  %-9s  %-13s  " "${@:1:5}"
    [[ ! $evaluated ]] || printf '%-9s  ' "$evaluated"
    printf '%s\n' "$6"
}

# count_results NAME: set `evaluated`, as in 2/3.
count_results() {
    local lang all=0 found=0
    for lang in $eval_langs; do
        all=$((all + 1))
        [[ ! -f $results_dir/$1/eval/$lang.json ]] || found=$((found + 1))
    done
    evaluated=$found/$all
}

# find_state NAME: set `state` from the queue, else from what the run has left.
find_state() {
    local finished=""
    if [[ $kind == train ]]; then
        [[ $record_status != complete ]] || finished=yes
    else
        [[ ${evaluated%/*} != "${evaluated#*/}" ]] || finished=yes
    fi
    case ${queued[$1]:+${state_of[${queued[$1]}]}} in
    RUNNING) state=running ;;
    COMPLETING | "") state="" ;;
    *) state=pending ;;
    esac
    [[ ! $state ]] || return 0
    if [[ $finished ]]; then
        state="done"
    elif [[ $kind == train && $record_status == running && ! $slurm_job_id ]]; then
        # Not a job of Slurm's: finetune.py on this or another machine.
        state=running
    elif [[ ${task_of[$1]:-} || ($kind == train && $record_status) ]]; then
        state=failed
    else
        state=never_submitted
    fi
}

log_of() {
    local log=$results_dir/$1/$kind.txt
    if [[ -f $log ]]; then echo "$log"; else echo -; fi
}
