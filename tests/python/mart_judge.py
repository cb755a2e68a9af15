"""Marts against payloads: what they hold, and what each column must."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loaders.warehouse.base import Warehouse

from .mart_columns import EPOCH, JSON_OF, MARTS, SEEN, Row


def store(
    warehouse: Warehouse,
    source_system: str,
    object_type: str,
    payloads: Iterable[tuple[str, Mapping[str, Any] | None]],
) -> None:
    """Put objects, by external id, into raw_objects as a MERGE leaves them; None is a tombstone."""
    for external_id, payload in payloads:
        created = (payload or {}).get("created")
        row: dict[str, Any] = {
            "idem_key": f"{source_system}:acct1:{object_type}:{external_id}",
            "source_system": source_system,
            "connection_name": "acct1",
            "object_type": object_type,
            "external_id": external_id,
            "payload_hash": "hash",
            "first_seen": SEEN,
            "last_seen": SEEN + dt.timedelta(hours=1),
            "changed_at": SEEN,
            "changed_by": "run",
            "merged_by": "run",
            "last_action": "inserted",
        }
        if created is not None:
            row["object_created_at"] = EPOCH + dt.timedelta(seconds=created)
        if payload is None:
            row["deleted_at"] = SEEN
        else:
            row["payload"] = json.dumps(payload)
        marks = [warehouse.json_parameter if name == "payload" else "?" for name in row]
        warehouse.execute(
            f"insert into {warehouse.table('raw_objects')} ({', '.join(row)})"
            f" values ({', '.join(marks)})",
            list(row.values()),
        )


def judge(warehouse: Warehouse) -> tuple[list[str], set[str]]:
    """Where marts and payloads differ, and `mart.column` of all that had a value somewhere."""
    wrong: list[str] = []
    valued: set[str] = set()
    for mart, (source_system, object_type, columns) in MARTS.items():
        objects = _objects(warehouse, source_system, object_type)
        rows = _rows(warehouse, mart, list(columns))
        if rows.keys() != objects.keys():
            wrong.append(f"{mart}: rows of {sorted(rows.keys() ^ objects.keys())}")
        for key, row in objects.items():
            for column, expected in columns.items():
                found, wanted = rows.get(key, {}).get(column), expected(row)
                if found is not None:
                    valued.add(f"{mart}.{column}")
                if found != wanted:
                    wrong.append(f"{mart}.{column} of {key}: {found!r}, not {wanted!r}")
    return wrong, valued


def _objects(warehouse: Warehouse, source_system: str, object_type: str) -> dict[str, Row]:
    """Rows of raw_objects by idem_key."""
    names = (
        "idem_key", "connection_name", "external_id", "object_created_at", "first_seen",
        "last_seen", "deleted_at",
    )  # fmt: skip
    selected = warehouse.execute(
        f"select {warehouse.json_as_text('payload')}, {', '.join(names)}"
        f" from {warehouse.table('raw_objects')} where source_system = ? and object_type = ?",
        (source_system, object_type),
    )
    # The text of JSON that is NULL is `null` on BigQuery.
    return {
        row[0]: {"payload": payload and json.loads(payload), **dict(zip(names, row, strict=True))}
        for payload, *row in selected
    }


def _rows(warehouse: Warehouse, mart: str, columns: Sequence[str]) -> dict[str, Row]:
    """Rows of a mart by idem_key."""
    selected = ", ".join(
        warehouse.json_as_text(JSON_OF[name]) if name in JSON_OF else name for name in columns
    )
    found: dict[str, Row] = {}
    for values in warehouse.execute(f"select {selected} from {warehouse.table(mart)}"):
        row = dict(zip(columns, values, strict=True))
        for name in JSON_OF.keys() & row.keys():
            row[name] = row[name] and json.loads(row[name])
        found[row["idem_key"]] = row
    return found
