"""grid_search.py and finetuning_generator.py on a real Slurm: what is submitted, and what comes out."""

import json
import os
import shlex
import shutil
import signal
import subprocess

import pytest

import check_corpus
import finetune
import finetuning_generator
import grid_search
import run_pipeline
from tests.factories import FAST, TRAINED, skip, typed_registry, write_news
from utils.cli.parser import OptionParser
from utils.runs.files import read_json
from utils.training.classifier_options import FinetuneOptions

BASE = {"model_name": "tiny", "task": "sentiment", "learning_rate": 1e-3, "attention_dropout": 0, "precision": "fp32"}
COMMAND = ["base.json", "--grid_config", "grid.json"]


@pytest.fixture
def plan(site, monkeypatch):
    """A site whose registry has the tiny model for texts and for phonemes, and whose Slurm this process asks."""
    site.environment["MODEL_REGISTRY"] = str(typed_registry(site.inputs))
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(site.folder)
    (site.folder / "base.json").write_text(json.dumps(BASE))
    return site


def write_grid(site, **parameters):
    content = {"parameters": parameters, "languages": {"train": ["russian", "polish"]}}
    (site.folder / "grid.json").write_text(json.dumps(content))


def held(site) -> str:
    """Return a job that never begins, for others to wait for."""
    return site.run("sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap", "true").strip()


def test_arrays_in_pieces_and_what_is_queued_already(plan, invoke):
    """More jobs than fit into one array wait for another job, and then run each once."""
    write_grid(plan, epochs=list(range(1, 53)))
    (plan.folder / "ran").mkdir()
    (plan.folder / "template.sh").write_text(
        "#!/bin/bash\n#SBATCH --job-name={job_name}\n#SBATCH --cpus-per-task={cpus}\n#SBATCH --gres=gpu:{gpus}\n"
        "#SBATCH --time={timeout}\nmkdir ran/{job_name} # {args}\n"
    )
    first = held(plan)
    command = [*COMMAND, "--max_jobs", "40", "--after", first, "--timeout", "30", "--gpus", "0", "--template"]
    command.append("template.sh")
    status, _, errors = invoke(grid_search, *command)
    assert status == 2 and "104 jobs are more than --confirm_above 100; --yes submits them" in errors
    assert set(plan.queue()) == {f"{first}_N/A"} and not (plan.folder / "jobs").exists()

    status, output, errors = invoke(grid_search, *command, "--yes")
    assert (status, errors) == (0, "")
    assert "104 jobs: 104 to submit, at most 52.0 node-hours (30 each)" in output
    pieces = [line.split()[1].strip(":") for line in output.splitlines() if line.startswith("job ")]
    tasks = [task.split("_") for task in plan.queue() if not task.startswith(first)]
    assert len(pieces) == 2 and len(tasks) == 104
    assert [sum(job == piece for job, _ in tasks) for piece in pieces] == [101, 3]
    assert max(int(index) for _, index in tasks) == 100
    shown = [plan.job(f"{piece}_0") for piece in pieces]
    assert shown[0]["Dependency"].startswith(f"afterok:{first}")
    assert f"afterany:{pieces[0]}" in shown[1]["Dependency"]
    assert {job["ArrayTaskThrottle"] for job in shown} == {"40"}
    assert shown[0]["TimeLimit"] == "00:30:00" and shown[0]["JobName"] == "base_grid"
    output = invoke(grid_search, *command, "--yes")[1]
    assert "104 jobs: 0 to submit, 104 in the queue already" in output
    output = invoke(grid_search, *command, "--status")[1]
    assert "0 done, 0 running, 104 pending, 0 failed, 0 never submitted" in output
    plan.run("scancel", f"{pieces[0]}_7")
    output = invoke(grid_search, *command, "--yes")[1]
    assert "104 jobs: 1 to submit" in output and "1 tasks" in output
    plan.run("scontrol", "release", first)
    plan.wait(*pieces, output.split("job ")[1].partition(":")[0])
    names = {path.stem for path in (plan.folder / "jobs").rglob("tiny-*.sh")}
    assert {path.name for path in (plan.folder / "ran").iterdir()} == names and len(names) == 104


