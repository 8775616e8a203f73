"""Labels of texts that are given one by one: a line for each, as soon as it is there."""

import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from utils.data.tokenization import encode, encode_whole
from utils.errors import UserError
from utils.evaluation.inference import Classifier
from utils.prediction.model import find_model_folder
from utils.prediction.options import PredictOptions
from utils.prediction.records import PROBABILITIES_DIGITS, RecordLayout
from utils.prediction.segments import describe_segments

# Texts that are computed together, if so many wait.
TOGETHER = 256


def label_lines(options: PredictOptions) -> int:
    """Print a line for every text of --text or of standard input; returns the exit status."""
    _, folder = find_model_folder(options)
    classifier = Classifier(folder, options.precision, options.temperature)
    given = iter([options.text]) if options.text else waiting_lines(sys.stdin.buffer)
    number = 0
    for texts in given:
        for line in label_texts(classifier, texts, number, options):
            print(line)
        number += len(texts)
        sys.stdout.flush()
    return 0


def label_texts(classifier: Classifier, texts: list[str], first: int, options: PredictOptions) -> Iterator[str]:
    """Yield a line for each text.

    Args:
        classifier: the model.
        texts: of which each must say something.
        first: number of the first one, from 0.
        options: of predict.py.

    Raises:
        UserError: for an empty text, before any of these is labelled.
    """
    for number, text in enumerate(texts, first + 1):
        if not text.strip():
            raise UserError(f"text {number} is empty")
    several, budget = classifier.labelling.multilabel, options.eval_token_budget
    layout = RecordLayout(tuple(classifier.labels), (), options.hplt, several, options.segments)
    segments: list[Any] = [None] * len(texts)
    if options.segments or classifier.reading.needs_whole_texts:
        encoded = encode_whole(texts, classifier.tokenizer)
        logits, windows = classifier.logits_of_whole([ids for ids, _ in encoded], budget, options.segments)
        numbers = [len(ids) for ids, _ in encoded]
        lengths, cut = classifier.tokens_read(numbers), classifier.are_cut(numbers)
        if options.segments:
            places = [own for _, own in encoded]
            segments = [describe_segments(classifier, layout, *pair) for pair in zip(windows, places, strict=True)]
    else:
        input_ids, cut = encode(texts, classifier.tokenizer, classifier.max_length)
        logits, lengths = classifier.logits_of(input_ids, budget), [len(ids) for ids in input_ids]
    probabilities = classifier.probabilities(logits)
    decided = classifier.labelling.decide(probabilities)
    for index, shares in enumerate(probabilities):
        if options.format == "json":
            kept = {"text": texts[index]} if options.keep_text else {}
            record = (first + index, decided[index], shares, lengths[index], cut[index], kept, segments[index])
            yield layout.record(*record)
        else:
            found = np.flatnonzero(decided[index]) if several else decided[index : index + 1]
            yield _line(classifier.labels, shares, found)


def _line(labels: list[str], shares: np.ndarray, found: np.ndarray) -> str:
    """Return the registers of a text and their probabilities, then the most probable one that it has not."""
    others = [label for label in np.argsort(-shares, kind="stable") if label not in found]
    cells = []
    for places in (found, others[:1]):
        cells.append(" ".join(labels[place] for place in places))
        cells.append(" ".join(f"{shares[place]:.{PROBABILITIES_DIGITS}f}" for place in places))
    return "\t".join(cells)


def waiting_lines(stream: BinaryIO) -> Iterator[list[str]]:
    """Yield the lines of a stream, as many together as wait to be read, so that none waits for another.

    Raises:
        UserError: for a line that is not UTF-8.
    """
    lines: queue.Queue[bytes | None] = queue.Queue(maxsize=4 * TOGETHER)

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    number, ended = 0, False
    while not ended:
        found = [lines.get()]
        while len(found) < TOGETHER and not lines.empty():
            found.append(lines.get())
        ended = found[-1] is None
        texts = [line for line in found if line is not None]
        if texts:
            yield [_decode(line, number + place) for place, line in enumerate(texts, 1)]
        number += len(texts)


def _decode(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UserError(f"standard input, line {number}: not valid UTF-8") from None
