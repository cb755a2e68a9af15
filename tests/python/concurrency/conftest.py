"""What these tests have in common."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.jobs import crashpoints
from loaders.jobs.job import Job
from loaders.objects.items import Cursor, Item
from loaders.settings.places import PROJECT_DIR
from loaders.sources.contract import FetchRequest
from loaders.warehouse.base import Warehouse
from tests.python.conftest import (
    STRIPE_KEY,
    ScriptedSource,
)


@contextlib.contextmanager
def process() -> Iterator[subprocess.Popen[str]]:
    """One that waits until its input is closed."""
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.communicate()


def new_job(warehouse: Warehouse, name: str = "gmail_ingest_acct1") -> Job:
    return Job(warehouse, job_name=name, source_system="gmail", connection_name="acct1")


def started_job(warehouse: Warehouse) -> Job:
    job = new_job(warehouse)
    job.start()
    return job


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


class InterruptedSource(ScriptedSource):
    """Does something else after its items, before its cursor."""

    def __init__(self, items: Sequence[Item], meanwhile: Callable[[], object]) -> None:
        super().__init__(items)
        self._meanwhile = meanwhile

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        yield from super().fetch(request)
        self._meanwhile()
        yield Cursor("messages", {"history_id": "1"}, request.clock.now())


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
