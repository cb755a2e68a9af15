"""One run of a job: its lease, its events, its end, whatever happens to it."""

from __future__ import annotations

import datetime as dt
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from loaders.errors import (
    AlreadyRunning,
    Interrupted,
    LandfallError,
    TimedOut,
    TransformFailed,
    WarehouseBusy,
    WarehouseError,
    describe,
)
from loaders.jobs import crashpoints
from loaders.jobs.event_log import (
    JOB_RUN,
    JOB_STARTED,
    EventNotKept,
    log_events,
    new_event,
    replay_spool,
)
from loaders.jobs.names import label, new_correlation_id
from loaders.jobs.processes import host_identity
from loaders.jobs.runs import (
    OpenRun,
    close_orphans,
    counts_or_nulls,
    final_counts,
    open_runs,
    recorded,
)
from loaders.objects.items import ObservationClock
from loaders.settings.constants import constants
from loaders.settings.places import PACKAGE_NAME
from loaders.transform import bootstrap
from loaders.transform.merge_counts import Connection, merge_counts
from loaders.transform.merge_scope import MergeScope
from loaders.warehouse.base import Warehouse

logger = logging.getLogger(__name__)

_END_LOCK_SECONDS = 5.0
_BEFORE_MERGE = ("start", "extract", "land")


class LeaseLost(LandfallError):
    """A later run took this one for dead and closed it."""

    exit_code = 75  # EX_TEMPFAIL
    retryable = True


