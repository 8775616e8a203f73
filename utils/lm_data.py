"""Examples of language models: tokenised, preprocessed once or per batch, padded, with their texts and metadata."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.masking import IGNORED, UPDATE_LABEL_FNS, Inputs

if TYPE_CHECKING:
    import datasets

Task = Literal["lm", "mlm", "seq2seq"]
Preprocessing = Callable[..., Inputs]


@dataclass(frozen=True)
class Batch:
    """Some examples as a model takes them, and what reports say of each.

    Attributes:
        inputs: input_ids, attention_mask and labels, shape [examples, tokens].
        items: numbers of the examples in their file, from 0; an expanded example has several rows.
        texts: the texts as they were read.
        labels: the texts of the labels.
        metadata: of each example.
    """

    inputs: Inputs
    items: list[int]
    texts: list[str]
    labels: list[str]
    metadata: list[dict[str, Any]]


@dataclass
class TextExamples:
    """The examples of one file.

    Indexing gives an example's ids, text, labels and metadata as one dictionary.

    Args:
        name: of the dataset, for reports.
        examples: as `text_files.read_text_file` returns them.
        tokenizer: of the model.
        task: lm, mlm or seq2seq.
        max_length: longer texts are cut to so many tokens.
        function: the preprocessing function, see `masking`.
        function_kwargs: its options.
        strategy: `once` preprocesses all examples now, `per_batch` each batch when it is made.
    """

    name: str
    examples: "datasets.Dataset"
    tokenizer: Any
    task: Task
    max_length: int
    function: Preprocessing
    function_kwargs: dict[str, Any] = field(default_factory=dict)
    strategy: Literal["once", "per_batch"] = "once"

    def __post_init__(self):
        if self.strategy not in ("once", "per_batch"):
            raise UserError(f"data_preprocessing_fn_strategy must be once or per_batch, got {self.strategy!r}")
        self.texts: list[str] = self.examples["text"][:]
        self.metadata = [json.loads(entry) for entry in self.examples["metadata"][:]]
        self.items = list(range(len(self.texts)))
        self.rows: dict[str, list[list[int]]] = {"input_ids": self._encode(self.texts)}
        # A causal model's labels are its inputs, whatever the file says.
        given = self.task != "lm" and "labels" in self.examples.column_names
        self.labels: list[str] = self.examples["labels"][:] if given else list(self.texts)
        if given:
            self.rows["labels"] = self._encode(self.labels, target=True)
            self._check_lengths()
        if self.strategy == "once":
            self._preprocess_all()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = {name: values[index] for name, values in self.rows.items()}
        described = {"item": self.items[index], "text": self.texts[index], "labels_text": self.labels[index]}
        return {**ids, **described, "metadata": self.metadata[index]}

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every example, labels of seq2seq models included."""
        sizes = [list(map(len, self.rows["input_ids"]))]
        if self.task == "seq2seq" and "labels" in self.rows:
            sizes.append(list(map(len, self.rows["labels"])))
        return np.sum(sizes, axis=0)

    def batch(self, indices: list[int]) -> Batch:
        """Return these examples as a batch, preprocessed if that is done per batch."""
        inputs = self._pad({name: [values[i] for i in indices] for name, values in self.rows.items()})
        described = [[values[i] for i in indices] for values in (self.items, self.texts, self.labels, self.metadata)]
        if self.strategy == "per_batch":
            inputs, described = self._apply(inputs, described)
        return Batch(inputs, *described)

    def _encode(self, texts: list[str], target: bool = False) -> list[list[int]]:
        arguments = {"text_target": texts} if target else {"text": texts}
        ids = self.tokenizer(**arguments, truncation=True, max_length=self.max_length, add_special_tokens=True)
        rows = ids["input_ids"]
        if self.task == "lm":
            # Without a token before it, the first one would have no prediction and so no surprisal.
            first = self.tokenizer.bos_token_id
            if first is None:
                first = self.tokenizer.eos_token_id
            if first is not None:
                rows = [row if row and row[0] == first else [first, *row][: self.max_length] for row in rows]
        return rows

    def _check_lengths(self) -> None:
        """In masked language models, labels stand at the places of the inputs."""
        if self.task != "mlm":
            return
        for item, (row, label) in enumerate(zip(self.rows["input_ids"], self.rows["labels"], strict=True)):
            if len(row) != len(label):
                raise UserError(
                    f"{self.name}, line {item + 1}: the text has {len(row)} tokens and the labels {len(label)}; "
                    "for masked language models each mask stands for one token"
                )

    def _pad(self, rows: dict[str, list[list[int]]]) -> Inputs:
        padding = self.tokenizer.pad_token_id
        if padding is None:
            # Any token will do where the attention mask is 0.
            padding = self.tokenizer.eos_token_id or 0
        inputs = {
            name: pad_rows(values, IGNORED if name == "labels" else padding)
            for name, values in rows.items()
            if name != "attention_mask"
        }
        sizes = torch.tensor([len(row) for row in rows["input_ids"]])
        width = inputs["input_ids"].shape[1]
        return {**inputs, "attention_mask": (torch.arange(width) < sizes[:, None]).long()}

    def _apply(self, inputs: Inputs, described: list[list]) -> tuple[Inputs, list[list]]:
        """Run the preprocessing function; repeat what describes an example for each that it became."""
        inputs = dict(self.function(inputs, self.tokenizer, **self.function_kwargs))
        lengths = inputs.pop("expanded_lengths", None)
        if lengths is not None:
            counts = lengths[lengths != -1].tolist()
            if len(counts) != len(described[0]) or sum(counts) != len(inputs["input_ids"]):
                raise UserError(f"{self.function.__name__}: expanded_lengths do not add up to the new examples")
            described = [
                [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
                for values in described
            ]
        if len(inputs["input_ids"]) != len(described[0]):
            raise UserError(f"{self.function.__name__}: another number of examples, without expanded_lengths")
        if self.function in UPDATE_LABEL_FNS and "labels" not in self.rows:
            described[2] = self._decode_labels(inputs["labels"])
        return inputs, described

    def _decode_labels(self, labels: Tensor) -> list[str]:
        rows = [[token for token in row if token != IGNORED] for row in labels.tolist()]
        return self.tokenizer.batch_decode(rows)

    def _preprocess_all(self) -> None:
        described = [self.items, self.texts, self.labels, self.metadata]
        inputs, described = self._apply(self._pad(self.rows), described)
        self.items, self.texts, self.labels, self.metadata = described
        sizes = inputs["attention_mask"].sum(1).tolist()
        self.rows = {"input_ids": [row[:size] for row, size in zip(inputs["input_ids"].tolist(), sizes, strict=True)]}
        if "labels" in inputs:
            rows = inputs["labels"].tolist()
            if self.task == "seq2seq":
                self.rows["labels"] = [[token for token in row if token != IGNORED] for row in rows]
            else:
                self.rows["labels"] = [row[:size] for row, size in zip(rows, sizes, strict=True)]


def pad_rows(rows: list[list[int]], padding: int) -> Tensor:
    """Return rows of different lengths as one tensor, padded on the right: shape [rows, longest]."""
    width = max(map(len, rows), default=0)
    return torch.tensor([row + [padding] * (width - len(row)) for row in rows], dtype=torch.long).reshape(-1, width)
