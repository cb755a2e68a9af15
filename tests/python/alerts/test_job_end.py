"""A run that failed tells so, once, and that it is over."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
from typing import Any

import pytest

from loaders.errors import LandfallError, WarehouseBusy, redact
from loaders.ingestion.ingest import IngestOptions
from loaders.jobs.job import LeaseLost
from loaders.jobs.names import job_name_for
from loaders.monitoring.alerts import channels, incidents, job_end, watch
from loaders.warehouse.base import Warehouse
from tests.python.cli.conftest import run_main
from tests.python.conftest import on_both_targets

from .conftest import DOWN, SUBJECT, TOKEN, Receiver, log_run, marks, rows, run_job, told

pytestmark = pytest.mark.usefixtures("stays_open", "own_secrets")


RETRY = {"retry": True}


BACKFILL = {"retry": False, "until": "2020-01-01T00:00:00+00:00"}


NEWER = {"retry": False, "since": "2020-01-01T00:00:00+00:00"}


SOME_TYPES = {"retry": False, "objects": ["charge"]}


@on_both_targets
def test_a_failing_job_tells_once_and_once_that_it_works_again(
    warehouse: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERTS__AFTER_FAILURES", "2")
    assert run_job(warehouse, DOWN) is DOWN
    assert receiver.posts == []
    assert run_job(warehouse, DOWN) is DOWN
    [post] = receiver.posts
    assert post["title"] == "Landfall: gmail.acct1 fails"
    assert post["type"] == "failure"
    [incident] = rows(warehouse)
    lines = dict(line.split(": ", 1) for line in post["message"].splitlines())
    assert lines.keys() == {"error", "run", "next", "since", "warehouse"}
    assert lines["error"] == "SourceError: gmail: acct1: the API answers 500; run again later"
    assert lines["run"] == incident.correlation_id
    assert (incident.told_to, incident.delivery_error) == (marks()[0], None)

    assert run_job(warehouse) is None
    assert receiver.titles[1:] == ["gmail.acct1 fails: over"]
    assert receiver.posts[1]["type"] == "success"
    [incident] = rows(warehouse)
    assert incident.recovery_told_to == marks()[0]
    assert not incident.is_pending


def test_each_incident_of_a_job_is_told_once(warehouse: Warehouse, receiver: Receiver) -> None:
    for _ in range(2):
        run_job(warehouse, DOWN)
        run_job(warehouse, DOWN)
        run_job(warehouse)
        run_job(warehouse)
    assert receiver.titles == ["gmail.acct1 fails", "gmail.acct1 fails: over"] * 2
    assert [each.is_open for each in rows(warehouse)] == [False, False]


@on_both_targets
def test_the_watchers_own_statement_runs(warehouse: Warehouse) -> None:
    """The rest of its SQL is that of the end of a job, and of connection_health."""
    runs = [
        f"select 'gmail' as source_system, 'acct1' as connection_name,"
        f" 'gmail_ingest_acct1' as job_name, 'completed' as state, {is_sync} as is_sync,"
        f" true as is_ingestion, {is_retry} as is_retry, current_timestamp as ended_at"
        for is_sync, is_retry in (("true", "false"), ("false", "true"), ("false", "false"))
    ]
    runs.append(runs[0].replace("ingest", "verify").replace("true", "false"))
    warehouse.execute(f"create table {warehouse.table('job_runs')} as {' union all '.join(runs)}")
    completed = watch._completed_runs(warehouse)
    assert sorted(key.job_name for key in completed) == [
        f"gmail_{what}_acct1" for what in ("backfill", "ingest", "retry", "verify")
    ]
    assert {key.connection_name for key in completed} == {"acct1"}
    assert all(ended_at.tzinfo is not None for ended_at in completed.values())


def test_nothing_is_kept_or_sent_when_no_url_is_configured(warehouse: Warehouse) -> None:
    assert run_job(warehouse, DOWN) is DOWN
    assert rows(warehouse) == []


def test_a_run_that_gave_way_to_another_is_no_failure(
    warehouse: Warehouse, receiver: Receiver
) -> None:
    run_job(warehouse, WarehouseBusy("gmail: connection 'acct1' is being run"))
    run_job(warehouse, LeaseLost("gmail_ingest_acct1: a later run took it for dead"))
    assert receiver.posts == []


def test_jobs_of_a_connection_are_told_apart(warehouse: Warehouse, receiver: Receiver) -> None:
    run_job(warehouse, DOWN, what="verify")
    run_job(warehouse)
    assert receiver.titles == ["gmail_verify_acct1 fails"]
    run_job(warehouse, what="verify")
    assert receiver.titles[1:] == ["gmail_verify_acct1 fails: over"]


def test_connections_whose_jobs_have_one_name_are_told_apart(
    monitored: Warehouse, receiver: Receiver
) -> None:
    run_job(monitored, DOWN, connection="a-b")
    run_job(monitored, connection="a_b")
    assert told(monitored, receiver) == []
    run_job(monitored, DOWN, connection="a_b")
    assert receiver.titles == ["gmail.a-b fails", "gmail.a_b fails"]
    run_job(monitored, connection="a-b")
    assert receiver.titles[2:] == ["gmail.a-b fails: over"]


@on_both_targets
def test_only_a_sync_begins_and_ends_the_failure_of_its_connection(
    warehouse: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERTS__AFTER_FAILURES", "2")
    run_job(warehouse, DOWN, parameters=RETRY)
    run_job(warehouse, DOWN)
    run_job(warehouse, parameters=RETRY)
    assert receiver.posts == []
    run_job(warehouse, DOWN)  # the second sync
    for parameters in (RETRY, BACKFILL, NEWER, SOME_TYPES):
        run_job(warehouse, parameters=parameters)
    assert receiver.titles == ["gmail.acct1 fails"]
    run_job(warehouse)
    assert receiver.titles[1:] == ["gmail.acct1 fails: over"]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (RETRY, "gmail_retry_acct1"),
        (BACKFILL, "gmail_backfill_acct1"),
        (NEWER, "gmail_backfill_acct1"),
        (SOME_TYPES, "gmail_backfill_acct1"),
    ],
    ids=["retry", "until", "since", "objects"],
)
def test_a_run_that_is_no_sync_is_told_on_its_own(
    monitored: Warehouse, receiver: Receiver, parameters: dict[str, Any], name: str
) -> None:
    other = BACKFILL if parameters is RETRY else RETRY
    for _ in range(2):
        run_job(monitored, DOWN, parameters=parameters)
        run_job(monitored)
        run_job(monitored, parameters=other)
        assert told(monitored, receiver) == []
    assert receiver.titles == [f"{name} fails"]
    # It completes where nobody is told; the watcher sees it.
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("ALERTS__URLS")
        run_job(monitored, parameters=parameters)
    assert told(monitored, receiver) == [f"{name} fails: over"]


@on_both_targets
def test_the_runner_and_the_views_agree_on_what_a_run_is_for(monitored: Warehouse) -> None:
    moment = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    parts = {"since": moment, "until": moment, "objects": ("charge",), "retry": True}
    whole = IngestOptions(full_resync=True, batch_size=9, max_duration=60.0, max_objects=5)
    asked = {"whole": whole}
    for count in range(len(parts) + 1):
        for names in itertools.combinations(parts, count):
            chosen: dict[str, Any] = {name: parts[name] for name in names}
            asked["_".join(("run", *names))] = IngestOptions(**chosen)
    keys = {}
    with monitored.open():
        for connection, options in asked.items():
            run = log_run(
                monitored,
                dt.timedelta(hours=1),
                connection=connection,
                parameters=options.parameters(),
            )
            name = job_name_for("gmail", connection)
            job = job_end.EndedJob(monitored.target, "gmail", connection, name, run)
            keys[connection] = job_end.failure_of(job, job_end._Teller(job, [])._purpose())
    assert set(watch._completed_runs(monitored)) == set(keys.values())
    for connection, key in keys.items():
        is_part = connection not in ("whole", "run")
        what = ("retry" if "retry" in connection else "backfill") if is_part else "ingest"
        assert key.job_name == f"gmail_{what}_{connection}"


def test_a_run_without_its_connection_ends_with_a_run_of_that(
    monitored: Warehouse, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    run_job(monitored, connection="nowhere")
    for _ in range(2):
        assert run_main(capsys, "gmail", "--connection", "nowhere")[0] == 2
        run_job(monitored)
        assert told(monitored, receiver) == []
    assert receiver.titles == ["gmail_ingest_nowhere fails"]
    run_job(monitored, connection="nowhere")
    assert receiver.titles[1:] == ["gmail_ingest_nowhere fails: over"]


def test_a_run_of_no_one_connection_ends_with_any_run_of_the_source(
    warehouse: Warehouse, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    run_job(warehouse, connection="nowhere")
    for _ in range(2):
        names = ("--connection", "nowhere", "--connection", "elsewhere")
        assert run_main(capsys, "gmail", *names)[0] == 2
    assert receiver.titles == ["gmail_ingest_unknown fails"]
    run_job(warehouse)
    assert receiver.titles[1:] == ["gmail_ingest_unknown fails: over"]


def test_an_incident_is_told_after_rows_of_earlier_ones_were_deleted(
    warehouse: Warehouse, receiver: Receiver
) -> None:
    for _ in range(3):
        run_job(warehouse, DOWN)
        run_job(warehouse)
    del receiver.posts[:]
    oldest = rows(warehouse)[0].alert_id
    warehouse.execute(f"delete from {warehouse.table('alerts')} where alert_id = ?", (oldest,))
    run_job(warehouse, DOWN)
    assert receiver.titles == ["gmail.acct1 fails"]
    assert len({each.alert_id for each in rows(warehouse)}) == 3


def test_two_who_see_the_same_open_one_incident(warehouse: Warehouse, receiver: Receiver) -> None:
    run_job(warehouse, DOWN)
    run_job(warehouse)
    known, key = rows(warehouse), rows(warehouse)[0].key
    for _ in range(2):
        incidents.open_incident(
            warehouse, key, known, correlation_id=None, message="m", now=dt.datetime.now(dt.UTC)
        )
    assert [each.is_open for each in rows(warehouse)] == [False, True]


def test_neither_secrets_nor_content_are_told(
    warehouse: Warehouse,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "Bearer ya29.canary-secret-7d"
    error = LandfallError(f"refused {secret} for {receiver.url()}; input: {SUBJECT}")
    run_job(warehouse, error)
    receiver.status = 500
    run_job(warehouse, error, what="verify")
    [post] = receiver.posts
    [told, untold] = [each.message for each in rows(warehouse)]
    errors = " ".join(str(each.delivery_error) for each in rows(warehouse))
    printed = capsys.readouterr()
    of_ours = [each for each in caplog.records if not each.name.startswith("urllib3")]
    logged = " ".join(each.getMessage() for each in of_ours)
    for text in (json.dumps(post), told, untold, errors, printed.out, printed.err, logged):
        for canary in (TOKEN, "canary-secret", "canary-subject"):
            assert canary not in text
    assert "***" in post["message"]
    assert redact(f"POST /{TOKEN} HTTP/1.1") == "POST /*** HTTP/1.1"
    assert TOKEN not in repr(channels.configured_channels())
    assert not any(each.name.startswith("apprise") for each in caplog.records)
