"""Low-rank adapters (LoRA): small matrices trained beside a model's frozen ones, by peft.

LoRA is of Hu et al. 2022 (https://arxiv.org/abs/2106.09685), its rank-stabilized scaling of Kalajdzievski 2023
(https://arxiv.org/abs/2312.03732), the decomposition into magnitude and direction (DoRA) of Liu et al. 2024
(https://arxiv.org/abs/2402.09353). What is adapted is named by what it does, whatever an architecture calls it.
"""

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from utils.cli.options import ADAPTERS, GIVEN, HYPERPARAMETER, Need, option
from utils.errors import UserError
from utils.models.registry import ADAPTER_CONFIG, ModelSpec, cached_folder, checkpoint_problem
from utils.runs.files import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

ADAPTER_FILES = (ADAPTER_CONFIG, "adapter_model.safetensors")
ALL_LINEAR = "all-linear"
# Names of the modules that compute them: BERT and its descendants, DistilBERT, Llama-like decoders, T5.
SEPARATE = {
    "query": ("query", "q_lin", "q_proj", "q"),
    "key": ("key", "k_lin", "k_proj", "k"),
    "value": ("value", "v_lin", "v_proj", "v"),
}
# All three in one matrix: GPT-2, ModernBERT, Phi-3, GPT-NeoX, BLOOM and Falcon.
FUSED = ("c_attn", "Wqkv", "qkv_proj", "query_key_value")
# What makes one vector of the heads' outputs, with as much of its path as tells it from other layers.
OUTPUT = (
    *("attention.output.dense", "attention.out_lin", "self_attn.o_proj", "self_attn.out_proj", "self_attn.dense"),
    *("SelfAttention.o", "EncDecAttention.o", "attn.c_proj", "attn.Wo", "attention.dense", "self_attention.dense"),
)
PEFT_TASKS = {"classifier": "SEQ_CLS", "lm": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "mlm": None}
TARGETS = (*SEPARATE, "attention", ALL_LINEAR)
TARGETS_GIVEN = Need("lora_targets", GIVEN, "is for adapters; say which with --lora_targets, for instance query")


@dataclass(kw_only=True)
class AdapterOptions:
    """Which adapters to train."""

    ROLE: ClassVar[str] = HYPERPARAMETER
    GROUP: ClassVar[str] = ADAPTERS

    lora_targets: list[str] | None = option(
        None, "train low-rank adapters of these matrices instead of the whole model", choices=TARGETS
    )
    lora_r: int = option(8, "rank of the adapters", minimum=1, needs=TARGETS_GIVEN)
    lora_alpha: float = option(32, "scale of the adapters, divided by the rank", above=0, needs=TARGETS_GIVEN)
    lora_dropout: float = option(
        0.01, "dropout of what goes into the adapters", minimum=0, below=1, needs=TARGETS_GIVEN
    )
    rslora: bool = option(
        False, "divide the scale by the square root of the rank (rank-stabilized LoRA)", needs=TARGETS_GIVEN
    )
    dora: bool = option(False, "train magnitudes and directions apart (DoRA)", needs=TARGETS_GIVEN)
    load_in_4bit: bool = option(
        False, "keep the frozen weights in 4 bits (QLoRA; needs bitsandbytes)", needs=TARGETS_GIVEN
    )
    merge_adapter: bool = option(
        False, "save a plain model with the adapters added to its weights", needs=TARGETS_GIVEN
    )


def check_adapter_options(options: AdapterOptions) -> None:
    """Refuse 4 bits where they cannot be had.

    Raises:
        UserError: naming the option.
    """
    if options.load_in_4bit:
        if not importlib.util.find_spec("bitsandbytes"):
            raise UserError("--load_in_4bit: the package bitsandbytes is not installed; pip install bitsandbytes")
        if options.merge_adapter:
            raise UserError("--merge_adapter: adapters cannot be added to weights in 4 bits; leave one of the two out")


def quantization(in_4bit: bool) -> dict[str, Any]:
    """Return what `from_pretrained` needs to load the weights in 4 bits, as QLoRA does (Dettmers et al. 2023).

    Raises:
        UserError: if they are wanted and cannot be had.
    """
    if not in_4bit:
        return {}
    if not importlib.util.find_spec("bitsandbytes"):
        raise UserError(
            "weights in 4 bits need the package bitsandbytes, which is not installed; pip install bitsandbytes"
        )
    import torch
    from transformers import BitsAndBytesConfig

    cuda = torch.cuda.is_available()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=(torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
        if cuda
        else torch.float32,
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device() if cuda else "cpu"}}


def keep_layout(model: "torch.nn.Module") -> None:
    """Keep bitsandbytes from packing the weights in 4 bits anew when a model is first evaluated on a CPU with bf16.

    It never undoes that, computes in bf16 from then on, and gives no gradients to what comes before.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def is_quantized(config: "PretrainedConfig") -> bool:
    """Return whether adapters with this configuration were trained beside weights in 4 bits."""
    return bool(getattr(config, "quantization_config", None))


def linear_names(model: "torch.nn.Module") -> list[str]:
    """Return the paths of the modules that adapters can be added to."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return [name for name, module in model.named_modules() if isinstance(module, (torch.nn.Linear, Conv1D))]


