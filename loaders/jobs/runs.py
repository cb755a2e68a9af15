"""Runs as the event log shows them: which are open, which are orphaned, how they ended."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from loaders.errors import UsageError, describe
from loaders.jobs.event_log import JOB_RUN, log_event
from loaders.jobs.names import label
from loaders.jobs.processes import host_identity, is_gone
from loaders.settings.constants import constants
from loaders.settings.places import PACKAGE_NAME
from loaders.settings.times import grace
from loaders.transform import merge_counts
from loaders.warehouse.base import Warehouse

ORPHANED = "Orphaned"
LOOK_BACK = dt.timedelta(days=30)
FOREVER = dt.timedelta(days=20_000)
_AT_ONCE = 1_000

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run with a job.started and no end row."""

    correlation_id: str
    source_system: str
    connection_name: str | None
    started_at: dt.datetime
    payload: dict[str, Any]
    """Of its job.started, which somebody's own job may have written: anything may stand there."""

    @classmethod
    def of(
        cls,
        correlation_id: str,
        source_system: str,
        connection_name: str | None,
        started_at: dt.datetime,
        payload: str | None,
    ) -> OpenRun:
        """By the row of its job.started, the payload as text."""
        value = json.loads(payload or "{}")
        known = value if isinstance(value, dict) else {}
        return cls(correlation_id, source_system, connection_name, started_at, known)

    @property
    def host(self) -> Mapping[str, Any]:
        """What tells its machine and process from others (host_identity); empty when not known."""
        host = self.payload.get("host")
        return host if isinstance(host, dict) else {}

    @property
    def pid(self) -> int | None:
        """Its process there."""
        pid = self.payload.get("pid")
        return pid if isinstance(pid, int) and 0 < pid < 1 << 31 else None

    @property
    def is_copy(self) -> bool:
        """Whether it copies another warehouse into this one."""
        return self.source_system == PACKAGE_NAME

    @property
    def takes_lease(self) -> bool:
        """Whether others of its connection wait for it: not for one that writes no data."""
        return self.payload.get("takes_lease") is not False

    @property
    def ends_by(self) -> dt.datetime:
        """When its timeout and the grace have passed."""
        try:
            seconds = float(self.payload.get("timeout_seconds") or 0)
        except (TypeError, ValueError):
            seconds = 0.0
        seconds = min(max(seconds, 0.0), FOREVER.total_seconds())
        return self.started_at + dt.timedelta(seconds=seconds) + grace()

    def is_orphaned(self, now: dt.datetime) -> bool:
        """Whether its process is provably gone, or its timeout and the grace have passed."""
        return self.is_alive() is False or now > self.ends_by

    def is_alive(self) -> bool | None:
        """Whether its process runs; None where this machine, boot or container cannot know."""
        host, pid = self.host, self.pid
        if pid is None or not host.get("process_start"):
            return None
        here = host_identity()
        for part in ("boot_id", "pid_namespace"):
            if not host.get(part) or host[part] != here[part]:
                return None
        return not is_gone(pid, str(host["process_start"]))


def open_runs(
    warehouse: Warehouse,
    now: dt.datetime,
    look_back: dt.timedelta = LOOK_BACK,
    known: Iterable[OpenRun] = (),
) -> list[OpenRun]:
    """Runs without an end row that began within `look_back`, oldest first.

    Of those that are `known` nothing is read again but that they are open.
    """
    return _open_runs(warehouse, "created_at > ?", now - look_back, now - look_back, known)


def find_open(warehouse: Warehouse, correlation_id: str) -> OpenRun:
    """The run of this id, however old. Raises UsageError when it is not known, or has ended."""
    long_ago = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    found = _open_runs(warehouse, "correlation_id = ?", correlation_id, long_ago)
    if found:
        return found[0]
    known = recorded(warehouse, correlation_id, long_ago + grace())
    said = f"has ended ({', '.join(sorted(known))})" if known else "is not in the log"
    raise UsageError(f"{correlation_id}: {said}; expected a run without an end (run.py status)")


