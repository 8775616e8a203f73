"""What scripts show on a terminal and elsewhere: short help, bars, colors."""

import os
import pty
import shlex
import subprocess
import sys
import termios

import pytest

import post_eval
from tests.factories import PROJECT, write_results

pytestmark = pytest.mark.slow

SCRIPTS = ["finetune.py", "evaluate.py", "finetune_lm.py", "grid_search.py", "finetuning_generator.py"]
SCRIPTS += ["run_pipeline.py"]


def run(script, *arguments, cwd, terminal=False, **environment):
    """Run a script with its standard error on a terminal or in a pipe; returns status and what it said there."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(ours, (24, 80))
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / script), *arguments],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            # A terminal that nobody writes to any more.
            part = b""
        if not part:
            break
        said += part
    os.close(ours)
    return process.wait(), said.decode()


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_arguments_a_short_help_with_examples(script, tmp_path):
    status, said = run(script, cwd=tmp_path)
    assert status == 2
    lines = said.splitlines()
    assert lines[0].startswith(f"usage: {script} ")
    assert any(line.startswith(f"    python {script} ") for line in lines)
    assert f"{script} --help lists all options" in lines[-1]
    assert len(lines) < 25 and "Traceback" not in said


def test_required_options_may_come_from_the_default_file(tmp_path, monkeypatch, capsys):
    from evaluate import EvaluateOptions
    from utils.cli.parser import OptionParser

    default = tmp_path / "default.json"
    default.write_text('{"model_name": "xlmr", "train_langs": "en"}')
    parser = OptionParser(EvaluateOptions, default_config=default)
    assert parser.parse([]).model_name == "xlmr"


def test_errors_are_colored_on_terminals_only(inputs):
    wrong = ["--model_name", "tniy", "--train_langs", "en"]
    status, said = run("finetune.py", *wrong, cwd=inputs.folder, terminal=True)
    assert status == 2 and said.startswith("finetune.py: \033[1;31merror\033[0m: model 'tniy'")
    for said in (
        run("finetune.py", *wrong, cwd=inputs.folder)[1],
        run("finetune.py", *wrong, cwd=inputs.folder, terminal=True, NO_COLOR="1")[1],
    ):
        assert said.startswith("finetune.py: error: model 'tniy'") and "\033" not in said


def test_long_work_has_a_bar_on_terminals_only(tmp_path, invoke, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for lang in ("en", "fr"):
        write_results(tmp_path / "outputs", "xlmr", lang, ["en", "fr"])
    status, said = run("post_eval.py", cwd=tmp_path, terminal=True)
    assert status == 0 and "drawing:" in said and "\033[38;2;" in said
    for figure in (tmp_path / "outputs").rglob("*.png"):
        figure.unlink()
    _, said = run("post_eval.py", cwd=tmp_path, terminal=True, NO_COLOR="1")
    assert "drawing:" in said and "\033[38;2;" not in said
    status, _, errors = invoke(post_eval)
    assert (status, errors) == (0, "")


def test_panels_on_terminals_and_lines_elsewhere(tmp_path, invoke, monkeypatch):
    """The end of a script says what was written and what to type next."""
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "outputs", "xlmr", "en", ["en", "fr"])
    status, output, _ = invoke(post_eval, "--ignore_cfm")
    assert status == 0 and output.splitlines()[-1] == "next: open outputs/report.html in a browser"
    assert "\u2500" not in output
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    command = [sys.executable, str(PROJECT / "post_eval.py"), "--ignore_cfm"]
    subprocess.run(command, cwd=tmp_path, stdout=theirs, stderr=subprocess.DEVNULL, check=True)
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert "figures, tables and the report" in said and "\u2500" in said and "outputs/report.html" in said


def test_the_next_command_has_what_was_given(tmp_path, monkeypatch):
    from evaluate import EvaluateOptions
    from utils.cli.panels import next_command
    from utils.cli.parser import OptionParser
    from utils.report.options import PostEvalOptions

    monkeypatch.setenv("CORPUS_PATH", "from-the-environment")
    given = ["--model_name", "xlmr", "--train_langs", "en-fr", "--eval_langs", "fr", "--subfolder", "my runs"]
    options = OptionParser(EvaluateOptions).parse(given)
    assert next_command("post_eval.py", PostEvalOptions, options) == "python post_eval.py --subfolder 'my runs'"
    again = next_command("evaluate.py", EvaluateOptions, options, " --eval_langs all")
    parsed = OptionParser(EvaluateOptions).parse(shlex.split(again)[2:])
    assert (parsed.model_name, parsed.train_langs, parsed.subfolder) == ("xlmr", "en-fr", "my runs")
    # Nothing that the next script does not know.
    more = ["--language_database", "mine.json", "--models_dir", "here", "--cache_dir", "there"]
    options = OptionParser(EvaluateOptions).parse([*given, *more])
    OptionParser(PostEvalOptions).parse(shlex.split(next_command("post_eval.py", PostEvalOptions, options))[2:])
    again = next_command("evaluate.py", EvaluateOptions, options, " --eval_langs all")
    assert {"mine.json", "here", "there"} <= set(shlex.split(again))
