"""`run.py status`: the last runs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from loaders.commands.parsers import add_command, warehouse_of
from loaders.option_values import positive


def add(commands: Any) -> None:
    """Add the command."""
    status = add_command(commands, "status", _status, "the last runs, from the event log")
    status.add_argument("--limit", type=positive, default=10, help="runs to show (default 10)")
    status.add_argument("--json", action="store_true", help="as JSON, for programs")


def _status(options: argparse.Namespace) -> int:
    from loaders import status

    warehouse = warehouse_of(options)
    runs = status.last_runs(warehouse, options.limit)
    if options.json:
        print(json.dumps([run.as_json() for run in runs], indent=2))
    else:
        status.print_runs(runs)
    return 0