def _open_runs(
    warehouse: Warehouse,
    condition: str,
    value: Any,
    ended_since: dt.datetime,
    known: Iterable[OpenRun] = (),
) -> list[OpenRun]:
    event_log = warehouse.table("event_log")
    rows = warehouse.execute(
        "select correlation_id, source_system, connection_name, created_at"
        f" from {event_log} as started"
        f" where event_type = 'job.started' and {condition}"
        f" and not exists (select 1 from {event_log} as ended"
        " where ended.correlation_id = started.correlation_id and ended.created_at > ?"
        " and ended.event_type in ('job.completed', 'job.failed'))"
        " order by created_at",
        (value, ended_since),
    )
    known_ones = {run.correlation_id: run for run in known}
    new = [row for row in rows if row[0] not in known_ones]
    payloads = _start_payloads(warehouse, new)
    return [
        known_ones.get(run)
        or OpenRun.of(run, source, connection, started_at, payloads.get((run, started_at)))
        for run, source, connection, started_at in rows
    ]


def _start_payloads(
    warehouse: Warehouse, rows: Sequence[tuple[Any, ...]]
) -> dict[tuple[str, dt.datetime], str]:
    """The payloads of some job.started rows, as text; what of a month's log is bulky is only read
    where a run is open."""
    found: dict[tuple[str, dt.datetime], str] = {}
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        times = [row[3] for row in some]
        for run, created_at, payload in warehouse.execute(
            f"select correlation_id, created_at, {warehouse.json_as_text('payload')}"
            f" from {warehouse.table('event_log')} where event_type = 'job.started'"
            " and created_at >= ? and created_at <= ?"
            f" and correlation_id in ({', '.join('?' * len(some))})",
            (min(times), max(times), *(row[0] for row in some)),
        ):
            found[run, created_at] = payload
    return found


def recorded(warehouse: Warehouse, correlation_id: str, started_at: dt.datetime) -> set[str]:
    """Types of the job events that a run which began then has, its own or another's."""
    rows = warehouse.execute(
        f"select event_type from {warehouse.table('event_log')}"
        " where correlation_id = ? and created_at >= ? and event_type like 'job.%'",
        (correlation_id, started_at - grace()),
    )
    return {event_type for (event_type,) in rows}


def close_orphans(
    warehouse: Warehouse, now: dt.datetime, look_back: dt.timedelta = LOOK_BACK
) -> tuple[list[OpenRun], int]:
    """Append job.failed (`Orphaned`) to runs that died; return the runs still open and
    how many were closed."""
    alive, closed = [], 0
    for run in open_runs(warehouse, now, look_back):
        if not run.is_orphaned(now):
            alive.append(run)
            continue
        close(warehouse, run)
        closed += 1
    return alive, closed


def last_event(warehouse: Warehouse, run: OpenRun) -> tuple[str, dt.datetime]:
    """Type and time of what a run wrote last. Raises WarehouseError."""
    [(event_type, created_at)] = warehouse.execute(
        f"select event_type, created_at from {warehouse.table('event_log')}"
        " where correlation_id = ? and created_at >= ? order by created_at desc limit 1",
        (run.correlation_id, run.started_at),
    )
    return event_type, created_at


def close(warehouse: Warehouse, run: OpenRun, closed_by: str = "a later run") -> None:
    """Append job.failed (`Orphaned`) to a run, later than what it wrote, whatever its clock was."""
    _, last_at = last_event(warehouse, run)
    log_event(
        warehouse,
        "job.failed",
        source_system=run.source_system,
        connection_name=run.connection_name,
        object_type=JOB_RUN,
        correlation_id=run.correlation_id,
        error_message=f"the run ended without an end row; closed by {closed_by}",
        created_at=max(dt.datetime.now(dt.UTC), last_at + dt.timedelta(microseconds=1)),
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
    return merge_counts.merge_counts(warehouse, run.correlation_id, connection)


def counts_or_nulls(read: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Counts for an end that is written in any case: null when they cannot be read, never 0."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - the end is what counts
        logger.warning("what the MERGE did is not known: %s", describe(error))
        return {**dict.fromkeys(constants().merge_actions), "rescued": None}
