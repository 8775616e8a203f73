"""The options of finetune_lm.py: model, data and training, search of hyperparameters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from utils.cli.options import (
    DATA,
    EFFORT,
    HYPERPARAMETER,
    MEMORY,
    MODEL,
    OTHER,
    PLACE,
    PLACES,
    SEARCH,
    TRAINING,
    CommonOptions,
    option,
    options_by_role,
)
from utils.cli.values import Objects
from utils.errors import UserError, nearest
from utils.evaluation.surprisal_options import SURPRISALS, SurprisalOptions
from utils.models.adapters import AdapterOptions, check_adapter_options
from utils.models.registry import RegistryOptions
from utils.training.options import RestartOptions, StepOptions
from utils.training.study import OptimizationOptions

# Under these names the earlier system had the same modules.
ALIASES = {
    "data_preprocessing": "utils.data.masking",
    "model_modifiers": "utils.models.modifiers",
    "loss_classes": "utils.training.lm_losses",
}
MASKING = ("utils.data.masking",)
PREPROCESSING = Objects(modules=MASKING, aliases=ALIASES)
MODIFIERS = Objects(modules=("utils.models.modifiers",), aliases=ALIASES)
LOSSES = Objects(modules=("utils.training.lm_losses",), aliases=ALIASES)
SPLITS = ("train", "validation", "test")


@dataclass(kw_only=True)
class ModelOptions(RegistryOptions):
    """The model, and what changes it before and while it is fine-tuned."""

    GROUP: ClassVar[str] = MODEL

    model_name_or_path: str = option(help="a folder, an abbreviation of the registry, or a model of the hub")
    config_name: str | None = option(None, "configuration; without it the model's")
    cache_dir: str | None = option(
        None,
        "folder of downloaded models; without it Hugging Face's",
        metavar="DIR",
        shared=False,
        role=PLACE,
        group=PLACES,
    )
    tokenizer_name: str | None = option(None, "tokenizer; without it the model's")
    use_fast_tokenizer: bool = option(True, "use the tokenizer's fast version")
    model_revision: str = option("main", "branch, tag or commit of the model on the hub")
    token: str | None = option(None, "access token of the hub, or the name of a file that holds it")
    use_gpu: bool = option(False, "use the GPU", group=MEMORY)
    model_task: Literal["lm", "mlm", "seq2seq"] | None = option(
        None, "causal (lm), masked (mlm) or sequence-to-sequence (seq2seq); without it, what the model's config says"
    )
    model_modifier_fns: list[str] = option(
        [], "functions of model and tokenizer that change them first: add_new_tokens", imports=MODIFIERS, metavar="FN"
    )
    model_modifier_fn_kwargs: dict = option({}, "their options, as --model_modifier_fn_kwargs.FN.KEY VALUE")
    model_pre_train_step_callbacks: list[str] = option(
        [],
        "classes called between the backward pass and the optimizer's step: PartiallyFrozenModelCallback, "
        "UnfreezeWordTokensCallback, FreezeWordTokensCallback",
        imports=MODIFIERS,
        metavar="CLASS",
    )
    model_pre_train_step_callbacks_kwargs: dict = option({}, "their options, as ....CLASS.KEY VALUE")


@dataclass(kw_only=True)
class DataTrainingOptions(RestartOptions):
    """The data and the training."""

    GROUP: ClassVar[str] = DATA

    train_file: str | None = option(None, "examples to train on, .txt.gz or .json.gz", metavar="FILE")
    validation_file: str | None = option(None, "examples whose loss chooses the best model", metavar="FILE")
    test_file: list[str] | None = option(
        None, "examples to compute surprisals for, one or more files", metavar="FILE", group=SURPRISALS
    )
    overwrite_cache: bool = option(False, "tokenize anew what has been tokenized before", role=EFFORT, group=MEMORY)
    preprocessing_num_workers: int | None = option(
        None, "threads of the tokenizer", minimum=1, metavar="N", role=EFFORT, group=MEMORY
    )
    max_length: int | None = option(
        None, "cut texts to so many tokens; default 1024 or the model's limit", minimum=2, role=HYPERPARAMETER
    )
    pad_to_max_length: bool = option(
        False, "pad all batches to max_length, for hardware that wants one shape", group=MEMORY
    )
    max_train_samples: int | None = option(
        None, "use at most so many training examples", minimum=1, metavar="N", role=HYPERPARAMETER
    )
    per_device_train_batch_size: int = option(
        32, "training examples per batch", minimum=1, metavar="N", role=HYPERPARAMETER, group=TRAINING
    )
    max_validation_samples: int | None = option(None, "use at most so many of them", minimum=1, metavar="N")
    per_device_validation_batch_size: int = option(
        32, "validation examples per batch", minimum=1, metavar="N", group=MEMORY
    )
    max_test_samples: int | None = option(
        None, "use at most so many of each test file", minimum=1, metavar="N", group=SURPRISALS
    )
    per_device_test_batch_size: int = option(
        32, "test examples per batch", minimum=1, metavar="N", role=EFFORT, group=SURPRISALS
    )
    ignore_pad_for_token_loss: bool = option(True, "has no effect: padding never counts")
    data_preprocessing_fn: dict = option(
        dict.fromkeys(SPLITS, "identity"),
        "masking function for train, validation and test: --data_preprocessing_fn.train mask_random_tokens",
        imports=PREPROCESSING,
    )
    data_preprocessing_fn_strategy: dict = option(
        dict.fromkeys(SPLITS, "once"), "once: mask all examples before training; per_batch: anew in every batch"
    )
    data_preprocessing_fn_kwargs: dict = option(
        {split: {} for split in SPLITS}, "options of the functions: ....train.mask_prop 0.15"
    )
    epochs: int = option(250, "passes over the training examples", minimum=1, role=HYPERPARAMETER, group=TRAINING)
    min_epochs: int = option(
        0,
        "do not stop before so many epochs, whatever the patience",
        minimum=0,
        metavar="EPOCHS",
        role=HYPERPARAMETER,
        group=TRAINING,
    )
    patience: int | None = option(
        None,
        "stop after so many epochs without a better validation loss",
        minimum=1,
        metavar="EPOCHS",
        role=HYPERPARAMETER,
        group=TRAINING,
    )
    delta: float = option(
        0.0,
        "what counts as better: a validation loss lower by at least this",
        minimum=0,
        role=HYPERPARAMETER,
        group=TRAINING,
    )
    train_optimizer: str = option(
        "torch.optim.AdamW", "class of the optimizer", imports=Objects(), metavar="CLASS", group=TRAINING
    )
    train_optimizer_kwargs: dict = option({"lr": 2e-6}, "its options: --train_optimizer_kwargs.lr 2e-5", group=TRAINING)
    decay_groups: bool = option(
        False,
        "the optimizer's weight_decay leaves biases and weights of norms out",
        role=HYPERPARAMETER,
        group=TRAINING,
    )
    loss_classes: dict = option(
        {"train": ["OutputsDefaultLoss"], "validation": ["OutputsDefaultLoss"]},
        "classes of the losses: --loss_classes.train OutputsDefaultLoss KLBaselineLoss",
        imports=LOSSES,
        group=TRAINING,
    )
    loss_reduction_fns: dict = option(
        {"train": "torch.sum", "validation": "torch.sum"},
        "functions that make one loss of several",
        imports=Objects(),
        group=TRAINING,
    )
    loss_classes_kwargs: dict = option(
        {"train": {}, "validation": {}},
        "options of the losses: --loss_classes_kwargs.train.KLBaselineLoss.scaleby 2.5",
        imports=Objects(modules=MASKING, aliases=ALIASES, keys=frozenset({"data_preprocessing_fn"})),
        group=TRAINING,
    )
    metrics_every: Literal["auto", "none", "epoch", "batch"] = option(
        "auto",
        "what metrics.csv.gz holds: surprisals of all tokens in every batch, the losses of every epoch, or nothing; "
        "auto: of batches where that takes at most 100 MB, else of epochs",
        role=EFFORT,
        group=OTHER,
    )
    test_output_file_prefix: str | None = option(
        None,
        "results go to PREFIX-test_results.csv.gz; without it the model's name",
        metavar="PREFIX",
        group=SURPRISALS,
    )
    save_tmp_test_files: bool = option(
        False, "keep parts of the results, with which an interrupted test goes on", role=EFFORT, group=SURPRISALS
    )


@dataclass(kw_only=True)
class LmStepOptions(StepOptions):
    """How the optimizer's steps are made: at a constant rate, nothing clipped, unless it is told otherwise."""

    ROLE: ClassVar[str] = HYPERPARAMETER
    GROUP: ClassVar[str] = TRAINING

    warmup_ratio: float = option(
        0.0, "part of the steps in which the learning rate rises", minimum=0, below=1, shared=False
    )
    lr_scheduler_type: str = option(
        "constant", "schedule after the warm-up: constant, constant_with_warmup, linear, cosine, ...", metavar="TYPE"
    )
    max_grad_norm: float = option(
        0.0, "scale gradients down to this norm where they are larger; 0 leaves them as they are", minimum=0
    )
    precision: Literal["fp32", "bf16", "fp16"] = option(
        "fp32", "number format of the training; weights are kept in fp32 always", group=MEMORY
    )


