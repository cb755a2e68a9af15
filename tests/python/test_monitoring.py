"""The monitoring marts, and `run.py status`, which reads them."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from loaders.cli.main import main
from loaders.errors import TransformFailed
from loaders.jobs.event_log import spool_dir
from loaders.jobs.names import job_name_for
from loaders.jobs.processes import host_identity
from loaders.monitoring import health
from loaders.monitoring.alerts import job_end
from loaders.objects.items import Observed
from loaders.settings.places import PROJECT_DIR
from loaders.settings.times import grace
from loaders.transform import dbt_build, invocation, views
from loaders.transform.dbt_build import MONITORING
from loaders.warehouse.base import Warehouse
from loaders.warehouse.bigquery import BigQueryWarehouse
from loaders.warehouse.dead_letters import open_letters

from .conftest import Project, at, event_types, events, on_both_targets, prepared, run_scripted

pytestmark = pytest.mark.usefixtures("stays_open")

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
Event = dict[str, Any]


@pytest.fixture
def monitored(project: Project) -> Warehouse:
    """An empty warehouse with the monitoring views."""
    return prepared(project, "monitored", views.ensure_views)


class Log:
    """Collects the events of runs, and writes them in one statement."""

    def __init__(self) -> None:
        self.now = dt.datetime.now(dt.UTC)
        self.events: list[Event] = []

    def run(
        self,
        connection_name: str | None,
        ago: float,
        *ends: str,
        ingestion: Mapping[str, Any] | None = None,
        seconds: float = 10.0,
        started: Mapping[str, Any] | None = None,
        source_system: str = "acme",
        **end: Any,
    ) -> str:
        """A run that began `ago` seconds ago, with `ends`, `seconds` later each: completed,
        Orphaned, or a type of error. Its correlation_id."""
        correlation_id = f"{connection_name}-{len(self.events)}"
        common = {
            "source_system": source_system,
            "connection_name": connection_name,
            "correlation_id": correlation_id,
        }
        job_name = f"{source_system}_ingest_me"
        at_start = {"job_name": job_name, "timeout_seconds": 3600, **(started or {})}
        self._add(common, "job.started", ago, at_start, trace_id="trace")
        if ingestion is not None:
            self._add(common, "ingestion.completed", ago - seconds / 2, ingestion)
        for number, name in enumerate(ends, start=1):
            told = {"job_name": job_name, "duration_seconds": seconds, **end}
            if name == "completed":
                self._add(common, "job.completed", ago - number * seconds, told)
                continue
            told |= {"error_type": name, "step": "extract", "retryable": True}
            message = f"acme: {name}"
            self._add(common, "job.failed", ago - number * seconds, told, error_message=message)
        return correlation_id

    def _add(
        self,
        common: Mapping[str, Any],
        event_type: str,
        ago: float,
        payload: Mapping[str, Any],
        **more: Any,
    ) -> None:
        self.events.append(
            {
                "event_id": f"event-{len(self.events)}",
                "event_type": event_type,
                **common,
                "created_at": (self.now - dt.timedelta(seconds=ago)).isoformat(),
                "status": "failed" if event_type.endswith("failed") else "ok",
                "trace_id": None,
                "error_message": None,
                "payload": json.dumps(payload),
                **more,
            }
        )

    def completed(self, connection_name: str, times: Sequence[float], rows: int = 0) -> None:
        """Completed runs, so many seconds ago."""
        for ago in times:
            self.run(connection_name, ago, "completed", ingestion={}, inserted=rows, updated=0)

    def write(self, warehouse: Warehouse) -> None:
        """Insert the events."""
        columns = list(self.events[0])
        kinds = {"connection_name", "trace_id", "error_message"}
        values, parameters = [], []
        for event in self.events:
            # A NULL has no type on BigQuery.
            given = [name for name in columns if not (name in kinds and event[name] is None)]
            values.append(
                "("
                + ", ".join(
                    warehouse.event_value(name) if name in given else "null" for name in columns
                )
                + ")"
            )
            parameters += [event[name] for name in given]
        warehouse.execute(
            f"insert into {warehouse.table('event_log')} ({', '.join(columns)})"
            f" values {', '.join(values)}",
            parameters,
        )


@pytest.fixture
def log() -> Log:
    return Log()


def rows(warehouse: Warehouse, view: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    return sorted(
        warehouse.execute(f"select {', '.join(columns)} from {warehouse.table(view)}"), key=repr
    )


def states(warehouse: Warehouse) -> dict[str, str]:
    return {run["correlation_id"]: run["state"] for run in views.runs(warehouse, 1_000)}


def states_of(warehouse: Warehouse) -> dict[str, tuple[str, str]]:
    """State and reason by connection."""
    return {
        each["connection_name"]: (each["state"], each["reason"])
        for each in views.connections(warehouse)
    }


INGESTED: dict[str, Any] = {
    "records_extracted": 9,
    "new_dead_letters": 1,
    "bytes": 5_000_000_000,
    "api_calls": 4,
    "api_units": 60,
    "retries": 2,
    "throttled_seconds": 1.5,
    "mode": "incremental",
    "has_more": False,
    "objects": {"message": 7, "label": 1},
    "failed_objects": ["label", "thread"],
}
ENDED: dict[str, Any] = {
    **{"inserted": 5, "updated": 2, "unchanged": 1, "deleted": 3, "undeleted": 4, "stale": 0},
    "tests": {"passed": 17, "warned": 2, "failed": 0},
    "merge": {"bytes_processed": 10, "bytes_billed": 20, "slot_ms": 30, "job_id": "j"},
}


@on_both_targets
def test_a_run_is_one_row_with_all_that_its_events_tell(monitored: Warehouse, log: Log) -> None:
    found = log.run("me", HOUR, "completed", ingestion=INGESTED, **ENDED)
    failed = log.run("me", HOUR / 2, "SourceError")
    build = log.run(None, 60.0, "completed", source_system="dbt")
    log.write(monitored)
    by_id = {run["correlation_id"]: run for run in views.runs(monitored, 10)}
    began = log.now - dt.timedelta(seconds=HOUR)
    assert by_id[found] == {
        "correlation_id": found,
        "job_name": "acme_ingest_me",
        "source_system": "acme",
        "connection_name": "me",
        "started_at": began,
        "ended_at": began + dt.timedelta(seconds=10),
        "state": "completed",
        "duration_seconds": 10.0,
        "timeout_seconds": 3600.0,
        "is_ingestion": True,
        "is_sync": True,
        "is_retry": False,
        "mode": "incremental",
        "has_more": False,
        **{"inserted": 5, "updated": 2, "unchanged": 1, "deleted": 3, "undeleted": 4},
        "dead_letters": 1,
        "records_extracted": 9,
        "objects_by_type": {"message": 7, "label": 1},
        "failed_objects": ["label", "thread"],
        "bytes": 5_000_000_000,
        "api_calls": 4,
        "api_units": 60,
        "retries": 2,
        "throttled_seconds": 1.5,
        **{"bytes_processed": 10, "bytes_billed": 20, "slot_ms": 30},
        **{"tests_passed": 17, "tests_warned": 2, "tests_failed": 0},
        "error_type": None,
        "error_message": None,
        "step": None,
        "is_retryable": None,
        "trace_id": "trace",
    }
    told = {
        "state": "failed",
        "error_type": "SourceError",
        "error_message": "acme: SourceError",
        "step": "extract",
        "is_retryable": True,
        "inserted": None,
        "bytes": None,
        "objects_by_type": None,
    }
    assert {name: by_id[failed][name] for name in told} == told
    assert [by_id[build][name] for name in ("connection_name", "is_ingestion")] == [None, False]
    assert rows(
        monitored,
        "ingestion_runs",
        ("correlation_id", "object_type", "objects_landed", "is_unread", "state"),
    ) == sorted(
        [
            (found, "message", 7, False, "completed"),
            (found, "label", 1, True, "completed"),
            (found, "thread", 0, True, "completed"),
            (failed, None, None, False, "failed"),
        ],
        key=repr,
    )
    columns = ("object_type", "sum(runs)", "sum(failures)", "sum(objects_landed)", "sum(bytes)")
    by_type = monitored.execute(  # two days when it is just after midnight
        f"select {', '.join(columns)}, sum(api_units) from {monitored.table('daily_activity')}"
        " group by object_type"
    )
    assert sorted(by_type, key=repr) == sorted(
        [
            (None, 2, 1, None, 5_000_000_000, 60),
            ("message", 1, 0, 7, None, None),
            ("label", 1, 1, 1, None, None),
            ("thread", 1, 1, 0, None, None),
        ],
        key=repr,
    )


def test_a_day_is_one_of_utc(monitored: Warehouse, log: Log) -> None:
    midnight = log.now.replace(hour=0, minute=0, second=0, microsecond=0)
    for seconds in (-1.0, 1.0 - DAY):
        log.run("me", (log.now - midnight).total_seconds() - seconds, "completed", ingestion={})
    log.write(monitored)
    with monitored.open():
        monitored.execute("set global TimeZone = 'America/Los_Angeles'")
        found = rows(monitored, "daily_activity", ("activity_date", "runs"))
    assert found == [((midnight - dt.timedelta(days=1)).date(), 2)]


def test_a_real_end_supersedes_an_orphaned_one_in_any_order(monitored: Warehouse, log: Log) -> None:
    runs = {
        log.run("a", HOUR, "Orphaned", "completed", inserted=3): ("completed", None, 3, 20),
        log.run("b", HOUR, "completed", "Orphaned", inserted=3): ("completed", None, 3, 10),
        log.run("c", HOUR, "Orphaned", "SourceError"): ("failed", "SourceError", None, 20),
        log.run("d", HOUR, "Orphaned"): ("orphaned", "Orphaned", None, 10),
    }
    log.write(monitored)
    found = {
        run["correlation_id"]: (
            *(run[name] for name in ("state", "error_type", "inserted")),
            (run["ended_at"] - run["started_at"]).total_seconds(),
        )
        for run in views.runs(monitored, 10)
    }
    assert found == runs
    # What `run.py check` takes from the log itself, without the views.
    assert states(monitored) == {
        run.correlation_id: run.state for run in health.last_runs(monitored, 10)
    }


def test_a_run_without_an_end_is_orphaned_when_the_loaders_say_so(
    monitored: Warehouse, log: Log
) -> None:
    limit = 100.0 + grace().total_seconds()
    for ago in (1.0, 99.0, limit - 30, limit + 1, DAY):
        log.run(f"{ago}", ago, started={"timeout_seconds": 100})
    log.write(monitored)
    found = states(monitored)
    assert sorted(found.values()) == ["orphaned"] * 2 + ["running"] * 3
    assert found == {run.correlation_id: run.state for run in health.last_runs(monitored, 10)}


def test_runs_that_began_before_the_period_are_left_out(monitored: Warehouse, log: Log) -> None:
    kept = log.run("me", 90 * DAY - HOUR, "completed")
    log.run("me", 90 * DAY + HOUR, "completed", seconds=2 * HOUR)  # its end is in the period
    log.write(monitored)
    assert states(monitored) == {kept: "completed"}


HOURLY = [HOUR * (number + 0.5) for number in range(20, -1, -1)]


@on_both_targets
def test_each_connection_has_the_worst_state_that_holds(monitored: Warehouse, log: Log) -> None:
    log.completed("ok", HOURLY)
    log.completed("late", [ago + 2 * HOUR for ago in HOURLY])
    log.run("late", 60.0)
    log.completed("failing", [ago + 4 * HOUR for ago in HOURLY])
    log.run("failing", 2 * HOUR, "SourceError")
    log.run("failing", HOUR, "SourceError")
    log.completed("idle", [ago + 6 * HOUR for ago in HOURLY])
    log.completed("idle and failed", [ago + 6 * HOUR for ago in HOURLY])
    log.run("idle and failed", 5.5 * HOUR, "SourceError")
    log.run("failed at once", HOUR, "SourceError")
    log.run("first", 60.0)
    log.run("killed", DAY)
    log.completed("few", [90 * HOUR, 80 * HOUR, 70 * HOUR, 60 * HOUR])
    log.completed("sandbox", [ago + 5 * DAY for ago in HOURLY])
    # Runs to read dead letters again, backfills and verifications bring nothing up to date.
    log.completed("retried", [ago + 2 * HOUR for ago in HOURLY])
    log.run("retried", 60.0, "completed", started={"parameters": {"retry": True}})
    log.run("retried", 50.0, "completed", started={"parameters": {"until": "2020-01-01"}})
    log.run("retried", 40.0, "VerificationFailed", started={"job_name": "acme_verify_me"})
    log.run("retried", 30.0, "WarehouseError", started={"job_name": "acme_erase_me"})
    # Nor does a part: some object types, or what is not older than a day.
    log.completed("in part", [ago + 2 * HOUR for ago in HOURLY])
    log.run("in part", 2 * HOUR, "SourceError")
    log.run("in part", 60.0, "completed", started={"parameters": {"objects": ["charge"]}})
    log.run("in part", 50.0, "completed", started={"parameters": {"since": "2020-01-01"}})
    log.completed("gave way", HOURLY)
    log.run("gave way", 60.0, "WarehouseBusy")
    log.run("gave way", 50.0, "LeaseLost")
    # Until done, every hour: what follows a bounded run follows no schedule.
    for ago in HOURLY:
        for step in range(3):
            more = {"has_more": step < 2}
            log.run("bounded", ago - 60.0 * step, "completed", ingestion=more, inserted=1)
    log.write(monitored)
    assert states_of(monitored) == {
        "ok": ("ok", "the last run completed"),
        "late": ("late", "the last success was 2 h ago, expected every 60 min; a run goes on"),
        "failing": ("failing", "the last 2 runs failed, the last with: acme: SourceError"),
        "idle": ("silent", "no run for 6 h, expected every 60 min"),
        "idle and failed": (
            "silent",
            "no run for 5 h, expected every 60 min; the last run failed",
        ),
        "failed at once": ("failing", "the last run failed: acme: SourceError"),
        "first": ("ok", "its first run goes on"),
        "killed": ("failing", "the last run failed: it ended without an end row"),
        "few": ("ok", "the last run completed; how often to expect one is not known"),
        "sandbox": ("ok", "the last run completed; how often to expect one is not known"),
        "retried": ("late", "the last success was 2 h ago, expected every 60 min"),
        "in part": ("failing", "the last run failed: acme: SourceError"),
        "gave way": ("ok", "the last run completed"),
        "bounded": ("ok", "the last run completed"),
    }


@on_both_targets
def test_an_ingestion_is_told_from_other_jobs_whatever_the_names(
    monitored: Warehouse, log: Log
) -> None:
    """As job_end tells it, of jobs as loaders/jobs/names.py names them."""
    jobs = []
    for source in ("acme", "acme_ingest_eu", "ka\u0308se/\U0001f600 10%", "_ingest_"):
        for connection in ("my_ingest_box", "me"):
            for what in ("ingest", "verify", "erase"):
                name = job_name_for(source, connection, what)
                started = {"job_name": name}
                run = log.run(connection, HOUR, "completed", started=started, source_system=source)
                jobs.append(job_end.EndedJob(monitored.target, source, connection, name, run))
    log.write(monitored)
    assert {run["correlation_id"]: run["is_ingestion"] for run in views.runs(monitored, 99)} == {
        job.correlation_id: job.is_ingestion for job in jobs
    }
    assert sum(job.is_ingestion for job in jobs) == 8


def test_a_connection_does_not_become_ok_as_its_runs_leave_the_period(
    monitored: Warehouse, log: Log
) -> None:
    for left in (12, 4, 2, 1):
        log.completed(f"{left} left", [(90 + 0.5 - number) * DAY for number in range(left, 0, -1)])
    log.run("only failed", 80 * DAY, "SourceError")
    log.completed("sandbox", [89 * DAY])
    # Less often than five times in the period, and still at it.
    log.completed("monthly", [85 * DAY, 55 * DAY, 25 * DAY])
    log.write(monitored)
    unknown = "; tell how often to expect one, or never (expected_intervals)"
    assert states_of(monitored) == {
        "12 left": ("silent", "no run for 78 days, expected every 24 h"),
        "4 left": ("silent", f"no run for 86 days{unknown}"),
        "2 left": ("silent", f"no run for 88 days{unknown}"),
        "1 left": ("silent", f"no run for 89 days{unknown}"),
        "only failed": ("silent", f"no run for 80 days{unknown}; the last run failed"),
        "sandbox": ("ok", "the last run completed; how often to expect one is not known"),
        "monthly": ("ok", "the last run completed; how often to expect one is not known"),
    }


def test_the_expected_interval_is_the_median_and_a_quarter_of_an_hour_at_least(
    monitored: Warehouse, log: Log
) -> None:
    log.completed("often", [MINUTE * number for number in range(9, -1, -1)])
    # 1, 1, 1 and 9 hours: one night does not count.
    log.completed("median", [hours * HOUR for hours in (12, 11, 10, 9, 0)])
    # Of 41 runs the last 20 intervals tell: every hour, where it was every minute.
    log.completed("slower", [21 * HOUR + MINUTE * number for number in range(20, 0, -1)])
    log.completed("slower", HOURLY)
    log.write(monitored)
    assert {
        each["connection_name"]: round(each["expected_interval_seconds"])
        for each in views.connections(monitored)
    } == {"often": 900, "median": 3600, "slower": 3600}


def test_a_connection_that_brings_nothing_for_far_longer_than_ever_is_silent(
    monitored: Warehouse, log: Log
) -> None:
    for name, days_with_rows in (
        # Two days without at most, before the last nine.
        ("dried up", [18, 16, 14, 13, 11, 10, 9]),
        ("weekly", [39, 32, 25, 18, 11, 9]),
        ("young", [12, 11, 10, 9]),
        ("always empty", []),
    ):
        for day in range(40, -1, -1):
            inserted = 1 if day in days_with_rows else 0
            log.run(name, day * DAY + HOUR, "completed", ingestion={}, inserted=inserted)
    log.write(monitored)
    found = states_of(monitored)
    assert found.pop("dried up") == (
        "silent",
        "runs complete and bring no rows for 9 days; before it was 2 days at most",
    )
    assert {state for state, _ in found.values()} == {"ok"}


def test_a_run_far_from_its_usual_rows_is_unusual(monitored: Warehouse, log: Log) -> None:
    usual = [90, 110, 95, 105, 100, 98, 102, 97, 103, 100, 100]
    for name, counts in (
        ("flood", [*usual, 5_000]),
        ("drought", [*usual, 0]),
        ("as ever", [*usual, 130]),
        ("mostly nothing", [*[0] * 20, 10]),
        ("not enough to compare", [*usual[:9], 5_000]),
    ):
        for age, count in enumerate(reversed(counts)):
            log.completed(name, [age * HOUR + 60.0], count)
    log.write(monitored)
    found = {each["connection_name"]: each for each in views.connections(monitored)}
    assert {name for name, each in found.items() if each["is_unusual"]} == {"flood", "drought"}
    assert [found["flood"][name] for name in ("last_rows", "median_rows", "mad_rows")] == [
        5_000,
        100,
        3,
    ]
    assert (found["flood"]["state"], found["flood"]["reason"]) == (
        "ok",
        "the last run brought 5000 rows, usually about 100",
    )


def test_open_dead_letters_are_those_that_the_loaders_find(
    monitored: Warehouse, merge_only: None
) -> None:
    broken = [Observed("widget", "not json", at(n), f"w{n}") for n in range(3)]
    run_scripted(monitored, broken)
    now = dt.datetime.now(dt.UTC)
    # One fails again, one is stored.
    run_scripted(monitored, [broken[0], Observed("widget", '{"id": "w1"}', now, "w1")])
    [found] = views.connections(monitored)
    assert found["open_dead_letters"] == len(open_letters(monitored)) == 2
    letter = monitored.staging_table("dead_letters")
    monitored.execute(f"update {letter} set dropped_at = now() where external_id = 'w2'")
    [found] = views.connections(monitored)
    assert found["open_dead_letters"] == len(open_letters(monitored)) == 1


def build_with(project: Project, intervals: str) -> Any:
    return project.run_dbt(
        "run", "--select", "tag:monitoring", "--vars", f"{{expected_intervals: {intervals}}}"
    )


@on_both_targets
@pytest.mark.slow
def test_what_is_configured_counts_before_what_was_seen(
    monitored: Warehouse, project: Project, log: Log
) -> None:
    log.completed("daily", HOURLY)
    log.completed("strict", [ago + 3 * HOUR for ago in HOURLY])
    log.run("given up", HOUR, "SourceError")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    log.run("given up", 60.0, started={"host": host_identity(), "pid": gone.pid})
    log.completed("sandbox", [2.5 * HOUR])
    log.write(monitored)
    configured = (
        "{acme: {daily: 1d, strict: 1m, given up: never, gone: never, sandbox: 1h, o'neil: 2h}}"
    )
    assert build_with(project, configured).success
    expected = {
        "daily": ("ok", "the last run completed"),
        "strict": ("silent", "no run for 3 h, expected every 60 s"),
        "given up": ("ok", "nobody expects it to run (expected_intervals: never)"),
        "sandbox": ("late", "the last success was 2 h ago, expected every 60 min"),
        "o'neil": ("silent", "no run in 90 days, expected every 2 h"),
    }
    found = states_of(monitored)
    assert {name: found[name] for name in expected} == expected
    assert found.keys() == expected.keys()
    # Nor is it failing because the process of its last run is gone.
    seen = {each["connection_name"]: each for each in health.read(monitored, 1).connections}
    assert (seen["given up"]["state"], seen["given up"]["last_state"]) == ("ok", "orphaned")
    holding = ("is_idle", "is_quiet", "is_late", "is_retired")
    assert {name: [flag for flag in holding if each[flag]] for name, each in seen.items()} == {
        "daily": [],
        "strict": ["is_idle", "is_late"],
        "given up": ["is_retired"],
        "sandbox": ["is_late"],
        "o'neil": ["is_idle"],
    }


@pytest.mark.slow
def test_a_wrong_interval_is_named(monitored: Warehouse, project: Project) -> None:
    result = build_with(project, "{acme: {me: 0h}}")
    said = str(result.exception or [each.message for each in result.result.results])
    assert "expected_intervals: acme.me: expected a whole number with s, m, h or d" in said


# ---- run.py status


def run_status(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    capsys.readouterr()
    code = main(["status", *arguments])
    return code, capsys.readouterr().out.splitlines()


def test_status_is_0_when_all_is_ok_and_1_otherwise(
    monitored: Warehouse, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    log.completed("box", [day * DAY + 2.5 * HOUR for day in range(10)][::-1], 4)
    log.write(monitored)
    code, lines = run_status(capsys, "--limit", "1")
    assert code == 0
    assert [line.split("  ")[0] for line in lines[:2]] == ["connection", "acme.box"]
    assert lines[1].split() == [
        *["acme.box", "ok", "2", "h", "ago", "every", "24", "h", "0", "0"],
        *["the", "last", "run", "completed"],
    ]
    assert lines[2] == ""
    assert lines[3].split() == [
        *("started", "state", "inserted", "updated", "deleted", "duration", "run"),
    ]
    assert lines[4].split()[:8] == ["2", "h", "ago", "completed", "4", "0", "-", "10.0"]
    assert len(lines) == 5
    log.events.clear()
    log.run("shop", HOUR, "SourceError", source_system="other")
    log.events[0]["event_id"], log.events[1]["event_id"] = "more-1", "more-2"
    log.write(monitored)
    code, lines = run_status(capsys)
    assert code == 1
    assert lines[1].split()[:4] == ["other.shop", "failing", "never", "-"]  # the worst first
    assert lines[-1] == "shop-0: acme: SourceError"


def test_status_as_json_is_what_the_views_hold(
    monitored: Warehouse, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    log.run("me", HOUR, "completed", ingestion=INGESTED, **ENDED)
    log.write(monitored)
    code, lines = run_status(capsys, "--json")
    told = json.loads("\n".join(lines))
    assert code == 0
    assert told.keys() == {"connections", "runs", "spool"}
    assert told["spool"] == {
        **{"directory": str(spool_dir(monitored)), "waiting": 0, "set_aside": 0},
    }
    [connection], [run] = told["connections"], told["runs"]
    assert tuple(connection) == views.CONNECTION_COLUMNS
    assert tuple(run) == views.RUN_COLUMNS
    began = log.now - dt.timedelta(seconds=HOUR)
    assert dt.datetime.fromisoformat(run["started_at"]) == began
    assert run["started_at"].endswith("+00:00")
    assert run["objects_by_type"] == {"message": 7, "label": 1}


@pytest.mark.parametrize("has_warehouse", [True, False])
@pytest.mark.parametrize(
    ("ending", "told"), [("json", "1 event(s) wait"), ("json.unreadable", "look")]
)
def test_status_is_not_ok_while_the_spool_holds_something(
    monitored: Warehouse,
    capsys: pytest.CaptureFixture[str],
    has_warehouse: bool,
    ending: str,
    told: str,
) -> None:
    directory = spool_dir(monitored)
    directory.mkdir(parents=True)
    (directory / f"1.{ending}").write_text("{}")
    if not has_warehouse:
        monitored.target.path.unlink()
    code, lines = run_status(capsys)
    assert code == 1
    [line] = [line for line in lines if line.startswith("spool: ")]
    assert told in line
    assert str(directory) in line
    (directory / f"1.{ending}").unlink()
    assert run_status(capsys)[0] == 0


def test_status_makes_the_views_that_lack_once_and_logs_nothing(
    warehouse: Warehouse,
    log: Log,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A first run that failed while it fetched has built nothing."""
    log.run("me", HOUR, "SourceError")
    log.write(warehouse)
    before = event_types(warehouse)
    assert run_status(capsys)[0] == 1
    assert event_types(warehouse) == before

    built: list[Any] = []
    monkeypatch.setattr(dbt_build, "build", lambda *arguments, **_: built.append(arguments))
    run_status(capsys)
    # As made by another machine: good as they are.
    monkeypatch.setenv("LANDFALL_STATE_DIR", os.environ["LANDFALL_STATE_DIR"] + "-other")
    run_status(capsys)
    assert built == []


