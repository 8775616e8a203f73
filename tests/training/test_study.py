"""Studies: what is suggested, who works on which trial, what is written; four real processes at once."""

import contextlib
import gzip
import json
import re
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import optuna
import pandas
import pytest

from tests.factories import TRAIN
from tests.processes import finish, start
from utils.errors import Interrupted, UserError
from utils.figures.study import write_results
from utils.models.registry import ModelSpec
from utils.runs.files import locked
from utils.training import study as study_module
from utils.training.classifier_options import FinetuneOptions, resolve_settings
from utils.training.classifier_setup import searchable
from utils.training.lm_params import full_names
from utils.training.study import (
    OptimizationOptions,
    StudySettings,
    run_study,
    study_defaults,
    study_name,
    without_password,
)
from utils.training.study_params import check_params

RANDOM = {"sampler": "optuna.samplers.RandomSampler", "direction": "minimize"}
RANGE = {"x": {"values": [-1.0, 1.0]}}


def settings(folder, params=RANGE, defaults=None, n_trials=6, name="s", **kwargs):
    return StudySettings(
        name=name,
        journal=folder / "study.journal",
        study_kwargs={**RANDOM, **kwargs},
        optimize_kwargs={"n_trials": n_trials},
        params=params,
        defaults=defaults or {"x": 0.5},
        seed=1,
        metric="x squared",
    )


def square(values, report):
    return values["x"] ** 2


def trials(study, *states):
    return [trial for trial in study.trials if not states or trial.state.name in states]


def test_trials_are_those_of_the_whole_study(tmp_path):
    first = run_study(settings(tmp_path, n_trials=3), square)
    assert len(trials(first)) == 3
    study = run_study(settings(tmp_path, n_trials=5), square)
    assert len(trials(study)) == 5, "the same study goes on"
    assert len({trial.params["x"] for trial in study.trials}) == 5
    assert len(trials(run_study(settings(tmp_path, n_trials=5), square))) == 5, "nothing left to do"


def test_the_same_seed_suggests_the_same(tmp_path):
    values = [
        [trial.params["x"] for trial in run_study(settings(tmp_path, name=name), square).trials] for name in ("a", "b")
    ]
    assert values[0] == values[1]


@pytest.mark.slow
def test_the_default_sampler_and_pruner_learn(tmp_path):
    kwargs = study_defaults("maximize")
    study = run_study(settings(tmp_path, n_trials=18, **kwargs), lambda values, report: -((values["x"] - 0.3) ** 2))
    assert abs(study.best_params["x"] - 0.3) < 0.02
    assert isinstance(study.sampler, optuna.samplers.GPSampler)
    assert isinstance(study.pruner, optuna.pruners.PatientPruner)