def find_targets(model: "torch.nn.Module", targets: list[str]) -> list[str] | str:
    """Return the names by which peft finds the modules that compute these.

    Args:
        model: before it has adapters.
        targets: some of `TARGETS`.

    Raises:
        UserError: for what the architecture cannot give separately, with what it can give.
    """
    names = linear_names(model)

    def present(suffixes: tuple[str, ...]) -> list[str]:
        return [suffix for suffix in suffixes if any(f".{name}".endswith(f".{suffix}") for name in names)]

    known = {target: present(suffixes) for target, suffixes in SEPARATE.items()}
    fused, output = present(FUSED), present(OUTPUT)
    known["attention"] = [*known["query"], *known["key"], *known["value"], *fused, *output]
    if ALL_LINEAR in targets:
        return ALL_LINEAR
    for target in targets:
        if not known[target]:
            possible = [name for name in TARGETS if name == ALL_LINEAR or known[name]]
            together = f": it computes query, key and value at once ({', '.join(fused)})" if fused else ""
            raise UserError(
                f"--lora_targets {target}: a {model.config.model_type} model has no matrix for it alone{together}; "
                f"possible: {', '.join(possible)}"
            )
    return list(dict.fromkeys(name for target in targets for name in known[target]))


def head_modules(model: "torch.nn.Module") -> list[str]:
    """Return the names of a classifier's head: all between the encoder's layers and the logits.

    That is what stands beside the pretrained part, and its pooler if it has one.
    """
    prefix = model.base_model_prefix
    base = getattr(model, prefix)
    beside = [name for name, child in model.named_children() if name != prefix and list(child.parameters())]
    return [*beside, *(["pooler"] if getattr(base, "pooler", None) is not None else [])]


def freeze_encoder(model: "torch.nn.Module") -> None:
    """Leave only the head of a classifier to be trained."""
    head = head_modules(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in head for part in name.split(".")))


def add_adapters(
    model: "torch.nn.Module", options: AdapterOptions, task: str, spec: ModelSpec, folder: Path
) -> "torch.nn.Module":
    """Freeze a model and add adapters to it; the head of a classifier is trained with them.

    Args:
        model: as it was loaded.
        options: of the adapters.
        task: classifier, or that of a language model: lm, mlm, seq2seq.
        spec: what the model is; noted in the adapters' configuration, so that they find it again.
        folder: what it was loaded from.

    Raises:
        UserError: see `find_targets`.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers.pytorch_utils import Conv1D

    head = head_modules(model) if task == "classifier" else []
    config = LoraConfig(
        task_type=PEFT_TASKS[task],
        target_modules=find_targets(model, options.lora_targets or []),
        exclude_modules=rf".*\b({'|'.join(head)})\b.*" if head else None,
        modules_to_save=head or None,
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        use_rslora=options.rslora,
        use_dora=options.dora,
        # GPT-2's layers hold their matrices transposed.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    if options.load_in_4bit:
        # --gradient_checkpointing says whether activations are computed twice.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    with _quiet_peft():
        adapted = get_peft_model(model, config)
    local = spec.is_local or spec.format != "hf"
    noted = adapted.peft_config["default"]
    noted.base_model_name_or_path = str(folder.resolve()) if local else spec.checkpoint
    noted.revision = None if local else spec.revision
    return adapted


def is_adapted(model: "torch.nn.Module") -> bool:
    """Return whether a model has adapters, without importing peft."""
    return hasattr(model, "peft_config") and hasattr(model, "merge_and_unload")


def has_adapter(folder: Path) -> bool:
    """Return whether a folder holds adapters rather than a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def base_folder(folder: Path) -> Path:
    """Return where the model is on this machine that the adapters of a folder were trained with.

    Raises:
        UserError: if it is not there.
    """
    path = folder / ADAPTER_CONFIG
    content = read_json(path, "train the adapters again with --force")
    if not isinstance(content, dict) or not isinstance(content.get("base_model_name_or_path"), str):
        raise UserError(f"{path}: names no base model; train the adapters again with --force")
    spec = ModelSpec(folder.name, content["base_model_name_or_path"], revision=content.get("revision"))
    base = cached_folder(spec)
    problem = checkpoint_problem(base, ("config", "weights"))
    if problem:
        raise UserError(f"{folder} holds adapters of {spec.checkpoint}: {problem}; fetch it with download_model.py")
    return base


def attach_adapter(model: "torch.nn.Module", folder: Path) -> "torch.nn.Module":
    """Put the adapters of a folder beside the weights of the model that they were trained with.

    Raises:
        UserError: if the folder lacks some of them.
    """
    from peft import PeftModel

    with _quiet_peft():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(model, str(folder))
        except UserWarning as warning:
            names = str(warning).partition(": ")[2][:120] or str(warning)
            raise UserError(f"{folder}: adapters are missing: {names}; train them again with --force") from None


def merge_adapter(model: "torch.nn.Module", folder: Path) -> "torch.nn.Module":
    """Add the adapters of a folder to the weights of the model that they were trained with; a plain model."""
    with _quiet_peft():
        return attach_adapter(model, folder).merge_and_unload()


@contextlib.contextmanager
def _quiet_peft() -> Iterator[None]:
    """Hide the warning about a name that peft reads and the next version of transformers will not have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