def test_status_knows_a_run_whose_process_is_gone(
    monitored: Warehouse, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = host_identity()
    log.completed("killed", HOURLY)
    log.run("killed", 60.0, started={"host": here, "pid": gone.pid})
    log.completed("alive", HOURLY)
    log.run("alive", 60.0, started={"host": here, "pid": os.getpid()})
    log.write(monitored)
    code, lines = run_status(capsys, "--json", "--limit", "100")
    told = json.loads("\n".join(lines))
    found = {each["connection_name"]: each for each in told["connections"]}
    assert code == 1
    assert [found["killed"][name] for name in ("state", "last_state", "consecutive_failures")] == [
        "failing",
        "orphaned",
        1,
    ]
    assert [found["alive"][name] for name in ("state", "last_state")] == ["ok", "running"]
    assert sorted(run["state"] for run in told["runs"] if run["state"] != "completed") == [
        "orphaned",
        "running",
    ]


@pytest.mark.slow
def test_colours_are_for_terminals_that_want_them(
    monitored: Warehouse, project: Project, log: Log
) -> None:
    log.run("me", HOUR, "SourceError")
    log.write(monitored)

    def printed(**environment: str) -> str:
        reader, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, str(PROJECT_DIR / "loaders" / "run.py"), "status"],
            env={**os.environ, "TERM": "xterm", **environment},
            stdout=terminal,
        )
        assert process.wait(60) == 1
        os.close(terminal)
        text = os.read(reader, 100_000).decode()
        os.close(reader)
        return text

    assert "\x1b[31mfailing\x1b[0m" in printed()
    plain = printed(NO_COLOR="1")
    assert "failing" in plain
    assert "\x1b" not in plain
    assert "\x1b" not in project.run_cli("status").stdout


