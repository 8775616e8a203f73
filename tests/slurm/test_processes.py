"""Several GPUs and nodes: one process for each, which meet, train as one, and stop together."""

import os
import re
import signal

import pytest

from tests.factories import FAST, small_model_without_dropout

RECIPE = [*FAST, "--num_epochs", "4", "--batch_size", "4"]
OPTIONS = ["--langs", "en", "--options", " ".join(RECIPE)]


def test_one_two_and_two_nodes_train_the_same_model(site, small):
    """Batches of 8 on one process are batches of 4 on two, wherever these are."""
    site.environment["MODEL_REGISTRY"] = str(small_model_without_dropout(site.inputs))
    shapes = {
        "one": ["--gres=gpu:1"],
        "pair": ["--gres=gpu:2"],
        "nodes": ["--gres=gpu:1", "--nodes=2"],
        "others": ["--gres=gpu:1", "--nodes=2"],
    }
    jobs = {}
    for name, shape in shapes.items():
        options = [*OPTIONS[:3], OPTIONS[3] + (" --batch_size 8" if name == "one" else "")]
        (jobs[name],), _ = site.submit("train", *options, "--subfolder", name, "--", *shape, "--cpus-per-task=1")
    # The last two share both nodes, and on this machine even their ports.
    site.until(lambda: all(len(site.processes(f"{jobs[name]}_0")) == 2 for name in ("nodes", "others")), "both jobs")
    site.wait(*jobs.values())

    records = {name: site.record(f"{name}/tiny-en") for name in shapes}
    logs = {name: site.text(f"outputs/{name}/tiny-en/train.txt") for name in shapes}
    assert {name: record["num_processes"] for name, record in records.items()} == {
        "one": 1, "pair": 2, "nodes": 2, "others": 2,
    }, logs  # fmt: skip
    assert all(record["status"] == "complete" for record in records.values())
    ports = {re.search(r"processes meet at port (\d+)", logs[name])[1] for name in ("pair", "nodes", "others")}
    assert len(ports) == 3
    assert site.weights("pair/tiny-en") == site.weights("nodes/tiny-en") == site.weights("others/tiny-en")
    losses = [[epoch["loss"] for epoch in site.epochs(f"{name}/tiny-en")] for name in ("one", "pair")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for name, log in logs.items():
        assert log.count("epoch 1:") == 1, (name, log)
        assert "Traceback" not in log, log


def test_a_signal_to_one_rank_on_another_node_stops_all_and_the_job_goes_on(site):
    options = [*OPTIONS[:3], OPTIONS[3] + " --num_epochs 30"]
    shape = ["--gres=gpu:1", "--nodes=2", "--cpus-per-task=1"]
    (job,), _ = site.submit("train", *options, "--", *shape)
    site.until(lambda: site.record("tiny-en").get("epoch", 0) > 1, "the first epoch")
    os.kill(site.processes(f"{job}_0")[1], signal.SIGUSR1)
    site.wait(job)
    log = site.text("outputs/tiny-en/train.txt")
    assert log.count("stopped: SIGUSR1 at step") == 1, log
    assert "status 138" in log
    assert f"=== job {job}_0 is queued again" in log
    assert log.count("going on from") == 1
    assert site.record("tiny-en")["status"] == "complete"


def test_a_mistake_has_the_same_status_with_several_processes(site):
    options = [*OPTIONS[:3], OPTIONS[3] + " --max_length 100000"]
    (job,), _ = site.submit("train", *options, "--", "--gres=gpu:2", "--cpus-per-task=1")
    site.wait(job)
    log = site.text("outputs/tiny-en/train.txt")
    assert site.job(f"{job}_0")["ExitCode"] == "2:0", log
    assert log.count("finetune.py: error:") == 1
    assert "Traceback" not in log
