"""What a warehouse file and its spool held at one moment, read from a copy."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from tests.chaos.mailbox import without_volatile

ORPHANED = "Orphaned"
WAREHOUSE = "landfall.duckdb"
_SPOOL = "spool"


@dataclasses.dataclass(frozen=True)
class Event:
    """A row of event_log, or a spooled one."""

    event_type: str
    correlation_id: str
    created_at: str
    payload: dict[str, Any]

    @property
    def is_start(self) -> bool:
        return self.event_type == "job.started"

    @property
    def is_end(self) -> bool:
        return self.event_type in ("job.completed", "job.failed")

    @property
    def is_orphaned(self) -> bool:
        return self.payload.get("error_type") == ORPHANED


@dataclasses.dataclass(frozen=True)
class Queued:
    """A row of landed_objects."""

    idem_key: str
    external_id: str
    observed_at: int
    is_complete: bool


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Times are microseconds since 1970, UTC."""

    events: list[Event]
    spooled: list[Event]
    objects: list[dict[str, Any]]
    queue: list[Queued]
    visible_cursors: int


def take_copy(warehouse: Path, state_dir: Path, into: Path) -> None:
    """Copy the file as a kill left it: opening the original would replay its log."""
    into.mkdir(parents=True)
    for suffix in ("", ".wal"):
        source = warehouse.with_name(warehouse.name + suffix)
        if source.exists():
            shutil.copyfile(source, into / (WAREHOUSE + suffix))
    (into / _SPOOL).mkdir()
    for path in (state_dir / "spool").glob("*/*"):
        shutil.copyfile(path, into / _SPOOL / path.name)


def read_snapshot(directory: Path) -> Snapshot:
    """Read a copy; tables that a killed run had not come to are empty."""
    spooled = [
        _event(event["event_type"], event["correlation_id"], event["created_at"], event["payload"])
        for path in sorted((directory / _SPOOL).iterdir())
        if (event := json.loads(path.read_text()))
    ]
    if not (directory / WAREHOUSE).exists():
        return Snapshot([], spooled, [], [], 0)
    with duckdb.connect(str(directory / WAREHOUSE)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        tables = _Tables(connection)
        return Snapshot(
            events=[_event(*row) for row in tables.rows("event_log", _EVENTS)],
            spooled=spooled,
            objects=[_object(row) for row in tables.records("raw_objects", _OBJECTS)],
            queue=[Queued(*row) for row in tables.rows("landed_objects", _QUEUE)],
            visible_cursors=len(tables.rows("cursors", _CURSORS)),
        )


_EVENTS = """
    select event_type, correlation_id, created_at::text, payload
    from events.event_log order by created_at
"""
_OBJECTS = """
    select * replace (
        epoch_us(object_created_at) as object_created_at,
        epoch_us(first_seen) as first_seen,
        epoch_us(last_seen) as last_seen,
        epoch_us(changed_at) as changed_at,
        epoch_us(deleted_at) as deleted_at
    )
    from events.raw_objects order by idem_key
"""
_LOADED = "_dlt_load_id in (select load_id from events_staging._dlt_loads where status = 0)"
_QUEUE = f"""
    select idem_key, external_id, epoch_us(observed_at), {_LOADED}
    from events_staging.landed_objects order by idem_key
"""
_CURSORS = f"select stream from events_staging.cursors where {_LOADED}"


class _Tables:
    """The tables that exist: a run may be killed while it creates them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        found = connection.execute("select table_name from information_schema.tables")
        self._present = {name for (name,) in found.fetchall()}

    def rows(self, table: str, query: str) -> Sequence[tuple[Any, ...]]:
        if not {table, "_dlt_loads"} <= self._present:
            return []
        return self._connection.execute(query).fetchall()

    def records(self, table: str, query: str) -> list[dict[str, Any]]:
        rows = self.rows(table, query)
        names = [column[0] for column in self._connection.description or ()] if rows else []
        return [dict(zip(names, row, strict=True)) for row in rows]


def _event(event_type: str, correlation_id: str, created_at: str, payload: str | None) -> Event:
    return Event(event_type, correlation_id, created_at, json.loads(payload or "{}"))


def _object(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "payload": without_volatile(json.loads(row["payload"] or "null"))}
