"""Baselines of classifiers, fitted by scikit-learn in seconds: two linear models, of words and of a frozen encoder.

`tfidf` weighs words and pairs of words by TF-IDF; `MODEL-probe` is a linear probe on the mean of the hidden states of
a registered model whose weights stay as they are (Alain & Bengio 2016, arXiv:1610.01644). They train on the same texts
as finetune.py would with the same options, validate on the same, and leave the same files, so that tables and figures
hold them beside the other models. Since they are evaluated at once, no model is kept.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.cli.options import DATA, HYPERPARAMETER, IDENTITY, default_of, options_by_role
from utils.data.exclusions import Exclusions, read_exclusions, training_texts
from utils.data.source import TextSource
from utils.data.splits import mix_languages, split_rows
from utils.data.twins import hash_texts, share_seen, write_hashes
from utils.data.windows import Reading
from utils.errors import RunFailure, UserError
from utils.evaluation.clusters import clusters_of_corpus
from utils.evaluation.labelling import Labelling, LabelSets, OneLabel, fit_thresholds
from utils.evaluation.results import write_evaluation
from utils.evaluation.thresholds import lift_parents
from utils.models.registry import ModelSpec, find_model
from utils.runs.files import now, write_json
from utils.runs.layout import RunLayout, split_langs
from utils.runs.record import RunRecord
from utils.runs.resume import BASELINE, clear_results, may_run, recorded
from utils.training.classifier_options import FinetuneOptions
from utils.training.classifier_setup import describe_data, make_labelling

TFIDF, PROBE = "tfidf", "-probe"
# Inverse strengths of the penalty; the best on the validation texts is kept.
STRENGTHS = {TFIDF: (1.0, 10.0, 100.0), PROBE: (0.001, 0.01, 0.1, 1.0)}
# Numbers that describe texts: of the texts of a language, those of a split in a matrix, shape [texts, features].
Features = Callable[[list[str]], Any]


def is_baseline(model_name: str, known: Collection[str] = ()) -> bool:
    """Return whether a name is that of a baseline and not of a model of the registry."""
    return model_name not in known and (model_name == TFIDF or model_name.endswith(PROBE))


def probed_model(model_name: str) -> str | None:
    """Return the model that a probe reads; None of other baselines."""
    return model_name.removesuffix(PROBE) if model_name.endswith(PROBE) else None


def baseline_spec(model_name: str, registry: str | None = None) -> ModelSpec:
    """Return what stands for a baseline where models are listed: the model that a probe reads, under the probe's name.

    Args:
        model_name: of the baseline.
        registry: the file of models, see `utils.models.registry.find_model`.
    """
    probed = probed_model(model_name)
    return replace(find_model(probed, registry) if probed else ModelSpec(TFIDF, TFIDF), name=model_name)


def baseline_options(options: FinetuneOptions) -> dict[str, Any]:
    """Return the options of finetune.py that the baselines follow: those of texts and thresholds, and the seed."""
    names = ("train_langs", *baseline_names(), "threshold", "threshold_metric", "seed")
    return {name: getattr(options, name) for name in names}


def baseline_names() -> list[str]:
    """Return the names of the options that say what texts there are."""
    return options_by_role(FinetuneOptions, IDENTITY, HYPERPARAMETER, groups=(DATA,))


@dataclass
class Fitted:
    """A linear model on the features of texts, and what it gives; `computed` says how, for results."""

    features: Features
    computed: dict[str, Any]
    model: Any
    labelling: Labelling
    num_weights: int

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """Return the probabilities of all labels, also of those that were not trained on, shape [texts, labels]."""
        found = self.model.predict_proba(self.features(texts))
        if isinstance(self.labelling, LabelSets):
            return lift_parents(found, self.labelling.names, self.labelling.parents)
        probabilities = np.zeros((len(texts), len(self.labelling.names)))
        probabilities[:, self.model.classes_] = found
        return probabilities

    def metrics(self, texts: list[str], labels: np.ndarray) -> dict[str, float]:
        """Return the metrics on texts, and the loss."""
        probabilities = np.clip(self.probabilities(texts), 1e-12, 1 - 1e-12)
        logits = np.log(probabilities)
        if self.labelling.multilabel:
            logits = logits - np.log1p(-probabilities)
        found = self.labelling.score(labels, self.labelling.decide(probabilities))
        return found | {"loss": self.labelling.loss(logits, labels)}


def ignored_options(options: FinetuneOptions) -> list[str]:
    """Return the hyperparameters that differ from their defaults and have no effect on a baseline."""
    followed = {*baseline_options(options), "model_name", *(["precision"] if probed_model(options.model_name) else [])}
    own = {field.name: field for field in fields(FinetuneOptions)}
    names = [name for name in options_by_role(FinetuneOptions, IDENTITY, HYPERPARAMETER) if name not in followed]
    return [name for name in names if getattr(options, name) != default_of(own[name])]


def train_baseline(
    layout: RunLayout,
    options: FinetuneOptions,
    texts: TextSource,
    spec: ModelSpec,
    force: bool = False,
) -> str:
    """Train a baseline and evaluate it; returns a line for the user.

    On all languages of a corpus with test texts; of a task, on those that it is trained on.

    Args:
        layout: where its files go; its model's name says which baseline it is.
        options: of finetune.py, see `baseline_options`.
        texts: what to train on.
        spec: which baseline, see `baseline_spec`.
        force: also if it is there already.

    Raises:
        UserError: if the folder holds a baseline of other options or texts.
        RunFailure: if languages could not be evaluated; the results on the others are kept.
    """
    langs = split_langs(options.train_langs)
    labelling = make_labelling(texts, langs)
    exclusions = read_exclusions(options.exclude)
    data = describe_data(texts, langs, labelling, exclusions)
    chosen = baseline_options(options)
    if spec.name != TFIDF:
        chosen |= {"checkpoint": spec.checkpoint, "revision": spec.revision}
    points = layout.points(BASELINE)
    if not may_run(layout, points, chosen, data, (), force):
        return f"{layout.name} is already complete; --force trains it again"
    record = RunRecord(layout.run_json, chosen, data)
    failures: dict[str, str] = {}
    with recorded(record, layout, points):
        record.write("running", kind=BASELINE)
        parts, hashes = _split(texts, langs, options, exclusions)
        write_hashes(layout.train_hashes, hashes)
        fitted, report = _fit_best(parts, labelling, options, spec)
        write_json(layout.train_json, report)
        clear_results(layout)
        for lang in langs if options.task else texts.languages("test"):
            try:
                _evaluate(layout, fitted, texts, lang, options, hashes)
            except UserError as error:
                # One language's trouble must not cost the results of the others.
                failures[lang] = str(error)
        counts = [dict(zip(labelling.names, labelling.count(labels).tolist(), strict=True)) for _, labels in parts]
        record.write("complete", ended=now(), train_registers=counts[0], validation_registers=counts[1])
    if failures:
        raise RunFailure("\n".join(f"{layout.name}: {lang} failed: {reason}" for lang, reason in failures.items()))
    score = report["epochs"][0]["validation"]["macro_f1"]
    return (f"{report['warning']}\n" if "warning" in report else "") + (
        f"{layout.name}: validation macro F1 {score:.3f} with C = {report['strength']:g}; {report['seconds']:.0f} s\n"
        f"metrics  {layout.outputs / 'eval'}"
    )


def _fit_best(
    parts: list[tuple[list[str], np.ndarray]], labelling: Labelling, options: FinetuneOptions, spec: ModelSpec
) -> tuple[Fitted, dict[str, Any]]:
    """Fit models of several strengths; returns the best on the validation texts and the content of train.json."""
    (train, train_labels), (validation, validation_labels) = parts
    started = time.monotonic()
    kind = TFIDF if spec.name == TFIDF else PROBE
    features, computed = _tfidf(train) if kind == TFIDF else _embedding(spec, options)
    candidates = []
    for strength in STRENGTHS[kind]:
        fitted = _fit(features, computed, train, train_labels, labelling, strength, options.seed)
        candidates.append((fitted, fitted.metrics(validation, validation_labels), strength))
    # The first of the best.
    fitted, metrics, strength = max(candidates, key=lambda candidate: candidate[1]["macro_f1"])
    seconds = time.monotonic() - started
    if not isinstance(labelling, OneLabel):
        choice, metric = options.threshold or "global", options.threshold_metric or "micro_f1"
        found = fitted.probabilities(validation)
        fitted.labelling = fit_thresholds(labelling, validation_labels, found, choice, metric)
    warning = labelling.warning(validation_labels, metrics, "validation")
    epoch = {"epoch": 1, "loss": None, "learning_rate": None, "seconds": round(seconds, 3), "validation": metrics}
    return fitted, {
        "epochs": [epoch],
        "best_epoch": 1,
        **({"warning": warning} if warning else {}),
        "num_train_texts": len(train),
        "num_parameters": fitted.num_weights,
        "num_trainable_parameters": fitted.num_weights,
        "seconds": round(seconds, 3),
        "texts_per_second": len(train) * len(candidates) / seconds,
        "peak_memory_bytes": None,
        "strength": strength,
        "train": fitted.metrics(train, train_labels),
    }


def _evaluate(
    layout: RunLayout, fitted: Fitted, texts: TextSource, lang: str, options: FinetuneOptions, seen: np.ndarray
) -> None:
    loaded = texts.load("test", lang, " ")
    started = time.monotonic()
    probabilities = fitted.probabilities(loaded["text"][:])
    write_evaluation(
        layout,
        lang,
        np.asarray(loaded["label"][:]),
        probabilities,
        labelling=fitted.labelling,
        seconds=time.monotonic() - started,
        seed=options.seed,
        task=options.task,
        data=texts.provenance("test", [lang])[0],
        computed=fitted.computed | {"leakage": share_seen(loaded, seen)},
        clusters=clusters_of_corpus(texts, lang),
    )


def _split(texts: TextSource, langs: list[str], options: FinetuneOptions, exclusions: Exclusions | None) -> Any:
    """Return training and validation texts with their labels: those of finetune.py; and the hashes of them all."""
    loaded = {lang: training_texts(texts, lang, " ", exclusions) for lang in langs}
    own = {lang: np.array(x["label"][:]) for lang, x in loaded.items()}
    rows = mix_languages(own, options.mix, options.mix_exponent, options.seed)
    chosen = [(x["text"], x["label"], lang) for lang in langs for x in loaded[lang].select(rows[lang])]
    words = [text for text, _, _ in chosen]
    labels, groups = np.array([label for _, label, _ in chosen]), np.array([lang for _, _, lang in chosen])
    hashes = hash_texts(words)
    parts = split_rows(labels, groups, options.validation_size, options.max_train_texts, options.seed, hashes)
    return [([words[row] for row in part], labels[part]) for part in parts], hashes[np.concatenate(parts)]


def _fit(
    features: Features,
    computed: dict[str, Any],
    texts: list[str],
    labels: np.ndarray,
    labelling: Labelling,
    strength: float,
    seed: int,
) -> Fitted:
    import warnings

    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    model: Any = LogisticRegression(C=strength, max_iter=1000, random_state=seed)
    with warnings.catch_warnings():
        # That no text has a label, or that all have it.
        warnings.simplefilter("ignore")
        if labelling.multilabel:
            model = OneVsRestClassifier(model).fit(features(texts), labels)
            weights = sum(x.coef_.size + x.intercept_.size for x in model.estimators_ if hasattr(x, "coef_"))
        else:
            model = model.fit(features(texts), labels)
            weights = model.coef_.size + model.intercept_.size
    return Fitted(features, computed, model, labelling, int(weights))


def _tfidf(train: list[str]) -> tuple[Features, dict[str, Any]]:
    """Return what weighs the words of texts, as frequent as in these; and how, for results."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit(train)
    return _remembered(vectorizer.transform), {"number_format": "fp64", "device": "cpu"}


def _embedding(spec: ModelSpec, options: FinetuneOptions) -> tuple[Features, dict[str, Any]]:
    """Return what makes a frozen encoder's mean hidden states of texts, each number scaled by those of the first.

    And how it computes them, for results.
    """
    from sklearn.preprocessing import StandardScaler

    from utils.evaluation.embeddings import Embedder
    from utils.models.device import describe_device

    reading = Reading(options.long_texts, options.window_stride, options.window_pooling)
    length = options.max_length or spec.max_length
    embedder = Embedder(spec, length, options.precision, Path(options.cache_dir), reading)
    scaler = StandardScaler()

    def scaled(texts: list[str]) -> np.ndarray:
        found = embedder.embed(texts, options.eval_token_budget)
        if not hasattr(scaler, "scale_"):
            # The training texts come first.
            scaler.fit(found)
        return scaler.transform(found)

    return _remembered(scaled), {"number_format": embedder.precision, "device": describe_device(embedder.device)}


def _remembered(make: Features) -> Features:
    """Return a function that makes the features of the same texts once."""
    found: dict[int, Any] = {}

    def features(texts: list[str]) -> Any:
        key = hash(tuple(texts))
        if key not in found:
            found[key] = make(texts)
        return found[key]

    return features
