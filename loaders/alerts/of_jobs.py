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

from loaders.alerts import incidents, messages
from loaders.alerts.channels import (
    SEND_SECONDS,
    Channel,
    configured_channels,
    failures_to_tell,
    send,
)
from loaders.alerts.delivery import Delivery, report
from loaders.alerts.incidents import Incident, Key
from loaders.config import SOURCES, Target
from loaders.errors import Interrupted, LandfallError, WarehouseBusy, WarehouseError, describe
from loaders.warehouse import Warehouse, open_warehouse

Result = TypeVar("Result")
WAREHOUSE_SECONDS = 30.0
"""What the warehouse may take to say who knows; BigQuery needs some seconds."""
HURRIED_SECONDS = 3.0
"""The same, and for the services, after a signal: a SIGKILL may follow in ten seconds."""

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
    def key(self) -> Key:
        """Of the incident that its failure is."""
        return Key(self.source_system, self.job_name, messages.FAILING)


def tell_failure(job: EndedJob, error: BaseException) -> None:
    """Tell that a job has failed, unless that is known; after a signal in less time.

    A warehouse that cannot be asked keeps nobody from being told: then every failed run tells.
    One that gave way to another run is no failure of its connection.
    """
    try:
        if not isinstance(error, WarehouseBusy) and (channels := configured_channels()):
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
            incident = next(
                (each for each in known if each.key == self._job.key and each.is_open), None
            )
            if incident is None:
                needed = failures_to_tell()
                if needed > 1 and self._failures_in_a_row() < needed:
                    return []
                incident = incidents.open_incident(
                    self._warehouse,
                    self._job.key,
                    known,
                    connection_name=self._job.connection_name,
                    correlation_id=self._job.correlation_id,
                    message=text,
                    now=dt.datetime.now(dt.UTC),
                )
            return self._claimed([incident] if incident else [])

    def _resolve(self) -> list[Delivery]:
        _check_exists(self._warehouse)
        now = dt.datetime.now(dt.UTC)
        with self._warehouse.open():
            return self._claimed(
                [
                    incidents.resolve(self._warehouse, incident, now)
                    for incident in incidents.read(self._warehouse, self._job.source_system)
                    if incident.is_open
                    and is_ended_by(incident, self._job.source_system, self._job.job_name)
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

    def _failures_in_a_row(self) -> int:
        """Runs of the job that failed since one completed, this one at least.

        One that gave way to another run tells nothing.
        """
        name = self._warehouse.json_text("payload", "$.job_name")
        error_type = self._warehouse.json_text("payload", "$.error_type")
        event_log = self._warehouse.table("event_log")
        rows = self._warehouse.execute(
            f"select count(distinct correlation_id) from {event_log}"
            f" where event_type = 'job.failed' and {name} = ?"
            f" and {error_type} <> '{WarehouseBusy.__name__}' and created_at > ("
            f"select coalesce(max(created_at), cast('1970-01-01' as timestamp)) from {event_log}"
            f" where event_type = 'job.completed' and {name} = ?)",
            (self._job.job_name, self._job.job_name),
        )
        return max(1, int(rows[0][0]))

    def _asked(self, ask: Callable[[], Result]) -> Result:
        return in_time(ask, self._warehouse_seconds)


def is_ended_by(incident: Incident, source_system: str, job_name: str) -> bool:
    """Whether a completed run of this job ends a failure.

    That of a run whose connection its configuration did not have ends with any run of the source.
    """
    if incident.kind != messages.FAILING or incident.source_system != source_system:
        return False
    has_no_connection = incident.connection_name is None and source_system in SOURCES
    return has_no_connection or incident.job_name == job_name


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
