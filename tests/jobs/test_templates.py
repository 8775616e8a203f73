"""The templates that come with the project make sound scripts."""

import shutil
import subprocess

import pytest

from tests.factories import PROJECT, skip
from utils.jobs.templates import fill_template

TEMPLATES = sorted((PROJECT / "jobs/templates").glob("*.sh"))
FIELDS = {
    "job_name": "tiny-en",
    "cpus": "2",
    "gpus": "1",
    "timeout": "1:00:00",
    "project": "'/home/a user/project'",
    "log": "outputs/tiny-en/train.txt",
    "search": "base_grid",
    **dict.fromkeys(("args", "eval_args", "result_args"), "--config 'it'\"'\"'s.json'"),
}


@pytest.mark.parametrize("template", TEMPLATES, ids=[path.stem for path in TEMPLATES])
def test_a_filled_template_is_sound(template, tmp_path):
    if not shutil.which("shellcheck"):
        skip("shellcheck is not installed")
    script = tmp_path / "job.sh"
    script.write_text(fill_template(template, FIELDS))
    subprocess.run(["shellcheck", "--exclude=SC2016", script], check=True)


def test_there_are_three():
    assert len(TEMPLATES) == 3
