"""A user's folder on the login node of a real Slurm."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from demo.cluster import Cluster
from tests.factories import PROJECT, Inputs
from utils.runs.files import read_json

MAX_ARRAY_SIZE = 101
SECONDS = 180


class Site:
    """A user's folder on the login node: submits, looks at the queue, waits."""

    def __init__(self, folder: Path, cluster: Cluster, inputs: Inputs):
        self.folder, self.cluster, self.inputs = folder, cluster, inputs
        # One thread per process, or processes that share a core wait for each other's threads.
        threads = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.environment = {
            **os.environ,
            **cluster.environment,
            **inputs.environment,
            **threads,
            "PATH": f"{PROJECT}/.venv/bin:{os.environ['PATH']}",
        }

    def run(self, *command: str, status: int = 0) -> str:
        """Run a command in the folder and return its output; fails unless it ends with `status`."""
        result = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=SECONDS,
        )
        assert result.returncode == status, result.stdout
        return result.stdout

    def submit(self, kind: str, *arguments: str, status: int = 0) -> tuple[list[str], str]:
        """Run a submit script; returns the ids of the jobs and the output."""
        output = self.run(PROJECT / f"submit_{kind}_jobs.sh", *arguments, status=status)
        return re.findall(r"^job (\d+):", output, re.MULTILINE), output

    def job(self, task: str) -> dict[str, str]:
        """Return what Slurm knows of a job or task."""
        answer = self.run("scontrol", "show", "job", "--oneliner", task)
        return dict(word.split("=", 1) for word in answer.split() if "=" in word)

    def queue(self) -> dict[str, str]:
        """Return the state of every task in the queue, by ARRAY_INDEX."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%F_%K %T").splitlines()
        return dict(line.split() for line in lines)

    def until(self, condition, what: str):
        """Wait until `condition` gives something true, and return that; fails after a while."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.2)
        logs = [f"{path}:\n{path.read_text()[-1500:]}" for path in self.folder.rglob("*.txt")]
        pytest.fail("\n".join([f"waited in vain for {what}", self.run("squeue", "--array"), *logs]))

    def hurry(self, task: str) -> None:
        """Start a task that has been queued again at once, not after two minutes."""
        job = self.job(task)
        if job["JobState"] == "PENDING" and job.get("Reason") == "BeginTime":
            # Within the second of the requeue, slurmd takes the new start for the job that it has just ended.
            time.sleep(2)
            self.run("scontrol", "update", f"JobId={task}", "StartTime=now")

    def wait(self, *jobs: str) -> None:
        """Wait for jobs to leave the queue; those queued again need not wait two minutes."""

        def ended() -> bool:
            left = {task: state for task, state in self.queue().items() if task.split("_")[0] in jobs}
            for task, state in left.items():
                if state == "PENDING":
                    self.hurry(task)
            return not left

        self.until(ended, f"the end of {jobs}")

    def processes(self, task: str) -> list[int]:
        """Return the ids of the processes of finetune.py that work for a task, by rank."""
        job, found = self.job(task)["JobId"], {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                variables = dict(line.split(b"=", 1) for line in (folder / "environ").read_bytes().split(b"\0")[:-1])
            except (OSError, ValueError):
                continue
            is_script = b"python" in words[0] and any(word.endswith(b"/finetune.py") for word in words[1:3])
            if is_script and variables.get(b"SLURM_JOB_ID") == job.encode():
                found[int(variables.get(b"RANK", 0))] = int(folder.name)
        return [found[rank] for rank in sorted(found)]

    def record(self, name: str) -> dict:
        """Return run.json of a run, empty if there is none."""
        return read_json(self.folder / "outputs" / name / "run.json") or {}

    def epochs(self, name: str) -> list[dict]:
        """Return the epochs of train.json."""
        return read_json(self.folder / "outputs" / name / "train.json")["epochs"]

    def text(self, path: str) -> str:
        return (self.folder / path).read_text(encoding="utf-8")

    def weights(self, name: str) -> bytes:
        return (self.folder / "models" / name / "model.safetensors").read_bytes()
