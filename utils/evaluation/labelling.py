"""How a classifier's logits become labels: the most probable one, or all that reach their threshold.

Everything that differs between texts with one label and texts with any number of them is in two classes with the same
methods: `OneLabel` and `LabelSets`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from utils.errors import UserError
from utils.evaluation import metrics as scores
from utils.evaluation.label_sets import hybrid_rows, joint_counts
from utils.evaluation.thresholds import (
    DEFAULT,
    Metric,
    ThresholdChoice,
    choose_threshold,
    choose_thresholds,
    decide,
    lift_parents,
)
from utils.models.options import SUBREGISTERS, THRESHOLDS


@dataclass(frozen=True)
class OneLabel:
    """Each text has one label.

    Attributes:
        names: of the labels in their order.
    """

    names: list[str]

    multilabel: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = scores.METRICS
    # Beside macro F1, of a line that has room for two.
    headline: ClassVar[str] = "accuracy"

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of logits, shape [texts, labels], in float64: their softmax."""
        return softmax(logits.astype(np.float64))

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the label of each text, shape [texts]."""
        return probabilities.argmax(1)

    def score(self, true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Return the metrics of predicted labels."""
        return scores.classification_metrics(true, predicted, len(self.names))

    def about(self) -> dict[str, Any]:
        """Return what files say of the labels besides their names: nothing."""
        return {}

    def rescaled(self, ratio: float) -> "OneLabel":
        """Return the same: the most probable label is that of any temperature."""
        return self

    def loss(self, logits: np.ndarray, true: np.ndarray) -> float:
        """Return the mean cross-entropy of logits, in nats."""
        return scores.cross_entropy(logits, true)

    def is_right(self, logits: np.ndarray, true: np.ndarray) -> bool:
        """Return whether every text's label is the most probable one."""
        return bool((logits.argmax(1) == true).all())

    def count(self, true: np.ndarray) -> np.ndarray:
        """Return how many texts have each label."""
        return np.bincount(true, minlength=len(self.names))

    def chance(self, true: np.ndarray) -> float:
        """Return the macro F1 of knowing the labels' shares alone."""
        return scores.chance_macro_f1(self.count(true))

    def warning(self, true: np.ndarray, found: Mapping[str, float], what: str) -> str | None:
        """Return a sentence about a model that is no better than chance; None about others."""
        return scores.chance_warning(self.count(true), found["macro_f1_present"], what)

    def shown(self, labels: np.ndarray) -> Iterator[str]:
        """Return the label of each text as files have it."""
        return (self.names[label] for label in labels)

    def describe(self, true: np.ndarray, probabilities: np.ndarray, lang: str, seed: int) -> dict[str, Any]:
        """Return what eval/LANG.json says of predictions."""
        matrix = scores.confusion_matrix(true, self.decide(probabilities), len(self.names))
        found = {name: float(value) for name, value in scores.summary_metrics(matrix).items()}
        warning = self.warning(true, found, lang)
        return {
            **found,
            "num_registers_averaged": int(np.count_nonzero(matrix.sum(0) + matrix.sum(1))),
            "num_registers_present": int(np.count_nonzero(matrix.sum(1))),
            "chance_macro_f1": self.chance(true),
            **({"warning": warning} if warning else {}),
            "rare_registers": scores.rare_registers(matrix.sum(1), self.names),
            "registers": self.names,
            "per_register": scores.per_register_metrics(matrix, self.names),
            "confusion_matrix": matrix.tolist(),
            "confidence_intervals": scores.confidence_intervals(matrix, seed),
        }


