"""run_pipeline.py: what its file may say, its steps, its tables."""

import csv
import json
import os
import signal
import threading
import time
from pathlib import Path

import datasets
import pytest
import yaml

import run_pipeline
from demo.minilm import checkpoint
from tests.factories import PROJECT, skip, write_news
from tests.processes import finish, start
from utils.data.source import open_texts
from utils.errors import UserError
from utils.evaluation.metrics import METRICS
from utils.figures.accuracy import accuracy_figure
from utils.jobs.experiments import check_config
from utils.pipeline import results
from utils.pipeline.config import LABELS, PipelineFile
from utils.pipeline.results import markdown, parse_logs, results_row
from utils.runs.files import is_held, read_json, write_json
from utils.runs.layout import RunLayout
from utils.training.baseline import baseline_spec, train_baseline

PIPELINE = {
    "data": {"dataset": "news", "validation_size": 40},
    "results_dir": "results",
    "model_dir": "trained",
    "logs_dir": "logs",
    "defaults": {"training_args": {"num_epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}},
    "tasks": {
        "baseline": {"model_name": "tfidf"},
        "A": {"fine_tune": False, "pretrained": True, "model_name": "tiny"},
        "C": {
            "lora": {"targets": "query", "r": 4},
            "subtasks": {
                "C1_v1": {"model_name": "tiny", "training_args": {"attention_dropout": 0}},
                "C2_v1": {"model_name": "gone"},
            },
        },
    },
}


@pytest.fixture
def pipeline(inputs, monkeypatch):
    """A folder with news, a registry with one model that is there and one that is not, and a pipeline of both."""
    content = {"tiny": str(inputs.registry.parent / "tiny-xlmr"), "gone": "./nowhere"}
    (inputs.folder / "registry.json").write_text(json.dumps(content))
    monkeypatch.setenv("MODEL_REGISTRY", str(inputs.folder / "registry.json"))
    write_news(inputs.folder / "news")
    return write(inputs.folder, PIPELINE)


def write(folder, content):
    path = folder / "pipeline.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


@pytest.mark.slow
def test_all_steps_and_one_that_fails(pipeline, inputs, invoke):
    output = finish(start("run_pipeline.py", str(pipeline), cwd=inputs.folder), 1)
    assert "Traceback" not in output
    assert "run_pipeline.py: error: C2_v1: finetune.py ended with status 2" in output
    assert "run_pipeline.py: error: failed: C2_v1" in output
    assert "training texts: World 30, Sports 30, Business 30, Sci/Tech 30" in output
    with (inputs.folder / "results/results.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["baseline", "A", "C1_v1"]
    assert float(rows["baseline"]["test_accuracy"]) > 0.9
    assert rows["A"]["trainable_parameters"] == "0" and float(rows["A"]["test_accuracy"]) < 0.6
    assert 0 < int(rows["C1_v1"]["trainable_parameters"]) < 0.1 * int(rows["C1_v1"]["parameters"])
    for row in rows.values():
        assert float(row["test_macro_f1_low"]) <= float(row["test_macro_f1"]) <= float(row["test_macro_f1_high"])
        assert 0 <= float(row["train_accuracy"]) <= 1
    for name in (
        "results/results.md",
        "results/results.png",
        "results/results.pdf",
        "logs/C1_v1.csv",
        "logs/C1_v1.png",
    ):
        assert (inputs.folder / name).stat().st_size > 100
    assert len((inputs.folder / "logs/C1_v1.csv").read_text().splitlines()) == 3
    assert (inputs.folder / "trained/C1_v1/tiny-english/adapter_config.json").is_file()

    # What is finished is not repeated.
    before = {path: path.stat().st_mtime_ns for path in (inputs.folder / "trained").rglob("*.*")}
    output = finish(start("run_pipeline.py", str(pipeline), "--tasks", "baseline", "C1_v1", cwd=inputs.folder))
    assert output.count("is already complete") == 2 and "evaluated already" in output
    assert before == {
        path: path.stat().st_mtime_ns for path in (inputs.folder / "trained").rglob("*") if path.is_file()
    }
    assert len((inputs.folder / "results/results.csv").read_text().splitlines()) == 4


@pytest.mark.slow
def test_jobs_that_end_at_the_same_moment_lose_no_row(inputs, invoke, monkeypatch):
    """One has read the results and not yet written the table when the other has its result and writes."""
    write_news(inputs.folder / "news")
    tasks = {name: {"model_name": "tfidf", "training_args": {"seed": seed}} for seed, name in enumerate("ab")}
    path = write(
        inputs.folder, {"data": {"dataset": "news", "validation_size": 40}, "results_dir": "results", "tasks": tasks}
    )
    status, _, errors = invoke(run_pipeline, str(path))
    assert status == 0, errors
    (late,) = (inputs.folder / "results/b").rglob("eval/english.json")
    content = late.read_text()
    late.unlink()
    stock, has_read, pipeline = results.write_results, threading.Event(), PipelineFile(path)

    def slowly(rows, folder):
        if len(rows) == 1:
            has_read.set()
            time.sleep(1)
        return stock(rows, folder)

    monkeypatch.setattr(results, "write_results", slowly)
    first = threading.Thread(target=run_pipeline.tabulate, args=[pipeline])
    first.start()
    assert has_read.wait(30)
    late.write_text(content)
    run_pipeline.tabulate(pipeline)
    first.join()
    table = (inputs.folder / "results/results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["name", "a", "b"]


START = "data: {dataset: x}\ntasks:\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("data:\n  dataset: x\n  datset: y\n", 3, "unknown key 'datset'; did you mean 'dataset'?"),
        (START + "  B:\n    model: m\n", 4, "unknown key 'model'; did you mean 'model_"),
        (START + "  B:\n    subtasks:\n      B1: {lora: {rank: 3}}\n", 5, "unknown key 'rank'"),
        (START + "  B: {model_name: tiny,\n   training_args: {lr: 3}}\n", 4, "unknown key 'lr'"),
        (START + "  B: {model_name: tiny}\n  C: {}\n", 4, "C has no model_name"),
        (START + "  B: {model_name: giant}\n", 3, "model 'giant' is not in"),
        (START + "  B: {model_name: ../x}\n", 3, "'../x' is not a model abbreviation"),
        (START + "  B:\n    model_name: tiny\n    evaluate: maybe\n", 5, "evaluate must be true or false"),
        (START + "  B: {model_name: tiny, lora: {targets: querys}}\n", 3, "unknown target 'querys'"),
        (START + "  B: {model_name: tiny, pretrained: true}\n", 3, "leave fine_tune or pretrained out"),
        (START + "  B: {model_name: tiny, training_args: {learning_rate: -1}}\n", 3, "must be above 0"),
        ("data: {validation_size: 3}\ntasks: {B: {model_name: tiny}}\n", 1, "dataset is missing"),
        ("data: {dataset: x}\n", 1, "tasks is missing or no mapping"),
        (START + "  B: 3\n", 3, "expected a mapping, got 3"),
        # What the pipeline says itself was overwritten, or ignored.
        (START + "  B: {model_name: tiny, training_args: {subfolder: s}}\n", 3, "every subtask has its own"),
        (START + "  B: {model_name: tiny, training_args: {train_langs: en}}\n", 3, "every subtask has its own"),
        (START + "  B: {model_name: tiny, training_args: {output_dir: o}}\n", 3, "give results_dir beside"),
        (START + "  B: {model_name: tiny, training_args: {validation_size: 9}}\n", 3, "give it under data"),
        (START + "  B: {model_name: tiny, training_args: {do_optimize: true}}\n", 3, "a pipeline trains"),
        (START + "  B: {model_name: tiny, training_args: {lora_r: 9}}\n", 3, "give r under lora"),
        (START + "  B: {model_name: tiny, training_args: {fp16: true}}\n", 3, "the number format is --precision"),
        (START + "  B: {model_name: tiny, lora: {r: 8}}\n", 3, "B: lora without targets"),
        (START + "  B:\n    lora: {r: 8}\n    subtasks: {B1: {model_name: tiny}}\n", 5, "B1: lora without targets"),
        (START + "  B: {model_name: tfidf, training_args: {learning_rate: 1}}\n", 3, "tfidf has no learning_rate"),
        (START + "  B: {model_name: tfidf, lora: {targets: key}}\n", 3, "tfidf has no lora"),
        (START + "  B: {model_name: tiny, model_name: big}\n", 3, "the key 'model_name' is given twice"),
        (START + "  B: {model_name: tiny, training_args: {num_epochs: }}\n", 3, "num_epochs has no value"),
        (START + "  B: {model_name: tiny, training_args: }\n", 3, "training_args must be a mapping"),
        (START + "  B: {model_name: }\n", 3, "B has no model_name"),
        ("results_dir:\n" + START + "  B: {model_name: tiny}\n", 1, "results_dir must be a path"),
        ("data: {dataset: }\ntasks: {B: {model_name: tiny}}\n", 1, "dataset must be a name"),
        (START + "  B: {model_name: tiny, training_args: {batch_size: 4, per_device_train_batch_size: 8}}\n", 3,
         "per_device_train_batch_size is batch_size, which is given too"),
        (START + "  B: {model_name: tiny, checkpoints_dir: models/agnews}\n", 3, "is --models_dir too"),
        (START + "  B: {model_name: tiny, training_args: {learning_rate: -1}}\n", 3,
         "learning_rate must be above 0, got -1"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_line(pipeline, inputs, invoke, text, line, message):
    write(inputs.folder, text)
    status, _, errors = invoke(run_pipeline, "pipeline.yaml")
    assert status == 2 and message in errors, errors
    assert f"pipeline.yaml, line {line}: " in errors or message.startswith("must be"), errors
    assert not (inputs.folder / "results").exists()


def test_the_trainers_names_and_what_defaults_say_of_adapters(pipeline, inputs):
    content = json.loads(json.dumps(PIPELINE))
    content["defaults"]["training_args"] = {"per_device_train_batch_size": 4, "num_train_epochs": 2}
    content["defaults"]["lora"] = {"r": 3}
    del content["tasks"]["C"]["lora"]["r"]
    subtasks = {subtask.name: subtask for subtask in PipelineFile(write(inputs.folder, content)).subtasks}
    config = subtasks["C1_v1"].config
    assert (config["batch_size"], config["num_epochs"], config["lora_r"]) == (4, 2, 3)
    assert "lora_r" not in subtasks["A"].config, "the whole model"


@pytest.mark.slow
def test_changed_settings_of_a_finished_subtask(pipeline, inputs, invoke):
    command = [str(pipeline), "--tasks", "baseline", "A"]
    assert invoke(run_pipeline, *command)[0] == 0
    assert "2 complete" in invoke(run_pipeline, *command, "--dry_run")[1]
    content = json.loads(json.dumps(PIPELINE))
    content["tasks"]["A"]["training_args"] = {"max_length": 32}
    write(inputs.folder, content)
    status, _, errors = invoke(run_pipeline, *command, "--dry_run")
    assert status == 2 and "A: results/A/tiny-english holds a run with other options (max_length None -> 32)" in errors
    status, output, errors = invoke(run_pipeline, *command, "--dry_run", "--force")
    assert status == 0 and "2 to submit" in output, errors


@pytest.mark.slow
def test_resume_points_that_are_kept(pipeline, inputs, invoke):
    content = json.loads(json.dumps(PIPELINE))
    content |= {"checkpoints_dir": "points"}
    content["tasks"] = {"C": content["tasks"]["C"]["subtasks"]["C1_v1"] | {"keep_checkpoints": True}}
    status, _, errors = invoke(run_pipeline, str(write(inputs.folder, content)))
    assert status == 0, errors
    folder = inputs.folder / "points/C/tiny-english/checkpoints"
    assert list(folder.glob("checkpoint-*/model.safetensors"))
    # What parse_logs reads of a training that has not come to its end.
    (inputs.folder / "results/C/tiny-english/train.json").unlink()
    subtask = PipelineFile(inputs.folder / "pipeline.yaml").subtasks[0]
    assert len(parse_logs(subtask)[0].read_text().splitlines()) == 3
    del content["tasks"]["C"]["keep_checkpoints"]
    assert invoke(run_pipeline, str(write(inputs.folder, content)), "--force")[0] == 0
    assert list((inputs.folder / "points").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_what_stops_the_pipeline_stops_its_training(pipeline, inputs, signum):
    content = json.loads(json.dumps(PIPELINE))
    content["tasks"] = {"B": {"model_name": "tiny", "training_args": {"num_epochs": 500}}}
    process = start("run_pipeline.py", str(write(inputs.folder, content)), cwd=inputs.folder)
    for line in process.stdout:
        if line.startswith("epoch 1"):
            break
    lock = inputs.folder / "results/B/tiny-english/.lock"
    assert is_held(lock)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=120)
    end = time.monotonic() + 60
    while is_held(lock) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_held(lock), "nobody trains any more"
    assert list((inputs.folder / "trained/B/tiny-english/checkpoints").glob("checkpoint-*/resume_point.json"))
    if signum != signal.SIGKILL:
        assert process.returncode == 128 + signum, output
        assert "during finetune.py; the same command goes on" in output and "Traceback" not in output


def test_a_mistake_behind_an_anchor_has_the_anchors_line(pipeline, inputs):
    text = START + "  B:\n    subtasks:\n      B1: &a\n        modle: x\n      B2: {<<: *a}\n"
    with pytest.raises(UserError, match=r"line 6: unknown key 'modle'"):
        PipelineFile(write(inputs.folder, text))


def test_what_is_shared_and_what_wins(pipeline, inputs):
    file = PipelineFile(pipeline)
    assert [subtask.name for subtask in file.subtasks] == ["baseline", "A", "C1_v1", "C2_v1"]
    config = file.choose(["C1_v1"])[0].config
    assert (config["num_epochs"], config["attention_dropout"], config["lora_targets"], config["lora_r"]) == (
        2, 0, ["query"], 4,
    )  # fmt: skip
    assert [subtask.name for subtask in file.choose(["C", "A"])] == ["A", "C1_v1", "C2_v1"]
    assert file.choose(["A"])[0].config["num_epochs"] == 0
    with pytest.raises(UserError, match="has no 'C1_v2'; did you mean 'C1_v1'?"):
        file.choose(["C1_v2"])


def test_the_official_files_and_parquet_files_hold_the_same_texts(pipeline, inputs):
    """As on the hub, the text is title and description, and labels count from 0."""
    file = PipelineFile(pipeline)
    (inputs.folder / "parquet").mkdir()
    for split in ("train", "test"):
        with (inputs.folder / f"news/{split}.csv").open(newline="") as rows:
            read = list(csv.reader(rows))
        dataset = datasets.Dataset.from_dict(
            {"text": [f"{title} {text}" for _, title, text in read], "label": [int(label) - 1 for label, _, _ in read]}
        )
        dataset = dataset.cast_column("label", datasets.ClassLabel(names=LABELS))
        dataset.to_parquet(inputs.folder / f"parquet/{split}.parquet")
    loaded = []
    for name in ("news", "parquet"):
        file.data["dataset"] = name
        write_json(inputs.folder / f"{name}.json", file.database())
        options = check_config(
            {"model_name": "tiny", "task": "ag_news", "language_database": f"{name}.json"}, "", train_langs="english"
        )
        texts = open_texts(options, ["english"])
        assert texts.label_names(["english"]) == LABELS
        loaded.append(texts.load("train", "english", "[SEP]").to_list())
    assert loaded[0] == loaded[1]


def test_the_baseline_sees_the_texts_that_finetune_would(pipeline, inputs):
    write_json(inputs.folder / "db.json", PipelineFile(pipeline).database())
    options = check_config(
        {"model_name": "tfidf", "task": "ag_news", "language_database": "db.json", "validation_size": 40}, "",
        train_langs="english",
    )  # fmt: skip
    layout, texts = RunLayout("tfidf", "english"), open_texts(options, ["english"])
    assert "validation macro F1" in train_baseline(layout, options, texts, baseline_spec("tfidf"))
    report, result = read_json(layout.train_json), read_json(layout.eval_json("english"))
    assert (report["num_train_texts"], result["num_texts"]) == (120, 60)
    with layout.predictions_csv("english").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["true"] == row["predicted"] for row in rows) / 60 == result["accuracy"]
    assert all(abs(sum(float(row[label]) for label in LABELS) - 1) < 1e-6 for row in rows)
    assert "already complete" in train_baseline(layout, options, texts, baseline_spec("tfidf"))
    first = layout.predictions_csv("english").read_bytes()
    train_baseline(layout, options, texts, baseline_spec("tfidf"), force=True)
    assert layout.predictions_csv("english").read_bytes() == first


def evaluated(subtask, epochs=2):
    """Leave what a training and an evaluation do."""
    validation = dict.fromkeys(METRICS, 0.5) | {"loss": 1.0, "seconds": 1.0}
    rows = [
        {"epoch": n, "loss": 1 / (n + 1), "learning_rate": None, "seconds": 2.0 * n, "validation": validation}
        for n in (range(1, epochs + 1) if epochs else [0])
    ]
    write_json(
        subtask.layout.train_json,
        {"epochs": rows, "best_epoch": rows[0]["epoch"], "num_parameters": 100, "num_trainable_parameters": 7,
         "peak_memory_bytes": None, "train": {"accuracy": 0.9}},
    )  # fmt: skip
    intervals = {name: [0.6, 0.8] for name in METRICS}
    place = {"model": subtask.layout.model_name, "train_langs": "english", "eval_lang": "english"}
    scores = {"a": {"precision": 0.7, "recall": 0.7, "f1": 0.7, "support": 3}}
    matrix = {"registers": ["a"], "per_register": scores, "confusion_matrix": [[3]], "confidence_intervals": intervals}
    write_json(subtask.layout.eval_json("english"), place | dict.fromkeys(METRICS, 0.7) | matrix)


@pytest.mark.parametrize("epochs", [0, 1, 2, 30])
def test_tables_and_figures_of_any_size(pipeline, epochs):
    subtask = PipelineFile(pipeline).choose(["C1_v1"])[0]
    assert parse_logs(subtask) == [] and results_row(subtask) is None
    evaluated(subtask, epochs)
    table, *figures = parse_logs(subtask)
    assert len(table.read_text().splitlines()) == 1 + max(epochs, 1)
    assert all(path.stat().st_size > 1000 for path in figures)
    row = results_row(subtask)
    assert row["seconds_per_epoch"] == (epochs + 1 if epochs else None)
    assert row["trainable_parameters"] == (7 if epochs else 0)
    assert markdown([row]).splitlines()[2].endswith("| 0.900 | 0.500 | 0.700 [0.600, 0.800] | 0.700 [0.600, 0.800] |")
    accuracy_figure([row]).canvas.draw()


def test_a_dry_run_of_the_projects_own_pipeline(inputs, invoke, monkeypatch):
    path = str(PROJECT / "config/agnews.yaml")
    status, output, errors = invoke(run_pipeline, path, "--dry_run", "--tasks", "A", "E")
    assert "9 jobs: 9 to submit" in output
    # Without the hub neither models nor data are there, and the commands that fetch them name these files.
    assert status == 1
    registry = PROJECT / "config/agnews-models.json"
    assert f"`python download_model.py --models bert --model_registry {registry}` fetches it" in errors
    fetch = "python -m utils.data.language_database --task ag_news"
    assert f"{fetch} --language_database outputs/agnews/language-database.json fetches it" in errors
    assert not (inputs.folder / "outputs").exists()


@pytest.mark.slow
def test_the_baseline_on_real_news(tmp_path):
    """$AG_NEWS_PATH has the official files' layout, with fewer texts."""
    data = os.environ.get("AG_NEWS_PATH")
    if not data or not (Path(data) / "train.csv").is_file():
        skip("AG_NEWS_PATH does not name a folder with train.csv and test.csv of AG News")
    pipeline = PROJECT / "config/agnews-minilm.yaml"
    write_json(tmp_path / "minilm.json", {"minilm": {"checkpoint": str(checkpoint())}})
    arguments = ["--dataset", data, "--tasks", "baseline"]
    finish(start("run_pipeline.py", str(pipeline), *arguments, cwd=tmp_path, MODEL_REGISTRY="minilm.json"))
    with (tmp_path / "outputs/agnews-minilm/results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert 0.85 < float(row["test_accuracy"]) < 0.95
    assert 0.85 < float(row["test_macro_f1"]) < 0.95
