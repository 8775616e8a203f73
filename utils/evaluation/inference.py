"""Logits of a classifier for many texts, without padding or with little, in the order of the texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from utils.cli.progress import progress
from utils.data.batching import PaddingCollator
from utils.data.tokenization import count_tokens, load_tokenizer, with_padding
from utils.data.windows import NO_FRAME, Reading, TextPieces, WholeTexts, find_frame, pieces_of
from utils.errors import UserError
from utils.evaluation.labelling import labelling_of
from utils.models import device as machine
from utils.models.loading import (
    check_vocabulary,
    classifier_labels,
    load_classifier,
    longest_input,
    reading_of,
    temperature_of,
)
from utils.models.packing import evaluation_collator
from utils.models.weights import convert_weights

if TYPE_CHECKING:
    import datasets

# Tokens per batch. On the CPU activations should stay in the cache, on a GPU its cores be full.
TOKEN_BUDGET = {"cpu": 4096, "cuda": 65536}
# To which texts are cut, in tokens, for models without a limit.
DEFAULT_LENGTH = 512
# A window of a text: its first token, that behind its last, and its logits.
Segment = tuple[int, int, np.ndarray]


def default_token_budget(device: torch.device) -> int:
    """Return the tokens per evaluation batch that suit a device."""
    return TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cpu"])


class Classifier:
    """A trained classifier from a folder, ready to compute, and what makes its batches.

    Args:
        folder: of the model, with its tokenizer.
        precision: auto, bf16, fp16, fp32 or int8.
        temperature: divides the logits; None is the model's own, see `utils.evaluation.calibration`.
        device: None is the GPU if there is one, else the CPU.

    Attributes:
        labels: names of the labels in their order.
        labelling: how logits become labels.
        precision: the number format that was chosen.
        max_length: to which texts are cut, in tokens.
        reading: what is read of longer texts.

    Raises:
        UserError: if the folder holds no classifier, or none that can be used.
    """

    def __init__(
        self, folder: Path, precision: str, temperature: float | None = None, device: torch.device | None = None
    ) -> None:
        machine.keep_freed_memory()
        self.device = device or machine.choose_device()
        self.model = load_classifier(folder, self.device)
        self.labels = classifier_labels(self.model)
        if len(self.labels) < 2:
            raise UserError(f"{folder}: a model with a single output, which is no classifier of registers")
        self.precision = machine.choose_precision(precision, self.model.config)
        own = temperature_of(self.model.config)
        self.temperature = temperature or own
        self.labelling = labelling_of(self.model.config, self.labels).rescaled(own / self.temperature)
        self.tokenizer = with_padding(load_tokenizer(folder))
        check_vocabulary(self.tokenizer, self.model, folder)
        # Many tokenizers of models that nobody has fine-tuned know of no limit.
        longest = longest_input(self.model.config) or DEFAULT_LENGTH
        self.max_length = min(self.tokenizer.model_max_length, longest)
        convert_weights(self.model, self.device, self.precision)
        self.collator = evaluation_collator(self.model, self.tokenizer, self.device, self.precision)
        self.reading = reading_of(self.model.config)
        # Special tokens within a text matter to those alone that are not only cut.
        self.frame = find_frame(self.tokenizer) if self.reading.needs_whole_texts else None

    def pieces(self, dataset: "datasets.Dataset") -> WholeTexts | TextPieces:
        """Return what the model reads of tokenized texts; whole ones, unless it only cuts long ones."""
        return pieces_of(dataset, self.frame or NO_FRAME, self.max_length, self.reading)

    def summary(
        self,
        texts: "datasets.Dataset",
        tokenized: "datasets.Dataset",
        pieces: WholeTexts | TextPieces,
        cache_dir: Path,
    ) -> dict[str, Any]:
        """Return what the model reads of texts, and how much of them it does not.

        Args:
            texts: with the column text.
            tokenized: the same.
            pieces: of these.
            cache_dir: of tokenized texts.
        """
        if isinstance(pieces, TextPieces):
            return pieces.summary()
        longer = np.flatnonzero(np.asarray(tokenized["cut"][:]))
        special = self.tokenizer.num_special_tokens_to_add()
        # Of these alone it is not known yet how long they are.
        whole = count_tokens(texts.select(longer), self.tokenizer, cache_dir) if len(longer) else np.zeros(0, int)
        unseen = int(whole.sum()) - len(whole) * (self.max_length - special)
        read = int(pieces.lengths.sum()) - len(texts) * special
        return {
            "long_texts": "cut",
            "num_long_texts": len(longer),
            "num_windows": len(texts),
            "num_tokens": read + unseen,
            "num_tokens_unseen": unseen,
        }

    def logits(self, pieces: WholeTexts | TextPieces, token_budget: int | None, description: str) -> np.ndarray:
        """Compute the logits of tokenized texts, shape [texts, labels], see `predict_logits`."""
        return predict_logits(
            self.model,
            pieces,
            self.collator,
            self.device,
            token_budget=token_budget,
            precision=self.precision,
            description=description,
        )

    def logits_of(self, input_ids: Sequence[Any], token_budget: int | None) -> np.ndarray:
        """Compute the logits of texts, given as their tokens; shape [texts, labels], of no texts [0, labels]."""
        lengths = np.array([len(ids) for ids in input_ids])
        results = np.empty((len(lengths), len(self.labels)), dtype=np.float32)
        computed = []
        for rows in self.collator.cut(lengths, token_budget or default_token_budget(self.device)):
            batch = self.collator([{"input_ids": input_ids[row]} for row in rows])
            computed.append((rows, compute_logits(self.model, batch, self.device, self.precision)))
        for rows, logits in computed:
            results[rows] = logits.cpu().numpy()
        return results

    def logits_of_whole(
        self, tokens: list[np.ndarray], token_budget: int | None, with_segments: bool = False
    ) -> tuple[np.ndarray, list[list[Segment]]]:
        """Compute the logits of whole texts, given as their tokens without special ones.

        Args:
            tokens: of each text.
            token_budget: tokens per batch.
            with_segments: also those of consecutive windows, overlapping as the model reads them or not at all.

        Returns:
            logits, shape [texts, labels]; the windows of each text, where they are wanted.
        """
        frame = self.frame or find_frame(self.tokenizer)
        numbers = np.array([len(ids) for ids in tokens], dtype=np.int64)
        pieces = TextPieces(numbers, tokens.__getitem__, frame, self.max_length, self.reading)
        read = self._logits_of_pieces(pieces, token_budget)
        if not with_segments:
            return pieces.pool(read), []
        windows, found = pieces, read
        if self.reading.long_texts != "windows":
            apart = Reading("windows", self.max_length - frame.size)
            windows = TextPieces(numbers, tokens.__getitem__, frame, self.max_length, apart)
            found = self._logits_of_pieces(windows, token_budget)
        segments: list[list[Segment]] = [[] for _ in tokens]
        for text, ((start, stop),), logits in zip(windows.texts.tolist(), windows.spans, found, strict=True):
            segments[text].append((start, stop, logits))
        return pieces.pool(read), segments

    def tokens_read(self, numbers: list[int]) -> list[int]:
        """Return how many tokens of texts are read, special ones included.

        Args:
            numbers: of each text's tokens, without special ones.
        """
        special, most = self.tokenizer.num_special_tokens_to_add(), self.max_length
        if self.reading.long_texts == "windows":
            return [number + special for number in numbers]
        return [min(number + special, most) for number in numbers]

    def are_cut(self, numbers: list[int]) -> list[bool]:
        """Return which texts have tokens that are not read, of the numbers of their tokens without special ones."""
        room = self.max_length - self.tokenizer.num_special_tokens_to_add()
        return [self.reading.long_texts != "windows" and number > room for number in numbers]

    def _logits_of_pieces(self, pieces: TextPieces, token_budget: int | None) -> np.ndarray:
        return self.logits_of(pieces.input_ids(np.arange(len(pieces.spans))), token_budget)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of logits, at the classifier's temperature, in float64."""
        return self.labelling.probabilities(logits.astype(np.float64) / self.temperature)


