"""Examples of language models: tokenized, preprocessed once or per batch, padded, with their texts and metadata."""

import contextlib
import functools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from utils.data.lm_encoding import Bos, Encoder, Task
from utils.data.lm_expansion import Part, PseudoLikelihood, mask_each, slide, span_each
from utils.data.masking import IGNORED, UPDATE_LABEL_FNS, Inputs, identity, sentinel_ids
from utils.data.ragged import Ragged, pad_rows
from utils.data.token_words import place_spans
from utils.errors import UserError

if TYPE_CHECKING:
    import datasets
Preprocessing = Callable[..., Inputs]
# Padded tokens that are preprocessed together: memory grows with their square where each token becomes an example.
TOKENS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class Batch:
    """Some examples as a model takes them, and what reports say of each, which is read when it is asked for.

    Attributes:
        inputs: input_ids, attention_mask and labels, shape [examples, tokens].
        data: what the examples are of.
        numbers: of the example in `data` that each is or was made of, shape [examples].
        windows: places, where they are known already.
    """

    inputs: Inputs
    data: "TextExamples"
    numbers: np.ndarray
    windows: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, start: int, stop: int) -> "Batch":
        """Return some of the examples."""
        inputs = {name: value[start:stop] for name, value in self.inputs.items()}
        return Batch(inputs, self.data, self.numbers[start:stop], self.windows and self.windows[start:stop])

    @property
    def is_expanded(self) -> bool:
        """Whether examples of the file became several, each with a part of the labels."""
        return self.data.is_expanded

    @property
    def items(self) -> list[int]:
        """Numbers of the examples in their file, from 0; an expanded example has several rows."""
        return (self.numbers + self.data.first_item).tolist()

    @functools.cached_property
    def _columns(self) -> dict[str, list[str]]:
        return self.data.examples[self.numbers.tolist()]

    @property
    def texts(self) -> list[str]:
        """The texts as they were read."""
        return self._columns["text"]

    @property
    def metadata(self) -> list[dict[str, Any]]:
        """Of each example."""
        return [json.loads(entry) for entry in self._columns["metadata"]]

    @property
    def labels(self) -> list[str]:
        """The texts of the labels."""
        if self.data.has_labels:
            return self._columns["labels"]
        if self.data.function not in UPDATE_LABEL_FNS:
            return self.texts
        rows = [[token for token in row if token != IGNORED] for row in self.inputs["labels"].tolist()]
        return self.data.tokenizer.batch_decode(rows)

    @property
    def truncated(self) -> list[bool]:
        """Whether the example had more tokens."""
        return self.data.encoded.truncated[self.numbers].tolist()

    @functools.cached_property
    def places(self) -> list[np.ndarray | None]:
        """Of each example's label tokens, their number among those of the text; -1 for tokens that were added.

        None where nothing was moved.
        """
        if self.windows is not None:
            # Windows of short texts are the texts.
            return [places if len(places) else None for places in self.windows]
        if not self._has_spans:
            return [None] * len(self)
        sentinels = set(sentinel_ids(self.data.tokenizer))
        before = (self.data.encoded.input_ids[number].tolist() for number in self.numbers)
        rows = zip(before, self.inputs["input_ids"].tolist(), self.inputs["labels"].tolist(), strict=True)
        found = (place_spans(*row, sentinels) for row in rows)
        return [None if places is None else np.array(places) for places in found]

    @property
    def words(self) -> list[np.ndarray]:
        """Of each example's label tokens as they were tokenized, the number of the word they belong to, see `Encoded`.

        Of labels that are no spans of the text, their tokens alone tell the words.
        """
        words = [self.data.encoded.words[number] for number in self.numbers]
        if not self._has_spans:
            return words
        return [own if places is not None else own[:0] for own, places in zip(words, self.places, strict=True)]

    @property
    def _has_spans(self) -> bool:
        """Whether the labels are made of sentinels and spans of the text."""
        data = self.data
        return data.task == "seq2seq" and not data.has_labels and data.function is not identity


