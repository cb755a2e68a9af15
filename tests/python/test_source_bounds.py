"""Whatever a source does, a run keeps its bounds and ends when it is told to."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from loaders.errors import Cancelled
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.objects.items import Cursor, Item, Listed, Observed
from loaders.sources.bounds import Bounds
from loaders.sources.contract import FetchRequest
from loaders.warehouse.base import Warehouse

from .conftest import ScriptedSource, assert_accounted, at, event_types, run_ingestion, stored

pytestmark = pytest.mark.usefixtures("core_build")


@pytest.mark.parametrize(
    ("bounds", "landed"),
    [({"max_objects": 3}, 3), ({"max_duration": -1.0}, 1), ({"max_objects": 100}, 7), ({}, 7)],
)
def test_a_source_that_keeps_no_bounds_is_cut_off(
    warehouse: Warehouse, bounds: dict[str, Any], landed: int
) -> None:
    items: list[Item] = [
        Observed("ticket", json.dumps({"id": str(number)}), at(number)) for number in range(7)
    ]
    items.append(Cursor("tickets", {"done": True}, at(10)))
    ingestion = Ingestion(
        warehouse,
        lambda: ScriptedSource(items),
        source_system="acme",
        connection_name="acct1",
        options=IngestOptions(**bounds),
    )
    telemetry = run_ingestion(ingestion).telemetry
    assert_accounted(telemetry)
    assert (telemetry["records_landed"], telemetry["has_more"]) == (landed, landed < 7)
    cursors = warehouse.execute(
        f"select count(*) from {warehouse.staging_table('cursors')} where stream = 'tickets'"
    )
    assert cursors == [(int(landed == 7),)]
    assert len(stored(warehouse)) == landed


def test_a_source_that_minds_no_cancellation_is_stopped(warehouse: Warehouse) -> None:
    class Endless(ScriptedSource):
        """Goes on whatever is asked of it."""

        def fetch(self, request: FetchRequest) -> Iterator[Item]:
            for number in itertools.count():
                yield Listed(1)
                yield Observed("ticket", json.dumps({"id": str(number)}), at(number))
                request.cancelled.set()

    ingestion = Ingestion(
        warehouse,
        lambda: Endless([]),
        source_system="acme",
        connection_name="acct1",
        options=IngestOptions(),
    )
    with pytest.raises(Cancelled):
        ingestion.run()
    assert event_types(warehouse)[-1] == "job.failed"


def test_bounds_are_taken_given_back_and_the_first_is_always_granted() -> None:
    assert Bounds().take(100) == 100
    bounds = Bounds(5)
    assert [bounds.take(3), bounds.take(3), bounds.take(1)] == [3, 2, 0]
    bounds.give_back(1)
    assert (bounds.take(3), bounds.is_over) == (1, True)
    bounds.give_back(-3)  # a page that was longer than asked for
    assert (bounds.take(1), bounds.is_used_up) == (0, True)
    late = Bounds(5, lambda: True)
    assert [late.take(2), late.take(2)] == [2, 0]
    assert Bounds(5).take(9) == 5
    whole = Bounds(5)
    assert [whole.take(9, whole=True), whole.take(1, whole=True)] == [9, 0]
