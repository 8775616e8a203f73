# shellcheck shell=bash
# Copy to load_env.sh and adapt: the submit scripts and every job source it before they start Python. Without it they
# use .venv.

# Modules of the site
module purge
module load python/3.11 cuda/12.8

# The environment that `make setup` made, or one of your own
# shellcheck source=/dev/null
source "$HOME/register-finetuning/.venv/bin/activate"

# Where data and models are, if not beside the project
export CORPUS_PATH="$HOME/register-corpus"
export HF_HOME="$WORK/huggingface"
