"""Builds classifiers and language models from checkpoints and loads trained ones; always from local folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.data.lm_examples import Task
from utils.errors import UserError
from utils.models.adapters import base_folder, has_adapter, is_adapted, merge_adapter

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

    return AutoConfig.from_pretrained(str(folder), local_files_only=True)


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
    folder: Path, labels: list[str], attention_dropout: float | None = None, **kwargs: Any
) -> "PreTrainedModel":
    """Load a pretrained model with a new classification head, in float32.

    Args:
        folder: local checkpoint folder.
        labels: names of the labels in their order; saved with the model.
        attention_dropout: None keeps the model's own.
        kwargs: as for `from_pretrained`.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    config = load_config(folder)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    if attention_dropout is not None:
        set_attention_dropout(config, attention_dropout)
    with _quiet():
        return AutoModelForSequenceClassification.from_pretrained(
            str(folder),
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            **kwargs,
        )


def load_classifier(folder: Path, device: "torch.device") -> "PreTrainedModel":
    """Load a trained classifier from its folder onto a device, ready to evaluate.

    Raises:
        UserError: if the folder holds no trained model.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    if not (folder / "config.json").is_file():
        raise UserError(f"no trained model in {folder}; train it first with finetune.py")
    if has_adapter(folder):
        labels = load_config(folder).id2label
        model = build_classifier(base_folder(folder), [labels[index] for index in range(len(labels))])
        return merge_adapter(model, folder).to(device).eval()
    with _quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            str(folder), dtype=torch.float32, local_files_only=True
        )
    return model.to(device).eval()


def classifier_labels(model: "PreTrainedModel") -> list[str]:
    """Return the names of a classifier's labels in their order."""
    return [model.config.id2label[index] for index in range(model.config.num_labels)]


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
    import torch
    import transformers

    classes = {"lm": "AutoModelForCausalLM", "mlm": "AutoModelForMaskedLM", "seq2seq": "AutoModelForSeq2SeqLM"}
    settings = {"dtype": torch.float32, "local_files_only": True} | kwargs
    if config is not None:
        settings["config"] = config
    source = base_folder(folder) if has_adapter(folder) else folder
    with _quiet():
        model = getattr(transformers, classes[task]).from_pretrained(str(source), **settings)
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
