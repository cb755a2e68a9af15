"""A run that finds nothing: what it leaves out, and when it must not."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders import upsert
from loaders.ingestion import checking
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.jobs.event_log import log_event
from loaders.objects.items import Cursor, ObservationClock, Observed
from loaders.settings.places import PROJECT_DIR
from loaders.transform import dbt_build
from loaders.upsert import upsert_objects
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from tests.python.conftest import (
    Project,
    Run,
    ScriptedSource,
    at,
    events,
    on_both_targets,
    prepared,
    run_gmail,
    run_scripted,
    run_stripe,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("stays_open")]

ACME = ("acme", "acct1")


def widget(name: str, seconds: float = 1.0) -> Observed:
    return Observed("widget", json.dumps({"id": name}), at(seconds), name)


@pytest.fixture
def settled(project: Project) -> Warehouse:
    """A warehouse whose connection acme.acct1 has run, with all its checks."""

    def prepare(warehouse: Warehouse) -> None:
        run = run_scripted(warehouse, [widget("w1"), Cursor("s", {"n": 1}, at(2))])
        assert run.error is None

    return prepared(project, "settled", prepare)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each build from now on tests the whole store."""
    found: list[bool] = []
    build = dbt_build.build

    def noted(*arguments: Any, **named: Any) -> dbt_build.BuildResult:
        found.append(named["is_full"])
        return build(*arguments, **named)

    monkeypatch.setattr(dbt_build, "build", noted)
    return found


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, settled: Warehouse) -> list[str]:
    """The statements that a run sends from now on, transactions and settings apart."""
    found: list[str] = []
    kind = type(settled)
    for name in ("execute", "stream"):
        method = getattr(kind, name)

        def noted(self: Any, sql: str, parameters: Any = (), method: Any = method) -> Any:
            found.append(sql)
            return method(self, sql, parameters)

        monkeypatch.setattr(kind, name, noted)
    return found


def end(warehouse: Warehouse, run: Run) -> dict[str, Any]:
    payload: dict[str, Any] = events(warehouse, run.correlation_id)[-1]["payload"]
    return payload


def idle(warehouse: Warehouse) -> Run:
    """A run that finds nothing new."""
    return run_scripted(warehouse, [])


@on_both_targets
def test_a_run_that_finds_nothing_builds_nothing_and_says_by_whose_checks_it_goes(
    settled: Warehouse, builds: list[bool]
) -> None:
    [first] = {event["correlation_id"] for event in events(settled)}
    run = idle(settled)
    assert run.error is None
    assert builds == []
    told = events(settled, run.correlation_id)
    assert [event["event_type"] for event in told] == [
        "job.started",
        "ingestion.completed",
        "job.completed",
    ]
    payload = told[-1]["payload"]
    assert payload["merge"] == "skipped"
    assert payload["reason"]
    assert payload["checks"]["run"] == first
    assert payload["inserted"] == 0
    assert payload["rescued"] == {}
    again = idle(settled)
    assert end(settled, again)["checks"] == payload["checks"]


@on_both_targets
def test_what_it_leaves_passes_every_acceptance_test(settled: Warehouse, project: Project) -> None:
    for _ in range(3):
        assert idle(settled).error is None
    assert project.run_dbt("test", "--select", "test_type:singular").success


def test_it_reads_no_stored_object(settled: Warehouse, sent: list[str]) -> None:
    assert idle(settled).error is None
    assert sent
    of_objects = [sql for sql in sent if re.search(r"raw_objects", sql)]
    assert of_objects == []


