"""A trained model judges the labels of its corpus: it is trained anew without each fold in turn, as jobs or here.

A fold is a register corpus of its own, outputs/[SUBFOLDER/]folds/FOLDS-SEED/corpus-N: its training texts are those of
the other folds, its test texts are the fold's, so that finetune.py and evaluate.py do the rest.
"""

import json
import shutil
import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.cli.options import HYPERPARAMETER, IDENTITY, default_of, options_by_role
from utils.cli.progress import progress
from utils.data.corpus_load import Corpus, LabelsOption
from utils.data.delimited import write_rows
from utils.data.source import TextSource
from utils.data.twins import hash_texts
from utils.errors import RunFailure, UserError, nearest
from utils.evaluation.results import load_predictions
from utils.jobs.batch import TEMPLATES, SubmitOptions
from utils.jobs.experiments import Experiment, ExperimentBatch, check_config
from utils.quality.options import CheckOptions
from utils.quality.rows import TEST, TRAIN
from utils.runs.files import atomic_path, sha256_of_file, write_json
from utils.runs.layout import split_langs
from utils.runs.resume import BASELINE
from utils.runs.shapes import read_evaluation, read_record
from utils.training.classifier_options import FinetuneOptions


class FoldRuns:
    """The runs of a model without each fold in turn, and what they say of the labels.

    Args:
        options: of check_corpus.py.
        corpus: the texts.

    Attributes:
        name: of the model's run.
        langs: that it was trained on.
        labels: how it takes labels, see finetune.py.

    Raises:
        UserError: if there is no such run, or none that can be made again.
    """

    def __init__(self, options: CheckOptions, corpus: TextSource):
        if not isinstance(corpus, Corpus):
            raise UserError("--with_model is for register corpora, not for --task")
        self.options, self.name = options, str(options.with_model)
        parent = Path(options.output_dir) / (options.subfolder or "")
        record = read_record(parent / self.name / "run.json")
        if record is None or record["status"] != "complete" or record.get("kind") == BASELINE:
            known = [path.parent.name for path in parent.glob("*/run.json")]
            what = "is a baseline, without a model" if record and record.get("kind") == BASELINE else "no trained model"
            raise UserError(f"--with_model {self.name}: {what} in {parent}{nearest(self.name, known)}")
        self.settings: dict[str, Any] = record["options"]
        if self.settings.get("exclude"):
            raise UserError(f"--with_model {self.name}: it was trained with --exclude; name one that knows all rows")
        self.langs = split_langs(self.settings["train_langs"])
        # As its training files decided, even if a fold has no text with several.
        given: LabelsOption = self.settings.get("labels", "auto")
        kind: LabelsOption = "multi" if record["data"].get("labels") == "multi" else "single"
        self.labels = kind if given == "auto" else given
        self.corpus = replace(corpus, multilabel=True, lifted=False)
        corpus.require(TRAIN, self.langs)
        self.folder = parent / "folds" / f"{options.folds}-{options.seed}"
        self.jobs = [self._job(number) for number in range(options.folds)]

    def _job(self, number: int) -> Experiment:
        """Return the run without a fold: the model's options, on the fold's corpus."""
        own = {field.name: field for field in fields(FinetuneOptions)}
        names = options_by_role(FinetuneOptions, IDENTITY, HYPERPARAMETER)
        given = {
            name: self.settings[name]
            for name in names
            if self.settings.get(name) is not None and self.settings[name] != default_of(own[name])
        }
        options = self.options
        places = {
            "corpus_path": str(self._corpus(number)),
            "subfolder": "/".join(filter(None, (options.subfolder, "folds", self.folder.name, str(number)))),
            "output_dir": options.output_dir,
            "models_dir": options.models_dir,
            "cache_dir": options.cache_dir,
            "model_registry": str(Path(options.model_registry).resolve()) if options.model_registry else None,
        }
        config = given | {"labels": self.labels} | {name: value for name, value in places.items() if value is not None}
        check_config(config, self.name)
        return Experiment(f"{self.name}-fold-{number}", config, self.langs)

    def _corpus(self, number: int) -> Path:
        return (self.folder / f"corpus-{number}").resolve()

    def batch(self) -> ExperimentBatch:
        """Return the jobs of the folds."""
        options = self.options
        submit = SubmitOptions(
            template=str(TEMPLATES / "finetune-template.sh"),
            output_dir=str(self.folder / "jobs"),
            gpus=options.gpus,
            timeout=options.timeout,
            status=options.status,
            no_submit=not options.submit,
            yes=True,
        )
        return ExperimentBatch(self.name, self.jobs, submit)

    def submit(self) -> int:
        """Write the folds, and submit what is not complete; with --status, say how it is; returns the exit status."""
        if not self.options.status:
            self.write_folds()
        return self.batch().run("labels    the same command without --submit, when they are complete")

    def run(self) -> None:
        """Write the folds, and train and evaluate without each of them what is not complete.

        Raises:
            RunFailure: if one fails, naming its log.
        """
        self.write_folds()
        batch = self.batch()
        left = [job for job in self.jobs if not batch.is_complete(job)]
        batch.write_jobs(left)
        for job in progress(left, desc="training without each fold", unit="fold"):
            # Its output goes to its log.
            status = subprocess.run(["bash", str(batch.folder / f"{job.name}.sh")], check=False).returncode
            if status or not batch.is_complete(job):
                raise RunFailure(f"{job.name} failed: see {job.layout.outputs / 'train.txt'}")

    def fold_of(self, lang: str) -> tuple[np.ndarray, list[tuple[list[str], str]], int]:
        """Return the fold of every text of a language, training texts first; the rows; and how many are training."""
        import warnings

        from sklearn.model_selection import StratifiedGroupKFold

        rows = list(self.corpus.rows(TRAIN, lang))
        count = len(rows)
        if lang in self.corpus.languages(TEST):
            rows += self.corpus.rows(TEST, lang)
        _, kinds, counts = np.unique([" ".join(labels) for labels, _ in rows], return_inverse=True, return_counts=True)
        if counts.max() < self.options.folds:
            raise UserError(f"--folds {self.options.folds}: too few texts of {lang} ({len(rows)}); give fewer folds")
        splitter = StratifiedGroupKFold(self.options.folds, shuffle=True, random_state=self.options.seed)
        found = np.zeros(len(rows), dtype=np.int64)
        with warnings.catch_warnings():
            # That some labels have fewer texts than there are folds.
            warnings.simplefilter("ignore")
            hashes = hash_texts(text for _, text in rows)
            for fold, (_, held) in enumerate(splitter.split(kinds, kinds, hashes)):
                found[held] = fold
        return found, rows, count

    def write_folds(self) -> None:
        """Write the corpora of the folds, unless they are there and made of the same texts."""
        files = [file["sha256"] for lang in self.langs for file in self._files(lang)]
        made = {"files": files, "folds": self.options.folds, "seed": self.options.seed, "model": self.name}
        mark = self.folder / f"{self.name}.json"
        if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == made:
            return
        for lang in self.langs:
            folds, rows, count = self.fold_of(lang)
            for number in range(self.options.folds):
                held = folds == number
                self._write(number, TRAIN, lang, [row for row, out in zip(rows[:count], held, strict=False) if not out])
                self._write(number, TEST, lang, [row for row, out in zip(rows, held, strict=True) if out])
        for number in range(self.options.folds):
            shutil.copytree(self.corpus.root / "info", self._corpus(number) / "info", dirs_exist_ok=True)
        write_json(mark, made)

    def _files(self, lang: str) -> list[dict[str, Any]]:
        splits = [split for split in (TRAIN, TEST) if lang in self.corpus.languages(split)]
        return [file for split in splits for file in self.corpus.provenance(split, [lang])]

    def _write(self, number: int, split: str, lang: str, rows: list[tuple[list[str], str]]) -> None:
        path = self._corpus(number) / "corpus" / split / f"{lang}.tsv"
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            write_rows(file, ([" ".join(labels), text] for labels, text in rows), "\t")

    def probabilities(self, lang: str, names: list[str]) -> np.ndarray | None:
        """Return what the runs without a text say of it, of all texts of a language, training texts first.

        Args:
            lang: the language.
            names: of the labels, in their order.

        Returns:
            probabilities, shape [texts, labels]; None of a language that the model was not trained on.

        Raises:
            UserError: if the runs are of other texts.
        """
        if lang not in self.langs:
            return None
        folds, rows, _ = self.fold_of(lang)
        found = np.zeros((len(rows), len(names)))
        for number, job in enumerate(self.jobs):
            table = load_predictions(job.layout.outputs, lang)
            held = np.flatnonzero(folds == number)
            data = (read_evaluation(job.layout.eval_json(lang)) or {}).get("data", {})
            same = data.get("sha256") == sha256_of_file(self._corpus(number) / "corpus" / TEST / f"{lang}.tsv")
            if len(table) != len(held) or not same:
                raise UserError(f"{job.layout.outputs} is about other texts; remove {self.folder} and begin again")
            found[held] = table[names].to_numpy()
        return found
