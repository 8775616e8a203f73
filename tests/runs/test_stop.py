"""What signals do before, in and after a training, and while a script is still importing."""

import itertools
import signal
import subprocess
import sys
import time

import pytest

from tests.factories import PROJECT
from utils.errors import Interrupted
from utils.runs.stop import AFTER, COMPLETE, STOP_SIGNALS, StopFlag


@pytest.fixture
def handlers():
    before = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def flag(tmp_path):
    stop = StopFlag(tmp_path / "handover", lambda: None)
    stop.listen()
    return stop


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (None, "before training began; nothing was lost"),
        (AFTER, "after training; the same command goes on from the last resume point"),
        (COMPLETE, "after the run was complete; nothing was lost"),
    ],
)
def test_a_signal_says_when_it_came(tmp_path, handlers, phase, words):
    stop = flag(tmp_path)
    stop.phase = phase or stop.phase
    with pytest.raises(Interrupted, match=f"SIGUSR1 {words}") as end:
        signal.raise_signal(signal.SIGUSR1)
    assert end.value.signum == signal.SIGUSR1
    # While that is written down, others do not interrupt it.
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_a_signal_in_a_training_waits_for_the_step_and_ctrl_c_twice_does_not(tmp_path, handlers, capsys, signum):
    stop = flag(tmp_path)
    stop.training = True
    signal.raise_signal(signum)
    assert stop.look() == signum
    if signum == signal.SIGINT:
        assert "once more ends at once" in capsys.readouterr().err
        with pytest.raises(Interrupted, match="Ctrl-C for the second time"):
            signal.raise_signal(signum)
    else:
        signal.raise_signal(signum)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["finetune.py", "post_eval.py", "finetune_lm.py", "evaluate.py"])
def test_signals_while_a_script_imports_end_it_without_a_traceback(script, inputs):
    """At any moment: before it listens, in the middle of an import, and after."""
    arguments = {
        "finetune.py": ["--model_name", "tiny", "--train_langs", "en"],
        "post_eval.py": [],
        "finetune_lm.py": ["--model_name_or_path", "x", "--test_file", "y.txt.gz"],
        "evaluate.py": ["--model_name", "tiny", "--train_langs", "en", "--eval_langs", "en"],
    }
    moments = (0.0, 0.4, 1.2, 3.0) if script == "finetune.py" else (0.0, 0.5)
    for moment, signum in zip(moments, itertools.cycle((signal.SIGINT, signal.SIGTERM)), strict=False):
        command = [str(PROJECT / script), *arguments[script], "--output_dir", f"o{moment}{signum}"]
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", *command],
            cwd=inputs.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # Until then it is Python that starts, and not the script.
        while process.stdout.readline().rpartition("|")[2].strip() != "utils":
            pass
        time.sleep(moment)
        process.send_signal(signum)
        output, _ = process.communicate(timeout=120)
        assert "Traceback" not in output, (script, moment, signum, output)
        # By the signal itself, by our handler, or because it was through.
        assert process.returncode in (-signum, 128 + signum, 0, 1, 2), output
        if process.returncode == 128 + signum:
            assert "stopped: " in output
