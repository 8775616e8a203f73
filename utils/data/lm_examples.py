"""Examples of language models: tokenized, preprocessed once or per batch, padded, with their texts and metadata."""

import contextlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from utils.data.lm_expansion import Part, PseudoLikelihood, mask_each, slide
from utils.data.masking import IGNORED, UPDATE_LABEL_FNS, Inputs, frame_ids, identity, sentinel_ids
from utils.data.token_cache import LISTS, NUMBERS, cached_rows
from utils.data.token_words import NO_WORD, place_spans, word_numbers
from utils.data.tokenization import cache_key, text_batches, were_longer
from utils.errors import UserError

if TYPE_CHECKING:
    import datasets
Task = Literal["lm", "mlm", "seq2seq"]
Preprocessing = Callable[..., Inputs]
Bos = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class Batch:
    """Some examples as a model takes them, and what reports say of each.

    Attributes:
        inputs: input_ids, attention_mask and labels, shape [examples, tokens].
        items: numbers of the examples in their file, from 0; an expanded example has several rows.
        texts: the texts as they were read.
        labels: the texts of the labels.
        metadata: of each example.
        words: of each example's label tokens as they were tokenized, the number of the word they belong to,
            words being what white space separates; -1 for special tokens.
        places: of each example's label tokens, their number among those; -1 for tokens that were added; None where
            nothing was moved.
        truncated: whether the example had more tokens.
        is_expanded: whether examples of the file became several, each with a part of the labels.
    """

    inputs: Inputs
    items: list[int]
    texts: list[str]
    labels: list[str]
    metadata: list[dict[str, Any]]
    words: list[list[int]]
    places: list[list[int] | None]
    truncated: list[bool]
    is_expanded: bool = False

    def __len__(self) -> int:
        return len(self.items)

    def part(self, start: int, stop: int) -> "Batch":
        """Return some of the examples."""
        inputs = {name: value[start:stop] for name, value in self.inputs.items()}
        part = slice(start, stop)
        return Batch(
            inputs,
            self.items[part],
            self.texts[part],
            self.labels[part],
            self.metadata[part],
            self.words[part],
            self.places[part],
            self.truncated[part],
            self.is_expanded,
        )


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
        seed: of the masking. What is masked is a function of it, the epoch and the examples of a batch.
        first_item: number of the first example in its file.
        pad_to: pad to so many tokens, not to the longest example of a batch.
        cache_dir: where tokenized texts are kept; None does not keep them.
        overwrite_cache: tokenize what is there anew.
        bos: what causal models read before a text: the tokenizer's first token, its last one if it has no first one;
            or nothing (no); which `yes` refuses.
        stride: read longer texts of causal models in windows instead of cutting them; each token has at least so many
            before it.
        pll: masked models read each text once for each of its tokens, see `lm_expansion.mask_each`.

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
        self.texts: list[str] = self.examples["text"][:]
        self.metadata = [json.loads(entry) for entry in self.examples["metadata"][:]]
        self.items = list(range(self.first_item, self.first_item + len(self.texts)))
        input_ids, self.words, self.truncated = self._encode(self.texts)
        self.places: list[list[int] | None] = [None] * len(self.texts)
        self.is_expanded = False
        self.rows: dict[str, list[list[int]]] = {"input_ids": input_ids}
        # A causal model's labels are its inputs, whatever the file says.
        given = self.task != "lm" and "labels" in self.examples.column_names
        self.labels: list[str] = self.examples["labels"][:] if given else list(self.texts)
        if given:
            self.rows["labels"], self.words, cut = self._encode(self.labels, target=True)
            self.truncated = [one or other for one, other in zip(self.truncated, cut, strict=True)]
            self._check_lengths()
        if self.stride or self.pll:
            self._expand()
        elif self.strategy == "once":
            with self._seeded(0, [self.first_item]):
                self._preprocess_all()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = {name: values[index] for name, values in self.rows.items()}
        described = {"item": self.items[index], "text": self.texts[index], "labels_text": self.labels[index]}
        return {**ids, **described, "metadata": self.metadata[index]}

    @property
    def num_truncated(self) -> int:
        """Examples of the file that had more tokens."""
        return len({item for item, cut in zip(self.items, self.truncated, strict=True) if cut})

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every example, labels of seq2seq models included."""
        sizes = [list(map(len, self.rows["input_ids"]))]
        if self.task == "seq2seq" and "labels" in self.rows:
            sizes.append(list(map(len, self.rows["labels"])))
        return np.sum(sizes, axis=0)

    def batch(self, indices: list[int], epoch: int = 0) -> Batch:
        """Return these examples as a batch, preprocessed if that is done per batch."""
        inputs = self._pad({name: [values[i] for i in indices] for name, values in self.rows.items()})
        described = [[values[i] for i in indices] for values in self._described]
        if self.strategy == "per_batch":
            with self._seeded(epoch, indices):
                inputs, described = self._apply(inputs, described)
        items, texts, labels, metadata, words, places, truncated = described
        return Batch(inputs, items, texts, labels, metadata, words, places, truncated, self.is_expanded)

    def _expand(self) -> None:
        if not self.tokenizer.is_fast:
            raise UserError("--stride and --pll need a fast tokenizer, which knows the places of its tokens")
        if "labels" in self.rows:
            raise UserError(f"{self.name} has labels; --pll masks texts as they are")
        parts: Iterable[Iterable[Part]] = (
            slide(row, self.max_length, self.stride or 0) for row in self.rows["input_ids"]
        )
        if self.pll:
            parts = self._masked_parts(self.pll)
        made = [(index, part) for index, own in enumerate(parts) for part in own]
        numbers = [index for index, _ in made]
        self.is_expanded = len(made) > len(self.items)
        self.items, self.texts, self.labels, self.metadata, self.words, _, self.truncated = (
            [values[number] for number in numbers] for values in self._described
        )
        self.places = [part.places for _, part in made]
        self.rows = {name: [getattr(part, name) for _, part in made] for name in ("input_ids", "labels")}

    def _masked_parts(self, kind: PseudoLikelihood) -> Iterator[Iterator[Part]]:
        mask = self.tokenizer.mask_token_id
        if mask is None:
            raise UserError("--pll: the tokenizer has no mask token")
        # Words as the tokenizer sees them: punctuation is apart.
        encoded = self.tokenizer(self.texts, truncation=True, max_length=self.max_length)
        words = (encoded.word_ids(index) for index in range(len(self.texts)))
        return (mask_each(*each, mask, kind) for each in zip(self.rows["input_ids"], words, strict=True))

    @property
    def _described(self) -> tuple[list, ...]:
        return self.items, self.texts, self.labels, self.metadata, self.words, self.places, self.truncated

    @contextlib.contextmanager
    def _seeded(self, epoch: int, indices: list[int]) -> Iterator[None]:
        """Draw as (seed, epoch, examples) say, whatever was drawn before, so that a resumed run masks the same."""
        key = np.asarray([self.seed, epoch, *indices], dtype=np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(key.tobytes(), zlib.crc32(self.name.encode())))
            yield

    def _encode(self, texts: list[str], target: bool = False) -> tuple[list[list[int]], list[list[int]], list[bool]]:
        """Return token ids and word numbers of texts, and which had more, from the cache if they are there."""
        if self.cache_dir is None:
            return self._encode_batch(texts, target)
        kind = f"{self.task}{'-target' if target else ''}{'-bare' if self.bos == 'no' else ''}"
        encoded = cached_rows(
            Path(self.cache_dir) / f"{cache_key(texts, self.tokenizer, self.max_length)}-{kind}.arrow",
            len(texts),
            {"input_ids": LISTS, "words": LISTS, "cut": NUMBERS},
            lambda: self._encode_all(texts, target),
            self.overwrite_cache,
        )
        return encoded["input_ids"][:], encoded["words"][:], [*map(bool, encoded["cut"][:])]

    def _encode_all(
        self, texts: list[str], target: bool
    ) -> Iterator[tuple[list[list[int]], list[list[int]], list[int]]]:
        for batch in text_batches(texts, f"tokenizing {self.name}"):
            ids, words, cut = self._encode_batch(batch, target)
            yield ids, words, [*map(int, cut)]

    def _encode_batch(self, texts: list[str], target: bool) -> tuple[list[list[int]], list[list[int]], list[bool]]:
        encoded = self.tokenizer(
            **({"text_target": texts} if target else {"text": texts}),
            truncation=not self.stride,
            max_length=None if self.stride else self.max_length,
            add_special_tokens=self.bos != "no",
            return_offsets_mapping=self.tokenizer.is_fast,
            verbose=False,
        )
        ids, cut = encoded["input_ids"], [False] * len(texts)
        if not self.stride:
            cut = were_longer(encoded, texts, self.tokenizer, self.max_length)
        special = frame_ids(self.tokenizer)
        # Without offsets (slow tokenizers), words are told from the tokens themselves.
        offsets = encoded["offset_mapping"] if self.tokenizer.is_fast else [[]] * len(texts)
        words = [word_numbers(*row, special) for row in zip(texts, ids, offsets, strict=True)]
        first = first_token(self.tokenizer, self.bos) if self.task == "lm" else None
        if first is not None:
            # Without a token before it, the first one would have no prediction and so no surprisal.
            limit = None if self.stride else self.max_length
            starts = [[] if row[:1] == [first] else [first] for row in ids]
            sizes = [len(start) + len(row) for start, row in zip(starts, ids, strict=True)]
            cut = [before or size > (limit or size) for before, size in zip(cut, sizes, strict=True)]
            ids = [[*start, *row][:limit] for start, row in zip(starts, ids, strict=True)]
            words = [[*[NO_WORD] * len(start), *row][:limit] for start, row in zip(starts, words, strict=True)]
        return ids, words, cut

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
            name: pad_rows(values, IGNORED if name == "labels" else padding, self.pad_to)
            for name, values in rows.items()
            if name != "attention_mask"
        }
        sizes = torch.tensor([len(row) for row in rows["input_ids"]])
        width = inputs["input_ids"].shape[1]
        return {**inputs, "attention_mask": (torch.arange(width) < sizes[:, None]).long()}

    def _apply(self, inputs: Inputs, described: list[list]) -> tuple[Inputs, list[list]]:
        """Run the preprocessing function; repeat what describes an example for each that it became."""
        before = inputs["input_ids"]
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
            before = before.repeat_interleave(torch.tensor(counts), dim=0)
            self.is_expanded = True
        if len(inputs["input_ids"]) != len(described[0]):
            raise UserError(f"{self.function.__name__}: another number of examples, without expanded_lengths")
        if "labels" not in self.rows:
            if self.function in UPDATE_LABEL_FNS:
                described[2] = self._decode_labels(inputs["labels"])
            if self.task == "seq2seq" and self.function is not identity and "labels" in inputs:
                # Labels made of sentinels and spans of the text.
                sentinels = set(sentinel_ids(self.tokenizer))
                rows = zip(before.tolist(), inputs["input_ids"].tolist(), inputs["labels"].tolist(), strict=True)
                described[5] = [place_spans(*row, sentinels) for row in rows]
                # Of labels that are none, their tokens alone tell the words.
                found = zip(described[4], described[5], strict=True)
                described[4] = [[] if places is None else words for words, places in found]
        return inputs, described

    def _decode_labels(self, labels: Tensor) -> list[str]:
        rows = [[token for token in row if token != IGNORED] for row in labels.tolist()]
        return self.tokenizer.batch_decode(rows)

    def _preprocess_all(self) -> None:
        inputs, described = self._apply(self._pad(self.rows), list(self._described))
        self.items, self.texts, self.labels, self.metadata, self.words, self.places, self.truncated = described
        sizes = inputs["attention_mask"].sum(1).tolist()
        self.rows = {"input_ids": [row[:size] for row, size in zip(inputs["input_ids"].tolist(), sizes, strict=True)]}
        if "labels" in inputs:
            rows = inputs["labels"].tolist()
            if self.task == "seq2seq":
                self.rows["labels"] = [[token for token in row if token != IGNORED] for row in rows]
            else:
                self.rows["labels"] = [row[:size] for row, size in zip(rows, sizes, strict=True)]


def first_token(tokenizer: Any, bos: Bos) -> int | None:
    """Return the id of what causal models read before a text; None for nothing.

    Raises:
        UserError: if it has to be there and the tokenizer has neither a first nor a last token.
    """
    if bos == "no":
        return None
    found = [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None]
    if bos == "yes" and not found:
        raise UserError("--bos yes: the tokenizer has neither a token that begins texts nor one that ends them")
    return found[0] if found else None


def pad_rows(rows: list[list[int]], padding: int, width: int | None = None) -> Tensor:
    """Return rows of different lengths as one tensor, padded on the right: shape [rows, width or the longest]."""
    width = max([width or 0, *map(len, rows)])
    return torch.tensor([row + [padding] * (width - len(row)) for row in rows], dtype=torch.long).reshape(-1, width)