def test_a_refused_piece_is_named_with_what_was_submitted(plan, invoke, monkeypatch):
    write_grid(plan, epochs=list(range(1, 53)))
    first = held(plan)
    # The second call asks for what no node has.
    real, wrapper = shutil.which("sbatch", path=plan.environment["PATH"]), plan.folder / "bin/sbatch"
    wrapper.parent.mkdir()
    wrapper.write_text(
        '#!/bin/bash\ncd "$(dirname "$0")" && touch called && mkdir once 2>/dev/null || extra=--gres=gpu:9\n'
        f'cd "$OLDPWD" && exec {real} ${{extra:-}} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{plan.environment['PATH']}")
    status, output, errors = invoke(grid_search, *COMMAND, "--after", first, "--yes")
    assert status == 1
    (submitted,) = [line.split()[1].strip(":") for line in output.splitlines() if line.startswith("job ")]
    assert "sbatch refused 3 tasks" in errors and f"submitted: {submitted}; the same command submits the rest" in errors
    monkeypatch.setenv("PATH", plan.environment["PATH"])
    assert "3 to submit" in invoke(grid_search, *COMMAND, "--after", first, "--yes")[1]


def test_scripts_are_sound_and_names_stay_whole(plan, invoke):
    write_grid(plan, learning_rate=[1e-3, 1e-4], epochs=2)
    strange = "it's $HOME/`x`"
    (plan.folder / "base.json").write_text(json.dumps(BASE | {"subfolder": strange}))
    folders = ["--output_dir", "my jobs", "--temp_config_dir", "my configs"]
    assert invoke(grid_search, *COMMAND, *folders, "--after", held(plan))[0] == 0
    scripts = sorted((plan.folder / "my jobs").rglob("*.sh"))
    configs = {path.stem: path for path in (plan.folder / "my configs").rglob("*.json")}
    assert (len(scripts), len(configs)) == (5, 4)
    name = "tiny-russian_learning_rate-0.0001_num_epochs-2"
    text = next(script for script in scripts if script.stem == name).read_text()
    line = next(line for line in text.splitlines() if "finetune.py" in line)
    words = shlex.split(line.partition('finetune.py"')[2].partition("||")[0])
    assert words == ["--config", str(configs[name])]
    config = OptionParser(FinetuneOptions).parse(words)
    assert (config.learning_rate, config.num_epochs, config.train_langs) == (1e-4, 2, "russian")
    assert config.subfolder == f"{strange}/base_grid/learning_rate-0.0001_num_epochs-2"
    if not shutil.which("shellcheck"):
        skip("shellcheck is not installed")
    # That what is quoted is not expanded is what is meant.
    subprocess.run(["shellcheck", "--exclude=SC2016", *scripts], check=True)


def test_every_subset_is_trained_once_and_evaluated_on_all(plan, invoke):
    (plan.folder / "base.json").write_text(json.dumps(BASE | {"num_epochs": 12, "languages": ["russian", "polish"]}))
    command = ["base.json", "--model_type", "normal", "--cpus", "1"]
    status, output, errors = invoke(finetuning_generator, *command)
    assert (status, errors) == (0, "")
    names = ["tiny-russian-polish", "tiny-russian", "tiny-polish"]
    (job,) = [line.split()[1].strip(":") for line in output.splitlines() if line.startswith("job ")]
    # One of them is stopped ahead of its time limit, and goes on.
    plan.until(lambda: plan.record(names[0]).get("epoch", 0) > 1, "the first epoch")
    os.kill(plan.processes(f"{job}_0")[0], signal.SIGUSR1)
    plan.wait(job)
    for name in names:
        log = plan.text(f"outputs/{name}/train.txt")
        result = read_json(plan.folder / "outputs" / name / "result.json")
        assert plan.record(name)["status"] == "complete", log
        assert set(result["evaluations"]) == {"russian", "polish"}, log
        assert log.count("epoch 12:") == 1, log
    log = plan.text(f"outputs/{names[0]}/train.txt")
    assert f"=== job {job}_0 is queued again" in log and log.count("going on from") == 1
    output = invoke(finetuning_generator, *command)[1]
    assert "3 jobs: 0 to submit, 3 complete and skipped" in output
    assert not plan.queue()
    table = invoke(finetuning_generator, *command, "--status")[1].splitlines()[-5:]
    assert table[0].split() == ["combination", "state", "job", "epoch", "best", "macro", "F1", "log"]
    assert table[1].split()[:4] == [names[0], "done", f"{job}_0", "12/12"]
    assert table[1].split()[-1] == f"outputs/{names[0]}/train.txt"
    assert table[-1] == "3 done, 0 running, 0 pending, 0 failed, 0 never submitted"


def test_a_search_from_the_grid_to_the_best_config(plan, invoke):
    (plan.folder / "grid.json").write_text(
        json.dumps({"parameters": {"learning_rate": [3e-3, 1e-6], "epochs": 4}, "languages": {"train": "polish"}})
    )
    command = [*COMMAND, "--model_type", "ipa", "--cpus", "1"]
    status, output, _ = invoke(grid_search, *command)
    assert status == 0
    (job,) = [line.split()[1].strip(":") for line in output.splitlines() if line.startswith("job ")]
    plan.wait(job)
    status, output, errors = invoke(grid_search, *command, "--collect")
    assert (status, errors) == (0, ""), [path.read_text() for path in plan.folder.rglob("train.txt")]
    assert "2 of 2 jobs are complete" in output
    folder = plan.folder / "outputs/base_grid"
    best = json.loads((folder / "best.json").read_text())
    assert (best["model_name"], best["model_type"], best["learning_rate"]) == ("tiny-ipa", "ipa", 3e-3)
    table = (folder / "results.csv").read_text().splitlines()
    assert len(table) == 3 and "russian_macro_f1" in table[0]
    assert (folder / "grid.png").is_file() and (folder / "grid.pdf").is_file()


def test_a_pipeline_as_an_array(site, invoke, monkeypatch):
    write_news(site.folder / "news")
    tasks = {f"baseline{seed}": {"model_name": "tfidf", "training_args": {"seed": seed}} for seed in (1, 2)}
    content = {"data": {"dataset": "news", "validation_size": 40}, "results_dir": "results", "tasks": tasks}
    (site.folder / "news.yaml").write_text(json.dumps(content))
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(site.folder)
    status, output, errors = invoke(run_pipeline, "news.yaml", "--submit", "--cpus", "1", "--gpus", "0")
    assert (status, errors) == (0, "")
    (job,) = [line.split()[1].strip(":") for line in output.splitlines() if line.startswith("job ")]
    site.wait(job)
    logs = [path.read_text() for path in (site.folder / "results").glob("*/*/train.txt")]
    table = (site.folder / "results/results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:]] == list(tasks), logs
    assert "2 jobs: 0 to submit, 2 complete and skipped" in invoke(run_pipeline, "news.yaml", "--submit")[1]
    assert "2 done, 0 running" in invoke(run_pipeline, "news.yaml", "--status")[1]


def test_folds_of_a_model_that_judges_labels(site, monkeypatch, invoke):
    """check_corpus.py --submit trains the folds as jobs; afterwards the same command reads what they say."""
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(site.folder)
    assert invoke(finetune, *TRAINED, *FAST)[0] == 0
    command = ["--with_model", "tiny-en-fr", "--folds", "2"]
    status, output, errors = invoke(check_corpus, *command, "--submit", "--gpus", "0", "--timeout", "30")
    assert status == 0 and "2 jobs: 2 to submit" in output, errors
    assert not (site.folder / "outputs" / "corpus.json").exists()
    job = next(line.split()[1].strip(":") for line in output.splitlines() if line.startswith("job "))
    site.wait(job)
    status, output, errors = invoke(check_corpus, *command, "--status")
    assert status == 0 and "2 done, 0 running" in output
    # Nothing is left to train.
    records = sorted(site.folder.glob("outputs/folds/2-42/*/tiny-en-fr/run.json"))
    before = [path.stat().st_mtime_ns for path in records]
    status, output, errors = invoke(check_corpus, *command)
    assert status == 0 and "by tiny-en-fr" in output, errors
    assert len(records) == 2 and before == [path.stat().st_mtime_ns for path in records]
