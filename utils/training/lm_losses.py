"""Losses of language models: the model's own, the divergence from a baseline, and what makes one of several.

A loss class of a language model is made once, with the model, the tokenizer and its own options. Its call
gets the outputs and the labels of a batch and returns the loss.
"""

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from utils.data.lm_encoding import Bos, Task
from utils.data.lm_examples import TextExamples
from utils.data.masking import IGNORED, identity
from utils.data.text_files import read_text_file
from utils.errors import UserError
from utils.models.loading import MAX_LENGTH, choose_max_length, load_language_model, task_of
from utils.runs.files import CACHE_DIR


class OutputsDefaultLoss:
    """The loss that the model computes itself: cross-entropy, the mean over the tokens that have a label.

    Args:
        model: the model.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: nn.Module, tokenizer: Any):
        pass

    def __call__(self, outputs: Any, labels: Tensor | None = None) -> Tensor:
        """Return the loss of the outputs; 0 for a batch in which nothing is to be predicted."""
        if labels is not None and not (labels != IGNORED).any():
            # The mean over no tokens would be NaN.
            return outputs.logits.sum() * 0
        return outputs.loss


class KLBaselineLoss(nn.KLDivLoss):
    """The Kullback-Leibler divergence KL(baseline || model) on texts whose predictions should not change.

    It keeps fine-tuning from making the model forget (Hawkins et al. 2020,
    https://aclanthology.org/2020.conll-1.33; Wilson et al. 2023, https://doi.org/10.1162/tacl_a_00608). The
    divergence of an example is the mean over its tokens, that of a dataset the mean over its examples times
    `scaleby`, the loss the mean over datasets. The baseline is the model's checkpoint, loaded again; both
    models are compared without dropout, so that the loss is 0 before the first step. Words that were added
    to the vocabulary are not compared.

    Args:
        model: the model that is fine-tuned, on its device.
        tokenizer: its tokenizer.
        dataset: files of examples (or folders that `datasets` saved), one or several.
        batch_size: examples per forward pass.
        scaleby: factor of the loss, one for all datasets or one for each.
        n_examples_per_batch: examples of each dataset, drawn anew at every call; one number or one for each.
        model_kwargs: for `from_pretrained` of the baseline.
        tokenizer_kwargs: for `from_pretrained` of the baseline's tokenizer.
        size_average, reduce, reduction: as for `torch.nn.KLDivLoss`; other reductions than `none` count
            padding too.
        split_name: split of saved folders, one for all datasets or one for each.
        max_samples_per_dataset: use at most so many examples of a dataset; one number or one for each.
        max_sample_length: leave out longer examples, in tokens.
        preprocessing_num_workers: threads of the tokenizer, which all texts of the process share, see
            `utils.training.lm_options.tokenizer_threads`.
        overwrite_cache: tokenize the datasets anew.
        data_preprocessing_fn: masking function of all datasets, with
        data_preprocessing_fn_kwargs: its options and
        data_preprocessing_fn_strategy: `once` or `per_batch`.
        return_all: return the divergence of every example instead of the mean: shape [examples]. Those of small
            datasets weigh as much more as makes the mean over all the mean over datasets.
        max_length: cut texts to so many tokens; without it to the model's limit, or 1024.
        seed: of the masking.
        bos: what causal models read before a text, see `TextExamples`.

    Raises:
        UserError: for invalid numbers, lists that are not as long as `dataset`, or if a dataset has no
            example that is short enough.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        dataset: str | list[str],
        batch_size: int = 32,
        scaleby: float | list[float] = 2.5,
        n_examples_per_batch: int | list[int] = 20,
        model_kwargs: dict[str, Any] | None = None,
        tokenizer_kwargs: dict[str, Any] | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "none",
        split_name: str | list[str] = "train",
        max_samples_per_dataset: int | list[int] | None = None,
        max_sample_length: int | None = None,
        preprocessing_num_workers: int | None = None,
        overwrite_cache: bool = False,
        data_preprocessing_fn: Callable = identity,
        data_preprocessing_fn_kwargs: dict[str, Any] | None = None,
        data_preprocessing_fn_strategy: Literal["once", "per_batch"] = "once",
        return_all: bool = False,
        max_length: int | None = None,
        seed: int = 0,
        bos: Bos = "auto",
    ):
        super().__init__(size_average, reduce, reduction)
        paths = [dataset] if isinstance(dataset, str) else list(dataset)
        self.task = task_of(model)
        # In a list, so that it is no part of the module that is moved or saved.
        self.model = [model]
        self.batch_size = batch_size
        self.return_all = return_all
        self.scaleby = _one_each("scaleby", scaleby, paths)
        self.n_examples = _one_each("n_examples_per_batch", n_examples_per_batch, paths)
        if not all(isinstance(scale, (int, float)) for scale in self.scaleby):
            raise UserError(f"KLBaselineLoss.scaleby must be numbers, got {scaleby!r}")
        if not all(type(count) is int and count > 0 for count in [batch_size, *self.n_examples]):
            raise UserError(
                "KLBaselineLoss: batch_size and n_examples_per_batch must be positive whole numbers, "
                f"got {batch_size!r} and {n_examples_per_batch!r}"
            )
        self.baseline = load_baseline(model.name_or_path, self.task, json.dumps(model_kwargs or {}), model.device)
        from transformers import AutoTokenizer

        baseline_tokenizer = AutoTokenizer.from_pretrained(
            tokenizer.name_or_path, **({"local_files_only": True} | (tokenizer_kwargs or {}))
        )
        splits = _one_each("split_name", split_name, paths)
        limits = _one_each("max_samples_per_dataset", max_samples_per_dataset, paths)
        self.datasets, self.allowed = [], []
        for path, split, limit in zip(paths, splits, limits, strict=True):
            data = TextExamples(
                str(path),
                read_text_file(path, split=split),
                baseline_tokenizer,
                self.task,
                choose_max_length(model.config, max_length, default=MAX_LENGTH),
                data_preprocessing_fn,
                data_preprocessing_fn_kwargs or {},
                data_preprocessing_fn_strategy,
                seed=seed,
                cache_dir=Path(CACHE_DIR),
                overwrite_cache=overwrite_cache,
                bos=bos,
            )
            short = (data.lengths <= (max_sample_length or data.lengths.max())).nonzero()[0][:limit]
            if not len(short):
                raise UserError(f"KLBaselineLoss: {path} has no example of at most {max_sample_length} tokens")
            self.datasets.append(data)
            self.allowed.append(short)

    def forward(self, outputs: Any = None, labels: Tensor | None = None) -> Tensor:
        """Return the loss, whatever the batch: a number, or shape [examples] with `return_all`."""
        model = self.model[0]
        was_training = model.training
        model.eval()
        try:
            scaled = [
                torch.cat(list(self._divergences(model, index))) * scale for index, scale in enumerate(self.scaleby)
            ]
        finally:
            model.train(was_training)
        if not self.return_all:
            return torch.stack([part.mean() for part in scaled]).mean()
        count = sum(map(len, scaled))
        return torch.cat([part * (count / (len(scaled) * len(part))) for part in scaled])

    def _divergences(self, model: nn.Module, index: int) -> Iterator[Tensor]:
        """Yield the divergences of randomly drawn examples of a dataset, batch by batch: shape [examples]."""
        data, allowed = self.datasets[index], self.allowed[index]
        drawn = allowed[torch.randperm(len(allowed))[: self.n_examples[index]].numpy()].tolist()
        drawn.sort(key=data.lengths.__getitem__)
        epoch = int(torch.randint(2**31, ())) if data.strategy == "per_batch" else 0
        for start in range(0, len(drawn), self.batch_size):
            inputs = data.batch(drawn[start : start + self.batch_size], epoch).inputs
            inputs = {name: value.to(model.device) for name, value in inputs.items()}
            counted = inputs["attention_mask"].bool()
            if self.task == "seq2seq":
                counted = inputs["labels"] != IGNORED
            else:
                inputs.pop("labels", None)
            with torch.no_grad():
                expected = self.baseline(**inputs).logits.softmax(-1)
            predicted = model(**inputs).logits.log_softmax(-1)[..., : expected.shape[-1]]
            divergence = super().forward(predicted, expected)
            if divergence.dim() == 0:
                yield divergence.expand(len(counted))
            else:
                yield (divergence.sum(-1) * counted).sum(1) / counted.sum(1).clamp(min=1)


