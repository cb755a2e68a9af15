"""What a warehouse and its spool held at one moment: a copied file, or the rows of an emulator."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import duckdb

from loaders.warehouse.base import Warehouse
from tests.chaos.truth import without_volatile

ORPHANED = "Orphaned"
WAREHOUSE = "landfall.duckdb"
_ROWS = "rows.json"
_SPOOL = "spool"


@dataclasses.dataclass(frozen=True)
class Event:
    """A row of event_log, or a spooled one."""

    event_type: str
    correlation_id: str
    created_at: str
    payload: dict[str, Any]
    error_message: str | None = None

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
    object_type: str
    external_id: str
    payload_hash: str
    observed_at: int
    is_deleted: bool
    is_complete: bool


@dataclasses.dataclass(frozen=True)
class Letter:
    """A row of dead_letters, of a complete load."""

    object_type: str
    external_id: str | None
    created_at: int


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Times are microseconds since 1970, UTC."""

    events: list[Event]
    spooled: list[Event]
    objects: list[dict[str, Any]]
    queue: list[Queued]
    cursors: dict[str, dict[str, Any]]
    """The newest of each stream, of complete loads."""
    letters: list[Letter]


def copy_file(warehouse: Path, into: Path) -> None:
    """Copy the file as a kill left it: opening the original would replay its log."""
    for suffix in ("", ".wal"):
        source = warehouse.with_name(warehouse.name + suffix)
        if source.exists():
            shutil.copyfile(source, into / (WAREHOUSE + suffix))


def copy_rows(warehouse: Warehouse, into: Path) -> None:
    """Write down what a BigQuery warehouse holds."""
    rows = _read(
        warehouse.columns(),
        warehouse.execute,
        events=warehouse.target.schema,
        staging=warehouse.target.staging_schema,
        micros="unix_micros",
        payload=warehouse.json_as_text("payload"),
    )
    (into / _ROWS).write_text(json.dumps(rows))


def copy_spool(state_dir: Path, into: Path) -> None:
    """Copy the events that wait."""
    (into / _SPOOL).mkdir()
    for path in (state_dir / "spool").glob("*/*.json"):
        shutil.copyfile(path, into / _SPOOL / path.name)


def read_snapshot(directory: Path) -> Snapshot:
    """Read a copy; tables that a killed run had not come to are empty."""
    spooled = [
        _event(*(event.get(name) for name in _EVENT_COLUMNS))
        for path in sorted((directory / _SPOOL).iterdir())
        if (event := json.loads(path.read_text()))
    ]
    rows = _stored_rows(directory)
    return Snapshot(
        events=[_event(*row) for row in rows["event_log"]],
        spooled=spooled,
        objects=[_object(row) for row in rows["raw_objects"]],
        queue=[Queued(*row) for row in rows["landed_objects"]],
        cursors={stream: json.loads(cursor) for stream, cursor in rows["cursors"]},
        letters=[Letter(*row) for row in rows["dead_letters"]],
    )


_LOADED = "_dlt_load_id in (select load_id from {staging}._dlt_loads where status = 0)"
_MOMENTS = ("object_created_at", "first_seen", "last_seen", "changed_at", "deleted_at")
_OBJECT_COLUMNS = (
    *_MOMENTS,
    "idem_key",
    "source_system",
    "connection_name",
    "object_type",
    "external_id",
    "payload",
    "payload_hash",
    "changed_by",
    "merged_by",
    "last_action",
)
_EVENT_COLUMNS = ("event_type", "correlation_id", "created_at", "payload", "error_message")
_SELECTED = {name: f"{{micros}}({name})" for name in _MOMENTS} | {"payload": "{payload}"}
_QUERIES = {
    "event_log": """
        select event_type, correlation_id, cast(created_at as string), {payload}, error_message
        from {events}.event_log order by created_at
    """,
    "raw_objects": f"""
        select {", ".join(_SELECTED.get(name, name) for name in _OBJECT_COLUMNS)}
        from {{events}}.raw_objects order by idem_key
    """,
    "landed_objects": f"""
        select
            idem_key, object_type, external_id, payload_hash,
            {{micros}}(observed_at), is_deleted, {_LOADED}
        from {{staging}}.landed_objects order by idem_key
    """,
    "cursors": f"""
        select stream, cursor from {{staging}}.cursors where {_LOADED} order by observed_at
    """,
    "dead_letters": f"""
        select object_type, external_id, {{micros}}(created_at)
        from {{staging}}.dead_letters where {_LOADED}
    """,
}

Rows = dict[str, list[Sequence[Any]]]


def _stored_rows(directory: Path) -> Rows:
    if (directory / _ROWS).exists():
        rows: Rows = json.loads((directory / _ROWS).read_text())
        return rows
    if not (directory / WAREHOUSE).exists():
        return {table: [] for table in _QUERIES}
    with duckdb.connect(str(directory / WAREHOUSE)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        tables = connection.execute("select table_name from information_schema.tables")
        return _read(
            {name for (name,) in tables.fetchall()},
            lambda sql: connection.execute(sql).fetchall(),
            events="events",
            staging="events_staging",
            micros="epoch_us",
            payload="payload",
        )


def _read(
    present: Collection[str], execute: Callable[[str], Sequence[Sequence[Any]]], **words: str
) -> Rows:
    """Rows of the tables that exist: a run may be killed while it creates them, and a dataset may
    be put back to before there was one."""

    def rows(table: str, sql: str) -> list[Sequence[Any]]:
        needed = {table, "_dlt_loads"} if _LOADED in sql else {table}
        return list(execute(sql.format(**words))) if needed <= set(present) else []

    return {table: rows(table, sql) for table, sql in _QUERIES.items()}


def _event(
    event_type: str,
    correlation_id: str,
    created_at: str,
    payload: str | None,
    error_message: str | None,
) -> Event:
    values = json.loads(payload or "{}")
    return Event(event_type, correlation_id, created_at, values, error_message)


def _object(row: Sequence[Any]) -> dict[str, Any]:
    named = dict(zip(_OBJECT_COLUMNS, row, strict=True))
    return {**named, "payload": without_volatile(json.loads(named["payload"] or "null"))}
