"""What these tests have in common."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from loaders.cli.main import main
from loaders.transform import views
from loaders.warehouse.base import Warehouse
from tests.python.conftest import (
    Project,
    prepared,
)

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


HOURLY = [HOUR * (number + 0.5) for number in range(20, -1, -1)]


def run_status(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    capsys.readouterr()
    code = main(["status", *arguments])
    return code, capsys.readouterr().out.splitlines()
