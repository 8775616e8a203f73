"""The options of finetune.py and evaluate.py, which the scripts that plan jobs know too."""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from utils.cli.options import (
    DATA,
    EFFORT,
    HYPERPARAMETER,
    IDENTITY,
    MODEL,
    PLACE,
    SEARCH,
    TRAINING,
    Need,
    option,
    options_by_role,
)
from utils.cli.values import object_path
from utils.data.corpus_load import LabelsOption
from utils.data.windows import LongTexts
from utils.data.windows import Pooling as WindowPooling
from utils.errors import UserError
from utils.evaluation.thresholds import Metric, ThresholdChoice
from utils.models.adapters import AdapterOptions
from utils.models.options import CacheOptions, ClassifierOptions, InferenceOptions
from utils.models.pooling import Pooling
from utils.models.registry import ModelSpec
from utils.runs.distributed import num_processes
from utils.training.options import DEFAULT_BATCH_SIZE, TrainingOptions
from utils.training.study import (
    PARAMS_HELP,
    STUDY_HELP,
    STUDY_OBJECTS,
    OptimizationOptions,
    study_defaults,
    without_password,
)


@dataclass(kw_only=True)
class FinetuneOptions(TrainingOptions, AdapterOptions, OptimizationOptions, ClassifierOptions):
    """The options of finetune.py."""

    ROLE: ClassVar[str] = HYPERPARAMETER
    GROUP: ClassVar[str] = TRAINING

    max_epochs: int = option(
        20,
        "without --num_epochs: no more than this, however few the training texts",
        minimum=1,
        metavar="EPOCHS",
        needs=Need("num_epochs", None, "is for runs without --num_epochs, which says how many"),
    )
    pooling: Pooling | None = option(
        None,
        "what the classification head reads: the first token (cls), the mean of all, with which encoders for sentences "
        "(multilingual E5) were trained, or the last one; without it the model's own",
    )
    labels: LabelsOption = option(
        "auto",
        "one label for each text (single) or any number (multi); auto: multi if a row of the training files has "
        "several; main: the same, with registers of the first level alone",
        group=DATA,
    )
    balanced: bool = option(
        False,
        "weight the loss so that every register counts equally; with several labels per text, so that the texts with "
        "a label count as much as those without",
    )
    focal_gamma: float = option(0.0, "focal loss: count less what is predicted well, the more the higher", minimum=0)
    label_smoothing: float = option(
        0.0, "label smoothing of the loss", minimum=0, below=1, aliases=["--label_smoothing_factor"]
    )
    threshold: ThresholdChoice | None = option(
        None,
        "from which probability on a text has a label, where it may have several: 0.5, or the best on the validation "
        "texts: one for all labels (global, the default), or one for each (per_label)",
    )
    threshold_metric: Metric | None = option(None, "what the threshold is best for; without it micro_f1")
    mix: Literal["equal", "all", "temperature"] = option(
        "equal",
        "texts per language: as many of each as the smallest has, all, or in between (--mix_exponent)",
        group=DATA,
    )
    mix_exponent: float = option(
        0.3,
        "--mix temperature: share of a language proportional to its size to this power",
        group=DATA,
        minimum=0,
        maximum=1,
        needs=Need("mix", "temperature", "is for --mix temperature"),
    )
    validation_size: float = option(
        0.2, "texts kept for validation, stratified: a part of all below 1, else their number", group=DATA, above=0
    )
    long_texts: LongTexts = option(
        "cut",
        "what is read of texts that are longer than --max_length: their beginning; both ends (128 of 510 tokens, and "
        "the last 382); or all, in overlapping windows, of which training draws one per text and epoch",
        group=DATA,
    )
    window_stride: int | None = option(
        None,
        "tokens from the beginning of a window to that of the next; without it half a window",
        group=DATA,
        minimum=1,
        metavar="TOKENS",
        needs=Need("long_texts", "windows", "is for --long_texts windows"),
    )
    window_pooling: WindowPooling = option(
        "mean",
        "what a text's logits are of those of its windows",
        group=DATA,
        needs=Need("long_texts", "windows", "is for --long_texts windows"),
    )
    max_train_texts: int | None = option(None, "train on at most so many texts", group=DATA, minimum=1, metavar="N")
    exclude: str | None = option(
        None,
        "train without the rows that this file names: excluded.jsonl of check_corpus.py --prune",
        role=PLACE,
        group=DATA,
        metavar="FILE",
    )
    freeze_encoder: bool = option(
        False,
        "train the classification head alone",
        needs=Need("lora_targets", None, "and --lora_targets exclude each other: adapters change what it freezes"),
    )
    evaluate_train: bool = option(False, "also compute the best model's metrics on the training texts", role=IDENTITY)
    study_kwargs: dict = option(
        study_defaults("maximize"),
        STUDY_HELP,
        role=SEARCH,
        group=OptimizationOptions.KWARGS_GROUP,
        imports=STUDY_OBJECTS,
    )
    params: dict = option(
        {"learning_rate": {"values": [1e-5, 1e-4], "suggest_kwargs": {"log": True}}},
        PARAMS_HELP,
        role=SEARCH,
        group=OptimizationOptions.GROUP,
    )


