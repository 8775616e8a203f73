"""What config/language-database.json may say of a dataset, see `utils.data.language_database`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import PROJECT
from utils.cli.config_files import read_config
from utils.data.dataset_files import SPLIT_FIELD, DatasetSource
from utils.data.hub import local_or_hub
from utils.errors import UserError, nearest
from utils.runs.layout import check_lang

DEFAULT_DATABASE = PROJECT / "config" / "language-database.json"
REQUIRED = ("dataset", "train_features", "eval_feature", "splits", "task_type", "classes")
HUB_KEYS = ("subset", "revision")
OPTIONAL = (*HUB_KEYS, "columns", "label_names", "separator")
# Of the second, a text has any number of labels.
TASK_TYPES = ("classification", "multi_label")


@dataclass(frozen=True)
class Entry:
    """One dataset of the database: `where` is its place there, `splits` are for training and for evaluation."""

    where: str
    name: str
    source: DatasetSource
    train_features: list[str]
    eval_feature: str
    splits: list[str]
    classes: int
    label_names: list[str] | None = None
    separator: str | None = None
    multilabel: bool = False

    def split(self, purpose: str) -> str:
        """Return the name that the dataset has for "train" or "test"."""
        return self.splits[0 if purpose == "train" else 1]


def read_database(path: str | Path | None = None) -> dict[str, dict[str, dict[str, Entry]]]:
    """Read the database: language -> task -> dataset name -> entry.

    Args:
        path: of the file, JSON with or without comments or YAML; None is config/language-database.json.

    Raises:
        UserError: with the path of the key that is wrong.
    """
    file = Path(path or DEFAULT_DATABASE)
    database: dict[str, dict[str, dict[str, Entry]]] = {}
    for language, tasks in read_config(file).items():
        try:
            check_lang(language)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        for task, entries in _mapping(file, language, tasks).items():
            for name, content in _mapping(file, f"{language}.{task}", entries).items():
                where = f"{language}.{task}.{name}"
                entry = _entry(file, where, name, _mapping(file, where, content))
                database.setdefault(language, {}).setdefault(task, {})[name] = entry
    return database


def _mapping(file: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise UserError(f"{file}: {where}: expected an object, got {value!r}")
    return value


def _entry(file: Path, where: str, name: str, content: dict[str, Any]) -> Entry:
    for key in content:
        if key not in (*REQUIRED, *OPTIONAL):
            raise UserError(f"{file}: {where}.{key}: unknown key{nearest(key, (*REQUIRED, *OPTIONAL))}")
    for key in REQUIRED:
        if key not in content:
            raise UserError(f"{file}: {where}.{key} is missing")

    def check(key: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UserError(f"{file}: {where}.{key}: expected {expected}, got {content[key]!r}")

    for key in ("dataset", "eval_feature", "separator", *HUB_KEYS):
        check(key, key not in content or _is_name(content[key]), "a string")
    for key in ("columns", "label_names"):
        check(key, key not in content or _are_names(content[key]), "a list of different names")
    features, splits = content["train_features"], content["splits"]
    check("train_features", _are_names(features) and len(features) > 0, "a list of different columns")
    check("train_features", content["eval_feature"] not in features, "columns other than the label's")
    check("splits", _are_names(splits) and len(splits) == 2, "two different splits, to train and to evaluate on")
    check("task_type", content["task_type"] in TASK_TYPES, f"one of {', '.join(TASK_TYPES)}")
    check("classes", type(content["classes"]) is int and content["classes"] > 1, "a whole number above 1")
    # A file with a split in its name is not there under that name.
    dataset = content["dataset"]
    place = str((file.parent / dataset).resolve()) if SPLIT_FIELD in dataset else local_or_hub(file, dataset)
    columns = tuple(content["columns"]) if "columns" in content else None
    source = DatasetSource(place, content.get("subset"), content.get("revision"), columns)
    if source.is_local and set(content) & set(HUB_KEYS):
        raise UserError(f"{file}: {where}: subset and revision are for datasets of the hub, {dataset} is a local one")
    names, separator = content.get("label_names"), content.get("separator")
    check("label_names", names is None or len(names) == content["classes"], "as many names as there are classes")
    return Entry(
        where,
        name,
        source,
        features,
        content["eval_feature"],
        splits,
        content["classes"],
        names,
        separator,
        multilabel=content["task_type"] == "multi_label",
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value)) and len(set(value)) == len(value)
