"""What the submit scripts plan, print and refuse, without Slurm."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest

from tests.factories import PROJECT
from utils.jobs.submission import Array, Ledger, Submission, Work, make_arrays
from utils.models.registry import load_registry
from utils.runs.files import read_json, write_json
from utils.training.classifier_options import FinetuneOptions, resolve_settings

# All that a shell would run, in one name; and with a line break.
HOSTILE = ["$(touch X)`touch X`;touch X;' ; touch X ; '\" ; touch X ; \"a[$(touch X)]", "a\n$(touch X)\ntouch X\n"]


def complete(login, name="tiny-en", **changes):
    """A run of these options as finetune.py leaves it; returns its record."""
    options = FinetuneOptions(model_name="tiny", train_langs=name.partition("-")[2])
    spec = load_registry(login.environment["MODEL_REGISTRY"])["tiny"]
    settings = resolve_settings(options, spec) | {"num_processes": 4} | changes
    write_json(
        login.folder / f"outputs/{name}/run.json", {"status": "complete", "options": settings, "best_macro_f1": 0.5}
    )
    write_json(login.folder / f"models/{name}/config.json", {})
    return settings


@pytest.mark.slow
def test_baselines_are_submitted_beside_the_models(login):
    output = login.submit("train", "--langs", "en", "--baselines", "--dry_run")
    assert "3 to submit" in output
    assert "tiny-en tfidf-en tiny-probe-en\n" in output
    # Named among the models, they are not doubled, and have no probes themselves.
    output = login.submit("train", "--langs", "en", "--models", "tfidf tiny", "--baselines", "--dry_run")
    assert "3 to submit" in output
    assert "tfidf is a baseline: its training evaluates it" in login.submit(
        "eval", "--models", "tfidf", "--langs", "en", "--dry_run", status=2
    )


def test_a_dry_run_prints_the_commands_and_writes_nothing(login):
    output = login.submit("train", "--langs", "en fr", "--options", "--num_epochs 2", "--dry_run", "--", "--time=8")
    names, command, counts = output.splitlines()
    assert names == "tiny-en tiny-fr" and counts == "2 combinations: 2 to submit"
    words = shlex.split(command)
    assert words[:3] == ["sbatch", "--parsable", "--array=0-1"] and "--time=8" in words
    assert [PROJECT / word for word in words[-4:-2]] == [PROJECT / "run_train.sh", PROJECT]
    assert not (login.folder / "outputs").exists()


@pytest.mark.slow
def test_without_slurm_the_reason_is_said(login):
    output = login.submit("train", "--langs", "en fr", status=2)
    assert "submit_train_jobs.sh: error: sbatch not found: run this on a login node of a Slurm cluster" in output
    assert "2 never submitted" in login.submit("train", "--langs", "en fr", "--status")


def test_without_python_the_reason_is_said(login):
    """As on a login node before `make setup`, with no load_env.sh."""
    for name in ("submit_train_jobs.sh", "utils/jobs/job.sh"):
        copy = login.folder / "elsewhere" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, copy)
    (login.folder / "bin/python").unlink()
    done = subprocess.run(
        [login.folder / "elsewhere/submit_train_jobs.sh"], env=login.environment, capture_output=True, text=True
    )
    message = (
        "submit_train_jobs.sh: error: there is no python here; run make setup, or name an environment in load_env.sh"
    )
    assert (done.returncode, done.stderr.strip()) == (2, message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--num_epoch 3", "--options: unknown option --num_epoch; did you mean '--num_epochs'?"),
        ("--learning_rate -1", "--options: --learning_rate must be above 0, got -1.0"),
        ("--batch_size many", "--options: argument --batch_size"),
        ("--config nowhere.json", "--options: nowhere.json: cannot read this config file"),
        ("--model_name other", "--options: --model_name is not for --options"),
        ("--output_dir elsewhere", "--options: --output_dir is not for --options"),
        ("--cache_dir 'never closed", "--options"),
    ],
)
def test_options_that_the_script_would_refuse_are_refused_at_once(login, options, message):
    assert message in login.submit("train", "--langs", "en", "--options", options, "--dry_run", status=2)


@pytest.mark.slow
def test_options_of_the_evaluation_are_those_of_evaluate(login):
    complete(login)
    output = login.submit("eval", "--options", "--num_epochs 3", "--dry_run", status=2)
    assert "--options: unknown option --num_epochs" in output
    assert "1 to submit" in login.submit("eval", "--options", "--precision bf16", "--dry_run")


@pytest.mark.slow
def test_a_complete_run_of_the_same_options_is_skipped(login):
    complete(login)
    assert "1 complete and skipped" in login.submit("train", "--langs", "en", "--dry_run")
    # Places and effort are no other run; the number of processes is known in the job alone.
    output = login.submit("train", "--langs", "en", "--options", "--report_to tensorboard --cache_dir x", "--dry_run")
    assert "1 complete and skipped" in output


@pytest.mark.slow
def test_a_complete_run_of_other_options_is_named_with_the_difference(login):
    complete(login, learning_rate=3e-4)
    output = login.submit("train", "--langs", "en fr", "--options", "--num_epochs 3", "--dry_run")
    assert "tiny-en is complete with other options: num_epochs None -> 3; learning_rate 0.0003 -> 5e-05" in output
    assert "use --subfolder for another experiment, or --force to replace them" in output
    assert "2 combinations: 1 to submit, 1 complete with other options" in output
    output = login.submit("train", "--langs", "en", "--options", "--num_epochs 3", "--dry_run", "--force")
    assert "1 combinations: 1 to submit" in output


@pytest.mark.slow
def test_evaluations_of_all_that_is_trained_and_of_nothing_else(login):
    for name in ("tiny-en", "tiny-en-fr"):
        complete(login, name)
    write_json(login.folder / "outputs/tiny-fr/run.json", {"status": "running"})
    write_json(login.folder / "outputs/other-fr/run.json", {"status": "complete"})
    output = login.submit("eval", "--dry_run")
    assert "tiny-en tiny-en-fr\n" in output
    assert "3 combinations: 2 to submit, 1 not trained and left out: tiny-fr" in output
    for lang in ("en", "es", "fr"):
        write_json(login.folder / f"outputs/tiny-en/eval/{lang}.json", {})
    assert "1 complete and skipped" in login.submit("eval", "--dry_run")
    table = login.submit("eval", "--status", "--eval_langs", "en fr")
    assert [line.split()[0] for line in table.splitlines()[1:4]] == ["tiny-en", "tiny-en-fr", "tiny-fr"]
    assert table.splitlines()[1].split()[5] == "2/2"


@pytest.mark.slow
def test_a_model_whose_name_begins_like_another(login):
    registry = read_json(login.environment["MODEL_REGISTRY"])
    registry["tiny-large"] = registry["tiny"]
    path = login.folder / "models.json"
    path.write_text(json.dumps(registry).replace("./tiny-xlmr", str(PROJECT)))
    login.environment["MODEL_REGISTRY"] = str(path)
    write_json(login.folder / "outputs/tiny-large-en/run.json", {"status": "complete"})
    write_json(login.folder / "models/tiny-large-en/config.json", {})
    assert "tiny-large-en\n" in login.submit("eval", "--models", "tiny-large", "--dry_run")
    assert "nothing to do" in login.submit("eval", "--models", "tiny", "--dry_run", status=2)


@pytest.mark.slow
@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("kind", ["train", "eval"])
def test_nothing_that_a_name_contains_is_run(login, kind, hostile):
    complete(login)
    entry = {"checkpoint": str(PROJECT)}
    registries = ({hostile: entry}, {"tiny": {**entry, f"sbatch_{kind}": hostile, "license": hostile}})
    for number, content in enumerate(registries):
        path = login.folder / f"models-{number}.json"
        path.write_text(json.dumps(content))
        run(login, kind, "--force", "--dry_run", MODEL_REGISTRY=str(path))
    for name in ("--models", "--langs", "--subfolder", "--eval_langs" if kind == "eval" else "--accelerate_config"):
        run(login, kind, name, hostile, "--dry_run")
    run(login, kind, "--force", "--options", f"--cache_dir {shlex.quote(hostile)}", "--dry_run")
    run(login, kind, "--force", "--dry_run", "--", f"--comment={hostile}")
    run(login, kind, "--status", CORPUS_PATH=hostile)
    assert not list(login.folder.rglob("X"))


def run(login, kind, *arguments, **environment):
    """Run a submit script whatever comes of it."""
    done = subprocess.run(
        [PROJECT / f"submit_{kind}_jobs.sh", *arguments],
        cwd=login.folder, env=login.environment | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.slow
def test_line_breaks_in_folders_are_refused(login):
    output = login.submit("train", "--subfolder", "a\nb", status=2)
    assert "tabs and line breaks cannot be passed to a job" in output
    assert not (login.folder / "outputs").exists()


def test_planning_needs_no_heavy_library():
    """42 combinations are planned in the time that starting Python and reading the options takes."""
    code = (
        "import sys, utils.jobs.__main__; print({'torch', 'datasets', 'pandas', 'optuna', 'peft'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_three_models_and_fourteen_languages(login):
    corpus = login.folder / "corpus"
    shutil.copytree(login.environment["CORPUS_PATH"], corpus)
    for number in range(11):
        shutil.copy(corpus / "corpus/train/en.tsv", corpus / f"corpus/train/l{number}.tsv")
    login.environment["CORPUS_PATH"] = str(corpus)
    path = login.folder / "models.json"
    path.write_text(json.dumps({name: str(PROJECT) for name in ("a", "b", "c")}))
    login.environment["MODEL_REGISTRY"] = str(path)
    output = login.submit("train", "--dry_run")
    assert "42 combinations: 42 to submit" in output and output.count("sbatch --parsable") == 1


def names(arrays):
    return [[work.name for work in array.work.values()] for array in arrays]


def test_arrays_by_what_tasks_need_and_wait_for():
    work = [Work(f"n{number}", "", need=("--gres=gpu:2",) if number % 3 == 0 else ()) for number in range(7)]
    arrays = make_arrays(work, 3)
    assert names(arrays) == [["n0", "n3", "n6"], ["n1", "n2", "n4"], ["n5"]]
    assert [array.offset for array in arrays] == [0, 3, 6]
    waiting = make_arrays([Work("a", "", "aftercorr:7", 5), Work("b", "", "aftercorr:7", 1)], 3)
    assert [(array.indices, array.num_lines) for array in waiting] == [("1-1,5-5", 6)]


def test_arrays_run_one_after_the_other_only_under_a_limit():
    arrays = make_arrays([Work(f"n{number}", "", "afterok:9") for number in range(4)], 2)
    free = Submission(arrays, lambda array: ["run.sh"])
    assert free.sbatch(arrays[1], "12")[3] == "--dependency=afterok:9"
    limited = Submission(arrays, lambda array: ["run.sh"], max_jobs=5)
    assert limited.sbatch(arrays[1], "12")[2:4] == ["--array=0-1%5", "--dependency=afterok:9,afterany:12"]


def test_the_ledger_knows_every_task(tmp_path):
    ledger, manifest = Ledger(tmp_path / "train.tsv"), tmp_path / "train-1.tsv"
    assert list(ledger.tasks()) == []
    manifest.write_text("a\n\nb\nc\n")
    ledger.add("12", Array({0: Work("a", "a"), 2: Work("b", "b")}), manifest)
    ledger.add("13", Array({0: Work("c", "c")}, offset=3), manifest)
    assert list(ledger.tasks()) == [("12_0", "a"), ("12_2", "b"), ("13_0", "c")]
    with ledger.path.open("a") as file:
        file.write("11_0\ta line of version 0.1.0\n")
    assert len(list(ledger.tasks())) == 3
    manifest.unlink()
    assert list(ledger.tasks()) == []


def test_settings_of_the_plan_are_those_of_the_run(login):
    """What finetune.py records of an option is what the plan compares with."""
    settings = complete(login)
    assert set(asdict(FinetuneOptions(model_name="tiny", train_langs="en"))) < set(settings)
