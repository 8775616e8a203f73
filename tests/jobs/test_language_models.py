"""What submit_lm_jobs.sh refuses before anything is submitted."""

import json
import re
import shlex

import pytest

from tests.factories import PROJECT
from utils.errors import UserError
from utils.jobs.language_models import LmPlanner
from utils.jobs.options import LmJobOptions, parse_combination_options

COMMANDS = [
    command
    for page in ("docs/how-to/language-models.md", "submit_lm_jobs.sh")
    for command in re.findall(r"^#? {4,}\./submit_lm_jobs\.sh (.*)$", (PROJECT / page).read_text("utf-8"), re.MULTILINE)
]

GIVEN = {"models": "gpt2 bert", "train_files": "train.txt.gz test.txt.gz", "validation_files": "dev.txt.gz"}


def test_combinations(here):
    planner = LmPlanner(LmJobOptions(**GIVEN, seeds="1 2", options="--epochs 3 --lora_targets query"))
    names = [f"{model}-{file}-{seed}" for file in ("train", "test") for model in ("gpt2", "bert") for seed in (1, 2)]
    assert [combination.name for combination in planner.combinations] == names
    work = planner.work(planner.combinations[3])
    assert work.line.split("\t") == [
        *("outputs/jobs/bert-train-2", "-", "--model_name_or_path", "bert", "--train_file", "train.txt.gz"),
        *("--validation_file", "dev.txt.gz", "--seed", "2", "--output_dir", "outputs"),
        *("--epochs", "3", "--lora_targets", "query"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"models": ""}, "no models, no train_files or no seeds"),
        ({"models": "gpt2 ./gpt2"}, "gpt2-train-1 is there twice"),
        ({"models": "no/where/at/all"}, "there is no such folder"),
        ({"train_files": "absent.txt.gz"}, "absent.txt.gz does not exist"),
        ({"train_files": "train.csv"}, "train.csv: expected a file of examples"),
        ({"validation_files": "dev.txt.gz dev.txt.gz dev.txt.gz"}, "one for each of the 2 train_files"),
        ({"seeds": "one"}, "--seed"),
        ({"options": "--epoch 3"}, "did you mean"),
        ({"options": "--seed 3"}, "--seed is not for --options"),
        ({"options": "--do_optimize"}, "--do_optimize is one study"),
        ({"options": "--token hf_secret"}, "--token: name a file that holds the token"),
        ({"options": "--epochs 'a"}, "No closing quotation"),
        ({"after": "me"}, "--after takes the job ids"),
    ],
)
def test_mistakes(here, given, message):
    with pytest.raises(UserError, match=message):
        LmPlanner(LmJobOptions(**GIVEN | {"seeds": "1"} | given))


def test_what_is_complete_is_left_alone_and_other_options_are_another_run(here):
    def planner(**more):
        given = {"models": "gpt2", "train_files": "train.txt.gz", "validation_files": "dev.txt.gz", "seeds": "1 2"}
        return LmPlanner(LmJobOptions(**given | more))

    first = planner(options="--epochs 3")
    record = {"status": "complete", "options": first.combinations[0].settings, "epoch": 3.0}
    folder = here / "outputs/train/gpt2/2026-11-27_12_00_00"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    again = planner(options="--epochs 3 --metrics_every none")
    assert [combination.name for combination in again.plan().complete] == ["gpt2-train-1"]
    assert [combination.name for combination in again.plan().work] == ["gpt2-train-2"]
    assert [status.state for status in again.statuses()] == ["done", "never submitted"]
    assert len(planner(options="--epochs 3", force=True).plan().work) == 2
    assert len(planner(options="--epochs 4").plan().work) == 2


def test_options_of_sbatch_in_the_registry_are_read(here, monkeypatch):
    (here / "models.json").write_text(json.dumps({"tiny": {"checkpoint": "gpt2", "sbatch_train": "--gres=gpu:2 '"}}))
    monkeypatch.setenv("MODEL_REGISTRY", "models.json")
    planner = LmPlanner(LmJobOptions(**GIVEN | {"models": "tiny", "seeds": "1"}))
    with pytest.raises(UserError, match="models.json: tiny: sbatch_train .*No closing quotation"):
        planner.work(planner.combinations[0])
    (here / "models.json").write_text(json.dumps({"tiny": {"checkpoint": "gpt2", "sbatch_train": "--gres=gpu:2"}}))
    planner = LmPlanner(LmJobOptions(**GIVEN | {"models": "tiny", "seeds": "1"}))
    assert planner.work(planner.combinations[0]).need == ("--gres=gpu:2",)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_docs_are_accepted(here, command):
    for name in ("a.txt.gz", "b.txt.gz"):
        (here / name).symlink_to("train.txt.gz")
    words = [word for word in shlex.split(command) if word != "--"]
    (given,) = [words[: words.index("--time=8:00:00")] if "--time=8:00:00" in words else words]
    options = parse_combination_options("lm", given, {}, "submit_lm_jobs.sh", "")
    assert LmPlanner(options).combinations
