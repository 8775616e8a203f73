"""A real Slurm of two nodes with two pretended GPUs each, on this machine, all of it in one folder.

    python -m demo.cluster start FOLDER
    export SLURM_CONF=FOLDER/slurm.conf
    python -m demo.cluster stop FOLDER

Needs Slurm and munge (Debian: slurm-wlm, munge); neither systemd nor cgroups nor a database.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

from utils.cli.script import run_script
from utils.errors import RunFailure, UserError

NODES = ("n1", "n2")
GPUS = 2
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
# Nodes claim CPUs that this machine may lack; the queue of waiting jobs is looked at every second.
CONFIGURATION = """\
ClusterName=demo
SlurmctldHost=localhost
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={controller_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
KillWait={kill_wait}
MaxArraySize={max_array_size}
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
JobRequeue=1
FirstJobId={first_job}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes={names} MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""


class Cluster:
    """A Slurm cluster in a folder.

    Args:
        folder: of its configuration, state, logs and sockets; made by `start`. Its path must be short
            (a socket's path has at most 107 characters) and without spaces.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).resolve()
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self, max_array_size: int = 1001, kill_wait: int = 30) -> None:
        """Start munge, the controller and both nodes; returns when the nodes are idle.

        Args:
            max_array_size: one more than the highest index of a job array.
            kill_wait: seconds between the signals that end a job.

        Raises:
            UserError: if a program is missing or the folder is in use.
            RunFailure: if the nodes do not come up, with the end of the controller's log.
        """
        missing = [name for name in PROGRAMS if not shutil.which(name, path=_search_path())]
        if missing:
            raise UserError(
                f"{', '.join(missing)} not found; install Slurm and munge (Debian: apt-get install slurm-wlm munge)"
            )
        if self._pids():
            raise UserError(f"a cluster is running in {self.folder}; stop it first")
        self._write_configuration(max_array_size, kill_wait)
        self._start_munge()
        configuration = self.environment["SLURM_CONF"]
        self._run("slurmctld", "-c", "-f", configuration)
        for node in NODES:
            self.start_node(node)
        for _ in range(150):
            if self._run("sinfo", "--noheader", "--Node", "--format=%t", check=False).split() == ["idle"] * 4:
                return
            time.sleep(0.2)
        log = (self.folder / "log" / "slurmctld.log").read_text().splitlines()
        self.stop()
        raise RunFailure("the nodes did not come up; the controller's log ends with:\n" + "\n".join(log[-5:]))

    def start_node(self, node: str) -> None:
        """Start the daemon of one node."""
        self._run("slurmd", "-f", self.environment["SLURM_CONF"], "-N", node)

    def stop_node(self, node: str) -> None:
        """Stop the daemon of one node; its jobs' processes live on, as in a network failure."""
        self._stop(self.folder / f"slurmd.{node}.pid")

    def stop(self) -> None:
        """Cancel all jobs and stop all daemons; does nothing if none is running."""
        if not self._pids():
            return
        self._run("scancel", "--user", getpass.getuser(), check=False)
        for _ in range(100):
            if not self._run("squeue", "--noheader", check=False).strip():
                break
            time.sleep(0.2)
        for name in (*(f"slurmd.{node}" for node in NODES), "slurmctld", "munged"):
            self._stop(self.folder / f"{name}.pid")

    def _pids(self) -> list[Path]:
        return [file for file in self.folder.glob("*.pid") if _running(file)]

    def _write_configuration(self, max_array_size: int, kill_wait: int) -> None:
        for name in ("log", "state", "dev", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        ports = _free_ports(1 + len(NODES))
        nodes, gpus = [], []
        for node, port in zip(NODES, ports[1:], strict=True):
            nodes.append(
                f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} "
                f"CPUs=4 RealMemory=8000 Gres=gpu:{GPUS}"
            )
            gpus.append(f"NodeName={node} Name=gpu File={self.folder}/dev/{node}-gpu[0-{GPUS - 1}]")
            for gpu in range(GPUS):
                _make_device(self.folder / "dev" / f"{node}-gpu{gpu}")
        text = CONFIGURATION.format(
            user=getpass.getuser(),
            folder=self.folder,
            controller_port=ports[0],
            # Ports of jobs derive from their ids, and another such cluster may run on this machine.
            first_job=1000 * (1 + secrets.randbelow(19)),
            kill_wait=kill_wait,
            max_array_size=max_array_size,
            nodes="\n".join(nodes),
            names=",".join(NODES),
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text("\n".join(gpus) + "\n")

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        files = {"key": key.name, "pid": "munged.pid", "log": "log/munged.log", "seed": "munge.seed"}
        places = [f"--{option}-file={self.folder / name}" for option, name in files.items()]
        self._run("munged", "--force", f"--socket={self.folder}/munge.socket", *places)

    def _run(self, *command: str, check: bool = True) -> str:
        # Daemons keep the standard error of whoever started them, so it goes to a file and not to a pipe.
        with (self.folder / "log" / "start.log").open("a+") as log:
            result = subprocess.run(
                command,
                env={**os.environ, **self.environment, "PATH": _search_path()},
                stdout=subprocess.PIPE if not command[0].endswith("d") and command[0] != "slurmctld" else log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
            )
            if check and result.returncode:
                log.seek(0)
                lines = log.read().strip().splitlines()
                raise RunFailure(f"{command[0]} ended with status {result.returncode}: {lines[-1] if lines else ''}")
        return result.stdout or ""

    @staticmethod
    def _stop(pid_file: Path) -> None:
        if not _running(pid_file):
            return
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
        for _ in range(100):
            if not _running(pid_file):
                return
            time.sleep(0.1)


def _make_device(path: Path) -> None:
    """Make what stands for a GPU; only for a real device file does Slurm set CUDA_VISIBLE_DEVICES."""
    path.unlink(missing_ok=True)
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        path.touch()


def _running(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def _search_path() -> str:
    """Daemons are in sbin, which is not on every user's path."""
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> None:
    """Run the script."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("start", "stop"):
        raise UserError("expected: python -m demo.cluster start|stop FOLDER")
    cluster = Cluster(Path(sys.argv[2]))
    getattr(cluster, sys.argv[1])()


if __name__ == "__main__":
    run_script(main)
