"""What a job does about alerts at its end: tell that it failed, or that it works again.

Nothing here changes the job's result: no error leaves, and each step has its time. The warehouse
is another object than the job's, as that may hang with the job's work.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import math
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from loaders.errors import Interrupted, LandfallError, WarehouseBusy, WarehouseError, describe
from loaders.jobs.job import Job, LeaseLost
from loaders.jobs.names import job_name_for
from loaders.jobs.supervision import run_supervised
from loaders.monitoring.alerts import incidents, messages
from loaders.monitoring.alerts.channels import (
    SEND_SECONDS,
    Channel,
    configured_channels,
    failures_to_tell,
    send,
)
from loaders.monitoring.alerts.delivery import Delivery, report
from loaders.monitoring.alerts.incidents import Incident, Key
from loaders.settings.constants import constants
from loaders.settings.target import Target
from loaders.settings.times import horizon
from loaders.sources.registry import SOURCES
from loaders.warehouse.base import Warehouse
from loaders.warehouse.opening import open_warehouse

Result = TypeVar("Result")
SYNC, RETRY, BACKFILL = "ingest", "retry", "backfill"
"""What an ingestion is for. Their runs have one job name, and neither of the latter brings its
connection up to date: a failure of theirs is an incident of its own, and ends no other. A
backfill reads a part only: what lies between dates, or some object types."""
WAREHOUSE_SECONDS = 30.0
"""What the warehouse may take to say who knows; BigQuery needs some seconds."""
HURRIED_SECONDS = 3.0
"""The same, and for the services, after a signal: a SIGKILL may follow in ten seconds."""

_GAVE_WAY = (WarehouseBusy, LeaseLost)
_LONGEST_RUN = dt.timedelta(days=7)
"""How far back the start of a run that has just ended is looked for."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EndedJob:
    """The run whose end is in the log."""

    target: Target
    source_system: str
    connection_name: str | None
    job_name: str
    correlation_id: str

    @property
    def is_ingestion(self) -> bool:
        """Whether it was to bring objects of its connection."""
        name = self.connection_name
        return name is not None and self.job_name == job_name_for(self.source_system, name)


def run_and_tell(job: Job, work: Callable[[], None]) -> None:
    """Run a job as run_supervised does, and tell how it ended."""
    run_supervised(job, work, tell=tell)


def tell(job: Job) -> None:
    """Tell those who are to know how a job ended; nothing while it has no end.

    Not while a lock is held: services may take seconds to answer.
    """
    if not job.has_ended:
        return
    ended = EndedJob(
        job.warehouse.target,
        job.source_system,
        job.connection_name,
        job.job_name,
        job.correlation_id,
    )
    if job.failure is None:
        tell_completion(ended)
    else:
        tell_failure(ended, job.failure)


def tell_failure(job: EndedJob, error: BaseException) -> None:
    """Tell that a job has failed, unless that is known; after a signal in less time.

    A warehouse that cannot be asked keeps nobody from being told: then every failed run tells.
    One that gave way to another run is no failure of its connection.
    """
    try:
        if not isinstance(error, _GAVE_WAY) and (channels := configured_channels()):
            text = messages.of_failure(error, job.correlation_id)
            most = HURRIED_SECONDS if isinstance(error, Interrupted) else math.inf
            _Teller(job, channels, most).failed(text)
    except Exception as failure:  # noqa: BLE001 - the job's own end is what counts
        logger.warning("alert: %s", describe(failure))


def tell_completion(job: EndedJob) -> None:
    """Tell that a job works again, where its failure was told."""
    try:
        if channels := configured_channels():
            _Teller(job, channels).completed()
    except Exception as failure:  # noqa: BLE001 - the job's own end is what counts
        logger.warning("alert: %s", describe(failure))


