"""Landfall's command line: `python loaders/run.py gmail`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python puts loaders/ itself on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from loaders.cli import main

if __name__ == "__main__":
    sys.exit(main())
