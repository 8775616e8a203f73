"""Where a run's files are: ``models/[SUBFOLDER/]MODEL-LANGS`` and ``outputs/[SUBFOLDER/]MODEL-LANGS`` for classifiers,
``outputs/TRAIN_FILE/MODEL/TIME`` and ``outputs/test_only/MODEL`` for language models.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.runs import slurm_job
from utils.runs.files import is_held, timestamp
from utils.runs.record import differences
from utils.runs.resume_points import ResumePoints
from utils.runs.shapes import read_record


def split_langs(train_langs: str) -> list[str]:
    """Split ``en-fr`` into its languages.

    Raises:
        UserError: for an empty or repeated language, or a name that could leave its folder.
    """
    langs = train_langs.split("-")
    for lang in langs:
        check_lang(lang)
    for lang in langs:
        if langs.count(lang) > 1:
            raise UserError(f"language {lang!r} is given twice in {train_langs!r}")
    return langs


def check_lang(lang: str) -> str:
    """Return `lang` if it is a plain name (letters, digits and '_'), else raise a `UserError`."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", lang):
        raise UserError(f"{lang!r} is not a language name: letters, digits and '_' only, several joined by '-'")
    return lang


def check_model_name(name: str) -> str:
    """Return `name` if it is a plain abbreviation (letters, digits, '.', '_' and '-'), else raise a `UserError`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or ".." in name:
        raise UserError(f"{name!r} is not a model abbreviation: letters, digits, '.', '_' and '-' only")
    return name


@dataclass(frozen=True)
class RunLayout:
    """The folders and files of one run, ``[subfolder/]model-langs`` under the output and the models folder.

    Raises:
        UserError: if the subfolder or a name could leave its folder.
    """

    model_name: str
    train_langs: str
    subfolder: str | None = None
    output_dir: str = "outputs"
    models_dir: str = "models"
    checkpoints_dir: str | None = None

    def __post_init__(self) -> None:
        check_model_name(self.model_name)
        split_langs(self.train_langs)
        below = Path(self.subfolder or ".")
        if below.is_absolute() or ".." in below.parts:
            raise UserError(f"--subfolder must be a folder below the output folder, got {self.subfolder!r}")
        self._check_overlap()

    def _check_overlap(self) -> None:
        """Refuse resume points in the folder of results or models, where they would be taken for these."""
        if self.checkpoints_dir is not None:
            for option, name in (("output_dir", self.output_dir), ("models_dir", self.models_dir)):
                if Path(self.checkpoints_dir).resolve() == Path(name).resolve():
                    raise UserError(f"--checkpoints_dir {self.checkpoints_dir} is --{option} too; give another folder")
        points = self.checkpoints.resolve()
        for folder in (self.outputs.resolve(), self.model.resolve()):
            if points == folder or points in folder.parents:
                raise UserError(
                    f"the resume points' folder {self.checkpoints} holds {folder}; give another --checkpoints_dir"
                )

    @property
    def name(self) -> str:
        """The run's name, ``model-langs``."""
        return f"{self.model_name}-{self.train_langs}"

    @property
    def outputs(self) -> Path:
        """Where the run's results are."""
        return Path(self.output_dir) / (self.subfolder or "") / self.name

    @property
    def model(self) -> Path:
        """Where the trained model is."""
        return Path(self.models_dir) / (self.subfolder or "") / self.name

    @property
    def checkpoints(self) -> Path:
        """Where the resume points are while the model trains."""
        if self.checkpoints_dir is None:
            return self.model / "checkpoints"
        return Path(self.checkpoints_dir) / (self.subfolder or "") / self.name / "checkpoints"

    def points(self, identity: str | None = None) -> ResumePoints:
        """Return the resume points of the run with this identity, or of any."""
        return ResumePoints(self.checkpoints, f"{self.subfolder or '.'}/{self.name}", identity, self.checkpoints_dir)

    @property
    def lock_file(self) -> Path:
        """Held by the process that trains this model."""
        return self.outputs / ".lock"

    @property
    def handover(self) -> Path:
        """A file that asks the process which trains this model to save and end."""
        return self.outputs / ".handover"

    @property
    def run_json(self) -> Path:
        """The record of the run."""
        return self.outputs / "run.json"

    @property
    def train_json(self) -> Path:
        """The training and validation metrics of every epoch."""
        return self.outputs / "train.json"

    @property
    def train_hashes(self) -> Path:
        """The hashes of the texts that the model has seen in training, validation included."""
        return self.outputs / "train_hashes.npy"

    @property
    def explanations(self) -> Path:
        """What predictions are made of."""
        return self.outputs / "explanations"

    @property
    def study(self) -> Path:
        """Where the search for good hyperparameters is kept."""
        return self.outputs / "study"

    def eval_json(self, lang: str) -> Path:
        """The metrics on one evaluation language."""
        return self.outputs / "eval" / f"{check_lang(lang)}.json"

    def predictions_csv(self, lang: str) -> Path:
        """The predictions on one evaluation language."""
        return self.outputs / "predictions" / f"{check_lang(lang)}.csv"

    def clusters_csv(self, lang: str) -> Path:
        """The clusters of the evaluated texts, where they have some."""
        return self.outputs / "clusters" / f"{check_lang(lang)}.csv"


