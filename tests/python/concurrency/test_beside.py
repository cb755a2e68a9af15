"""Other commands beside a run, and many jobs at once."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import WarehouseBusy, WarehouseError
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.jobs.event_log import replay_spool, spool_dir
from loaders.monitoring import health
from loaders.objects.items import Land, Observed
from loaders.warehouse import duckdb_file
from loaders.warehouse.base import Warehouse
from tests.python.cli.test_commands import held_by_another_process
from tests.python.conftest import (
    LABELS,
    Project,
    ScriptedSource,
    at,
    event_types,
    events,
    run_ingestion,
    stored,
)

from .conftest import InterruptedSource, connect, new_job, run_process, started_job

COMPLETED = ["job.started", "ingestion.completed", "job.completed"]


@pytest.mark.slow
def test_a_plain_dbt_build_during_a_load_leaves_true_counts(
    project: Project, warehouse: Warehouse, core_build: None
) -> None:
    """What the load has landed so far is for the load to merge, which is still open."""
    built: list[Any] = []

    def build() -> None:
        selected = ("stg_landed_objects", "raw_objects", "accepted_violations")
        without = ("--exclude-resource-type", "unit_test")
        built.append(project.run_dbt("build", "--select", *selected, *without))

    items = [Observed("message", f'{{"id": "m{n}"}}', at(n), f"m{n}") for n in range(3)]
    run = run_ingestion(
        Ingestion(
            warehouse,
            lambda: InterruptedSource([*items, Land()], build),
            source_system="acme",
            connection_name="acct1",
            options=IngestOptions(),
        )
    )
    assert run.error is None
    assert built[0].success
    found = {one.correlation_id: one for one in health.last_runs(warehouse, 10)}
    own = found.pop(run.correlation_id)
    [other] = found.values()
    assert [own.state, other.state] == ["completed", "completed"]
    assert [own.telemetry["inserted"], other.telemetry["inserted"]] == [3, 0]
    assert event_types(warehouse, run.correlation_id) == COMPLETED
    assert len(stored(warehouse)) == 3


def test_a_plain_dbt_build_waits_for_a_file_in_use(
    project: Project, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as held:
        held.enter_context(held_by_another_process(project.duckdb_path))
        sleep = "dbt.adapters.duckdb.environments.time.sleep"
        monkeypatch.setattr(sleep, lambda _seconds: held.close())
        result = project.run_dbt("build", "--select", "accepted_violations")
    assert result.success
    assert event_types(warehouse) == ["job.started", "job.completed"]


def test_who_waits_for_a_file_learns_which_process_holds_it(
    project: Project,
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(duckdb_file, "_SAY_AFTER_SECONDS", 0.0)
    holds = r"process \d+ holds the file"
    with (
        held_by_another_process(project.duckdb_path),
        caplog.at_level(logging.INFO, "loaders"),
        pytest.raises(WarehouseBusy, match=holds),
    ):
        project.open_warehouse(lock_wait=0.3).execute("select 1")
    [said] = caplog.messages
    assert re.search(holds, said)


def test_a_run_waits_in_vain_once_and_spools_its_end(
    project: Project, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = project.open_warehouse(lock_wait=0.3)
    job = started_job(patient)
    with held_by_another_process(project.duckdb_path):
        with pytest.raises(WarehouseBusy) as busy:
            patient.execute("select 1")
        monkeypatch.setattr(time, "sleep", lambda _seconds: pytest.fail("waits once more"))
        job.fail(busy.value)
    # With its start, which a warehouse put in the place of that one would lack.
    assert len(list(spool_dir(warehouse).glob("*.json"))) == 2
    following = started_job(warehouse)
    assert event_types(warehouse, job.correlation_id) == ["job.started", "job.failed"]
    assert event_types(warehouse, following.correlation_id) == ["job.started"]
    assert not list(spool_dir(warehouse).glob("*"))


def test_two_that_replay_the_same_spooled_events_are_not_in_each_others_way(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on BigQuery, where nothing keeps them apart."""
    insert = warehouse.insert_event

    def refuse(_event: Any) -> None:
        raise WarehouseError("not now")

    monkeypatch.setattr(warehouse, "insert_event", refuse)
    for _ in range(3):
        job = new_job(warehouse)
        job.log("ingestion.completed", {})

    def insert_after_the_other(event: Any) -> None:
        monkeypatch.setattr(warehouse, "insert_event", insert)
        assert replay_spool(warehouse) == 3
        insert(event)

    monkeypatch.setattr(warehouse, "insert_event", insert_after_the_other)
    replay_spool(warehouse)
    assert event_types(warehouse) == ["ingestion.completed"] * 3


