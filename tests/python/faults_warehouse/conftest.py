"""What these tests have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loaders.ingestion.landing import Landing
from loaders.jobs import crashpoints
from loaders.jobs.event_log import spool_dir
from loaders.objects.items import Cursor, Item, ObservationClock, Observed
from loaders.settings.places import state_dir
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from tests.python.conftest import (
    Run,
    at,
    events,
)

LANDED = ["job.started", "ingestion.completed", "job.failed"]


REFUSED = ["job.started", "ingestion.failed", "job.failed"]


ENDED_WELL = ["job.started", "ingestion.completed", "job.completed"]


AtPoint = Callable[[str, Callable[[], object]], None]


@pytest.fixture
def at_point() -> Iterator[AtPoint]:
    """Do something once when a run reaches a point."""

    def install(point: str, action: Callable[[], object]) -> None:
        def hook(name: str) -> None:
            if name == point:
                crashpoints.install(None)
                action()

        crashpoints.install(hook)

    yield install
    crashpoints.install(None)


def widgets(*numbers: int) -> list[Item]:
    """Objects and the cursor that covers them."""
    items: list[Item] = [Observed("widget", f'{{"id": "w{n}"}}', at(n), f"w{n}") for n in numbers]
    return [*items, Cursor("widgets", {"last": max(numbers)}, at(max(numbers)))]


def cursor(warehouse: Warehouse, connection_name: str = "acct1") -> object:
    """The newest one, whether or not the log knows its run."""
    rows = warehouse.execute(
        "select cursor from events_staging.cursors where stream = 'widgets'"
        f" and connection_name = ? and {warehouse.is_complete()}"
        " order by observed_at desc limit 1",
        (connection_name,),
    )
    return json.loads(rows[0][0]) if rows else None


def failed_payload(warehouse: Warehouse, run: Run) -> dict[str, Any]:
    payload: dict[str, Any] = events(warehouse, run.correlation_id)[-1]["payload"]
    return payload


def spooled(warehouse: Warehouse) -> list[str]:
    return sorted(path.name for path in spool_dir(warehouse).glob("*"))


def landed(warehouse: Warehouse, connection_name: str = "acct1") -> set[str]:
    """Ids that complete loads hold."""
    return {
        external_id
        for (external_id,) in warehouse.execute(
            "select external_id from events_staging.landed_objects where connection_name = ?"
            " and _dlt_load_id in (select load_id from events_staging._dlt_loads)",
            (connection_name,),
        )
    }


def new_landing(warehouse: Warehouse, connection_name: str = "acct1") -> Landing:
    return Landing(
        warehouse,
        source_system="acme",
        connection_name=connection_name,
        correlation_id="run",
        idem_key_of=lambda item, payload: f"acme:{connection_name}:widget:{payload['id']}",
    )


def go_on(warehouse: Warehouse, landing: Landing, connection_name: str = "acct1") -> None:
    position = Stored(warehouse, "acme", connection_name).position
    landing.go_on_from(position, ObservationClock(), at(0))


def land(warehouse: Warehouse, number: int) -> None:
    """Land one object and its cursor."""
    package = new_landing(warehouse)
    package.load_pending()
    go_on(warehouse, package)
    for item in widgets(number):
        if isinstance(item, Observed):
            package.observe(item)
        elif isinstance(item, Cursor):
            package.advance(item)
    package.flush()


def die(*_: object, **__: object) -> None:
    raise SystemExit("killed here")


def working_dir(warehouse: Warehouse) -> Path:
    [pipeline] = state_dir().glob(f"pipelines/{warehouse.target.key}/acme-acct1/landfall")
    return pipeline
