"""A classical baseline for classifiers: TF-IDF of words and pairs of words, and a logistic regression, by scikit-learn.

It trains on the same texts as finetune.py would with the same options, validates on the same, and leaves the same
files, so that tables and figures hold it beside the other models. Its name is `tfidf`.
"""

import time
from typing import Any

import numpy as np

from utils.cli.options import DATA, HYPERPARAMETER, IDENTITY, options_by_role
from utils.data.source import TextSource
from utils.data.splits import mix_languages, split_rows
from utils.evaluation.labelling import OneLabel
from utils.evaluation.results import write_evaluation
from utils.runs.files import now, write_json
from utils.runs.layout import RunLayout, split_langs
from utils.runs.record import RunRecord
from utils.runs.shapes import read_record
from utils.training.classifier_options import FinetuneOptions

BASELINE = "tfidf"
# Inverse strengths of the penalty; the best on the validation texts is kept.
STRENGTHS = (1.0, 10.0, 100.0)


def is_trained(layout: RunLayout, options: dict[str, Any], data: dict[str, Any]) -> bool:
    """Return whether the baseline is there already, of these options and data."""
    record = read_record(layout.run_json) or {}
    return (record.get("status"), record.get("options"), record.get("data")) == ("complete", options, data)


def baseline_options(options: FinetuneOptions) -> dict[str, Any]:
    """Return the options of finetune.py that the baseline follows: those of the texts, and the seed."""
    return {name: getattr(options, name) for name in ("train_langs", *baseline_names(), "seed")}


def baseline_names() -> list[str]:
    """Return the names of the options that say what texts there are."""
    return options_by_role(FinetuneOptions, IDENTITY, HYPERPARAMETER, groups=(DATA,))


def train_baseline(layout: RunLayout, options: FinetuneOptions, texts: TextSource, force: bool = False) -> str:
    """Train the baseline and evaluate it on the languages that it is trained on; returns a line for the user.

    Args:
        layout: where its files go.
        options: of finetune.py, see `baseline_options`.
        texts: what to train on.
        force: also if it is there already.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    langs = split_langs(options.train_langs)
    labelling = OneLabel(texts.label_names(langs))
    registers = labelling.names
    data = {"corpus": texts.name, "files": texts.provenance("train", langs), "registers": registers}
    chosen = baseline_options(options)
    if not force and is_trained(layout, chosen, data):
        return f"{layout.name} is already complete; --force trains it again"
    record = RunRecord(layout.run_json, chosen, data)
    record.write("running")
    (train, train_labels), (validation, validation_labels) = _split(texts, langs, options)
    started = time.monotonic()
    candidates = []
    for strength in STRENGTHS:
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
            LogisticRegression(C=strength, max_iter=1000, random_state=options.seed),
        )
        model.fit(train, train_labels)
        metrics = _metrics(model, validation, validation_labels, labelling)
        candidates.append((model, metrics, strength))
    # The first of the best.
    model, metrics, strength = max(candidates, key=lambda candidate: candidate[1]["macro_f1"])
    seconds = time.monotonic() - started
    warning = labelling.warning(validation_labels, metrics, "validation")
    weights = model[-1].coef_.size + model[-1].intercept_.size
    epoch = {"epoch": 1, "loss": None, "learning_rate": None, "seconds": round(seconds, 3), "validation": metrics}
    report = {
        "epochs": [epoch],
        "best_epoch": 1,
        **({"warning": warning} if warning else {}),
        "num_train_texts": len(train),
        "num_parameters": weights,
        "num_trainable_parameters": weights,
        "seconds": round(seconds, 3),
        "texts_per_second": len(train) * len(STRENGTHS) / seconds,
        "peak_memory_bytes": None,
        "strength": strength,
        "train": _metrics(model, train, train_labels, labelling),
    }
    write_json(layout.train_json, report)
    for lang in langs:
        loaded = texts.load("test", lang, " ")
        started = time.monotonic()
        probabilities = _probabilities(model, loaded["text"][:], len(registers))
        write_evaluation(
            layout,
            lang,
            np.asarray(loaded["label"][:]),
            probabilities,
            labelling=labelling,
            seconds=time.monotonic() - started,
            seed=options.seed,
            task=options.task,
            data=texts.provenance("test", [lang])[0],
            computed={"number_format": "fp64", "device": "cpu"},
        )
    record.write("complete", ended=now())
    said = f"{warning}\n" if warning else ""
    return f"{said}{layout.name}: validation macro F1 {metrics['macro_f1']:.3f} with C = {strength:g}; {seconds:.0f} s"


def _split(texts: TextSource, langs: list[str], options: FinetuneOptions) -> Any:
    """Return training and validation texts with their labels: those of finetune.py."""
    loaded = {lang: texts.load("train", lang, " ") for lang in langs}
    own = {lang: np.array(x["label"][:]) for lang, x in loaded.items()}
    rows = mix_languages(own, options.mix, options.mix_exponent, options.seed)
    chosen = [(x["text"], x["label"], lang) for lang in langs for x in loaded[lang].select(rows[lang])]
    words = [text for text, _, _ in chosen]
    labels, groups = np.array([label for _, label, _ in chosen]), np.array([lang for _, _, lang in chosen])
    parts = split_rows(labels, groups, options.validation_size, options.max_train_texts, options.seed)
    return [([words[row] for row in part], labels[part]) for part in parts]


def _probabilities(model: Any, texts: list[str], num_labels: int) -> np.ndarray:
    """Return the probabilities of all labels, also of those that were not trained on."""
    probabilities = np.zeros((len(texts), num_labels))
    probabilities[:, model[-1].classes_] = model.predict_proba(texts)
    return probabilities


def _metrics(model: Any, texts: list[str], labels: np.ndarray, labelling: OneLabel) -> dict[str, float]:
    probabilities = _probabilities(model, texts, len(labelling.names))
    metrics = labelling.score(labels, labelling.decide(probabilities))
    return metrics | {"loss": labelling.loss(np.log(np.maximum(probabilities, 1e-12)), labels)}
