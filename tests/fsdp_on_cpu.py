"""Run finetune.py with a model that is sharded among CPU processes.

accelerate sets up FSDP for accelerators only, although torch computes it on CPUs as well: here it is told
that these processes are such. Everything after that is the real thing.
"""

import os
import runpy
import sys
from pathlib import Path

os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

PartialState._prepare_backend = lambda *_args, **_kwargs: ("gloo", DistributedType.MULTI_GPU)
torch.distributed.init_process_group("gloo")
script = sys.argv.pop(1)
sys.path.insert(0, str(Path(script).parent))
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
