"""A folder of labels, whatever happens to the process that fills it, and with what it was filled before."""

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import predict
from tests.factories import PROJECT, TRAINED
from tests.labels import CORPUS, label_files, read_jsonl, texts_of_all_lengths, write_jsonl
from tests.processes import finish, start

pytestmark = pytest.mark.slow


def test_kills_leave_one_complete_output(model):
    """kill -9 at random moments, also while a file is put together; in the end every row is there, byte for byte."""
    for number, count in enumerate((1500, 10, 700)):
        write_jsonl(Path(f"in/{number}.jsonl.zst"), texts_of_all_lengths(count, number))
    command = [*TRAINED, "--input", "in", "--rows_per_part", "20", "--num_workers", "2"]
    started = time.monotonic()
    finish(start("predict.py", *command, "--output_dir", "whole", cwd=model.folder))
    seconds = time.monotonic() - started
    generator, kills = random.Random(1), 0
    while kills < 6:
        process = start("predict.py", *command, "--output_dir", "killed", cwd=model.folder)
        time.sleep(generator.uniform(0.2, 0.9) * min(seconds, 3.0))
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        # Not for those that read, who see within seconds that they are alone.
        process.process.join()
        if process.returncode == 0:
            # All was done before the signal came: from the beginning.
            shutil.rmtree("killed")
        kills += process.returncode != 0
        if Path("killed/predictions.json").exists():
            # Whoever looks sees what is still to come.
            seen = json.loads(Path("killed/predictions.json").read_text())
            assert {*seen["unfinished"], *seen["files"]} == {"0", "1", "2"}
    finish(start("predict.py", *command, "--output_dir", "killed", cwd=model.folder))
    assert label_files(Path("killed")) == label_files(Path("whole"))
    for number, count in enumerate((1500, 10, 700)):
        assert [row["id"] for row in read_jsonl(Path(f"killed/{number}.jsonl.zst"))] == list(range(count))
    remains = [path for path in Path("killed/.predictions").rglob("*") if path.is_file()]
    assert {path.suffix for path in remains} == {".lock", ".json"}, remains


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_it_between_parts(model, signum):
    write_jsonl(Path("in/1.jsonl"), texts_of_all_lengths(4000))
    command = [*TRAINED, "--input", "in", "--rows_per_part", "50"]
    process = start("predict.py", *command, cwd=model.folder)
    folder = Path("predictions/.predictions/parts/1.parts")
    deadline = time.monotonic() + 60
    while len(list(folder.glob("0*.zst"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, output
    assert "the same command goes on behind the last part that is whole" in output
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("0*.zst")}
    assert len(kept) >= 3
    assert json.loads(Path("predictions/predictions.json").read_text())["unfinished"] == ["1"]
    output = finish(start("predict.py", *command, cwd=model.folder))
    assert "4,000 texts in 1 file" in output
    assert len(read_jsonl(Path("predictions/1.jsonl.zst"))) == 4000


def test_a_part_that_is_whole_is_not_computed_again(model, invoke, monkeypatch):
    from utils.evaluation.inference import Classifier

    write_jsonl(Path("in/1.jsonl"), texts_of_all_lengths(100))
    command = [*TRAINED, "--input", "in", "--rows_per_part", "20", "--num_workers", "0"]
    computed, stock = [], Classifier.logits_of

    def counted(self, input_ids, budget):
        computed.append(len(input_ids))
        if len(computed) == 4:
            raise MemoryError("out of memory")
        return stock(self, input_ids, budget)

    monkeypatch.setattr(Classifier, "logits_of", counted)
    status, _, errors = invoke(predict, *command)
    assert status == 1 and "MemoryError: out of memory" in errors
    (torn, *_) = sorted(Path("predictions/.predictions/parts/1.parts").glob("0*.zst"))
    torn.write_bytes(torn.read_bytes()[:-3])
    assert invoke(predict, *command)[0] == 0
    # Three were computed, the fourth failed; then the torn first one and the last two.
    assert computed == [20] * 4 + [20] * 3
    assert invoke(predict, *command)[0] == 0
    assert len(computed) == 7


def test_a_second_process_leaves_no_part_behind(corpus, invoke, monkeypatch):
    """It has computed a part of a file that another process has finished in between."""
    import utils.prediction.corpus as module

    assert invoke(predict, *CORPUS, "--output_dir", "whole")[0] == 0
    stock, others = module.write_part, []

    def late(path, *content):
        if not others:
            others.append(finish(start("predict.py", *CORPUS, cwd=corpus.folder)))
            path.with_name(".0000000.part.killed.unfinished.zst").parent.mkdir(parents=True, exist_ok=True)
            path.with_name(".0000000.part.killed.unfinished.zst").write_bytes(b"half")
        stock(path, *content)

    monkeypatch.setattr(module, "write_part", late)
    status, _, errors = invoke(predict, *CORPUS)
    assert status == 0 and "5 files labelled" in others[0], errors
    assert label_files(Path("predictions")) == label_files(Path("whole"))
    assert not [path for path in Path("predictions/.predictions/parts").rglob("*") if path.is_file()]


def test_a_full_disk_costs_nothing(model):
    """Files can grow to 20 kB and no further, which the joined labels exceed."""
    write_jsonl(Path("in/1.jsonl"), texts_of_all_lengths(1500))
    command = [*TRAINED, "--input", "in", "--rows_per_part", "100", "--output_format", "jsonl"]
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    limit += f"sys.path.insert(0, {str(PROJECT)!r}); sys.argv[0] = 'predict.py'; "
    limit += f"runpy.run_path({str(PROJECT / 'predict.py')!r}, run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", limit, *command], cwd=model.folder, capture_output=True, text=True)
    assert result.returncode == 1
    assert "predict.py: error: " in result.stderr and "File too large" in result.stderr
    assert "Traceback" not in result.stderr and not list(Path("predictions").glob("*.jsonl"))
    finish(start("predict.py", *command, cwd=model.folder))
    assert len(read_jsonl(Path("predictions/1.jsonl"))) == 1500
    assert [path.name for path in Path("predictions").iterdir() if path.name.startswith(".")] == [".predictions"]


