"""A warehouse that refuses, and events that wait."""

from __future__ import annotations

import pytest

from loaders.errors import TransientSourceError, WarehouseError
from loaders.jobs.event_log import EventNotKept, spool_dir
from loaders.jobs.runs import ORPHANED
from loaders.warehouse.base import Warehouse
from tests.python.conftest import (
    Project,
    Run,
    duckdb_only,
    event_types,
    run_scripted,
    stored,
)

from .conftest import ENDED_WELL, LANDED, AtPoint, cursor, failed_payload, spooled, widgets

pytestmark = [pytest.mark.usefixtures("core_build"), pytest.mark.slow]


@duckdb_only("a file")
@pytest.mark.parametrize("point", ["merge.before", "land.before_extract"])
def test_a_warehouse_file_that_is_gone_during_a_run_is_not_made_anew(
    warehouse: Warehouse,
    project: Project,
    at_point: AtPoint,
    point: str,
) -> None:
    """An empty file in its place would make the run complete, and everything be gone."""
    aside = project.directory / "aside.duckdb"
    at_point(point, lambda: project.duckdb_path.rename(aside))
    run = run_scripted(warehouse, widgets(0, 1, 2))
    assert isinstance(run.error, WarehouseError)
    assert run.error.retryable
    assert "put it back and run again" in str(run.error)
    assert not project.duckdb_path.exists()
    assert spooled(warehouse)
    aside.rename(project.duckdb_path)
    following = run_scripted(project.open_warehouse(), widgets(3))
    assert following.error is None
    assert set(stored(warehouse)) == {"w0", "w1", "w2", "w3"}
    assert event_types(warehouse, run.correlation_id) == LANDED
    assert failed_payload(warehouse, run)["error_type"] == "WarehouseError"
    assert spooled(warehouse) == []


def test_a_warehouse_that_is_lost_is_filled_again(warehouse: Warehouse, project: Project) -> None:
    """What this machine remembers of the former one is no reason to leave anything out."""
    assert run_scripted(warehouse, widgets(0, 1)).error is None
    project.duckdb_path.unlink()
    again = project.open_warehouse()
    run = run_scripted(again, widgets(0, 1))
    assert run.error is None
    assert run.counts == {"inserted": 2}
    assert cursor(again) == {"last": 1}


def test_an_end_that_the_warehouse_does_not_take_is_replayed(
    warehouse: Warehouse, at_point: AtPoint
) -> None:
    def away() -> None:
        warehouse.execute("alter table events.event_log rename to event_log_away")

    at_point("end.before_event", away)
    run = run_scripted(warehouse, widgets(0))
    assert run.error is None
    assert len(spooled(warehouse)) == 2  # with its start, which another warehouse would lack
    warehouse.execute("alter table events.event_log_away rename to event_log")
    assert run_scripted(warehouse, widgets(1)).error is None
    assert event_types(warehouse, run.correlation_id) == ENDED_WELL
    assert spooled(warehouse) == []


NOT_KEPT = {
    "job.started": "start.before_event",
    "ingestion.completed": "land.loaded",
    "job.completed": "end.before_event",
}


@pytest.mark.parametrize(("event_type", "point"), NOT_KEPT.items(), ids=NOT_KEPT.keys())
def test_an_event_that_nothing_takes_fails_the_run_in_one_line(
    warehouse: Warehouse,
    at_point: AtPoint,
    project: Project,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    event_type: str,
    point: str,
) -> None:
    """Neither the warehouse nor the spool: a run that cannot be believed has not completed."""
    full = project.directory / "full"
    full.write_text("no directory, so nothing can be spooled here")
    monkeypatch.setenv("LANDFALL_SPOOL_DIR", str(full))
    at_point(
        point, lambda: warehouse.execute("alter table events.event_log rename to event_log_away")
    )
    run = run_scripted(warehouse, widgets(0))
    assert isinstance(run.error, EventNotKept)
    assert str(run.error).startswith(f"{event_type}: neither the warehouse nor the spool takes")
    assert run.error.retryable
    assert any(f'"event_type": "{event_type}"' in line for line in caplog.messages)

    monkeypatch.delenv("LANDFALL_SPOOL_DIR")
    warehouse.execute("alter table events.event_log_away rename to event_log")
    end_process_of(warehouse, run)
    assert run_scripted(warehouse, widgets(0)).error is None
    assert set(stored(warehouse)) == {"w0"}
    assert cursor(warehouse) == {"last": 0}
    if event_type != "job.started":
        assert failed_payload(warehouse, run)["error_type"] == ORPHANED


def end_process_of(warehouse: Warehouse, run: Run) -> None:
    """Make the log say of a run of this process that it was of one that is no more."""
    warehouse.execute(
        """update events.event_log set payload = json_merge_patch(payload,
        '{"host": {"process_start": "1"}}')
        where event_type = 'job.started' and correlation_id = ?""",
        (run.correlation_id,),
    )


def test_a_failure_is_what_a_run_ends_with_where_no_event_is_taken(
    warehouse: Warehouse, at_point: AtPoint, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        warehouse.execute("alter table events.event_log rename to event_log_away")
        spool_dir(warehouse).parent.mkdir(parents=True)
        spool_dir(warehouse).write_text("no directory")
        raise TransientSourceError("acme: the API is down; run again later")

    at_point("extract.first_object", fail)
    run = run_scripted(warehouse, widgets(0))
    assert isinstance(run.error, TransientSourceError)
    assert sum("neither the warehouse nor the spool" in line for line in caplog.messages) == 2
