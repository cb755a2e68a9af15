"""Several runs at once on one DuckDB file: true counts, a true log, nobody starves."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import WarehouseBusy, WarehouseError
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.jobs import crashpoints, processes, runs
from loaders.jobs.event_log import replay_spool, spool_dir
from loaders.jobs.job import Job, LeaseLost
from loaders.jobs.processes import host_identity
from loaders.jobs.runs import OpenRun, close_orphans, open_runs
from loaders.monitoring import health
from loaders.objects.items import Cursor, Item, Land, Observed
from loaders.settings.places import PACKAGE_NAME, PROJECT_DIR
from loaders.settings.times import grace
from loaders.sources.contract import FetchRequest
from loaders.transform import dbt_build
from loaders.warehouse import duckdb_file
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

from .conftest import (
    LABELS,
    STRIPE_KEY,
    Project,
    ScriptedSource,
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
from .test_cli import held_by_another_process

COMPLETED = ["job.started", "ingestion.completed", "job.completed"]
STARTED_AT = at(0)
TIMEOUT_SECONDS = 3600.0


# ---- which runs are dead


def open_run(host: dict[str, str | None] | None, pid: int | None) -> OpenRun:
    payload = {"host": host, "pid": pid, "timeout_seconds": TIMEOUT_SECONDS}
    return OpenRun("gmail_ingest_acct1-20260101000000-0000", "gmail", "acct1", STARTED_AT, payload)


def is_orphaned(host: dict[str, str | None] | None, pid: int | None) -> bool:
    """The judgement just after the start: only a process that is provably gone counts."""
    return open_run(host, pid).is_orphaned(STARTED_AT + dt.timedelta(seconds=1))


@contextlib.contextmanager
def process() -> Iterator[subprocess.Popen[str]]:
    """One that waits until its input is closed."""
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.communicate()


def host_of(pid: int) -> dict[str, str | None]:
    found = processes._state_and_start(pid)
    assert found is not None
    return {**host_identity(), "process_start": found[1]}


def test_a_process_that_ended_is_gone_at_once() -> None:
    with process() as child:
        host = host_of(child.pid)
        assert not is_orphaned(host, child.pid)
    assert is_orphaned(host, child.pid)


def test_a_zombie_is_gone() -> None:
    with process() as child:
        host = host_of(child.pid)
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, not reaped
        child.stdin = None
        assert is_orphaned(host, child.pid)


def test_another_process_of_the_same_number_is_not_the_run() -> None:
    assert not is_orphaned(host_identity(), os.getpid())
    assert is_orphaned({**host_identity(), "process_start": "1"}, os.getpid())


NOT_HERE = {
    "another host, or a boot before": {"boot_id": "0000"},
    "another container": {"pid_namespace": "pid:[1]"},
    "a host without a boot id": {"boot_id": None},
    "a host that does not say when a process began": {"process_start": None},
}


@pytest.mark.parametrize("differs", NOT_HERE.values(), ids=NOT_HERE.keys())
def test_what_is_not_known_is_no_proof(differs: dict[str, str | None]) -> None:
    assert not is_orphaned({**host_identity(), "process_start": "1", **differs}, os.getpid())


@pytest.mark.parametrize("part", ["boot_id", "pid_namespace"])
def test_two_hosts_that_know_nothing_of_themselves_are_not_the_same(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {**host_identity(), part: None}
    monkeypatch.setattr(runs, "host_identity", lambda: here)
    assert not is_orphaned({**here, "process_start": "1"}, os.getpid())


def test_a_process_that_proc_hides_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with hidepid, which hides the processes of other users."""
    with process() as child:
        host = host_of(child.pid)
        here = host_identity()
        monkeypatch.setattr(runs, "host_identity", lambda: here)
        monkeypatch.setattr(processes, "_read", lambda path: None)
        assert not is_orphaned(host, child.pid)
    assert is_orphaned(host, child.pid)


