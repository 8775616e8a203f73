#!/usr/bin/env bash
# The main job on the embedded corpus as Slurm job arrays, on a cluster of two nodes that is started here for it.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=demo/build/slurm
export CORPUS_PATH="$folder/register-corpus" MODEL_REGISTRY="$folder/model2chckpt.json"
# Two tasks share this machine.
export OMP_NUM_THREADS=1
combinations=(--models tiny --langs "en fr en-fr" --output_dir "$folder/outputs" --models_dir "$folder/models")
# A model with random weights wants a higher rate than a pretrained one.
recipe="--num_epochs 15 --learning_rate 2e-3 --attention_dropout 0 --cache_dir $folder/cache"

# A corpus in three languages and a tiny model, written on the spot.
rm -rf "$folder"
python -m demo.build "$folder"

# A real Slurm; its folder must have a short path.
lab=$(mktemp -d /tmp/slurm-XXXXXX)
trap 'python -m demo.cluster stop "$lab"; rm -rf "$lab"' EXIT
python -m demo.cluster start "$lab"
export SLURM_CONF="$lab/slurm.conf"
sinfo

# One training per combination; each is evaluated on every language as soon as it is trained.
./submit_train_jobs.sh "${combinations[@]}" --options "$recipe" --max_jobs 2
job=$(tail -n 1 "$folder/outputs/jobs/train.tsv" | cut -f 1)
./submit_eval_jobs.sh "${combinations[@]}" --options "--cache_dir $folder/cache" --after "$job"

# What a user looks at while waiting.
while [ -n "$(squeue --noheader)" ]; do
    ./submit_train_jobs.sh "${combinations[@]}" --status | tail -n 1
    sleep 10
done
./submit_train_jobs.sh "${combinations[@]}" --status
./submit_eval_jobs.sh "${combinations[@]}" --status

# Confusion matrices, train-vs-eval matrices and a table of all metrics.
python post_eval.py --output_dir "$folder/outputs"
