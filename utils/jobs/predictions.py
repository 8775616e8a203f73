"""What submit_predict_jobs.sh submits: files of texts, dealt out among the tasks of an array.

The plan, OUTPUT_DIR/jobs/predict-DATE.json, says which task has which files, or which parts of a large one.
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from utils.cli.parser import OptionParser
from utils.cli.values import plural
from utils.errors import UserError
from utils.jobs import slurm
from utils.jobs.combinations import check_argument, split_words
from utils.jobs.options import PredictJobOptions
from utils.jobs.submission import Ledger, Work
from utils.prediction.folder import LabelFolder
from utils.prediction.inputs import InputFile, find_inputs
from utils.prediction.measure import files_left, measure_progress
from utils.prediction.model import find_model_folder
from utils.prediction.options import PredictOptions
from utils.prediction.plan import read_plan, write_plan
from utils.prediction.shares import Piece, deal_out

WIDTHS = (14, 9, 12, 12, 10, 17)


@dataclass
class Prediction:
    """A model and the folder of its labels, and what becomes of it.

    Attributes:
        name: of the model.
        arguments: that name it to predict.py.
        folder: of the labels.
        left: files without labels that no task in the queue has.
        queued: files that one has.
        shares: what is to be submitted.
    """

    name: str
    arguments: list[str]
    folder: LabelFolder
    left: list[InputFile] = field(default_factory=list)
    queued: list[InputFile] = field(default_factory=list)
    shares: list[list[Piece]] = field(default_factory=list)


class PredictPlanner:
    """Finds files and models, and plans what is to be done.

    Args:
        options: of the submit script.

    Raises:
        UserError: for anything that could not run: models, files, options of the script.
    """

    kind = "predict"

    def __init__(self, options: PredictJobOptions):
        self.options = options
        self.results_dir = Path(options.output_dir)
        self.jobs_dir = self.results_dir / "jobs"
        self.ledger = Ledger(self.jobs_dir / "predict.tsv")
        self.after = slurm.parse_after(options.after)
        self.extra, given = split_words("--options", options.options), split_words("--input", options.input)
        if not given:
            raise UserError("which texts? give files, folders or globs with --input, in quotation marks")
        self.predictions = self._find_predictions()
        self.root, self.files = find_inputs(given, self.results_dir)
        self.queue: dict[str, str] = {}

    def _find_predictions(self) -> list[Prediction]:
        """Return the models, each with its folder; without `after` they must be there."""
        options = self.options
        if bool(options.model) == bool(options.models or options.langs):
            raise UserError("which model? give --models and --langs of ours, or --model with any other's folder or id")
        if options.model:
            named = [(Path(options.model).name, ["--model", options.model])]
        else:
            subfolder = ["--subfolder", options.subfolder] if options.subfolder else []
            more = ["--models_dir", options.models_dir, *subfolder]
            pairs = [(model, langs) for model in options.models.split() for langs in options.langs.split()]
            if not pairs:
                raise UserError("which model? give --models and --langs, for instance xlmr and en-fr")
            named = [(f"{m}-{x}", ["--model_name", m, "--train_langs", x, *more]) for m, x in dict.fromkeys(pairs)]
        found = []
        for name, arguments in named:
            script = self._check_options(arguments)
            if not self.after:
                find_model_folder(script)
            folder = self.results_dir if len(named) == 1 else self.results_dir / name
            found.append(Prediction(name, arguments, LabelFolder(folder, script.output_format)))
        return found

    def _check_options(self, arguments: list[str]) -> PredictOptions:
        """Parse --options as predict.py does, which refuses what it would refuse; returns its options."""
        try:
            script = OptionParser(PredictOptions).parse([*arguments, *self.extra])
        except UserError as error:
            raise UserError(f"--options: {str(error).splitlines()[0]}" if self.extra else str(error)) from None
        heads = {word.partition("=")[0].replace("-", "_") for word in self.extra if word.startswith("--")}
        for name in ("input", "output_dir", "text", "share", "export", "push_to_hub", "rows_per_part", "force"):
            if f"__{name}" in heads:
                raise UserError(f"--options: --{name} is not for --options")
        for word in (*arguments, *self.extra, str(self.results_dir)):
            check_argument(word)
        return script

    def read_queue(self) -> None:
        """Ask Slurm which tasks are in the queue, and find which files they have."""
        self.queue = slurm.queue()
        busy: dict[Path, set[str]] = {}
        for task, line in self.ledger.tasks():
            if task in self.queue:
                words = line.split("\t")
                plan, _, number = words[words.index("--share") + 1].rpartition(":")
                folder = Path(words[words.index("--output_dir") + 1])
                busy.setdefault(folder, set()).update(
                    piece.name for piece in read_plan(Path(plan))["shares"][int(number)]
                )
        for prediction in self.predictions:
            names = busy.get(prediction.folder.path, set())
            prediction.queued = [file for file in self.files if file.name in names]

    def plan(self, stamp: str) -> list[Work]:
        """Find what is left, deal it out, and return what the tasks do.

        Args:
            stamp: of the plans' names.
        """
        work = []
        for number, prediction in enumerate(self.predictions):
            queued = {file.name for file in prediction.queued}
            files = [file for file in self.files if file.name not in queued]
            prediction.left = files if self.options.force else files_left(prediction.folder, files)
            pieces = [Piece(file.name, file.size) for file in prediction.left]
            prediction.shares = deal_out(pieces, self.options.num_tasks) if pieces else []
            work += [self._work(prediction, self._plan_file(stamp, number), n) for n in range(len(prediction.shares))]
        return work

    def _plan_file(self, stamp: str, number: int) -> Path:
        return (self.jobs_dir / f"predict-{stamp}-{number}.json").absolute()

    def _work(self, prediction: Prediction, plan: Path, number: int) -> Work:
        log = self.jobs_dir / f"{prediction.name}-task-{number:04}"
        places = ["--share", f"{plan}:{number}", "--output_dir", str(prediction.folder.path)]
        parts = ["--rows_per_part", str(self.options.rows_per_part)]
        words = [str(log), "-", *prediction.arguments, *places, *parts, *self.extra]
        wait = f"afterok:{':'.join(self.after)}" if self.after else ""
        return Work(f"{prediction.name} {number + 1}/{len(prediction.shares)}", "\t".join(words), wait)

    def write_plans(self, stamp: str) -> None:
        """Write the plans that tasks read; with --force, forget the labels that are there."""
        for number, prediction in enumerate(self.predictions):
            if self.options.force:
                if prediction.queued:
                    raise UserError(f"--force: tasks of {prediction.folder.path} are in the queue; cancel them first")
                prediction.folder.forget()
            if prediction.shares:
                write_plan(self._plan_file(stamp, number), self.root, self.files, prediction.shares)

    def describe(self, word: str) -> str:
        """Return what becomes of the files; `word` is for those that have something to do."""
        lines = []
        for prediction in self.predictions:
            left = len(prediction.left)
            complete = len(self.files) - left - len(prediction.queued)
            text = f"{prediction.name}: {plural(len(self.files), 'file')}: {left} {word}"
            text += f" in {plural(len(prediction.shares), 'task')}" if left else ""
            text += f", {complete} complete and skipped (--force repeats them)" if complete else ""
            text += f", {len(prediction.queued)} in the queue already" if prediction.queued else ""
            lines.append(text)
        return "\n".join(lines)

    def status_table(self) -> str:
        """Return a table with a line for each model: rows done and left, texts per second, when it will end."""
        running = dict.fromkeys(self._folders(), 0)
        waiting, submitted = dict(running), dict(running)
        for task, line in self.ledger.tasks():
            words = line.split("\t")
            folder = Path(words[words.index("--output_dir") + 1])
            if folder not in submitted:
                continue
            submitted[folder] += 1
            state = self.queue.get(task)
            if state is not None:
                (running if state == "RUNNING" else waiting)[folder] += 1
        rows = [["labels", "state", "files", "rows done", "rows left", "texts/s", "expected end"]]
        notes = []
        for prediction in self.predictions:
            folder = prediction.folder.path
            progress = measure_progress(prediction.folder, self.files)
            speed = (progress.rows_per_second or 0) * running[folder]
            left = progress.rows_left
            end = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + (left or 0) / speed)) if speed else "-"
            state = _state(progress.unfinished, running[folder], waiting[folder], submitted[folder])
            rows.append(
                [
                    str(folder),
                    state,
                    f"{progress.finished}/{progress.files}",
                    f"{progress.rows:,}",
                    "?" if left is None else f"{'' if left == 0 else 'about '}{left:,}",
                    f"{speed:,.1f}" if speed else "-",
                    end if progress.unfinished else "-",
                ]
            )
            notes.append(f"{prediction.name}: {running[folder]} tasks running, {waiting[folder]} pending")
            if state == "failed":
                shown = ", ".join(progress.unfinished[:3]) + (", ..." if len(progress.unfinished) > 3 else "")
                notes.append(f"{prediction.name}: not labelled: {shown}; see {self.jobs_dir}/*/predict.txt")
        least = (*WIDTHS, 0)
        widths = [max(least[column], *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
        return "\n".join([*("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows), *notes])

    def _folders(self) -> list[Path]:
        return [prediction.folder.path for prediction in self.predictions]

    def say_missing(self) -> None:
        """Say which models are not there yet, whose jobs wait for others."""
        for prediction in self.predictions if self.after else []:
            try:
                find_model_folder(OptionParser(PredictOptions).parse(prediction.arguments))
            except UserError as problem:
                print(f"not there yet: {problem}", file=sys.stderr)


def _state(unfinished: list[str], running: int, waiting: int, submitted: int) -> str:
    if not unfinished:
        return "done"
    if running or waiting:
        return "running" if running else "pending"
    return "failed" if submitted else "never submitted"
