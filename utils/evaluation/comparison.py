"""Comparisons of runs on the same texts: `post_eval.py --compare`."""

import itertools
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError, nearest
from utils.evaluation.clusters import read_clusters
from utils.evaluation.labelling import label_matrix
from utils.evaluation.results import RunResults, load_predictions, load_run, order_langs
from utils.evaluation.significance import (
    RESAMPLES,
    PairedLabelSets,
    PairedTexts,
    approximate_randomization,
    holm,
    mcnemar,
    paired_bootstrap,
)
from utils.runs.layout import check_lang, check_model_name

# File systems take 255 bytes.
LONGEST_NAME = 180
# Which McNemar's test compares.
SHARES_RIGHT = (PairedTexts.share_right, PairedLabelSets.share_right)
TESTS = ("p_bootstrap", "p_randomisation", "p_mcnemar")


def find_runs(base_dir: Path, names: list[str]) -> list[RunResults]:
    """Return the runs of these names, ``[SUBFOLDER/]MODEL-LANGS``.

    Raises:
        UserError: if there are fewer than two, one has no results, or a name leads out of the folder.
    """
    if len(set(names)) < 2:
        raise UserError(f"--compare wants at least two different runs, got {' '.join(names)}")
    runs = []
    for name in dict.fromkeys(names):
        for part in Path(name).parts or (name,):
            check_model_name(part)
        run = load_run(base_dir / name)
        if run is None:
            known = [path.parent.relative_to(base_dir).as_posix() for path in base_dir.rglob("eval")]
            raise UserError(f"--compare: no results in {base_dir / name}{nearest(name, known)}")
        runs.append(run)
    return runs


def comparison_file(names: list[str]) -> str:
    """Return the name of the table that compares these runs."""
    joined = "_".join(name.replace("/", ".") for name in dict.fromkeys(names))
    if len(joined) > LONGEST_NAME:
        joined = f"{joined[:LONGEST_NAME]}_{zlib.crc32(joined.encode()):08x}"
    return f"comparison_{joined}.csv"


def compare(base_dir: Path, names: list[str], seed: int, resamples: int = RESAMPLES) -> list[dict[str, Any]]:
    """Compare every two of these runs on every language that both were evaluated on.

    Holm's correction is over all pairs and languages, for each metric and test by itself.

    Args:
        base_dir: folder with the results.
        names: of the runs, ``[SUBFOLDER/]MODEL-LANGS``.
        seed: of the resampling.
        resamples: of either test.

    Returns:
        A row per pair, language and metric: both values, the difference (second minus first) with its
        interval, the smallest one that could be shown (``detectable``), p-values as they are and corrected
        (``_holm``). McNemar's test is about accuracy alone.

    Raises:
        UserError: if runs are missing, share no language, or were evaluated on different texts.
    """
    runs = dict(zip(dict.fromkeys(names), find_runs(base_dir, names), strict=True))
    rows = []
    for first, second in itertools.combinations(runs, 2):
        langs = [x for x in order_langs(runs[first], list(runs[first].evaluations)) if x in runs[second].evaluations]
        if not langs:
            raise UserError(f"--compare: {first} and {second} were evaluated on no language together")
        for lang in langs:
            rows += _compare_on(runs[first], runs[second], (first, second), check_lang(lang), seed, resamples)
    for metric, test in itertools.product(dict.fromkeys(row["metric"] for row in rows), TESTS):
        same = [row for row in rows if row["metric"] == metric and row[test] is not None]
        for row, corrected in zip(same, holm([row[test] for row in same]), strict=True):
            row[f"{test}_holm"] = corrected
    return rows


def _compare_on(
    first: RunResults, second: RunResults, names: tuple[str, str], lang: str, seed: int, resamples: int
) -> list[dict[str, Any]]:
    # The two in the order of their names, so that what is drawn, and p with it, is the same whichever comes first.
    swapped = names[1] < names[0]
    runs, ordered = ((second, first), (names[1], names[0])) if swapped else ((first, second), names)
    texts = paired_texts(*runs, ordered, lang)
    values = texts.observed()[:: -1 if swapped else 1]
    own_seed = [seed, zlib.crc32(" ".join([*ordered, lang]).encode())]
    bootstrap = paired_bootstrap(texts, own_seed, resamples)
    randomization = approximate_randomization(texts, own_seed, resamples)
    if swapped:
        bootstrap = {
            metric: found | {"difference": -found["difference"], "low": -found["high"], "high": -found["low"]}
            for metric, found in bootstrap.items()
        }
    return [
        {
            "first": names[0],
            "second": names[1],
            "eval_lang": lang,
            "num_texts": texts.num_texts,
            "num_clusters": texts.count if texts.is_clustered else None,
            "metric": metric,
            "first_value": float(values[0][metric]),
            "second_value": float(values[1][metric]),
            **{key: bootstrap[metric][key] for key in ("difference", "low", "high", "detectable")},
            "p_bootstrap": bootstrap[metric]["p"],
            "p_randomisation": randomization[metric],
            # McNemar's test takes texts for independent.
            "p_mcnemar": mcnemar(texts) if metric == texts.share_right and not texts.is_clustered else None,
            **{f"{test}_holm": None for test in TESTS},
        }
        for metric in texts.names
    ]


