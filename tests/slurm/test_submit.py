"""What the submit scripts refuse, before anything is submitted, and what goes to sbatch as it is."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.factories import PROJECT, commands_of


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("train", ["--models", "tiny big"], "model 'big' is not in"),
        ("train", ["--langs", "en xx"], "language 'xx' has no train file"),
        ("train", ["--langs", "en-fr-en"], "language 'en' is given twice in 'en-fr-en'"),
        ("train", ["--langs", "../en"], "'../en' is not a language name"),
        ("train", ["--subfolder", "../s"], "--subfolder must be a folder below the output folder, got '../s'"),
        ("train", ["--max_jobs", "0"], "--max_jobs must be at least 1, got 0"),
        ("train", ["--modles", "tiny"], "unknown option --modles; did you mean '--models'?"),
        ("train", ["--models"], "argument --models: expected one argument"),
        ("train", ["--output_dir", "/sys/outputs"], "cannot write to /sys/outputs/jobs"),
        ("train", ["--accelerate_config", "nowhere.yaml"], "cannot read nowhere.yaml"),
        ("eval", ["--eval_langs", "en-fr", "--langs", "en"], "eval_langs are single languages, got 'en-fr'"),
        ("eval", ["--eval_langs", "xx", "--langs", "en"], "language 'xx' has no test file"),
        ("eval", ["--after", "77", "--langs", "en"], "--after 77: not a job of submit_train_jobs.sh"),
        ("eval", ["--after", "a;b", "--langs", "en"], "--after takes the job ids that sbatch printed"),
        ("eval", [], "no trained models in outputs"),
    ],
)
def test_mistakes_are_refused_before_anything_is_submitted(site, kind, arguments, message):
    jobs, output = site.submit(kind, *arguments, status=2)
    assert not jobs and not site.queue()
    assert re.fullmatch(rf"submit_{kind}_jobs\.sh: error: .*\n(see .* --help\n)?", output), output
    assert message in output


def test_a_malformed_registry_is_refused(site):
    registry = site.folder / "models.json"
    site.environment["MODEL_REGISTRY"] = str(registry)
    for text, message in (
        ('{"tiny": "a"', "line 1: not valid JSON"),
        ('["a"]', 'expected {"abbreviation": "checkpoint", ...}'),
        ("", "line 1: not valid JSON"),
        ('{"tiny": {"checkpoint": "a", "sbatch_train": "\'"}}', 'sbatch_train "\'": No closing quotation'),
    ):
        registry.write_text(text, encoding="utf-8")
        assert message in site.submit("train", "--langs", "en", status=2)[1]


def test_without_an_answer_of_the_queue_nothing_is_submitted(site):
    right = site.environment["SLURM_CONF"]
    # A controller that is down: nobody listens at this port.
    lines = Path(right).read_text().replace("SlurmctldPort=", "SlurmctldPort=1\n#")
    (site.folder / "slurm.conf").write_text(lines)
    site.environment["SLURM_CONF"] = str(site.folder / "slurm.conf")
    _, output = site.submit("train", "--langs", "en", status=2)
    assert "submit_train_jobs.sh: error: squeue does not answer" in output
    site.environment["SLURM_CONF"] = right
    assert not site.queue()


def test_options_after_the_dashes_go_to_sbatch_as_they_are(site):
    site.submit("train", "--langs=en", "--max-jobs=3", "--", "--hold", "--comment=two words", "--time=7")
    (task,) = site.queue()
    shown = site.run("scontrol", "show", "job", task)
    assert "Comment=two words" in shown
    assert "TimeLimit=00:07:00" in shown
    assert site.job(task)["Requeue"] == "1"


def test_sites_change_the_defaults_with_slurms_variables(site):
    site.environment |= {"SBATCH_TIMELIMIT": "11", "SBATCH_GRES": "gpu:2"}
    site.submit("train", "--langs", "en", "--", "--hold")
    (task,) = site.queue()
    assert site.job(task)["TimeLimit"] == "00:11:00"
    assert "gpu:2" in site.job(task)["TresPerNode"]


def test_what_is_given_twice_is_submitted_once(site):
    _, output = site.submit("train", "--models", "tiny tiny", "--langs", "en fr en", "--dry_run")
    assert "2 combinations: 2 to submit" in output


def test_training_may_wait_for_another_job(site):
    first = site.run("sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap", "true").strip()
    site.submit("train", "--langs", "en", "--after", first)
    (task,) = [task for task in site.queue() if not task.startswith(f"{first}_")]
    assert site.job(task)["Dependency"].startswith(f"afterok:{first}")


def test_variables_at_the_top_are_the_defaults(site):
    """Users edit them; options of the same names win."""
    for name in ("submit_train_jobs.sh", "submit_eval_jobs.sh", "utils", "run_train.sh", "model2chckpt.json", "config"):
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, site.folder / name)
    script = site.folder / "submit_train_jobs.sh"
    text = script.read_text().replace('langs="all"', 'langs="fr en-fr"').replace('subfolder=""', 'subfolder="s"')
    script.write_text(text)
    output = site.run(script, "--dry_run")
    assert "tiny-fr tiny-en-fr\n" in output
    assert "outputs/s/jobs/train-" in output
    assert "tiny-es\n" in site.run(script, "--dry_run", "--langs", "es")


def test_names_reach_the_script_as_they_are(site):
    """From the command line through sbatch and the job's shell, nothing of them is run."""
    folder, cache = "it's $(touch X) `touch X`; touch X", 'a "b" $(touch X)'
    recipe = f"--num_epochs 1 --batch_size 8 --max_train_texts 8 --cache_dir {shlex.quote(cache)}"
    (job,), _ = site.submit("train", "--langs", "en", "--subfolder", folder, "--options", recipe)
    site.wait(job)
    record = site.record(f"{folder}/tiny-en")
    assert record["status"] == "complete", site.text(f"outputs/{folder}/tiny-en/train.txt")
    assert (record["options"]["subfolder"], record["options"]["cache_dir"]) == (folder, cache)
    assert (site.folder / cache).is_dir() and not list(site.folder.rglob("X"))


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_help_shows_every_option(site, kind):
    _, output = site.submit(kind, "--help")
    for option in ("models", "langs", "subfolder", "force", "dry_run", "max_jobs", "after", "status", f"{kind}"):
        assert option in output
    assert f"./submit_{kind}_jobs.sh --status" in output


