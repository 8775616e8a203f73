"""Builds classifiers and language models from checkpoints and loads trained ones; always from local folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from utils.data.lm_encoding import Task
from utils.data.windows import LongTexts, Reading
from utils.data.windows import Pooling as WindowPooling
from utils.errors import UserError
from utils.models.adapters import (
    attach_adapter,
    base_folder,
    has_adapter,
    head_modules,
    is_adapted,
    is_quantized,
    keep_layout,
    merge_adapter,
    quantization,
)
from utils.models.options import LONG_TEXTS, SUBREGISTERS, TEMPERATURE, THRESHOLDS
from utils.models.pooling import Pooling, apply_pooling, pooling_of, set_pooling
from utils.runs.files import MEND, readable

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

# Tokens of a language model's examples, if the model takes so many.
MAX_LENGTH = 1024
# The same setting under the names that architectures give it.
ATTENTION_DROPOUT_NAMES = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
POSITION_NAMES = ("max_position_embeddings", "n_positions")
# BERT's descendants with positions that start behind the padding token's index.
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer")


def load_config(folder: Path) -> "PretrainedConfig":
    """Load the configuration of a local checkpoint folder."""
    from transformers import AutoConfig

    with readable(folder):
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        if not isinstance(longest_input(config), (int, type(None))):
            raise ValueError(f"{longest_input(config)!r} is no number of positions")
        return config


def longest_input(config: "PretrainedConfig") -> int | None:
    """Return the most tokens that a model takes, special tokens included; None if it has no limit."""
    limit = next((getattr(config, name) for name in POSITION_NAMES if getattr(config, name, None)), None)
    if limit is not None and config.model_type in OFFSET_POSITIONS:
        limit -= (config.pad_token_id or 0) + 1
    return limit


def choose_max_length(config: "PretrainedConfig", requested: int | None, default: int = 512) -> int:
    """Return the length to cut texts to: what was asked for, else `default` or the model's limit if shorter.

    Raises:
        UserError: if more was asked for than the model takes.
    """
    limit = longest_input(config)
    if requested is None:
        return min(default, limit or default)
    if limit is not None and requested > limit:
        raise UserError(f"--max_length {requested}: this model takes at most {limit} tokens")
    return requested


def set_attention_dropout(config: "PretrainedConfig", rate: float) -> None:
    """Set the dropout of the attention weights, whatever the architecture calls it.

    Raises:
        UserError: if the architecture has no such setting.
    """
    names = [name for name in ATTENTION_DROPOUT_NAMES if hasattr(config, name)]
    if not names:
        raise UserError(f"--attention_dropout: models of type {config.model_type} have no attention dropout")
    for name in names:
        setattr(config, name, rate)


def build_classifier(
    folder: Path,
    labels: list[str],
    attention_dropout: float | None = None,
    pooling: Pooling | None = None,
    subregisters: dict[str, list[str]] | None = None,
    **kwargs: Any,
) -> "PreTrainedModel":
    """Load a pretrained model with a new classification head, in float32.

    Args:
        folder: local checkpoint folder.
        labels: names of the labels in their order; saved with the model.
        attention_dropout: None keeps the model's own.
        pooling: what the head reads, see `utils.models.pooling`; None is the model's own.
        subregisters: of a model that gives texts any number of labels: those that stand under others, by these.
        kwargs: as for `from_pretrained`.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    config = load_config(folder)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    if subregisters is not None:
        config.problem_type = "multi_label_classification"
        setattr(config, SUBREGISTERS, subregisters)
    if attention_dropout is not None:
        set_attention_dropout(config, attention_dropout)
    if pooling is not None:
        set_pooling(config, pooling)
    if "quantization_config" in kwargs:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
        head = head_modules(model)
        # The head is trained, so its weights stay as they are. Paths, since a name matches only at their start or end.
        paths = [path for path, _ in model.named_modules() if path.rpartition(".")[2] in head]
        kwargs["quantization_config"].llm_int8_skip_modules = paths
    settings = {"config": config, "ignore_mismatched_sizes": True} | kwargs
    return _load(AutoModelForSequenceClassification, folder, new_head=True, **settings)


