"""Which runs are dead."""

from __future__ import annotations

import datetime as dt
import os

import pytest

from loaders.jobs import processes, runs
from loaders.jobs.processes import host_identity
from loaders.jobs.runs import OpenRun, close_orphans, open_runs
from loaders.objects.items import Observed
from loaders.settings.times import grace
from loaders.transform import dbt_build
from loaders.warehouse.base import Warehouse
from tests.python.conftest import (
    at,
    event_types,
    on_both_targets,
    run_scripted,
)

from .conftest import process, started_job

STARTED_AT = at(0)


TIMEOUT_SECONDS = 3600.0


def open_run(host: dict[str, str | None] | None, pid: int | None) -> OpenRun:
    payload = {"host": host, "pid": pid, "timeout_seconds": TIMEOUT_SECONDS}
    return OpenRun("gmail_ingest_acct1-20260101000000-0000", "gmail", "acct1", STARTED_AT, payload)


def is_orphaned(host: dict[str, str | None] | None, pid: int | None) -> bool:
    """The judgement just after the start: only a process that is provably gone counts."""
    return open_run(host, pid).is_orphaned(STARTED_AT + dt.timedelta(seconds=1))


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
