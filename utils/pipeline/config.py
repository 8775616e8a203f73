"""The YAML file of run_pipeline.py: tasks and their subtasks, each a fine-tuning, an evaluation and a parsing of logs.

    data: {dataset: fancyzhx/ag_news, validation_size: 20000}   # or a folder with train and test as CSV or Parquet
    results_dir: outputs/agnews
    defaults: {evaluate: true, parse_logs: true, training_args: {num_epochs: 5, batch_size: 8}}
    tasks:
      C:                                                        # keys here hold for all its subtasks
        fine_tune: true
        lora: {targets: query, r: 8, alpha: 32, dropout: 0.01}
        subtasks:
          C1_v1: {model_name: bert, training_args: {learning_rate: 5e-5}}

Keys of a subtask win over those of its task, these over `defaults` and the file's own directories; training_args and
lora are merged key by key.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.cli.config_files import read_config
from utils.cli.options import EFFORT, HYPERPARAMETER, MODEL, OPTUNA, aliases, options_by_role
from utils.cli.values import merge
from utils.data.dataset_files import SPLIT_FIELD
from utils.data.hub import local_or_hub
from utils.errors import UserError, nearest
from utils.jobs.experiments import check_config
from utils.models.adapters import TARGETS
from utils.models.registry import find_model
from utils.runs.layout import RunLayout
from utils.training.baseline import TFIDF, baseline_names
from utils.training.classifier_options import FinetuneOptions

TASK, LANGUAGE, DATASET = "ag_news", "english", "ag_news"


# https://huggingface.co/datasets/fancyzhx/ag_news; 1 to 4 in the files of Zhang, Zhao and LeCun (2015).
LABELS = ["World", "Sports", "Business", "Sci/Tech"]
OFFICIAL_COLUMNS = ["class", "title", "description"]
DIRECTORIES = ("logs_dir", "checkpoints_dir", "model_dir", "results_dir")
STEPS = ("fine_tune", "evaluate", "parse_logs")
SHARED_KEYS = (*DIRECTORIES, "model_registry")
KEYS = ("model_name", "pretrained", *STEPS, "training_args", "lora", "keep_checkpoints", *SHARED_KEYS)
LORA_KEYS = {
    **{"targets": "lora_targets", "r": "lora_r", "alpha": "lora_alpha", "dropout": "lora_dropout"},
    **{"rslora": "rslora", "dora": "dora", "merge": "merge_adapter"},
}
# What training_args may hold; the rest says what a subtask is, or where its files are.
HYPERPARAMETERS = [
    name
    for name in options_by_role(FinetuneOptions, HYPERPARAMETER, EFFORT, without_groups=(MODEL, OPTUNA))
    if name not in (*LORA_KEYS.values(), "validation_size", "keep_checkpoints", "print_config", "force", "debug")
]
# Where that is said instead.
ELSEWHERE = {
    "validation_size": "give it under data",
    "output_dir": "give results_dir beside training_args",
    "models_dir": "give model_dir beside training_args",
    "do_optimize": "a pipeline trains; search with finetune.py --do_optimize",
    "force": "give --force to run_pipeline.py",
    **dict.fromkeys(("subfolder", "train_langs"), "every subtask has its own"),
    **dict.fromkeys(
        ("checkpoints_dir", "model_registry", "model_name", "keep_checkpoints"), "give it beside training_args"
    ),
    **dict.fromkeys(("task", "dataset", "corpus_path", "language_database", "model_type"), "the data are under data"),
    **{name: f"give {key} under lora" for key, name in LORA_KEYS.items()},
}
ALIASES = aliases(FinetuneOptions)
DEFAULTS = {
    **dict.fromkeys(STEPS, True),
    "pretrained": False,
    "keep_checkpoints": False,
    "training_args": {},
    "lora": {},
    "logs_dir": "outputs/agnews/logs",
    "model_dir": "models/agnews",
    "results_dir": "outputs/agnews",
}


@dataclass(frozen=True)
class Subtask:
    """One model of the comparison.

    Attributes:
        name: of the subtask, for instance C1_v1.
        task: that it belongs to.
        settings: all keys of `KEYS`.
        config: options of finetune.py.
    """

    name: str
    task: str
    settings: dict[str, Any]
    config: dict[str, Any]

    @property
    def is_baseline(self) -> bool:
        """Whether it is TF-IDF and a linear model, and no neural network."""
        return self.settings["model_name"] == TFIDF

    @property
    def layout(self) -> RunLayout:
        """Where its files are."""
        c = self.config
        return RunLayout(
            c["model_name"], LANGUAGE, c["subfolder"], c["output_dir"], c["models_dir"], c.get("checkpoints_dir")
        )

    @property
    def eval_langs(self) -> list[str]:
        """What it is evaluated on."""
        return [LANGUAGE]

    @property
    def log(self) -> Path:
        """The table of its epochs."""
        return Path(self.settings["logs_dir"]) / f"{self.name}.csv"


class PipelineFile:
    """A pipeline as its file describes it.

    Args:
        path: of the YAML file.

    Raises:
        UserError: with file and line, for unknown keys and wrong values.
    """

    def __init__(self, path: Path):
        self.path = path
        content = read_config(path)
        self.lines = _lines(path)
        self._check_keys(content, (), ("data", "defaults", "tasks", *SHARED_KEYS))
        self.data = self._mapping(content, ("data",))
        self._check_keys(self.data, ("data",), ("dataset", "revision", "validation_size"))
        if "dataset" not in self.data:
            raise self._error(("data",), "dataset is missing: an id of the hub or a folder")
        for key in ("dataset", "revision"):
            if key in self.data and not (isinstance(self.data[key], str) and self.data[key]):
                raise self._error(("data", key), f"{key} must be a name, got {self.data[key]!r}")
        common = self._settings(content.get("defaults", {}), ("defaults",), KEYS)
        common = merge(common, self._settings({x: content[x] for x in SHARED_KEYS if x in content}, (), SHARED_KEYS))
        self.subtasks: list[Subtask] = []
        for task, given in self._mapping(content, ("tasks",)).items():
            self._task(str(task), given, merge(DEFAULTS, common))

    def _task(self, task: str, given: Any, common: dict[str, Any]) -> None:
        where = ("tasks", task)
        own = dict(self._settings(given, where, (*KEYS, "subtasks")))
        subtasks = own.pop("subtasks", {task: {}})
        if not isinstance(subtasks, dict) or not subtasks:
            raise self._error((*where, "subtasks"), "expected a mapping of names to subtasks")
        for name, below in subtasks.items():
            place = (*where, "subtasks", name) if "subtasks" in (given or {}) else where
            # Of a task without subtasks, its own keys are those of its only one.
            special = self._settings(below or {}, place, KEYS) if place != where else own
            self._check_special(place, special, merge(common, merge(own, special)))
            if merge(own, special).get("lora"):
                self._subtask(str(name), task, place, merge(common, merge(own, special)))
            else:
                # What `defaults` say of adapters is for those that have some.
                self._subtask(str(name), task, place, merge(common, merge(own, special)) | {"lora": {}})

    def _check_special(self, where: tuple[str, ...], own: dict[str, Any], settings: dict[str, Any]) -> None:
        """Refuse what a subtask says itself and what would be ignored."""
        if settings.get("model_name") == TFIDF:
            followed = [name for name in HYPERPARAMETERS if name in (*baseline_names(), "seed")]
            for key in own.get("training_args", {}):
                if ALIASES.get(key, key) not in followed:
                    raise self._error(
                        (*where, "training_args", key),
                        f"{TFIDF} has no {key}; of training_args it follows {', '.join(followed)}",
                    )
            for key in ("lora", "pretrained", "keep_checkpoints"):
                if own.get(key):
                    raise self._error((*where, key), f"{TFIDF} has no {key}")

    def _subtask(self, name: str, task: str, where: tuple[str, ...], settings: dict[str, Any]) -> None:
        if any(name == other.name for other in self.subtasks):
            raise self._error(where, f"there is another subtask {name}")
        for key in ("pretrained", "keep_checkpoints", *STEPS):
            if not isinstance(settings[key], bool):
                raise self._error((*where, key), f"{key} must be true or false, got {settings[key]!r}")
        if not isinstance(settings.get("model_name"), str):
            raise self._error(where, f"{name} has no model_name")
        if settings["lora"] and not settings["lora"].get("targets"):
            raise self._error((*where, "lora"), f"{name}: lora without targets: say what it adapts, as targets: query")
        if settings["pretrained"] and settings["fine_tune"]:
            raise self._error(
                where, f"{name}: a pretrained model is evaluated as it is; leave fine_tune or pretrained out"
            )
        config = {
            **settings["training_args"],
            **{LORA_KEYS[key]: value for key, value in settings["lora"].items()},
            "model_name": settings["model_name"],
            "task": TASK,
            "train_langs": LANGUAGE,
            "language_database": str(Path(settings["results_dir"]) / "language-database.json"),
            "subfolder": name,
            "output_dir": settings["results_dir"],
            "models_dir": settings["model_dir"],
            "validation_size": self.data.get("validation_size", 20_000),
            "evaluate_train": True,
            "keep_checkpoints": settings["keep_checkpoints"],
        }
        if isinstance(config.get("lora_targets"), str):
            config["lora_targets"] = [config["lora_targets"]]
        config |= {name: settings[name] for name in ("checkpoints_dir", "model_registry") if name in settings}
        if "model_registry" in config:
            # Beside this file, wherever the script is called.
            config["model_registry"] = str((self.path.parent / config["model_registry"]).resolve())
        if settings["pretrained"]:
            config["num_epochs"] = 0
        place = self._at(where)
        options = check_config(config, place)
        subtask = Subtask(name, task, settings, config)
        try:
            _ = subtask.layout
            if not subtask.is_baseline:
                find_model(options.model_name, options.model_registry)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        self.subtasks.append(subtask)

    def _settings(self, given: Any, where: tuple[str, ...], known: tuple[str, ...]) -> dict[str, Any]:
        """Return the keys that stand at a place, checked."""
        if not isinstance(given, dict):
            raise self._error(where, f"expected a mapping, got {given!r}")
        self._check_keys(given, where, known)
        for key in SHARED_KEYS:
            if key in given and not (isinstance(given[key], str) and given[key]):
                raise self._error((*where, key), f"{key} must be a path, got {given[key]!r}")
        for key, names in (("training_args", (*HYPERPARAMETERS, *ALIASES)), ("lora", LORA_KEYS)):
            if key in given:
                if not isinstance(given[key], dict):
                    raise self._error((*where, key), f"{key} must be a mapping, got {given[key]!r}")
                self._check_keys(given[key], (*where, key), tuple(names))
                for name, value in given[key].items():
                    if value is None:
                        raise self._error((*where, key, name), f"{name} has no value; leave it out for the default")
        if "training_args" in given:
            given = given | {"training_args": self._renamed(given["training_args"], (*where, "training_args"))}
        targets = given.get("lora", {}).get("targets", [])
        for target in [targets] if isinstance(targets, str) else targets:
            if target not in TARGETS:
                place = (*where, "lora", "targets")
                raise self._error(place, f"unknown target {target!r}{nearest(target, TARGETS)}")
        return given

    def _renamed(self, given: dict[str, Any], where: tuple[str, ...]) -> dict[str, Any]:
        """Return training arguments under the names that finetune.py has for the Trainer's."""
        renamed: dict[str, Any] = {}
        for key, value in given.items():
            name = ALIASES.get(key, key)
            if name in renamed:
                raise self._error((*where, key), f"{key} is {name}, which is given too; which value is meant?")
            renamed[name] = value
        return renamed

    def _mapping(self, content: dict[str, Any], where: tuple[str, ...]) -> dict[str, Any]:
        value = content.get(where[-1])
        if not isinstance(value, dict) or not value:
            raise self._error(where, f"{where[-1]} is missing or no mapping")
        return value

    def _check_keys(self, given: dict[str, Any], where: tuple[str, ...], known: tuple[str, ...]) -> None:
        for key in given:
            if key not in known:
                hint = FinetuneOptions.HINTS.get(key) or ELSEWHERE.get(key) if "training_args" in where else None
                if hint:
                    raise self._error((*where, key), f"{key} is not for training_args; {hint}")
                raise self._error((*where, key), f"unknown key {key!r}{nearest(str(key), known)}")

    def _at(self, where: tuple[str, ...]) -> str:
        while where and where not in self.lines:
            where = where[:-1]
        return f"{self.path}, line {self.lines.get(where, 1)}"

    def _error(self, where: tuple[str, ...], message: str) -> UserError:
        return UserError(f"{self._at(where)}: {message}")

    def choose(self, names: list[str] | None) -> list[Subtask]:
        """Return the subtasks of these names, tasks or subtasks; None is all.

        Raises:
            UserError: for a name that neither has.
        """
        known = [name for subtask in self.subtasks for name in (subtask.task, subtask.name)]
        for name in names or []:
            if name not in known:
                raise UserError(f"--tasks: {self.path} has no {name!r}{nearest(name, dict.fromkeys(known))}")
        return [s for s in self.subtasks if names is None or s.name in names or s.task in names]

    def database(self) -> dict[str, Any]:
        """Return the entry of the language database that describes the data."""
        dataset = local_or_hub(Path("pipeline").resolve(), str(self.data["dataset"]))
        entry = {"dataset": dataset, "splits": ["train", "test"], "task_type": "classification", "classes": len(LABELS)}
        folder = Path(dataset)
        official = folder.is_absolute() and not (SPLIT_FIELD in dataset or (folder / "dataset_dict.json").is_file())
        if official and (folder / "train.csv").is_file():
            entry |= {"columns": OFFICIAL_COLUMNS, "train_features": OFFICIAL_COLUMNS[1:], "separator": " "}
            entry |= {"eval_feature": OFFICIAL_COLUMNS[0], "label_names": LABELS}
        else:
            entry |= {"train_features": ["text"], "eval_feature": "label", "label_names": LABELS}
        if "revision" in self.data:
            entry["revision"] = self.data["revision"]
        return {LANGUAGE: {TASK: {DATASET: entry}}}


def _lines(path: Path) -> dict[tuple[str, ...], int]:
    """Return the line of every key of a YAML file, by its path."""
    import yaml

    def walk(node: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == "<<":
                    for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                        yield from walk(merged, where)
                    continue
                below = (*where, str(key.value))
                yield below, key.start_mark.line + 1
                yield from walk(value, below)

    # A file that has been read, so nothing is wrong with it.
    with path.open(encoding="utf-8-sig") as file:
        return dict(walk(yaml.compose(file, Loader=yaml.SafeLoader), ()))
