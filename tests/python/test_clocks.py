"""Clocks that were ahead: what they wrote is listed, hides nothing, and holds nobody up."""

from __future__ import annotations

import datetime as dt
import io
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import duckdb
import pytest

from loaders.cli import check
from loaders.errors import WarehouseBusy
from loaders.ingestion.batch_size import FIRST, choose
from loaders.jobs.event_log import JOB_RUN, log_event, spool_dir
from loaders.jobs.job import Job
from loaders.jobs.processes import host_identity
from loaders.jobs.runs import ORPHANED
from loaders.monitoring import health
from loaders.monitoring.alerts import watch
from loaders.settings.connection import Connection
from loaders.transform import views
from loaders.warehouse.base import Warehouse

from .cli.conftest import one_line, run_main
from .conftest import Project, event_types, events, prepared, run_scripted
from .monitoring.conftest import DAY, HOUR, HOURLY, Log
from .monitoring.test_views import states_of
from .replay import Recorded, violations

pytestmark = pytest.mark.usefixtures("stays_open")

TWO_HOURS, TEN_YEARS = dt.timedelta(hours=2), dt.timedelta(days=3_650)
RUN = "acme_ingest_acct1-ahead"


@pytest.fixture
def monitored(project: Project) -> Warehouse:
    return prepared(project, "monitored", views.ensure_views)


@pytest.fixture
def log() -> Log:
    return Log()


def left_open(
    warehouse: Warehouse,
    ahead: dt.timedelta = dt.timedelta(),
    host: Mapping[str, Any] | None = None,
    pid: int | None = None,
    *event_types: str,
) -> None:
    """A run without an end, its events so far ahead."""
    began = dt.datetime.now(dt.UTC) + ahead
    payload = {
        **{"job_name": "acme_ingest_acct1", "package_name": "landfall", "parameters": {}},
        **{"timeout_seconds": 3900, "host": host, "pid": pid},
    }
    for number, event_type in enumerate(("job.started", *event_types)):
        log_event(
            warehouse,
            event_type,
            source_system="acme",
            connection_name="acct1",
            object_type=None if number else JOB_RUN,
            correlation_id=RUN,
            error_message="acme: cut off" if number else None,
            payload={"duration_seconds": 1, "step": "extract"} if number else payload,
            created_at=began + dt.timedelta(seconds=number),
        )