def test_who_has_waited_long_looks_as_often_as_who_comes_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch, warehouse: Warehouse
) -> None:
    """Else those that come later would be served first, again and again."""
    pauses: list[float] = []
    with contextlib.ExitStack() as held:
        held.enter_context(held_by_another_process(project.duckdb_path))

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 50:
                held.close()

        monkeypatch.setattr(time, "sleep", pause)
        project.open_warehouse(lock_wait=60.0).execute("select 1")
    assert max(pauses) < 10 * min(pauses)
    assert len(set(pauses)) > 1, "two that began together would always meet"


MAILBOXES, ACCOUNTS = 7, 3


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_ten_first_jobs_at_once_all_complete(
    empty_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sources, one file that is not there yet, and the default --lock-wait."""
    names = {
        "gmail": [f"box{number}" for number in range(MAILBOXES)],
        "stripe": [f"shop{number}" for number in range(ACCOUNTS)],
    }
    with Sandbox(size=10, charges=10, seed=5) as sandbox, contextlib.ExitStack() as started:
        processes = []
        for source, connections in names.items():
            for name in connections:
                connect(monkeypatch, sandbox, name, source)
        for source, connections in names.items():
            for name in connections:
                objects = ("--objects", "product") if source == "stripe" else ()
                process = run_process(source, "--connection", name, *objects)
                processes.append(started.enter_context(process))
        outputs = [process.communicate(timeout=800)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * 10, "\n".join(outputs)
        messages = len(sandbox.live_ids())
    warehouse = empty_project.open_warehouse()
    ended = health.last_runs(warehouse, 100)
    assert {(run.source_system, run.connection_name) for run in ended} == {
        (source, name) for source, connections in names.items() for name in connections
    }
    assert {run.state for run in ended} == {"completed"}
    for run in ended:
        assert event_types(warehouse, run.correlation_id) == COMPLETED
    assert len(event_types(warehouse)) == 3 * len(processes)
    # A MERGE takes in whatever lies in the queue, other jobs' objects too.
    landed = sum(
        event["payload"]["records_landed"]
        for event in events(warehouse)
        if event["event_type"] == "ingestion.completed"
    )
    assert sum(run.telemetry["inserted"] for run in ended) == landed
    rows = warehouse.execute(
        "select connection_name, count(*), count(distinct idem_key) from events.raw_objects"
        " where source_system = 'gmail' group by 1 order by 1"
    )
    assert rows == [(name, messages + LABELS, messages + LABELS) for name in names["gmail"]]
    [(held,)] = warehouse.execute("select count(*) from events.raw_objects")
    [(queued,)] = warehouse.execute("select count(*) from events_staging.landed_objects")
    assert (held, queued) == (landed, 0)
    assert not list(spool_dir(warehouse).glob("*"))


def test_a_file_that_another_process_is_just_making_is_waited_for(
    project: Project, tmp_path: Path
) -> None:
    made = tmp_path / "made.duckdb"
    duckdb.connect(str(made)).close()
    project.duckdb_path.write_bytes(bytes(4096))
    timer = threading.Timer(0.5, lambda: project.duckdb_path.write_bytes(made.read_bytes()))
    timer.start()
    with project.open_warehouse(lock_wait=60.0).open():
        pass
    timer.join()


def test_a_file_that_is_none_of_duckdb_s_is_told_at_once(project: Project) -> None:
    project.duckdb_path.write_bytes(bytes(4096))
    os.utime(project.duckdb_path, (0, 0))
    warehouse = project.open_warehouse(lock_wait=60.0)
    with pytest.raises(WarehouseError, match="cannot be opened"), warehouse.open():
        pass


@pytest.mark.slow
def test_the_file_is_not_held_while_the_api_is_waited_for(
    project: Project, merge_only: None
) -> None:
    """A first run, whose bootstrap went through dbt: dbt-duckdb would keep the file open."""
    held: list[bool] = []

    def source() -> ScriptedSource:
        held.append(is_locked(project))
        return ScriptedSource([Observed("widget", '{"id": "a"}', at(1), "a")])

    ingestion = Ingestion(
        project.open_warehouse(),
        source,
        source_system="acme",
        connection_name="acct1",
        options=IngestOptions(),
    )
    assert run_ingestion(ingestion).error is None
    held.append(is_locked(project))
    assert held == [False, False]


def is_locked(project: Project) -> bool:
    """Whether this process holds the file: its lock would keep any other one out."""
    code = f"import duckdb; duckdb.connect({str(project.duckdb_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    return b"lock" in done.stderr