@torch.inference_mode()
def compute_logits(
    model: nn.Module, batch: dict[str, torch.Tensor], device: torch.device, precision: str
) -> torch.Tensor:
    """Compute the logits of a batch; they stay on the device: fetching each would wait for it."""
    batch = machine.to_device(batch, device)
    with machine.autocast(device, precision):
        return model(**batch).logits.float()


def predict_logits(
    model: nn.Module,
    texts: WholeTexts | TextPieces,
    collator: PaddingCollator,
    device: torch.device,
    *,
    token_budget: int | None = None,
    precision: str = "fp32",
    description: str | None = None,
) -> np.ndarray:
    """Compute the logits of texts.

    With several processes (torch.distributed) each takes a share and all get the whole; every row is
    computed and counted once.

    Args:
        model: a classifier on `device`; left in evaluation mode.
        texts: the rows that are read of them.
        collator: pads the batches or packs them.
        device: where the model is.
        token_budget: tokens per batch, padding included if there is any; None takes what suits the device.
        precision: fp32, bf16 or fp16 (autocast), or int8, to which the model has been converted.
        description: label of a progress bar, shown on terminals; None shows none.

    Returns:
        float32 array, shape [texts, num_labels].
    """

    model.eval()
    rank, world = _rank_and_world()
    lengths = texts.lengths
    batches = collator.cut(lengths, token_budget or default_token_budget(device))
    # Processes must make the same number of forward passes where the model is sharded among them.
    padded = [*batches, *[batches[-1]] * (-len(batches) % world)]
    results: list[tuple[np.ndarray, torch.Tensor]] = []
    hidden = None if description else True
    with progress(total=len(padded[rank::world]), desc=description, unit="batch", disable=hidden) as bar:
        for rows in padded[rank::world]:
            batch = collator([{"input_ids": ids} for ids in texts.input_ids(rows)])
            results.append((rows, compute_logits(model, batch, device, precision)))
            bar.update()
    rows = np.concatenate([rows for rows, _ in results])
    logits = torch.cat([logits for _, logits in results]).cpu().numpy()
    gathered = [(rows, logits)] if world == 1 else _gather((rows, logits), world)
    output = np.empty((len(lengths), logits.shape[1]), dtype=np.float32)
    for rows, logits in gathered:
        output[rows] = logits
    return texts.pool(output)


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _gather(part: tuple[np.ndarray, np.ndarray], world: int) -> list[tuple[np.ndarray, np.ndarray]]:
    parts: list[Any] = [None] * world
    torch.distributed.all_gather_object(parts, part)
    return parts
