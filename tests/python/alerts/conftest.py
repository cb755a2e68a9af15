"""What these tests have in common."""

from __future__ import annotations

import datetime as dt
import http.server
import itertools
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from loaders.errors import LandfallError, SourceError
from loaders.jobs.event_log import log_event, spool
from loaders.jobs.job import Job
from loaders.jobs.names import job_name_for
from loaders.monitoring import health
from loaders.monitoring.alerts import channels, incidents, watch
from loaders.monitoring.alerts.job_end import run_and_tell
from loaders.transform import bootstrap, views
from loaders.warehouse.base import Warehouse
from tests.python.conftest import Project, prepared

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


def rows(warehouse: Warehouse) -> list[incidents.Incident]:
    return incidents.read(warehouse)


def marks() -> list[str]:
    """The configured channels, as told_to has them."""
    return [channel.mark for channel in channels.configured_channels()]


def make_views(warehouse: Warehouse) -> None:
    bootstrap.bootstrap(warehouse)
    views.ensure_views(warehouse)


@pytest.fixture
def monitored(project: Project) -> Warehouse:
    """An empty warehouse with the monitoring views."""
    return prepared(project, "monitored", make_views)


_numbers = itertools.count()


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
    # As two of the same second have, too.
    correlation_id = f"{job_name}-{began:%Y%m%d%H%M%S}-{next(_numbers):04x}"
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
    assert not spool(warehouse).waiting  # what cannot be stored is spooled, and no error
    return correlation_id


def told(warehouse: Warehouse, receiver: Receiver) -> list[str]:
    """The titles that one more `run.py alert` sends."""
    before = len(receiver.posts)
    watch.watch(warehouse, channels.configured_channels())
    return sorted(receiver.titles[before:])


def state(warehouse: Warehouse) -> str | None:
    """Of the only connection; None when the view has none."""
    connections = health.read(warehouse, 1).connections
    return str(connections[0]["state"]) if connections else None
