"""`run.py check`: whether what a run needs is there, one line a part."""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import os

from loaders.cli.connections import named_sources
from loaders.errors import LandfallError
from loaders.monitoring.alerts.channels import check_channels
from loaders.monitoring.health import last_runs
from loaders.settings.connection import Connection
from loaders.sources.access import AccessOptions
from loaders.sources.check_lines import CheckLines
from loaders.sources.connections import load_connection
from loaders.sources.registry import open_access
from loaders.warehouse.base import Warehouse

_LOOK_BACK_RUNS = 200


def check(options: argparse.Namespace, warehouse: Warehouse) -> int:
    """`run.py check`: whether a run would find all it needs; 1 when it would not."""
    report = CheckLines()
    for source in named_sources(options):
        connection = load_connection(source, options.connection, warehouse)
        size = options.sandbox_size
        access_options = AccessOptions(sandbox_size=size, keep_sandbox=False)
        with open_access(connection, warehouse, access_options) as access:
            access.check(report, functools.partial(_check_warehouse, report, warehouse, connection))
    check_channels(report)
    return int(report.has_failed)


def _check_warehouse(
    report: CheckLines, warehouse: Warehouse, connection: Connection
) -> bool | None:
    """Whether the warehouse has its tables; None when it cannot be reached. Creates nothing."""
    try:
        if problem := _unmakeable(warehouse):
            report.failed("warehouse", problem)
            return None
        if not warehouse.is_bootstrapped():
            report.ok("warehouse", "no tables yet: the first run makes them")
            return False
        report.ok("warehouse", f"its tables are there; {_last_run(warehouse, connection)}")
    except LandfallError as error:
        report.failed("warehouse", error)
        return None
    return True


def _unmakeable(warehouse: Warehouse) -> str | None:
    """Why the first run could not make the DuckDB file; looking must not make it."""
    target = warehouse.target
    if target.type != "duckdb" or target.path.exists():
        return None
    directory = target.path.parent
    if os.access(directory, os.W_OK | os.X_OK):
        return None
    problem = "is not writable" if directory.is_dir() else "does not exist"
    return f"{directory}: {problem}; make it so, or set another path (LANDFALL_DUCKDB_PATH)"


def _last_run(warehouse: Warehouse, connection: Connection) -> str:
    for run in last_runs(warehouse, _LOOK_BACK_RUNS):
        if (run.source_system, run.connection_name) == (connection.source_system, connection.name):
            began = run.started_at.astimezone(dt.UTC)
            what_to_do = "" if run.state in ("completed", "running") else ", see run.py status"
            return f"the last run of {began:%Y-%m-%d %H:%M} UTC: {run.state}{what_to_do}"
    return "no run of this connection yet"
