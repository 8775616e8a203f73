import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.factories import PROJECT
from utils.cli.options import CommonOptions, option
from utils.cli.parser import OptionParser
from utils.cli.values import Objects, object_path
from utils.errors import UserError


@dataclass(kw_only=True)
class Options(CommonOptions):
    model_name: str = option(help="required")
    eval_langs: list[str] | None = option(None, "a list")
    mix: Literal["equal", "all"] = option("equal", "choices")
    learning_rate: float = option(1e-4, "a bounded number", above=0)
    num_epochs: int | None = option(None, "an optional number", minimum=1)
    balanced: bool = option(False, "a flag")
    kwargs: dict = option({"a": {"b": 1, "c": 2}}, "a dictionary")
    optimizer: str | None = option(None, "an import path", imports=Objects())
    corpus_path: str = option("../register-corpus", "a folder", env="CORPUS_PATH")
    functions: list[str] = option([], "several objects", imports=Objects(modules=("json",), aliases={"short": "json"}))
    losses: dict = option({"train": "json.dumps"}, "objects in a dictionary", imports=Objects())
    study: dict = option({}, "objects under some keys", imports=Objects(keys=frozenset({"sampler"})))
    own_seed: int | None = option(None, "not set by config/default.json", shared=False)


def parse(*argv, tmp_path=None):
    default = (tmp_path / "default.json") if tmp_path else None
    parser = OptionParser(Options, "test", default_config=default or PROJECT / "absent.json")
    return parser.parse(["--model_name", "tiny", *argv])


def test_both_spellings_lists_flags_choices():
    options = parse("--eval-langs", "en", "fr", "--learning-rate", "2e-5", "--balanced", "--mix", "all")
    assert options.eval_langs == ["en", "fr"]
    assert (options.learning_rate, options.balanced, options.mix) == (2e-5, True, "all")
    assert parse("--learning_rate", "2e-5").learning_rate == 2e-5