class Job:
    """The lifecycle of one run: exactly one job.started, exactly one end.

    `start` waits for the lease (one run of a connection at a time) up to `lock_wait`
    seconds. Ends may be asked for by two threads at once (the work, and a signal): the
    first wins.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        *,
        job_name: str,
        source_system: str,
        connection_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout_seconds: float = 3600.0,
        takes_lease: bool = True,
    ) -> None:
        """With `takes_lease` false it runs beside a run of its connection: it writes no data."""
        self.warehouse = warehouse
        self.job_name = job_name
        self.source_system = source_system
        self.connection_name = connection_name
        self.correlation_id = new_correlation_id(job_name)
        # As macros/event_log/query_comment.sql does for dbt's statements.
        warehouse.labels = {
            "job_name": label(job_name),
            "correlation_id": label(self.correlation_id),
        }
        self.timeout_seconds = timeout_seconds
        self.lease_wait = math.inf
        """Seconds to wait for another run of the connection, where that is less than lock_wait."""
        self.step = "start"
        self.cancelled = threading.Event()
        self._parameters = dict(parameters or {})
        self._takes_lease = takes_lease
        self._started_at: float | None = None
        self._began_at: dt.datetime | None = None
        self._start_id = str(uuid.uuid4())
        # This machine's may jump back, and the events of a run are in the order of their times.
        self._clock = ObservationClock()
        self.was_incomplete = False
        """Whether the warehouse was: it lacked a table, a column or the seed when the run began."""
        self.alive: list[OpenRun] = []
        """Runs of others that were under way when this one began."""
        self.checks: Mapping[str, Any] | None = None
        """What its end says of tests that have passed; None when they are to be done."""
        self._counts: Mapping[str, Any] | None = None
        self._ended = False
        self._failure: BaseException | None = None
        self._event_lock = threading.Lock()

    def start(self) -> None:
        """Prepare the warehouse, take the lease, write job.started.

        Raises WarehouseBusy when another run of the connection, or a copy into the warehouse,
        goes on too long, and WarehouseError or TransformFailed when the warehouse cannot be used:
        then job.started and job.failed are written, or spooled, all the same.
        """
        try:
            self._start()
        except WarehouseBusy as error:
            self.fail(error)  # when it had started, and another at the same moment
            raise
        except (WarehouseError, TransformFailed) as error:
            if self._started_at is None:
                self._write_start()
            self.fail(error)
            raise

    def _start(self) -> None:
        began = time.monotonic()
        pause, has_said = 0.2, False
        while holder := self._try_to_start():
            waited = time.monotonic() - began
            most = min(self.warehouse.lock_wait, self.lease_wait)
            if waited + pause > most or self.cancelled.is_set():
                raise AlreadyRunning(self._waits_for(holder))
            if not has_said:
                logger.info("waiting: %s", self._waits_for(holder))
                has_said = True
            self.cancelled.wait(pause)
            pause = min(pause * 1.5, 5.0)

    def _try_to_start(self) -> OpenRun | None:
        """Write job.started unless that is done or a run holds the lease; that run, if any.

        Two may write it at the same moment where no file keeps them apart. So each looks again:
        the earlier waits for the end of the later, which gives up. Neither works while it sees
        the other, as it cannot know whether that has looked before or after.
        """
        with self.warehouse.open():
            self.was_incomplete |= bootstrap.bootstrap(self.warehouse)
            replayed = replay_spool(self.warehouse)
            if replayed:
                logger.info("%d spooled event(s) replayed", replayed)
            alive, closed = close_orphans(self.warehouse, dt.datetime.now(dt.UTC))
            if closed:
                logger.warning("%d orphaned run(s) closed", closed)
            holder, self.alive = self._lease_holder(alive), alive
            if holder is None and self._began_at is None:
                crashpoints.reached("start.before_event")
                self._write_start()
                crashpoints.reached("start.after_event")
                itself = OpenRun(self.correlation_id, *self.connection, self.began_at, {})
                now = dt.datetime.now(dt.UTC)
                self.alive = open_runs(self.warehouse, now, known=[*alive, itself])
                holder = self._lease_holder(self.alive)
        if holder is not None and self._began_at is not None:
            own = (self._began_at, self.correlation_id)
            if own > (holder.started_at, holder.correlation_id):
                raise AlreadyRunning(self._waits_for(holder))
        return holder

    def check_lease(self) -> None:
        """Raise LeaseLost when a later run has closed this one.

        That run goes by what the warehouse held then. What this one knows, its cursor above
        all, is older, and must not be taken for newer because it lands later.
        """
        if self._began_at is None:
            return
        events = recorded(self.warehouse, self.correlation_id, self._began_at)
        if JOB_STARTED not in events:
            self._insert([self._start_event()])
        if events - {JOB_STARTED}:
            raise LeaseLost(
                f"{self.job_name}: a later run took {self.correlation_id} for dead (suspended, or"
                " a clock that is wrong?) and closed it; nothing more is landed, run it again"
            )

    @property
    def connection(self) -> Connection:
        """Its source and its connection's name."""
        return self.source_system, self.connection_name

    def counts(self, scope: MergeScope | None = None) -> Mapping[str, Any]:
        """What its MERGE did, which went by a scope, as its end carries it.

        Raises WarehouseError.
        """
        self._counts = merge_counts(self.warehouse, self.correlation_id, self.connection, scope)
        return self._counts

    def complete(
        self, telemetry: Mapping[str, Any], ingestion: Mapping[str, Any] | None = None
    ) -> None:
        """Write job.completed, unless the run has ended otherwise; with it ingestion.completed,
        where that is still to be written."""
        before = [] if ingestion is None else [("ingestion.completed", ingestion)]
        self._end("job.completed", telemetry, before=before)

    def fail(self, error: BaseException) -> None:
        """Write job.failed, unless the run has ended otherwise or never started."""
        error_type = error.error_type if isinstance(error, LandfallError) else type(error).__name__
        retryable = isinstance(error, LandfallError) and error.retryable
        failure = {"error_type": error_type, "step": self.step, "retryable": retryable}
        if not self._ended and self._began_at is not None:
            failure |= self._counts_at_failure(error, self._began_at)
        self._end("job.failed", failure, describe(error), error)

    def _counts_at_failure(self, error: BaseException, began_at: dt.datetime) -> Mapping[str, Any]:
        """The counts if they can be read; while the work is still at it they are a lower bound."""
        if self.step in _BEFORE_MERGE:
            return {**dict.fromkeys(constants().merge_actions, 0), "rescued": {}}
        if self._counts is not None:
            return self._counts
        run = OpenRun(self.correlation_id, *self.connection, began_at, {})
        if not isinstance(error, (Interrupted, TimedOut)):
            return counts_or_nulls(lambda: final_counts(self.warehouse, run))
        # Whoever waits for the end of the process does not wait long.
        reading = ThreadPoolExecutor(1).submit(final_counts, self.warehouse, run)
        return counts_or_nulls(lambda: reading.result(_END_LOCK_SECONDS))

    @property
    def has_ended(self) -> bool:
        """Whether its end is written, or somebody else's hands have it."""
        return self._ended

    @property
    def failure(self) -> BaseException | None:
        """What its job.failed is about."""
        return self._failure

    def log(
        self, event_type: str, payload: Mapping[str, Any], error_message: str | None = None
    ) -> None:
        """Write an ingestion event of this run, unless the run has ended.

        A signal ends a run while its work is still at it: nothing may follow the end.
        """
        with self._event_lock:
            if not self._ended:
                self._write(event_type, payload, error_message)

    def _write(
        self, event_type: str, payload: Mapping[str, Any], error_message: str | None = None
    ) -> None:
        self._insert([self._event(event_type, payload, error_message)], error_message)

    def _insert(
        self, events: Sequence[Mapping[str, Any]], error_message: str | None = None
    ) -> None:
        try:
            log_events(self.warehouse, events)
        except EventNotKept as lost:
            if error_message is None:
                raise
            logger.error("%s", describe(lost))  # what failed is what the run is to end with

    def _event(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        error_message: str | None = None,
        created_at: dt.datetime | None = None,
        event_id: str | None = None,
    ) -> Mapping[str, Any]:
        return new_event(
            event_type,
            source_system=self.source_system,
            connection_name=self.connection_name,
            object_type=JOB_RUN if event_type.startswith("job.") else None,
            correlation_id=self.correlation_id,
            error_message=error_message,
            payload=payload,
            created_at=created_at or self._clock.now(),
            event_id=event_id,
        )

    @property
    def began_at(self) -> dt.datetime:
        """When job.started was written. Raises AssertionError before that."""
        assert self._began_at is not None
        return self._began_at

    @property
    def duration_seconds(self) -> float:
        """Seconds since job.started."""
        return round(time.monotonic() - (self._started_at or time.monotonic()), 3)

    def _lease_holder(self, alive: list[OpenRun]) -> OpenRun | None:
        """The run to wait for: of this connection, or a copy, which merges can't run beside."""
        if not self._takes_lease:
            return None
        mine = (self.source_system, self.connection_name)
        for run in alive:
            is_of_connection = (run.source_system, run.connection_name) == mine
            if run.correlation_id == self.correlation_id or not run.takes_lease:
                continue
            if run.is_copy or (self.connection_name is not None and is_of_connection):
                return run
        return None

    def _waits_for(self, holder: OpenRun) -> str:
        what = "the warehouse is being copied into"
        if not holder.is_copy:
            what = f"connection '{self.connection_name}' is being run"
        return (
            f"{self.source_system}: {what} by {holder.correlation_id} since"
            f" {holder.started_at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC; wait for it, raise"
            f" --lock-wait, or, if it is dead: run.py close {holder.correlation_id}"
        )

    def _write_start(self) -> None:
        with self._event_lock:
            # A signal found no start to end; one written now would have no end.
            if self.cancelled.is_set():
                raise LandfallError(f"{self.job_name}: ended before it began; run it again")
            self._started_at = time.monotonic()
            self._began_at = self._clock.now()
            self._insert([self._start_event()])

    def _start_event(self) -> Mapping[str, Any]:
        return self._event(
            JOB_STARTED,
            {
                "job_name": self.job_name,
                "package_name": PACKAGE_NAME,
                "parameters": self._parameters,
                "timeout_seconds": self.timeout_seconds,
                "takes_lease": self._takes_lease,
                "host": host_identity(),
                "pid": os.getpid(),
            },
            created_at=self._began_at,
            event_id=self._start_id,
        )

    def _end(
        self,
        event_type: str,
        telemetry: Mapping[str, Any],
        error_message: str | None = None,
        failure: BaseException | None = None,
        before: Sequence[tuple[str, Mapping[str, Any]]] = (),
    ) -> None:
        # A signal must not wait for ever on a thread that hangs while it writes an event.
        locked = self._event_lock.acquire(timeout=_END_LOCK_SECONDS)
        try:
            if self._ended or self._started_at is None:
                return
            self._ended, self._failure = True, failure
            crashpoints.reached("end.before_event")
            told = {
                "job_name": self.job_name,
                "package_name": PACKAGE_NAME,
                "duration_seconds": self.duration_seconds,
                **telemetry,
                **({"checks": self.checks} if self.checks else {}),
            }
            # The start once more: a warehouse that was put back meanwhile lacks it, and what is
            # spooled may be for another one by then. Where it is, it is not written again.
            events = [self._start_event(), *(self._event(*each) for each in before)]
            self._insert([*events, self._event(event_type, told, error_message)], error_message)
            crashpoints.reached("end.after_event")
        finally:
            if locked:
                self._event_lock.release()