@functools.lru_cache(maxsize=2)
def load_baseline(folder: str, task: Task, kwargs: str, device: torch.device) -> nn.Module:
    """Load a model as it was before fine-tuning; all losses that compare with it share it.

    Args:
        folder: of the checkpoint.
        task: lm, mlm or seq2seq.
        kwargs: for `from_pretrained`, as JSON.
        device: where to put it.
    """
    baseline = load_language_model(Path(folder), task, **json.loads(kwargs)).to(device).eval()
    return baseline.requires_grad_(False)


def _one_each(name: str, value: Any, paths: list[str]) -> list[Any]:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * len(paths)
    if len(values) != len(paths):
        raise UserError(f"KLBaselineLoss.{name}: {len(values)} values for {len(paths)} datasets; give one, or one each")
    return values


@dataclass(frozen=True)
class Losses:
    """The losses of one split.

    Attributes:
        classes: name and loss, in the order in which they were given.
        reduction: makes one of several.
    """

    classes: list[tuple[str, Any]]
    reduction: Callable[..., Tensor]

    def __call__(self, outputs: Any, labels: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Return the loss of a batch and its parts, detached, by name."""
        values = [(loss if callable(loss) else loss.forward)(outputs, labels) for _, loss in self.classes]
        loss = reduce_losses(self.reduction, values)
        named = {name: value.detach().mean() for (name, _), value in zip(self.classes, values, strict=True)}
        return loss, {"loss": loss.detach(), **named}


def reduce_losses(function: Callable[..., Tensor], values: list[Tensor]) -> Tensor:
    """Make one loss of several.

    Args:
        function: of torch or of Python (torch.sum, torch.mean, max), which gets them together, or a user's
            own, which gets each as an argument of its own.
        values: the losses.

    Raises:
        UserError: if what comes back is not a single number.
    """
    name = getattr(function, "__name__", str(function))
    try:
        if getattr(torch, name, None) is function:
            loss = function(torch.stack([value.mean() for value in values]))
        elif getattr(function, "__module__", None) == "builtins":
            loss = function([value.mean() for value in values])
        else:
            loss = function(*values)
    except TypeError as error:
        raise UserError(f"loss_reduction_fns: {name} does not take {len(values)} losses ({error})") from None
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise UserError(f"loss_reduction_fns: {name} must return one number, got {loss!r}")
    return loss.reshape(())
