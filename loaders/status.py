"""How the connections are and what the last runs did, for people and programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from loaders import monitoring, transform
from loaders.config import shown
from loaders.dead_letters import open_letters
from loaders.event_log import Spool, spool
from loaders.runs import GRACE, ORPHANED, OpenRun, horizon, open_runs
from loaders.warehouse import Warehouse

SHOWN_ID = 8
"""Characters of a letter's id that tables show: enough to name it by."""
_COLOURS = {
    "completed": 32,
    "ok": 32,
    "late": 33,
    "running": 36,
    "failed": 31,
    "failing": 31,
    "orphaned": 31,
    "silent": 31,
}
"""SGR codes (ECMA-48, 8.3.117): green, yellow, cyan, red."""
_UNITS = ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


@dataclasses.dataclass(frozen=True)
class Status:
    """Rows of connection_health and of job_runs, as dictionaries."""

    connections: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    last_began: dt.datetime | None = None
    """When the last run of the log began, where that is longer ago than the views look back."""
    spool: Spool = dataclasses.field(default_factory=Spool)

    @property
    def is_ok(self) -> bool:
        """Whether every connection is ok, and no event waits to be written; true when there is no
        connection, and never was a run."""
        if self.last_began or self.spool.waiting or self.spool.set_aside:
            return False
        return all(connection["state"] == "ok" for connection in self.connections)

    def as_json(self) -> dict[str, Any]:
        """Plain values, times in ISO 8601."""
        return {
            "connections": [_plain(connection) for connection in self.connections],
            "runs": [_plain(run) for run in self.runs],
            "spool": {
                "directory": str(self.spool.directory),
                "waiting": len(self.spool.waiting),
                "set_aside": len(self.spool.set_aside),
            },
        }


def read(
    warehouse: Warehouse, limit: int, run_columns: Sequence[str] = monitoring.RUN_COLUMNS
) -> Status:
    """How each connection is, the worst first, and the newest runs, newest first.

    Empty when the warehouse is not there yet. Raises TransformFailed when the views that it
    reads lack and cannot be made.
    """
    if not warehouse.is_bootstrapped():
        return Status([], [], spool=spool(warehouse))
    with warehouse.open():
        monitoring.ensure_views(warehouse)
        found = _read_views(warehouse, limit, run_columns)
        if not found.runs and (last_began := monitoring.newest_run(warehouse)):
            monitoring.build_views(warehouse)  # the log has some, whatever the views say
            found = _read_views(warehouse, limit, run_columns)
            if not found.runs:
                found = dataclasses.replace(found, last_began=last_began)
        _tell_dead_processes(warehouse, found)
    return dataclasses.replace(found, spool=spool(warehouse))


def _read_views(warehouse: Warehouse, limit: int, run_columns: Sequence[str]) -> Status:
    return Status(monitoring.connections(warehouse), monitoring.runs(warehouse, limit, run_columns))


def _tell_dead_processes(warehouse: Warehouse, found: Status) -> None:
    """Correct what SQL takes for running: a run whose process is gone, as this machine knows."""
    states = [run["state"] for run in found.runs]
    states += [connection["last_state"] for connection in found.connections]
    if "running" not in states:
        return
    now = dt.datetime.now(dt.UTC)
    gone = {run.correlation_id for run in open_runs(warehouse, now) if run.is_orphaned(now)}
    for run in found.runs:
        if run["state"] == "running" and run["correlation_id"] in gone:
            run["state"] = "orphaned"
    for connection in found.connections:
        if connection["last_state"] == "running" and connection["last_correlation_id"] in gone:
            connection["last_state"] = "orphaned"
            connection["consecutive_failures"] += 1
            if connection["state"] != "silent" and not connection["is_retired"]:
                connection["state"] = "failing"
                connection["reason"] = "the last run's process is gone; it wrote no end row"


def print_status(found: Status, now: dt.datetime) -> None:
    """Print the connections and the runs as tables, in colours on a terminal, then the spool."""
    _print_views(found, now)
    if waiting := len(found.spool.waiting):
        where = shown(found.spool.directory)
        print(f"spool: {waiting} event(s) wait in {where}; the next run writes them")
    for path in found.spool.set_aside:
        print(f"spool: {shown(path)} cannot be read as an event; look at it, then remove it")


def _print_views(found: Status, now: dt.datetime) -> None:
    if found.last_began:
        began = f"{found.last_began.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
        print(f"no run within monitoring_days (dbt_project.yml); the last one began {began}")
        return
    if not found.connections and not found.runs:
        print("no runs yet; start one with: python loaders/run.py gmail")
        return
    if found.connections:
        _print_connections(found.connections)
        print()
    _print_runs(found.runs, now)


def _print_connections(connections: Sequence[dict[str, Any]]) -> None:
    columns = ("connection", "state", "last success", "expected", "failures", "dead letters")
    print_table(
        (*columns, "reason"),
        [
            (
                f"{connection['source_system']}.{connection['connection_name']}",
                connection["state"],
                _ago(connection["age_seconds"]),
                _every(connection["expected_interval_seconds"]),
                str(connection["consecutive_failures"]),
                str(connection["open_dead_letters"]),
                connection["reason"],
            )
            for connection in connections
        ],
        _paint,
    )


