"""What every script does before its own work."""

import importlib.util
import subprocess
import sys

import pytest

from tests.factories import PROJECT, skip

PROGRAM = """
import sys
from utils.cli.script import run_script

def main():
    import peft
    from peft.import_utils import is_bnb_available
    assert is_bnb_available()
    print("bitsandbytes.nn" in sys.modules)
    import bitsandbytes.nn
    from bitsandbytes.functional import quantize_4bit
    print(bitsandbytes.nn.Linear4bit.__name__, sys.modules["bitsandbytes"].__version__ > "0")
    print(peft.helpers.bnb.nn is bitsandbytes.nn)

run_script(main)
"""


@pytest.mark.slow
def test_bitsandbytes_is_loaded_by_those_alone_who_use_it():
    if importlib.util.find_spec("bitsandbytes") is None:
        skip("bitsandbytes is not installed")
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "Linear4bit", "True", "True"], done.stderr
