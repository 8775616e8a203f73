"""What submit_lm_jobs.sh submits: language models to be fine-tuned, each on each training file, with each seed."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.cli.parser import OptionParser
from utils.cli.values import object_path
from utils.data.text_files import dataset_name
from utils.errors import UserError
from utils.jobs import slurm
from utils.jobs.combinations import Plan, check_argument, split_words
from utils.jobs.options import LmJobOptions
from utils.jobs.status import JobStatus
from utils.jobs.submission import Ledger, Work
from utils.models.registry import ModelSpec, find_checkpoint, registry_path
from utils.runs.layout import model_label
from utils.runs.record import differences
from utils.runs.shapes import read_record
from utils.training.lm_options import DRAWN_OPTIONS, FREE_OPTIONS, FinetuneLmOptions, check_options

# What a combination decides, and no --options.
OWN = ("model_name_or_path", "train_file", "validation_file", "seed", "output_dir")


@dataclass(frozen=True)
class LmCombination:
    """A model, a training file and a seed.

    Attributes:
        spec: of the model.
        arguments: of finetune_lm.py, which this combination decides.
        settings: all options of the run, as they go to run.json.
        runs: folder of the runs of this model on this file.
        name: MODEL-FILE-SEED.
    """

    spec: ModelSpec
    arguments: tuple[str, ...]
    settings: dict[str, Any]
    runs: Path
    name: str

    def records(self) -> list[dict[str, Any]]:
        """Return the records of its runs, the newest first."""
        found = [read_record(path) or {} for path in sorted(self.runs.glob("*/run.json"), reverse=True)]
        # The data are compared when they are read, in the job.
        return [record for record in found if not differences(record, self.settings, None, FREE_OPTIONS, DRAWN_OPTIONS)]


class LmPlanner:
    """Finds the combinations and plans what is to be done for them.

    Args:
        options: of the submit script.

    Raises:
        UserError: for anything that could not run: models, files, seeds, options of the script.
    """

    kind = "lm"

    def __init__(self, options: LmJobOptions):
        self.options = options
        self.results_dir = Path(options.output_dir)
        self.jobs_dir = self.results_dir / "jobs"
        self.ledger = Ledger(self.jobs_dir / "lm.tsv")
        self.after = slurm.parse_after(options.after)
        self.extra = split_words("--options", options.options)
        self.combinations = self.find_combinations()
        self.queue: dict[str, str] = {}
        # By name: the last task submitted, and that in the queue.
        self.last_task: dict[str, str] = {}
        self.queued_task: dict[str, str] = {}

    def find_combinations(self) -> list[LmCombination]:
        """Return the combinations in the order in which they were given."""
        options = self.options
        models, files, seeds = options.models.split(), options.train_files.split(), options.seeds.split()
        if not models or not files or not seeds:
            raise UserError("no models, no train_files or no seeds are given")
        validation = options.validation_files.split()
        if len(validation) not in (1, len(files)):
            raise UserError(f"validation_files: give one, or one for each of the {len(files)} train_files")
        for path in (*files, *validation):
            dataset_name(path)
            if not Path(path).is_file():
                raise UserError(f"{path} does not exist")
        pairs = zip(files, validation * len(files) if len(validation) == 1 else validation, strict=True)
        found = [
            self.combination(model, *pair, seed) for pair in pairs for model in models for seed in dict.fromkeys(seeds)
        ]
        names = [combination.name for combination in found]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{twice} is there twice: models and files need names of their own")
        return found

    def combination(self, model: str, train_file: str, validation_file: str, seed: str) -> LmCombination:
        """Return a combination, its options checked as finetune_lm.py checks them."""
        given = (model, train_file, validation_file, seed, str(self.results_dir))
        arguments = tuple(word for name, value in zip(OWN, given, strict=True) for word in (f"--{name}", value))
        for word in (*arguments, *self.extra):
            check_argument(word)
        try:
            parsed = OptionParser(FinetuneLmOptions).parse([*arguments, *self.extra])
            check_options(parsed)
        except UserError as error:
            raise UserError(f"--options: {str(error).splitlines()[0]}" if self.extra else str(error)) from None
        for name, value in zip(OWN, given, strict=True):
            if str(getattr(parsed, name)) != value:
                raise UserError(f"--options: --{name} is not for --options; it differs between combinations")
        if parsed.do_optimize:
            raise UserError("--options: --do_optimize is one study; submit it as the documentation shows")
        if parsed.token and not Path(parsed.token).expanduser().is_file():
            # Manifests and logs are files that others may read.
            raise UserError("--options: --token: name a file that holds the token; jobs are written down")
        label, name = model_label(model), dataset_name(train_file)
        settings = {key: object_path(value) for key, value in asdict(parsed).items() if key not in ("token", "config")}
        spec = find_checkpoint(model, parsed.model_revision, parsed.model_registry)
        return LmCombination(spec, arguments, settings, self.results_dir / name / label, f"{label}-{name}-{seed}")

    @property
    def uses_gpu(self) -> bool:
        """Whether the jobs compute on GPUs where they get one."""
        return self.combinations[0].settings["use_gpu"]

    def read_queue(self) -> None:
        """Ask Slurm which tasks are in the queue, and find what they do."""
        self.queue = slurm.queue()
        for task, line in self.ledger.tasks():
            name = Path(line.partition("\t")[0]).name
            self.last_task[name] = task
            if task in self.queue:
                self.queued_task[name] = task

    def plan(self) -> Plan:
        """Return what becomes of each combination; `read_queue` comes first."""
        plan = Plan()
        for combination in self.combinations:
            is_complete = any(record.get("status") == "complete" for record in combination.records())
            if is_complete and not self.options.force:
                plan.complete.append(combination)
            else:
                (plan.queued if combination.name in self.queued_task else plan.work).append(combination)
        return plan

    def statuses(self) -> list[JobStatus]:
        """Return the status of each combination; `read_queue` comes first."""
        found = []
        for combination in self.combinations:
            name, records = combination.name, combination.records()
            finished = any(record.get("status") == "complete" for record in records)
            record = records[0] if records else {}
            queued = self.queue.get(self.queued_task.get(name, ""), "")
            log = self.log_folder(combination) / "lm.txt"
            found.append(JobStatus(name, finished, queued, self.last_task.get(name), record, log))
        return found

    def log_folder(self, combination: LmCombination) -> Path:
        """Return where the log of a combination's tasks goes: the folder of its run is not known before it begins."""
        return self.jobs_dir / combination.name

    def work(self, combination: LmCombination) -> Work:
        """Return what a task does for a combination."""
        words = [str(self.log_folder(combination)), "-", *combination.arguments, *self.extra]
        wait = f"afterok:{':'.join(self.after)}" if self.after else ""
        spec = combination.spec
        need = split_words(f"{registry_path(None)}: {spec.name}: sbatch_train", spec.sbatch_train)
        return Work(combination.name, "\t".join(words), wait, None, tuple(need))