def _print_runs(runs: Sequence[dict[str, Any]], now: dt.datetime) -> None:
    print_table(
        ("started", "state", "inserted", "updated", "deleted", "duration", "run"),
        [
            (
                _ago((now - run["started_at"]).total_seconds()),
                run["state"],
                *(_count(run[name]) for name in ("inserted", "updated", "deleted")),
                _seconds(run["duration_seconds"]),
                run["correlation_id"],
            )
            for run in runs
        ],
        _paint,
    )
    for run in runs:
        if run["error_message"]:
            print(f"{run['correlation_id']}: {run['error_message']}")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.astimezone(dt.UTC).isoformat() if isinstance(value, dt.datetime) else value
        for name, value in row.items()
    }


def duration(seconds: float) -> str:
    """For a person, as macros/monitoring/duration_text.sql has it."""
    unit, name = next((each for each in _UNITS if seconds >= 2 * each[0]), _UNITS[-1])
    return f"{int(seconds / unit)} {name}"


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    if seconds < -GRACE.total_seconds():
        return f"in {duration(-seconds)}"
    return f"{duration(max(seconds, 0.0))} ago"


def _every(seconds: float | None) -> str:
    return "-" if seconds is None else f"every {duration(seconds)}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _paint(value: str, padded: str) -> str:
    """A state in its colour, on a terminal that is not asked to go without (no-color.org)."""
    is_plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    if is_plain or os.environ.get("TERM") == "dumb" or value not in _COLOURS:
        return padded
    return f"\x1b[{_COLOURS[value]}m{padded}\x1b[0m"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run and its effective end, as the log itself tells: for what needs no views."""

    correlation_id: str
    source_system: str
    connection_name: str | None
    started_at: dt.datetime
    ended_at: dt.datetime | None
    state: str
    """running, completed, failed or orphaned."""
    error_message: str | None
    telemetry: dict[str, Any]


def last_runs(warehouse: Warehouse, limit: int) -> list[Run]:
    """The newest runs, newest first, those of the future left out; none when the warehouse is not
    there yet."""
    if not warehouse.is_bootstrapped():
        return []
    event_log = warehouse.table("event_log")
    rows = warehouse.execute(
        "with started as ("
        f"select * from {event_log} where event_type = 'job.started'"
        f" and created_at <= {warehouse.timestamp_parameter} order by created_at desc limit ?),"
        " ended as ("
        "select ended.*, row_number() over (partition by ended.correlation_id order by"
        f" case when {warehouse.json_text('ended.payload', '$.error_type')} = ?"
        " then 1 else 0 end,"
        " ended.created_at) as end_rank"
        f" from {event_log} as ended where event_type in ('job.completed', 'job.failed')"
        " and created_at >= (select min(created_at) from started))"
        " select started.correlation_id, started.source_system, started.connection_name,"
        f" started.created_at, {warehouse.json_as_text('started.payload')}, ended.created_at,"
        f" ended.event_type, ended.error_message, {warehouse.json_as_text('ended.payload')}"
        " from started"
        " left join ended on started.correlation_id = ended.correlation_id and ended.end_rank = 1"
        " order by started.created_at desc",
        (horizon().isoformat(), limit, ORPHANED),
    )
    return [_run(*row) for row in rows]


def _run(
    correlation_id: str,
    source_system: str,
    connection_name: str | None,
    started_at: dt.datetime,
    started_payload: str,
    ended_at: dt.datetime | None,
    end_type: str | None,
    error_message: str | None,
    end_payload: str | None,
) -> Run:
    telemetry = json.loads(end_payload) if end_payload else {}
    if end_type is None:
        open_run = OpenRun(
            correlation_id,
            source_system,
            connection_name,
            started_at,
            json.loads(started_payload),
        )
        state = "orphaned" if open_run.is_orphaned(dt.datetime.now(dt.UTC)) else "running"
    elif telemetry.get("error_type") == ORPHANED:
        state = "orphaned"
    else:
        state = end_type.removeprefix("job.")
    return Run(
        correlation_id,
        source_system,
        connection_name,
        started_at,
        ended_at,
        state,
        error_message,
        telemetry,
    )


def dead_letters(warehouse: Warehouse, limit: int) -> list[dict[str, Any]]:
    """The newest dead letters that are not settled, without their payloads."""
    if not transform.has_tables(warehouse):
        return []
    return [letter.as_json() for letter in open_letters(warehouse, limit=limit)]


def print_dead_letters(letters: list[dict[str, Any]]) -> None:
    """Print dead letters as a table."""
    if not letters:
        print("no dead letters")
        return
    columns = ("created_at", "source_system", "connection_name", "object_type", "external_id")
    print_table(
        ("letter", "created (UTC)", "source", "connection", "type", "id", "attempts", "reason"),
        [
            (
                letter["dead_letter_id"][:SHOWN_ID],
                f"{letter['created_at'].astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}",
                *(str(letter[name] or "-") for name in columns[1:]),
                str(letter["attempts"]),
                letter["reason"],
            )
            for letter in letters
        ],
    )


def _seconds(value: Any) -> str:
    return "-" if value is None else f"{float(value):.1f} s"


def print_table(
    columns: tuple[str, ...],
    rows: list[tuple[str, ...]],
    paint: Callable[[str, str], str] = lambda _value, padded: padded,
) -> None:
    """Print rows under their column names, aligned; `paint` takes a cell and the cell padded."""
    widths = [max(map(len, values)) for values in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [paint(cell, cell.ljust(width)) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
