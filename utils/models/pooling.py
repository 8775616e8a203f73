"""What a classifier's head reads of a text: its first token, the mean of all, or its last one (--pooling).

The stock heads of BERT's descendants read the first token, those of decoders the last one. Encoders for sentences, as
multilingual E5, were trained with the mean (Reimers & Gurevych 2019, arXiv:1908.10084), and their first token says
little. Here what is wanted is put in the place that the stock head reads. config.json says so under
`classifier_pooling`, as ModernBERT's does, which knows two of the three by itself.
"""

from typing import TYPE_CHECKING, Any, Literal

from utils.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig

Pooling = Literal["cls", "mean", "last"]
# Types of models whose head reads the first token, and of those whose head reads the last one; each is tested.
FIRST_TOKEN = ("bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "electra", "distilbert")
LAST_TOKEN = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
MODERNBERT = "modernbert"
SETTING = "classifier_pooling"
# What ModernBERT's own setting cannot say.
OWN_SETTING = "head_pooling"


def set_pooling(config: "PretrainedConfig", pooling: Pooling) -> None:
    """Note in a configuration what the head is to read.

    Raises:
        UserError: if the architecture's head reads in another way, or what it would read says nothing.
    """
    kind = config.model_type
    if kind in LAST_TOKEN and pooling == "cls":
        raise UserError(f"--pooling cls: the first token of {kind} models has seen no other; mean or last")
    if kind not in (*FIRST_TOKEN, *LAST_TOKEN, MODERNBERT):
        raise UserError(f"--pooling {pooling}: the heads of {kind} models are not known here; leave it out")
    if kind == MODERNBERT:
        setattr(config, SETTING, "mean" if pooling == "mean" else "cls")
        setattr(config, OWN_SETTING, pooling)
    else:
        setattr(config, SETTING, pooling)


def pooling_of(config: "PretrainedConfig") -> Pooling | None:
    """Return what a configuration says that the head reads; None if it does not say."""
    # Earlier versions called it first.
    names: dict[Any, Pooling] = {"first": "cls", "cls": "cls", "mean": "mean", "last": "last"}
    return names.get(getattr(config, OWN_SETTING, None) or getattr(config, SETTING, None))


def is_stock(config: "PretrainedConfig") -> bool:
    """Return whether transformers' own class reads what the configuration says."""
    pooling, kind = pooling_of(config), config.model_type
    if pooling is None or kind not in (*FIRST_TOKEN, *LAST_TOKEN, MODERNBERT):
        return True
    own = {"cls", "mean"} if kind == MODERNBERT else {"cls"} if kind in FIRST_TOKEN else {"last"}
    return pooling in own


def apply_pooling(model: "nn.Module") -> None:
    """Make a stock classifier's head read what its configuration says."""
    pooling = pooling_of(model.config)
    if not is_stock(model.config) and pooling is not None:
        _Pooled(pooling).attach(model)


class _Pooled:
    """The hooks of one model, and the mask of the batch that is under way between them."""

    def __init__(self, pooling: Pooling) -> None:
        self.pooling = pooling
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
        return self.pool(args[0]), *args[1:]

    def after_encoder(self, module: Any, args: Any, output: Any) -> Any:
        """After an encoder without a pooler."""
        hidden = output.last_hidden_state
        pooled = self.pool(hidden)
        # Where the head looks for the last token it finds the same.
        reads_last = module.config.model_type in LAST_TOKEN
        output.last_hidden_state = pooled.expand(-1, hidden.shape[1], -1) if reads_last else pooled
        return output

    def pool(self, hidden: "torch.Tensor") -> "torch.Tensor":
        """Return one hidden state for each text, from [texts, longest, width] to [texts, 1, width]."""
        import torch

        if self.mask is None:
            return hidden.mean(1, keepdim=True) if self.pooling == "mean" else hidden[:, -1:]
        if self.pooling == "mean":
            weights = self.mask.to(hidden.dtype)
            return weights[:, None] @ hidden / weights.sum(1)[:, None, None]
        places = torch.arange(hidden.shape[1], device=hidden.device)
        last = (self.mask.bool() * places).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last][:, None]
