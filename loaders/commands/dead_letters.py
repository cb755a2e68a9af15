"""`run.py dead-letters`: what could not be stored, and why."""

from __future__ import annotations

import argparse
import json
from typing import Any

from loaders.commands.parsers import add_command, warehouse_of
from loaders.option_values import positive


def add(commands: Any) -> None:
    """Add the command."""
    letters = add_command(
        commands, "dead-letters", _dead_letters, "what could not be stored, and why"
    )
    letters.add_argument("--limit", type=positive, default=50, help="rows to show (default 50)")
    letters.add_argument("--json", action="store_true", help="as JSON, for programs")


def _dead_letters(options: argparse.Namespace) -> int:
    from loaders import status

    warehouse = warehouse_of(options)
    letters = status.dead_letters(warehouse, options.limit)
    if options.json:
        print(json.dumps(letters, indent=2, default=str))
    else:
        status.print_dead_letters(letters)
    return 0
