"""run.py alert: connections that are late, silent or failing."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from typing import Any

import pytest

from loaders.monitoring.alerts import incidents, messages, watch
from loaders.settings.places import PROJECT_DIR
from loaders.warehouse.base import Warehouse
from tests.python.cli.conftest import run_main
from tests.python.conftest import Project

from .conftest import DOWN, SUBJECT, Receiver, log_run, run_job, state, told

pytestmark = pytest.mark.usefixtures("stays_open", "own_secrets")


def hourly(warehouse: Warehouse, first: int, last: int, **run: Any) -> None:
    """A run an hour, from `first` hours ago to `last`."""
    with warehouse.open():
        for hours in range(first, last - 1, -1):
            log_run(warehouse, dt.timedelta(hours=hours), **run)


def add_dead_letter(warehouse: Warehouse) -> None:
    warehouse.execute(
        "insert into events_staging.dead_letters by name select 'letter-1' as dead_letter_id,"
        " 'gmail' as source_system, 'acct1' as connection_name, 'message' as object_type,"
        f" 'm1' as external_id, 'too deep' as reason, '{SUBJECT}' as payload, 1 as attempts,"
        " 'run-1' as correlation_id, now() as created_at, 'load-1' as _dlt_load_id"
    )
    warehouse.execute(
        "insert into events_staging._dlt_loads by name"
        " select 'load-1' as load_id, 0 as status, now() as inserted_at"
    )


def test_a_connection_that_is_late_then_silent_then_runs_again(
    monitored: Warehouse, receiver: Receiver
) -> None:
    hourly(monitored, 12, 2)
    assert told(monitored, receiver) == ["gmail.acct1 is late"]
    assert "--connection acct1" in receiver.posts[0]["message"]
    assert told(monitored, receiver) == []
    monitored.execute("update events.event_log set created_at = created_at - interval 9 hours")
    assert told(monitored, receiver) == ["gmail.acct1 is silent"]
    # A run that fails ends no silence.
    log_run(monitored, dt.timedelta(minutes=10), "gmail: 500")
    assert told(monitored, receiver) == ["gmail.acct1 fails"]
    log_run(monitored, dt.timedelta(minutes=5))
    # Its failure was told a moment ago, and the run that ends it ended before that.
    monitored.execute("update events.alerts set opened_at = opened_at - interval 1 hour")
    assert told(monitored, receiver) == [
        "gmail.acct1 fails: over",
        "gmail.acct1 is late: over",
        "gmail.acct1 is silent: over",
    ]
    assert told(monitored, receiver) == []


def shift(warehouse: Warehouse, days: float) -> None:
    """Let so many days go by."""
    with warehouse.open():
        for table, columns in (
            ("events.event_log", ("created_at",)),
            ("events.alerts", ("opened_at", "told_at")),
        ):
            settings = ", ".join(
                f"{name} = {name} - interval {round(days * 24)} hours" for name in columns
            )
            warehouse.execute(f"update {table} set {settings}")


def test_a_dead_connection_never_recovers_by_the_time_that_goes_by(
    monitored: Warehouse, receiver: Receiver
) -> None:
    with monitored.open():
        for day in range(12, 0, -1):
            log_run(monitored, dt.timedelta(days=day))
        add_dead_letter(monitored)
    shift(monitored, 6)
    assert told(monitored, receiver) == ["gmail.acct1 has dead letters", "gmail.acct1 is silent"]
    seen = []
    for days in (77, 4, 1.5, 5):  # 12 runs in monitoring_days, then 3, 1 and none
        shift(monitored, days)
        seen.append(state(monitored))
        assert told(monitored, receiver) == []
    assert seen == ["silent", "silent", "silent", None]
    # What is settled meanwhile is over also of a connection that has left the view.
    monitored.execute("update events_staging.dead_letters set dropped_at = now()")
    assert told(monitored, receiver) == ["gmail.acct1 has dead letters: over"]
    log_run(monitored, dt.timedelta(minutes=5))
    assert told(monitored, receiver) == ["gmail.acct1 is silent: over"]


def test_an_unusual_run_is_over_with_another_and_not_with_time(
    monitored: Warehouse, receiver: Receiver
) -> None:
    with monitored.open():
        for day in range(13, 0, -1):
            log_run(monitored, dt.timedelta(days=day), inserted=20)
        log_run(monitored, dt.timedelta(hours=1), inserted=4000)
    assert told(monitored, receiver) == ["gmail.acct1 landed an unusual number of rows"]
    shift(monitored, 80)  # fewer than ten are left to compare with
    assert told(monitored, receiver) == ["gmail.acct1 is silent"]
    log_run(monitored, dt.timedelta(minutes=1), inserted=20)
    assert told(monitored, receiver) == [
        "gmail.acct1 is silent: over",
        "gmail.acct1 landed an unusual number of rows: over",
    ]


def test_a_connection_that_brings_no_rows_is_over_when_some_come(
    monitored: Warehouse, receiver: Receiver
) -> None:
    with monitored.open():
        for day in range(40, 0, -1):
            log_run(monitored, dt.timedelta(days=day), inserted=1 if day > 20 else 0)
    assert state(monitored) == "silent"
    assert told(monitored, receiver) == ["gmail.acct1 brings no rows"]
    assert told(monitored, receiver) == []
    shift(monitored, 75)  # the last rows leave the view, runs without go on
    with monitored.open():
        for day in range(75, 0, -1):
            log_run(monitored, dt.timedelta(days=day), inserted=0)
    assert told(monitored, receiver) == []
    log_run(monitored, dt.timedelta(minutes=5), inserted=3)
    assert told(monitored, receiver) == ["gmail.acct1 brings no rows: over"]


@pytest.mark.parametrize("kind", [messages.LATE, messages.SILENT, messages.NO_ROWS])
def test_what_nobody_expects_to_run_any_more_is_over(kind: str) -> None:
    opened_at = dt.datetime.now(dt.UTC)
    incident = incidents.Incident(
        "id", "gmail", "acct1", "gmail_ingest_acct1", kind, None, "m", opened_at
    )
    row = {"state": "ok", "last_success_at": opened_at, "last_rows_at": None}
    assert watch._is_over(incident, {**row, "is_retired": True})
    assert not watch._is_over(incident, {**row, "is_retired": False})


def test_a_failing_connection_is_told_of_as_late_while_its_failures_are_too_few(
    monitored: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERTS__AFTER_FAILURES", "3")
    hourly(monitored, 14, 5)
    hourly(monitored, 4, 3, error_message="gmail: 500")
    assert state(monitored) == "failing"
    assert told(monitored, receiver) == ["gmail.acct1 is late"]
    assert "the last success was 4 h ago" in receiver.posts[0]["message"]
    assert told(monitored, receiver) == []
    log_run(monitored, dt.timedelta(minutes=10), "gmail: 500")
    assert told(monitored, receiver) == ["gmail.acct1 fails"]


def test_what_the_runner_told_is_not_told_by_the_watcher(
    monitored: Warehouse, receiver: Receiver
) -> None:
    hourly(monitored, 3, 1)
    run_job(monitored, DOWN)
    assert told(monitored, receiver) == []
    assert receiver.titles == ["gmail.acct1 fails"]
    # A run of another machine, without alerts, completes.
    log_run(monitored, dt.timedelta(seconds=-1))
    assert told(monitored, receiver) == ["gmail.acct1 fails: over"]


def test_only_repeated_failures_are_told_where_so_configured(
    monitored: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERTS__AFTER_FAILURES", "3")
    hourly(monitored, 5, 4)
    hourly(monitored, 3, 2, error_message="gmail: 500")
    assert told(monitored, receiver) == []
    log_run(monitored, dt.timedelta(hours=1), "gmail: 500")
    assert told(monitored, receiver) == ["gmail.acct1 fails"]
    assert "the last 3 runs failed, the last with: gmail: 500" in receiver.posts[0]["message"]


def test_dead_letters_and_an_unusual_number_of_rows(
    monitored: Warehouse, receiver: Receiver
) -> None:
    hourly(monitored, 13, 2, inserted=20)
    log_run(monitored, dt.timedelta(hours=1), inserted=4000)
    with monitored.open():
        add_dead_letter(monitored)
    assert told(monitored, receiver) == [
        "gmail.acct1 has dead letters",
        "gmail.acct1 landed an unusual number of rows",
    ]
    text = json.dumps(receiver.posts)
    assert "1 object(s) could not be stored" in text
    assert "4000 rows, usually about 20" in text
    assert "canary" not in text
    assert told(monitored, receiver) == []
    monitored.execute("update events_staging.dead_letters set dropped_at = now()")
    log_run(monitored, dt.timedelta(minutes=1), inserted=21)
    assert told(monitored, receiver) == [
        "gmail.acct1 has dead letters: over",
        "gmail.acct1 landed an unusual number of rows: over",
    ]


@pytest.mark.slow
def test_two_watchers_at_once_send_one_message(
    monitored: Warehouse, project: Project, receiver: Receiver
) -> None:
    hourly(monitored, 12, 2)
    command = [sys.executable, str(PROJECT_DIR / "loaders" / "run.py"), "alert"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert receiver.titles == ["gmail.acct1 is late"]


def test_two_watchers_between_each_others_steps_send_one_message(
    monitored: Warehouse, receiver: Receiver
) -> None:
    """Where no file keeps them apart: both have seen the same, one wins the claim."""
    hourly(monitored, 12, 2)
    both = [watch._update(monitored), watch._update(monitored)]
    assert [len(found) for found in both] == [1, 1]
    claims = [
        incidents.claim(monitored, found[0], sender, dt.datetime.now(dt.UTC)) is not None
        for found, sender in zip(both, "ab", strict=True)
    ]
    assert claims == [True, False]


def test_there_is_nothing_to_tell_without_a_warehouse(
    project: Project, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(capsys, "alert") == (0, "nothing is open\n", "")
    assert not project.duckdb_path.exists()
