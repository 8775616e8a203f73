"""Every combination as a job: trained, evaluated after its own training, logged, not repeated."""

import json
import re
import shutil

import pytest

from tests.factories import Inputs
from tests.slurm.site import MAX_ARRAY_SIZE, Site

RECIPE = "--num_epochs 1 --batch_size 8 --learning_rate 1e-3 --precision fp32"
LANGS = "en fr en-fr"


@pytest.fixture(scope="module")
def fanout(cluster, small, tmp_path_factory):
    """Three trainings and the evaluations that wait for them, to their end."""
    folder = tmp_path_factory.mktemp("fanout")
    site = Site(folder, cluster, Inputs(small / "register-corpus", small / "model2chckpt.json", folder))
    # Held until the queue has been looked at, which on a slow machine takes as long as these trainings.
    trained, train_output = site.submit("train", "--langs", LANGS, "--options", RECIPE, "--", "--hold")
    evaluated, eval_output = site.submit("eval", "--langs", LANGS, "--after", trained[0])
    site.early_status = site.submit("train", "--langs", LANGS, "--status")[1]
    site.waits = [site.job(f"{evaluated[0]}_{index}")["Dependency"] for index in range(3)]
    site.again = site.submit("train", "--langs", LANGS)[1]
    site.run("scontrol", "release", trained[0])
    site.wait(*trained, *evaluated)
    return site, trained, evaluated, train_output, eval_output


def test_all_are_trained_and_evaluated(fanout):
    site, trained, evaluated, train_output, _ = fanout
    assert len(trained) == len(evaluated) == 1
    for lang in LANGS.split():
        assert site.record(f"tiny-{lang}")["status"] == "complete"
        results = site.folder / "outputs" / f"tiny-{lang}" / "eval"
        assert {path.stem for path in results.iterdir()} == {"en", "es", "fr"}
    assert f"scancel {trained[0]}" in train_output
    assert f"--after {trained[0]}" in train_output


def test_each_evaluation_waits_for_its_own_training(fanout):
    site, trained, _, _, _ = fanout
    for index, wait in enumerate(site.waits):
        assert wait.startswith(f"aftercorr:{trained[0]}_"), wait
        assert index == 0 or wait != "(null)"


def test_logs_say_job_node_start_end_and_status(fanout):
    site, trained, evaluated, _, _ = fanout
    for kind, job in (("train", trained[0]), ("eval", evaluated[0])):
        for index, lang in enumerate(LANGS.split()):
            log = site.text(f"outputs/tiny-{lang}/{kind}.txt")
            first, *_, last = log.splitlines()
            assert re.fullmatch(rf"=== job {job}_{index}, restart 0, on n[12], starts 2\S+", first), log
            assert re.fullmatch(rf"=== job {job}_{index}, ends 2\S+, status 0", last), log
            assert "Traceback" not in log
        assert site.record("tiny-en")["slurm_job_id"] == f"{trained[0]}_0"


def test_the_manifest_has_a_line_per_combination(fanout):
    site, trained, _, _, _ = fanout
    job, offset, count, name = site.text("outputs/jobs/train.tsv").split()
    assert (job, offset, count) == (trained[0], "0", "3")
    assert [line.split("\t")[0] for line in site.text(f"outputs/jobs/{name}").splitlines()] == [
        f"outputs/tiny-{lang}" for lang in LANGS.split()
    ]


def test_what_is_complete_or_queued_is_not_submitted_again(fanout):
    site = fanout[0]
    assert "3 in the queue already" in site.again
    jobs, output = site.submit("train", "--langs", LANGS, "--options", RECIPE)
    assert not jobs
    assert "3 complete and skipped" in output
    # Of other options they are complete too, but not what was asked for.
    jobs, output = site.submit("train", "--langs", LANGS)
    assert not jobs
    (said,) = [line for line in output.splitlines() if line.startswith("tiny-en is complete with other options: ")]
    assert "num_epochs 1 -> None" in said and "batch_size 8 -> 16" in said and "num_processes" not in said
    assert "3 combinations: 0 submitted, 3 complete with other options" in output
    jobs, output = site.submit("eval", "--langs", LANGS)
    assert not jobs
    assert "3 complete and skipped" in output
    _, output = site.submit("eval", "--langs", LANGS, "--force", "--dry_run")
    assert "3 to submit" in output


def test_status_tables(fanout):
    site, trained, evaluated, _, _ = fanout
    assert re.search(r"^tiny-en +(pending|running) +\d+_0 ", site.early_status, re.MULTILINE)
    table = site.submit("train", "--langs", "en fr en-fr es", "--status")[1].splitlines()
    assert table[0].split() == ["combination", "state", "job", "epoch", "best", "macro", "F1", "log"]
    best = json.loads(site.text("outputs/tiny-fr/train.json"))["epochs"][0]["validation"]["macro_f1"]
    row = ["tiny-fr", "done", f"{trained[0]}_1", "1/1", f"{best:.3f}", "outputs/tiny-fr/train.txt"]
    assert table[2].split() == row
    assert table[4].split() == ["tiny-es", "never", "submitted", "-", "-", "-", "-"]
    assert table[5] == "3 done, 0 running, 0 pending, 0 failed, 1 never submitted"
    table = site.submit("eval", "--langs", LANGS, "--status")[1].splitlines()
    assert table[2].split()[:5] == ["tiny-fr", "done", f"{evaluated[0]}_1", "1/1", f"{best:.3f}"]
    assert table[2].split()[5:] == ["3/3", "outputs/tiny-fr/eval.txt"]


