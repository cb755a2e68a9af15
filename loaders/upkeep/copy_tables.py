"""The tables that a copy moves, and the SQL that reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from loaders.warehouse.base import Warehouse


@dataclasses.dataclass(frozen=True)
class CopiedTable:
    """A table that is copied, the columns that make its key, what is compared besides."""

    name: str
    key: tuple[str, ...]
    is_landing: bool = False
    """Whether dlt lands it: then only its rows of complete loads count."""
    compared: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


TABLES = (
    # First: what was erased on either side is not copied.
    CopiedTable("erasures", ("key_hash",)),
    CopiedTable("event_log", ("event_id",)),
    CopiedTable("dead_letters", ("dead_letter_id",), is_landing=True),
    CopiedTable(
        "raw_objects",
        ("idem_key",),
        compared=("payload_hash", "deleted_at is null", "first_seen", "last_seen"),
        groups=("source_system", "connection_name", "object_type"),
    ),
    # Last: a cursor must never show without the objects it covers.
    CopiedTable(
        "cursors", ("source_system", "connection_name", "stream", "observed_at"), is_landing=True
    ),
)


def stored(warehouse: Warehouse, table: CopiedTable) -> str:
    """Qualified name of the table itself."""
    if table.is_landing:
        return warehouse.staging_table(table.name)
    return warehouse.table(table.name)


def temporary_name(table: CopiedTable) -> str:
    """Name of the table, in the landing dataset, that rows wait in for their INSERT."""
    return f"copied_{table.name}"


def temporary(warehouse: Warehouse, table: CopiedTable) -> str:
    """Qualified name of that table."""
    return warehouse.staging_table(temporary_name(table))


def readable(warehouse: Warehouse, table: CopiedTable) -> str:
    """Relation of the rows that count."""
    if not table.is_landing:
        return stored(warehouse, table)
    rows = f"select * from {stored(warehouse, table)} where {warehouse.is_complete()}"
    return f"({rows}) as complete"


def keyed(warehouse: Warehouse, table: CopiedTable) -> str:
    """Relation to read keys from; a load that was repeated may have landed one twice."""
    if not table.is_landing:
        return stored(warehouse, table)
    rows = f"select distinct {', '.join(table.key)} from {readable(warehouse, table)}"
    return f"({rows}) as complete_keys"


def held(warehouse: Warehouse, table: CopiedTable) -> str:
    """Relation of the keys that are stored and, with `is_stored` false, of those that wait."""
    key = ", ".join(table.key)
    rows = f"select {key}, true as is_stored from {keyed(warehouse, table)}"
    if not table.is_landing:
        rows += (
            f" union all select {key}, false as is_stored from {temporary(warehouse, table)}"
            f" where {warehouse.is_complete()}"
        )
    return f"({rows}) as held"


def as_text(warehouse: Warehouse, columns: Mapping[str, str]) -> str:
    """Columns to select, JSON as text; BigQuery would write SQL's NULL as JSON's null."""
    return ", ".join(
        f"case when {name} is not null then {warehouse.json_as_text(name)} end as {name}"
        if data_type == "json"
        else name
        for name, data_type in columns.items()
    )
