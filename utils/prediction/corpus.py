"""The labels of a corpus: parts from the processes that read them, through the model, into files."""

import itertools
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from utils.cli.progress import progress
from utils.errors import RunFailure, UserError
from utils.evaluation.inference import Classifier, Segment
from utils.prediction.folder import LabelFolder
from utils.prediction.inputs import InputFile
from utils.prediction.options import PredictOptions
from utils.prediction.parts import Part, count_labels, part_path, write_part
from utils.prediction.readers import Columns
from utils.prediction.records import RecordLayout
from utils.prediction.segments import describe_segments
from utils.prediction.shares import Piece
from utils.prediction.stream import FileEnd, FileTask, PartStream, TokenizedPart, choose_num_workers, start_stream
from utils.runs import slurm_job
from utils.runs.files import read_json, write_json

MEGABYTE = 10**6


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        labelled: files that have all their labels since now.
        before: those that had them before.
        elsewhere: those of which other processes have parts to do.
        problems: what is wrong with the others, by name.
    """

    labelled: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    problems: dict[str, UserError | RunFailure] = field(default_factory=dict)


class CorpusLabeller:
    """Labels files with a classifier, in a folder of labels.

    Args:
        options: of predict.py.
        classifier: the model.
        folder: where the labels go.
        files: by name.
    """

    def __init__(
        self, options: PredictOptions, classifier: Classifier, folder: LabelFolder, files: dict[str, InputFile]
    ) -> None:
        self.options, self.classifier, self.folder, self.files = options, classifier, folder, files
        self.columns = Columns(options.text_column, options.id_column, tuple(options.keep_columns or ()))
        kept = (*self.columns.kept, *(["text"] if options.keep_text and "text" not in self.columns.kept else []))
        self.layout = RecordLayout(
            tuple(classifier.labels), kept, options.hplt, classifier.labelling.multilabel, options.segments
        )
        self.whole = classifier.reading.needs_whole_texts or options.segments
        self.outcome = Outcome()
        self.pieces: list[Piece] = []
        self.saving: Future[None] | None = None
        self.last = time.monotonic()

    def label(self, pieces: Sequence[Piece]) -> Outcome:
        """Label files, or parts of them, behind what is labelled already."""
        tasks = self._tasks(pieces)
        stream = PartStream(
            tasks,
            self.columns,
            self.classifier.tokenizer,
            self.classifier.max_length,
            self.options.rows_per_part,
            self.options.keep_text,
            whole=self.whole,
        )
        sizes = [self.files[piece.name].size for piece in self.pieces]
        workers = choose_num_workers(self.options.num_workers, self.classifier.device.type == "cuda", sum(sizes))
        self.last, shown = time.monotonic(), 0
        with (
            progress(total=sum(sizes) // MEGABYTE or 1, desc="labelling", unit="megabyte") as bar,
            ThreadPoolExecutor(1) as writer,
        ):
            for item in start_stream(stream, workers):
                if isinstance(item, FileEnd):
                    self._end_file(item)
                elif self._is_sound(item):
                    self._label_part(item, writer)
                read = item.position if isinstance(item, TokenizedPart) else sizes[item.task]
                megabytes = (sum(sizes[: item.task]) + read) // MEGABYTE
                bar.update(megabytes - shown)
                shown = megabytes
            self._wait()
        return self.outcome

    def _tasks(self, pieces: Sequence[Piece]) -> list[FileTask]:
        """Find what is left to do of each file."""
        tasks, num_done = [], 0
        for piece in pieces:
            file = self.files[piece.name]
            try:
                if self.folder.is_finished(file):
                    self.outcome.before.append(file.name)
                    continue
                done = frozenset(self.folder.begin_file(file))
            except UserError as problem:
                self._fail(piece.name, problem)
                continue
            num_done += sum(number % piece.of == piece.share for number in done)
            self.pieces.append(piece)
            tasks.append(FileTask(file.path, piece.share, piece.of, done))
        check_restarts(self.folder, num_done + len(self.outcome.before), self.options.max_restarts)
        return tasks

    def _is_sound(self, part: TokenizedPart) -> bool:
        """Return whether a part is to be labelled; a bad row may refuse its file."""
        name = self.pieces[part.task].name
        if name in self.outcome.problems:
            return False
        if part.bad_rows and not self.options.skip_bad_rows:
            row = part.bad_rows[0]
            where = f"{self.files[name].path}, line {row['line']:,}: {row['problem']}"
            self._fail(name, UserError(f"{where}; mend it, or list such rows with --skip_bad_rows"))
            return False
        return True

    def _label_part(self, part: TokenizedPart, writer: ThreadPoolExecutor) -> None:
        budget = self.options.eval_token_budget
        windows: list[list[Segment]] = []
        if self.whole:
            logits, windows = self.classifier.logits_of_whole(part.texts(), budget, self.options.segments)
        else:
            logits = self.classifier.logits_of(part.texts(), budget)
        now = time.monotonic()
        seconds, self.last = now - self.last, now
        self._wait()
        # While the model computes the next one.
        self.saving = writer.submit(self._save, part, logits, windows, seconds)

    def _wait(self) -> None:
        if self.saving is not None:
            saving, self.saving = self.saving, None
            saving.result()

    def _save(self, part: TokenizedPart, logits: np.ndarray, windows: list[list[Segment]], seconds: float) -> None:
        probabilities = self.classifier.probabilities(logits)
        labels = self.classifier.labelling.decide(probabilities)
        counts = count_labels(self.classifier.labelling, labels, probabilities)
        counts.rows, counts.seconds = part.num_rows, seconds
        lengths, cut = part.lengths, part.cut
        if self.whole:
            lengths, cut = self.classifier.tokens_read(lengths), self.classifier.are_cut(lengths)
        counts.tokens, counts.truncated = sum(lengths), sum(cut)
        segments: Iterable[Any] = itertools.repeat(None, len(lengths))
        if self.options.segments:
            segments = map(partial(describe_segments, self.classifier, self.layout), windows, part.places_of_texts())
        rows = zip(part.names, labels, probabilities, lengths, cut, part.kept, segments, strict=True)
        records = [self.layout.record(*row) for row in rows]
        name = self.pieces[part.task].name
        path = part_path(self.folder.parts(name), part.number)
        about = Part(part.first, counts, part.position, part.bad_rows)
        write_part(path, about, records)

    def _end_file(self, end: FileEnd) -> None:
        self._wait()
        piece = self.pieces[end.task]
        if end.problem is not None:
            self._fail(piece.name, end.problem)
        if piece.name in self.outcome.problems:
            return
        finished = self.folder.finish_file(self.files[piece.name], end.num_parts, self.layout)
        (self.outcome.labelled if finished else self.outcome.elsewhere).append(piece.name)

    def _fail(self, name: str, problem: UserError | RunFailure) -> None:
        self.outcome.problems.setdefault(name, problem)


def check_restarts(folder: LabelFolder, num_done: int, limit: int) -> None:
    """Give up when Slurm starts a job again and again and no part is finished in between.

    Args:
        folder: of the labels.
        num_done: parts and files that are done.
        limit: how often.

    Raises:
        RunFailure: if the last `limit` starts found as much done as this one.
    """
    job = slurm_job.job_id()
    if job is None:
        return
    path = folder.work / "jobs" / f"{job}-{os.environ.get('RANK', '0')}.json"
    before = read_json(path) or {}
    restarts = slurm_job.restart_count()
    is_idle = restarts > 0 and before.get("num_done") == num_done and before.get("restarts", 0) < restarts
    idle = before.get("idle", 0) + 1 if is_idle else 0
    write_json(path, {"num_done": num_done, "restarts": restarts, "idle": idle})
    if idle >= limit:
        raise RunFailure(
            f"started {idle} times without finishing a part of {folder.path}\n"
            "give the job more time or memory, or smaller parts with --rows_per_part, and submit it again"
        )
