"""Events on BigQuery: the job that inserts one has its id, so it is there exactly once."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from loaders.errors import WarehouseError
from loaders.warehouse.bigquery import BigQueryWarehouse

pytestmark = pytest.mark.slow


@pytest.fixture
def warehouse(own_datasets: Callable[[str], BigQueryWarehouse]) -> BigQueryWarehouse:
    """A dataset that holds an event log of the columns that these events have."""
    warehouse = own_datasets("event_jobs")
    warehouse.execute("create schema if not exists event_jobs")
    create_event_log(warehouse)
    return warehouse


def create_event_log(warehouse: BigQueryWarehouse) -> None:
    warehouse.execute(
        f"create or replace table {warehouse.table('event_log')}"
        " (event_id string, event_type string, created_at timestamp, payload json)"
    )


def new_event() -> dict[str, Any]:
    return {
        "event_id": str(uuid.uuid4()),
        "event_type": "job.started",
        "created_at": dt.datetime.now(dt.UTC).isoformat(),
        "payload": '{"pid": 1}',
    }


def event_ids(warehouse: BigQueryWarehouse) -> list[str]:
    rows = warehouse.execute(f"select event_id from {warehouse.table('event_log')}")
    return [event_id for (event_id,) in rows]


def test_an_event_that_is_inserted_again_is_there_once(warehouse: BigQueryWarehouse) -> None:
    event = new_event()
    for _ in range(3):
        warehouse.insert_event(event)
    assert event_ids(warehouse) == [event["event_id"]]


def test_an_event_whose_first_job_failed_is_not_lost(warehouse: BigQueryWarehouse) -> None:
    """A job keeps its id when it fails: the next insert must not take it for success."""
    event = new_event()
    warehouse.execute(f"drop table {warehouse.table('event_log')}")
    with pytest.raises(WarehouseError):
        warehouse.insert_event(event)
    create_event_log(warehouse)
    for _ in range(2):
        warehouse.insert_event(event)
    assert event_ids(warehouse) == [event["event_id"]]
