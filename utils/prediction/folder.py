"""A folder of labels: what is in it, what is under way, and what is known of both.

    NAME.jsonl.zst                           the labels of a file, in its order
    predictions.json                         what they were made with, and what was counted
    bad_rows.jsonl                           rows without a label, if there are any
    .predictions/parts/NAME.parts/           parts of a file that is not finished
    .predictions/done/NAME.json              what was counted in a file that is
    .predictions/jobs/                       how often Slurm has started a job

Any number of processes may work in one folder: each file is written whole, and all that is said of several is made
anew from what is said of each.
"""

import contextlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import RunFailure, UserError
from utils.prediction.inputs import InputFile
from utils.prediction.parts import ENDING, Counts, Part, part_path, read_part, whole_parts
from utils.prediction.records import RecordLayout, write_labels
from utils.runs.files import atomic_path, locked, now, remove_remains, write_json
from utils.runs.shapes import NUMBER, Required, Shape, read_shaped

# What is known of all the files.
OVERVIEW = "predictions.json"
BEGUN: Shape = {
    Required("made_with"): {Required("options"): {Required("output_format"): str}},
    Required("number_format"): str,
    Required("unfinished"): [str],
    Required("files"): {str: dict},
}
# Of a file of texts: what tells it from another.
INPUT: Shape = {Required("path"): str, Required("size"): int, Required("modified"): int}
# What is known of a file that is finished.
SUMMARY: Shape = {
    Required("input"): INPUT,
    Required("counts"): {
        **{Required(name): NUMBER for name in ("rows", "texts", "tokens", "truncated", "seconds")},
        Required("registers"): {str: int},
        Required("probabilities"): [int],
    },
    Required("bad_rows"): [dict],
}
ADVICE = "remove it, or label again with --force"


