"""What finetune.py, evaluate.py and the scripts that plan jobs share: a classifier's options, and its texts.

The texts come from a register corpus, or with ``--task`` from the datasets of the language database.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

from utils.adapters import AdapterOptions
from utils.corpus_load import DEFAULT_CORPUS, Corpus, open_corpus
from utils.errors import UserError
from utils.language_database import ModelType, TaskData, open_task
from utils.options import CommonOptions, option
from utils.study import PARAMS_HELP, STUDY_HELP, STUDY_OBJECTS, OptimizationOptions, study_defaults
from utils.training_options import TrainingOptions


@dataclass(kw_only=True)
class ClassifierOptions(CommonOptions):
    """Which classifier it is, and what texts it is for."""

    model_name: str = option(help="abbreviation of the model in the registry (model2chckpt.json)")
    train_langs: str = option(help="language to train on, or several joined by '-': en-fr", metavar="LANGS")
    subfolder: str | None = option(None, "folder below outputs/ and models/, for experiments that differ otherwise")
    corpus_path: str = option(DEFAULT_CORPUS, "folder of the register corpus", env="CORPUS_PATH", metavar="DIR")
    task: str | None = option(None, "a task of the language database, instead of the register corpus")
    language_database: str | None = option(
        None, "the language database; without it config/language-database.json", metavar="FILE"
    )
    dataset: list[str] | None = option(None, "datasets of the task, for languages that have several", metavar="NAME")
    model_type: ModelType | None = option(
        None,
        "ipa: read the columns FEATURE-phoneme with the model MODEL_NAME-ipa of the registry; "
        "normal (the default): the texts themselves, with MODEL_NAME-normal or MODEL_NAME",
    )


@dataclass(kw_only=True)
class FinetuneOptions(TrainingOptions, AdapterOptions, OptimizationOptions, ClassifierOptions):
    """The options of finetune.py."""

    balanced: bool = option(False, "weight the loss so that every register counts equally")
    label_smoothing: float = option(0.0, "label smoothing of the loss", minimum=0, below=1)
    mix: Literal["equal", "all", "temperature"] = option(
        "equal", "texts per language: as many of each as the smallest has, all, or in between (--mix_exponent)"
    )
    mix_exponent: float = option(
        0.3, "--mix temperature: share of a language proportional to its size to this power", minimum=0, maximum=1
    )
    validation_size: float = option(
        0.2, "texts kept for validation, stratified: a part of all below 1, else their number", above=0
    )
    evaluate_train: bool = option(False, "also compute the best model's metrics on the training texts")
    max_train_texts: int | None = option(None, "train on at most so many texts", minimum=1)
    freeze_encoder: bool = option(False, "train the classification head alone")
    study_kwargs: dict = option(study_defaults("maximize"), STUDY_HELP, imports=STUDY_OBJECTS)
    params: dict = option({"learning_rate": {"values": [1e-5, 1e-4], "suggest_kwargs": {"log": True}}}, PARAMS_HELP)


def typed_name(model_name: str, model_type: str | None, known: Container[str]) -> str:
    """Return the name of the model for one kind of texts: ``rus-pol`` is ``rus-pol-ipa`` for IPA.

    Args:
        model_name: as the user gave it.
        model_type: "ipa", "normal" or None.
        known: names of models; normal texts are read by the model of the plain name if the other is not known.
    """
    typed = f"{model_name}-{model_type}"
    if model_type is None or model_name.endswith(f"-{model_type}"):
        return model_name
    return typed if model_type == "ipa" or typed in known else model_name


def open_texts(options: ClassifierOptions, langs: list[str] | None) -> Corpus | TaskData:
    """Open the register corpus or the task's datasets.

    Args:
        options: of the script.
        langs: languages that a task must have; None is all that have it.

    Raises:
        UserError: if they are not there, or options contradict each other.
    """
    if options.task is None:
        for name in ("language_database", "dataset"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} is for --task, which is not given; the register corpus needs neither")
        if options.model_type == "ipa":
            raise UserError("--model_type ipa is for --task, which is not given; the register corpus has no phonemes")
        return open_corpus(options.corpus_path)
    return open_task(
        options.task,
        langs,
        names=options.dataset,
        model_type=options.model_type or "normal",
        path=options.language_database,
    )