@dataclass
class TextExamples:
    """The examples of one file.

    Indexing gives an example's ids, text, labels and metadata as one dictionary; `dataset` has the ids alone, `texts`,
    `labels` and `metadata` what belongs to them.

    Args:
        name: of the dataset, for reports.
        examples: as `text_files.read_text_file` returns them.
        tokenizer: of the model.
        task: lm, mlm or seq2seq.
        max_length: longer texts are cut to so many tokens.
        function: the preprocessing function, see `masking`.
        function_kwargs: its options.
        strategy: `once` preprocesses all examples now, `per_batch` each batch when it is made.
        seed: of the masking. What is masked is a function of it, the epoch and the examples of a batch.
        first_item: number of the first example in its file.
        pad_to: pad to so many tokens, not to the longest example of a batch.
        cache_dir: where tokenized texts are kept; None does not keep them.
        overwrite_cache: tokenize what is there anew.
        bos: what causal models read before a text: the tokenizer's first token, its last one if it has no first one;
            or nothing (no); which `yes` refuses.
        stride: read longer texts of causal models in windows instead of cutting them; each token has at least so many
            before it.
        pll: masked and sequence-to-sequence models read each text once for each of its tokens or words, see
            `lm_expansion.mask_each` and `span_each`.

    Raises:
        UserError: for labels that do not fit the texts, and tokenizers that lack what is asked for.
    """

    name: str
    examples: "datasets.Dataset"
    tokenizer: Any
    task: Task
    max_length: int
    function: Preprocessing = identity
    function_kwargs: dict[str, Any] = field(default_factory=dict)
    strategy: Literal["once", "per_batch"] = "once"
    seed: int = 0
    first_item: int = 0
    pad_to: int | None = None
    cache_dir: Path | None = None
    overwrite_cache: bool = False
    bos: Bos = "auto"
    stride: int | None = None
    pll: PseudoLikelihood | None = None

    def __post_init__(self) -> None:
        limit = None if self.stride else self.max_length
        cache = None if self.cache_dir is None else Path(self.cache_dir)
        encoder = Encoder(self.name, self.tokenizer, self.task, limit, self.bos, cache, self.overwrite_cache)
        self.encoded = encoder.encode(self.examples.select_columns("text"))
        self.numbers = np.arange(len(self.examples))
        self.windows: Ragged | None = None
        self.is_expanded = False
        self.rows: dict[str, Ragged] = {"input_ids": self.encoded.input_ids}
        # A causal model's labels are its inputs, whatever the file says.
        self.has_labels = self.task != "lm" and "labels" in self.examples.column_names
        if self.has_labels:
            labels = encoder.encode(self.examples.select_columns("labels"), target=True)
            self.rows["labels"] = labels.input_ids
            self._check_lengths()
            # Reports are about the labels.
            truncated = self.encoded.truncated | labels.truncated
            self.encoded = replace(labels, truncated=truncated)
        if self.stride or self.pll:
            self._expand()
        elif self.strategy == "once":
            self._preprocess_all()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = self._described([index])
        described = {"texts": batch.texts[0], "labels_text": batch.labels[0], "metadata": batch.metadata[0]}
        return {**self._ids(index), **described}

    @functools.cached_property
    def dataset(self) -> "datasets.Dataset":
        """The ids alone: input_ids, attention_mask and, unless each batch makes its own, labels."""
        import datasets

        return datasets.Dataset.from_generator(lambda: (self._ids(index) for index in range(len(self))))

    @property
    def texts(self) -> list[str]:
        """The texts as they were read, one for each example."""
        return self._described_by("texts")

    @property
    def labels(self) -> list[str]:
        """The texts of the labels."""
        return self._described_by("labels")

    @property
    def metadata(self) -> list[dict[str, Any]]:
        """Of each example."""
        return self._described_by("metadata")

    def _described_by(self, what: str) -> list[Any]:
        return [value for index in range(len(self)) for value in getattr(self._described([index]), what)]

    def _ids(self, index: int) -> dict[str, list[int]]:
        ids = {name: values[index].tolist() for name, values in self.rows.items()}
        return {**ids, "attention_mask": [1] * len(ids["input_ids"])}

    @property
    def num_truncated(self) -> int:
        """Examples of the file that had more tokens."""
        return int(self.encoded.truncated.sum())

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every example, labels of seq2seq models included."""
        sizes = self.rows["input_ids"].lengths
        return sizes + self.rows["labels"].lengths if self.task == "seq2seq" and "labels" in self.rows else sizes

    def batch(self, indices: list[int], epoch: int = 0) -> Batch:
        """Return these examples as a batch, preprocessed if that is done per batch."""
        batch = self._described(indices)
        if self.strategy == "once" or self.stride or self.pll:
            return batch
        with self._seeded(epoch, indices):
            inputs, repeated = self._apply(batch.inputs, batch.numbers)
        return Batch(inputs, self, repeated)

    def _described(self, indices: list[int]) -> Batch:
        inputs = self._pad({name: values.take(np.asarray(indices)) for name, values in self.rows.items()})
        windows = None if self.windows is None else [self.windows[index] for index in indices]
        return Batch(inputs, self, self.numbers[indices], windows)

    def _expand(self) -> None:
        if not self.tokenizer.is_fast:
            raise UserError("--stride and --pll need a fast tokenizer, which knows the places of its tokens")
        if self.has_labels:
            raise UserError(f"{self.name} has labels; --pll masks texts as they are")
        parts: Iterable[Iterable[Part]] = (
            slide(row, self.max_length, self.stride or 0) for row in self.rows["input_ids"]
        )
        if self.pll:
            parts = self._masked_parts(self.pll)
        made = [(number, part) for number, own in enumerate(parts) for part in own]
        self.is_expanded = len(made) > len(self)
        self.numbers = np.array([number for number, _ in made], dtype=np.int64)
        if self.stride or self.task == "seq2seq":
            self.windows = Ragged.from_rows([() if part.places is None else part.places for _, part in made])
        self.rows = {
            name: Ragged.from_rows([getattr(part, name) for _, part in made]) for name in ("input_ids", "labels")
        }

    def _masked_parts(self, kind: PseudoLikelihood) -> Iterator[Iterator[Part]]:
        mask, sentinels = self.tokenizer.mask_token_id, sentinel_ids(self.tokenizer)
        if self.task == "mlm" and mask is None:
            raise UserError("--pll: the tokenizer has no mask token")
        if self.task == "seq2seq" and len(sentinels) < 2:
            raise UserError("--pll of sequence-to-sequence models needs sentinel tokens (<extra_id_0>, ...)")
        # Words as the tokenizer sees them: punctuation is apart.
        texts = self.examples["text"][:]
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length)
        words = (encoded.word_ids(index) for index in range(len(texts)))
        for ids, own in zip(self.rows["input_ids"], words, strict=True):
            spans = (sentinels[0], sentinels[1]) if self.task == "seq2seq" else None
            yield span_each(ids, own, spans, kind) if spans else mask_each(ids, own, mask, kind)

    @contextlib.contextmanager
    def _seeded(self, epoch: int, indices: list[int]) -> Iterator[None]:
        """Draw as (seed, epoch, examples) say, whatever was drawn before, so that a resumed run masks the same."""
        key = np.asarray([self.seed, epoch, *indices], dtype=np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(key.tobytes(), zlib.crc32(self.name.encode())))
            yield

    def _check_lengths(self) -> None:
        """In masked language models, labels stand at the places of the inputs."""
        if self.task != "mlm":
            return
        sizes = [self.rows[name].lengths for name in ("input_ids", "labels")]
        for item in np.flatnonzero(sizes[0] != sizes[1])[:1]:
            raise UserError(
                f"{self.name}, line {item + 1}: the text has {sizes[0][item]} tokens and the labels {sizes[1][item]}; "
                "for masked language models each mask stands for one token"
            )

    def _pad(self, rows: dict[str, tuple[np.ndarray, np.ndarray]]) -> Inputs:
        """Return rows, given as `Ragged.take` does, as tensors."""
        padding = self.tokenizer.pad_token_id
        if padding is None:
            # Any token will do where the attention mask is 0.
            padding = self.tokenizer.eos_token_id or 0
        inputs = {
            name: pad_rows(*values, IGNORED if name == "labels" else padding, self.pad_to)
            for name, values in rows.items()
        }
        sizes = torch.from_numpy(rows["input_ids"][1])
        width = inputs["input_ids"].shape[1]
        return {**inputs, "attention_mask": (torch.arange(width) < sizes[:, None]).long()}

    def _apply(self, inputs: Inputs, numbers: np.ndarray) -> tuple[Inputs, np.ndarray]:
        """Run the preprocessing function; repeat the number of an example for each that it became."""
        inputs = dict(self.function(inputs, self.tokenizer, **self.function_kwargs))
        lengths = inputs.pop("expanded_lengths", None)
        if lengths is not None:
            counts = lengths[lengths != -1].tolist()
            if len(counts) != len(numbers) or sum(counts) != len(inputs["input_ids"]):
                raise UserError(f"{self.function.__name__}: expanded_lengths do not add up to the new examples")
            numbers = np.repeat(numbers, counts)
            self.is_expanded = True
        if len(inputs["input_ids"]) != len(numbers):
            raise UserError(f"{self.function.__name__}: another number of examples, without expanded_lengths")
        return inputs, numbers

    def _preprocess_all(self) -> None:
        """Preprocess some examples at a time: what they become is as long as it is, not as the longest of all."""
        if self.function is identity:
            self.rows.setdefault("labels", self.rows["input_ids"])
            return
        made: dict[str, list[Ragged]] = {"input_ids": [], "labels": []}
        numbers = []
        for indices in self._groups():
            batch = self._described(indices)
            with self._seeded(0, [self.first_item, *indices]):
                inputs, repeated = self._apply(batch.inputs, batch.numbers)
            attended = inputs["attention_mask"].bool()
            made["input_ids"].append(Ragged.from_tensor(inputs["input_ids"], attended))
            if "labels" in inputs:
                wanted = inputs["labels"] != IGNORED if self.task == "seq2seq" else attended
                made["labels"].append(Ragged.from_tensor(inputs["labels"], wanted))
            numbers.append(repeated)
        self.numbers = np.concatenate(numbers)
        self.rows = {name: Ragged.joined(parts) for name, parts in made.items() if parts}

    def _groups(self) -> Iterator[list[int]]:
        """Yield the numbers of examples that make no more than `TOKENS_AT_ONCE` when they are padded, one at least."""
        group: list[int] = []
        longest = 0
        for index, length in enumerate(self.lengths.tolist()):
            if group and (len(group) + 1) * max(longest, length) > TOKENS_AT_ONCE:
                yield group
                group, longest = [], 0
            group.append(index)
            longest = max(longest, length)
        if group:
            yield group
