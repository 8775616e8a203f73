import json
import multiprocessing

import pytest

from utils.errors import UserError
from utils.runs.files import atomic_path, read_json, write_json
from utils.runs.layout import RunLayout, split_langs
from utils.runs.record import RunRecord


def test_folders_of_a_run():
    layout = RunLayout("xlmr-large", "en-fr", "a/b", "out", "mod")
    assert str(layout.model) == "mod/a/b/xlmr-large-en-fr"
    assert str(layout.eval_json("tr")) == "out/a/b/xlmr-large-en-fr/eval/tr.json"
    assert str(layout.predictions_csv("tr")) == "out/a/b/xlmr-large-en-fr/predictions/tr.csv"
    assert str(RunLayout("xlmr", "en").run_json) == "outputs/xlmr-en/run.json"


@pytest.mark.parametrize("langs", ["", "en-", "en-en", "../en", "en/fr", "en fr", "."])
def test_language_names_cannot_leave_their_folder(langs):
    with pytest.raises(UserError):
        split_langs(langs)
    with pytest.raises(UserError):
        RunLayout("xlmr", langs)


@pytest.mark.parametrize(
    ("model", "subfolder"), [("../x", None), ("a/b", None), ("", None), ("x", "/tmp"), ("x", "../y"), ("x", "a/../..")]
)
def test_models_and_subfolders_cannot_leave_their_folder(model, subfolder):
    with pytest.raises(UserError):
        RunLayout(model, "en", subfolder)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"value": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text('{"val')
        raise RuntimeError
    assert read_json(path) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert read_json(path) == {"value": 1}


def _write_many(arguments):
    path, number = arguments
    for _ in range(50):
        write_json(path, {"writer": number, "filler": "x" * 20_000})
        assert len(json.loads(path.read_text())["filler"]) == 20_000


def test_parallel_writers_never_leave_half_a_file(tmp_path):
    path = tmp_path / "shared.json"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(_write_many, [(path, number) for number in range(4)])
    assert len(read_json(path)["filler"]) == 20_000
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_json_is_named_with_its_line(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{\n"a": 1,\n')
    with pytest.raises(UserError, match=r"run\.json, line 3"):
        read_json(path)
    assert read_json(tmp_path / "absent.json") is None


def test_run_record_counts_restarts(tmp_path):
    path = tmp_path / "run.json"
    RunRecord(path, {"seed": 7}, {"files": []}).write("running")
    again = RunRecord(path, {"seed": 7}, {"files": []})
    again.write("complete", ended="now")
    content = read_json(path)
    assert (content["status"], content["restarts"], content["seed"]) == ("complete", 1, 7)
    assert content["versions"]["torch"].startswith("2.")
    RunRecord(path, {"seed": 7}, {"files": []}).write("running")
    assert read_json(path)["restarts"] == 0
