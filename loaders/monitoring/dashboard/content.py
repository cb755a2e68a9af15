"""What the dashboard shows: rows of the monitoring marts, bounded, as plain values."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from loaders.monitoring import health
from loaders.settings.target import Target
from loaders.settings.times import horizon
from loaders.warehouse.base import Warehouse
from loaders.warehouse.dead_letters import open_letters

MAX_RUNS = 2_000
MAX_ERRORS = 200
"""Runs that keep their error message, which may be 500 characters long."""
MAX_ACTIVITY = 20_000
MAX_LETTERS = 200

_HEALTH = (
    "source_system",
    "connection_name",
    "state",
    "reason",
    "last_run_at",
    "last_success_at",
    "age_seconds",
    "expected_interval_seconds",
    "consecutive_failures",
    "open_dead_letters",
)
RUN = (
    "correlation_id",
    "source_system",
    "connection_name",
    "started_at",
    "state",
    "is_ingestion",
    "duration_seconds",
    "inserted",
    "updated",
    "deleted",
    "error_type",
    "step",
    "error_message",
)
_ACTIVITY = (
    "activity_date",
    "source_system",
    "connection_name",
    "object_type",
    "runs",
    "failures",
    "objects_landed",
    "bytes",
    "api_units",
)
_MEASURED = (
    "activity_date",
    "source_system",
    "connection_name",
    "median_seconds",
    "objects_per_second",
    "bytes_processed",
    "bytes_billed",
)
_LETTER = (
    "created_at",
    "source_system",
    "connection_name",
    "object_type",
    "external_id",
    "reason",
    "attempts",
    "correlation_id",
)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows in the order of their columns, newest first, and how many there are in all."""

    columns: Sequence[str]
    rows: list[list[Any]]
    total: int


def read(warehouse: Warehouse, days: int, now: dt.datetime) -> dict[str, Any]:
    """The page's content for the last `days` UTC days, today among them.

    Times are seconds since 1970, days ISO 8601 dates. At most MAX_RUNS runs (the errors of
    MAX_ERRORS of them), MAX_LETTERS dead letters and MAX_ACTIVITY rows of daily_activity; where
    there are more of the last, the period begins later. Raises TransformFailed when the views
    that it reads lack and cannot be made.
    """
    target, last_day = warehouse.target, now.astimezone(dt.UTC).date()
    if not warehouse.is_bootstrapped():
        return _content(target, now, last_day - dt.timedelta(days=days - 1), health.Status([], []))
    with warehouse.open():
        # It makes the views where they lack, and knows of processes that are gone.
        found = health.read(warehouse, MAX_RUNS, RUN)
        first_day, activity = read_activity(warehouse, last_day - dt.timedelta(days=days - 1))
        measured = read_days(warehouse, first_day)
        letters = _letters(warehouse, found.connections)
    return _content(target, now, first_day, found, activity, measured, letters)


def _content(
    target: Target,
    now: dt.datetime,
    first_day: dt.date,
    found: health.Status,
    activity: Table | None = None,
    measured: tuple[Table, int] | None = None,
    letters: Table | None = None,
) -> dict[str, Any]:
    nothing = Table((), [], 0)
    by_day, runs_in_period = measured or (nothing, 0)
    last_day = now.astimezone(dt.UTC).date()
    runs = [
        run
        for run in found.runs
        if first_day <= run["started_at"].astimezone(dt.UTC).date() <= last_day
    ]
    return {
        "generated_at": _plain(now),
        "target": target.name,
        "warehouse": target.type,
        "first_day": _plain(first_day),
        "last_day": _plain(last_day),
        "connections": _as_json(_table(_HEALTH, found.connections)),
        "runs": _as_json(_table(RUN, _short_of_errors(runs), runs_in_period)),
        "activity": _as_json(activity or nothing),
        "by_day": _as_json(by_day),
        "dead_letters": _as_json(letters or nothing),
    }


