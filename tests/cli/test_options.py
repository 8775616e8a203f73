"""What is derived from the options' roles, for every option, so that none can be forgotten."""

import dataclasses
import json
import shutil

import pytest

import finetune
import post_eval
from tests.factories import FAST, PROJECT
from utils.cli.options import (
    EFFORT,
    HYPERPARAMETER,
    IDENTITY,
    PLACE,
    ROLES,
    SEARCH,
    CommonOptions,
    declared,
    empty_value,
    option,
    options_by_role,
)
from utils.cli.parser import OptionParser
from utils.errors import UserError
from utils.evaluation.metrics import METRICS
from utils.evaluation.seeds import find_groups
from utils.evaluation.surprisal_options import SURPRISALS
from utils.jobs.grid import read_grid
from utils.models.adapters import AdapterOptions
from utils.models.model_card import classifier_card
from utils.runs.files import write_json
from utils.runs.layout import RunLayout
from utils.runs.record import differences
from utils.training import classifier_options, lm_options
from utils.training.classifier_options import FinetuneOptions, card_options
from utils.training.classifier_setup import searchable
from utils.training.lm_options import FinetuneLmOptions
from utils.training.study import free_in_study, study_name

SCRIPTS = {FinetuneOptions: classifier_options, FinetuneLmOptions: lm_options}
OPTIONS = [(cls, field.name) for cls in SCRIPTS for field in dataclasses.fields(cls)]
FILES = [{"path": "train.tsv", "sha256": "0" * 64}]


def fields_of(options_class):
    """The options by name, as `dataclasses.fields` gives them."""
    return {field.name: field for field in dataclasses.fields(options_class)}


def settings_of(options_class):
    """All options as they go to run.json."""
    required = {"model_name": "tiny", "train_langs": "en", "model_name_or_path": "gpt2"}
    own = {name: value for name, value in required.items() if name in fields_of(options_class)}
    return dataclasses.asdict(options_class(**own))


def role_of(options_class, name):
    return declared(options_class, fields_of(options_class)[name], "role") or IDENTITY


@pytest.mark.parametrize(("options_class", "name"), OPTIONS)
def test_the_role_decides_what_makes_another_run_and_another_study(options_class, name):
    role, free = role_of(options_class, name), SCRIPTS[options_class].FREE_OPTIONS
    assert role in ROLES
    settings = settings_of(options_class)
    other = settings | {name: "something else"}
    record = {"options": settings, "data": {"files": FILES}}
    is_another_run = bool(differences(record, other, FILES, free))
    assert is_another_run == (role in (IDENTITY, HYPERPARAMETER))
    options = options_class.__new__(options_class)
    options.study_kwargs, options.params = {"direction": "maximize"}, {"x": {}}
    names = {study_name(options, given, FILES, free_in_study(options_class)) for given in (settings, other)}
    assert (len(names) == 2) == (role not in (PLACE, EFFORT))


@pytest.mark.parametrize(
    "name",
    [
        *("max_restarts", "report_to", "cache_dir", "corpus_path", "model_registry", "checkpoints_dir"),
        *(
            "eval_token_budget",
            "language_database",
            "output_dir",
            "models_dir",
            "subfolder",
            "config",
            "debug",
            "force",
        ),
    ],
)
def test_places_and_effort_are_neither_another_run_nor_another_study(name):
    assert role_of(FinetuneOptions, name) in (PLACE, EFFORT)


def test_trials_of_other_seeds_or_data_are_another_study():
    settings, options = settings_of(FinetuneOptions), FinetuneOptions(model_name="tiny", train_langs="en")
    free = free_in_study(FinetuneOptions)
    names = {study_name(options, settings | {"seed": seed}, FILES, free) for seed in (1, 2)}
    names.add(study_name(options, settings | {"seed": 1}, [{"sha256": "1" * 64}], free))
    assert len(names) == 3


# What options need to have an effect.
NEEDED = {
    **{field.name: {"lora_targets": ["query"]} for field in dataclasses.fields(AdapterOptions)},
    "mix_exponent": {"mix": "temperature"},
    **{key: {"long_texts": "windows"} for key in ("window_stride", "window_pooling")},
}


def test_every_hyperparameter_can_be_part_of_a_grid_and_nothing_else(tmp_path):
    for name in fields_of(FinetuneOptions):
        default = settings_of(FinetuneOptions)[name]
        path = tmp_path / "grid.json"
        write_json(path, {"parameters": {name: [default]}})
        base = {"model_name": "tiny"} | NEEDED.get(name, {})
        if role_of(FinetuneOptions, name) == HYPERPARAMETER and not isinstance(default, dict):
            assert read_grid(path, base).parameters == {name: [default]}
        elif role_of(FinetuneOptions, name) != HYPERPARAMETER:
            with pytest.raises(UserError, match=f"parameters.{name} is for the config"):
                read_grid(path, base)


def test_what_a_study_searches_is_a_hyperparameter_that_trials_do_not_share():
    found = searchable(FinetuneOptions(model_name="tiny", train_langs="en"))
    assert {"learning_rate", "batch_size", "num_epochs", "attention_dropout", "lora_r", "precision"} <= set(found)
    assert all(role_of(FinetuneOptions, name) == HYPERPARAMETER for name in found)
    # Texts and model are the same in all trials.
    assert not {"mix", "max_length", "validation_size", "model_name"} & set(found)
    assert (found["num_epochs"], found["attention_dropout"]) == (0, 0.0), "values of their types"


