"""What explain.py finds for a language, and how it is kept: explanations/LANG.json."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from utils.cli.progress import progress
from utils.data.source import TextSource
from utils.data.splits import subsample
from utils.errors import UserError
from utils.evaluation.inference import Classifier
from utils.evaluation.labelling import LabelSets
from utils.evaluation.trained import load_test_texts
from utils.explanation.attribution import MOST_WINDOWS, Explainer, Explanation, Text
from utils.explanation.faithfulness import faithfulness, summarize
from utils.explanation.keywords import Scored


@dataclass
class LanguageResult:
    """What was found of the texts of a language with one model.

    Attributes:
        content: of explanations/LANG.json, without texts.
        texts: with the scores of their words, those that are classified wrongly first.
        scored: the texts of each register that are classified rightly.
    """

    content: dict[str, Any]
    texts: list[dict[str, Any]]
    scored: dict[str, list[Scored]] = field(default_factory=dict)


def explain_language(
    explainer: Explainer, texts: TextSource, lang: str, name: str, num_texts: int, seed: int
) -> LanguageResult:
    """Explain what a model predicts of test texts.

    Args:
        explainer: of the model.
        texts: to test with, with labels as the model gives them.
        lang: their language.
        name: of the model's run.
        num_texts: how many, their labels in proportion.
        seed: of the draw.

    Raises:
        UserError: if the language has no texts, or labels that the model does not know.
    """
    classifier = explainer.classifier
    loaded, labels = load_test_texts(texts, lang, classifier, name)
    rows = subsample(labels, num_texts, seed, "explain", lang)
    read = explainer.read(loaded.select(rows)["text"][:])
    kept = [place for place, text in enumerate(read) if text.words and explainer.num_windows(text) <= MOST_WINDOWS]
    if not kept:
        raise UserError(f"{lang}: none of {len(read)} texts has words, and at most {MOST_WINDOWS} windows")
    probabilities = classifier.probabilities(explainer.logits([read[place].tokens for place in kept]))
    decided = classifier.labelling.decide(probabilities)
    generator = np.random.default_rng([seed, *lang.encode()])
    scored: dict[str, list[Scored]] = defaultdict(list)
    shown, faithful, complete = [], [], []
    for index, place in enumerate(progress(kept, desc=f"explaining {lang}", unit="text")):
        text, row = read[place], int(rows[place])
        true = _numbers(labels[row])
        for label in _explained(classifier, decided[index], probabilities[index]):
            found = explainer.explain(text, label)
            faithful.append(faithfulness(explainer, text, found, generator))
            complete.append(found.is_complete)
            if label in true:
                words = [text.text[word.start : word.stop] for word in text.words]
                scored[classifier.labels[label]].append(Scored(row + 1, words, found.scores))
            shown.append(_shown(text, found, row, true, classifier.labels, float(probabilities[index, label])))
    shown.sort(key=lambda entry: (entry["predicted"] in entry["true"].split(" "), entry["row"]))
    content = {
        "eval_lang": lang,
        "method": explainer.method,
        "number_format": classifier.precision,
        "num_texts": len(kept),
        "num_left_out": len(read) - len(kept),
        "num_explanations": len(complete),
        "num_incomplete": int(len(complete) - sum(complete)),
        "faithfulness": summarize(faithful, seed),
        "data": texts.provenance("test", [lang])[0],
    }
    return LanguageResult(content, shown, dict(scored))


def _numbers(label: Any) -> set[int]:
    """Return the numbers of a text's labels, of which it has one or several."""
    return set(np.flatnonzero(label).tolist()) if np.ndim(label) else {int(label)}


def _explained(classifier: Classifier, decided: Any, probabilities: np.ndarray) -> list[int]:
    """Return the labels that a text got; of none, the most probable one."""
    if not isinstance(classifier.labelling, LabelSets):
        return [int(decided)]
    return np.flatnonzero(decided).tolist() or [int(probabilities.argmax())]


def _shown(
    text: Text, found: Explanation, row: int, true: set[int], names: list[str], probability: float
) -> dict[str, Any]:
    """Return a text for the report: each word with what stands before it, and its score."""
    words, end = [], 0
    for word, score in zip(text.words, found.scores, strict=True):
        words.append([text.text[end : word.start], text.text[word.start : word.stop], round(float(score), 4)])
        end = max(end, word.stop)
    return {
        "row": row + 1,
        "true": " ".join(names[label] for label in sorted(true)),
        "predicted": names[found.label],
        "probability": round(probability, 4),
        "words": words,
    }
