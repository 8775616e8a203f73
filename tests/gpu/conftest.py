"""Tests of what needs a GPU: collected where there is one."""

import torch

if not torch.cuda.is_available():
    collect_ignore_glob = ["test_*.py"]
