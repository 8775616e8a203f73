"""The options of every script that computes texts with a model."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from utils.cli.options import EFFORT, HYPERPARAMETER, MEMORY, MODEL, PLACE, PLACES, CommonOptions, option
from utils.data.language_database import TextOptions
from utils.runs.files import CACHE_DIR

# In the configuration of a classifier, see `utils.evaluation.calibration.fit_temperature`.
TEMPERATURE = "calibration_temperature"
# Likewise, of texts with any number of labels: {"values": [threshold per label], "choice": ..., "metric": ...}, and the
# labels that stand under others, by these.
THRESHOLDS, SUBREGISTERS = "label_thresholds", "subregisters"
# Likewise, what is read of long texts: the attributes of `utils.data.windows.Reading`.
LONG_TEXTS = "long_texts"
PRECISION_HELP = (
    "number format; auto is bf16 where that is faster, on GPUs that compute in it and on such CPUs for models at least "
    "192 wide, else fp32"
)


@dataclass(kw_only=True)
class ComputeOptions:
    """How texts are computed."""

    precision: Literal["auto", "bf16", "fp16", "fp32"] = option(
        "auto", PRECISION_HELP, role=HYPERPARAMETER, group=MEMORY
    )
    eval_token_budget: int | None = option(
        None, "tokens per evaluation batch", role=EFFORT, group=MEMORY, minimum=1, metavar="TOKENS"
    )


@dataclass(kw_only=True)
class InferenceOptions(ComputeOptions):
    """How texts are computed by a model that is not trained any more."""

    precision: Literal["auto", "bf16", "fp16", "fp32", "int8"] = option(  # type: ignore[assignment]
        "auto",
        f"{PRECISION_HELP}; int8, for CPUs without bf16, is faster than fp32 and rounds the scores a little",
        role=HYPERPARAMETER,
        group=MEMORY,
    )
    temperature: float | None = option(
        None,
        "divide the logits by this before they become probabilities; without it by the model's own, which finetune.py "
        "fits to the validation texts; 1 changes nothing",
        role=HYPERPARAMETER,
        group=MEMORY,
        above=0,
    )


@dataclass(kw_only=True)
class CacheOptions:
    """Where tokenized texts are."""

    cache_dir: str = option(
        CACHE_DIR, "where tokenized texts are kept for all runs", role=PLACE, group=PLACES, metavar="DIR"
    )


@dataclass(kw_only=True)
class ClassifierOptions(TextOptions, CommonOptions):
    """Which classifier it is, and what texts it is for."""

    GROUP: ClassVar[str] = MODEL

    model_name: str = option(
        help="abbreviation of the model in the registry (model2chckpt.json)", role=HYPERPARAMETER, metavar="NAME"
    )
    train_langs: str = option(help="language to train on, or several joined by '-': en-fr", metavar="LANGS")
    subfolder: str | None = option(
        None, "folder below outputs/ and models/, for experiments that differ otherwise", role=PLACE, metavar="FOLDER"
    )
