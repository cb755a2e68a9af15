"""What these tests have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loaders.idem_keys import idem_key
from loaders.upsert import UpsertResult, upsert_objects
from loaders.warehouse.base import Warehouse
from tests.python.conftest import (
    count,
)

CANARY = "canary-content-31f7"


def widget_key(payload: Mapping[str, Any]) -> str:
    return idem_key("acme", "acct1", "widget", payload.get("id"))  # type: ignore[arg-type]


def upsert(warehouse: Warehouse, objects: Any, **options: Any) -> UpsertResult:
    arguments: dict[str, Any] = {
        "source_system": "acme",
        "connection_name": "acct1",
        "object_type": "widget",
        "idem_key_fn": widget_key,
        "warehouse": warehouse,
    }
    return upsert_objects(objects, **{**arguments, **options})


def widgets(number: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": f"w{index}", "size": index, **fields} for index in range(number)]


def loads(warehouse: Warehouse) -> int:
    return count(warehouse, "events_staging._dlt_loads")


def queued(warehouse: Warehouse) -> int:
    return count(warehouse, "events_staging.landed_objects")


def files_with(directory: Path, text: str) -> list[Path]:
    return [
        path
        for path in directory.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    ]
