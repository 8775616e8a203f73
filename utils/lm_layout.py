"""Where the files of a language model's run are: outputs/TRAIN_FILE/MODEL/TIME, outputs/test_only/MODEL."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import slurm
from utils.layout import locked, read_json, timestamp
from utils.resume import FREE_OPTIONS

TEST_ONLY = "test_only"
# Drawn anew by every run that does not say it.
DRAWN = {"seed"}
# Options that do not change what comes out.
FREE = FREE_OPTIONS - {"do_optimize"} | {"overwrite_cache", "preprocessing_num_workers", "save_tmp_test_files"}


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
        return self.outputs / f"{self.prefix or self.model_label}-test_results.csv.gz"

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


def choose_folder(parent: Path, settings: dict[str, Any], files: list[dict[str, str]]) -> Path:
    """Return the folder of an interrupted run with the same options and data that nobody is at work on, else a new one.

    Args:
        parent: of the folders of all runs of a model on a training file.
        settings: the options as they go to run.json.
        files: path and SHA-256 of the data.
    """
    for record_file in sorted(parent.glob("*/run.json"), reverse=True):
        record = read_json(record_file)
        if record["status"] != "running" or differences(record, settings, files):
            continue
        # A restarted job waits for what is left of itself on a lost node; others leave a run that is at work alone.
        own_restart = slurm.restart_count() > 0 and record.get("slurm_job_id") == slurm.job_id()
        if own_restart or not is_held(record_file.parent / ".lock"):
            return record_file.parent
    return parent / timestamp()


def differences(record: dict[str, Any], settings: dict[str, Any], files: list[dict[str, str]]) -> list[str]:
    """Return in which options a recorded run differs, and whether its data do."""
    before = record.get("options", {})
    found = [
        f"{name} {before.get(name)} -> {value}"
        for name, value in settings.items()
        if name not in FREE
        and before.get(name) != value
        and not (name in DRAWN and (value is None or before.get(name) is None))
    ]
    if [file["sha256"] for file in record.get("data", {}).get("files", [])] != [file["sha256"] for file in files]:
        found.append("other or changed data files")
    return found


def is_held(lock_file: Path) -> bool:
    """Say whether a living process holds a lock."""
    import filelock

    try:
        with locked(lock_file, wait=False):
            return False
    except filelock.Timeout:
        return True
