"""Which texts are trained on and which validate: mixes of languages, stratified splits.

Everything here chooses row numbers and is a pure function of the data and the seed, so that every process
of a run finds the same split and a text never parts from its label.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.data.tokenization import tokenize
from utils.data.twins import hash_column
from utils.errors import UserError

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase


@dataclass
class TrainingData:
    """Tokenized training and validation texts with the columns input_ids, length, label and lang.

    `hashes` are those of all of them, see `utils.data.twins`.
    """

    train: "datasets.Dataset"
    validation: "datasets.Dataset"
    hashes: np.ndarray


def prepare_training_data(
    languages: "dict[str, datasets.Dataset]",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    cache_dir: Path,
    mix: str,
    mix_exponent: float,
    validation_size: float,
    max_train_texts: int | None,
    seed: int,
    whole: bool = False,
) -> TrainingData:
    """Tokenize whole languages (so that every mix shares the cache), mix them, split off the validation part.

    Args:
        languages: one dataset per language with the columns text, label and lang.
        tokenizer: the model's tokenizer.
        max_length: in tokens.
        cache_dir: folder of tokenized texts.
        mix: see `mix_languages`.
        mix_exponent: see `mix_languages`.
        validation_size: see `split_validation`.
        max_train_texts: see `split_rows`.
        seed: of every choice.
        whole: keep all tokens of longer texts, see `tokenize`.
    """
    import datasets

    labels_of = {lang: np.array(dataset["label"][:]) for lang, dataset in languages.items()}
    rows = mix_languages(labels_of, mix, mix_exponent, seed)
    parts = [tokenize(languages[x], tokenizer, max_length, cache_dir, whole).select(rows[x]) for x in languages]
    mixed = datasets.concatenate_datasets(parts)
    labels, langs = np.array(mixed["label"][:]), np.array(mixed["lang"][:])
    hashes = np.concatenate([hash_column(languages[x].select_columns("text").select(rows[x])) for x in languages])
    train_rows, validation_rows = split_rows(labels, langs, validation_size, max_train_texts, seed, hashes)
    seen = hashes[np.concatenate([train_rows, validation_rows])]
    return TrainingData(mixed.select(train_rows), mixed.select(validation_rows), seen)


def mix_languages(labels: dict[str, np.ndarray], mix: str, exponent: float, seed: int) -> dict[str, np.ndarray]:
    """Choose which rows of each language are trained on, without repeating any, their labels in proportion.

    Args:
        labels: label of every row, per language; or its labels as 0 and 1, shape [n, number of labels].
        mix: "equal" (as many of each as the smallest has), "all", or "temperature": shares proportional to
            ``size ** exponent`` (the sampling of Conneau et al. 2020, XLM-R, section 3.1), as many as
            possible, so that exponent 1 is "all" and 0 is "equal".
        exponent: between 0 and 1.
        seed: seed of the choice; the rows of a language do not depend on the other languages' rows.

    Returns:
        Sorted row numbers per language.
    """
    if mix == "all":
        exponent = 1.0
    elif mix == "equal":
        exponent = 0.0
    sizes = {lang: len(own) for lang, own in labels.items()}
    shares = {lang: size**exponent for lang, size in sizes.items()}
    scale = min(sizes[lang] / shares[lang] for lang in sizes)
    chosen = {}
    for lang, size in sizes.items():
        count = max(1, min(size, int(scale * shares[lang] + 1e-9)))
        chosen[lang] = subsample(labels[lang], count, seed, "mix", lang)
    return chosen


def split_rows(
    labels: np.ndarray,
    langs: np.ndarray,
    validation_size: float,
    max_train_texts: int | None,
    seed: int,
    hashes: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the training rows and the validation rows of mixed languages, sorted.

    Args:
        labels: label of every row, shape [n]; or its labels as 0 and 1, shape [n, number of labels].
        langs: language of every row, shape [n].
        validation_size: see `split_validation`.
        max_train_texts: at most so many training texts are kept, their registers in proportion; the
            validation part is not touched. None keeps all.
        seed: of every choice.
        hashes: see `split_validation`.
    """
    train_rows, validation_rows = split_validation(labels, langs, validation_size, seed, hashes)
    if max_train_texts is not None:
        train_rows = train_rows[subsample(labels[train_rows], max_train_texts, seed)]
    return train_rows, validation_rows


