"""One run of a connection at a time, and a run that was taken for dead."""

from __future__ import annotations

import datetime as dt
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import WarehouseBusy
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.jobs import runs
from loaders.jobs.event_log import spool_dir
from loaders.jobs.job import Job, LeaseLost
from loaders.jobs.runs import open_runs
from loaders.monitoring import health
from loaders.objects.items import Cursor, Observed
from loaders.settings.places import PACKAGE_NAME
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from tests.python.conftest import (
    Project,
    at,
    event_types,
    events,
    on_both_targets,
    position,
    run_gmail,
    run_ingestion,
    run_scripted,
    stored,
)

from .conftest import InterruptedSource, connect, new_job, once, run_process, started_job


@pytest.mark.parametrize(
    "options", [IngestOptions(), IngestOptions(retry=True)], ids=["run", "retry"]
)
def test_a_connection_in_use_is_exit_75_and_leaves_no_trace(
    warehouse: Warehouse, sandbox: Sandbox, options: IngestOptions
) -> None:
    job = started_job(warehouse)
    run = run_gmail(warehouse, sandbox, options)
    assert isinstance(run.error, WarehouseBusy)
    assert run.error.exit_code == 75
    assert job.correlation_id in str(run.error)
    assert "--lock-wait" in str(run.error)
    assert event_types(warehouse) == ["job.started"]
    assert not sandbox.stats()["requests"]