@dataclass(kw_only=True)
class EvaluateOptions(InferenceOptions, CacheOptions, ClassifierOptions):
    """The options of evaluate.py."""

    GROUP: ClassVar[str] = MODEL
    GROUP_TITLES: ClassVar[dict[str, str]] = {MODEL: "what to evaluate"}

    eval_lang: str | None = option(None, "language to evaluate on", metavar="LANG")
    eval_langs: list[str] | None = option(None, "languages to evaluate on, or all", metavar="LANG")
    oracle_threshold: bool = option(
        False,
        "of models with several labels per text: also note the scores at the threshold that is best for the evaluated "
        "texts, as some papers report",
        role=EFFORT,
    )
    clusters: str | None = option(
        None,
        "corpus.json of check_corpus.py: intervals and tests take nearly equal texts as one; without it clusters are "
        "the third column of the corpus's files, if they have one",
        role=IDENTITY,
        metavar="FILE",
    )
    force: bool = option(False, "evaluate again what has been evaluated already", role=EFFORT)


# Options of finetune.py that may differ without making a run another run.
FREE_OPTIONS = frozenset(options_by_role(FinetuneOptions, PLACE, EFFORT, SEARCH))


def check_label_options(options: FinetuneOptions, multilabel: bool) -> None:
    """Refuse options that have no effect on texts with one label, or with any number.

    Raises:
        UserError: naming the option.
    """
    if not multilabel:
        for name in ("threshold", "threshold_metric"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} is for texts with several labels; these have one each (--labels)")
    elif options.label_smoothing:
        raise UserError("--label_smoothing is for texts with one label; these may have several (--labels)")
    elif options.threshold == "0.5" and options.threshold_metric is not None:
        raise UserError("--threshold_metric is for a threshold that is chosen; --threshold 0.5 is not")


def card_options(settings: dict[str, Any]) -> list[str]:
    """Return which of a run's options its model card shows: the hyperparameters that had an effect."""
    names = options_by_role(FinetuneOptions, HYPERPARAMETER, without_groups=(MODEL,))
    without = {
        field.name
        for field in fields(FinetuneOptions)
        if (need := field.metadata.get("needs")) and not need.is_met(settings.get(need.option))
    }
    return [name for name in names if name not in without]


def resolve_settings(options: FinetuneOptions, spec: ModelSpec) -> dict[str, Any]:
    """Return all options with the registry's defaults filled in, as they go to run.json."""
    return without_password(object_path(asdict(options))) | {
        "batch_size": options.batch_size or spec.batch_size or DEFAULT_BATCH_SIZE,
        "max_length": options.max_length or spec.max_length,
        "checkpoint": spec.checkpoint,
        "revision": spec.revision,
        "num_processes": num_processes(),
    }
