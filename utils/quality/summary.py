"""What corpus.json says of a corpus, and what the user is told."""

from collections import Counter
from typing import Any

import numpy as np

from utils.cli.values import plural
from utils.evaluation.metrics import RARE
from utils.quality.doubtful import Doubts
from utils.quality.duplicates import Duplicates
from utils.quality.measure import PROBLEMS, language_identifier
from utils.quality.rows import TEST, TRAIN, Rows

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Rows that are named of each problem of a file.
NAMED = 20
# Kinds of pairs.
KINDS = WITHIN, ACROSS, BETWEEN = ("within a file", "between training and test", "between languages")


def describe_duplicates(rows: Rows, found: Duplicates) -> list[dict[str, Any]]:
    """Return the pairs of twins as corpus.json has them: where they are, how similar, whether their labels differ."""
    return [
        {
            "similarity": round(share, 4),
            "label_conflict": rows.labels[first] != rows.labels[second],
            **{name: rows.place(row) | {"label": rows.labels[row]} for name, row in (("a", first), ("b", second))},
        }
        for first, second, share in found.pairs
    ]


def kind_of(pair: dict[str, Any]) -> str:
    """Return of which kind a pair of `describe_duplicates` is."""
    a, b = pair["a"], pair["b"]
    if a["language"] != b["language"]:
        return BETWEEN
    return WITHIN if a["split"] == b["split"] else ACROSS


def describe_leakage(rows: Rows, found: Duplicates, langs: list[str]) -> dict[str, dict[str, Any]]:
    """Return of each language with test texts how many have a twin in training, equal ones, and in its own training."""
    described = {}
    for lang in langs:
        test = rows.of(lang, TEST).tolist()
        if not test:
            continue
        leaking = [row for row in test if row in found.leaking]
        described[lang] = {
            "num_test_texts": len(test),
            "share": len(leaking) / len(test),
            "equal": sum(found.leaking[row] == 1 for row in leaking),
            "near": sum(found.leaking[row] < 1 for row in leaking),
            "own_language": sum(row in found.leaking_within for row in leaking),
            "rows": [int(rows.numbers[row]) for row in leaking],
        }
    return described


def describe_doubts(rows: Rows, doubts: Doubts) -> list[dict[str, Any]]:
    """Return the rows whose labels confident learning takes for errors, the most doubtful first."""
    return [
        rows.place(row)
        | {
            "given": rows.labels[row],
            "likely": doubts.likely[index],
            "probability": round(float(doubts.probabilities[index, 0]), 4),
            "probability_of_given": round(float(doubts.probabilities[index, 1]), 4),
        }
        for index, row in enumerate(doubts.rows.tolist())
        if doubts.flagged[index] and doubts.likely[index] != rows.labels[row]
    ]


def excluded_rows(rows: Rows, doubts: Doubts, share: float) -> list[dict[str, Any]]:
    """Return the share of the training rows whose labels are the most doubtful, for `write_exclusions`."""
    ranked = [index for index, row in enumerate(doubts.rows.tolist()) if rows.in_training[row]]
    chosen = ranked[: round(share * len(ranked))]
    found = []
    for index in chosen:
        row = int(doubts.rows[index])
        found.append(
            {
                **rows.place(row),
                "hash": f"{int(rows.measured.hashes[row]):016x}",
                "given": rows.labels[row],
                "likely": doubts.likely[index],
                "probability": round(float(doubts.probabilities[index, 0]), 4),
            }
        )
    return found


