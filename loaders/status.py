"""What the event log and the dead letters say, for people and programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any

from loaders.dead_letters import open_letters
from loaders.runs import ORPHANED, OpenRun
from loaders.warehouse import Warehouse


@dataclasses.dataclass(frozen=True)
class Run:
    """One run and its effective end: a late real end counts before an Orphaned one."""

    correlation_id: str
    source_system: str
    connection_name: str | None
    started_at: dt.datetime
    ended_at: dt.datetime | None
    state: str
    """running, completed, failed or orphaned."""
    error_message: str | None
    telemetry: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain values, times in ISO 8601."""
        return {
            **dataclasses.asdict(self),
            "started_at": self.started_at.isoformat(),
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
        }


def last_runs(warehouse: Warehouse, limit: int) -> list[Run]:
    """The newest runs, newest first; none when the warehouse is not there yet."""
    if not warehouse.is_bootstrapped():
        return []
    event_log = warehouse.table("event_log")
    rows = warehouse.execute(
        "with started as ("
        f"select * from {event_log} where event_type = 'job.started'"
        " order by created_at desc limit ?),"
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
        (limit, ORPHANED),
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


def print_runs(runs: list[Run]) -> None:
    """Print runs as a table."""
    if not runs:
        print("no runs yet; start one with: python loaders/run.py gmail")
        return
    columns = ("started (UTC)", "state", "inserted", "updated", "deleted", "duration", "run")
    table = [
        (
            f"{run.started_at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}",
            run.state,
            *(str(run.telemetry.get(name, "-")) for name in ("inserted", "updated", "deleted")),
            _seconds(run.telemetry.get("duration_seconds")),
            run.correlation_id,
        )
        for run in runs
    ]
    print_table(columns, table)
    for run in runs:
        if run.error_message:
            print(f"{run.correlation_id}: {run.error_message}")


def dead_letters(warehouse: Warehouse, limit: int) -> list[dict[str, Any]]:
    """The newest dead letters that are not settled, without their payloads."""
    if not warehouse.is_bootstrapped():
        return []
    return [letter.as_json() for letter in open_letters(warehouse, limit=limit)]


def print_dead_letters(letters: list[dict[str, Any]]) -> None:
    """Print dead letters as a table."""
    if not letters:
        print("no dead letters")
        return
    columns = ("created_at", "source_system", "connection_name", "object_type", "external_id")
    print_table(
        ("created (UTC)", "source", "connection", "type", "id", "reason"),
        [
            (
                f"{letter['created_at'].astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}",
                *(str(letter[name] or "-") for name in columns[1:]),
                letter["reason"],
            )
            for letter in letters
        ],
    )


def _seconds(value: Any) -> str:
    return "-" if value is None else f"{float(value):.1f} s"


def print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print rows under their column names, aligned."""
    widths = [max(map(len, values)) for values in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