@dataclass(frozen=True)
class LabelSets:
    """Each text has any number of labels.

    Attributes:
        names: of the labels in their order.
        subregisters: the labels that stand under others, by these.
        thresholds: of every label, shape [labels]; None is 0.5 for all.
        source: how they were chosen.
    """

    names: list[str]
    subregisters: dict[str, list[str]] = field(default_factory=dict)
    thresholds: np.ndarray | None = None
    source: dict[str, Any] = field(default_factory=lambda: {"choice": "0.5"})

    multilabel: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = scores.MULTILABEL_METRICS
    headline: ClassVar[str] = "micro_f1"

    @property
    def parents(self) -> dict[str, str]:
        """The register of each subregister that stands under one alone."""
        above = [(label, register) for register, labels in self.subregisters.items() for label in labels]
        labels = [label for label, _ in above]
        return {label: register for label, register in above if labels.count(label) == 1}

    @property
    def limits(self) -> np.ndarray:
        """The thresholds, shape [labels]."""
        return np.full(len(self.names), DEFAULT) if self.thresholds is None else self.thresholds

    def with_thresholds(self, thresholds: np.ndarray, **source: Any) -> "LabelSets":
        """Return the same labels with other thresholds."""
        return replace(self, thresholds=np.asarray(thresholds, dtype=np.float64), source=source)

    def rescaled(self, ratio: float) -> "LabelSets":
        """Return the labels with thresholds for probabilities whose logits are `ratio` times as large."""
        if self.thresholds is None or ratio == 1:
            return self
        odds = np.log(self.thresholds / (1 - self.thresholds)) * ratio
        return replace(self, thresholds=1 / (1 + np.exp(-odds)))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of logits, shape [texts, labels], in float64; of a register those of its most
        probable subregister at least."""
        return lift_parents(sigmoid(logits.astype(np.float64)), self.names, self.parents)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Return 0 or 1 for each text and label, shape [texts, labels]; a subregister brings its register."""
        found = decide(probabilities, self.limits)
        for label, register in self.parents.items():
            found[:, self.names.index(register)] |= found[:, self.names.index(label)]
        return found

    def score(self, true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Return the metrics of predicted labels."""
        return scores.multilabel_metrics(true, predicted)

    def loss(self, logits: np.ndarray, true: np.ndarray) -> float:
        """Return the mean binary cross-entropy of logits, over texts and labels, in nats."""
        return scores.binary_cross_entropy(logits, true)

    def is_right(self, logits: np.ndarray, true: np.ndarray) -> bool:
        """Return whether all labels of all texts are the more probable ones."""
        return bool(((logits > 0) == (true > 0)).all())

    def count(self, true: np.ndarray) -> np.ndarray:
        """Return how many texts have each label."""
        return np.asarray(true, dtype=np.int64).sum(0)

    def chance(self, true: np.ndarray) -> float:
        """Return the macro F1 (over the labels that texts have) of giving every label to every text."""
        counts = self.count(true)
        shares = counts[counts > 0] / len(true)
        return float((2 * shares / (1 + shares)).mean()) if len(shares) else 0.0

    def warning(self, true: np.ndarray, found: Mapping[str, float], what: str) -> str | None:
        """Return a sentence about a model that is no better than chance; None about others."""
        chance = self.chance(true)
        if found["macro_f1_present"] > chance:
            return None
        return (
            f"no better than chance on the {what} texts: macro F1 of labels with texts "
            f"{found['macro_f1_present']:.3f}, giving every label to every text has {chance:.3f}"
        )

    def shown(self, labels: np.ndarray) -> Iterator[str]:
        """Return the labels of each text as files have them: with blanks between them, empty if there are none."""
        return (" ".join(self.names[place] for place in np.flatnonzero(row)) for row in labels)

    def describe(self, true: np.ndarray, probabilities: np.ndarray, lang: str, seed: int) -> dict[str, Any]:
        """Return what eval/LANG.json says of predictions."""
        predicted = self.decide(probabilities)
        found = self.score(true, predicted)
        warning = self.warning(true, found, lang)
        return {
            "labels": "multi",
            **found,
            "mean_average_precision": scores.mean_average_precision(true, probabilities),
            "num_registers_averaged": len(self.names),
            "num_registers_present": int(np.count_nonzero(true.any(0))),
            "chance_macro_f1": self.chance(true),
            **({"warning": warning} if warning else {}),
            **self.about(),
            "rare_registers": scores.rare_registers(self.count(true), self.names),
            "registers": self.names,
            "per_register": scores.multilabel_per_register(true, predicted, self.names),
            "confusion_matrix": joint_counts(true, predicted).tolist(),
            "hybrids": hybrid_rows(true, predicted, self.names, self.subregisters),
            "confidence_intervals": scores.multilabel_intervals(true, predicted, seed),
        }

    def about(self) -> dict[str, Any]:
        """Return what files say of the labels: thresholds, how they were chosen, subregisters."""
        return {
            "thresholds": dict(zip(self.names, self.limits.round(6).tolist(), strict=True)),
            "threshold_source": self.source,
            "subregisters": self.subregisters,
        }

    def oracle(self, true: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
        """Return the one threshold that gives these texts the best micro F1, and the scores with it.

        What papers report that choose it on the test texts: no model without their labels reaches it.
        """
        threshold = choose_threshold(true, probabilities)
        best = self.with_thresholds(np.full(len(self.names), threshold))
        return {"threshold": threshold, **self.score(true, best.decide(probabilities))}


Labelling = OneLabel | LabelSets


def fit_thresholds(
    labelling: LabelSets,
    true: np.ndarray,
    probabilities: np.ndarray,
    choice: ThresholdChoice = "global",
    metric: Metric = "micro_f1",
) -> LabelSets:
    """Return the labelling with the thresholds that are best for these texts, which must not be those to report.

    Args:
        labelling: what there is.
        true: 0 or 1, shape [texts, labels].
        probabilities: shape [texts, labels].
        choice: which thresholds.
        metric: for which they are the best.
    """
    if choice == "0.5":
        return labelling
    source = {"metric": metric, "chosen_on": "validation", "num_texts": len(true)}
    common = labelling.with_thresholds(
        np.full(len(labelling.names), choose_threshold(true, probabilities, metric)), choice="global", **source
    )
    if choice == "global":
        return common
    own = labelling.with_thresholds(choose_thresholds(true, probabilities, metric), choice="per_label", **source)
    # With the registers that subregisters bring, which the choice does not know of.
    own_value, common_value = (labelling.score(true, x.decide(probabilities))[metric] for x in (own, common))
    return own if own_value >= common_value else common


def labelling_of(config: Any, names: list[str]) -> Labelling:
    """Return how the logits of a trained classifier become labels, which its configuration says.

    Args:
        config: of the model.
        names: of its labels.

    Raises:
        UserError: if the thresholds in it are none.
    """
    if config.problem_type != "multi_label_classification":
        return OneLabel(names)
    below = getattr(config, SUBREGISTERS, None) or {}
    if not isinstance(below, dict) or not all(isinstance(x, list) and set(x) <= set(names) for x in below.values()):
        raise UserError(f"{config.name_or_path}: config.json: {SUBREGISTERS}: expected lists of the model's labels")
    labelling = LabelSets(names, {name: below[name] for name in names if name in below})
    chosen = getattr(config, THRESHOLDS, None)
    if chosen is None:
        return labelling
    values = chosen.get("values") if isinstance(chosen, dict) else None
    if not isinstance(values, list) or len(values) != len(names) or not all(map(_is_threshold, values)):
        raise UserError(
            f"{config.name_or_path}: config.json: {THRESHOLDS}: expected {len(names)} numbers between 0 and 1, "
            f"got {str(values)[:60]}"
        )
    return labelling.with_thresholds(
        np.array(values), **{key: value for key, value in chosen.items() if key != "values"}
    )


def _is_threshold(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, row by row, shape unchanged."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, each by itself, shape unchanged."""
    # tanh does not overflow.
    return 0.5 * (1 + np.tanh(0.5 * logits))


def label_matrix(rows: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return 0 or 1 for each text and label, shape [texts, labels], of labels as `LabelSets.shown` writes them."""
    place = {name: index for index, name in enumerate(names)}
    # Names may have blanks themselves.
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    label = re.compile(rf"(?<!\S)(?:{known})(?!\S)")
    matrix = np.zeros((len(rows), len(names)), dtype=np.int8)
    for index, row in enumerate(rows):
        matrix[index, [place[name] for name in label.findall(row)]] = 1
    return matrix