def test_a_failed_job_has_the_status_of_the_script_and_is_seen(fanout):
    site = fanout[0]
    arguments = ["--langs", "en", "--subfolder", "bad"]
    jobs, _ = site.submit("train", *arguments, "--options", "--max_length 100000")
    awaiting, _ = site.submit("eval", *arguments, "--after", jobs[0])
    # Nor does an evaluation wait for ever for a training that has failed.
    site.wait(*jobs, *awaiting)
    assert not (site.folder / "outputs/bad/tiny-en/eval.txt").exists()
    assert site.job(f"{jobs[0]}_0")["ExitCode"] == "2:0"
    assert "--max_length 100000: this model takes at most" in site.text("outputs/bad/tiny-en/train.txt")
    table = site.submit("train", *arguments, "--status")[1]
    assert re.search(r"^tiny-en +failed ", table, re.MULTILINE), table
    # Nothing is trained, so nothing can be evaluated.
    jobs, output = site.submit("eval", *arguments, "--after", jobs[0])
    assert not jobs
    assert "1 not trained and left out: tiny-en" in output


def test_eight_evaluations_of_one_model_at_once_lose_nothing(fanout, small):
    site = fanout[0]
    corpus = site.folder / "corpus"
    shutil.copytree(small / "register-corpus", corpus)
    langs = [f"l{index:02}" for index in range(8)]
    for lang in langs:
        shutil.copy(corpus / "corpus/test/en.tsv", corpus / f"corpus/test/{lang}.tsv")
    site.environment["CORPUS_PATH"] = str(corpus)
    jobs = [
        site.submit("eval", "--langs", "en", "--eval_langs", lang, "--", "--gres=none", "--cpus-per-task=1")[0][0]
        for lang in langs
    ]
    site.wait(*jobs)
    expected = json.loads(site.text("outputs/tiny-en/eval/en.json"))["confusion_matrix"]
    for lang in langs:
        assert json.loads(site.text(f"outputs/tiny-en/eval/{lang}.json"))["confusion_matrix"] == expected
    assert site.text("outputs/tiny-en/eval.txt").count("status 0") == 9


def test_five_hundred_combinations_take_a_handful_of_arrays(site, small):
    corpus, registry = site.folder / "corpus", site.folder / "models.json"
    shutil.copytree(small / "register-corpus", corpus)
    for index in range(97):
        shutil.copy(corpus / "corpus/train/en.tsv", corpus / f"corpus/train/x{index}.tsv")
    models = {f"m{index}": "./tiny" for index in range(4)}
    models["big"] = {"checkpoint": "./tiny", "license": "a}: {[", "sbatch_train": "--gres=gpu:2 -N 1"}
    registry.write_text(json.dumps(models), encoding="utf-8")
    site.environment |= {"CORPUS_PATH": str(corpus), "MODEL_REGISTRY": str(registry)}
    jobs, output = site.submit("train", "--max_jobs", "7", "--", "--hold")
    assert "500 combinations: 500 submitted" in output
    counts = {}
    for task in site.queue():
        counts[task.split("_")[0]] = counts.get(task.split("_")[0], 0) + 1
    assert [counts[job] for job in jobs] == [MAX_ARRAY_SIZE] * 3 + [97, 100]
    # The first task of the second piece takes the line after those of the first.
    manifest = site.text("outputs/jobs/" + site.text("outputs/jobs/train.tsv").split()[3]).splitlines()
    offsets = [int(line.split("\t")[1]) for line in site.text("outputs/jobs/train.tsv").splitlines()]
    assert offsets == [0, 101, 202, 303, 400]
    assert len({line.split("\t")[0] for line in manifest}) == 500
    assert all(line.startswith("outputs/big-") for line in manifest[400:])
    big, small_job = site.job(jobs[4]), site.job(jobs[0])
    assert "gpu:2" in big["TresPerNode"] and "gpu:1" in small_job["TresPerNode"]
    # One array after the other, or more than seven would run.
    assert small_job["ArrayTaskThrottle"] == big["ArrayTaskThrottle"] == "7"
    assert big["Dependency"].startswith(f"afterany:{jobs[3]}")


def test_a_piece_that_sbatch_refuses_is_named_and_can_be_submitted_later(site, small):
    registry = site.folder / "models.json"
    models = {"tiny": str(small / "tiny-xlmr")}
    models["big"] = {"checkpoint": models["tiny"], "sbatch_train": "--partition=nowhere"}
    registry.write_text(json.dumps(models), encoding="utf-8")
    site.environment["MODEL_REGISTRY"] = str(registry)
    jobs, output = site.submit("train", "--langs", LANGS, "--", "--hold", status=1)
    assert len(jobs) == 1
    assert "invalid partition specified: nowhere" in output
    assert "sbatch refused 3 tasks, big-en ... big-en-fr" in output
    assert f"submitted: {jobs[0]}; the same command submits the rest" in output
    models["big"]["sbatch_train"] = "--partition=main"
    registry.write_text(json.dumps(models), encoding="utf-8")
    jobs, output = site.submit("train", "--langs", LANGS, "--", "--hold")
    assert "6 combinations: 3 submitted, 3 in the queue already" in output
    assert len(jobs) == 1