class _Teller:
    def __init__(
        self, job: EndedJob, channels: Sequence[Channel], most_seconds: float = math.inf
    ) -> None:
        self._job = job
        self._channels = channels
        self._warehouse_seconds = min(WAREHOUSE_SECONDS, most_seconds)
        self._send_seconds = min(SEND_SECONDS, most_seconds)
        self._warehouse = open_warehouse(job.target, self._warehouse_seconds / 2)

    def failed(self, text: str) -> None:
        """Open the incident, or find it open, and tell what is due."""
        try:
            deliveries = self._asked(lambda: self._open(text))
        except Exception as error:  # noqa: BLE001 - rather told twice than not at all
            logger.warning("alert: who knows cannot be found out: %s", describe(error))
            now = dt.datetime.now(dt.UTC)
            job = self._job
            untracked = Incident(
                "", job.source_system, job.connection_name, job.job_name, messages.FAILING,
                job.correlation_id, text, now,
            )  # fmt: skip
            message = messages.of_incident(untracked, job.target.name)
            outcome = send(self._channels, message, self._send_seconds)
            report(outcome, message.title, is_kept=False)
            return
        self._deliver(deliveries)

    def completed(self) -> None:
        """Resolve what failed, and tell what is due."""
        self._deliver(self._asked(self._resolve))

    def _open(self, text: str) -> list[Delivery]:
        _check_exists(self._warehouse)
        with self._warehouse.open():
            known = incidents.read(self._warehouse, self._job.source_system)
            purpose = self._purpose()
            key = failure_of(self._job, purpose)
            incident = next((each for each in known if each.key == key and each.is_open), None)
            if incident is None:
                needed = failures_to_tell()
                if needed > 1 and self._failures_in_a_row(purpose) < needed:
                    return []
                incident = incidents.open_incident(
                    self._warehouse,
                    key,
                    known,
                    correlation_id=self._job.correlation_id,
                    message=text,
                    now=dt.datetime.now(dt.UTC),
                )
            return self._claimed([incident] if incident else [])

    def _resolve(self) -> list[Delivery]:
        _check_exists(self._warehouse)
        now = dt.datetime.now(dt.UTC)
        with self._warehouse.open():
            known = incidents.read(self._warehouse, self._job.source_system)
            still_open = [incident for incident in known if incident.is_open]
            if not still_open:
                return []
            key = failure_of(self._job, self._purpose())
            return self._claimed(
                [
                    incidents.resolve(self._warehouse, incident, now)
                    for incident in still_open
                    if is_ended_by(incident, key)
                ]
            )

    def _claimed(self, found: Sequence[Incident]) -> list[Delivery]:
        due = [
            Delivery(self._warehouse, incident, self._channels)
            for incident in found
            if incident.is_pending
        ]
        return [delivery for delivery in due if delivery.claim()]

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            delivery.send(self._send_seconds)
            try:
                self._asked(delivery.record)
            except (LandfallError, TimeoutError) as error:
                logger.warning("alert: not recorded, so it may come again: %s", describe(error))

    def _purpose(self) -> str:
        """SYNC, RETRY or BACKFILL, as the run's start has it; SYNC where that is not in the log."""
        if not self._job.is_ingestion:
            return SYNC
        rows = self._warehouse.execute(
            f"select {purpose_of(self._warehouse)} from {self._warehouse.table('event_log')}"
            " where event_type = 'job.started' and correlation_id = ? and created_at >= ?",
            (self._job.correlation_id, dt.datetime.now(dt.UTC) - _LONGEST_RUN),
        )
        return str(rows[0][0]) if rows else SYNC

    def _failures_in_a_row(self, purpose: str) -> int:
        """Runs of the job and purpose that failed since one completed, this one at least.

        One that gave way to another run tells nothing.
        """
        name = self._warehouse.json_text("payload", "$.job_name")
        error_type = self._warehouse.json_text("payload", "$.error_type")
        event_log = self._warehouse.table("event_log")
        gave_way = ", ".join(f"'{each.__name__}'" for each in _GAVE_WAY)
        rows = self._warehouse.execute(
            "with started as ("
            f"select correlation_id from {event_log} where event_type = 'job.started'"
            f" and source_system = ? and coalesce(connection_name, '') = ? and {name} = ?"
            f" and {purpose_of(self._warehouse)} = ?),"
            " ended as ("
            f"select correlation_id, event_type, created_at from {event_log}"
            " where correlation_id in (select correlation_id from started)"
            f" and created_at <= {self._warehouse.timestamp_parameter}"
            " and (event_type = 'job.completed'"
            f" or event_type = 'job.failed' and {error_type} not in ({gave_way})))"
            " select count(distinct correlation_id) from ended"
            " where event_type = 'job.failed' and created_at > ("
            "select coalesce(max(created_at), cast('1970-01-01' as timestamp)) from ended"
            " where event_type = 'job.completed')",
            (
                self._job.source_system,
                self._job.connection_name or "",
                self._job.job_name,
                purpose,
                horizon().isoformat(),
            ),
        )
        return max(1, int(rows[0][0]))

    def _asked(self, ask: Callable[[], Result]) -> Result:
        return in_time(ask, self._warehouse_seconds)


def purpose_of(warehouse: Warehouse) -> str:
    """SQL: the purpose that the payload of a job.started tells, as job_runs has it."""
    retry, *parts = (
        warehouse.json_text("payload", f"$.parameters.{name}")
        for name in ("retry", *constants().backfill_parameters)
    )
    return (
        f"case when {retry} = 'true' then '{RETRY}'"
        f" when coalesce({', '.join(parts)}) is not null then '{BACKFILL}' else '{SYNC}' end"
    )


def failure_of(job: EndedJob, purpose: str) -> Key:
    """What the run's failure is an incident of."""
    name = job.job_name
    if purpose != SYNC and job.connection_name is not None:
        name = job_name_for(job.source_system, job.connection_name, purpose)
    return Key(job.source_system, job.connection_name, name, messages.FAILING)


def is_ended_by(incident: Incident, completed: Key) -> bool:
    """Whether a completed run ends a failure, given the key that its own failure would have.

    That of a run whose connection its configuration did not have ends with a run of that
    connection; with any run of the source when it was not to be of one connection.
    """
    source = completed.source_system
    if (
        incident.source_system == source
        and incident.connection_name is None
        and source in SOURCES
        and incident.kind == messages.FAILING
    ):
        return incident.job_name in (completed.job_name, job_name_for(source, "unknown"))
    return incident.key == completed


def in_time(ask: Callable[[], Result], seconds: float) -> Result:
    """What `ask` returns or raises; TimeoutError when it takes longer, and it is left alone."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(ask())
        except BaseException as error:  # noqa: BLE001 - re-raised in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=target, name="landfall-alert", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return results[0]


def _check_exists(warehouse: Warehouse) -> None:
    """Raise WarehouseError when asking would make an empty file."""
    if warehouse.target.type == "duckdb" and not warehouse.target.path.exists():
        raise WarehouseError(f"{warehouse.target.path.name}: there is no such file")