@pytest.mark.parametrize("late", [dt.timedelta(0), dt.timedelta(microseconds=1)])
def test_of_another_host_only_the_timeout_and_the_grace_tell(late: dt.timedelta) -> None:
    """The grace is what the clocks of two hosts may differ by."""
    end = STARTED_AT + dt.timedelta(seconds=TIMEOUT_SECONDS) + grace()
    for host in (None, {**host_identity(), "boot_id": "0000"}):
        assert open_run(host, os.getpid()).is_orphaned(end + late) == bool(late)


@on_both_targets
def test_two_that_close_a_run_at_once_write_one_end(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = started_job(warehouse)
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    seen = open_runs(warehouse, later)
    close_orphans(warehouse, later)
    monkeypatch.setattr(runs, "open_runs", lambda *_: seen)  # looked before the other wrote
    close_orphans(warehouse, later)
    assert event_types(warehouse, job.correlation_id) == ["job.started", "job.failed"]


def test_a_run_of_long_ago_is_closed_where_the_tests_tell_of_it(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run looks for the open ones of 30 days; warn_older_runs looks at all."""
    job = started_job(warehouse)
    warehouse.execute("update events.event_log set created_at = created_at - interval 31 day")
    for number, warnings in enumerate([(), ("warn_older_runs",)]):
        assert event_types(warehouse, job.correlation_id) == ["job.started"]
        built = dbt_build.BuildResult(warnings=warnings)
        monkeypatch.setattr(dbt_build, "build", lambda *_, _built=built, **__: _built)
        assert (
            run_scripted(
                warehouse, [Observed("widget", f'{{"id": "{number}"}}', at(number), "a")]
            ).error
            is None
        )
    assert event_types(warehouse, job.correlation_id) == ["job.started", "job.failed"]


# ---- one run of a connection at a time


def new_job(warehouse: Warehouse, name: str = "gmail_ingest_acct1") -> Job:
    return Job(warehouse, job_name=name, source_system="gmail", connection_name="acct1")


def started_job(warehouse: Warehouse) -> Job:
    job = new_job(warehouse)
    job.start()
    return job


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


@contextlib.contextmanager
def once(name: str, action: Callable[[], object]) -> Iterator[None]:
    """Do something when a point of a run is first reached."""
    waiting = [action]

    def hook(reached: str) -> None:
        if reached == name and waiting:
            waiting.pop()()

    crashpoints.install(hook)
    try:
        yield
    finally:
        crashpoints.install(None)


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


# ---- a run that was taken for dead


def backdate(warehouse: Warehouse, correlation_id: str) -> None:
    """Let a run's timeout and grace have passed, as a clock two hours ahead sees it."""
    warehouse.execute(
        "update events.event_log set created_at = created_at - interval 2 hour"
        " where correlation_id = ?",
        (correlation_id,),
    )


def states(warehouse: Warehouse) -> dict[str, str]:
    return {run.correlation_id: run.state for run in health.last_runs(warehouse, 10)}


class InterruptedSource(ScriptedSource):
    """Does something else after its items, before its cursor."""

    def __init__(self, items: Sequence[Item], meanwhile: Callable[[], object]) -> None:
        super().__init__(items)
        self._meanwhile = meanwhile

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        yield from super().fetch(request)
        self._meanwhile()
        yield Cursor("messages", {"history_id": "1"}, request.clock.now())


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


@contextlib.contextmanager
def run_process(
    *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The command line in a process of its own, which does not outlive the test."""
    started = subprocess.Popen(
        [sys.executable, str(PROJECT_DIR / "loaders" / "run.py"), *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.communicate()


def connect(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, name: str, source: str = "gmail"
) -> None:
    """Configure a connection to a sandbox for the processes of a test."""
    options = {
        "gmail": {"access_token": "any-token", "units_per_minute": "10000000"},
        "stripe": {"api_key": STRIPE_KEY, "requests_per_second": "100000"},
    }
    for option, value in {"api_base_url": sandbox.base_url, **options[source]}.items():
        monkeypatch.setenv(f"SOURCES__{source.upper()}__{name.upper()}__{option.upper()}", value)


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


# ---- other commands beside a run


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


# ---- ten jobs at once

MAILBOXES, ACCOUNTS = 7, 3


@pytest.mark.slow
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
