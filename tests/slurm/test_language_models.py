"""submit_lm_jobs.sh on a real Slurm: models x training files x seeds."""

import re

from tests.factories import read_runs

CPU = ["--gres=none", "--cpus-per-task=1"]
OPTIONS = ["--models", "gpt2", "--train_files", "train.txt.gz", "--validation_files", "dev.txt.gz", "--seeds", "1 2"]
OPTIONS += ["--options", "--epochs 1 --max_train_samples 8"]


def test_every_model_on_every_file_with_every_seed(site, lm_inputs):
    for name in ("gpt2", "train.txt.gz", "dev.txt.gz"):
        (site.folder / name).symlink_to(lm_inputs / name)
    (job,), output = site.submit("lm", *OPTIONS, "--", *CPU, "--hold")
    assert f"job {job}: 2 tasks, gpt2-train-1 ... gpt2-train-2" in output and "on GPUs with --use_gpu" in output
    _, output = site.submit("lm", *OPTIONS)
    assert "2 combinations: 0 submitted, 2 in the queue already" in output
    site.run("scontrol", "release", job)
    site.wait(job)

    runs = read_runs(site.folder / "outputs")
    assert sorted((run["seed"], run["status"]) for run in runs) == [(1, "complete"), (2, "complete")]
    assert {run["slurm_job_id"].partition("_")[0] for run in runs} == {job}
    log = (site.folder / "outputs/jobs/gpt2-train-2/lm.txt").read_text()
    assert "best epoch 1 of 1" in log and re.search(r"=== job \S+, ends \S+, status 0", log)
    _, output = site.submit("lm", *OPTIONS)
    assert "2 combinations: 0 submitted, 2 complete and skipped" in output