def _load(
    auto_class: Any, folder: Path, new_head: bool = False, parts_may_lack: tuple[str, ...] = (), **kwargs: Any
) -> "PreTrainedModel":
    """Load a model from a local folder, in float32 unless asked otherwise, with all of its weights.

    Args:
        auto_class: that finds the model's class.
        folder: local checkpoint folder.
        new_head: whether the weights of a classifier's head may be missing; they are drawn at random.
        parts_may_lack: other parts whose weights may be missing, because nobody reads what they give.
        kwargs: as for `from_pretrained`.

    Raises:
        UserError: for damaged files, and if weights are missing, which would be drawn at random.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    settings = {"dtype": torch.float32, "local_files_only": True} | kwargs
    with _quiet(), readable(folder):
        model, found = auto_class.from_pretrained(str(folder), output_loading_info=True, **settings)
    keep_layout(model)
    if auto_class is AutoModelForSequenceClassification:
        apply_pooling(model)
    absent = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    head = [*(head_modules(model) if new_head else []), *parts_may_lack]
    lacking = sorted(name for name in absent if not any(part in head for part in name.split(".")))
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise UserError(f"{folder}: weights are missing or of another shape: {', '.join(lacking[:3])}{more}; {MEND}")
    return model


def load_classifier(folder: Path, device: "torch.device") -> "PreTrainedModel":
    """Load a trained classifier from its folder onto a device, ready to evaluate.

    Adapters that were trained beside weights in 4 bits are evaluated beside such weights: the same model as was
    validated. The others are added to the weights.

    Raises:
        UserError: if the folder holds no trained model, or one whose files are damaged or incomplete; if weights in
            4 bits are wanted and cannot be had here.
    """
    from transformers import AutoModelForSequenceClassification

    if not (folder / "config.json").is_file():
        raise UserError(f"no trained model in {folder}; train it first with finetune.py")
    if not has_adapter(folder):
        return _load(AutoModelForSequenceClassification, folder).to(device).eval()
    config = load_config(folder)
    labels, in_4bit = config.id2label, is_quantized(config)
    names = [labels[index] for index in range(len(labels))]
    model = build_classifier(base_folder(folder), names, pooling=pooling_of(config), **quantization(in_4bit))
    # What the pretrained model's configuration does not know.
    for name in (TEMPERATURE, THRESHOLDS, SUBREGISTERS, LONG_TEXTS, "problem_type", "pad_token_id"):
        if getattr(config, name, None) is not None:
            setattr(model.config, name, getattr(config, name))
    with readable(folder):
        if in_4bit:
            return attach_adapter(model, folder).eval()
        return merge_adapter(model, folder).to(device).eval()


def load_encoder(folder: Path) -> "PreTrainedModel":
    """Load a pretrained model without any head from a local folder, in float32."""
    from transformers import AutoModel

    return _load(AutoModel, folder, parts_may_lack=("pooler",))


def classifier_labels(model: "PreTrainedModel") -> list[str]:
    """Return the names of a classifier's labels in their order."""
    with readable(Path(model.config.name_or_path)):
        return [model.config.id2label[index] for index in range(model.config.num_labels)]


def temperature_of(config: "PretrainedConfig") -> float:
    """Return by what a classifier's logits are divided for calibrated probabilities; 1 if nothing was fitted.

    Raises:
        UserError: if the configuration holds no positive number there.
    """
    value = getattr(config, TEMPERATURE, None)
    if value is None:
        return 1.0
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise UserError(f"{config.name_or_path}: config.json: {TEMPERATURE} must be above 0, got {value!r}; {MEND}")
    return float(value)


