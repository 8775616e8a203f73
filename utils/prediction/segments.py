"""The registers of a text's parts: what each window that the model reads is, and where it stands."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.evaluation.inference import Classifier, Segment
from utils.prediction.records import RecordLayout


def describe_segments(
    classifier: Classifier, layout: RecordLayout, windows: Sequence[Segment], places: np.ndarray
) -> list[dict[str, Any]]:
    """Return the windows of a text as records have them: `start` and `end` in characters, from 0, and the label.

    Args:
        classifier: the model.
        layout: of the records.
        windows: of the text, see `Classifier.logits_of_whole`.
        places: of its tokens, see `utils.data.tokenization.encode_whole`.
    """
    probabilities = classifier.probabilities(np.array([logits for _, _, logits in windows]))
    labels = classifier.labelling.decide(probabilities)
    found = []
    for (first, behind, _), label, shares in zip(windows, labels, probabilities, strict=True):
        inside = places[first:behind]
        start, end = (int(inside[0, 0]), int(inside[-1, 1])) if len(inside) else (0, 0)
        found.append({"start": start, "end": end, **layout.described(label, shares)})
    return found