def test_neither_dbt_nor_what_lands_is_loaded(settled: Warehouse, project: Project) -> None:
    # A process of its own: this one has loaded both.
    script = (
        "import sys; sys.modules['dbt.cli.main'] = sys.modules['dlt.pipeline'] = None\n"
        "from loaders.ingestion.ingest import Ingestion, IngestOptions\n"
        "from loaders.settings.target import load_target\n"
        "from loaders.warehouse.opening import open_warehouse\n"
        "class Nothing:\n"
        "    source_system, volatile_keys = 'acme', ()\n"
        "    idem_key = created_at = None\n"
        "    def fetch(self, request): return iter(())\n"
        "    def close(self): pass\n"
        "Ingestion(open_warehouse(load_target()), Nothing, source_system='acme',"
        " connection_name='acct1', options=IngestOptions()).run()\n"
        "print([name for name in ('dbt', 'dlt', 'pyarrow') if name in sys.modules])\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT_DIR, capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "[]"


@on_both_targets
def test_a_new_object_is_merged_and_only_what_the_run_touched_is_tested(
    settled: Warehouse, builds: list[bool]
) -> None:
    run = run_scripted(settled, [widget("w2", 10)])
    assert run.error is None
    assert builds == [False]
    assert run.counts["inserted"] == 1
    checks = end(settled, run)["checks"]
    assert checks["run"] == run.correlation_id
    assert checks["full_at"] < checks["at"]
    assert end(settled, idle(settled))["checks"] == checks


def test_tests_of_what_a_run_touched_find_what_is_wrong_with_it(
    settled: Warehouse, builds: list[bool]
) -> None:
    # An observation of the far future, by somebody's own loader: then one that is earlier.
    settled.execute(
        "update events.raw_objects set first_seen = last_seen + interval '1' day where true"
    )
    run = run_scripted(settled, [widget("w1", 20)])
    assert builds == [False]
    assert run.error is not None
    assert "assert_object_timestamps" in str(run.error)


def test_a_check_that_failed_stays_due_until_it_passes(
    settled: Warehouse, builds: list[bool]
) -> None:
    now = dt.datetime.now(dt.UTC)
    log_event(
        settled,
        "job.completed",
        source_system="acme",
        connection_name="acct1",
        object_type="job_run",
        correlation_id="without-a-start",
        payload={"job_name": "other"},
        created_at=now,
        event_id="planted",
    )
    failed = run_scripted(settled, [widget("w3", 30)])
    assert failed.error is not None
    for _ in range(2):
        still = idle(settled)
        assert still.error is not None
        assert "checks" not in end(settled, still)
    assert builds == [False, True, True]
    settled.execute("delete from events.event_log where event_id = 'planted'")
    passes = idle(settled)
    assert passes.error is None
    # For ten minutes the failed ones may be later: the clocks of two hosts may differ so much.
    assert idle(settled).error is None
    assert builds == [False, True, True, True, True]
    settled.execute(
        "update events.event_log set created_at = created_at - interval '1' hour"
        " where event_type = 'job.failed'"
    )
    assert idle(settled).error is None
    assert len(builds) == 5


def test_checks_that_were_never_done_are_due(
    settled: Warehouse, builds: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Ingestion, "_summarize", lambda *_: 1 / 0)
        run_with_a_crash(settled)
    assert builds == [False]
    assert idle(settled).error is None
    assert builds == [False, True]


def run_with_a_crash(warehouse: Warehouse) -> None:
    source = ScriptedSource([widget("w4", 40)])
    ingestion = Ingestion(
        warehouse,
        lambda: source,
        source_system="acme",
        connection_name="acct1",
        options=IngestOptions(),
    )
    with pytest.raises(ZeroDivisionError):
        ingestion.run()


@pytest.mark.parametrize(
    ("age", "expected"), [(dt.timedelta(hours=23), []), (dt.timedelta(hours=25), [True])]
)
def test_the_whole_store_is_tested_again_after_full_check_hours(
    settled: Warehouse, builds: list[bool], age: dt.timedelta, expected: list[bool]
) -> None:
    age_checks(settled, age)
    assert idle(settled).error is None
    assert builds == expected
    if expected:
        assert idle(settled).error is None
        assert builds == expected


def test_checks_of_the_future_are_due(settled: Warehouse, builds: list[bool]) -> None:
    age_checks(settled, -dt.timedelta(days=400))
    assert idle(settled).error is None
    assert builds == [True]


@on_both_targets
def test_checks_of_a_run_that_the_log_does_not_know_are_due(
    settled: Warehouse, builds: list[bool]
) -> None:
    """As when the file was swapped for another while a run that found nothing read its source."""
    assert idle(settled).error is None
    assert builds == []
    [first, *_] = [event["correlation_id"] for event in events(settled)]
    settled.execute("delete from events.event_log where correlation_id = ?", (first,))
    idle(settled)
    assert builds == [True]


@on_both_targets
def test_a_check_that_failed_is_due_whatever_clock_a_later_end_has(
    settled: Warehouse, builds: list[bool]
) -> None:
    """An end of a machine that is hours ahead does not hide one of now."""
    ahead = idle(settled)
    [last] = [
        each for each in events(settled, ahead.correlation_id) if "job.c" in each["event_type"]
    ]
    settled.execute("delete from events.event_log where event_id = ?", (last["event_id"],))
    log_event(
        settled,
        "job.completed",
        source_system="acme",
        connection_name="acct1",
        object_type="job_run",
        correlation_id=ahead.correlation_id,
        payload=last["payload"],
        created_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=5),
    )
    log_event(
        settled,
        "job.failed",
        source_system="acme",
        connection_name="acct1",
        object_type="job_run",
        correlation_id="acme_ingest_acct1-failed",
        error_message="a check failed",
        payload={"job_name": "acme_ingest_acct1", "step": "check"},
    )
    idle(settled)
    assert builds == [True]


