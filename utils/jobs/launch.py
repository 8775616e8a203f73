"""Start the training processes of one node, with torchrun or accelerate; run_train.sh does so on every node of a job.

    srun python -m utils.jobs.launch --nodes 2 --node_rank 0 --address 10.0.0.1 --port 12345 --processes 4 finetune.py

torchrun itself ends every failure with status 1 and a traceback of its own, and on a signal it ends the
training processes within half a minute. Here the status is that of the process that failed first, and
signals are left to the training processes, which Slurm reaches without help: they agree, save and end.
"""

import argparse
import signal
import socket
import sys
import time
from argparse import REMAINDER, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

# Where processes may meet; jobs whose ids are neighbours begin some apart.
FIRST_PORT, PORTS, STEP = 10_000, 20_000, 7
# How long the others may take to end once one process has: time to write a record, not to wait for the lost one.
SHUTDOWN_SECONDS = 60
# How long node 0 waits for the others to leave, all of whose work is done.
LEAVING_SECONDS = 20


def free_port(job: int) -> int:
    """Return a port of this machine that nobody uses now; jobs that ask at the same time begin at different ones.

    Args:
        job: number of the job, by which they differ.
    """
    for offset in range(PORTS):
        port = FIRST_PORT + (job * STEP + offset) % PORTS
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
                return port
            except OSError:
                continue
    raise OSError("every port is in use")


def main() -> int:
    """Run the script in several processes; returns the exit status of the first one that failed."""
    if sys.argv[1:2] == ["--choose_port"]:
        print(free_port(int(sys.argv[2])))
        return 0
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = parse_arguments()
    for signum in (signal.SIGTERM, signal.SIGUSR1):
        # A handler and not SIG_IGN, which the training processes would inherit.
        signal.signal(signum, lambda *_: None)
    try:
        with last_to_leave(options):
            (run_accelerate if options.accelerate_config else run_torchrun)(options)
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        return status if status > 0 else 128 - status
    return 0


def parse_arguments() -> Namespace:
    """Read the place of this node among the others, and the script to run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, required=True, help="number of nodes")
    parser.add_argument("--node_rank", type=int, required=True, help="number of this node, from 0")
    parser.add_argument("--address", required=True, help="address of node 0")
    parser.add_argument("--port", type=int, required=True, help="port on node 0 at which the processes meet")
    parser.add_argument("--processes", type=int, required=True, help="processes on each node")
    parser.add_argument("--accelerate_config", help="configuration of accelerate, for instance config/fsdp.yaml")
    parser.add_argument("script", help="the script to run")
    parser.add_argument("arguments", nargs=REMAINDER, help="its arguments")
    return parser.parse_args()


@contextmanager
def last_to_leave(options: Namespace) -> Iterator[None]:
    """Keep node 0, which holds the store that the nodes meet at, until the others have left it.

    torchrun's last barrier lets node 0 end as soon as it has passed itself; another node that has yet to
    read the barrier's answer then prints a traceback, although all the work is done.
    """
    if options.nodes == 1:
        yield
        return
    from torch.distributed import TCPStore

    first, limit = options.node_rank == 0, timedelta(seconds=LEAVING_SECONDS)
    host = {"host_name": options.address, "port": options.port, "timeout": limit, "wait_for_workers": False}
    # multi_tenant: torchrun, in this same process, gets the same server.
    store = TCPStore(**host, is_master=True, multi_tenant=True) if first else None
    yield
    with suppress(RuntimeError):
        (store or TCPStore(**host, is_master=False)).add("left", 1)
        end = time.monotonic() + LEAVING_SECONDS
        while store and store.add("left", 0) < options.nodes and time.monotonic() < end:
            time.sleep(0.05)


def run_torchrun(options: Namespace) -> None:
    """Run the script with torchrun."""
    from torch.distributed import run

    place = [f"--nnodes={options.nodes}", f"--node-rank={options.node_rank}", f"--nproc-per-node={options.processes}"]
    meeting = [f"--master-addr={options.address}", f"--master-port={options.port}"]
    signals = ["--signals-to-handle=SIGINT", f"--shutdown-timeout={SHUTDOWN_SECONDS}"]
    run.main([*place, *meeting, *signals, options.script, *options.arguments])


def run_accelerate(options: Namespace) -> None:
    """Run the script with accelerate, which sets up what its configuration says and runs torchrun in turn."""
    from accelerate.commands.launch import launch_command, launch_command_parser

    place = [f"--num_machines={options.nodes}", f"--machine_rank={options.node_rank}"]
    place.append(f"--num_processes={options.nodes * options.processes}")
    meeting = [f"--main_process_ip={options.address}", f"--main_process_port={options.port}"]
    arguments = launch_command_parser().parse_args(
        [f"--config_file={options.accelerate_config}", *place, *meeting, options.script, *options.arguments]
    )
    arguments.signals_to_handle, arguments.shutdown_timeout = "SIGINT", SHUTDOWN_SECONDS
    launch_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