def describe_language(rows: Rows, lang: str, lengths: dict[str, Any] | None, names: list[str]) -> dict[str, Any]:
    """Return what corpus.json says of the texts of a language, for each split that it has.

    Args:
        rows: of the corpus.
        lang: the language.
        lengths: tokens of its texts, by split: `length` and `cut`, shape [texts]; and `max_length`.
        names: of the labels.
    """
    described: dict[str, Any] = {}
    for split in (TRAIN, TEST):
        own = rows.of(lang, split)
        if not len(own):
            continue
        labels = [set(rows.labels[row].split()) if rows.labels[row] not in names else {rows.labels[row]} for row in own]
        members = {name: np.flatnonzero([name in label for label in labels]) for name in names}
        tokens = lengths[split] if lengths and split in lengths else None
        described[split] = {
            "num_texts": len(own),
            **_lengths(rows, own, tokens),
            "problems": _problems(rows, own),
            "registers": {
                name: {
                    "num_texts": len(places),
                    **_lengths(
                        rows,
                        own[places],
                        tokens and {**tokens, "length": tokens["length"][places], "cut": tokens["cut"][places]},
                    ),
                }
                for name, places in members.items()
                if len(places)
            },
            "rare": {name: len(places) for name, places in members.items() if len(places) < RARE},
        }
    identify = language_identifier()
    checked = identify is not None and lang in identify.labels
    return described | ({} if checked else {"language_checked": False})


def _lengths(rows: Rows, own: np.ndarray, tokens: dict[str, Any] | None) -> dict[str, Any]:
    characters = rows.measured.characters[own]
    found = {
        "characters": [round(x) for x in np.quantile(characters, QUANTILES).tolist()],
        "longest": int(characters.max()),
    }
    if tokens is not None:
        found |= {
            "tokens": [round(x) for x in np.quantile(tokens["length"], QUANTILES).tolist()],
            "max_length": tokens["max_length"],
            "share_longer": round(float(tokens["cut"].mean()), 4),
        }
    return found


def _problems(rows: Rows, own: np.ndarray) -> dict[str, Any]:
    """Return how many texts have which problem, and the first of them."""
    found: dict[str, list[int]] = {name: [] for name in PROBLEMS}
    for row in own[rows.measured.problems[own] > 0].tolist():
        for name in rows.problems(row):
            found[name].append(int(rows.numbers[row]))
    return {name: {"num_texts": len(numbers), "rows": numbers[:NAMED]} for name, numbers in found.items() if numbers}


def describe_findings(content: dict[str, Any]) -> list[str]:
    """Return the lines that say what was found.

    Args:
        content: of corpus.json.
    """
    pairs, languages = content["duplicates"], content["languages"]
    kinds = Counter(kind_of(pair) for pair in pairs)
    shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    conflicts = sum(pair["label_conflict"] for pair in pairs)
    lines = [
        f"{plural(content['num_texts'], 'text')} in {plural(len(languages), 'language')}",
        f"twins: {plural(len(pairs), 'pair')}" + (f" ({shown}), {conflicts:,} with different labels" if pairs else ""),
    ]
    leaking = {lang: share for lang, share in content["leakage"].items() if share}
    shares = ", ".join(f"{lang} {share:.1%}" for lang, share in leaking.items())
    lines.append(f"test texts with a twin in training: {shares or 'none'}")
    if content["labels_judged_by"]:
        lines.append(
            f"doubtful labels: {len(content['doubtful']):,} of {content['num_judged']:,}, "
            f"by {content['labels_judged_by']}"
        )
    counts: Counter[str] = Counter()
    for language in languages.values():
        for split in (TRAIN, TEST):
            for name, found in language.get(split, {}).get("problems", {}).items():
                counts[name] += found["num_texts"]
    lines += [f"{plural(count, 'text')}: {PROBLEMS[name]}" for name, count in counts.most_common()]
    unchecked = [lang for lang, language in languages.items() if language.get("language_checked") is False]
    if unchecked:
        lines.append(f"not checked whether texts are in their language: {', '.join(unchecked)}")
    for split in (TRAIN, TEST):
        rare = [
            f"{lang} {' '.join(own[split]['rare'])}"
            for lang, own in languages.items()
            if own.get(split, {}).get("rare")
        ]
        if rare:
            lines.append(f"under {RARE} {split} texts: {'; '.join(rare)}")
    return lines
