"""`run.py status`: how the connections are, and the last runs."""

from __future__ import annotations

import argparse
import datetime as dt
import json
from typing import Any

from loaders.cli.arguments import add_command, positive, warehouse_of


def add(commands: Any) -> None:
    """Add the command."""
    status = add_command(
        commands,
        "status",
        _status,
        "how each connection is, and the last runs",
        "Exits 0 when every connection is ok, or none has run yet, and 1 otherwise;"
        " docs/monitoring.md says what the states mean.",
    )
    status.add_argument("--limit", type=positive, default=10, help="runs to show (default 10)")
    status.add_argument("--json", action="store_true", help="as JSON, for programs")


def _status(options: argparse.Namespace) -> int:
    from loaders.cli import output
    from loaders.monitoring import health
    from loaders.monitoring.alerts.incidents import tell_undelivered

    warehouse = warehouse_of(options)
    warehouse.may_be_read_only = True
    found = health.read(warehouse, options.limit)
    if options.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        output.print_status(found, dt.datetime.now(dt.UTC))
    if found.runs:
        tell_undelivered(warehouse)
    return 0 if found.is_ok else 1
