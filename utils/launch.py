"""Start one process per GPU with torchrun, as a step of a Slurm job; run_train.sh does, once per node.

    srun python -m utils.launch --nnodes=2 --nproc-per-node=4 ... finetune.py --model_name xlmr ...

torchrun itself ends every failure with status 1 and a traceback of its own, and on a signal gives the
training processes thirty seconds. Here the status is that of the process that failed first, and signals
are left to the training processes, which Slurm reaches without help: they agree, save and end.
"""

import signal
import sys

# Longer than any time that Slurm leaves between a signal and the end.
SHUTDOWN_SECONDS = 3600


def main() -> int:
    """Run torchrun with the given arguments; returns the exit status of the first process that failed."""
    import torch.distributed.run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for signum in (signal.SIGTERM, signal.SIGUSR1):
        # A handler and not SIG_IGN, which the training processes would inherit.
        signal.signal(signum, lambda *_: None)
    options = ["--signals-to-handle=SIGINT", f"--shutdown-timeout={SHUTDOWN_SECONDS}"]
    try:
        torchrun.main([*options, *sys.argv[1:]])
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        return status if status > 0 else 128 - status
    return 0


if __name__ == "__main__":
    sys.exit(main())
