"""Whatever ends a job early, it goes on where it was and ends with the weights of an uninterrupted run."""

import os
import re
import signal

import pytest

from tests.factories import FAST
from tests.processes import finish, start

RECIPE = [*FAST, "--num_epochs", "100", "--batch_size", "4"]
OPTIONS = ["--langs", "en", "--options", " ".join(RECIPE)]
CPU = ["--gres=none", "--cpus-per-task=1"]


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """The weights of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    environment = {
        "CORPUS_PATH": str(small / "register-corpus"),
        "MODEL_REGISTRY": str(small / "model2chckpt.json"),
    }
    finish(start("finetune.py", "--model_name", "tiny", "--train_langs", "en", *RECIPE, cwd=folder, **environment))
    return (folder / "models/tiny-en/model.safetensors").read_bytes()


def at_next_epoch(site, name="tiny-en"):
    """Wait until a job has come an epoch further than it is now."""
    epoch = site.record(name).get("epoch", 0)
    site.until(lambda: site.record(name).get("epoch", 0) > epoch + 1, f"an epoch after {epoch}")


def restarted(site, task, count):
    """Wait until the task has been started again `count` times."""

    def runs():
        site.hurry(task)
        job = site.job(task)
        return job["JobState"] == "RUNNING" and job["Restarts"] == str(count)

    site.until(runs, f"restart {count} of {task}")


def test_requeued_by_an_administrator_preempted_and_a_node_lost(site, whole):
    (job,), _ = site.submit("train", *OPTIONS, "--", *CPU)
    task = f"{job}_0"
    (evaluation,), _ = site.submit("eval", "--langs", "en", "--eval_langs", "en", "--after", job, "--", *CPU)

    at_next_epoch(site)
    site.run("scontrol", "requeue", task)
    restarted(site, task, 1)
    assert site.record("tiny-en")["status"] == "running"

    # A job of a higher partition takes both nodes; slurmd gives the training a minute to save.
    at_next_epoch(site)
    site.run("sbatch", "--partition=urgent", "--nodes=2", "--ntasks=8", "--output=/dev/null", "--wrap", "sleep 1")
    restarted(site, task, 2)

    # The node is lost to Slurm, while the processes on it live on.
    at_next_epoch(site)
    node = site.job(task)["NodeList"]
    site.cluster.stop_node(node)
    site.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    restarted(site, task, 3)
    assert site.job(task)["NodeList"] != node
    site.wait(job)
    site.cluster.start_node(node)
    site.until(lambda: "idle" in site.run("sinfo", "--noheader", "--nodes", node, "--format=%t"), f"{node} to return")

    log = site.text("outputs/tiny-en/train.txt")
    assert log.count("going on from") == 3, log
    assert "an earlier process of this job lives on" in log
    assert log.count("is queued again and goes on") == 1, log
    assert site.record("tiny-en")["restarts"] == 3
    assert site.record("tiny-en")["status"] == "complete"
    assert "handover" not in " ".join(path.name for path in (site.folder / "outputs/tiny-en").iterdir())
    assert site.weights("tiny-en") == whole
    # What waits for a training waits through its restarts.
    site.wait(evaluation)
    assert (site.folder / "outputs/tiny-en/eval/en.json").exists()


def test_at_its_time_limit_the_task_alone_is_queued_again(site, whole):
    options = ["--langs", "en fr", *OPTIONS[2:], "--", *CPU]
    (job,), _ = site.submit("train", *options, "--signal=USR1@40")
    at_next_epoch(site)
    # It sleeps until the signal is there: Slurm looks at time limits twice a minute.
    (process,) = site.processes(f"{job}_0")
    os.kill(process, signal.SIGSTOP)
    at_next_epoch(site, "tiny-fr")
    site.run("scancel", f"{job}_1")
    hours, minutes, seconds = map(int, site.job(f"{job}_0")["RunTime"].split(":"))
    limit = 1 + (3600 * hours + 60 * minutes + seconds + 45) // 60
    site.run("scontrol", "update", f"JobId={job}_0", f"TimeLimit={limit}")
    # Slurm wakes it with the signal.
    site.until(lambda: f"=== job {job}_0 is queued again" in site.text("outputs/tiny-en/train.txt"), "the signal")
    site.wait(job)

    log = site.text("outputs/tiny-en/train.txt")
    assert re.search(r"stopped: SIGUSR1 at step \d+ of \d+; saved", log), log
    assert "status 138" in log
    assert site.record("tiny-en")["status"] == "complete", log
    assert site.weights("tiny-en") == whole

    # The task of the array that was cancelled was not queued again, and its record says why it ended.
    log = site.text("outputs/tiny-fr/train.txt")
    assert "queued again" not in log
    assert log.count("starts") == 1
    record = site.record("tiny-fr")
    assert record["status"] == "failed"
    assert "the job was cancelled: SIGTERM at step" in record["error"]
    table = site.submit("train", "--langs", "fr", "--status")[1]
    assert re.search(r"^tiny-fr +failed ", table, re.MULTILINE), table
    # What was saved is not lost: submitted again, the run goes on.
    site.submit("train", "--langs", "fr", *options[2:])
    site.until(lambda: "going on from" in site.text("outputs/tiny-fr/train.txt"), "the second start")


def test_restarts_without_progress_come_to_an_end(site):
    options = [*OPTIONS[:3], OPTIONS[3] + " --max_restarts 2"]
    (job,), _ = site.submit("train", *options, "--", *CPU)
    task = f"{job}_0"
    for restart in range(3):
        restarted(site, task, restart)
        if restart < 2:
            site.until(lambda count=restart: site.record("tiny-en").get("restarts") == count, f"start {restart}")
            site.run("scontrol", "requeue", task)
    site.wait(job)
    assert site.job(task)["ExitCode"] == "1:0"
    log = site.text("outputs/tiny-en/train.txt")
    assert "started 2 times from step 0 and never came to another resume point" in log
    record = site.record("tiny-en")
    assert record["status"] == "failed"
    assert "started 2 times from step 0" in record["error"]