def test_cascade_of_config_files(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUS_PATH", "/from/environment")
    (tmp_path / "default.json").write_text('{"seed": 1, "num_epochs": 1, "other_script": 3}')
    (tmp_path / "a.json").write_text('{"num-epochs": 2, "mix": "all", "kwargs": {"a": {"b": 5}}, "balanced": true}')
    (tmp_path / "b.yaml").write_text("num_epochs: 3\nlearning_rate: 2e-5\neval_langs: [en, no]\nkwargs: {d: 4}\n")
    options = parse(
        "--config", str(tmp_path / "a.json"), str(tmp_path / "b.yaml"), "--kwargs.a.c", "9", tmp_path=tmp_path
    )
    assert (options.seed, options.num_epochs, options.mix, options.balanced) == (1, 3, "all", True)
    assert options.learning_rate == 2e-5
    assert options.kwargs == {"a": {"b": 5, "c": 9}, "d": 4}
    assert options.corpus_path == "/from/environment"
    assert options.eval_langs == ["en", "no"], "Norwegian is no boolean"
    assert parse("--num_epochs", "7", "--config", str(tmp_path / "a.json"), tmp_path=tmp_path).num_epochs == 7


def test_config_beats_environment_and_command_line_beats_both(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUS_PATH", "env")
    (tmp_path / "a.json").write_text('{"corpus_path": "config"}')
    assert parse().corpus_path == "env"
    assert parse("--config", str(tmp_path / "a.json")).corpus_path == "config"
    assert parse("--config", str(tmp_path / "a.json"), "--corpus_path", "line").corpus_path == "line"


def test_dotted_keys_merge_delete_and_keep_types():
    options = parse("--kwargs.a.b", "__delete_field__", "--kwargs.x", "1e-3", "--kwargs.y", "1", "two", "--kwargs.z")
    assert options.kwargs == {"a": {"c": 2}, "x": 1e-3, "y": [1, "two"], "z": True}
    assert parse("--kwargs.n", "None", "--kwargs.t=False").kwargs["n"] is None
    assert parse().kwargs == {"a": {"b": 1, "c": 2}}


def test_only_declared_options_import():
    assert parse("--optimizer", "json.dumps").optimizer is json.dumps
    assert parse("--corpus_path", "json.dumps").corpus_path == "json.dumps"
    assert parse("--kwargs.x", "json.dumps").kwargs["x"] == "json.dumps"


def test_values_of_dictionaries():
    options = parse(
        *(
            "--kwargs.a",
            "'1'",
            "--kwargs.b",
            '"None"',
            "--kwargs.c",
            "None",
            "--kwargs.d",
            "True",
            "--kwargs.e",
            "none",
        ),
        *("--kwargs.f", "nan", "infinity", "--kwargs.g", 'json:[{"x": 1}]', "--kwargs.h", "''quoted''"),
        *("--kwargs.i", "-1", "1e-5", "--kwargs.j.k.l", "data.txt.gz"),
    )
    assert options.kwargs == {
        **{"a": "1", "b": "None", "c": None, "d": True, "e": "none", "f": ["nan", "infinity"], "g": [{"x": 1}]},
        **{"h": "'quoted'", "i": [-1, 1e-5], "j": {"k": {"l": "data.txt.gz"}}},
    }


def test_quotes_and_none_in_plain_options():
    assert parse("--corpus_path", "'data/a.b'").corpus_path == "data/a.b"
    assert parse("--num_epochs", "None").num_epochs is None
    assert parse("--corpus_path", "None").corpus_path == "None", "no option without a value"


def test_objects_by_path_alias_bare_name_and_prefix():
    options = parse("--functions", "dumps", "short.loads", "callable:sum", "import:csv", "json.decoder.JSONDecoder")
    assert options.functions == [json.dumps, json.loads, sum, csv, json.JSONDecoder]
    assert object_path(options.functions)[:4] == ["json.dumps", "json.loads", "builtins.sum", "import:csv"]
    assert parse("--losses.train", "json.loads", "--losses.validation", "json.dumps", "json.loads").losses == {
        "train": json.loads,
        "validation": [json.dumps, json.loads],
    }
    assert parse().losses == {"train": json.dumps}
    study = parse("--study.sampler", "json.dumps", "--study.pruner_kwargs.sampler", "json.loads").study
    assert study == {"sampler": json.dumps, "pruner_kwargs": {"sampler": json.loads}}
    assert parse("--study.name", "json.dumps").study == {"name": "json.dumps"}


def test_functions_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "my_masking.py").write_text("def shout(inputs, tokenizer):\n    return inputs\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert parse("--optimizer", "my_masking.shout").optimizer.__name__ == "shout"


def test_nothing_else_imports(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    assert parse("--corpus_path", "trap.x", "--kwargs.x", "trap.x").kwargs["x"] == "trap.x"
    assert parse("--model_name", "import:trap").model_name == "import:trap"
    for key in ("--kwargs.x", "--study.name"):
        with pytest.raises(UserError, match="takes no classes or functions"):
            parse(key, "import:trap")


def test_json_with_comments(tmp_path):
    (tmp_path / "a.json").write_text(
        '{ // the first\n"num_epochs": 2, // "seed": 9\n"corpus_path": "http://x//y", "mix": "a\\"//"}'
    )
    with pytest.raises(UserError, match="mix: invalid choice: 'a\"//'"):
        parse("--config", str(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text('{ // one\n"num_epochs": 2, // "seed": 9\n"corpus_path": "http://x//y"}')
    options = parse("--config", str(tmp_path / "a.json"))
    assert (options.num_epochs, options.corpus_path, options.seed) == (2, "http://x//y", 42)
    (tmp_path / "a.json").write_text('{ // one\n"num_epochs": 2, // two\n"seed" 9}')
    with pytest.raises(UserError, match="line 3: not valid JSON"):
        parse("--config", str(tmp_path / "a.json"))


def test_where_values_come_from(tmp_path, monkeypatch, capsys):
    (tmp_path / "default.json").write_text('{"seed": 1, "kwargs": {"a": {"b": 7}}}')
    (tmp_path / "a.json").write_text('{"num_epochs": 2, "kwargs": {"d": 1}}')
    (tmp_path / "b.yaml").write_text("kwargs: {d: 2}\n")
    monkeypatch.setenv("CORPUS_PATH", "somewhere")
    files = [str(tmp_path / name) for name in ("a.json", "b.yaml")]
    parser = OptionParser(Options, "test", default_config=tmp_path / "default.json")
    with pytest.raises(SystemExit) as end:
        parser.parse(["--config", *files, "--kwargs.e", "3", "--learning-rate", "2e-5", "--print_config"])
    assert end.value.code == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["model_name"].startswith("null  #"), "required, and not given yet"
    assert lines["seed"] == f"1  # {tmp_path / 'default.json'}"
    assert lines["num_epochs"] == f"2  # {files[0]}"
    assert lines["kwargs.a.b"] == f"7  # {tmp_path / 'default.json'}"
    assert lines["kwargs.a.c"] == "2  # default"
    assert lines["kwargs.d"] == f"2  # {files[1]}"
    assert lines["kwargs.e"] == "3  # command line"
    assert lines["learning_rate"] == "2e-05  # command line"
    assert lines["corpus_path"] == '"somewhere"  # environment variable CORPUS_PATH'
    assert lines["mix"] == '"equal"  # default'


def test_an_option_that_the_shared_file_does_not_set(tmp_path):
    (tmp_path / "default.json").write_text('{"own_seed": 1}')
    assert parse(tmp_path=tmp_path).own_seed is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--functions", "dump_"], "got 'dump_'; did you mean 'dump'"),
        (["--kwargs.x", "json:{"], "not valid JSON"),
        (["--modle_name", "x"], "did you mean '--model_name'"),
        (["--mix", "eqal"], "invalid choice: 'eqal'"),
        (["--learning_rate", "0"], "--learning_rate must be above 0, got 0.0"),
        (["--learning_rate", "nan"], "must be above 0"),
        (["--num_epochs", "two"], "invalid int value: 'two'"),
        (["--num_epochs", "0"], "must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--learning_rate.x", "1"], "takes no dotted keys"),
        (["--kwargs..x", "1"], "empty key"),
        (["--optimizer", "json.dump_"], "json has no 'dump_'; did you mean 'dump'"),
        (["--optimizer", "nowhere.at.all"], "cannot import 'nowhere.at'"),
        (["--num-epoch", "x"], "did you mean '--num_epochs'"),
        (["stray"], "unexpected value 'stray'"),
    ],
)
def test_mistakes_on_the_command_line(argv, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        parse(*argv)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"num_epoch": 1}', "unknown key 'num_epoch'; did you mean 'num_epochs'"),
        ("a.json", '{\n"num_epochs": 1,\n}', "line 3: not valid JSON"),
        ("a.yaml", "num_epochs: [1\nmix: all", "line 2: not valid YAML"),
        ("a.json", "[1]", "expected a mapping"),
        ("a.json", '{"num_epochs": "many"}', "num_epochs: invalid int value: 'many'"),
        ("a.json", '{"mix": "some"}', "mix: invalid choice"),
        ("a.json", '{"num_epochs": [1, 2]}', "num_epochs takes one value"),
        ("a.json", '{"num_epochs": {"x": 1}}', "num_epochs takes no keys below it"),
        ("a.yaml", "optimizer: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_mistakes_in_config_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        parse("--config", str(tmp_path / name))
    assert message in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def test_missing_config_file(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json: cannot read"):
        parse("--config", str(tmp_path / "nowhere.json"))


@pytest.mark.slow
@pytest.mark.parametrize("script", ["finetune", "evaluate", "post_eval", "download_model"])
def test_help_answers_without_torch_and_mistakes_end_with_status_2(script):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path('{script}.py', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code in (0, None), end.code\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'datasets' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("--config", "--output_dir", "--models_dir", "--seed", "--debug"):
        assert name in done.stdout

    done = subprocess.run([sys.executable, f"{script}.py", "--sed", "1"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") <= 2
    assert "Traceback" not in done.stderr


def test_tab_completes_options(tmp_path):
    """As the shell asks: the line so far in variables, the answers in a file."""
    line = "finetune.py --model_name xlmr --learn"
    environment = {**os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    environment |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "found"), "_ARGCOMPLETE_IFS": "\n"}
    subprocess.run([sys.executable, PROJECT / "finetune.py"], env=environment, check=True, cwd=tmp_path)
    found = (tmp_path / "found").read_text().split()
    assert "--learning_rate" in found and all(name.startswith("--learn") for name in found)


def test_every_script_is_marked_for_completion():
    """argcomplete looks for the mark in the first 1024 bytes."""
    for script in PROJECT.glob("*.py"):
        assert "PYTHON_ARGCOMPLETE_OK" in script.read_text(encoding="utf-8")[:1024], script
