"""What a run knows of its MERGE: the months that it reads, and that it is right all the same."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.objects.items import Cursor, Deleted, Item, ObservationClock, Observed
from loaders.transform.merge_scope import NOT_AS_LANDED
from loaders.warehouse.base import Warehouse
from loaders.warehouse.bigquery import BigQueryWarehouse
from tests.peers.emulator import Emulator
from tests.python.conftest import Run, ScriptedSource, run_ingestion

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("merge_only"), pytest.mark.timeout(600)]

MARCH, MAY, JULY = (dt.datetime(2024, month, 10, tzinfo=dt.UTC) for month in (3, 5, 7))
CLOCK = ObservationClock(None)
NUMBERS = itertools.count()


class Dated(ScriptedSource):
    """Widgets that say when they were created."""

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        return dt.datetime.fromisoformat(payload["created"]) if "created" in payload else None


def widget(name: str, created: dt.datetime | None, amount: int = 1) -> Observed:
    value = {"id": name, "amount": amount}
    if created is not None:
        value["created"] = created.isoformat()
    return Observed("widget", json.dumps(value), CLOCK.now(), name)


def run(warehouse: Warehouse, *items: Item) -> Run:
    """One run of a source."""
    moved = Cursor("s", {"at": CLOCK.now().isoformat()}, CLOCK.now())
    ingestion = Ingestion(
        warehouse,
        lambda: Dated([*items, moved]),
        source_system="acme",
        connection_name="acct1",
        options=IngestOptions(),
    )
    return run_ingestion(ingestion)


@pytest.fixture
def warehouse(own_datasets: Callable[[str], BigQueryWarehouse]) -> BigQueryWarehouse:
    """An empty one for each test."""
    return own_datasets(f"scoped_{next(NUMBERS)}")


@pytest.fixture
def merges(emulator: Emulator, warehouse: BigQueryWarehouse) -> Callable[[], list[str]]:
    """The MERGEs sent since the last call."""
    seen, begin = 0, f"merge into {warehouse.table('raw_objects')}"

    def take() -> list[str]:
        nonlocal seen
        sent = [job["query"].get("query", "") for job in emulator.jobs()]
        found = [query for query in sent if begin in query]
        fresh, seen = found[seen:], len(found)
        return fresh

    return take


def stored(warehouse: Warehouse) -> dict[str, tuple[int | None, str, bool]]:
    """Month, amount and whether it is deleted, of each widget; one row each."""
    rows = warehouse.execute(
        "select external_id, extract(month from object_created_at),"
        " json_value(payload, '$.amount'), deleted_at is not null"
        f" from {warehouse.table('raw_objects')}"
    )
    found = {name: (month, amount, gone) for name, month, amount, gone in rows}
    assert len(found) == len(rows)
    return found


def plant(warehouse: Warehouse, *names: str, created_at: str) -> None:
    """Objects get another time of creation, as a release of other rules would have left them."""
    of = ", ".join(f"'{name}'" for name in names)
    warehouse.execute(
        f"update {warehouse.table('raw_objects')} set object_created_at = {created_at}"
        f" where external_id in ({of})"
    )


def test_the_months_are_those_of_what_was_landed(
    warehouse: BigQueryWarehouse, merges: Callable[[], list[str]]
) -> None:
    first = run(warehouse, widget("a", MARCH), widget("b", MAY), widget("c", None))
    assert first.counts["inserted"] == 3
    [merge] = merges()
    assert "when matched" not in merge
    assert NOT_AS_LANDED in merge

    second = run(warehouse, widget("a", MARCH, 2), widget("d", MARCH))
    assert (second.counts["inserted"], second.counts["updated"]) == (1, 1)
    [merge] = merges()
    assert "when matched" in merge
    assert "2024-03-01" in merge
    assert "2024-05-01" not in merge

    new = dt.datetime.now(dt.UTC)
    third = run(warehouse, widget("e", new))
    assert third.counts["inserted"] == 1
    [merge] = merges()
    assert "when matched" not in merge

    # A tombstone tells no time, nor does what has none.
    fourth = run(warehouse, Deleted("widget", "b", CLOCK.now()), widget("c", None, 2))
    assert (fourth.counts["deleted"], fourth.counts["updated"]) == (1, 1)
    [merge] = merges()
    assert "2024-05-01" in merge
    assert "2024-03-01" not in merge
    assert {each.error for each in (first, second, third, fourth)} == {None}
    assert stored(warehouse) == {
        "a": (3, "2", False),
        "b": (5, "1", True),
        "c": (None, "2", False),
        "d": (3, "1", False),
        "e": (new.month, "1", False),
    }


@pytest.mark.parametrize("created_at", ["timestamp '2024-07-10'", "null"])
def test_what_is_stored_otherwise_than_the_run_knows_is_merged_all_the_same(
    warehouse: BigQueryWarehouse, merges: Callable[[], list[str]], created_at: str
) -> None:
    assert run(warehouse, widget("a", MARCH), widget("b", MAY)).error is None
    plant(warehouse, "a", created_at=created_at)
    merges()
    again = run(warehouse, widget("a", MARCH, 2), widget("b", MAY))
    assert again.error is None
    assert again.counts == {"updated": 1, "unchanged": 1}
    # Of no time is a row that every MERGE looks at.
    assert len(merges()) == (2 if "2024" in created_at else 1)
    assert stored(warehouse)["a"][:2] == (7 if "2024" in created_at else 3, "2")


def test_what_is_stored_already_is_no_second_row_of_what_is_taken_for_new(
    warehouse: BigQueryWarehouse, merges: Callable[[], list[str]]
) -> None:
    assert run(warehouse, widget("a", MARCH)).error is None
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    assert run(warehouse, widget("b", later)).error is None
    merges()
    again = run(warehouse, widget("b", later, 2), widget("c", later))
    assert again.error is None
    assert (again.counts["updated"], again.counts["inserted"]) == (1, 1)
    assert len(merges()) == 2
    assert stored(warehouse)["b"][1] == "2"


def test_what_others_have_queued_is_looked_for(
    warehouse: BigQueryWarehouse, merges: Callable[[], list[str]]
) -> None:
    assert run(warehouse, widget("a", MARCH)).error is None
    queue = warehouse.staging_table("landed_objects")
    warehouse.execute(
        f"insert into {queue} (idem_key, external_id, source_system, connection_name, object_type,"
        " payload, payload_hash, object_created_at, observed_at, is_deleted, correlation_id,"
        " _dlt_load_id) select 'acme:acct1:widget:z', 'z', 'acme', 'acct1', 'widget', '{}', 'h',"
        " timestamp '2024-07-10', current_timestamp(), false, 'of nobody', max(load_id)"
        f" from {warehouse.staging_table('_dlt_loads')}"
    )
    merges()
    again = run(warehouse, widget("b", MAY))
    assert again.error is None
    [merge] = merges()
    assert NOT_AS_LANDED not in merge
    assert set(stored(warehouse)) == {"a", "b", "z"}