def test_the_end_of_a_run_lets_the_next_one_begin(
    project: Project, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    first = started_job(warehouse)
    second = new_job(project.open_warehouse(lock_wait=60.0))
    waits = threading.Event()

    class Notice(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if first.correlation_id in record.getMessage():
                waits.set()

    logger = logging.getLogger("loaders.jobs.job")
    handler = Notice()
    with caplog.at_level(logging.INFO, "loaders.jobs.job"):
        logger.addHandler(handler)
        try:
            thread = threading.Thread(target=second.start)
            thread.start()
            assert waits.wait(30.0)
            assert event_types(warehouse, second.correlation_id) == []
            first.complete({})
            thread.join(30.0)
        finally:
            logger.removeHandler(handler)
    assert event_types(warehouse, second.correlation_id) == ["job.started"]


@on_both_targets
def test_of_two_that_start_at_the_same_moment_one_goes_on(warehouse: Warehouse) -> None:
    """As on BigQuery, where no file keeps them apart: each looks before the other writes."""
    first, second = new_job(warehouse), new_job(warehouse)
    with once("start.before_event", first.start), pytest.raises(WarehouseBusy):
        second.start()
    assert event_types(warehouse, first.correlation_id) == ["job.started"]
    assert event_types(warehouse, second.correlation_id) == ["job.started", "job.failed"]
    first.complete({})
    started_job(warehouse)


def test_the_earlier_of_two_waits_for_the_later(
    project: Project, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't know whether the later looked before its row was there, and works."""
    earlier, later = new_job(project.open_warehouse(lock_wait=60.0)), new_job(warehouse)
    insert = earlier.warehouse.insert_event

    def insert_later_first(event: Any) -> None:
        monkeypatch.setattr(earlier.warehouse, "insert_event", insert)
        later.start()
        insert(event)

    def wait(_seconds: float) -> None:
        assert event_types(warehouse, earlier.correlation_id) == ["job.started"]
        later.complete({})

    monkeypatch.setattr(earlier.warehouse, "insert_event", insert_later_first)
    monkeypatch.setattr(earlier.cancelled, "wait", wait)
    earlier.start()
    assert event_types(warehouse, later.correlation_id) == ["job.started", "job.completed"]
    assert event_types(warehouse, earlier.correlation_id) == ["job.started"]


def test_nothing_begins_while_a_copy_writes_into_the_warehouse(warehouse: Warehouse) -> None:
    """What a run merges meanwhile could be inserted twice."""
    copy = Job(warehouse, job_name="copy", source_system=PACKAGE_NAME)
    copy.start()
    jobs = (
        new_job(warehouse),
        Job(warehouse, job_name="build", source_system="dbt"),
        Job(warehouse, job_name="copy", source_system=PACKAGE_NAME),
    )
    for job in jobs:
        with pytest.raises(WarehouseBusy, match=copy.correlation_id):
            job.start()
    assert event_types(warehouse) == ["job.started"]
    copy.complete({})
    started_job(warehouse)


def backdate(warehouse: Warehouse, correlation_id: str) -> None:
    """Let a run's timeout and grace have passed, as a clock two hours ahead sees it."""
    warehouse.execute(
        "update events.event_log set created_at = created_at - interval 2 hour"
        " where correlation_id = ?",
        (correlation_id,),
    )


def states(warehouse: Warehouse) -> dict[str, str]:
    return {run.correlation_id: run.state for run in health.last_runs(warehouse, 10)}


@pytest.mark.slow
def test_a_run_that_lost_its_lease_lands_nothing_more(
    warehouse: Warehouse, core_build: None
) -> None:
    """Its cursor lands later than the newer run's, and must not win."""

    def newer() -> None:
        backdate(warehouse, ingestion.job.correlation_id)
        run = run_scripted(
            warehouse,
            [
                Observed("message", '{"id": "m1", "v": 2}', at(20), "m1"),
                Cursor("messages", {"history_id": "2"}, at(20)),
            ],
        )
        assert run.error is None
        assert states(warehouse)[ingestion.job.correlation_id] == "orphaned"

    ingestion = Ingestion(
        warehouse,
        lambda: InterruptedSource(
            [Observed("message", '{"id": "m1", "v": 1}', at(30), "m1")], newer
        ),
        source_system="acme",
        connection_name="acct1",
        options=IngestOptions(),
    )
    run = run_ingestion(ingestion)
    assert isinstance(run.error, LeaseLost)
    assert run.error.exit_code == 75
    assert Stored(warehouse, "acme", "acct1").cursor("messages") == {"history_id": "2"}
    assert stored(warehouse)["m1"]["payload"] == '{"id": "m1", "v": 2}'
    ended = events(warehouse, ingestion.job.correlation_id)
    assert [event["event_type"] for event in ended].count("ingestion.failed") == 1
    assert states(warehouse)[ingestion.job.correlation_id] == "failed"


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Look until something has happened in a process that is alive."""
    while not condition():
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_suspended_run_that_goes_on_after_it_was_closed_ends_once_and_changes_nothing(
    project: Project, warehouse: Warehouse, core_build: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(size=10, seed=3) as sandbox:
        connect(monkeypatch, sandbox, "acct1")
        # The first answer is held back, so that the file is closed while the run stands still.
        slow = {"match": {"method": "messages.list"}, "action": {"latency": 2.0}}
        sandbox.set_faults([slow])
        with run_process("gmail", "--connection", "acct1") as suspended:
            wait_until(lambda: "messages.list" in sandbox.stats()["requests"], suspended)
            suspended.send_signal(signal.SIGSTOP)
            [run] = open_runs(warehouse, dt.datetime.now(dt.UTC))
            backdate(warehouse, run.correlation_id)
            sandbox.set_faults([])
            sandbox.change(deliver=2)
            newer = run_gmail(warehouse, sandbox)
            assert newer.error is None
            assert states(warehouse)[run.correlation_id] == "orphaned"
            before = (position(warehouse), stored(warehouse))

            suspended.send_signal(signal.SIGCONT)
            output, _ = suspended.communicate(timeout=60)
        assert suspended.returncode == LeaseLost.exit_code, output
        assert "closed it" in output.splitlines()[-1]
        assert (position(warehouse), stored(warehouse)) == before
        assert len(before[1]) == len(sandbox.live_ids())
    ends = [
        event["payload"]["error_type"]
        for event in events(warehouse, run.correlation_id)
        if event["event_type"] == "job.failed"
    ]
    assert sorted(ends) == ["LeaseLost", runs.ORPHANED]
    assert states(warehouse)[run.correlation_id] == "failed"
    assert not list(spool_dir(warehouse).glob("*"))
