"""`run.py verify`: whether the warehouse holds what the source has."""

from __future__ import annotations

import argparse
from typing import Any

from loaders.commands.parsers import add_command, add_connection, add_sandbox_size, warehouse_of
from loaders.config import SOURCES, configure_dlt
from loaders.option_values import positive


def add(commands: Any) -> None:
    """Add the command."""
    verify = add_command(
        commands,
        "verify",
        _verify,
        "compare the warehouse with what the source has",
        "Lists every object at the source and says what is missing, extra or stale; what has"
        " changed since the last run is no error. Writes no data; the outcome is logged as a job."
        " Exit code 1 when they differ, 2 when they could not be compared.",
    )
    verify.add_argument("source", choices=SOURCES)
    add_connection(verify)
    verify.add_argument(
        "--payloads",
        action="store_true",
        help="also read every stored payload and compare it with its payload_hash",
    )
    verify.add_argument(
        "--limit", type=positive, default=20, help="ids to show of each kind (default 20)"
    )
    verify.add_argument("--json", action="store_true", help="as JSON, for programs")
    add_sandbox_size(verify)


def _verify(options: argparse.Namespace) -> int:
    configure_dlt()
    from loaders import source_command

    return source_command.verify(options, warehouse_of(options))