@pytest.mark.slow
def test_types_of_suggestions(tmp_path):
    defaults = {"lr": 1e-3, "size": 4, "mode": "a", "flag": True, "scale": [1.0, 2.0], "one": 1}
    # As defaults that are whole numbers made of ranges of floats: 1 and 0, and a rate of 0.
    defaults |= {"scaleby": [1, 1], "rate": 1}
    params = {
        "lr": {"values": [1e-1, 1e-5], "suggest_kwargs": {"log": True}},
        "size": {"values": [2, 8], "suggest_kwargs": {"step": 2}},
        "mode": {"values": ["a", "b", "c"]},
        "flag": {"values": [True, False]},
        "scale": {"values": [0, 10]},
        "one": {"values": [0, 1], "type": "float"},
        "scaleby": {"values": [0.5, 5]},
        "rate": {"values": [1e-6, 1e-4]},
    }
    seen = []
    run_study(settings(tmp_path, params, defaults, 20), lambda values, report: seen.append(values) or 0.0)
    assert all(1e-5 <= values["lr"] <= 1e-1 for values in seen)
    assert sum(values["lr"] < 1e-3 for values in seen) > 4, "on a logarithmic scale"
    assert {values["size"] for values in seen} <= {2, 4, 6, 8}
    assert {values["mode"] for values in seen} == {"a", "b", "c"} and {values["flag"] for values in seen} == {
        True,
        False,
    }
    assert all(len(values["scale"]) == 2 and values["scale"][0] != values["scale"][1] for values in seen)
    assert all(isinstance(values["one"], float) and values["one"] % 1 for values in seen)
    assert all(0.5 <= scale <= 5 and scale % 1 for values in seen for scale in values["scaleby"])
    assert all(1e-6 <= values["rate"] <= 1e-4 for values in seen)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"learning_rate": {"values": [0, 1e-3]}}, "--params.learning_rate.values: must be above 0, got 0"),
        ({"attention_dropout": {"values": [0.0, 1.0]}}, "must be below 1, got 1.0"),
        ({"batch_size": {"values": [0.5, 5]}}, "--batch_size is a whole number, got"),
        ({"batch_size": {"values": [4, 8], "type": "float"}}, "--batch_size is a whole number, got"),
        ({"label_smoothing": {"values": [0.1, 0.2], "type": "int"}}, "no whole numbers"),
        ({"lora_r": {"values": [2, 8]}}, "--lora_r is for adapters"),
        ({"max_epochs": {"values": [2, 8]}}, "is for runs without --num_epochs"),
    ],
)
def test_bounds_and_needs_of_options_hold_for_what_is_searched(params, message):
    options = FinetuneOptions(model_name="tiny", train_langs="en", num_epochs=3)
    with pytest.raises(UserError, match=message):
        check_params(params, searchable(options), options)
    check_params({"batch_size": {"values": [4, 8]}}, searchable(options), options)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "--params is empty"),
        ({"y": {"values": [1, 2]}}, "params.y: there is no such hyperparameter; known: mode, x"),
        ({"x": {"values": 1}}, "expected several values, got 1"),
        ({"x": {"values": [1, 2, 3]}}, "a range of floats is two numbers"),
        ({"x": {"values": ["a", "b"]}}, "a range of floats is two numbers"),
        ({"x": {"values": [1, 2], "suggest": 1}}, "unknown; did you mean 'suggest_kwargs'"),
        ({"mode": {"values": ["a", "b"], "type": "float"}}, "float or int, of hyperparameters that are numbers"),
        ({"x": {"values": [1, 2], "type": "str"}}, "float or int, of"),
    ],
)
def test_mistakes_in_params(tmp_path, params, message):
    with pytest.raises(UserError, match=message):
        run_study(settings(tmp_path, params, {"x": 0.5, "mode": "a"}), square)
    assert not (tmp_path / "study.journal").exists()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sampler": "optuna.samplers.NoSampler"}, "optuna.samplers has no 'NoSampler'"),
        ({"sampler_kwargs": {"sed": 1}}, "unexpected keyword argument 'sed'"),
        ({"storage": "sqlite:///no/where/x.db"}, "--study_kwargs.storage: "),
        ({"storage": "x.db"}, "--study_kwargs.storage: "),
        ({"color": "red"}, "unexpected keyword argument 'color'"),
    ],
)
def test_mistakes_in_the_study(tmp_path, kwargs, message):
    with pytest.raises(UserError, match=message):
        run_study(settings(tmp_path, **kwargs), square)


@pytest.mark.parametrize(
    ("optimize", "message"),
    [
        ({"n_trials": "many"}, "n_trials must be a whole number or None, got 'many'"),
        ({"n_trials": -1}, "n_trials must be a whole number"),
        ({"n_trial": 3}, "n_trial: unknown; did you mean 'n_trials'"),
        ({"n_jobs": 0}, "must be a number of processes"),
        ({"n_jobs": "2"}, "must be a number of processes"),
    ],
)
def test_mistakes_in_optimize_kwargs(tmp_path, optimize, message):
    with pytest.raises(UserError, match=message):
        run_study(replace(settings(tmp_path), optimize_kwargs=optimize), square)


