"""Models that compute a batch as one row of tokens, without any padding.

Of classifiers: hooks stand around the encoder of a stock model. What goes in loses its padding: the texts follow each
other in one row, positions begin anew with every text, and attention sees one text at a time
(`utils.models.attention`). What comes out gets its padding back, so that stock heads and poolers find each text's
first, last or all tokens where they look for them. `utils.data.batching.PackingCollator` makes the batches; called with
others, the model is as it was. Language models need no hooks, since their heads read single tokens.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from utils.data.batching import PackingCollator, PaddingCollator, make_collator, one_row
from utils.data.masking import IGNORED
from utils.models.adapters import is_adapted
from utils.models.attention import ATTENTION, use_text_attention
from utils.models.loading import ATTENTION_DROPOUT_NAMES, OFFSET_POSITIONS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Types of models whose attention goes through transformers' interface and whose positions can be given; each is tested.
PACKABLE = (
    *("bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "electra", "distilbert", "modernbert"),
    *("gpt2", "llama", "mistral", "qwen2", "qwen3"),
)


def why_padded(model: nn.Module, device: torch.device, precision: str, training: bool) -> str | None:
    """Return why a model cannot compute packed batches; None if it can.

    Args:
        model: a stock model of transformers.
        device: where it is to compute.
        precision: fp32, bf16 or fp16.
        training: whether it is to be trained, with dropout.
    """
    config = model.config
    if config.model_type not in PACKABLE:
        return f"models of type {config.model_type} are not computed in packs"
    if getattr(config, "_attn_implementation", None) not in ("sdpa", ATTENTION):
        return f"this model computes its attention by {getattr(config, '_attn_implementation', None)}"
    if device.type != "cuda":
        return None
    if precision == "fp32":
        return "packs are computed in bf16 or fp16 on a GPU"
    if training and attention_dropout(config):
        return "packs take no dropout of attention on a GPU; --attention_dropout 0 packs"
    return None


def attention_dropout(config: "PretrainedConfig") -> float:
    """Return a model's dropout of attention weights; 0 if it has none."""
    return max(getattr(config, name, None) or 0.0 for name in ATTENTION_DROPOUT_NAMES)


def padding_position(config: "PretrainedConfig") -> int | None:
    """Return the position that padding has and behind which a text's positions begin; None if they begin at 0."""
    return config.pad_token_id if config.model_type in OFFSET_POSITIONS else None


def no_mask(device: torch.device) -> torch.Tensor:
    """Return a mask of four dimensions, which models hand to the attention as it is, and which is not read there."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def in_padded_places(values: torch.Tensor, rows: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return vectors [1, tokens, width] in the places of their padded batch, [texts, longest, width], 0 elsewhere."""
    padded = values.new_zeros(shape[0] * shape[1], values.shape[-1])
    return padded.index_copy(0, rows, values[0]).view(*shape, -1)


class _Rows:
    """The hooks of one model, and the batch that is under way between them."""

    def __init__(self) -> None:
        self.rows: Any = None
        self.shape: tuple[int, int] = (0, 0)

    def take_out_padding(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Before the encoder: make one row of the tokens that are no padding."""
        kwargs = dict(kwargs)
        self.rows = kwargs.pop("packed_rows", None)
        if self.rows is not None:
            ids = args[0] if args else kwargs["input_ids"]
            args, self.shape = args[1:], tuple(ids.shape)
            kwargs["input_ids"] = ids.reshape(1, -1).index_select(1, self.rows)
            kwargs["attention_mask"] = no_mask(ids.device)
            if hasattr(module.config, "use_cache"):
                kwargs["use_cache"] = False
        return args, kwargs

    def put_back_padding(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return hidden states in the places of their batch, see `in_padded_places`."""
        return in_padded_places(hidden, self.rows, self.shape)

    def before_pooler(self, module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        """Before a pooler within the encoder, which reads first tokens."""
        return None if self.rows is None else (self.put_back_padding(args[0]),)

    def after_encoder(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After the encoder."""
        if self.rows is not None:
            output.last_hidden_state = self.put_back_padding(output.last_hidden_state)
            self.rows = None
        return output


def evaluation_collator(model: nn.Module, tokenizer: Any, device: torch.device, precision: str) -> PaddingCollator:
    """Return what makes the batches of an evaluation: packed ones if the model can compute them, else padded ones."""
    if why_padded(model, device, precision, training=False):
        return make_collator(tokenizer, device)
    return packing_collator(model, tokenizer)


def packing_collator(model: nn.Module, tokenizer: Any) -> PackingCollator:
    """Make a stock classifier compute packed batches, and return what makes them.

    Args:
        model: one of which `why_padded` says nothing; with adapters or without.
        tokenizer: gives the padding that the model's head sees.
    """
    use_packing(model)
    return PackingCollator(tokenizer, padding_position(model.config))


def use_packing(model: nn.Module) -> None:
    """Put the hooks around a model's encoder."""
    use_text_attention(model)
    encoder = find_encoder(model)
    hooks = _Rows()
    encoder.register_forward_pre_hook(hooks.take_out_padding, with_kwargs=True)
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None:
        # Before those of `utils.models.pooling`.
        pooler.register_forward_pre_hook(hooks.before_pooler, prepend=True)
    encoder.register_forward_hook(hooks.after_encoder, prepend=True)


def pack_language_batch(inputs: dict[str, torch.Tensor], model: nn.Module, causal: bool) -> dict[str, Any] | None:
    """Return a language model's batch on the CPU as one row of tokens; None if its mask is not that of padding alone.

    Args:
        inputs: input_ids, attention_mask and labels, shape [texts, longest].
        model: that is to compute it.
        causal: whether each token predicts the next: then nothing predicts a text's first.
    """
    mask = inputs["attention_mask"].bool()
    lengths = mask.sum(1)
    if not torch.equal(mask, torch.arange(mask.shape[1]) < lengths[:, None]) or not lengths.all():
        return None
    row = one_row(inputs, padding_position(model.config))
    rows, labels = row["packed_rows"], inputs["labels"].reshape(-1)
    labels = labels[rows]
    if causal:
        labels[row["cu_seq_lens_q"][:-1].long()] = IGNORED
    packed = row | {
        "input_ids": inputs["input_ids"].reshape(1, -1)[:, rows],
        "labels": labels[None],
        "attention_mask": no_mask(rows.device),
    }
    return packed | ({"use_cache": False} if causal else {})


def find_encoder(model: nn.Module) -> nn.Module:
    """Return the part of a stock model that makes hidden states of tokens, also from within adapters."""
    return (model.get_base_model() if is_adapted(model) else model).base_model
