"""`run.py verify`: whether the warehouse holds what the source has."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from loaders.cli.arguments import (
    add_command,
    add_connection,
    add_sandbox_size,
    positive,
    warehouse_of,
)
from loaders.errors import LandfallError
from loaders.settings.places import configure_dlt
from loaders.sources.registry import SOURCES


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
    """As diff(1) does: 1 when they differ, and 2 when that could not be found out."""
    configure_dlt()
    from loaders.cli.output import print_report
    from loaders.monitoring.alerts.job_end import run_and_tell
    from loaders.sources.access import AccessOptions
    from loaders.sources.connections import load_connection
    from loaders.sources.registry import open_access
    from loaders.upkeep.verifying import Verification

    warehouse = warehouse_of(options)
    connection = load_connection(options.source, options.connection, warehouse)
    access_options = AccessOptions(options.sandbox_size, keep_sandbox=False)
    # With --json what is printed is one JSON object.
    elsewhere = sys.stderr if options.json else sys.stdout
    with contextlib.ExitStack() as stack:
        with contextlib.redirect_stdout(elsewhere):
            access = stack.enter_context(open_access(connection, warehouse, access_options))
        verification = Verification(
            warehouse,
            access.open_source,
            source_system=connection.source_system,
            connection_name=connection.name,
            limit=options.limit,
            with_payloads=options.payloads,
        )
        try:
            run_and_tell(verification.job, verification.run)
        except LandfallError as error:
            if verification.report is None and error.exit_code == 1:
                error.exit_code = 2
            raise
        finally:
            if verification.report:
                print_report(verification.report, as_json=options.json)
    return 0