def test_every_hyperparameter_that_was_given_stands_in_the_card(tmp_path):
    settings = settings_of(FinetuneOptions) | {"checkpoint": "tiny", "lora_targets": ["query"]}
    shown = card_options(settings)
    values = {name: f"value-{number}" for number, name in enumerate(shown)}
    record = {"options": settings | values | {"lora_targets": ["query"]}, "data": {"registers": ["IN"], "files": []}}
    card = classifier_card(RunLayout("tiny", "en"), record, {}, [], shown)
    for name in set(shown) - {"lora_targets"}:
        assert f"| {name} | {values[name]} |" in card
    assert not {"lora_r", "dora"} & set(card_options(settings_of(FinetuneOptions)))


@pytest.mark.slow
def test_moving_the_language_database_is_no_other_run(inputs, invoke):
    database = inputs.folder / "first.json"
    shutil.copytree(PROJECT / "demo/sentiment", inputs.folder / "sentiment")
    content = json.loads(
        "\n".join(
            line for line in (PROJECT / "config/language-database.json").read_text().splitlines() if "//" not in line
        ).replace("../demo/sentiment", "sentiment")
    )
    database.write_text(json.dumps(content))
    command = ["--model_name", "tiny", "--task", "sentiment", "--train_langs", "polish", *FAST, "--num_epochs", "1"]
    assert invoke(finetune, *command, "--language_database", database)[0] == 0
    moved = inputs.folder / "moved.json"
    database.rename(moved)
    status, output, errors = invoke(finetune, *command, "--language_database", moved)
    assert (status, errors) == (0, "") and "is already complete" in output


def test_seeds_of_two_databases_are_one_group(tmp_path, invoke, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, folder in ((1, "a"), (2, "b")):
        options = settings_of(FinetuneOptions) | {"seed": seed, "language_database": f"{folder}/language-database.json"}
        options |= {name: f"{folder}/{name}" for name in ("output_dir", "models_dir", "checkpoints_dir", "subfolder")}
        outputs = tmp_path / "outputs" / folder / "tiny-en"
        write_json(
            outputs / "run.json", {"status": "complete", "options": options, "data": {"files": FILES}, "seed": seed}
        )
        matrix = [[3, 1], [0, 4]]
        scores = dict.fromkeys(("accuracy", "precision", "recall", "micro_f1", "macro_f1", "weighted_f1"), 0.5)
        result = {"model": "tiny", "train_langs": "en", "eval_lang": "fr", "registers": ["IN", "OP"]}
        per_register = {name: {"precision": 1, "recall": 1, "f1": 1, "support": 4} for name in ("IN", "OP")}
        more = {"confusion_matrix": matrix, "per_register": per_register, "num_texts": 8}
        write_json(outputs / "eval" / "fr.json", result | scores | more)
    (group,) = find_groups(tmp_path / "outputs", classifier_options.FREE_OPTIONS)
    assert set(group.runs) == {1, 2}
    status, _, errors = invoke(post_eval, "--seeds", "--ignore_report")
    assert (status, errors) == (0, "")
    assert (tmp_path / "outputs" / "seeds.csv").read_text().count("\ntiny,en,") == len(METRICS)


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="unknown role 'hyper'"):
        option(1, "number", role="hyper")


def test_a_value_of_each_type():
    fields = fields_of(FinetuneOptions)
    assert [empty_value(fields[name]) for name in ("num_epochs", "attention_dropout", "task")] == [0, 0.0, ""]
    assert empty_value(fields["lora_targets"]) is None


GROUPS = ["what to train", "data", "training", "speed and memory", "adapters", "search", "where things are", "Slurm"]


@pytest.mark.parametrize("options_class", SCRIPTS)
def test_help_has_groups_and_ends_with_optuna(options_class):
    text = OptionParser(options_class).format_help()
    headings = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    own = [SURPRISALS] if options_class is FinetuneLmOptions else []
    assert headings == [*GROUPS[:6], *own, *GROUPS[6:], "other options", "Optuna"]
    # No dictionary of defaults in the middle of the page.
    assert "GPSampler" not in text and "wrapped_pruner" not in text
    known = [action.dest for action in OptionParser(options_class)._actions]
    assert set(fields_of(options_class)) <= set(known)


def test_options_of_a_class_take_its_role_and_group():
    @dataclasses.dataclass(kw_only=True)
    class Own(CommonOptions):
        ROLE = PLACE
        GROUP = "mine"
        here: str = option("x", "one")
        there: str = option("x", "another", role=SEARCH, group="theirs")

    fields = fields_of(Own)
    assert declared(Own, fields["here"], "role") == PLACE and declared(Own, fields["here"], "group") == "mine"
    assert declared(Own, fields["there"], "role") == SEARCH and declared(Own, fields["there"], "group") == "theirs"
    assert declared(Own, fields["seed"], "role") == HYPERPARAMETER
    assert "here" in options_by_role(Own, PLACE, groups=("mine",))
    assert "here" not in options_by_role(Own, PLACE, without_groups=("mine",))
