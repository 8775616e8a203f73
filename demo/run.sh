#!/usr/bin/env bash
# The main job on the embedded corpus: build the inputs, fine-tune, evaluate, draw the figures, label a text.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=demo/build/demo
export CORPUS_PATH="$folder/register-corpus" MODEL_REGISTRY="$folder/model2chckpt.json"
export HF_HUB_OFFLINE=1
places=(--output_dir "$folder/outputs" --models_dir "$folder/models")
# A model with random weights wants a higher rate than a pretrained one.
recipe=(--num_epochs 15 --learning_rate 2e-3 --attention_dropout 0)
trainings=(en fr en-fr)
steps=$((${#trainings[@]} + 3))
begun=$SECONDS
step=0

say() {
    step=$((step + 1))
    printf '\n[%d/%d, %d s] %s\n' "$step" "$steps" "$((SECONDS - begun))" "$*"
}

say "write a corpus in three languages and a tiny model to $folder"
rm -rf "$folder"
python -m demo.build "$folder"

for langs in "${trainings[@]}"; do
    say "fine-tune on $langs, evaluate on every language"
    python finetune.py --model_name tiny --train_langs "$langs" "${recipe[@]}" "${places[@]}" --cache_dir "$folder/cache"
    python evaluate.py --model_name tiny --train_langs "$langs" --eval_langs all "${places[@]}" --cache_dir "$folder/cache"
done

say "confusion matrices, train-vs-eval matrices, a table of all metrics, a report"
python post_eval.py "${places[@]}"

say "what the model of both languages says of a new text: register, probability, runner-up"
python predict.py --model "$folder/models/tiny-en-fr" --text "The minister said on Friday that the border stays open."

printf '\nDone in %d s. Open in a browser: %s\n' "$((SECONDS - begun))" "$folder/outputs/report.html"