def split_validation(
    labels: np.ndarray, groups: np.ndarray, share: float, seed: int, hashes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers into training and validation rows, stratified by label and group.

    A pure function of its arguments, so every process finds the same split. Each stratum gives its share,
    rounded so that the total is exact; a stratum of one text stays in training. Where texts have several labels, each
    label gives its share of each group (iterative stratification: Sechidis et al. 2011).

    Args:
        labels: label of every row, shape [n]; or its labels as 0 and 1, shape [n, number of labels].
        groups: a second stratum (the language) of every row, shape [n].
        share: part of the rows for validation, above 0 and below 1; or their number, from 1 on.
        seed: seed of the choice.
        hashes: of the texts, shape [n]; the same text is never on both sides, so that its share of rows may differ
            where some are several times there: its first row decides. None takes all texts for different.

    Returns:
        Sorted training rows and sorted validation rows.

    Raises:
        UserError: if no row is left for validation, or for training.
    """
    if share >= 1:
        if share != int(share):
            raise UserError(f"--validation_size {share:g}: expected a part below 1 or a whole number of texts")
        if share >= len(labels):
            raise UserError(f"--validation_size {share:g}: there are {len(labels):,} texts in all")
        share /= len(labels)
    chosen = _validation_of_label_sets if labels.ndim == 2 else _validation_of_strata
    different = np.arange(len(labels)) if hashes is None else np.sort(np.unique(hashes, return_index=True)[1])
    validation = different[np.sort(np.concatenate(chosen(labels[different], groups[different], share, seed)))]
    if hashes is not None:
        validation = np.flatnonzero(np.isin(hashes, hashes[validation]))
    if not len(validation) or len(validation) == len(labels):
        raise UserError(f"{len(labels)} texts are too few for a validation part of {share:g}")
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def _validation_of_strata(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> list[np.ndarray]:
    strata: dict[tuple[str, int], np.ndarray] = {
        (str(group), int(label)): np.flatnonzero((labels == label) & (groups == group))
        for group in np.unique(groups)
        for label in np.unique(labels)
    }
    strata = {key: rows for key, rows in strata.items() if len(rows)}
    counts = _quotas({key: len(rows) for key, rows in strata.items()}, share)
    return [_generator(seed, "validation", *key).permutation(rows)[: counts[key]] for key, rows in strata.items()]


def _validation_of_label_sets(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> list[np.ndarray]:
    strata = {str(group): np.flatnonzero(groups == group) for group in np.unique(groups)}
    counts = _quotas({key: len(rows) for key, rows in strata.items()}, share)
    return [
        rows[_choose_label_sets(labels[rows], counts[key], seed, "validation", key)] for key, rows in strata.items()
    ]


def _quotas(sizes: dict[Any, int], share: float) -> dict[Any, int]:
    """Return how many rows each stratum gives: its share, the total exact as far as one row of each is left."""
    exact = {key: size * share for key, size in sizes.items()}
    counts = {key: int(quota) for key, quota in exact.items()}
    # Largest remainders first, as in seat allocation; ties go by the name of the stratum.
    for key in sorted(exact, key=lambda key: (counts[key] - exact[key], key)):
        if sum(counts.values()) >= round(sum(sizes.values()) * share):
            break
        if counts[key] + 1 < sizes[key]:
            counts[key] += 1
    return counts


def _choose_label_sets(labels: np.ndarray, count: int, seed: int, *names: str) -> np.ndarray:
    """Choose rows of which each label has its share; sorted row numbers."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    if not count:
        return np.arange(0)
    generator = _generator(seed, *names)
    splitter = MultilabelStratifiedShuffleSplit(1, test_size=count, random_state=int(generator.integers(2**32)))
    rest, chosen = next(splitter.split(np.zeros(len(labels)), labels))
    # It comes near the number; texts too many or too few are drawn.
    missing = count - len(chosen)
    if missing > 0:
        chosen = np.append(chosen, generator.choice(rest, missing, replace=False))
    elif missing < 0:
        chosen = generator.choice(chosen, count, replace=False)
    return np.sort(chosen)


def subsample(labels: np.ndarray, count: int, seed: int, *names: str) -> np.ndarray:
    """Choose `count` rows, stratified by label as far as possible; sorted row numbers.

    Args:
        labels: label of every row, shape [n]; or its labels as 0 and 1, shape [n, number of labels].
        count: how many.
        seed: of the choice.
        names: what it is for, so that other choices are others.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    if labels.ndim == 2:
        return _choose_label_sets(labels, count, seed, *(names or ("subsample",)))
    order = _generator(seed, *(names or ("subsample",))).permutation(len(labels))
    # Position of every row within its own label, in [0, 1): the lowest positions keep the proportions.
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.sort(order[np.argsort(position[order], kind="stable")[:count]])


def _generator(seed: int, *names: object) -> np.random.Generator:
    """A generator for one purpose: seeded by the seed and the names' bytes, never by hash()."""
    return np.random.default_rng([seed, *"/".join(map(str, names)).encode()])