@dataclass(kw_only=True)
class FinetuneLmOptions(
    CommonOptions,
    OptimizationOptions,
    SurprisalOptions,
    LmStepOptions,
    DataTrainingOptions,
    AdapterOptions,
    ModelOptions,
):
    """The options of finetune_lm.py; dataclasses list the last base first."""

    seed: int | None = option(  # type: ignore[assignment]
        None,
        "seed of everything random; without it one is drawn and noted",
        minimum=0,
        maximum=2**32 - 1,
        shared=False,
        role=HYPERPARAMETER,
        group=TRAINING,
    )


# Options that may differ without making a run another run.
FREE_OPTIONS = frozenset(options_by_role(FinetuneLmOptions, PLACE, EFFORT, SEARCH))
# Options without which a value is drawn.
DRAWN_OPTIONS = frozenset({"seed"})


def check_options(options: FinetuneLmOptions) -> None:
    """Refuse combinations that cannot work, before anything is loaded.

    Raises:
        UserError: saying what is missing or contradictory.
    """
    if options.train_file and not options.validation_file:
        raise UserError("--train_file needs --validation_file: the best model is that of the lowest validation loss")
    if not options.train_file and not options.test_file:
        raise UserError("nothing to do: give --train_file and --validation_file, --test_file, or all of them")
    if options.validation_file and not options.train_file:
        raise UserError("--validation_file without --train_file; to compute surprisals of a file, give --test_file")
    if options.do_optimize and not options.train_file:
        raise UserError("--do_optimize needs --train_file and --validation_file")
    check_adapter_options(options)
    if options.lora_targets and options.model_pre_train_step_callbacks:
        raise UserError("--lora_targets: adapters are trained alone; leave --model_pre_train_step_callbacks out")
    if options.lora_targets and options.model_modifier_fns and not options.merge_adapter:
        raise UserError(
            "--lora_targets with --model_modifier_fns needs --merge_adapter: the changed model must be saved too"
        )
    tokenizer_threads(options)
    if options.pairs is not None and len(set(options.pairs)) != 2:
        raise UserError(f"--pairs: expected two keys, of the better sentence and of the other; got {options.pairs}")
    if options.warmup_ratio and options.lr_scheduler_type == "constant":
        raise UserError("--warmup_ratio has no effect with a constant rate: --lr_scheduler_type constant_with_warmup")
    if options.min_epochs > options.epochs:
        raise UserError(f"--min_epochs {options.min_epochs} is more than --epochs {options.epochs}")
    for name in (
        *("data_preprocessing_fn", "data_preprocessing_fn_strategy", "data_preprocessing_fn_kwargs"),
        *("loss_classes", "loss_reduction_fns", "loss_classes_kwargs"),
    ):
        known = SPLITS if name.startswith("data") else SPLITS[:2]
        for split in getattr(options, name):
            if split not in known:
                raise UserError(f"--{name}.{split}: expected one of {', '.join(known)}{nearest(split, known)}")
    for split, strategy in options.data_preprocessing_fn_strategy.items():
        if strategy not in ("once", "per_batch"):
            raise UserError(f"--data_preprocessing_fn_strategy.{split} must be once or per_batch, got {strategy!r}")
    for name, objects in (
        ("model_modifier_fn_kwargs", options.model_modifier_fns),
        ("model_pre_train_step_callbacks_kwargs", options.model_pre_train_step_callbacks),
        *((f"loss_classes_kwargs.{split}", loss_list(options, split)) for split in SPLITS[:2]),
    ):
        head, _, split = name.partition(".")
        given = getattr(options, head)
        names = [item.__name__ for item in objects]
        for key in given.get(split, {}) if split else given:
            if key not in names:
                raise UserError(f"--{name}.{key}: {key} is not among those that were given{nearest(key, names)}")