def test_a_table_that_had_to_be_made_again_makes_all_checks_due(
    settled: Warehouse, builds: list[bool]
) -> None:
    settled.execute("drop table events.raw_objects cascade")
    run = idle(settled)
    assert builds == [True]
    assert run.error is not None
    assert "assert_store_matches_log" in str(run.error)


def test_in_a_warehouse_without_the_seed_all_checks_are_due(
    settled: Warehouse, builds: list[bool]
) -> None:
    """As in a copy, whose log tells of the checks of another warehouse."""
    settled.execute("drop table events.accepted_violations cascade")
    assert idle(settled).error is None
    assert builds == [True]


def test_a_log_with_a_doubled_start_is_read(settled: Warehouse, builds: list[bool]) -> None:
    settled.execute(
        "insert into events.event_log by name select * replace ('again' as event_id)"
        " from events.event_log where event_type = 'job.started'"
    )
    assert idle(settled).error is None
    assert builds == []


@pytest.mark.parametrize("told", ["null", "{}", '{"run": "r", "at": "x", "full_at": "x"}', "[1]"])
def test_checks_that_are_not_to_be_read_are_due(told: str) -> None:
    assert checking.Checks.read(told) is None
    naive = '{"run": "r", "at": "2026-01-01T00:00:00", "full_at": "2026-01-01T00:00:00"}'
    assert checking.Checks.read(naive) is None
    assert checking.Checks.read(naive.replace("00:00:00", "00:00:00Z")) is not None


def age_checks(warehouse: Warehouse, age: dt.timedelta) -> None:
    """The last full check was so long ago."""
    row = [event for event in events(warehouse) if event["event_type"] == "job.completed"][-1]
    row["payload"]["checks"]["full_at"] = (dt.datetime.now(dt.UTC) - age).isoformat()
    warehouse.execute(
        "update events.event_log set payload = cast(? as json) where event_id = ?",
        (json.dumps(row["payload"]), row["event_id"]),
    )


