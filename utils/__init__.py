"""What the scripts share, in packages that are layers: see CONTRIBUTING.md."""

from pathlib import Path

# The checkout, where the scripts are.
PROJECT = Path(__file__).resolve().parent.parent
