"""Dead letters: what could not be stored, until it is.

A letter is settled when raw_objects holds a later state of its object, when a newer letter is
about the same object, or when a retry has dealt with it. Only letters of complete loads count:
a package that was refused has left its own behind, and landed them again.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

from loaders.warehouse import Warehouse


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetter:
    """An object that could not be stored. `payload` is its text where there is one."""

    dead_letter_id: str
    source_system: str
    connection_name: str
    object_type: str
    external_id: str | None
    reason: str
    attempts: int
    correlation_id: str
    created_at: dt.datetime
    payload: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What may be shown: everything but the payload, which is content."""
        hidden = ("dead_letter_id", "payload")
        return {name: getattr(self, name) for name in _COLUMNS if name not in hidden}


_AT_ONCE = 2_000
_COLUMNS = [field.name for field in dataclasses.fields(DeadLetter)]


def open_letters(
    warehouse: Warehouse,
    source_system: str | None = None,
    connection_name: str | None = None,
    *,
    limit: int | None = None,
    with_payload: bool = False,
) -> list[DeadLetter]:
    """Letters that are not settled, newest first; of all connections, or of one."""
    columns = _COLUMNS if with_payload else _COLUMNS[:-1]
    of_connection = (source_system, connection_name) if source_system else ()
    rows = warehouse.execute(
        f"select {', '.join(f'letter.{name}' for name in columns)}"
        f" {_open(warehouse, bool(of_connection))} order by letter.created_at desc"
        + ("" if limit is None else f" limit {limit:d}"),
        of_connection,
    )
    return [DeadLetter(*row) for row in rows]


def forget(warehouse: Warehouse, letter_ids: Sequence[str]) -> None:
    """Delete letters that a run has dealt with, and older ones about the same objects.

    Their objects, or newer letters, are stored.
    """
    letters = warehouse.staging_table("dead_letters")
    for start in range(0, len(letter_ids), _AT_ONCE):
        some = letter_ids[start : start + _AT_ONCE]
        warehouse.execute(
            f"delete from {letters} as letter where exists ("
            f"select 1 from {letters} as settled"
            f" where settled.dead_letter_id in ({', '.join('?' * len(some))})"
            " and settled.source_system = letter.source_system"
            " and settled.connection_name = letter.connection_name"
            " and settled.object_type = letter.object_type"
            " and settled.created_at >= letter.created_at"
            " and (settled.dead_letter_id = letter.dead_letter_id"
            " or settled.external_id = letter.external_id))",
            some,
        )


def _open(warehouse: Warehouse, of_connection: bool) -> str:
    condition = " and source_system = ? and connection_name = ?" if of_connection else ""
    return (
        "from (select *, row_number() over ("
        "partition by source_system, connection_name, object_type,"
        " coalesce(external_id, dead_letter_id)"
        " order by created_at desc, dead_letter_id) as age"
        f" from {warehouse.staging_table('dead_letters')}"
        f" where {_complete(warehouse)}{condition}) as letter"
        f" left join {warehouse.table('raw_objects')} as stored"
        " on stored.source_system = letter.source_system"
        " and stored.connection_name = letter.connection_name"
        " and stored.object_type = letter.object_type"
        " and stored.external_id = letter.external_id"
        " and stored.last_seen >= letter.created_at and stored.deleted_at is null"
        " where letter.age = 1 and stored.idem_key is null"
    )


def _complete(warehouse: Warehouse) -> str:
    loads = warehouse.staging_table("_dlt_loads")
    return f"_dlt_load_id in (select load_id from {loads} where status = 0)"
