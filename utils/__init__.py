"""What the scripts share, in packages that are layers: see CONTRIBUTING.md."""

import signal
import sys
from pathlib import Path

# The checkout, where the scripts are.
PROJECT = Path(__file__).resolve().parent.parent

if sys.argv[:1] == ["-m"] or (sys.argv[:1] and Path(sys.argv[0]).resolve().parent == PROJECT):
    # One of the scripts: until it listens itself, Ctrl-C while it imports ends it without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
