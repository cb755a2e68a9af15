"""Runs as the event log shows them: which are open, which are orphaned, how they ended."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import os
import re
import socket
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loaders import transform
from loaders.config import PACKAGE_NAME
from loaders.errors import describe
from loaders.event_log import JOB_RUN, log_event
from loaders.warehouse import Warehouse

ORPHANED = "Orphaned"
GRACE = dt.timedelta(minutes=10)
"""How long after its timeout a run without an end row may still write one."""
_LOOK_BACK = dt.timedelta(days=30)

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run with a job.started and no end row."""

    correlation_id: str
    source_system: str
    connection_name: str | None
    started_at: dt.datetime
    payload: dict[str, Any]

    @property
    def is_copy(self) -> bool:
        """Whether it copies another warehouse into this one."""
        return self.source_system == PACKAGE_NAME

    @property
    def takes_lease(self) -> bool:
        """Whether others of its connection wait for it: not for one that writes no data."""
        return self.payload.get("takes_lease") is not False

    def is_orphaned(self, now: dt.datetime) -> bool:
        """Whether its process is provably gone, or its timeout and the grace have passed."""
        if self._process_is_gone():
            return True
        timeout = dt.timedelta(seconds=float(self.payload.get("timeout_seconds") or 0))
        return now > self.started_at + timeout + GRACE

    def _process_is_gone(self) -> bool:
        host, pid = self.payload.get("host"), self.payload.get("pid")
        if not host or not pid or not host.get("process_start"):
            return False
        here = host_identity()
        for part in ("boot_id", "pid_namespace"):
            if not host.get(part) or host[part] != here[part]:
                return False
        return is_gone(int(pid), str(host["process_start"]))


def host_identity() -> dict[str, str | None]:
    """What tells this machine, this boot, this container and this process from others."""
    own = _state_and_start(os.getpid())
    return {
        "name": socket.gethostname(),
        "boot_id": _read("/proc/sys/kernel/random/boot_id"),
        "pid_namespace": _link("/proc/self/ns/pid"),
        "process_start": None if own is None else own[1],
    }


def is_gone(pid: int, start: str) -> bool:
    """Whether a process of this machine that began at `start` provably runs no more.

    A zombie counts as gone. Where /proc hides the processes of other users (hidepid, proc(5)),
    a signal finds out whether there is one of that number.
    """
    found = _state_and_start(pid)
    if found is not None:
        state, found_start = found
        return state in "ZX" or found_start != start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """Fields 3 and 22 of /proc/pid/stat, proc(5); the second in clock ticks since boot."""
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]


def open_runs(warehouse: Warehouse, now: dt.datetime) -> list[OpenRun]:
    """Runs of the last 30 days without an end row, oldest first."""
    event_log = warehouse.table("event_log")
    rows = warehouse.execute(
        "select correlation_id, source_system, connection_name, created_at,"
        f" {warehouse.json_as_text('payload')}"
        f" from {event_log} as started"
        " where event_type = 'job.started' and created_at > ?"
        f" and not exists (select 1 from {event_log} as ended"
        " where ended.correlation_id = started.correlation_id and ended.created_at > ?"
        " and ended.event_type in ('job.completed', 'job.failed'))"
        " order by created_at",
        (now - _LOOK_BACK, now - _LOOK_BACK),
    )
    return [
        OpenRun(correlation_id, source_system, connection_name, started_at, json.loads(payload))
        for correlation_id, source_system, connection_name, started_at, payload in rows
    ]


def recorded(warehouse: Warehouse, correlation_id: str, started_at: dt.datetime) -> set[str]:
    """Types of the job events that a run which began then has, its own or another's."""
    rows = warehouse.execute(
        f"select event_type from {warehouse.table('event_log')}"
        " where correlation_id = ? and created_at >= ? and event_type like 'job.%'",
        (correlation_id, started_at - GRACE),
    )
    return {event_type for (event_type,) in rows}


def close_orphans(warehouse: Warehouse, now: dt.datetime) -> tuple[list[OpenRun], int]:
    """Append job.failed (`Orphaned`) to runs that died; return the runs still open and
    how many were closed."""
    alive, closed = [], 0
    for run in open_runs(warehouse, now):
        if not run.is_orphaned(now):
            alive.append(run)
            continue
        _close(warehouse, run)
        closed += 1
    return alive, closed


def _close(warehouse: Warehouse, run: OpenRun) -> None:
    log_event(
        warehouse,
        "job.failed",
        source_system=run.source_system,
        connection_name=run.connection_name,
        object_type=JOB_RUN,
        correlation_id=run.correlation_id,
        error_message="the run ended without an end row; closed by a later run",
        payload={
            "job_name": run.payload.get("job_name"),
            "package_name": run.payload.get("package_name"),
            "duration_seconds": None,
            "error_type": ORPHANED,
            "step": None,
            "retryable": True,
            **counts_or_nulls(lambda: final_counts(warehouse, run)),
        },
        # Two that close it at once write one row.
        event_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{ORPHANED}:{run.correlation_id}")),
    )


def final_counts(warehouse: Warehouse, run: OpenRun) -> Mapping[str, Any]:
    """What the MERGE of a run did that is over. On BigQuery it may go on without the run: it is
    ended first. Raises WarehouseError."""
    warehouse.end_statements("correlation_id", label(run.correlation_id), run.started_at)
    connection = (run.source_system, run.connection_name)
    return transform.merge_counts(warehouse, run.correlation_id, connection)


def counts_or_nulls(read: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Counts for an end that is written in any case: null when they cannot be read, never 0."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - the end is what counts
        logger.warning("what the MERGE did is not known: %s", describe(error))
        return {**dict.fromkeys(transform.MERGE_ACTIONS), "rescued": None}


def label(text: str) -> str:
    """A BigQuery label's value: at most 63 lower-case characters, the end kept."""
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[-63:]


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
