"""Whether what a run needs is there: one line a part, and what to do about one that is not."""

from __future__ import annotations

import datetime as dt
import os

from loaders.config import Connection
from loaders.errors import LandfallError, describe
from loaders.status import last_runs
from loaders.warehouse import Warehouse

_LOOK_BACK_RUNS = 200


class Report:
    """Prints the lines as they come; `has_failed` once one of them has."""

    def __init__(self) -> None:
        self.has_failed = False

    def ok(self, part: str, text: str) -> None:
        """The part works."""
        self._print(part, "ok", text)

    def failed(self, part: str, error: LandfallError | str) -> None:
        """The part does not work; the text says what to do."""
        self.has_failed = True
        self._print(part, "FAILED", error if isinstance(error, str) else describe(error))

    def nothing(self, part: str, text: str) -> None:
        """There is nothing to say of the part, and why."""
        self._print(part, "-", text)

    @staticmethod
    def _print(part: str, state: str, text: str) -> None:
        print(f"{part:<13}{state:<8}{text}", flush=True)


def check_warehouse(report: Report, warehouse: Warehouse, connection: Connection) -> bool | None:
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
