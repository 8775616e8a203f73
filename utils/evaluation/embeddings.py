"""Vectors of texts from a pretrained encoder as it is: the mean of its last hidden states."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from utils.data.batching import make_collator
from utils.data.tokenization import load_tokenizer, tokenize, with_padding
from utils.data.windows import NO_FRAME, Reading, find_frame, pieces_of
from utils.evaluation.inference import predict_logits
from utils.models import device as machine
from utils.models.loading import choose_max_length, load_encoder
from utils.models.registry import ModelSpec, resolve_checkpoint

CUT = Reading()


class Embedder:
    """A pretrained encoder and what makes its batches.

    Args:
        spec: the model.
        max_length: to which texts are cut, in tokens; None as finetune.py chooses it.
        precision: auto, bf16, fp16 or fp32.
        cache_dir: of tokenized texts.
        reading: what is read of longer texts; the vector of a text is the mean of those of its windows.
    """

    def __init__(
        self,
        spec: ModelSpec,
        max_length: int | None,
        precision: str,
        cache_dir: Path,
        reading: Reading = CUT,
    ) -> None:
        folder = resolve_checkpoint(spec)
        machine.keep_freed_memory()
        self.cache_dir, self.device = cache_dir, machine.choose_device()
        self.tokenizer = with_padding(load_tokenizer(folder))
        encoder = load_encoder(folder).to(self.device).eval()
        self.max_length = choose_max_length(encoder.config, max_length)
        self.precision = machine.choose_precision(precision, encoder.config)
        self.model = _MeanOfTokens(encoder)
        self.reading = reading
        self.frame = find_frame(self.tokenizer) if reading.needs_whole_texts else NO_FRAME

    def embed(self, texts: list[str], token_budget: int | None = None) -> np.ndarray:
        """Return the vectors of texts, float32, shape [texts, width]."""
        import datasets

        dataset = datasets.Dataset.from_dict({"text": texts})
        whole = self.reading.needs_whole_texts
        tokens = tokenize(dataset, self.tokenizer, self.max_length, self.cache_dir, whole)
        return predict_logits(
            self.model,
            pieces_of(tokens, self.frame, self.max_length, self.reading),
            make_collator(self.tokenizer, self.device),
            self.device,
            token_budget=token_budget,
            precision=self.precision,
            description="embedding",
        )


class _MeanOfTokens(nn.Module):
    """Gives the mean hidden state of each text where a classifier would give logits."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        weights = attention_mask.to(hidden.dtype)
        return SimpleNamespace(logits=(weights[:, None] @ hidden)[:, 0] / weights.sum(1, keepdim=True))
