# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the scripts that source this
# What submit_train_jobs.sh and submit_eval_jobs.sh share. Bash and Slurm's commands only: login nodes may lack Python.
#
# A combination is a model and its training languages. Those with something to do become the lines of a manifest,
# outputs/[SUBFOLDER/]jobs/KIND-DATE.tsv: folder, evaluation languages (- in training), arguments of the script.
# A task of a job array takes the line of its index plus the array's offset. KIND.tsv beside it lists what was
# submitted: job id, offset, number of lines, manifest.

# Numbers have points, and A-Z are the letters of ASCII, whatever the user's language.
LC_ALL=C

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=${0##*/}
# shellcheck source=utils/combinations.sh
source "$project/utils/combinations.sh"
# shellcheck source=utils/status.sh
source "$project/utils/status.sh"

fail() {
    printf '%s: error: %s\n' "$script" "$1" >&2
    exit 2
}

main() {
    ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || fail "bash 4.4 or newer is needed, this is $BASH_VERSION"
    force="" dry_run="" status="" max_jobs="" after=""
    selection=() sbatch_options=()
    parse_arguments "$@"
    results_dir=$output_dir${subfolder:+/$subfolder}
    jobs_dir=$results_dir/jobs
    declare -gA training_of=()
    # shellcheck disable=SC2086
    [[ $kind == train || ! $after ]] || find_training $after
    find_combinations
    if [[ $status ]]; then
        read_queue
        print_status
        return
    fi
    if [[ ! $dry_run ]]; then
        command -v sbatch >/dev/null || fail "sbatch not found: run this on a login node of a Slurm cluster"
        if ! mkdir -p "$jobs_dir" 2>/dev/null || [[ ! -w $jobs_dir ]]; then
            fail "cannot write to $jobs_dir; choose another output_dir"
        fi
    fi
    read_queue
    choose_work
    make_pieces
    submit_pieces
}

parse_arguments() {
    local name known="models langs subfolder options output_dir models_dir force dry_run max_jobs after status help"
    if [[ $kind == train ]]; then known+=" accelerate_config"; else known+=" eval_langs"; fi
    while (($#)); do
        [[ $1 == -- ]] && sbatch_options=("${@:2}") && return
        [[ $1 == --*=* ]] && set -- "${1%%=*}" "${1#*=}" "${@:2}"
        [[ $1 == -h ]] && set -- --help
        name=${1#--} name=${name//-/_}
        [[ $1 == --* && " $known " == *" $name "* ]] ||
            fail "unknown option $1; known: ${known// /, }; options of sbatch go after --"
        case $name in
        help)
            sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0"
            printf 'Options: --%s\n' "${known// / --}"
            echo "Options of sbatch go after --."
            exit
            ;;
        force | dry_run | status)
            printf -v "$name" yes
            shift
            ;;
        *)
            (($# > 1)) || fail "$1 needs a value"
            [[ " models langs subfolder output_dir models_dir " != *" $name "* ]] || selection+=("--$name" "$2")
            printf -v "$name" %s "$2"
            shift 2
            ;;
        esac
    done
    [[ $kind == eval || ! $accelerate_config || -r $accelerate_config ]] || fail "cannot read $accelerate_config"
    [[ ! $max_jobs || $max_jobs =~ ^[1-9][0-9]*$ ]] || fail "--max_jobs must be a positive whole number, got '$max_jobs'"
    after=${after//[:, ]/ }
    [[ $after =~ ^[0-9\ ]*$ ]] || fail "--after takes the job ids that sbatch printed, as 12 or 12:13, got '$after'"
}

# choose_work: sort the combinations into `complete`, `already` in the queue, `untrained`, and `work`; for the last
# set `todo_langs`, and `awaited`, the training task that a model's evaluation waits for.
choose_work() {
    local name missing waiting
    work=() complete=() already=() untrained=()
    declare -gA todo_langs=() awaited=()
    for name in "${combinations[@]}"; do
        [[ $kind == train ]] || missing_langs "$name"
        if [[ $kind == train && ! $force ]] && is_trained "$name"; then
            complete+=("$name")
        elif [[ $kind == train && ${queued[$name]:-} ]]; then
            already+=("$name")
        elif [[ $kind == eval && ! $missing ]]; then
            if [[ $waiting ]]; then already+=("$name"); else complete+=("$name"); fi
        elif [[ $kind == eval ]] && ! is_trained "$name" && ! is_awaited "$name"; then
            untrained+=("$name")
        else
            work+=("$name")
            todo_langs[$name]=${missing:--}
        fi
    done
}

# is_awaited NAME: whether the model is being trained by a task of --after that is in the queue.
is_awaited() {
    [[ $after && ${training_of[$1]:-} && ${state_of[${training_of[$1]}]:-} ]] || return 1
    awaited[$1]=${training_of[$1]}
}

# manifest_line NAME: the folder, the evaluation languages, and the script's arguments, with tabs between them.
manifest_line() {
    local fields=("$results_dir/$1" "${todo_langs[$1]}" --model_name "${model_of[$1]}" --train_langs "${langs_of[$1]}")
    local extra=()
    read -r -a extra <<<"$options"
    [[ ! $subfolder ]] || fields+=(--subfolder "$subfolder")
    fields+=(--output_dir "$output_dir" --models_dir "$models_dir" --corpus_path "$corpus")
    if [[ $kind == train ]]; then
        fields+=(--model_registry "$registry")
    else
        # shellcheck disable=SC2206
        fields+=(--eval_langs ${todo_langs[$1]})
    fi
    [[ ! $force ]] || fields+=(--force)
    fields+=("${extra[@]}")
    local IFS=$'\t'
    line="${fields[*]}"
}

# array_limit: set `limit`, the most tasks of an array; MaxArraySize is one more than the highest index.
array_limit() {
    local answer
    limit=1001
    answer=$(scontrol show config 2>/dev/null) || return 0
    [[ ! $answer =~ MaxArraySize[[:space:]]*=[[:space:]]*([0-9]+) ]] || limit=${BASH_REMATCH[1]}
    [[ ! $answer =~ max_array_tasks=([0-9]+) ]] || ((limit <= BASH_REMATCH[1])) || limit=${BASH_REMATCH[1]}
}

# make_pieces: group the work by what it needs and waits for, and cut it into arrays that Slurm takes.
# Sets `lines` of the manifest and, by piece: offset, count, spec (indices), key (wait|need) and names.
make_pieces() {
    local name key limit keys=() names
    declare -A members=()
    lines=() piece_offset=() piece_count=() piece_spec=() piece_key=() piece_names=()
    array_limit
    for name in "${work[@]}"; do
        key=""
        [[ ! ${awaited[$name]:-} ]] || key=aftercorr:${awaited[$name]%_*}
        [[ $kind == eval || ! $after ]] || key=afterok:${after// /:}
        key+="|${need_of[${model_of[$name]}]}"
        [[ -v members[$key] ]] || keys+=("$key")
        members[$key]+=" $name"
    done
    for key in "${keys[@]}"; do
        read -r -a names <<<"${members[$key]}"
        # Tasks that wait for their like have its index, which is below the limit.
        while [[ $key != aftercorr* ]] && ((${#names[@]} > limit)); do
            add_piece "$key" "${names[@]:0:limit}"
            names=("${names[@]:limit}")
        done
        add_piece "$key" "${names[@]}"
    done
}

# add_piece KEY NAME...
add_piece() {
    local key=$1 name line index=-1 offset=${#lines[@]} highest=-1 spec="" start
    declare -A at=()
    shift
    for name in "$@"; do
        index=$((index + 1))
        [[ $key != aftercorr* ]] || index=${awaited[$name]#*_}
        manifest_line "$name"
        at[$index]=$line
        ((index <= highest)) || highest=$index
    done
    for ((index = 0; index <= highest; index++)); do
        # An empty line stands for an index that the array leaves out.
        lines+=("${at[$index]:-}")
        [[ ${at[$index]:-} ]] || continue
        [[ ${at[$((index - 1))]:-} ]] || start=$index
        [[ ${at[$((index + 1))]:-} ]] || spec+=",$start-$index"
    done
    piece_offset+=("$offset") piece_count+=("$((highest + 1))") piece_spec+=("${spec#,}")
    piece_key+=("$key") piece_names+=("$*")
}

# sbatch_command PIECE PREVIOUS: set `command`; PREVIOUS is the job of the piece before, if there is one.
sbatch_command() {
    local wait=${piece_key[$1]%%|*} need=()
    read -r -a need <<<"${piece_key[$1]#*|}"
    # Pieces run one after the other, or together they would run more than so many jobs.
    [[ ! $max_jobs || ! $2 ]] || wait+="${wait:+,}afterany:$2"
    command=(sbatch --parsable --array="${piece_spec[$1]}${max_jobs:+%$max_jobs}")
    command+=(--output="$jobs_dir/$kind-%A.txt" --open-mode=append)
    [[ ! $wait ]] || command+=(--dependency="$wait" --kill-on-invalid-dep=yes)
    command+=("${need[@]}" "${sbatch_options[@]}" "$project/run_$kind.sh" "$project" "$manifest" "${piece_offset[$1]}")
    [[ $kind == eval || ! $accelerate_config ]] || command+=("$accelerate_config")
}

submit_pieces() {
    local piece id previous="" manifest count wait need tasks=0
    local submitted=() refused=() command
    manifest=$jobs_dir/$kind-$(date +%Y%m%d-%H%M%S)-$$.tsv
    [[ $manifest == /* ]] || manifest=$PWD/$manifest
    if [[ $dry_run ]]; then
        for piece in "${!piece_spec[@]}"; do
            sbatch_command "$piece" "$previous"
            printf '%s\n' "${piece_names[piece]}" "    $(printf '%q ' "${command[@]}")"
            previous="JOB$((piece + 1))"
        done
        print_counts "to submit" "${#work[@]}"
        return
    fi
    ((${#work[@]} == 0)) || printf '%s\n' "${lines[@]}" >"$manifest"
    for piece in "${!piece_spec[@]}"; do
        sbatch_command "$piece" "$previous"
        count=$(wc -w <<<"${piece_names[piece]}")
        if id=$("${command[@]}"); then
            id=${id%%;*} previous=${id%%;*}
            printf '%s\t%s\t%s\t%s\n' "$id" "${piece_offset[piece]}" "${piece_count[piece]}" "${manifest##*/}" >>"$jobs_dir/$kind.tsv"
            submitted+=("$id") tasks=$((tasks + count))
            wait=${piece_key[piece]%%|*} need=${piece_key[piece]#*|}
            echo "job $id: $count tasks, ${piece_names[piece]%% *} ... ${piece_names[piece]##* }${need:+ ($need)}${wait:+, $wait}"
        else
            refused+=("$piece")
        fi
    done
    print_summary
}

# print_counts WORD NUMBER: what becomes of all combinations; WORD is for those with something to do.
print_counts() {
    local text="${#combinations[@]} combinations: $2 $1"
    [[ ${#complete[@]} == 0 ]] || text+=", ${#complete[@]} complete and skipped (--force repeats them)"
    [[ ${#already[@]} == 0 ]] || text+=", ${#already[@]} in the queue already"
    [[ ${#untrained[@]} == 0 ]] || text+=", ${#untrained[@]} not trained and left out: ${untrained[*]}"
    echo "$text"
}

print_summary() {
    local piece names status again jobs word
    status=$((${#refused[@]} > 0))
    again=""
    for word in "${selection[@]}"; do
        if [[ $word == *[^A-Za-z0-9_./-]* || ! $word ]]; then again+=" ${word@Q}"; else again+=" $word"; fi
    done
    for piece in "${refused[@]}"; do
        read -r -a names <<<"${piece_names[piece]}"
        echo "$script: error: sbatch refused ${#names[@]} tasks, ${names[0]} ... ${names[-1]}" >&2
    done
    if ((status)); then
        echo "submitted: ${submitted[*]:-nothing}; the same command submits the rest, and skips what is complete or" >&2
        echo "queued; where the site limits the number of jobs, submit fewer at once with --models and --langs" >&2
    fi
    print_counts "submitted" "$tasks"
    ((${#submitted[@]})) || return "$status"
    jobs=$(IFS=: && echo "${submitted[*]}")
    echo "logs      $results_dir/MODEL-LANGS/$kind.txt, Slurm's own $jobs_dir/$kind-JOB.txt"
    echo "follow    ./$script$again --status"
    if [[ $kind == train ]]; then
        echo "evaluate  ./submit_eval_jobs.sh$again --after $jobs"
    else
        echo "figures   python post_eval.py --base_dir $(printf %q "$results_dir")"
    fi
    echo "cancel    scancel ${submitted[*]}"
    return "$status"
}
