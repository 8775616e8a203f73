"""What keeps the house in order besides the linters: sizes, rooms, faces."""

import re
import subprocess

import pytest

from tests.factories import PROJECT

MODULES = sorted((PROJECT / "utils").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PROJECT)) for path in MODULES])
def test_no_module_is_over_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_utils_holds_errors_and_packages_alone():
    own = {path.name for path in (PROJECT / "utils").iterdir() if path.is_file()}
    assert own == {"__init__.py", "errors.py"}
    packages = [path for path in (PROJECT / "utils").iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert all((path / "__init__.py").is_file() for path in packages)


@pytest.mark.parametrize("kind", ["train", "eval", "predict"])
def test_submit_scripts_are_faces(kind):
    lines = (PROJECT / f"submit_{kind}_jobs.sh").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60 and f"exec python -m utils.jobs {kind} \\" in lines


def test_tests_mirror_the_packages():
    """A test of a room's module is in a folder of the room's name, and none imports another test."""
    rooms = {path.name for path in (PROJECT / "utils").iterdir() if path.is_dir()} | {"slurm", "gpu", "tests"}
    for path in (PROJECT / "tests").rglob("test_*.py"):
        assert path.parent.name in rooms, path
        assert not re.search(r"(?m)^\s*from tests\.(\w+\.)*test_", path.read_text(encoding="utf-8")), path


def test_no_weights_or_caches_are_tracked():
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    assert not [name for name in tracked.stdout.splitlines() if name.endswith((".pt", ".safetensors", ".arrow"))]


def test_the_lock_has_the_versions_that_are_asked_for():
    """And no others: environment.yml, the images and `make setup` install what it says."""
    asked = dict(re.findall(r'"([\w.-]+)==([\w.]+)"', (PROJECT / "pyproject.toml").read_text(encoding="utf-8")))
    locked = dict(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", (PROJECT / "requirements.lock").read_text(encoding="utf-8")))
    torch = asked.pop("torch")
    names = {name.lower().replace("_", "-"): version for name, version in asked.items()}
    assert names.items() <= locked.items(), names.items() - locked.items()
    assert "torch" not in locked and not [name for name in locked if name.startswith(("nvidia-", "cuda-", "triton"))]
    for file in ("environment.yml", "containers/Dockerfile", "containers/register-finetuning.def", "Makefile"):
        text = (PROJECT / file).read_text(encoding="utf-8")
        assert f"torch=={torch}" in text and "requirements.lock" in text, file
