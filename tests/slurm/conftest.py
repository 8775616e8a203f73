"""A real Slurm of two nodes for the whole session, and a place to submit from."""

import getpass
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from demo.cluster import PROGRAMS, Cluster
from tests.factories import Inputs, skip
from tests.slurm.site import MAX_ARRAY_SIZE, Site


@pytest.fixture(scope="session")
def cluster():
    missing = [program for program in PROGRAMS if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")]
    if missing:
        skip(f"Slurm is not installed ({', '.join(missing)} missing): apt-get install slurm-wlm munge")
    # Not below pytest's folders: a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    made = Cluster(folder)
    made.start(max_array_size=MAX_ARRAY_SIZE)
    yield made
    made.stop()
    shutil.rmtree(folder)


@pytest.fixture
def site(cluster, small, tmp_path) -> Site:
    """An empty folder to submit from, with the small corpus and model."""
    made = Site(tmp_path, cluster, Inputs(small / "register-corpus", small / "model2chckpt.json", tmp_path))
    path = made.environment["PATH"]
    yield made
    made.environment["PATH"] = path
    made.run("scancel", "--user", getpass.getuser())