def _short_of_errors(runs: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """The runs; all but the newest MAX_ERRORS that failed without their message."""
    errors = 0
    for run in runs:
        errors += run["error_message"] is not None
        yield run if errors <= MAX_ERRORS else {**run, "error_message": None}


def read_activity(warehouse: Warehouse, first_day: dt.date) -> tuple[dt.date, Table]:
    """Whole days of daily_activity, and the first of them."""
    rows = warehouse.execute(
        f"select {', '.join(_ACTIVITY)} from {warehouse.table('daily_activity')}"
        f" where activity_date between date '{first_day}' and date '{horizon().date()}'"
        f" order by activity_date desc, source_system, connection_name, object_type"
        f" limit {MAX_ACTIVITY + 1:d}"
    )
    if len(rows) > MAX_ACTIVITY:
        cut: dt.date = rows[-1][0]
        rows = [row for row in rows if row[0] > cut]
        first_day = cut + dt.timedelta(days=1)
    return first_day, Table(_ACTIVITY, [list(row) for row in rows], len(rows))


def read_days(warehouse: Warehouse, first_day: dt.date) -> tuple[Table, int]:
    """Medians and sums of job_runs by day and connection, and how many runs there are in all."""
    began = dt.datetime.combine(first_day, dt.time(), dt.UTC)
    count = 0
    days: dict[tuple[dt.date, str, str | None], _Day] = {}
    for source, connection, started_at, state, is_ingestion, *figures in warehouse.stream(
        "select source_system, connection_name, started_at, state, is_ingestion,"
        " duration_seconds, objects_by_type, bytes_processed, bytes_billed"
        f" from {warehouse.table('job_runs')}"
        f" where started_at >= {warehouse.timestamp_parameter}"
        f" and started_at <= {warehouse.timestamp_parameter}",
        (began.isoformat(), horizon().isoformat()),
    ):
        count += 1
        key = (started_at.astimezone(dt.UTC).date(), source, connection)
        day = days.setdefault(key, _Day())
        day.add(*figures, is_timed=is_ingestion and state == "completed")
    rows = [
        [*key, *days[key].figures()]
        for key in sorted(days, key=lambda key: (-key[0].toordinal(), key[1], key[2] or ""))
    ]
    return Table(_MEASURED, rows, len(rows)), count


class _Day:
    """What the runs of one day and connection took."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._landed = 0
        self._landed_seconds = 0.0
        self._processed: int | None = None
        self._billed: int | None = None

    def add(
        self,
        seconds: float | None,
        objects: str | None,
        processed: int | None,
        billed: int | None,
        *,
        is_timed: bool,
    ) -> None:
        """Add a run; only a timed one tells how long an ingestion takes."""
        if is_timed and seconds is not None:
            self._seconds.append(seconds)
            landed = sum(json.loads(objects).values()) if objects else 0
            if landed:
                self._landed += landed
                self._landed_seconds += seconds
        if processed is not None:
            self._processed = (self._processed or 0) + processed
        if billed is not None:
            self._billed = (self._billed or 0) + billed

    def figures(self) -> tuple[float | None, float | None, int | None, int | None]:
        """Median seconds, objects a second, bytes read and bytes billed."""
        return (
            statistics.median(self._seconds) if self._seconds else None,
            self._landed / self._landed_seconds if self._landed_seconds else None,
            self._processed,
            self._billed,
        )


def _letters(warehouse: Warehouse, connections: Iterable[dict[str, Any]]) -> Table:
    letters = [letter.as_json() for letter in open_letters(warehouse, limit=MAX_LETTERS)]
    known = sum(connection["open_dead_letters"] for connection in connections)
    return _table(_LETTER, letters, max(known, len(letters)))


def _table(
    columns: Sequence[str], rows: Iterable[dict[str, Any]], total: int | None = None
) -> Table:
    listed = [[row[name] for name in columns] for row in rows]
    return Table(columns, listed, len(listed) if total is None else total)


def _as_json(table: Table) -> dict[str, Any]:
    rows = [[_plain(value) for value in row] for row in table.rows]
    return {"columns": list(table.columns), "rows": rows, "total": table.total}


def _plain(value: Any) -> Any:
    """A value as JSON takes it; of numbers six digits behind the point."""
    if isinstance(value, dt.datetime):
        return round(value.timestamp(), 3)
    if isinstance(value, dt.date):
        return value.isoformat()
    return round(value, 6) if isinstance(value, float) else value