@pytest.mark.parametrize("value", ["24h", -1, 721, True, None])
def test_a_wrong_full_check_hours_is_one_clear_line(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loaders.errors import ConfigError

    project = {"vars": {"full_check_hours": value}}
    monkeypatch.setattr("loaders.ingestion.checking.yaml.load", lambda *_, **__: project)
    with pytest.raises(ConfigError, match="full_check_hours: expected a number of hours"):
        checking.full_check_hours()


@on_both_targets
def test_what_a_dead_run_of_another_connection_left_is_merged(
    settled: Warehouse, builds: list[bool]
) -> None:
    other = upsert_objects(
        [{"id": "b1"}],
        source_system="acme",
        connection_name="acct2",
        object_type="widget",
        idem_key_fn=lambda payload: f"acme:acct2:widget:{payload['id']}",
        merge=False,
        warehouse=settled,
    )
    run = idle(settled)
    assert run.error is None
    assert len(builds) == 1
    assert end(settled, run)["rescued"] == {"inserted": other.landed}


@on_both_targets
def test_what_a_run_under_way_has_queued_is_left_to_it(
    settled: Warehouse, builds: list[bool]
) -> None:
    run_id = "acme_ingest_acct2-20261130000000-0000"
    log_event(
        settled,
        "job.started",
        source_system="acme",
        connection_name="acct2",
        object_type="job_run",
        correlation_id=run_id,
        payload={"job_name": "acme_ingest_acct2", "timeout_seconds": 3600},
    )
    upsert_objects(
        [{"id": "b1"}],
        source_system="acme",
        connection_name="acct2",
        object_type="widget",
        idem_key_fn=lambda payload: f"acme:acct2:widget:{payload['id']}",
        merge=False,
        correlation_id=run_id,
        warehouse=settled,
    )
    assert idle(settled).error is None
    assert builds == []
    [[queued]] = settled.execute("select count(*) from events_staging.landed_objects")
    assert queued == 1


@on_both_targets
@pytest.mark.parametrize("view", ["stg_landed_objects", "job_runs"])
def test_a_view_that_is_not_the_project_s_is_made_again(
    settled: Warehouse, builds: list[bool], view: str
) -> None:
    settled.execute(f"create or replace view events.{view} as select 1 as one")
    run = idle(settled)
    assert run.error is None
    assert builds == [False]
    assert idle(settled).error is None
    assert builds == [False]
    assert "one" not in {
        name for name, each in settled.views([view]).items() for name in each.columns
    }


def test_a_position_that_only_stands_further_on_waits_for_a_package(
    settled: Warehouse, builds: list[bool]
) -> None:
    further = [Cursor("s", {"n": 2}, at(50), can_wait=True)]
    assert run_scripted(settled, further).error is None
    assert Stored(settled, *ACME).cursor("s") == {"n": 1}
    assert builds == []
    assert run_scripted(settled, [Cursor("s", {"n": 3}, at(51))]).error is None
    assert Stored(settled, *ACME).cursor("s") == {"n": 3}


def test_a_position_of_yesterday_is_landed_whatever_it_is(settled: Warehouse) -> None:
    settled.execute(
        "update events_staging.cursors set observed_at = observed_at - interval '25' hour"
        " where true"
    )
    before = Stored(settled, *ACME).position.head
    further = [Cursor("s", {"n": 2}, at(50), can_wait=True)]
    assert run_scripted(settled, further).error is None
    after = Stored(settled, *ACME).position
    assert after.cursors == {"s": {"n": 2}}
    assert after.head != before


def test_what_was_observed_without_a_position_is_not_older_than_what_comes(
    settled: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Somebody's job whose clock is an hour ahead lands, and its objects are merged.
    ahead = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)

    with monkeypatch.context() as patched:
        patched.setattr(upsert, "ObservationClock", lambda *_: ObservationClock(ahead))
        upsert_objects(
            [{"id": "w1", "n": 2}],
            source_system="acme",
            connection_name="acct1",
            object_type="widget",
            idem_key_fn=lambda payload: f"acme:acct1:widget:{payload['id']}",
            merge=False,
            warehouse=settled,
        )
    assert idle(settled).error is None  # which merges it
    newest = Stored(settled, *ACME).newest_observation()
    assert newest is not None
    assert newest >= ahead


def test_a_mailbox_and_an_account_where_nothing_is_new(
    warehouse: Warehouse, sandbox: Sandbox, builds: list[bool]
) -> None:
    for run in (run_gmail, run_stripe):
        builds.clear()
        assert run(warehouse, sandbox).error is None
        assert builds == [True]
        run(warehouse, sandbox)  # Stripe's balance transactions that are due
        builds.clear()
        again = run(warehouse, sandbox)
        assert again.error is None
        assert builds == []
        assert again.telemetry["records_extracted"] == 0
