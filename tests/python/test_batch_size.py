"""How many objects a load package gets, and that runs learn it from each other."""

from __future__ import annotations

from typing import Any

import pytest

from loaders.errors import ConfigError, LandingError
from loaders.ingestion import batch_size
from loaders.ingestion.batch_size import (
    CHEAP_SECONDS,
    FIRST,
    LARGEST,
    OVERTIME_SECONDS,
    SMALLEST,
    BatchSize,
)
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.ingestion.packages import PackageLoader
from loaders.jobs.event_log import log_event
from loaders.objects.items import Item, Observed
from loaders.warehouse.base import Warehouse

from .conftest import Run, ScriptedSource, at, events, on_both_targets, run_ingestion

pytestmark = pytest.mark.usefixtures("stays_open")

CHEAP, DEAR, BETWEEN = CHEAP_SECONDS / 2, OVERTIME_SECONDS * 2, CHEAP_SECONDS * 2


@pytest.mark.parametrize(
    ("size", "objects", "seconds", "expected"),
    [
        pytest.param(1_000, 1_000, CHEAP, 2_000, id="full and cheap"),
        pytest.param(1_000, 3, CHEAP, 1_000, id="cheap as it was not full"),
        pytest.param(1_000, 1_000, BETWEEN, 1_000, id="full, neither cheap nor dear"),
        pytest.param(1_000, 700, DEAR, 500, id="overtime"),
        pytest.param(LARGEST, LARGEST, CHEAP, LARGEST, id="no larger than the largest"),
        pytest.param(SMALLEST, SMALLEST, DEAR, SMALLEST, id="no smaller than the smallest"),
    ],
)
def test_a_package_teaches_how_large_the_next_is(
    size: int, objects: int, seconds: float, expected: int
) -> None:
    chosen = BatchSize(size, "given")
    chosen.note(objects, seconds)
    assert chosen.size == expected
    told = chosen.telemetry()
    assert (told["first"], told["last"]) == (size, expected)
    assert (told["reason"] == "given") == (size == expected)


def test_a_size_that_was_asked_for_stays() -> None:
    chosen = batch_size.fixed(7)
    for seconds in (CHEAP, DEAR):
        chosen.note(7, seconds)
    assert chosen.size == 7
    assert not chosen.is_overtime(DEAR)
    assert chosen.telemetry()["mode"] == "fixed"


def run_widgets(warehouse: Warehouse, number: int, **options: Any) -> Run:
    items: list[Item] = [
        Observed("widget", f'{{"id": "w{index}"}}', at(index)) for index in range(number)
    ]
    return run_ingestion(
        Ingestion(
            warehouse,
            lambda: ScriptedSource(items),
            source_system="acme",
            connection_name="acct1",
            options=IngestOptions(**options),
        )
    )


@pytest.mark.usefixtures("merge_only")
def test_each_run_goes_on_where_the_last_one_was(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_size, "FIRST", 2)
    monkeypatch.setattr(batch_size, "SMALLEST", 1)
    first = run_widgets(warehouse, 7)
    assert first.telemetry["chunks"] == 3  # of 2, 4 and what is left
    told = first.telemetry["batch"]
    assert (told["mode"], told["first"], told["last"], told["largest"]) == ("auto", 2, 8, 4)
    assert told["reason"].startswith("doubled: 4 objects took ")

    with monkeypatch.context() as patched:
        patched.setattr(PackageLoader, "_load_whole", hang_up)
        failed = run_widgets(warehouse, 3)
    assert isinstance(failed.error, LandingError)
    [event] = [
        event
        for event in events(warehouse, failed.correlation_id)
        if event["event_type"] == "ingestion.failed"
    ]
    assert (event["payload"]["step"], event["payload"]["batch"]["first"]) == ("land", 8)

    third = run_widgets(warehouse, 5)
    told = third.telemetry["batch"]
    assert (told["first"], told["largest"]) == (4, 4)
    # What somebody asked for teaches nothing.
    assert run_widgets(warehouse, 5, batch_size=3).telemetry["batch"]["last"] == 3
    assert run_widgets(warehouse, 1).telemetry["batch"]["first"] == told["last"]


