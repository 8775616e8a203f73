# PYTHON_ARGCOMPLETE_OK
"""The language database, config/language-database.json: the datasets of every language, by task.

    {"russian": {"sentiment": {"reviews": {
        "dataset": "data/russian",           // a folder of splits, a file with {split} in its name, an id of the hub
        "train_features": ["review"],        // columns with the text; several are joined
        "eval_feature": "rating",            // column with the label
        "splits": ["train", "test"],         // to train on, to evaluate on
        "task_type": "classification",       // or multi_label: lists of labels, or labels with blanks between them
        "classes": 3}}}}                     // number of labels, checked against the data

Datasets of the hub may also have a "subset" and a "revision", tables without a header "columns" (their names), integer
labels "label_names" (in the order of the numbers), several columns of text a "separator" other than the tokenizer's.
Paths are relative to the database's file.

    python -m utils.data.language_database        # reads every dataset (fetching those of the hub) and lists them

checks a database before anything is trained on it.
"""

import hashlib
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from utils.cli.options import DATA, PLACE, CommonOptions, option
from utils.cli.parser import parse_options
from utils.cli.script import run_script
from utils.data.corpus_load import DEFAULT_CORPUS, label_columns, make_dataset
from utils.data.database_entries import DEFAULT_DATABASE, Entry, read_database
from utils.data.dataset_files import load_split
from utils.errors import RunFailure, UserError, nearest

if TYPE_CHECKING:
    import datasets

PHONEMES = "-phoneme"
ModelType = Literal["normal", "ipa"]


@dataclass(kw_only=True)
class DatabaseOptions:
    """Which language database is meant."""

    language_database: str | None = option(
        None,
        "the language database; without it config/language-database.json",
        role=PLACE,
        group=DATA,
        metavar="FILE",
    )


@dataclass(kw_only=True)
class TextOptions(DatabaseOptions):
    """Where texts come from: a register corpus, or the datasets of a task."""

    corpus_path: str = option(
        DEFAULT_CORPUS, "folder of the register corpus", role=PLACE, group=DATA, env="CORPUS_PATH", metavar="DIR"
    )
    task: str | None = option(None, "a task of the language database, instead of the register corpus", group=DATA)
    dataset: list[str] | None = option(
        None, "datasets of the task, for languages that have several", group=DATA, metavar="NAME"
    )
    model_type: ModelType | None = option(
        None,
        "ipa: read the columns FEATURE-phoneme with the model MODEL_NAME-ipa of the registry; "
        "normal (the default): the texts themselves, with MODEL_NAME-normal or MODEL_NAME",
        group=DATA,
    )


def open_task(
    task: str,
    langs: list[str] | None = None,
    *,
    names: list[str] | None = None,
    model_type: ModelType = "normal",
    path: str | Path | None = None,
) -> "TaskData":
    """Find the datasets of a task.

    Args:
        task: as the database calls it.
        langs: languages that must have it; None is all that do.
        names: of datasets, for languages that have several.
        model_type: "ipa" takes the columns FEATURE-phoneme.
        path: of the database, see `read_database`.

    Raises:
        UserError: if the task, a language or a dataset is not in the database, or a choice is needed.
    """
    database, file = read_database(path), Path(path or DEFAULT_DATABASE)
    having = sorted(lang for lang in database if task in database[lang])
    if not having:
        tasks = {known for of_language in database.values() for known in of_language}
        raise UserError(f"{file}: no language has the task {task!r}{nearest(task, tasks)}")
    for lang in langs or []:
        if lang not in having:
            reason = f"has no task {task!r}" if lang in database else "is not in the database"
            raise UserError(f"{file}: language {lang!r} {reason}{nearest(lang, having)}")
    entries = {}
    for lang in langs or having:
        known = database[lang][task]
        chosen = [name for name in known if names is None or name in names]
        if not chosen and langs is None:
            continue
        if len(chosen) != 1:
            choice = "several datasets" if chosen else f"no dataset {' or '.join(names or [])}"
            raise UserError(f"{file}: {lang}.{task} has {choice}; choose with --dataset, of: {', '.join(known)}")
        entries[lang] = known[chosen[0]]
    return TaskData(file, task, entries, model_type)


@dataclass
class Split:
    """What one split of a dataset holds: a tuple of texts (one per column) and the names of the labels of every row.

    `class_names` are those of a ClassLabel, None for labels that are integers or strings.
    """

    columns: list[str]
    texts: list[tuple[str, ...]]
    labels: list[list[str]]
    class_names: list[str] | None