TEST_ONLY = "test_only"


@dataclass(frozen=True)
class LmLayout:
    """The folder and files of one run.

    Attributes:
        outputs: the folder.
        model_label: the model's name in file names, see `model_label`.
        prefix: of the test results, as the user gave it.
        shared: the folder holds the test results of several prefixes, each with files of its own.
    """

    outputs: Path
    model_label: str
    prefix: str | None = None
    shared: bool = False

    def _own(self, name: str) -> Path:
        return self.outputs / (f"{self.prefix}-{name}" if self.shared and self.prefix else name)

    def _of_test(self, name: str) -> Path:
        return self.outputs / f"{self.prefix or self.model_label}-{name}"

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.outputs)

    @property
    def run_json(self) -> Path:
        """The record of the run."""
        return self._own("run.json")

    @property
    def config(self) -> Path:
        """The options of the run, for people and for --config."""
        return self._own("config.txt")

    @property
    def handover(self) -> Path:
        """A file that asks the process at work here to save and end."""
        return self.outputs / ".handover"

    @property
    def lock_file(self) -> Path:
        """Held by the process at work here."""
        return self.outputs / (f".{self.prefix}.lock" if self.shared and self.prefix else ".lock")

    def points(self, identity: str | None = None) -> ResumePoints:
        """Return the resume points of the run with this identity, or of any."""
        return ResumePoints(self.checkpoints, self.outputs.name, identity)

    @property
    def checkpoints(self) -> Path:
        """Where the resume points are while the model trains."""
        return self.outputs / "checkpoints"

    @property
    def model(self) -> Path:
        """The model with the lowest validation loss."""
        return self.outputs / "model"

    @property
    def tokenizer(self) -> Path:
        """Its tokenizer."""
        return self.outputs / "tokenizer"

    @property
    def metrics(self) -> Path:
        """The surprisals of every batch of every epoch."""
        return self.outputs / "metrics.csv.gz"

    @property
    def train_json(self) -> Path:
        """The losses of every epoch."""
        return self.outputs / "train.json"

    @property
    def loss_curves(self) -> Path:
        """The curves of the losses."""
        return self.outputs / "loss_curves.pdf"

    @property
    def test_results(self) -> Path:
        """The surprisals of the test files."""
        return self._of_test("test_results.csv.gz")

    @property
    def test_sentences(self) -> Path:
        """The sums of these surprisals, sentence by sentence."""
        return self._of_test("test_sentences.csv.gz")

    @property
    def test_words(self) -> Path:
        """The figure of the surprisals of single words, without its suffix."""
        return self._of_test("test_words")

    @property
    def test_conditions(self) -> Path:
        """The figure of surprisals by a key of the metadata, without its suffix."""
        return self._of_test("test_conditions")

    @property
    def test_pairs(self) -> Path:
        """In how many minimal pairs the better sentence is the likelier one."""
        return self._of_test("test_pairs.json")

    @property
    def study_results(self) -> Path:
        """The trials of a study."""
        return self.outputs / "optimization_results.csv.gz"

    @property
    def study_plots(self) -> Path:
        """The plots of a study."""
        return self.outputs / "optimization_plots.pdf"


def model_label(name: str) -> str:
    """Return a model's name for folders and files: "/" becomes "-", and nothing leads out of a folder."""
    return str(Path(name)).replace("/", "-").strip("-.") or "model"


def choose_folder(
    parent: Path, settings: dict[str, Any], files: list[dict[str, str]], free: Collection[str], drawn: Collection[str]
) -> Path:
    """Return the folder of an interrupted run with the same options and data that nobody is at work on, else a new one.

    Args:
        parent: of the folders of all runs of a model on a training file.
        settings: the options as they go to run.json.
        files: path and SHA-256 of the data.
        free: see `utils.runs.record.differences`.
        drawn: see there.
    """
    for record_file in sorted(parent.glob("*/run.json"), reverse=True):
        record = read_record(record_file)
        if record is None or record["status"] != "running" or differences(record, settings, files, free, drawn):
            continue
        # A restarted job waits for what is left of itself on a lost node; others leave a run that is at work alone.
        own_restart = slurm_job.restart_count() > 0 and record.get("slurm_job_id") == slurm_job.job_id()
        if own_restart or not is_held(record_file.parent / ".lock"):
            return record_file.parent
    return parent / timestamp()
