"""A trained classifier and its test texts: where they are, and that they are what they seem."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from utils.data.source import TextSource
from utils.errors import UserError, nearest
from utils.models.options import ClassifierOptions
from utils.models.registry import typed_name
from utils.runs.layout import RunLayout
from utils.runs.resume import BASELINE
from utils.runs.shapes import read_record

if TYPE_CHECKING:
    import datasets

    from utils.evaluation.inference import Classifier

Options = TypeVar("Options", bound=ClassifierOptions)


def find_trained(options: Options) -> tuple[Options, RunLayout]:
    """Find the trained model; its task, database, datasets and type are those of its training unless others are given.

    Raises:
        UserError: if it is not there, not trained to its end, or was trained on texts of the other type.
    """

    def layout_of(name: str) -> RunLayout:
        return RunLayout(name, options.train_langs, options.subfolder, options.output_dir, options.models_dir)

    typed = f"{options.model_name}-{options.model_type}"
    known = {typed} if options.model_type and layout_of(typed).model.is_dir() else set()
    layout = layout_of(typed_name(options.model_name, options.model_type, known))
    check_trained(layout)
    trained = (read_record(layout.run_json) or {}).get("options", {})
    model_type = trained.get("model_type") or "normal"
    if options.model_type not in (None, model_type):
        raise UserError(f"{layout.name} was trained with --model_type {model_type}, not {options.model_type}")
    task = options.task or trained.get("task")
    found: dict[str, Any] = {"model_name": layout.model_name, "model_type": model_type, "task": task}
    if task is not None:
        found |= {name: getattr(options, name) or trained.get(name) for name in ("language_database", "dataset")}
    return replace(options, **found), layout


def check_trained(layout: RunLayout) -> None:
    """Refuse a model whose training has not come to its end."""
    record = read_record(layout.run_json)
    if (record or {}).get("kind") == BASELINE:
        raise UserError(f"{layout.name} is a baseline: finetune.py has evaluated it, and no model is kept")
    if not (layout.model / "config.json").is_file():
        trained = [path.parent.name for path in layout.model.parent.glob("*/config.json")]
        raise UserError(f"no trained model in {layout.model}; train it with finetune.py{nearest(layout.name, trained)}")
    if record is not None and record["status"] != "complete":
        raise UserError(f"{layout.name} is not trained to its end: {layout.run_json} says {record['status']!r}")


def expand_langs(langs: list[str], texts: TextSource) -> list[str]:
    """Return languages of test texts, each once; all stands for those that there are.

    Raises:
        UserError: if there are none.
    """
    if "all" in langs:
        langs = [*texts.languages("test"), *(lang for lang in langs if lang != "all")]
        if not langs:
            raise UserError(f"no test files in {texts.name}")
    return list(dict.fromkeys(langs))


def known_labels(texts: TextSource, lang: str, classifier: "Classifier", name: str) -> list[str]:
    """Return the labels of a language's texts, all of which the model knows.

    Args:
        texts: to test with.
        lang: their language.
        classifier: the model.
        name: of its run.

    Raises:
        UserError: if it does not know some.
    """
    labels = texts.label_names([lang])
    unknown = [label for label in labels if label not in classifier.labels]
    if unknown:
        raise UserError(
            f"{texts.name} has registers that {name} was not trained on: {', '.join(unknown)}; "
            f"the model knows {', '.join(classifier.labels)}"
        )
    return labels


def load_test_texts(
    texts: TextSource, lang: str, classifier: "Classifier", name: str
) -> "tuple[datasets.Dataset, np.ndarray]":
    """Load the test texts of a language, and their labels as the model counts them.

    Args:
        texts: to test with, with labels as the model gives them.
        lang: the language.
        classifier: the model.
        name: of its run.

    Returns:
        the texts; numbers of labels, shape [texts], or 0 and 1, shape [texts, labels].
    """
    from utils.data.tokenization import separator

    labels = known_labels(texts, lang, classifier, name)
    loaded = texts.load("test", lang, separator(classifier.tokenizer))
    places = np.array([classifier.labels.index(label) for label in labels])
    given = np.asarray(loaded["label"][:])
    if not classifier.labelling.multilabel:
        return loaded, places[given]
    counted = np.zeros((len(given), len(classifier.labels)), dtype=np.int8)
    counted[:, places] = given
    return loaded, counted