def test_mistakes_in_suggest_kwargs(tmp_path):
    for more, message in (({"logg": True}, "unexpected keyword argument 'logg'"), ({"log": True}, "params.x: ")):
        params = {"x": {"values": [-1.0, 1.0], "suggest_kwargs": more}}
        with pytest.raises(UserError, match=message):
            run_study(settings(tmp_path, params, name=message), square)


def test_pruning(tmp_path):
    def objective(values, report):
        for step in range(1, 6):
            report(step, abs(values["x"]))
        return abs(values["x"])

    kwargs = {"pruner": "optuna.pruners.MedianPruner", "pruner_kwargs": {"n_startup_trials": 2}}
    study = run_study(settings(tmp_path, n_trials=12, **kwargs), objective)
    pruned = trials(study, "PRUNED")
    assert pruned and len(trials(study, "COMPLETE")) + len(pruned) == 12
    assert all(len(trial.intermediate_values) < 5 for trial in pruned)


def test_interrupted_trials_are_taken_up_again(tmp_path):
    calls = []

    def objective(values, report):
        calls.append(values["x"])
        if len(calls) == 2:
            raise Interrupted(signal.SIGTERM, "stopped")
        return values["x"] ** 2

    with pytest.raises(Interrupted):
        run_study(settings(tmp_path, n_trials=3), objective)
    study = run_study(settings(tmp_path, n_trials=3), objective)
    assert len(trials(study, "COMPLETE")) == 3
    assert calls[2] == calls[1], "with the same values"


def test_a_dead_process_trial_is_taken_up_and_a_living_one_is_not(tmp_path):
    own = settings(tmp_path, n_trials=4)
    study = run_study(settings(tmp_path, n_trials=1), square)
    for name in ("dead", "alive"):
        trial = study.ask()
        trial.suggest_float("x", -1.0, 1.0)
        trial.set_user_attr("worker", name)
        params = {**locals().get("params", {}), name: trial.params["x"]}
    study.ask()  # killed before it said whose it was
    with locked(tmp_path / ".study.alive.lock"):
        study = run_study(own, square)
    done = [trial.params["x"] for trial in trials(study, "COMPLETE")]
    assert params["dead"] in done and params["alive"] not in done
    assert len(done) == 3 and len(trials(study, "RUNNING")) == 1
    assert len(trials(study, "FAIL")) == 2
    assert len(trials(run_study(own, square), "COMPLETE")) == 4, "now the other one has died too"