def tokenizer_threads(options: FinetuneLmOptions) -> int | None:
    """Return how many threads tokenize; None leaves it to the library.

    The library has them once for all texts of a process, so --preprocessing_num_workers and the losses' option of
    that name are the same.

    Raises:
        UserError: if they differ.
    """
    given = {"--preprocessing_num_workers": options.preprocessing_num_workers}
    for split in SPLITS[:2]:
        for name, kwargs in (options.loss_classes_kwargs.get(split) or {}).items():
            given[f"--loss_classes_kwargs.{split}.{name}.preprocessing_num_workers"] = (kwargs or {}).get(
                "preprocessing_num_workers"
            )
    numbers = {name: number for name, number in given.items() if number is not None}
    for name, number in numbers.items():
        if type(number) is not int or number < 1:
            raise UserError(f"{name}: expected a positive whole number, got {number!r}")
    if len(set(numbers.values())) > 1:
        shown = ", ".join(f"{name} {number}" for name, number in numbers.items())
        raise UserError(f"all texts of a process are tokenized by the same threads; give one number: {shown}")
    return next(iter(numbers.values()), None)


def loss_list(options: FinetuneLmOptions, split: str) -> list[Any]:
    """Return the loss classes of train or validation, also where one was given by itself."""
    given = options.loss_classes.get(split) or []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def read_token(token: str | None) -> str | None:
    """Return an access token that was given, or read from the file that was named."""
    if token in (None, "False"):
        return None
    try:
        file = Path(token).expanduser()
        return file.read_text(encoding="utf-8").strip() if file.is_file() else token
    except OSError as error:
        raise UserError(f"--token: cannot read the file that was named ({error.strerror})") from None
