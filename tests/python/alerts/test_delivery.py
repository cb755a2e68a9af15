"""What a service does not take, and a warehouse or a process that ends."""

from __future__ import annotations

import datetime as dt
import json
import logging
import signal
import subprocess
import sys

import pytest

from loaders.jobs.job import Job
from loaders.monitoring.alerts import channels, incidents, job_end, messages
from loaders.monitoring.alerts.delivery import Delivery
from loaders.settings.places import PROJECT_DIR
from loaders.warehouse.base import Warehouse
from tests.python.cli.conftest import one_line, run_main
from tests.python.cli.test_commands import held_by_another_process
from tests.python.conftest import Project, event_types

from .conftest import DOWN, TOKEN, Receiver, marks, rows, run_job

pytestmark = pytest.mark.usefixtures("stays_open", "own_secrets")


def test_an_undelivered_alert_is_seen_and_sent_later_once(
    monitored: Warehouse, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.status = 500
    assert run_job(monitored, DOWN) is DOWN
    assert event_types(monitored) == ["job.started", "job.failed"]
    [incident] = rows(monitored)
    assert (incident.told_at, incident.delivery_error) == (
        None,
        "1 json: the service answered 500",
    )
    code, _, err = run_main(capsys, "status")
    assert code == 1
    assert "gmail_ingest_acct1 failing" in one_line(err)
    assert "the service answered 500" in one_line(err)

    code, out, err = run_main(capsys, "alert")
    assert code == 1
    assert "the service answered 500" in out
    assert "alert not delivered to 1 json" in one_line(err)

    receiver.status = 200
    for _ in range(2):
        code, out, _ = run_main(capsys, "alert")
        assert code == 0
        assert "1 json" in out
    assert receiver.titles == ["gmail.acct1 fails"]
    assert run_main(capsys, "status")[2] == ""


def test_only_who_was_not_told_is_told_again(
    warehouse: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Receiver()
    monkeypatch.setenv("ALERTS__URLS", json.dumps([receiver.url(), other.url()]))
    other.status = 503
    run_job(warehouse, DOWN)
    [incident] = rows(warehouse)
    assert (incident.told_to, incident.told_at) == (marks()[0], None)
    assert incident.delivery_error == "2 json: the service answered 503"
    # The end is told to whoever knew of the beginning.
    other.status = 200
    run_job(warehouse)
    assert receiver.titles == ["gmail.acct1 fails", "gmail.acct1 fails: over"]
    assert other.posts == []

    other.status = 503
    run_job(warehouse, DOWN)
    other.status = 200
    run_job(warehouse, DOWN)  # the next failed run tells who has not been told
    assert other.titles == ["gmail.acct1 fails"]
    assert len(receiver.posts) == 3
    other.close()


@pytest.mark.parametrize("is_kept", [True, False], ids=["moved", "replaced"])
def test_who_is_to_know_of_the_end_is_known_by_the_url(
    warehouse: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    run_job(warehouse, DOWN)
    [incident] = rows(warehouse)
    assert TOKEN not in str(incident.told_to)
    other = Receiver()
    urls = [other.url(), *([receiver.url()] if is_kept else [])]
    monkeypatch.setenv("ALERTS__URLS", json.dumps(urls))
    run_job(warehouse)
    over = ["gmail.acct1 fails: over"]
    assert (receiver.titles[1:], other.titles) == ((over, []) if is_kept else ([], over))
    other.close()


def test_who_was_told_by_an_earlier_release_is_known_by_place_and_scheme(
    warehouse: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(warehouse, DOWN)
    warehouse.execute(f"update {warehouse.table('alerts')} set told_to = '1 json'")
    other = Receiver()
    monkeypatch.setenv("ALERTS__URLS", json.dumps([receiver.url(), other.url()]))
    run_job(warehouse)
    assert (receiver.titles[1:], other.titles) == (["gmail.acct1 fails: over"], [])
    other.close()


def test_the_mark_of_a_channel_does_not_tell_its_password() -> None:
    first, second, third = (
        channels.Channel("1 mailtos", f"mailtos://{user}@example.com?to=a@example.com").mark
        for user in ("me:one-password", "me:another", "you:one-password")
    )
    assert first == second != third


def test_two_tellers_at_once_tell_each_channel_once(
    warehouse: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked; the first reaches one service of two, then the second claims."""
    other = Receiver()
    other.status = 500
    monkeypatch.setenv("ALERTS__URLS", json.dumps([receiver.url(), other.url()]))
    key = incidents.Key("gmail", "acct1", "gmail_ingest_acct1", messages.FAILING)
    seen = incidents.open_incident(
        warehouse, key, [], correlation_id=None, message="m", now=dt.datetime.now(dt.UTC)
    )
    assert seen is not None
    for status_code in (500, 200):
        other.status = status_code
        delivery = Delivery(warehouse, seen, channels.configured_channels())
        assert delivery.claim()
        delivery.send()
        delivery.record()
    assert (len(receiver.posts), len(other.posts)) == (1, 1)
    [incident] = rows(warehouse)
    assert incident.told_to == ", ".join(marks())
    assert incident.told_at is not None
    other.close()


def test_a_service_that_hangs_ends_with_its_time(
    warehouse: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_end, "SEND_SECONDS", 0.3)
    receiver.answers.clear()
    assert run_job(warehouse, DOWN) is DOWN
    [incident] = rows(warehouse)
    # Apprise itself gives up after four seconds, and says otherwise.
    assert incident.delivery_error == "1 json: no answer in 0.3 s"
    assert event_types(warehouse) == ["job.started", "job.failed"]


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ("nonsense://x", "1 nonsense: no service takes this URL"),
        ("json://127.0.0.1:1", "1 json: the service could not be reached"),
        ("no-scheme-at-all-canary", "1 unknown: no service takes this URL"),
        ("[", "expected a list of Apprise URLs"),
    ],
)
def test_a_wrong_url_changes_nothing_of_the_job(
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    urls: str,
    said: str,
) -> None:
    monkeypatch.setenv("ALERTS__URLS", urls)
    assert run_job(warehouse, DOWN) is DOWN
    assert run_job(warehouse) is None
    assert event_types(warehouse)[1::2] == ["job.failed", "job.completed"]
    warned = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert said.removeprefix("1 ").split(": ")[-1] in warned[0]
    assert "canary" not in " ".join(warned)
    assert [
        each.delivery_error for each in rows(warehouse) if said not in str(each.delivery_error)
    ] == []


def test_a_warehouse_that_cannot_be_asked_keeps_nobody_from_being_told(
    warehouse: Warehouse,
    project: Project,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_end, "WAREHOUSE_SECONDS", 0.5)
    job = Job(
        warehouse,
        job_name="gmail_ingest_acct1",
        source_system="gmail",
        connection_name="acct1",
    )
    job.start()
    with held_by_another_process(project.duckdb_path):
        job.fail(DOWN)
        job_end.tell(job)
    assert receiver.titles == ["gmail.acct1 fails"]
    assert rows(warehouse) == []
    project.duckdb_path.unlink()
    job_end.tell_failure(
        job_end.EndedJob(warehouse.target, "gmail", "acct1", "gmail_ingest_acct1", "run-1"), DOWN
    )
    assert len(receiver.posts) == 2
    assert not project.duckdb_path.exists()


_INTERRUPTED = """
import time
from loaders.jobs.job import Job
from loaders.monitoring.alerts.job_end import run_and_tell
from loaders.settings.target import load_target
from loaders.warehouse.opening import open_warehouse
job = Job(open_warehouse(load_target()), job_name="gmail_ingest_acct1", source_system="gmail",
          connection_name="acct1", timeout_seconds=TIMEOUT)
def work():
    job.start()
    print("started", flush=True)
    with job.warehouse.open():
        time.sleep(60)
run_and_tell(job, work)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["signal", "timeout"])
def test_a_run_that_is_ended_tells_while_its_work_hangs(
    warehouse: Warehouse, receiver: Receiver, how: str
) -> None:
    script = _INTERRUPTED.replace("TIMEOUT", "60" if how == "signal" else "1.5")
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=PROJECT_DIR, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    if how == "signal":
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == (143 if how == "signal" else 124)
    process.stdout.close()
    assert event_types(warehouse) == ["job.started", "job.failed"]
    assert receiver.titles == ["gmail.acct1 fails"]
    assert ("Interrupted" if how == "signal" else "TimedOut") in receiver.posts[0]["message"]
    if how == "timeout":  # after a signal there may be no time to record it
        [incident] = rows(warehouse)
        assert incident.told_at is not None


def test_a_sender_that_dies_is_followed_by_another(
    warehouse: Warehouse, receiver: Receiver
) -> None:
    now = dt.datetime.now(dt.UTC)
    key = incidents.Key("gmail", "acct1", "gmail_ingest_acct1", messages.FAILING)
    incident = incidents.open_incident(
        warehouse, key, [], correlation_id=None, message="m", now=now
    )
    assert incident is not None
    assert incidents.claim(warehouse, incident, "first", now)
    assert not incidents.claim(warehouse, incident, "second", now)
    later = now + incidents.CLAIM_LASTS + dt.timedelta(seconds=1)
    assert incidents.claim(warehouse, incident, "second", later)
    # What the first records after that counts for nothing.
    incidents.record(warehouse, incident, "first", ["1 json"], None, later)
    assert rows(warehouse)[0].told_at is None
    incidents.record(warehouse, incident, "second", ["1 json"], None, later)
    assert rows(warehouse)[0].told_to == "1 json"
    assert not incidents.claim(warehouse, incident, "third", later + 2 * incidents.CLAIM_LASTS)