@dataclass(frozen=True)
class LabelFolder:
    """A folder of labels.

    Args:
        path: of the folder.
        output_format: of the files: jsonl.zst, jsonl, csv or parquet.
    """

    path: Path
    output_format: str

    @property
    def overview(self) -> Path:
        """What is known of all the files."""
        return self.path / OVERVIEW

    @property
    def bad_rows(self) -> Path:
        """The rows without a label."""
        return self.path / "bad_rows.jsonl"

    @property
    def work(self) -> Path:
        """Where things are that users need not see."""
        return self.path / ".predictions"

    def labels(self, name: str) -> Path:
        """The labels of a file."""
        return self.path / f"{name}.{self.output_format}"

    def parts(self, name: str) -> Path:
        """The parts of a file that is not finished."""
        return self.work / "parts" / f"{name}.parts"

    def done(self, name: str) -> Path:
        """What was counted in a file that is finished."""
        return self.work / "done" / f"{name}.json"

    def summary(self, name: str) -> dict[str, Any] | None:
        """Return what is known of a file that is finished; None of others."""
        return read_shaped(self.done(name), SUMMARY, ADVICE)

    def lock(self, what: str) -> Path:
        """A file that who changes `what` locks; one of a few, since they stay."""
        return self.work / "locks" / f"{zlib.crc32(what.encode()) % 64:02}.lock"

    def is_finished(self, file: InputFile) -> bool:
        """Return whether a file has its labels.

        Raises:
            UserError: if it is not the file any more that was labelled.
        """
        summary = self.summary(file.name)
        if summary is None or not self.labels(file.name).is_file():
            return False
        self._check_unchanged(file, summary["input"])
        return True

    def begin_file(self, file: InputFile) -> dict[int, Part]:
        """Return the parts of a file that have their labels.

        Raises:
            UserError: if it is not the file any more that they were made from.
        """
        mark = self.parts(file.name) / "input.json"
        before = read_shaped(mark, INPUT, ADVICE)
        if before is None:
            mark.parent.mkdir(parents=True, exist_ok=True)
            write_json(mark, self._identity(file))
        else:
            self._check_unchanged(file, before)
        return whole_parts(mark.parent)

    def _identity(self, file: InputFile) -> dict[str, Any]:
        return {"path": str(file.path), "size": file.size, "modified": file.modified}

    def _check_unchanged(self, file: InputFile, before: dict[str, Any]) -> None:
        if (file.size, file.modified) != (before["size"], before["modified"]):
            raise UserError(
                f"{file.path} has changed since it was labelled in {self.path}; give another --output_dir, or --force"
            )

    def finish_file(self, file: InputFile, num_parts: int, layout: RecordLayout) -> bool:
        """Make the file of labels if all parts are there; returns whether they are.

        Several processes may have found the last part at the same time; one of them does it.
        """
        with locked(self.lock(file.name)):
            if not self.is_finished(file):
                found = whole_parts(self.parts(file.name))
                if any(number not in found for number in range(num_parts)):
                    return False
                self._join(file, [found[number] for number in range(num_parts)], layout)
            self._remove_parts(file.name)
            return True

    def _join(self, file: InputFile, parts: list[Part], layout: RecordLayout) -> None:
        """Write the labels of a file from all its parts, and what was counted in it."""
        paths = [part_path(self.parts(file.name), number) for number in range(len(parts))]
        write_labels(self.labels(file.name), lambda: map(_records, paths), layout)
        counts, bad = Counts(), []
        for part in parts:
            counts.add(part.counts)
            bad += part.bad_rows
        write_json(self.done(file.name), {"input": self._identity(file), "counts": vars(counts), "bad_rows": bad})

    def _remove_parts(self, name: str) -> None:
        """Remove the parts of a file that has its labels, and what killed writers have left of both."""
        labels, parts = self.labels(name), self.parts(name)
        remove_remains(labels.parent, labels.name, older_than=0)
        remove_remains(parts, older_than=0)
        for path in (*parts.glob(f"*{ENDING}"), parts / "input.json"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            parts.rmdir()

    def check(self, made_with: dict[str, Any]) -> None:
        """Raise a `UserError` if the folder holds labels that were made with something else."""
        content = read_shaped(self.overview, BEGUN, ADVICE)
        found = _differences(content["made_with"], made_with) if content else []
        if found:
            raise UserError(
                f"{self.path} holds labels that were made with something else ({'; '.join(found)})\n"
                "give another --output_dir, or --force to replace them"
            )

    def begin(self, made_with: dict[str, Any], about: dict[str, Any], names: list[str], force: bool) -> dict[str, Any]:
        """Note what the labels are made with, unless that is there already; returns what is there.

        Args:
            made_with: what makes other labels: the model's checksum, the options, the folder of the texts.
            about: what else is to be known: the model's name, versions.
            names: of the files that are to be labelled.
            force: forget labels that were made with something else, or are complete.

        Raises:
            UserError: if the folder holds labels that were made with something else.
        """
        with locked(self.lock(OVERVIEW)):
            if not force:
                self.check(made_with)
            content = read_shaped(self.overview, BEGUN, ADVICE)
            if content and force and (not content["unfinished"] or _differences(content["made_with"], made_with)):
                self._forget(content)
                content = None
            if content is None:
                content = {"made_with": made_with, **about, "started": now(), "unfinished": names, "files": {}}
                write_json(self.overview, content)
        return content

    def forget(self) -> None:
        """Remove all labels, finished and begun, if there are any."""
        with locked(self.lock(OVERVIEW)):
            content = read_shaped(self.overview, BEGUN, ADVICE)
            if content is not None:
                self._forget(content)

    def _forget(self, content: dict[str, Any]) -> None:
        before = LabelFolder(self.path, content["made_with"]["options"]["output_format"])
        done = self.work / "done"
        # Those too that were finished after the overview was written last.
        for path in done.rglob("*.json"):
            before.labels(str(path.relative_to(done)).removesuffix(".json")).unlink(missing_ok=True)
            path.unlink()
        for path in (self.work / "parts").rglob("*.parts/*"):
            path.unlink()
        self.bad_rows.unlink(missing_ok=True)
        self.overview.unlink()

    def write_overview(self, names: list[str], low: float) -> dict[str, Any]:
        """Write predictions.json and bad_rows.jsonl from what is known of each file; returns the content.

        Args:
            names: of all files that are to be labelled.
            low: probabilities below are low.
        """
        with locked(self.lock(OVERVIEW)):
            content = read_shaped(self.overview, BEGUN, ADVICE)
            names = sorted({*names, *content["files"], *content["unfinished"]})
            summaries = {name: found for name in names if (found := self.summary(name))}
            totals, files = Counts(), {}
            folders: dict[str, Counts] = {}
            for name, summary in summaries.items():
                counts = Counts(**summary["counts"])
                totals.add(counts)
                folders.setdefault(str(Path(name).parent), Counts()).add(counts)
                files[name] = {"input": summary["input"]["path"], **_described(counts, low)}
            content |= {
                "updated": now(),
                **_described(totals, low),
                "texts_per_second": round(totals.texts / totals.seconds, 3) if totals.seconds else None,
                "tokens_per_second": round(totals.tokens / totals.seconds, 1) if totals.seconds else None,
                "folders": {name: _described(counts, low) for name, counts in sorted(folders.items())},
                "files": files,
                "unfinished": [name for name in names if name not in summaries],
            }
            self._write_bad_rows(summaries)
            write_json(self.overview, content)
        return content

    def _write_bad_rows(self, summaries: dict[str, dict[str, Any]]) -> None:
        if not any(summary["bad_rows"] for summary in summaries.values()):
            return
        with atomic_path(self.bad_rows) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
            for summary in summaries.values():
                for row in summary["bad_rows"]:
                    file.write(json.dumps({"file": summary["input"]["path"], **row}, ensure_ascii=False) + "\n")


def _records(path: Path) -> list[str]:
    content = read_part(path)
    if content is None:
        raise RunFailure(f"{path}: was whole and is so no more; the same command repeats it")
    return content[1]


def _described(counts: Counts, low: float) -> dict[str, Any]:
    return {
        "num_rows": counts.rows,
        "num_texts": counts.texts,
        "num_bad_rows": counts.rows - counts.texts,
        "num_tokens": counts.tokens,
        "num_truncated": counts.truncated,
        **({"num_without_register": counts.unlabelled} if counts.unlabelled else {}),
        "registers": dict(sorted(counts.registers.items(), key=lambda pair: (-pair[1], pair[0]))),
        "probabilities": counts.probabilities,
        "low_confidence": {"below": low, "share": round(counts.share_below(low), 4)},
        "seconds": round(counts.seconds, 3),
    }


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what differs, in words."""
    flat = [{**content.pop("options"), **content} for content in (dict(before), dict(after))]
    return [f"{name} {flat[0].get(name)} -> {value}" for name, value in flat[1].items() if flat[0].get(name) != value]
