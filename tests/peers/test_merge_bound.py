"""The bound of BigQuery's MERGE: what lies outside of its months is left for the next one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from loaders.objects.idem_keys import stripe_idem_key
from loaders.upsert import UpsertResult, upsert_objects
from loaders.warehouse.base import Warehouse
from loaders.warehouse.bigquery import BigQueryWarehouse
from tests.peers.emulator import Emulator

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("merge_only")]


def created_at(charge: Mapping[str, Any]) -> dt.datetime:
    return dt.datetime.fromtimestamp(charge["created"], dt.UTC)


def upsert(warehouse: Warehouse, *, amount: int, month: int, merge: bool = True) -> UpsertResult:
    """One charge; `month` counts those of 2024."""
    created = int(dt.datetime(2024, month, 10, tzinfo=dt.UTC).timestamp())
    return upsert_objects(
        [{"id": "ch_1", "amount": amount, "created": created}],
        source_system="stripe",
        connection_name="acct1",
        object_type="charge",
        idem_key_fn=stripe_idem_key("acct1", "charge"),
        created_at_fn=created_at,
        warehouse=warehouse,
        merge=merge,
    )


def stored(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return warehouse.execute(
        "select extract(month from object_created_at), json_value(payload, '$.amount')"
        f" from {warehouse.table('raw_objects')}"
    )


def queued(warehouse: Warehouse) -> int:
    [(count,)] = warehouse.execute(
        f"select count(*) from {warehouse.staging_table('landed_objects')}"
    )
    return int(count)


def test_an_object_that_moved_since_the_months_were_looked_up_stays_queued(
    emulator: Emulator, own_datasets: Callable[[str], BigQueryWarehouse]
) -> None:
    warehouse = own_datasets("bounded")
    # Of what somebody has queued before, a run knows no months: its MERGE looks them up.
    upsert(warehouse, amount=0, month=3, merge=False)
    upsert(warehouse, amount=1, month=3)
    [merge] = [
        job["query"].get("query", "")
        for job in emulator.jobs()
        if "merge into `landfall-dev`.`bounded`" in job["query"].get("query", "")
    ]
    # As if another job had stored it in another month after this MERGE looked its months up.
    warehouse.execute(
        f"update {warehouse.table('raw_objects')}"
        " set object_created_at = timestamp '2024-07-10' where true"
    )
    upsert(warehouse, amount=2, month=3, merge=False)
    warehouse.execute(merge)
    assert (stored(warehouse), queued(warehouse)) == ([(7, "1")], 1)
    # The next MERGE finds it where it is; when it was created is written once.
    upsert(warehouse, amount=3, month=3)
    assert (stored(warehouse), queued(warehouse)) == ([(7, "3")], 0)
