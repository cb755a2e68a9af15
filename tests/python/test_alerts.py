"""Alerts: once an incident, once when it is over, at a real webhook; never a matter of the job."""

from __future__ import annotations

import datetime as dt
import http.server
import itertools
import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import ConfigError, LandfallError, SourceError, WarehouseBusy, redact
from loaders.ingestion.ingest import IngestOptions
from loaders.jobs.event_log import log_event
from loaders.jobs.job import Job, LeaseLost
from loaders.jobs.names import job_name_for
from loaders.monitoring import health
from loaders.monitoring.alerts import channels, incidents, job_end, messages, watch
from loaders.monitoring.alerts.delivery import Delivery
from loaders.monitoring.alerts.job_end import run_and_tell
from loaders.settings.places import PROJECT_DIR
from loaders.sources.check_lines import CheckLines
from loaders.transform import bootstrap, views
from loaders.warehouse.base import Warehouse

from .conftest import Project, event_types, on_both_targets, prepared
from .test_cli import held_by_another_process, one_line, run_main

pytestmark = pytest.mark.usefixtures("stays_open", "own_secrets")

TOKEN = "canary4f7a9c2e1b08"
"""Stands in the receiver's URL, as a service's key does."""
SUBJECT = "Quarterly figures canary-subject"


class Receiver:
    """A webhook: keeps what it gets, answers as it is told."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = 200
        self.answers = threading.Event()
        """While it is not set nobody gets an answer."""
        self.answers.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.answers.wait(30)
                if receiver.status == 200:
                    receiver.paths.append(self.path)
                    receiver.posts.append(json.loads(body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path: str = TOKEN) -> str:
        return f"json://127.0.0.1:{self._server.server_port}/{path}"

    @property
    def titles(self) -> list[str]:
        return [post["title"].removeprefix("Landfall: ") for post in self.posts]

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(autouse=True)
def own_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the handlers that command lines of earlier tests have left, for a stderr that is
    closed."""
    root = logging.getLogger()
    kept = [each for each in root.handlers if type(each) is not logging.StreamHandler]
    monkeypatch.setattr(root, "handlers", kept)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A webhook, and alerts.urls that name it."""
    receiver = Receiver()
    monkeypatch.setenv("ALERTS__URLS", receiver.url())
    yield receiver
    receiver.close()


DOWN = SourceError("gmail: acct1: the API answers 500; run again later")


def run_job(
    warehouse: Warehouse,
    error: Exception | None = None,
    *,
    what: str = "ingest",
    connection: str = "acct1",
    parameters: dict[str, Any] | None = None,
) -> LandfallError | None:
    """One supervised run that does nothing, or fails; the error that it raised."""
    job = Job(
        warehouse,
        job_name=job_name_for("gmail", connection, what),
        source_system="gmail",
        connection_name=connection,
        parameters=parameters,
    )

    def work() -> None:
        job.start()
        if error is None:
            job.complete({"inserted": 0, "updated": 0})
            return
        job.fail(error)
        raise error

    try:
        run_and_tell(job, work)
    except LandfallError as raised:
        return raised
    return None


RETRY = {"retry": True}
BACKFILL = {"retry": False, "until": "2020-01-01T00:00:00+00:00"}
NEWER = {"retry": False, "since": "2020-01-01T00:00:00+00:00"}
SOME_TYPES = {"retry": False, "objects": ["charge"]}


def rows(warehouse: Warehouse) -> list[incidents.Incident]:
    return incidents.read(warehouse)


def marks() -> list[str]:
    """The configured channels, as told_to has them."""
    return [channel.mark for channel in channels.configured_channels()]


# ---- the end of a job


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


# ---- what a service does not take


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


# ---- a warehouse or a process that ends


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


# ---- run.py alert


def make_views(warehouse: Warehouse) -> None:
    bootstrap.bootstrap(warehouse)
    views.ensure_views(warehouse)


@pytest.fixture
def monitored(project: Project) -> Warehouse:
    """An empty warehouse with the monitoring views."""
    return prepared(project, "monitored", make_views)


def log_run(
    warehouse: Warehouse,
    ago: dt.timedelta,
    error_message: str | None = None,
    *,
    inserted: int = 5,
    connection: str = "acct1",
    parameters: Mapping[str, Any] | None = None,
) -> str:
    """A run of one minute that began so long ago. Its correlation_id."""
    began = dt.datetime.now(dt.UTC) - ago
    job_name = job_name_for("gmail", connection)
    end = {"job_name": job_name, "package_name": "landfall", "duration_seconds": 60.0}
    correlation_id = f"{job_name}-{began:%Y%m%d%H%M%S}-0000"
    start = {"job_name": job_name, "parameters": parameters or {}, "timeout_seconds": 3600}
    failed = error_message is not None
    more = {"error_type": "SourceError", "step": "extract", "retryable": True}
    for event_type, seconds, payload in (
        ("job.started", 0, start),
        (
            "job.failed" if failed else "job.completed",
            60,
            {**end, **(more if failed else {"inserted": inserted, "updated": 0})},
        ),
    ):
        log_event(
            warehouse,
            event_type,
            source_system="gmail",
            connection_name=connection,
            object_type="job_run",
            correlation_id=correlation_id,
            error_message=error_message if event_type == "job.failed" else None,
            payload=payload,
            created_at=began + dt.timedelta(seconds=seconds),
        )
    return correlation_id


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


def told(warehouse: Warehouse, receiver: Receiver) -> list[str]:
    """The titles that one more `run.py alert` sends."""
    before = len(receiver.posts)
    watch.watch(warehouse, channels.configured_channels())
    return sorted(receiver.titles[before:])


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


def state(warehouse: Warehouse) -> str | None:
    """Of the only connection; None when the view has none."""
    connections = health.read(warehouse, 1).connections
    return str(connections[0]["state"]) if connections else None


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


# ---- configuration


def test_a_test_message_goes_to_each_channel(
    project: Project,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALERTS__URLS", f"{receiver.url()} json://127.0.0.1:1/{TOKEN}")
    code, out, err = run_main(capsys, "alert", "--test")
    assert code == 1
    assert out.splitlines() == [
        "1 json: delivered",
        "2 json: NOT delivered: the service could not be reached",
    ]
    assert receiver.titles == ["a test"]
    assert receiver.posts[0]["type"] == "info"
    assert TOKEN not in out + err
    assert not project.duckdb_path.exists()
    monkeypatch.setenv("ALERTS__URLS", receiver.url())
    assert run_main(capsys, "alert", "--test")[0] == 0


def test_alerts_without_urls_are_wrong_usage(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["alert"], ["alert", "--test"]):
        code, _, err = run_main(capsys, *arguments)
        assert code == 2
        assert "ALERTS__URLS" in one_line(err)


@pytest.mark.parametrize(
    ("variables", "state", "said"),
    [
        ({}, "-", "alerts.urls is not configured"),
        ({"URLS": "json://127.0.0.1:1/x"}, "ok", "1 json"),
        ({"URLS": "nonsense://x"}, "FAILED", "1 nonsense: no service takes this URL"),
        ({"URLS": "json://x", "AFTER_FAILURES": "0"}, "FAILED", "after_failures"),
    ],
)
def test_check_says_whether_anybody_would_be_told(
    project: Project,
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    state: str,
    said: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"ALERTS__{name}", value)
    report = CheckLines()
    channels.check_channels(report)
    [line] = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == ["alerts", state]
    assert said in line
    assert report.has_failed is (state == "FAILED")


@pytest.mark.parametrize("urls", ["[1]", "{}x [", '["json://x", ""]'])
def test_urls_that_are_no_list_of_urls_are_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, urls: str
) -> None:
    monkeypatch.setenv("ALERTS__URLS", urls)
    if urls.startswith("{"):
        assert [each.label for each in channels.configured_channels()] == ["1 unknown", "2 unknown"]
        return
    with pytest.raises(ConfigError, match="expected a list of Apprise URLs"):
        channels.configured_channels()