def end(warehouse: Warehouse, correlation_id: str, error_type: str, **fields: Any) -> None:
    log_event(
        warehouse,
        "job.failed",
        correlation_id=correlation_id,
        error_message="it ended",
        payload={"job_name": "acme_ingest_acct1", "error_type": error_type},
        **{"source_system": "acme", "connection_name": "acct1", **fields},
    )


@on_both_targets
def test_a_run_that_did_not_end_by_itself_halves_what_the_next_begins_with(
    warehouse: Warehouse,
) -> None:
    """Memory that ran out, or a timeout, leaves no event of the ingestion."""
    batch = {"batch": {"mode": "auto", "last": 8_000}, "step": "land"}
    names: dict[str, Any] = {
        "source_system": "acme",
        "connection_name": "acct1",
        "correlation_id": "run-1",
    }
    log_event(warehouse, "ingestion.completed", payload=batch, **names)
    end(warehouse, "run-1", "Orphaned")  # killed when all was landed
    end(warehouse, "run-2", "Interrupted")
    end(warehouse, "run-3", "TimedOut", connection_name="acct2")
    assert batch_size.choose(warehouse, "acme", "acct1").size == 8_000
    end(warehouse, "run-4", "Orphaned")
    end(warehouse, "run-5", "TimedOut")
    chosen = batch_size.choose(warehouse, "acme", "acct1")
    assert chosen.size == 2_000
    assert chosen.telemetry()["reason"] == "halved: 2 run(s) since did not end by themselves"
    log_event(warehouse, "ingestion.completed", payload=batch, **{**names, "correlation_id": "6"})
    assert batch_size.choose(warehouse, "acme", "acct1").size == 8_000


def test_a_first_run_that_was_killed_begins_with_less(warehouse: Warehouse) -> None:
    end(warehouse, "run-1", "Orphaned")
    assert batch_size.choose(warehouse, "acme", "acct1").size == FIRST // 2


@pytest.mark.usefixtures("merge_only")
def test_the_last_package_teaches_by_how_long_it_loads(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_widgets(warehouse, 1).telemetry["batch"]["last"] == FIRST
    load = PackageLoader.load

    def load_slowly(*arguments: Any) -> Any:
        # While it loads, so that nothing before counts as slow.
        monkeypatch.setattr(batch_size, "OVERTIME_SECONDS", 0.0)
        return load(*arguments)

    monkeypatch.setattr(PackageLoader, "load", load_slowly)
    told = run_widgets(warehouse, 2).telemetry["batch"]
    assert told["last"] == FIRST // 2
    assert told["reason"].startswith("halved: 2 objects took ")
    assert told["reason"].endswith(" to load")


@pytest.mark.usefixtures("merge_only")
def test_a_slow_source_does_not_fill_its_packages(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_size, "OVERTIME_SECONDS", 0.0)
    told = run_widgets(warehouse, 3).telemetry
    assert told["chunks"] == 3
    assert told["batch"]["largest"] == 1
    # For each of them, and for the last one's loading.
    assert told["batch"]["last"] == FIRST // 16


@pytest.mark.slow
@on_both_targets
def test_what_was_learned_is_read_from_either_warehouse(warehouse: Warehouse) -> None:
    assert batch_size.choose(warehouse, "acme", "acct1").size == FIRST
    told = run_widgets(warehouse, 1).telemetry["batch"]
    chosen = batch_size.choose(warehouse, "acme", "acct1").telemetry()
    assert (chosen["first"], chosen["reason"]) == (told["last"], "as the last run left it")


def hang_up(*_: Any) -> None:
    raise ConnectionError("the warehouse hung up")


def test_a_source_that_does_not_open_unlearns_nothing(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_size, "choose", lambda *_: BatchSize(400, "learned"))
    run_widgets(warehouse, 1)
    monkeypatch.undo()

    def refuse() -> ScriptedSource:
        raise ConfigError("acme: no key")

    failed = run_ingestion(
        Ingestion(
            warehouse,
            refuse,
            source_system="acme",
            connection_name="acct1",
            options=IngestOptions(),
        )
    )
    assert isinstance(failed.error, ConfigError)
    assert batch_size.choose(warehouse, "acme", "acct1").size == 400
