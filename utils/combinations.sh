# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the scripts that source this
# What there is to run and what has become of it: the registry, the corpus, run records, Slurm's queue.
# Sourced by utils/submit.sh; plain names like `models` are the variables of the submit scripts.

# find_combinations: check models and languages; set `combinations` (MODEL-LANGS), `model_of` and `langs_of`.
find_combinations() {
    local model lang
    declare -gA model_of=() langs_of=()
    combinations=()
    registry=${MODEL_REGISTRY:-$project/model2chckpt.json}
    corpus=${CORPUS_PATH:-../register-corpus}
    read_registry
    [[ $subfolder != /* && /$subfolder/ != */../* ]] || fail "subfolder must be below $output_dir, got '$subfolder'"
    [[ $output_dir$models_dir$subfolder$corpus$registry != *[$'\t\n']* ]] || fail "tabs and line breaks in a folder's name"
    [[ $models != all ]] || models="${registered[*]}"
    [[ $models && $langs ]] || fail "no models or no langs are given"
    for model in $models; do
        [[ -v need_of[$model] ]] || fail "model '$model' is not in $registry; known: ${registered[*]}"
        for lang in $(if [[ $langs == all ]]; then "all_langs_of_$kind" "$model"; else echo "$langs"; fi); do
            check_langs "$([[ $kind == eval ]] || echo train)" "$lang"
            # Given twice, it is still one model to train.
            [[ ! -v model_of[$model-$lang] ]] || continue
            combinations+=("$model-$lang")
            model_of[$model-$lang]=$model
            langs_of[$model-$lang]=$lang
        done
    done
    [[ $kind == train ]] || find_eval_langs
    ((${#combinations[@]})) || fail "nothing to do: no languages in $corpus/corpus/train, or no trained models in $results_dir"
}

find_eval_langs() {
    local lang
    [[ $eval_langs != all ]] || eval_langs=$(languages_of test)
    [[ $eval_langs ]] || fail "no eval_langs are given, and none are in $corpus/corpus/test"
    for lang in $eval_langs; do
        [[ $lang != *-* ]] || fail "eval_langs are single languages, got '$lang'"
        check_langs test "$lang"
    done
}

all_langs_of_train() {
    languages_of train
}

# all_langs_of_eval MODEL: what this model was or is being fine-tuned on.
all_langs_of_eval() {
    local name other names=("${!training_of[@]}")
    for name in "$results_dir/$1"-*/run.json; do
        name=${name%/run.json}
        [[ ! -d $results_dir/${name##*/} || " ${names[*]} " == *" ${name##*/} "* ]] || names+=("${name##*/}")
    done
    for name in "${names[@]}"; do
        for other in "${registered[@]}"; do
            # xlmr-large-en is of the model xlmr-large, not of xlmr.
            [[ $name != "$other-"* || ${#other} -le ${#1} ]] || continue 2
        done
        [[ $name != "$1-"* ]] || echo "${name#"$1-"}"
    done
}

# read_registry: set `registered`, the names of the registry, and `need_of`, the sbatch options of each.
read_registry() {
    local rest token previous="" depth=0 key=()
    local next='^[[:space:]]*("([^"\\]|\\.)*"|[][{}:,]|[^][{}:,"[:space:]]+)'
    declare -gA need_of=()
    registered=()
    [[ -r $registry ]] || fail "cannot read the model registry $registry"
    rest=$(<"$registry")
    while [[ $rest =~ $next ]]; do
        token=${BASH_REMATCH[1]} rest=${rest:${#BASH_REMATCH[0]}}
        case $token in
        '{' | '[') depth=$((depth + 1)) ;;
        '}' | ']') depth=$((depth - 1)) ;;
        :)
            key[depth]=${previous//\"/}
            if ((depth == 1)); then
                registered+=("${key[1]}")
                need_of[${key[1]}]=""
            fi
            ;;
        \"*)
            if [[ $previous == : && $depth == 2 && ${key[2]} == "sbatch_$kind" ]]; then
                need_of[${key[1]}]=${token//\"/}
            fi
            ;;
        esac
        previous=$token
    done
    [[ ! ${rest//[[:space:]]/} && $depth == 0 && ${#registered[@]} -gt 0 ]] ||
        fail "$registry is not a registry of models, {\"abbreviation\": \"checkpoint\", ...}"
}

# languages_of train|test: the languages that have a file.
languages_of() {
    local file names=()
    for file in "$corpus/corpus/$1"/*.tsv; do
        file=${file##*/}
        [[ $file == '*.tsv' ]] || names+=("${file%.tsv}")
    done
    echo "${names[*]}"
}

# check_langs SPLIT LANGS: the names are sound and, if SPLIT is given, each language has a file there.
check_langs() {
    local part parts seen=" "
    [[ $2 =~ ^[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*$ ]] ||
        fail "'$2' is not a language name: letters, digits and '_' only, several joined by '-'"
    IFS=- read -r -a parts <<<"$2"
    for part in "${parts[@]}"; do
        [[ $seen != *" $part "* ]] || fail "language '$part' is given twice in '$2'"
        seen+="$part "
        [[ ! $1 || -f $corpus/corpus/$1/$part.tsv ]] ||
            fail "language '$part' has no file $corpus/corpus/$1/$part.tsv; check the languages, or set CORPUS_PATH"
    done
}

# read_record NAME: set status, epoch, num_epochs, best_macro_f1 and slurm_job_id from run.json, empty where missing.
# Relies on utils/layout.py, which writes an entry per line, those of the first level with two spaces before them.
read_record() {
    local line entry='^  "(status|epoch|num_epochs|best_macro_f1|slurm_job_id)": "?([^",]*)"?,?$'
    record_status="" epoch="" num_epochs="" best_macro_f1="" slurm_job_id=""
    [[ -f $results_dir/$1/run.json ]] || return 0
    while IFS= read -r line; do
        [[ $line =~ $entry ]] || continue
        case ${BASH_REMATCH[1]} in
        status) record_status=${BASH_REMATCH[2]} ;;
        *) printf -v "${BASH_REMATCH[1]}" %s "${BASH_REMATCH[2]#null}" ;;
        esac
    done <"$results_dir/$1/run.json"
}

# is_trained NAME
is_trained() {
    read_record "$1"
    [[ $record_status == complete && -f $models_dir${subfolder:+/$subfolder}/$1/config.json ]]
}

# read_queue: set `state_of` (by task, ARRAY_INDEX) and, by name, `task_of` (the last task submitted), `queued`
# (the task that waits or runs) and `queued_langs` (evaluation languages of such tasks).
read_queue() {
    local id index state job offset count manifest name langs lines queue=""
    declare -gA state_of=() task_of=() queued=() queued_langs=()
    if command -v squeue >/dev/null; then
        # Without an answer, what is queued would be submitted again.
        queue=$(squeue --noheader --array --user "$(id -un)" --format '%F %K %T') || fail "squeue does not answer"
    fi
    while read -r id index state; do
        [[ ! $id ]] || state_of[${id}_$index]=$state
    done <<<"$queue"
    [[ -f $jobs_dir/$kind.tsv ]] || return 0
    while IFS=$'\t' read -r job offset count manifest; do
        [[ -f $jobs_dir/$manifest ]] || continue
        mapfile -t -s "$offset" -n "$count" lines <"$jobs_dir/$manifest"
        for ((index = 0; index < ${#lines[@]}; index++)); do
            [[ ${lines[index]} ]] || continue
            IFS=$'\t' read -r name langs _ <<<"${lines[index]}"
            name=${name##*/}
            task_of[$name]=${job}_$index
            [[ ${state_of[${job}_$index]:-} ]] || continue
            queued[$name]=${job}_$index
            queued_langs[$name]+=" $langs"
        done
    done <"$jobs_dir/$kind.tsv"
}

# missing_langs NAME: set `missing`, the evaluation languages without a result, and `waiting`, those in the queue.
missing_langs() {
    local lang
    missing="" waiting=""
    for lang in $eval_langs; do
        if [[ " ${queued_langs[$1]:-} " == *" $lang "* ]]; then
            waiting+="${waiting:+ }$lang"
        elif [[ $force || ! -f $results_dir/$1/eval/$lang.json ]]; then
            missing+="${missing:+ }$lang"
        fi
    done
}

# find_training JOB...: set `training_of`, the tasks of these submissions by name, for --after.
find_training() {
    local job offset count manifest index name lines found=" "
    declare -gA training_of=()
    if [[ -f $jobs_dir/train.tsv ]]; then
        while IFS=$'\t' read -r job offset count manifest; do
            [[ " $* " == *" $job "* && -f $jobs_dir/$manifest ]] || continue
            found+="$job "
            mapfile -t -s "$offset" -n "$count" lines <"$jobs_dir/$manifest"
            for ((index = 0; index < ${#lines[@]}; index++)); do
                name=${lines[index]%%$'\t'*}
                [[ ! $name ]] || training_of[${name##*/}]=${job}_$index
            done
        done <"$jobs_dir/train.tsv"
    fi
    for job in "$@"; do
        [[ $found == *" $job "* ]] ||
            fail "--after $job: not a job of submit_train_jobs.sh (see $jobs_dir/train.tsv)"
    done
}
