"""submit_predict_jobs.sh on a real Slurm: files dealt out among tasks, and no row lost or labelled twice."""

import io
import json
import random
import re
import signal

import pytest
import zstandard

from tests.factories import FAST, PROJECT
from tests.processes import finish, start
from utils.runs.files import read_json

CPU = ["--gres=none", "--cpus-per-task=1"]


@pytest.fixture
def labelling(site, trained_once):
    """A site with a trained model."""
    (site.folder / "models").symlink_to(trained_once / "models")
    return site


@pytest.fixture(scope="module")
def trained_once(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    environment = {
        "CORPUS_PATH": str(small / "register-corpus"),
        "MODEL_REGISTRY": str(small / "model2chckpt.json"),
    }
    finish(start("finetune.py", "--model_name", "tiny", "--train_langs", "en", *FAST, cwd=folder, **environment))
    return folder


def write_corpus(folder, *sizes):
    """Write files of short texts, each with a name of its own as its id."""
    words, generator = [f"word{index}" for index in range(40)], random.Random(1)
    folder.mkdir()
    for number, size in enumerate(sizes):
        lines = (
            json.dumps({"text": " ".join(generator.choices(words, k=6)), "name": f"{number}-{row}"}) + "\n"
            for row in range(size)
        )
        (folder / f"{number}.jsonl.zst").write_bytes(zstandard.compress("".join(lines).encode()))


def labels(path):
    stream = zstandard.ZstdDecompressor().stream_reader(path.read_bytes())
    return [json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8")]


BASE = ["--models", "tiny", "--langs", "en", "--input", "corpus", "--output_dir", "predictions/web"]
OPTIONS = [*BASE, "--options", "--id_column name --precision fp32"]


def test_eight_tasks_label_60_000_texts_and_one_is_killed(labelling):
    """A large file is cut, small ones are dealt out; one task is killed and queued again."""
    site = labelling
    write_corpus(site.folder / "corpus", 36_000, 7_200, 5_400, 4_800, 6_600)
    _, output = site.submit("predict", *OPTIONS, "--num_tasks", "8", "--dry_run")
    assert "5 files: 5 to label in 8 tasks" in output and not (site.folder / "predictions").exists()
    command = [*OPTIONS, "--num_tasks", "8", "--rows_per_part", "500"]
    (job,), output = site.submit("predict", *command, "--", *CPU, "--signal=USR1@60")
    assert f"job {job}: 8 tasks, tiny-en 1/8 ... tiny-en 8/8" in output

    work = site.folder / "predictions/web/.predictions/parts"
    site.until(lambda: len(list(work.rglob("0*.zst"))) > 3, "the first parts")
    task = next(task for task, state in site.queue().items() if state == "RUNNING" and task.startswith(f"{job}_"))
    site.run("scontrol", "requeue", task)
    _, table = site.submit("predict", *command, "--status")
    assert re.search(r"predictions/web +running +\d/5 +[\d,]+ +about [\d,]+ +[\d.,]+ +\d{4}-\d\d-\d\d", table), table
    _, output = site.submit("predict", *command)
    assert "in the queue already" in output
    site.wait(job)

    assert site.job(task)["Restarts"] == "1"
    for number, size in enumerate((36_000, 7_200, 5_400, 4_800, 6_600)):
        found = labels(site.folder / f"predictions/web/{number}.jsonl.zst")
        assert [row["id"] for row in found] == [f"{number}-{row}" for row in range(size)]
    overview = read_json(site.folder / "predictions/web/predictions.json")
    assert overview["num_texts"] == 60_000 and overview["unfinished"] == []
    _, table = site.submit("predict", *command, "--status")
    assert re.search(r"predictions/web +done +5/5 +60,000 +0 +- +-", table), table
    _, output = site.submit("predict", *command)
    assert "5 files: 0 submitted, 5 complete and skipped" in output and not site.queue()


def test_at_the_time_limit_it_is_queued_again_and_goes_on(labelling):
    """The signal that Slurm sends ahead of the limit ends the processes; two of them, as for two GPUs."""
    site = labelling
    write_corpus(site.folder / "corpus", 30_000, 2_000)
    command = [*OPTIONS, "--num_tasks", "1", "--rows_per_part", "100"]
    (job,), _ = site.submit("predict", *command, "--", "--gres=gpu:2", "--cpus-per-task=2")
    task = f"{job}_0"
    work = site.folder / "predictions/web/.predictions/parts"
    site.until(lambda: len(list(work.rglob("0*.zst"))) > 3, "the first parts")
    # What Slurm itself does a minute ahead of the limit.
    site.run("scancel", f"--signal={signal.Signals.SIGUSR1.name.removeprefix('SIG')}", task)
    log = site.folder / "predictions/web/jobs/tiny-en-task-0000/predict.txt"
    site.until(lambda: "is queued again and goes on where it was" in log.read_text(), "the requeue")
    kept = len(list(work.rglob("0*.zst")))
    site.wait(job)
    text = log.read_text()
    assert kept > 3 and text.count("USR1; the same command goes on behind the last part that is whole") >= 1
    assert "restart 1" in text
    for number, size in enumerate((30_000, 2_000)):
        found = labels(site.folder / f"predictions/web/{number}.jsonl.zst")
        assert [row["id"] for row in found] == [f"{number}-{row}" for row in range(size)]


def test_what_is_missing_runs_again(labelling):
    """A file with a bad row fails its task, whose other files are labelled; then it alone is submitted."""
    site = labelling
    write_corpus(site.folder / "corpus", 300, 300, 300)
    bad = site.folder / "corpus/bad.jsonl"
    bad.write_text('{"text": "fine", "name": "a"}\n{broken\n')
    (job,), _ = site.submit("predict", *OPTIONS, "--num_tasks", "2", "--", *CPU)
    site.wait(job)
    _, table = site.submit("predict", *OPTIONS, "--status")
    assert re.search(r"predictions/web +failed +3/4 +900 ", table), table
    assert "tiny-en: not labelled: bad; see predictions/web/jobs/*/predict.txt" in table
    logs = "".join(path.read_text() for path in site.folder.glob("predictions/web/jobs/*/predict.txt"))
    assert f"predict.py: error: {bad}, line 2: not valid JSON" in logs
    (job,), output = site.submit(
        "predict", *BASE, "--options", "--id_column name --precision fp32 --skip_bad_rows", "--", *CPU
    )
    assert "4 files: 1 submitted in 1 task, 3 complete and skipped" in output
    site.wait(job)
    assert [row["id"] for row in labels(site.folder / "predictions/web/bad.jsonl.zst")] == ["a"]
    assert read_json(site.folder / "predictions/web/predictions.json")["num_bad_rows"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "corpus"], "which model? give --models and --langs of ours, or --model"),
        (["--models", "tiny", "--langs", "en"], "which texts? give files, folders or globs with --input"),
        (["--models", "tiny", "--langs", "fr", "--input", "corpus"], "no trained model in models/tiny-fr"),
        (["--models", "tiny", "--langs", "en", "--input", "nowhere"], "nowhere does not exist"),
        ([*BASE, "--options", "--format xml"], "--options: argument --format: invalid choice: 'xml'"),
        ([*BASE, "--options", "--output_dir x"], "--options: --output_dir is not for --options"),
        ([*BASE, "--num_tasks", "0"], "--num_tasks must be at least 1, got 0"),
        ([*BASE, "--output_dir", "/sys/x"], "cannot write to /sys/x/jobs"),
    ],
)
def test_mistakes_are_refused_before_anything_is_submitted(labelling, arguments, message):
    write_corpus(labelling.folder / "corpus", 3)
    jobs, output = labelling.submit("predict", *arguments, status=2)
    assert not jobs and not labelling.queue() and message in output
    assert output.startswith("submit_predict_jobs.sh: error: ")


def test_several_models_have_a_folder_each(labelling):
    write_corpus(labelling.folder / "corpus", 3)
    models = ["--models", "tiny", "--langs", "en fr", "--after", "7", "--input", "corpus", "--dry_run"]
    _, output = labelling.submit("predict", *models)
    assert "tiny-en: 1 file: 1 to label in 1 task\ntiny-fr: 1 file: 1 to label in 1 task" in output
    assert "not there yet: no trained model in models/tiny-fr" in output
    assert "--dependency=afterok:7" in output


def test_help_and_variables(labelling):
    _, output = labelling.submit("predict", "--help")
    for option in ("models", "langs", "input", "num_tasks", "rows_per_part", "force", "dry_run", "status", "after"):
        assert f"--{option}" in output
    text = (PROJECT / "submit_predict_jobs.sh").read_text()
    assert 'num_tasks="8"' in text and "exec python -m utils.jobs predict" in text
