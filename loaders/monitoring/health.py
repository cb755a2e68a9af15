"""How the connections are and what the last runs did, for people and programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

from loaders.jobs.event_log import Spool, spool
from loaders.jobs.runs import ORPHANED, OpenRun, open_runs
from loaders.settings.times import horizon
from loaders.transform import bootstrap, views
from loaders.warehouse.base import Warehouse
from loaders.warehouse.dead_letters import open_letters


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
    warehouse: Warehouse, limit: int, run_columns: Sequence[str] = views.RUN_COLUMNS
) -> Status:
    """How each connection is, the worst first, and the newest runs, newest first.

    Empty when the warehouse is not there yet. Raises TransformFailed when the views that it
    reads lack and cannot be made.
    """
    if not warehouse.is_bootstrapped():
        return Status([], [], spool=spool(warehouse))
    with warehouse.open():
        views.ensure_views(warehouse)
        found = _read_views(warehouse, limit, run_columns)
        if not found.runs and (last_began := views.newest_run(warehouse)):
            views.build_views(warehouse)  # the log has some, whatever the views say
            found = _read_views(warehouse, limit, run_columns)
            if not found.runs:
                found = dataclasses.replace(found, last_began=last_began)
        _tell_dead_processes(warehouse, found)
    return dataclasses.replace(found, spool=spool(warehouse))


def _read_views(warehouse: Warehouse, limit: int, run_columns: Sequence[str]) -> Status:
    return Status(views.connections(warehouse), views.runs(warehouse, limit, run_columns))


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


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.astimezone(dt.UTC).isoformat() if isinstance(value, dt.datetime) else value
        for name, value in row.items()
    }


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
    started_payload: str | None,
    ended_at: dt.datetime | None,
    end_type: str | None,
    error_message: str | None,
    end_payload: str | None,
) -> Run:
    telemetry = json.loads(end_payload or "{}")
    telemetry = telemetry if isinstance(telemetry, dict) else {}
    if end_type is None:
        open_run = OpenRun.of(
            correlation_id, source_system, connection_name, started_at, started_payload
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
    if not bootstrap.has_tables(warehouse):
        return []
    return [letter.as_json() for letter in open_letters(warehouse, limit=limit)]