# ---- who builds the views


@pytest.mark.slow
def test_a_run_builds_the_views_when_they_lack_or_have_changed(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[bool] = []
    build = dbt_build.build

    def noted(target: Any, correlation_id: str, arguments: Sequence[str], **options: Any) -> Any:
        built.append(f"tag:{MONITORING}" not in arguments)
        models = ("stg_landed_objects", "raw_objects", f"tag:{MONITORING}")
        no_tests = ("--exclude-resource-type", "test", "unit_test")
        selection = (*arguments, "--select", *models, *no_tests)
        return build(target, correlation_id, selection, **options)

    monkeypatch.setattr(dbt_build, "build", noted)
    assert run_scripted(warehouse, []).error is None
    assert {run["state"] for run in views.runs(warehouse, 5)} == {"completed"}
    assert run_scripted(warehouse, []).error is None
    warehouse.execute("drop view events.connection_health")
    assert run_scripted(warehouse, []).error is None
    monkeypatch.setattr(invocation, "views_fingerprint", lambda: "ofanotherrelease")
    assert run_scripted(warehouse, []).error is None
    assert run_scripted(warehouse, []).error is None
    assert built == [True, False, True, True, False]
    assert len(events(warehouse)) == 15


def replaced(warehouse: Warehouse, _project: Project | None = None) -> None:
    """Somebody makes a view of his own in the place of one."""
    table = warehouse.table("connection_health")
    columns = ", ".join(f"null as {name}" for name in views.CONNECTION_COLUMNS)
    warehouse.execute(f"create or replace view {table} as select * from (select {columns}) as one")


def edited(warehouse: Warehouse, project: Project) -> None:
    """Somebody edits a view's text in place, which BigQuery's pages and API allow."""
    if not isinstance(warehouse, BigQueryWarehouse):
        replaced(warehouse, project)
        return
    client = warehouse.client()
    view = client.get_table(warehouse.table("job_runs").replace("`", ""))
    view.view_query = f"select * from ({view.view_query}) limit 0"
    client.update_table(view, ["view_query"])
    assert view.labels


@pytest.mark.slow
@on_both_targets
@pytest.mark.parametrize("change", [replaced, edited])
def test_views_that_somebody_has_changed_are_built_anew(
    monitored: Warehouse,
    project: Project,
    log: Log,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Warehouse, Project], None],
) -> None:
    log.run("me", HOUR, "completed")
    log.write(monitored)
    views.build_views(monitored)
    assert views.is_current(monitored)
    change(monitored, project)
    assert not views.is_current(monitored)
    code, lines = run_status(capsys)
    assert code == 0
    assert any("acme.me" in line for line in lines)
    assert views.is_current(monitored)
    assert not (project.state_dir / "monitoring").exists()


