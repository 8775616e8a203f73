"""Files that users write: keys that stand twice, and files that are small to store and endless to go through."""

import time

import pytest

from utils.cli.config_files import read_config
from utils.data.corpus_load import open_corpus
from utils.data.language_database import read_database
from utils.errors import UserError
from utils.jobs.grid import read_grid
from utils.models.registry import load_registry

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{key}: &{key} [{','.join([f'*{before}'] * 9)}]\n" for before, key in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", '{"a": 1,\n "b": {"c": 1,\n "c": 2}}', "line 3: the key 'c' is given twice"),
        ("x.json", '{"a": 1, // "a"\n "\\u0061": 2}', "line 2: the key 'a' is given twice"),
        ("x.json", '{"s": "{\\"s\\": 1", \n"t": [{"u": 1}, {"u": 1, \n"u": 3}]}', "line 3: the key 'u' is given twice"),
        ("x.yaml", "a: 1\nb: {c: 1,\n  c: 2}\n", "line 3: the key 'c' is given twice"),
        ("x.yaml", "a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is given twice"),
        ("x.yaml", BOMB, "its aliases contain themselves, or make more than 100,000 values"),
        ("x.yaml", "a: &a [*a]\n", "its aliases contain themselves"),
        ("x.yaml", "a: " + "[" * 10_000, "nested too deeply"),
        ("x.json", '{"a": ' + "[" * 10_000, "nested too deeply"),
        ("x.yaml", "", "expected a mapping"),
    ],
)
def test_what_is_refused_at_once(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    started = time.monotonic()
    with pytest.raises(UserError, match=str(path)) as error:
        read_config(path)
    assert message in str(error.value)
    assert time.monotonic() - started < 30, "a second, on a machine that does nothing else"


def test_what_is_no_repetition(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: &x {b: 1}\nc: {<<: *x, b: 2}\nd: [{b: 1}, {b: 2}]\n1: x\n'1': y\n")
    assert read_config(path)["c"] == {"b": 2}


@pytest.mark.fault(15)
def test_every_file_that_users_write_is_read_so(tmp_path):
    twice = '{"en": "x",\n "en": "y"}'
    (tmp_path / "f.json").write_text(twice)
    (tmp_path / "info").mkdir()
    (tmp_path / "info/reg_abbv.json").write_text(twice)
    (tmp_path / "grid.json").write_text('{"parameters": {"batch_size": 1,\n "batch_size": 2}}')
    for read in (
        lambda: load_registry(str(tmp_path / "f.json")),
        lambda: read_database(tmp_path / "f.json"),
        lambda: open_corpus(str(tmp_path)),
        lambda: read_grid(tmp_path / "grid.json", {"model_name": "tiny"}),
    ):
        with pytest.raises(UserError, match=r"\.json, line 2: the key '\w+' is given twice"):
            read()
