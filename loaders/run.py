"""Landfall's command line: `python loaders/run.py gmail`."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python puts loaders/ itself on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from loaders.cli.main import main

if __name__ == "__main__":
    # What dlt and dbt build up stays to the end: looking through it for garbage again and again
    # takes a second or two of a run.
    gc.set_threshold(100_000, 50, 1_000)
    sys.exit(main())