def reading_of(config: "PretrainedConfig") -> Reading:
    """Return what a classifier reads of long texts; of models that do not say, their beginning.

    Raises:
        UserError: if the configuration holds something else there.
    """
    value = getattr(config, LONG_TEXTS, None)
    if value is None:
        return Reading()
    if (
        not isinstance(value, dict)
        or set(value) != {"long_texts", "stride", "pooling"}
        or value["long_texts"] not in get_args(LongTexts)
        or not (value["stride"] is None or (type(value["stride"]) is int and value["stride"] > 0))
        or value["pooling"] not in get_args(WindowPooling)
    ):
        raise UserError(f"{config.name_or_path}: config.json: {LONG_TEXTS}: unexpected {str(value)[:60]}; {MEND}")
    return Reading(**value)


def check_vocabulary(tokenizer: Any, model: "torch.nn.Module", folder: Path) -> None:
    """Raise a `UserError` if the tokenizer of a folder has tokens for which its model has no embedding."""
    largest = max(tokenizer.get_vocab().values(), default=0)
    rows = model.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise UserError(f"{folder}: the tokenizer has token {largest:,}, the model embeddings for {rows:,}; {MEND}")


def find_task(config: "PretrainedConfig", requested: Task | None = None) -> Task:
    """Return what a language model was trained to do, from its configuration alone.

    Args:
        config: of the model.
        requested: what the user says it is; believed.

    Raises:
        UserError: if the configuration does not tell.
    """
    from transformers.models.auto import modeling_auto as auto

    if requested is not None:
        return requested
    if config.is_encoder_decoder:
        return "seq2seq"
    mappings = {"lm": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "mlm": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES}
    named = {
        task: any(architecture in mapping.values() for architecture in config.architectures or [])
        for task, mapping in mappings.items()
    }
    # Encoders whose configuration names no head: as causal models they would be marked as decoders.
    typed = {task: config.model_type in mapping for task, mapping in mappings.items()}
    known = named if any(named.values()) else typed
    if known["mlm"] and not (known["lm"] and getattr(config, "is_decoder", False)):
        return "mlm"
    if known["lm"]:
        return "lm"
    raise UserError(f"the configuration of this {config.model_type} model does not say what it is; give --model_task")


def task_of(model: "torch.nn.Module") -> Task:
    """Return the task of a language model that is loaded, which its class tells."""
    from transformers.models.auto import modeling_auto as auto

    if is_adapted(model):
        model = model.get_base_model()
    if model.config.is_encoder_decoder:
        return "seq2seq"
    name = type(model).__name__
    causal = name in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return "mlm" if name in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values() and not causal else "lm"


def load_language_model(folder: Path, task: Task, config: Any = None, **kwargs: Any) -> "PreTrainedModel":
    """Load a language model with the head of its task from a local folder, in float32 unless asked otherwise.

    Args:
        folder: local checkpoint folder.
        task: lm, mlm or seq2seq.
        config: another configuration than the folder's.
        kwargs: as for `from_pretrained`.
    """
    import transformers

    classes = {"lm": "AutoModelForCausalLM", "mlm": "AutoModelForMaskedLM", "seq2seq": "AutoModelForSeq2SeqLM"}
    settings = dict(kwargs) if config is None else {"config": config, **kwargs}
    source = base_folder(folder) if has_adapter(folder) else folder
    if has_adapter(folder) and is_quantized(load_config(folder)):
        # As it was validated: the adapters stay beside the weights in 4 bits.
        model = _load(getattr(transformers, classes[task]), source, **(quantization(True) | settings))
        with readable(folder):
            return attach_adapter(model, folder)
    model = _load(getattr(transformers, classes[task]), source, **settings)
    with readable(folder):
        return merge_adapter(model, folder) if has_adapter(folder) else model


class _quiet:
    """Hides the table of newly initialized weights, which a new head always brings, and loading bars."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.level = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: Any) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.level)