def test_without_locks_no_trial_is_taken_from_a_living_process(tmp_path, monkeypatch):
    study = run_study(settings(tmp_path, n_trials=1), square)
    study.ask().set_user_attr("worker", "somebody")
    monkeypatch.setattr(study_module, "locked", lambda *_, **__: contextlib.nullcontext())
    study = run_study(settings(tmp_path, n_trials=3), square)
    assert len(trials(study, "COMPLETE")) == 2 and len(trials(study, "RUNNING")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_whatever_there_is(tmp_path, count):
    """With one trial Optuna draws no importances; with one hyperparameter no contours."""
    params = {"x": {"values": [-1.0, 1.0]}, "y": {"values": [0, 9]}}
    own = settings(tmp_path, params, {"x": 0.5, "y": 1}, n_trials=count)
    study = run_study(own, lambda values, report: values["x"] ** 2 + values["y"])
    table, plots = tmp_path / "optimization_results.csv.gz", tmp_path / "optimization_plots.pdf"
    summary = write_results(study, own, table, plots)
    content = plots.read_bytes()
    assert content.startswith(b"%PDF") and str(plots) in summary
    # A page for each plot that has something to show, with texts that every reader shows.
    assert b"/Type3" not in content and len(re.findall(rb"/Type /Page\b", content)) == {0: 1, 1: 8, 3: 9}[count]
    assert ("best trial" in summary) == (count > 0)
    assert ("expected best of so many trials (Dodge et al. 2019): 1 " in summary) == (count > 0)
    if count:
        frame = pandas.read_csv(table)
        assert list(frame["state"]) == ["COMPLETE"] * count and {"number", "value", "x", "y"} <= set(frame)


def test_names_of_studies():
    options = OptimizationOptions(study_kwargs={"direction": "minimize"}, params={"lr": {}})
    files, free = [{"sha256": "a"}], ["debug"]
    first = study_name(options, {"epochs": 1, "seed": 1, "debug": False}, files, free)
    assert first.startswith("minimize-lr-")
    assert study_name(options, {"epochs": 1, "seed": 1, "debug": True}, files, free) == first
    assert study_name(options, {"epochs": 1, "seed": 2, "debug": False}, files, free) != first
    assert study_name(options, {"epochs": 1, "seed": 1, "debug": False}, [{"sha256": "b"}], free) != first
    assert study_name(SimpleNamespace(study_kwargs={"study_name": "mine"}), {}, [], []) == "mine"


STUDY = [*TRAIN, "--do_optimize", "--epochs", "2", "--study_kwargs.sampler", "optuna.samplers.TPESampler"]
STUDY += ["--study_kwargs.sampler_kwargs", "__delete_field__", "--params.lr.values", "1e-4", "1e-2"]
STUDY += ["--params.lr.suggest_kwargs.log", "--params.per_device_train_batch_size.values", "4", "16"]


def journal_study(folder):
    (journal,) = (folder / "outputs/train/gpt2").glob("*.journal")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


@pytest.mark.slow
def test_four_processes_one_of_them_killed(here):
    arguments = ["--model_name_or_path", "gpt2", *STUDY, "--optimize_kwargs.n_trials", "8"]
    arguments = [argument for argument in arguments if argument not in ("--seed", "1")]
    processes = [start("finetune_lm.py", *arguments, cwd=here) for _ in range(4)]
    for line in processes[0].stdout:
        if line.startswith("trial "):
            processes[0].send_signal(signal.SIGKILL)
            break
    processes[0].communicate(timeout=120)
    outputs = [finish(process) for process in processes[1:]]
    study = journal_study(here)
    done = trials(study, "COMPLETE", "PRUNED")
    if len(done) < 8:
        # Those who could take it up had finished.
        outputs.append(finish(start("finetune_lm.py", *arguments, cwd=here)))
        study = journal_study(here)
        done = trials(study, "COMPLETE", "PRUNED")
    assert len(done) == 8 and not trials(study, "RUNNING", "WAITING")
    assert len({json.dumps(trial.params, sort_keys=True) for trial in done}) == 8
    assert len({trial.user_attrs["worker"] for trial in done}) >= 2, "they worked together"
    (lost,) = trials(study, "FAIL")
    assert lost.params in [trial.params for trial in done] or not lost.params
    frames = [pandas.read_csv(path) for path in (here / "outputs/train/gpt2").glob("2*/optimization_results.csv.gz")]
    assert max(len(frame) for frame in frames) == 9
    assert not list((here / "outputs").rglob("model.safetensors")), "trials keep no models"
    seeds = {json.loads(path.read_text())["seed"] for path in (here / "outputs/train/gpt2").glob("2*/run.json")}
    assert len(seeds) == 1, "or the trials could not be compared"
    configs = "".join(path.read_text() for path in (here / "outputs/train/gpt2").glob("2*/config.txt"))
    assert configs.count("# tried") == 8


@pytest.mark.slow
def test_a_study_of_one_process_stopped_and_continued(here):
    arguments = ["--model_name_or_path", "gpt2", *STUDY, "--optimize_kwargs.n_trials", "3", "--epochs", "12"]
    process = start("finetune_lm.py", *arguments, cwd=here)
    for line in process.stdout:
        if line.startswith("trial 1:"):
            time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            break
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    output = finish(start("finetune_lm.py", *arguments, cwd=here))
    study = journal_study(here)
    assert len(trials(study, "COMPLETE")) == 3
    assert "3 complete" in output and "best trial" in output
    for name in ("optimization_results.csv.gz", "optimization_plots.pdf"):
        assert list((here / "outputs/train/gpt2").glob(f"2*/{name}"))


@pytest.mark.slow
def test_a_learning_rate_that_is_too_high_does_not_end_the_study(here, invoke):
    import finetune_lm

    status, out, err = invoke(
        finetune_lm, "--model_name_or_path", "gpt2", *TRAIN, "--epochs", "1", "--do_optimize",
        "--train_optimizer", "torch.optim.SGD", "--params.lr.values", "1e19", "1e20",
    )  # fmt: skip
    assert status == 0, err
    assert "loss is nan" in out and "2 pruned" in out and "best trial" not in out


@pytest.mark.slow
def test_losses_of_several_datasets_are_searched_one_by_one(here, invoke):
    import finetune_lm

    (here / "b.txt.gz").write_bytes(gzip.compress(b"The oven and the island\nThis morning\n"))
    status, _, err = invoke(
        finetune_lm, "--model_name_or_path", "gpt2", *TRAIN, "--epochs", "1", "--do_optimize",
        "--loss_classes.train", "OutputsDefaultLoss", "KLBaselineLoss",
        "--loss_classes_kwargs.train.KLBaselineLoss.dataset", "test.txt.gz", "b.txt.gz",
        "--loss_classes_kwargs.train.KLBaselineLoss.scaleby", "1.0", "1.0",
        "--params.lr", "__delete_field__", "--params.train_KLBaselineLoss_scaleby.values", "0", "5",
    )  # fmt: skip
    assert status == 0, err
    names = {f"train_KLBaselineLoss_scaleby_{index}" for index in (0, 1)}
    assert all(set(trial.params) == names for trial in journal_study(here).trials)


@pytest.mark.slow
def test_classifiers_too(inputs, invoke):
    import finetune

    arguments = ["--model_name", "tiny", "--train_langs", "en", "--num_epochs", "4", "--do_optimize"]
    arguments += ["--params.learning_rate.values", "1e-3", "2e-2", "--params.batch_size.values", "4", "8"]
    arguments += ["--study_kwargs.sampler", "optuna.samplers.RandomSampler"]
    arguments += ["--study_kwargs.sampler_kwargs", "__delete_field__"]
    processes = [
        start("finetune.py", *arguments, "--optimize_kwargs.n_trials", "4", cwd=inputs.folder) for _ in range(2)
    ]
    outputs = [finish(process) for process in processes]
    folder = inputs.folder / "outputs/tiny-en/study"
    frame = pandas.read_csv(folder / "optimization_results.csv.gz")
    done = frame[frame["state"] == "COMPLETE"]
    assert len(frame) == 4 and (len(done) == 4 or "running" in outputs[0] + outputs[1])
    assert frame["batch_size"].between(4, 8).all() and frame["learning_rate"].nunique() == 4
    assert done["value"].between(0, 1).all() and done["value"].nunique() > 1
    assert (folder / "optimization_plots.pdf").is_file() and len(list(folder.glob("run-*.json"))) == 2
    assert not list((inputs.folder / "models").rglob("model.safetensors"))
    assert not (inputs.folder / "outputs/tiny-en/run.json").exists()

    # What was found, trained: the trial's value is the run's.
    best = done.loc[done["value"].idxmax()]
    found = ["--learning_rate", str(best["learning_rate"]), "--batch_size", str(int(best["batch_size"]))]
    assert invoke(finetune, *arguments[:6], *found)[0] == 0
    epochs = json.loads((inputs.folder / "outputs/tiny-en/train.json").read_text())["epochs"]
    assert max(e["validation"]["macro_f1"] for e in epochs) == pytest.approx(best["value"])
    status, _, err = invoke(finetune, *arguments, "--params.lr.values", "1", "2")
    assert status == 2 and "--params.lr: there is no such hyperparameter" in err


@pytest.mark.slow
def test_short_names_kwargs_of_functions_and_several_processes(here):
    """What is called KLBaselineLoss.scaleby and mask_prop; two processes work where two jobs are asked for."""
    arguments = ["--model_name_or_path", "bert", *TRAIN, "--epochs", "1", "--do_optimize"]
    arguments += ["--optimize_kwargs.n_jobs", "2"]
    arguments += ["--data_preprocessing_fn.train", "mask_random_tokens", "--params.lr", "__delete_field__"]
    arguments += ["--loss_classes.train", "OutputsDefaultLoss", "KLBaselineLoss", "--optimize_kwargs.n_trials", "3"]
    arguments += ["--loss_classes_kwargs.train.KLBaselineLoss.dataset", "test.txt.gz", "--decay_groups"]
    arguments += ["--params.mask_prop.values", "0.2", "0.6", "--params.KLBaselineLoss.scaleby.values", "0.5", "2.5"]
    arguments += ["--params.max_length.values", "8", "32", "--params.train_optimizer.values", "torch.optim.SGD"]
    arguments += ["torch.optim.AdamW", "--study_kwargs.storage", "sqlite:///study.db", "--study_kwargs.study_name", "s"]
    arguments += ["--study_kwargs.sampler", "optuna.samplers.RandomSampler", "--study_kwargs.sampler_kwargs"]
    output = finish(start("finetune_lm.py", *arguments, "__delete_field__", cwd=here))
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{here}/study.db")
    done = trials(study, "COMPLETE")
    assert len(done) == 3 and "study s in sqlite:///study.db: 3 complete" in output
    for trial in done:
        params = dict(trial.params)
        assert 0.2 <= params.pop("train_mask_random_tokens_mask_prop") <= 0.6
        assert 0.5 <= params.pop("train_KLBaselineLoss_scaleby") <= 2.5
        assert params.pop("train_optimizer") in ("torch.optim.SGD", "torch.optim.AdamW")
        assert type(params["max_length"]) is int and set(params) == {"max_length"}
    assert len(list((here / "outputs/train/bert").glob("2*/optimization_plots.pdf"))) == 2


@pytest.mark.slow
def test_a_mistake_in_a_trial_is_a_line(here, invoke):
    import finetune_lm

    arguments = ["--model_name_or_path", "gpt2", *TRAIN, "--do_optimize", "--epochs", "1"]
    status, _, err = invoke(finetune_lm, *arguments, "--params.max_length.values", "500", "600")
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("finetune_lm.py: error")]
    assert "trial 0 (" in line and "--max_length" in line and "Traceback" not in err and "Trial 0 failed" not in err