def test_another_model_or_other_options_do_not_mix(corpus, invoke):
    assert invoke(predict, *CORPUS)[0] == 0
    before = label_files(Path("predictions"))
    for more, difference in (
        (["--temperature", "2"], "temperature None -> 2.0"),
        (["--keep_text"], "keep_text False -> True"),
        (["--input", "corpus/eng"], "root "),
    ):
        status, _, errors = invoke(predict, *CORPUS, *more)
        assert status == 2 and "labels that were made with something else" in errors and difference in errors
    shutil.copytree("models/tiny-en-fr", "copy")
    config = json.loads(Path("copy/config.json").read_text())
    Path("copy/config.json").write_text(json.dumps(config | {"calibration_temperature": 3.0}))
    status, _, errors = invoke(predict, "--model", "copy", *CORPUS[4:])
    assert status == 2 and "model_sha256" in errors
    assert label_files(Path("predictions")) == before
    assert invoke(predict, *CORPUS, "--output_format", "csv", "--force")[0] == 0
    names = {name.replace(".jsonl.zst", ".csv") for name in before}
    assert set(label_files(Path("predictions"))) == names and len(names) == 5


def test_other_labels_are_refused_before_the_model_is_loaded(corpus, invoke, monkeypatch):
    assert invoke(predict, *CORPUS)[0] == 0
    stock, loaded = predict.load_classifier, []
    monkeypatch.setattr(predict, "load_classifier", lambda *given: loaded.append(given) or stock(*given))
    assert invoke(predict, *CORPUS, "--keep_text")[0] == 2 and not loaded
    assert invoke(predict, *CORPUS)[0] == 0 and len(loaded) == 1


def test_force_leaves_no_label_of_before(corpus, invoke):
    """Neither of files that were finished after the overview was written last, as a kill leaves it."""
    import utils.prediction.folder as module

    assert invoke(predict, *CORPUS)[0] == 0
    made = json.loads(Path("predictions/predictions.json").read_text())
    names, made["files"] = sorted(made["files"]), {}
    Path("predictions/predictions.json").write_text(json.dumps(made | {"unfinished": names}))
    before = label_files(Path("predictions"))
    assert invoke(predict, *CORPUS, "--temperature", "9", "--force")[0] == 0
    after = label_files(Path("predictions"))
    assert set(after) == set(before) and all(after[name] != before[name] for name in after if "fin/2" not in name)
    assert json.loads(Path("predictions/predictions.json").read_text())["num_texts"] == 210
    # What has just been begun, by another process of the same job, goes on.
    folder = module.LabelFolder(Path("predictions"), "jsonl.zst")
    again = made["made_with"] | {"root": "elsewhere"}
    first = folder.begin(again, {"number_format": "fp32"}, ["a"], force=True)
    assert folder.begin(again, {"number_format": "fp32"}, ["a"], force=True)["started"] == first["started"]
    assert not label_files(Path("predictions"))


def test_a_file_that_has_changed_is_not_taken_for_the_one_that_was_labelled(corpus, invoke):
    assert invoke(predict, *CORPUS)[0] == 0
    write_jsonl(Path("corpus/eng/2.jsonl"), texts_of_all_lengths(36, 1))
    status, output, errors = invoke(predict, *CORPUS)
    assert status == 2 and "4 labelled before, 1 not labelled" in output
    assert errors.splitlines() == [
        "predict.py: error: corpus/eng/2.jsonl has changed since it was labelled in predictions; give another "
        "--output_dir, or --force"
    ]
    assert len(read_jsonl(Path("predictions/eng/2.jsonl.zst"))) == 35


def test_new_files_are_added(corpus, invoke):
    assert invoke(predict, *CORPUS)[0] == 0
    write_jsonl(Path("corpus/swe/1.jsonl"), texts_of_all_lengths(5))
    status, output, _ = invoke(predict, *CORPUS)
    assert status == 0 and "1 file labelled, 5 labelled before" in output and "215 texts in 6 files" in output
