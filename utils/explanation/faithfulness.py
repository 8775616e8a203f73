"""Whether the words that an explanation names are those that a prediction rests on (DeYoung et al. 2020, ERASER).

Comprehensiveness: by how much the label's probability falls when the highest tenth of the words is deleted, the more
the better. Sufficiency: by how much it falls when nothing but these is left, the less the better. Both are compared
with words drawn at random; an explanation whose words do no better than those is none.
"""

from typing import Any

import numpy as np

from utils.explanation.attribution import Explainer, Explanation, Text

# Of a text's words, and how often as many are drawn at random.
SHARE, DRAWS = 0.1, 4
RESAMPLES = 2000


def faithfulness(
    explainer: Explainer, text: Text, found: Explanation, generator: np.random.Generator
) -> dict[str, float]:
    """Return by how much the label's probability falls, for the words of an explanation and for random ones.

    Args:
        explainer: of the classifier.
        text: that is explained.
        found: its explanation.
        generator: of the random words.
    """
    count = max(1, round(SHARE * len(text.words)))
    chosen = [np.argsort(-found.scores, kind="stable")[:count]]
    chosen += [generator.choice(len(text.words), count, replace=False) for _ in range(DRAWS)]
    variants = [text.tokens]
    for words in chosen:
        tokens = np.concatenate([text.words[word].tokens for word in words]).astype(int)
        held = np.zeros(len(text.tokens), dtype=bool)
        held[tokens] = True
        variants += [text.tokens[~held], text.tokens[held]]
    probabilities = explainer.classifier.probabilities(explainer.logits(variants))[:, found.label]
    falls = probabilities[0] - probabilities[1:]
    return {
        "comprehensiveness": float(falls[0]),
        "sufficiency": float(falls[1]),
        "random_comprehensiveness": float(falls[2::2].mean()),
        "random_sufficiency": float(falls[3::2].mean()),
    }


def summarize(values: list[dict[str, float]], seed: int) -> dict[str, Any]:
    """Return the means over texts, and whether the explanations are faithful.

    They are if deleting their words lowers the probability more than deleting random ones does: the 95 % interval of
    the mean difference, over resamples of the texts, lies above 0.

    Args:
        values: of each text, see `faithfulness`.
        seed: of the resamples.
    """
    means = {name: float(np.mean([value[name] for value in values])) for name in values[0]}
    gains = np.array([value["comprehensiveness"] - value["random_comprehensiveness"] for value in values])
    drawn = np.random.default_rng(seed).integers(len(gains), size=(RESAMPLES, len(gains)))
    low, high = np.quantile(gains[drawn].mean(axis=1), (0.025, 0.975))
    rounded = {name: round(value, 6) for name, value in means.items()}
    return rounded | {
        "gain": round(float(gains.mean()), 6),
        "interval": [round(low, 6), round(high, 6)],
        "faithful": bool(low > 0),
    }


def describe(found: dict[str, Any]) -> str:
    """Return a line for the user: whether explanations are faithful."""
    low, high = found["interval"]
    words, others = found["comprehensiveness"], found["random_comprehensiveness"]
    line = (
        f"deleting the highest 10 % of the words lowers the probability by {words:.3f}, random ones by {others:.3f} "
        f"(difference [{low:.3f}, {high:.3f}]); with these words alone it is {found['sufficiency']:.3f} lower, with "
        f"random ones {found['random_sufficiency']:.3f}"
    )
    return f"faithful: {line}" if found["faithful"] else f"NOT FAITHFUL, do not interpret: {line}"
