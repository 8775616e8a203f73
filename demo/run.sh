#!/usr/bin/env bash
# The main job on the embedded corpus: build the inputs, fine-tune, evaluate, draw the figures.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=demo/build
export CORPUS_PATH="$folder/register-corpus" MODEL_REGISTRY="$folder/model2chckpt.json"
export HF_HUB_OFFLINE=1
places=(--output_dir "$folder/outputs" --models_dir "$folder/models")
# A model with random weights wants a higher rate than a pretrained one.
recipe=(--num_epochs 15 --learning_rate 2e-3 --attention_dropout 0)

# A corpus in three languages and a tiny model, written on the spot.
rm -rf "$folder"
python -m demo.build "$folder"

# One model per training language or mix, each evaluated on every language.
for langs in en fr en-fr; do
    python finetune.py --model_name tiny --train_langs "$langs" "${recipe[@]}" "${places[@]}" --cache_dir "$folder/cache"
    python evaluate.py --model_name tiny --train_langs "$langs" --eval_langs all "${places[@]}" --cache_dir "$folder/cache"
done

# Confusion matrices, train-vs-eval matrices and a table of all metrics.
python post_eval.py "${places[@]}"

# What the model of both languages says of a new text: register, probability, runner-up.
python predict.py --model "$folder/models/tiny-en-fr" --text "The minister said on Friday that the border stays open."