def test_the_commands_of_the_readme_are_accepted(site, small):
    """As dry runs, with the small model under the names that the README uses."""
    registry = dict.fromkeys(json.loads((PROJECT / "model2chckpt.json").read_text()), str(small / "tiny-xlmr"))
    (site.folder / "models.json").write_text(json.dumps(registry), encoding="utf-8")
    site.environment["MODEL_REGISTRY"] = str(site.folder / "models.json")
    (site.folder / "config").symlink_to(PROJECT / "config")
    shutil.copytree(small / "register-corpus", site.folder / "corpus")
    for split in ("train", "test"):
        shutil.copy(small / "register-corpus/corpus/test/en.tsv", site.folder / f"corpus/corpus/{split}/tr.tsv")
    site.environment["CORPUS_PATH"] = "corpus"
    trained = site.folder / "outputs" / "xlmr-en"
    trained.mkdir(parents=True)
    (trained / "run.json").write_text('{"status": "complete"}')
    shutil.copytree(small / "tiny-xlmr", site.folder / "models" / "xlmr-en-fr")
    (site.folder / "corpus" / "texts.jsonl.zst").write_bytes(b"not read in a dry run")
    commands = [command.removeprefix("./") for command in commands_of(r"\./submit_(train|eval|predict)_jobs")]
    assert len(commands) > 5
    for command in commands:
        if "--after" in command:
            (job,), _ = site.submit("train", "--models", "xlmr", "--langs", "en", "--force", "--", "--hold")
            command = command.replace("1234", job)
        script, _, rest = command.partition(" ")
        own, dashes, for_sbatch = rest.partition("-- ")
        line = f"{PROJECT}/{script} {own} --dry_run {dashes}{for_sbatch}"
        result = subprocess.run(
            ["bash", "-c", line], cwd=site.folder, env=site.environment, capture_output=True, text=True
        )
        assert result.returncode == 0, (command, result.stderr)
