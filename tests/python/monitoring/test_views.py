"""What the views say of a log."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from typing import Any

import pytest

from loaders.jobs.names import job_name_for
from loaders.jobs.processes import host_identity
from loaders.monitoring import health
from loaders.monitoring.alerts import job_end
from loaders.objects.items import Observed
from loaders.settings.times import grace
from loaders.transform import views
from loaders.warehouse.base import Warehouse
from loaders.warehouse.dead_letters import open_letters
from tests.python.conftest import (
    Project,
    at,
    on_both_targets,
    run_scripted,
)

from .conftest import DAY, ENDED, HOUR, HOURLY, INGESTED, MINUTE, Log, rows

pytestmark = pytest.mark.usefixtures("stays_open")


def states(warehouse: Warehouse) -> dict[str, str]:
    return {run["correlation_id"]: run["state"] for run in views.runs(warehouse, 1_000)}


def states_of(warehouse: Warehouse) -> dict[str, tuple[str, str]]:
    """State and reason by connection."""
    return {
        each["connection_name"]: (each["state"], each["reason"])
        for each in views.connections(warehouse)
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