@dataclass
class TaskData:
    """The datasets of one task; what a register corpus is for registers, see `utils.data.corpus_load.Corpus`."""

    file: Path
    task: str
    entries: dict[str, Entry]
    model_type: ModelType
    _splits: dict[tuple[str, str], Split] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Where the texts come from, for run.json."""
        return f"{self.file}: {self.task}"

    @property
    def multilabel(self) -> bool:
        """Whether a text may have several labels; datasets of both kinds make no task."""
        kinds = {lang: entry.multilabel for lang, entry in self.entries.items()}
        if len(set(kinds.values())) > 1:
            several = ", ".join(lang for lang, multilabel in kinds.items() if multilabel)
            raise UserError(f"{self.file}: the task_type of {self.task} is multi_label in {several} alone")
        return any(kinds.values())

    @property
    def subregisters(self) -> dict[str, list[str]]:
        """No label stands under another."""
        return {}

    def with_labels(self, labels: str, langs: list[str]) -> "TaskData":
        """Return the task; its task_type says whether a text may have several labels.

        Raises:
            UserError: if --labels says otherwise.
        """
        if labels != "auto" and (labels == "multi") != self.multilabel:
            raise UserError(f"--labels {labels}: the task_type of {self.task} in {self.file} says what labels it has")
        return self

    def as_labelled(self, multilabel: bool, labels: list[str]) -> "TaskData":
        """Return the task, whose texts must be labelled as the model labels them.

        Raises:
            UserError: if they are not.
        """
        if multilabel != self.multilabel:
            kinds = {True: "any number of labels", False: "one label"}
            raise UserError(f"{self.name} gives texts {kinds[self.multilabel]}, the model {kinds[multilabel]}")
        return self

    def languages(self, split: str) -> list[str]:
        """Return the languages of the task, sorted; they are the same for both splits."""
        return sorted(self.entries)

    def require(self, split: str, langs: list[str]) -> None:
        """Raise a `UserError` unless these languages have sound texts and labels in this split."""
        for lang in langs:
            self._read(split, lang)

    def label_names(self, langs: list[str]) -> list[str]:
        """Return the names of the labels that these languages share, in their order.

        Integers are their own names; those of strings are sorted; a ClassLabel has its own order.

        Raises:
            UserError: if their number is not what the database says, or languages differ.
        """
        names = {lang: self._label_names(lang) for lang in langs}
        first = langs[0]
        for lang in langs[1:]:
            if len(names[lang]) != len(names[first]):
                raise UserError(
                    f"{self.file}: {self.task} has {len(names[first])} classes in {first} and {len(names[lang])} "
                    f"in {lang}; one model cannot learn both"
                )
            if names[lang] != names[first]:
                raise UserError(
                    f"{self.file}: {self.task} has the labels {', '.join(names[first])} in {first}, "
                    f"{', '.join(names[lang])} in {lang}; name them alike"
                )
        return names[first]

    def load(self, split: str, lang: str, separator: str) -> "datasets.Dataset":
        """Load one language as a dataset with the columns text, label and lang.

        The label is an index into `label_names([lang])`; of a multi_label task, 0 or 1 for each of them.

        Args:
            split: "train" or "test".
            lang: the language.
            separator: put between the texts of several columns, unless the database has its own.
        """
        separator = self._entry(lang).separator or separator
        read, values = self._read(split, lang), self._label_values(lang)
        index = {value: number for number, value in enumerate(values)}
        rows = (
            (
                separator.join(texts),
                [int(value in names) for value in values] if self.multilabel else index[names[0]],
                lang,
            )
            for texts, names in zip(read.texts, read.labels, strict=True)
        )
        return make_dataset(rows, label_columns(self.multilabel))

    def clusters(self, split: str, lang: str) -> None:
        """Return None: datasets have no column for clusters."""

    def provenance(self, split: str, langs: list[str]) -> list[dict[str, Any]]:
        """Return for run.json where the texts of these languages are, and the SHA-256 of texts and labels."""
        return [self._provenance(split, lang) for lang in langs]

    def _provenance(self, split: str, lang: str) -> dict[str, Any]:
        read, entry, digest = self._read(split, lang), self._entry(lang), hashlib.sha256()
        for texts, labels in zip(read.texts, read.labels, strict=True):
            for value in (*texts, " ".join(labels)):
                encoded = value.encode("utf-8", "surrogatepass")
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
        place = {"dataset": entry.source.name, "name": entry.name, "split": entry.split(split)}
        return place | {"columns": [*read.columns, entry.eval_feature], "sha256": digest.hexdigest()}

    def _entry(self, lang: str) -> Entry:
        if lang not in self.entries:
            raise UserError(f"{self.file}: {lang!r} has no {self.task}{nearest(lang, self.entries)}")
        return self.entries[lang]

    def _label_names(self, lang: str) -> list[str]:
        entry, values = self._entry(lang), self._label_values(lang)
        if entry.label_names and self._read("train", lang).class_names is None:
            return entry.label_names
        return values

    def _label_values(self, lang: str) -> list[str]:
        """Return the different labels of a language as they stand in its data, in their order."""
        entry = self._entry(lang)
        found = {label for split in ("train", "test") for row in self._read(split, lang).labels for label in row}
        names = self._read("train", lang).class_names
        if names is None:
            numbers = all(name.removeprefix("-").isdecimal() for name in found)
            names = sorted(found, key=int) if numbers else sorted(found)
        if not found <= set(names):
            strange = ", ".join(sorted(found - set(names))[:10])
            raise UserError(f"{self.file}: {entry.where}: the splits differ in their labels: {strange} is not in both")
        if len(names) != entry.classes:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise UserError(
                f"{self.file}: {entry.where}.classes: {entry.classes}, but the data have {len(names)} labels: {shown}"
            )
        return names

    def _read(self, split: str, lang: str) -> Split:
        """Read a split of a language, once."""
        if (split, lang) not in self._splits:
            entry = self._entry(lang)
            try:
                self._splits[split, lang] = self._read_anew(entry, entry.split(split), lang)
            except UserError as error:
                raise UserError(f"{self.file}: {entry.where}: {error}") from error
            except RunFailure as error:
                other = "" if self.file == DEFAULT_DATABASE else f" --language_database {shlex.quote(str(self.file))}"
                raise RunFailure(
                    f"{self.file}: {entry.where}: {error}\nwhere there is internet, "
                    f"python -m utils.data.language_database --task {self.task}{other} fetches it"
                ) from error
        return self._splits[split, lang]

    def _read_anew(self, entry: Entry, split: str, lang: str) -> Split:
        import datasets

        dataset = load_split(entry.source, split)
        columns = [name + PHONEMES * (self.model_type == "ipa") for name in entry.train_features]
        for column in (*columns, entry.eval_feature):
            if column not in dataset.column_names:
                advice = nearest(column, dataset.column_names)
                if column.endswith(PHONEMES):
                    advice = f"; python -m utils.data.transcribe --task {self.task} --langs {lang} makes it"
                raise UserError(f"split {split}: no column {column!r}{advice}")
        feature = dataset.features[entry.eval_feature]
        feature = getattr(feature, "feature", feature)
        names = feature.names if isinstance(feature, datasets.ClassLabel) else None
        texts = list(zip(*(dataset[column][:] for column in columns), strict=True))
        for row, values in enumerate(texts, 1):
            if not all(isinstance(value, str) for value in values):
                raise UserError(f"split {split}, row {row}: expected texts in {', '.join(columns)}, got {values}")
        labels = []
        for row, value in enumerate(dataset[entry.eval_feature][:], 1):
            own = [_label_name(part, names) for part in _labels_of(value, entry.multilabel)]
            known = [name for name in own if name is not None]
            if len(known) < len(own):
                raise UserError(f"split {split}, row {row}: {value!r} in {entry.eval_feature!r} is not a label")
            labels.append(known)
        return Split(columns, texts, labels, names)


def _labels_of(value: Any, multilabel: bool) -> list[Any]:
    """Return the labels of a row: one, or those of a list, or those that blanks part."""
    if multilabel and isinstance(value, str):
        return value.split()
    return value if multilabel and isinstance(value, list) else [value]


def _label_name(value: Any, class_names: list[str] | None) -> str | None:
    """Return the name of a label; None if the value cannot be a label."""
    if class_names is not None:
        return class_names[value] if value is not None and 0 <= value < len(class_names) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) and value != "" else None


@dataclass(kw_only=True)
class ListOptions(DatabaseOptions, CommonOptions):
    """The options of ``python -m utils.data.language_database``."""

    GROUP: ClassVar[str] = DATA

    task: str | None = option(None, "this task only")


def main() -> int:
    """List the datasets of the database; returns 1 if one of them cannot be used."""
    options = parse_options(ListOptions, __doc__)
    database, failed = read_database(options.language_database), 0
    print(f"{'dataset':40} {'train':>8} {'evaluate':>8}  labels")
    for lang, tasks in database.items():
        for task, entries in tasks.items():
            for name, entry in entries.items() if options.task in (None, task) else ():
                data = open_task(task, [lang], names=[name], path=options.language_database)
                try:
                    labels = ", ".join(data.label_names([lang]))
                    sizes = [len(data.load(split, lang, " ")) for split in ("train", "test")]
                except (UserError, RunFailure) as error:
                    failed += 1
                    print(f"{entry.where}: error: {error}", file=sys.stderr)
                else:
                    print(f"{entry.where:40} {sizes[0]:8,} {sizes[1]:8,}  {labels}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
