"""Fixtures: small inputs that the project writes itself, and the scripts run in this process or in others."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from demo.build import build, build_corpus, build_model, make_texts
from tests.factories import FAST, REAL_CORPUS, TRAINED, Inputs, skip
from tests.processes import finish, start
from utils.cli.script import run_script
from utils.runs.stop import STOP_SIGNALS

# Processes that share a core wait for each other's threads; and equal numbers take equally many threads.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """With several workers, keep a file's tests on one of them; those on Slurm share one cluster."""
    from xdist.scheduler import LoadFileScheduling

    # By their number of tests otherwise, which says little of their time.
    config.option.loadscopereorder = False

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "slurm" if nodeid.startswith("tests/slurm/") else super()._split_scope(nodeid)

    return Scheduling(config, log)


# Files, or folders of them, that take longest. With several workers they come first: at the end others would wait.
LONGEST = (
    *("tests/slurm/", "tests/pipeline/", "tests/test_benchmarks.py", "tests/test_distributed.py"),
    *(
        "tests/prediction/",
        "tests/test_finetune_lm.py",
        "tests/test_surprisals.py",
        "tests/training/",
        "tests/test_finetune.py",
        "tests/test_evaluate.py",
        "tests/test_long_texts.py",
        "tests/test_label_sets.py",
    ),
)


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """Put the tests in the order in which workers take them."""

    def place(item: pytest.Item) -> int:
        places = (index for index, prefix in enumerate(LONGEST) if item.nodeid.startswith(prefix))
        return next(places, len(LONGEST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """The whole demo, as `make demo` builds it."""
    folder = tmp_path_factory.mktemp("demo")
    build(folder)
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """A corpus of a few dozen texts per language and a model of width 32."""
    import json
    import random

    folder = tmp_path_factory.mktemp("small")
    build_corpus(folder / "register-corpus", {"en": 60, "es": 40, "fr": 50}, test_texts=24)
    texts = [text for lang in ("en", "es", "fr") for _, text in make_texts(lang, 100, random.Random(lang))]
    build_model(folder / "tiny-xlmr", texts, vocabulary=600, hidden_size=32)
    registry = {"tiny": {"checkpoint": "./tiny-xlmr", "max_length": 64}}
    (folder / "model2chckpt.json").write_text(json.dumps(registry), encoding="utf-8")
    return folder


@pytest.fixture
def inputs(small, tmp_path, monkeypatch) -> Inputs:
    """The small inputs, given by environment variables, with an empty working folder."""
    made = Inputs(small / "register-corpus", small / "model2chckpt.json", tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory) -> Path:
    """A folder with a trained model in it."""
    folder = tmp_path_factory.mktemp("trained")
    made = Inputs(small / "register-corpus", small / "model2chckpt.json", folder)
    finish(start("finetune.py", *TRAINED, *FAST, cwd=folder, **made.environment))
    return folder


@pytest.fixture
def model(trained, inputs) -> Inputs:
    """The trained model in an empty working folder."""
    shutil.copytree(trained / "models", inputs.folder / "models")
    shutil.copytree(trained / "outputs", inputs.folder / "outputs")
    return inputs


@pytest.fixture(scope="session")
def lm_inputs(tmp_path_factory) -> Path:
    """Tiny language models of three kinds (gpt2, bert, t5), and files of examples."""
    from tests.factories import build_inputs

    return build_inputs(tmp_path_factory.mktemp("lm"))


@pytest.fixture
def here(lm_inputs, tmp_path, monkeypatch) -> Path:
    """A working folder with nothing but the language models and their data in it."""
    for source in lm_inputs.iterdir():
        (tmp_path / source.name).symlink_to(source)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def invoke(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a script's main in this process: ``invoke(finetune, "--model_name", ...)`` -> status, stdout, stderr."""

    def run(script: ModuleType, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments)])
        handlers = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
        with pytest.raises(SystemExit) as end:
            run_script(script.main)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        output = capsys.readouterr()
        return end.value.code, output.out, output.err

    return run


@pytest.fixture(scope="session")
def browser():
    """A real browser: Debian's chromium, driven by Playwright."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        skip("no chromium; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def real_corpus() -> str:
    """The path of a real register corpus with Swedish and French, from $CORPUS_PATH."""
    if not REAL_CORPUS or not (Path(REAL_CORPUS) / "corpus" / "train" / "sv.tsv").is_file():
        skip("CORPUS_PATH does not name a register corpus with sv and fr")
    return str(Path(REAL_CORPUS).resolve())
