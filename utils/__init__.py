"""The package that the scripts share: one module per concern."""

from pathlib import Path

# The checkout, where the scripts are.
PROJECT = Path(__file__).resolve().parent.parent
