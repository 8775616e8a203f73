"""Plans of many jobs: what is checked before anything is written, what is written, what is collected."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import finetuning_generator
import grid_search
from demo.nanogpt import build
from tests.factories import PROJECT, typed_registry
from utils.cli.parser import OptionParser
from utils.errors import UserError
from utils.evaluation.metrics import METRICS
from utils.figures.grid import grid_figure
from utils.figures.style import save_figure
from utils.jobs import grid, slurm
from utils.jobs.experiments import parse_job_options
from utils.jobs.templates import fill_template
from utils.runs.files import write_json
from utils.training.classifier_options import FinetuneOptions

BASE = {"model_name": "tiny", "task": "sentiment", "num_epochs": 1}
GRID = {"parameters": {"learning_rate": [1e-3, 1e-4], "batch_size": [8, 16], "epochs": 2}}


@pytest.fixture
def plan(inputs, monkeypatch):
    """Configs, a grid and a registry with the tiny model for texts and for phonemes."""
    monkeypatch.setenv("MODEL_REGISTRY", str(typed_registry(inputs)))
    (inputs.folder / "base.json").write_text(json.dumps(BASE))
    (inputs.folder / "grid.json").write_text(json.dumps(GRID))
    return inputs.folder


GRID_COMMAND = ["base.json", "--grid_config", "grid.json"]


def test_a_dry_run_names_all_and_writes_nothing(plan, invoke):
    before = sorted(plan.iterdir())
    status, output, errors = invoke(
        grid_search, *GRID_COMMAND, "--model_type", "normal", "ipa", "--timeout", "90", "--dry_run"
    )  # fmt: skip
    assert (status, errors) == (0, "")
    assert "4 permutations of 3 parameters, 4 jobs each" in output
    assert "16 jobs: 16 to submit, at most 24.0 node-hours (90 each)" in output
    assert "tiny-ipa-polish_learning_rate-0.001_batch_size-16_num_epochs-2" in output.splitlines()
    assert sorted(plan.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["tiny-polish-russian", "tiny-polish", "tiny-russian"]),
        (["--languages", "russian", "polish"], ["tiny-russian-polish", "tiny-russian", "tiny-polish"]),
        (["--subsets", "single"], ["tiny-polish", "tiny-russian"]),
        (["--subsets", "joint"], ["tiny-polish-russian"]),
    ],
)
def test_subsets_of_the_languages(plan, invoke, arguments, names):
    status, output, _ = invoke(finetuning_generator, "base.json", *arguments, "--dry_run")
    assert status == 0
    assert [line for line in output.splitlines() if line.startswith("tiny")] == [
        *names,
        *(name.replace("tiny", "tiny-ipa") for name in names),
    ]


def test_all_subsets_of_many_languages():
    subsets = finetuning_generator.choose_subsets(["a", "b", "c"], "all")
    assert subsets == [("a", "b", "c"), ("a", "b"), ("a", "c"), ("b", "c"), ("a",), ("b",), ("c",)]


def test_the_register_corpus_too(plan, invoke):
    (plan / "base.json").write_text(json.dumps({"model_name": "tiny", "languages": ["en", "fr"]}))
    status, output, _ = invoke(finetuning_generator, "base.json", "--dry_run")
    assert status == 0
    assert output.splitlines()[2:5] == ["tiny-en-fr", "tiny-en", "tiny-fr"]
    status, _, errors = invoke(finetuning_generator, "base.json", "--model_type", "ipa", "--dry_run")
    assert status == 2 and "the register corpus has no phonemes" in errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "grid.json: parameters: expected an object"),
        ({"params": {}}, "grid.json: unknown key 'params'"),
        ({"parameters": {"learning_rat": [1]}}, "learning_rat is no hyperparameter; did you mean 'learning_rate'?"),
        ({"parameters": {"learning_rate": [1e-3, -1]}}, "parameters.learning_rate: learning_rate must be above 0"),
        ({"parameters": {"batch_size": ["many"]}}, "parameters.batch_size:"),
        ({"parameters": {"batch_size": []}}, "parameters.batch_size: expected one or more different values"),
        ({"parameters": {"batch_size": [8, 8]}}, "parameters.batch_size: expected one or more different values"),
        ({"parameters": {"epochs": 1, "num_epochs": 2}}, "num_epochs is given twice"),
        ({"parameters": {"train_langs": ["russian"]}}, "parameters.train_langs is for the config"),
        ({"parameters": {"mix": ["equal", "some"]}}, "parameters.mix:"),
        (GRID | {"languages": "all"}, "languages: expected"),
        (GRID | {"languages": {"train": "klingon"}}, "languages.train: no texts in 'klingon'"),
        (GRID | {"languages": {"eval": "russian-polish"}}, "languages.eval: 'russian-polish' is not a language name"),
        (GRID | {"languages": {"eval": []}}, "languages.eval: expected all, a language or a list"),
    ],
)  # fmt: skip
def test_mistakes_in_a_grid(plan, invoke, content, message):
    (plan / "grid.json").write_text(json.dumps(content))
    status, _, errors = invoke(grid_search, *GRID_COMMAND, "--dry_run")
    assert (status, message in errors) == (2, True), errors


@pytest.mark.parametrize(
    ("base", "arguments", "message"),
    [
        ({"task": "sentiment"}, [], "base.json: model_name is missing"),
        (BASE | {"learning_rat": 1}, [], "base.json: unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        (BASE | {"learning_rate": -1}, [], "base.json: learning_rate must be above 0"),
        (BASE | {"train_langs": "russian"}, [], "train_langs is for finetune.py alone"),
        (BASE | {"model_name": "giant"}, [], "model 'giant' is not in"),
        (BASE | {"languages": ["russian", "klingon"]}, [], "--languages: no texts in 'klingon'"),
        (BASE, ["--languages", "russian", "russian"], "a language is given twice"),
        (BASE, ["--timeout", "soon"], "--timeout soon: expected a time limit of Slurm"),
        (BASE, ["--after", "1;rm"], "--after 1;rm: expected the number of a job"),
        (BASE, ["--template", "none.sh"], "template none.sh: cannot read it"),
        (BASE, ["--template_fields.account", "a\nb"], "a field cannot hold a line break"),
        (BASE, ["--languages", "russian", "--subsets", "joint"], "--subsets joint needs several languages"),
    ],
)
def test_mistakes_before_anything_is_written(plan, invoke, base, arguments, message):
    (plan / "base.json").write_text(json.dumps(base))
    status, _, errors = invoke(finetuning_generator, "base.json", *arguments, "--dry_run")
    assert (status, message in errors) == (2, True), errors
    assert not (plan / "jobs").exists()


def template(folder, text):
    path = folder / "template.sh"
    path.write_text(text, encoding="utf-8")
    return path


FIELDS = {"job_name": "j", "cpus": "2", "gpus": "0", "timeout": "10", "args": "'a b'"}


def test_templates_are_filled_and_shell_braces_survive(tmp_path):
    text = "#SBATCH -J {job_name}\ncd ${{HOME}}\nf() {{ echo {args}; }}\necho {{1..3}}\n{cpus}{gpus}{timeout}"
    filled = fill_template(template(tmp_path, text), FIELDS, FIELDS)
    assert filled == "#SBATCH -J j\ncd ${HOME}\nf() { echo 'a b'; }\necho {1..3}\n2010"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{job_name}\ncd ${HOME}\n", "line 2: unknown field {HOME}"),
        ("{job_name}\n{jobname}\n", "line 2: unknown field {jobname}; did you mean 'job_name'?"),
        ("{job_name!r}", "line 1: unknown field {job_name}"),
        ("{job_name.__class__}", "line 1: unknown field {job_name.__class__}"),
        ("f() { echo; }", "line 1: unknown field { echo; }"),
        ("f() {", "line 1: "),
        ("{}", "line 1: unknown field {}"),
        ("{job_name} {cpus} {gpus} {timeout}", "the field {args} is missing"),
    ],
)
def test_templates_that_cannot_be_filled(tmp_path, text, message):
    path = template(tmp_path, text)
    with pytest.raises(UserError) as error:
        fill_template(path, FIELDS, FIELDS)
    assert str(path) in str(error.value) and message in str(error.value)


@given(st.text(alphabet="ab{}$ \n'\"\\", max_size=40))
def test_any_shell_code_survives_with_its_braces_doubled(text):
    with tempfile.TemporaryDirectory() as folder:
        path = template(Path(folder), text.replace("{", "{{").replace("}", "}}"))
        assert fill_template(path, FIELDS) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 3600), ("1:30", 90), ("2:00:00", 7200), ("1-12", 129600), ("1-0:30", 88200), ("2-00:00:01", 172801)],
)
def test_time_limits(text, seconds):
    assert slurm.parse_timeout(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "1:2:3:4", "-5", "1-", "1.5", "two", "1-1:1:1:1", "١"])
def test_time_limits_that_are_none(text):
    with pytest.raises(UserError):
        slurm.parse_timeout(text)


VALUES = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.text(max_size=60))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, min_size=3), min_size=2, max_size=2))
def test_different_permutations_have_different_names(pair):
    names = [grid.permutation_name(values) for values in pair]
    assert (names[0] == names[1]) == (json.dumps(pair[0]) == json.dumps(pair[1])) or str(pair[0]) == str(pair[1])
    for name in names:
        assert len(name) <= grid.LONGEST_NAME and "/" not in name and name not in (".", "..")


def complete(monkeypatch, scores):
    """Leave what complete jobs do, for as many jobs of the search as there are scores."""
    monkeypatch.setattr("sys.argv", ["grid_search.py", *GRID_COMMAND])
    _, _, jobs = grid_search.plan(*parse_job_options(grid_search.GridOptions, ""))
    for job, score in zip(jobs, scores, strict=False):
        metrics = dict.fromkeys(METRICS, score)
        write_json(
            job.result_json,
            {
                "name": job.name,
                "config": job.config,
                "best_epoch": 2,
                "validation": {"loss": 1 - score, **metrics},
                "evaluations": dict.fromkeys(("polish", "russian"), metrics),
                "seconds": 1.5,
                "num_train_texts": 9,
            },
        )
    return jobs


@pytest.mark.slow
def test_collected_results(plan, invoke, monkeypatch):
    jobs = complete(monkeypatch, [0.1, 0.9, 0.3, 0.4, 0.5])
    status, output, errors = invoke(grid_search, *GRID_COMMAND, "--collect")
    assert (status, errors) == (0, "")
    assert "5 of 8 jobs are complete; the best by validation_macro_f1:" in output
    assert "expected best of so many trials (Dodge et al. 2019): 1 0." in output
    table = (plan / "outputs/base_grid/results.csv").read_text().splitlines()
    columns = table[0].split(",")
    values = [float(line.split(",")[columns.index("validation_macro_f1")]) for line in table[1:]]
    assert values == [0.9, 0.5, 0.4, 0.3, 0.1]
    best = plan / "outputs/base_grid/best.json"
    options = OptionParser(FinetuneOptions).parse(["--config", str(best)])
    assert options.train_langs == jobs[1].config["train_langs"]
    assert json.loads(best.read_text()) == {k: v for k, v in jobs[1].config.items() if k != "subfolder"}
    assert (plan / "outputs/base_grid/best-tiny-russian.json").is_file()
    for suffix in ("png", "pdf"):
        assert (plan / f"outputs/base_grid/grid.{suffix}").stat().st_size > 1000
    # By the loss, the lowest comes first, here the same.
    assert invoke(grid_search, *GRID_COMMAND, "--collect", "--metric", "validation_loss")[0] == 0
    assert (plan / "outputs/base_grid/results.csv").read_text().splitlines() == table
    status, _, errors = invoke(grid_search, *GRID_COMMAND, "--collect", "--metric", "polish_macro_f2")
    assert status == 2 and "did you mean 'polish_macro_f1'?" in errors
    output = invoke(grid_search, *GRID_COMMAND, "--dry_run")[1]
    assert "8 jobs: 3 to submit" in output and "5 complete and skipped" in output


def test_results_of_other_options_are_not_taken(plan, invoke, monkeypatch):
    complete(monkeypatch, [0.1])
    (plan / "base.json").write_text(json.dumps(BASE | {"weight_decay": 0.1}))
    status, _, errors = invoke(grid_search, *GRID_COMMAND, "--dry_run")
    assert status == 2 and "was made with weight_decay None, not 0.1" in errors


def test_nothing_to_collect(plan, invoke):
    status, _, errors = invoke(grid_search, *GRID_COMMAND, "--collect")
    assert status == 2 and "none of the 8 jobs of base_grid is complete" in errors


@pytest.mark.parametrize("metric", ["validation_macro_f1", "validation_loss"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("values", [1, 3])
def test_a_figure_for_any_number_of_parameters(tmp_path, count, values, metric):
    names = [f"parameter_{letter}" for letter in "abcde"[:count]]
    rows = [
        dict(zip(names, chosen, strict=True)) | {"model": "m", "train_langs": langs, metric: index / 7, "name": "x"}
        for index, chosen in enumerate(itertools.product(*([True, "a longer name", 1e-5][:values] for _ in names)))
        for langs in ("en", "fr-en")[:values]
    ]
    figure = grid_figure(rows, names, metric)
    assert (figure is None) == (count == 0)
    if figure:
        (path,) = save_figure(figure, tmp_path / "grid", ["png"])
        assert path.stat().st_size > 1000
        figure.canvas.draw()
        box = figure.bbox
        for text in [text for axes in figure.axes for text in axes.texts] + [axes.title for axes in figure.axes]:
            extent = text.get_window_extent()
            assert extent.x0 >= box.x0 - 1 and extent.x1 <= box.x1 + 1, text.get_text()


def test_the_projects_own_configs_are_sound(plan, invoke):
    """With the models that `make demo-ipa` builds; without them, a dry run says what is missing."""
    for folder in ("config", "demo/sentiment"):
        shutil.copytree(PROJECT / folder, plan / folder)
    command = ["config/finetune-rus-pol-sentiment.json"]
    status, output, errors = invoke(finetuning_generator, *command, "--dry_run")
    assert status == 1 and "6 jobs: 6 to submit" in output
    assert "missing: model rus-pol-normal: " in errors and "ckpt.pt does not exist" in errors
    status, _, errors = invoke(finetuning_generator, *command, "--no_submit")
    assert status == 2 and "ckpt.pt does not exist (and 1 more, see --dry_run)" in errors
    assert not (plan / "jobs").exists()
    build(plan / "demo/checkpoints")
    status, output, errors = invoke(finetuning_generator, *command, "--dry_run")
    assert (status, errors) == (0, "")
    command += ["--grid_config", "config/grid-search.json"]
    status, output, errors = invoke(grid_search, *command, "--dry_run")
    assert status == 0 and "27 permutations of 4 parameters, 2 jobs each" in output
    # A tokenizer of another model.
    vocabulary = plan / "demo/checkpoints/rus-pol-normal/vocab.json"
    vocabulary.write_text(json.dumps(json.loads(vocabulary.read_text()) | {"more": 600}))
    status, output, errors = invoke(grid_search, *command, "--dry_run")
    assert status == 1 and "vocab.json: has token 600, but the model has embeddings for 512 tokens only" in errors


@pytest.mark.slow
def test_all_jobs_run_without_slurm(plan, invoke):
    """--no_submit writes a script that runs them in turn; what fails does not stop the others."""
    (plan / "base.json").write_text(json.dumps(BASE | {"batch_size": 8}))
    command = ["base.json", "--model_type", "normal", "--subsets", "single"]
    status, output, errors = invoke(finetuning_generator, *command, "--no_submit")
    assert status == 0, errors
    (line,) = [line for line in output.splitlines() if line.startswith("run all")]
    assert line == f"run all   bash {plan}/jobs/generated/base/run-all.sh"
    broken = plan / "jobs/generated/base/tiny-polish.sh"
    broken.write_text("exit 3\n")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run = subprocess.run(
        line.removeprefix("run all").split(), cwd=plan, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stdout.splitlines() == ["tiny-polish (1 of 2)", "tiny-russian (2 of 2)", "1 failed: tiny-polish"]
    assert (plan / "outputs/tiny-russian/result.json").is_file()
    status, output, _ = invoke(finetuning_generator, *command, "--dry_run")
    assert status == 0 and "1 to submit" in output and "1 complete" in output
    subprocess.run(["shellcheck", plan / "jobs/generated/base/run-all.sh"], check=True)
