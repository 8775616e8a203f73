"""What a classifier's head reads: a text's first token, or the mean of all its tokens (--pooling mean).

The stock heads of BERT's descendants read the first token. Encoders for sentences, as multilingual E5, were trained
with the mean (Reimers & Gurevych 2019, arXiv:1908.10084), and their first token says little. Here the mean is put in
the first token's place before the stock head reads it. config.json says so under `classifier_pooling`, as ModernBERT's
does, which knows both by itself.
"""

from typing import TYPE_CHECKING, Any, Literal

from utils.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig

Pooling = Literal["first", "mean"]
# Types of models whose head reads the first token; each is tested.
FIRST_TOKEN = ("bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "electra", "distilbert")
SETTING = "classifier_pooling"


def set_pooling(config: "PretrainedConfig", pooling: Pooling) -> None:
    """Note in a configuration what the head is to read.

    Raises:
        UserError: if the architecture's head reads neither, as that of GPT-2, which reads the last token.
    """
    if config.model_type == "modernbert":
        setattr(config, SETTING, "cls" if pooling == "first" else pooling)
    elif config.model_type in FIRST_TOKEN:
        setattr(config, SETTING, pooling)
    else:
        raise UserError(
            f"--pooling {pooling}: the heads of {config.model_type} models read neither first token nor mean"
        )


def pooling_of(config: "PretrainedConfig") -> Pooling | None:
    """Return what a configuration says that the head reads; None if it does not say."""
    names: dict[Any, Pooling] = {"first": "first", "cls": "first", "mean": "mean"}
    return names.get(getattr(config, SETTING, None))


def apply_pooling(model: "nn.Module") -> None:
    """Make a stock classifier's head read what its configuration says."""
    config = model.config
    if config.model_type in FIRST_TOKEN and pooling_of(config) == "mean":
        _MeanPooling().attach(model)


class _MeanPooling:
    """The hooks of one model, and the mask of the batch that is under way between them."""

    def __init__(self) -> None:
        self.mask: Any = None

    def attach(self, model: Any) -> None:
        """Put the hooks on a classifier and its encoder."""
        model.register_forward_pre_hook(self.keep_mask, with_kwargs=True)
        encoder = model.base_model
        pooler = getattr(encoder, "pooler", None)
        if pooler is not None:
            pooler.register_forward_pre_hook(self.before_pooler)
        else:
            encoder.register_forward_hook(self.after_encoder)

    def keep_mask(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Before the classifier: see which tokens are no padding."""
        self.mask = kwargs.get("attention_mask")

    def before_pooler(self, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before a pooler within the encoder."""
        return self.mean(args[0]), *args[1:]

    def after_encoder(self, module: Any, args: Any, output: Any) -> Any:
        """After an encoder without a pooler."""
        output.last_hidden_state = self.mean(output.last_hidden_state)
        return output

    def mean(self, hidden: "torch.Tensor") -> "torch.Tensor":
        """Return the mean of each text's hidden states, from [texts, longest, width] to [texts, 1, width]."""
        if self.mask is None:
            return hidden.mean(1, keepdim=True)
        weights = self.mask.to(hidden.dtype)
        return weights[:, None] @ hidden / weights.sum(1)[:, None, None]