@pytest.mark.slow
@on_both_targets
def test_views_of_a_plain_dbt_build_are_good_to_read_and_built_by_the_next_run(
    monitored: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.run_dbt("run", "--select", f"tag:{MONITORING}").success
    assert not views.is_current(monitored)
    monkeypatch.setattr(views, "build_views", None)  # nothing calls it
    views.ensure_views(monitored)


@pytest.mark.slow
def test_views_that_a_command_line_s_variables_have_shaped_are_not_the_project_s(
    monitored: Warehouse, project: Project
) -> None:
    arguments = ["--select", f"tag:{MONITORING}", "--vars", "{monitoring_days: 1}"]
    assert dbt_build.build(monitored.target, "job", arguments).error is None
    assert not views.is_current(monitored)


@pytest.mark.slow
def test_a_log_whose_runs_are_all_old_is_not_called_empty(
    monitored: Warehouse, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    log.run("me", 200 * DAY, "completed")
    log.write(monitored)
    code, [line] = run_status(capsys)
    assert code == 1
    assert "no run within monitoring_days" in line
    assert f"{log.now - dt.timedelta(days=200):%Y-%m-%d}" in line


def test_views_that_cannot_be_built_anew_are_one_clear_line(
    monitored: Warehouse,
    log: Log,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log.run("me", HOUR, "completed")
    log.write(monitored)
    replaced(monitored)
    refused = dbt_build.BuildResult(error=TransformFailed("dbt build: Access Denied"))
    monkeypatch.setattr(dbt_build, "build", lambda *_arguments: refused)
    for command in ("status", "dashboard"):
        code = main([command])
        out, err = capsys.readouterr()
        assert (code, out) == (1, "")
        [line] = err.strip().splitlines()
        assert "monitoring views of" in line
        assert "Access Denied" in line