def gone() -> dict[str, Any]:
    """Where a process ran that is no more."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return {"host": host_identity(), "pid": ended.pid}


@pytest.mark.parametrize("more", [(), ("ingestion.failed",)], ids=["start", "ingestion"])
def test_a_killed_run_of_a_clock_ahead_fails_no_other(
    warehouse: Warehouse, core_build: None, more: tuple[str, ...]
) -> None:
    process = gone()
    left_open(warehouse, TWO_HOURS, process["host"], process["pid"], *more)
    run = run_scripted(warehouse, [])
    assert run.error is None
    *before, end = events(warehouse, RUN)
    assert end["payload"]["error_type"] == ORPHANED
    assert end["created_at"] == before[-1]["created_at"] + dt.timedelta(microseconds=1)


def test_an_event_of_the_far_future_is_found_until_it_is_excused(
    warehouse: Warehouse, recorded: Recorded
) -> None:
    left_open(warehouse, TEN_YEARS)
    statements = recorded[False].of_run("any", None)

    with duckdb.connect(str(warehouse.target.path)) as connection:
        for statement in (*statements.queue, *statements.seed):
            connection.execute(statement)
        assert set(violations(connection, statements)) == {"assert_timestamps"}
        connection.execute(
            "insert into events.accepted_violations by name"
            " select 'assert_timestamps' as test, ? as correlation_id",
            [RUN],
        )
        assert set(violations(connection, statements)) == set()


@pytest.mark.parametrize("ahead", [TWO_HOURS, TEN_YEARS], ids=["hours", "years"])
@pytest.mark.parametrize("began_ahead", [True, False], ids=["whole run", "its end"])
def test_what_a_clock_ahead_completed_hides_no_failure(
    monitored: Warehouse,
    log: Log,
    capsys: pytest.CaptureFixture[str],
    ahead: dt.timedelta,
    began_ahead: bool,
) -> None:
    log.completed("me", HOURLY)
    later = -ahead.total_seconds()
    if began_ahead:
        future = log.run("me", later, "completed", ingestion={})
    else:
        future = log.run("me", 0.7 * HOUR, "completed", seconds=ahead.total_seconds())
    failed = log.run("me", 0.2 * HOUR, "SourceError")
    log.write(monitored)
    assert states_of(monitored)["me"] == ("failing", "the last run failed: acme: SourceError")
    code, out, _ = run_main(capsys, "status", "--limit", "1")
    assert code == 1
    assert failed in out
    if began_ahead:
        assert future in out  # listed, beside the newest
        assert [run.correlation_id for run in health.last_runs(monitored, 1)] == [failed]
        found = check._last_run(monitored, Connection("acme", "me"))
        assert found.endswith("failed, see run.py status")


def test_what_a_clock_ahead_completed_ends_no_incident(monitored: Warehouse, log: Log) -> None:
    log.run("me", -DAY, "completed")
    log.completed("me", [HOUR])
    log.write(monitored)
    [completed_at] = watch._completed_runs(monitored).values()
    assert completed_at < log.now


def test_what_a_clock_ahead_taught_does_not_last(monitored: Warehouse, log: Log) -> None:
    log.run("me", -DAY, "completed", ingestion={"batch": {"mode": "auto", "last": 7}})
    log.write(monitored)
    assert choose(monitored, "acme", "me").size == FIRST


# ---- run.py close


def test_a_run_that_holds_its_connection_can_be_closed(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container's, of which this machine can know nothing."""
    elsewhere = {**host_identity(), "name": "box-1", "boot_id": "another"}
    left_open(warehouse, TEN_YEARS, elsewhere, 7, "ingestion.failed")
    job = Job(warehouse, job_name="next", source_system="acme", connection_name="acct1")
    with pytest.raises(WarehouseBusy, match=f"run.py close {RUN}"):
        job.start()
    code, out, err = run_main(capsys, "close", RUN, "--yes")
    assert code == 0, err
    for told in (RUN, "began:", "last event:  ingestion.failed", "7 on box-1", "nothing is known"):
        assert told in out
    end = events(warehouse, RUN)[-1]
    assert end["event_type"] == "job.failed"
    assert end["payload"]["error_type"] == ORPHANED
    assert end["error_message"].endswith("closed by hand (run.py close)")
    job.start()
    code, _, err = run_main(capsys, "close", RUN, "--yes")
    assert code == 2
    assert "has ended (job.failed, job.started)" in one_line(err)


@pytest.mark.parametrize(("answer", "closed"), [("y", True), ("", False), ("no", False)])
def test_who_closes_a_run_is_asked(
    warehouse: Warehouse,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    closed: bool,
) -> None:
    left_open(warehouse)
    code, _, err = run_main(capsys, "close", RUN)
    assert code == 2
    assert "expected --yes" in one_line(err)
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert run_main(capsys, "close", RUN)[0] == int(not closed)
    assert event_types(warehouse, RUN) == ["job.started", *(["job.failed"] if closed else [])]


def test_a_run_that_is_alive_or_unknown_is_not_closed(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    Job(warehouse, job_name="next", source_system="acme", connection_name="acct1").start()
    [started] = events(warehouse)
    code, _, err = run_main(capsys, "close", started["correlation_id"], "--yes")
    assert code == 2
    assert f"kill {started['payload']['pid']}" in one_line(err)
    code, _, err = run_main(capsys, "close", "another", "--yes")
    assert code == 2
    assert "is not in the log" in one_line(err)
    assert event_types(warehouse) == ["job.started"]


def test_an_end_that_waits_in_the_spool_is_found_before_a_run_is_closed(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(warehouse, job_name="next", source_system="acme", connection_name="acct1")
    job.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(warehouse, "insert_event", lambda _event: 1 / 0)
        job.complete({})
    capsys.readouterr()
    code, _, err = run_main(capsys, "close", job.correlation_id, "--yes")
    assert code == 2
    assert "has ended (job.completed, job.started)" in one_line(err)
    assert list(spool_dir(warehouse).glob("*.json")) == []
