"""What these tests have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.sources.stripe.kinds import OBJECT_TYPES
from loaders.sources.stripe.position import Position
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from tests.python.conftest import (
    Run,
    assert_accounted,
)

CHARGES = 100


VOLATILE = ("receipt_url", "hosted_invoice_url", "invoice_pdf")


@pytest.fixture
def account() -> Iterator[Sandbox]:
    """An account of the test's own, to change."""
    with Sandbox(size=1, charges=CHARGES, seed=7) as sandbox:
        yield sandbox


def rows(warehouse: Warehouse, object_type: str) -> dict[str, dict[str, Any]]:
    """Rows of an object type by their external ids."""
    columns = ("external_id", "payload", "deleted_at", "object_created_at", "merged_by")
    return {
        row[0]: dict(zip(columns, row, strict=True))
        for row in warehouse.execute(
            f"select external_id, {warehouse.json_as_text('payload')}, deleted_at,"
            f" object_created_at, merged_by from {warehouse.table('raw_objects')}"
            " where source_system = 'stripe' and object_type = ?",
            (object_type,),
        )
    }


def live(warehouse: Warehouse, object_type: str) -> dict[str, Any]:
    """Payloads of live objects, without what changes on every read."""
    return {
        key: without_volatile(json.loads(row["payload"]))
        for key, row in rows(warehouse, object_type).items()
        if row["deleted_at"] is None
    }


def without_volatile(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in VOLATILE}


def there(sandbox: Sandbox, object_type: str) -> dict[str, Any]:
    objects = sandbox.stripe_objects(object_type)
    return {key: without_volatile(value) for key, value in objects.items()}


def assert_mirrors(
    warehouse: Warehouse, sandbox: Sandbox, object_types: tuple[str, ...] = tuple(OBJECT_TYPES)
) -> None:
    """Live rows are the account: the same objects, each as the API has it now."""
    for object_type in object_types:
        assert live(warehouse, object_type) == there(sandbox, object_type), object_type


def position(warehouse: Warehouse, kind: str) -> Position | None:
    return Position.read(Stored(warehouse, "stripe", "acct1").cursor(kind))


def completed(run: Run) -> Run:
    assert run.error is None, run.error
    assert_accounted(run.telemetry)
    return run