def paired_texts(first: RunResults, second: RunResults, names: tuple[str, str], lang: str) -> PairedTexts:
    """Return the predictions of two runs on the texts of one language.

    Raises:
        UserError: if the texts are not the same: another file, another number, other true labels.
    """
    kinds = [run.evaluations[lang].get("labels") for run in (first, second)]
    if kinds[0] != kinds[1]:
        raise UserError(f"--compare: of {names[0]} and {names[1]}, one gives texts one label and the other several")
    tables = [load_predictions(run.folder, lang) for run in (first, second)]
    hashes = [run.evaluations[lang].get("data", {}).get("sha256") for run in (first, second)]
    same = len(tables[0]) == len(tables[1]) and (tables[0]["true"] == tables[1]["true"]).all()
    if not same or (None not in hashes and hashes[0] != hashes[1]):
        raise UserError(
            f"--compare: {names[0]} and {names[1]} were evaluated on different {lang} texts; "
            "evaluate both on the same with evaluate.py --force"
        )
    clusters = _clusters(first, second, names, lang)
    if kinds[0] == "multi":
        known = dict.fromkeys(x for run in (first, second) for x in run.evaluations[lang]["registers"])
        columns = (tables[0]["true"], *(table["predicted"] for table in tables))
        labels, one, other = (label_matrix(column.tolist(), list(known)) for column in columns)
        return PairedLabelSets(labels, one, other, clusters)
    registers = sorted({x for table in tables for column in ("true", "predicted") for x in table[column].unique()})
    place = {register: index for index, register in enumerate(registers)}
    labels, one, other = (
        np.array(column.map(place)) for column in (tables[0]["true"], *(table["predicted"] for table in tables))
    )
    return PairedTexts(labels, one, other, len(registers), clusters)


def _clusters(first: RunResults, second: RunResults, names: tuple[str, str], lang: str) -> np.ndarray | None:
    """Return the clusters of the texts, with which one or both were evaluated; None without."""
    given = [read_clusters(run.folder / "clusters" / f"{lang}.csv") for run in (first, second)]
    known = [clusters for clusters in given if clusters is not None]
    if len(known) == 2 and not np.array_equal(known[0], known[1]):
        raise UserError(
            f"--compare: {names[0]} and {names[1]} were evaluated with different clusters of the {lang} texts; "
            "evaluate both alike with evaluate.py --force"
        )
    return known[0] if known else None


def describe(rows: list[dict[str, Any]], metric: str = "macro_f1") -> str:
    """Return the comparisons for people to read: one metric by randomization, accuracy by McNemar's test."""
    lines = []
    count = len({(row["first"], row["second"], row["eval_lang"]) for row in rows})
    for pair in dict.fromkeys((row["first"], row["second"]) for row in rows):
        lines.append(f"{pair[1]} against {pair[0]} (p after Holm's correction for {count} comparisons)")
        right = next(x["metric"] for x in rows if (x["first"], x["second"]) == pair and x["metric"] in SHARES_RIGHT)
        for name, test in ((metric, "p_randomisation"), (right, "p_mcnemar"), (right, "p_randomisation")):
            # Where texts have clusters, there is no p of McNemar's test, and else no need of another.
            own = [row for row in rows if (row["p_mcnemar"] is None) == (test == "p_randomisation") or name == metric]
            if not any((row["first"], row["second"], row["metric"]) == (*pair, name) for row in own):
                continue
            lines.append(f"  {name}, {'approximate randomization' if test == 'p_randomisation' else 'McNemar'}")
            for row in own:
                if (row["first"], row["second"], row["metric"]) == (*pair, name):
                    p = row[f"{test}_holm"]
                    # What rounds to nothing has no sign.
                    difference = round(row["difference"], 3) + 0.0
                    lines.append(
                        f"    {row['eval_lang']:8} {row['num_texts']:>7,} texts  {row['first_value']:.3f} -> "
                        f"{row['second_value']:.3f}  {difference:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]  "
                        f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}{' *' if p < 0.05 else ''}"
                        f"  (could show {row['detectable']:.3f})"
                    )
    lines.append(
        "could show: the smallest difference that so many texts show with a power of 80 %\n"
        "to cite: approximate randomization for F1, McNemar's test for accuracy, the bootstrap's interval for the "
        "difference;\nthe bootstrap's p may differ: it asks how the difference varies over other texts, randomization "
        "how often exchanging\nthe two models' predictions makes one as large"
    )
    return "\n".join(lines)