def test_names_of_hyperparameters():
    known = {"lr": 1e-3, "train_A_scale": 1.0, "train_B_scale": 1.0, "validation_C_rate": 0.1}
    specs = {"values": [0, 1]}
    params = {"A": {"scale": specs}, "rate": specs, "lr": specs, "oops": specs}
    assert full_names(params, known) == dict.fromkeys(["train_A_scale", "validation_C_rate", "lr", "oops"], specs)
    with pytest.raises(UserError, match="--params.scale may be train_A_scale or train_B_scale"):
        full_names({"scale": specs}, known)


def test_passwords_of_databases_are_not_noted():
    """With whatever is in them, of language models and of classifiers."""
    address = "mysql://me:s:e/c@ret@host/db"
    assert "ret" not in json.dumps(without_password({"study_kwargs": {"storage": address}}))
    options = FinetuneOptions(
        model_name="xlmr", train_langs="en", study_kwargs={"storage": "mysql://me:secret@host/db"}
    )
    assert "secret" not in json.dumps(resolve_settings(options, ModelSpec("xlmr", "xlmr")))
    noted = without_password({"seed": 1, "study_kwargs": {"storage": "mysql://me:secret@host:3306/db", "sampler": "x"}})
    assert noted == {"seed": 1, "study_kwargs": {"storage": "mysql://me:***@host:3306/db", "sampler": "x"}}
    assert (
        without_password({"study_kwargs": {"storage": "sqlite:///x.db"}})["study_kwargs"]["storage"] == "sqlite:///x.db"
    )
