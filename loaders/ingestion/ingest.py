"""One ingestion: extract, land, merge, check, and say what became of every object."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loaders.errors import (
    AskedToPause,
    Cancelled,
    LandfallError,
    LandingError,
    SourceError,
    TransformFailed,
    WarehouseError,
    describe,
)
from loaders.ingestion import batch_size, checking
from loaders.ingestion.batch_size import BatchSize
from loaders.ingestion.checking import Checks, full_check_hours, full_is_due, passed
from loaders.ingestion.deletions import Brake, DeletionsHeldBack
from loaders.ingestion.landing import Landing
from loaders.ingestion.progress import NullProgress, Progress
from loaders.ingestion.replay import replay
from loaders.jobs import crashpoints
from loaders.jobs.job import Job
from loaders.jobs.names import job_name_for
from loaders.jobs.runs import FOREVER, close_orphans
from loaders.objects.idem_keys import owners
from loaders.objects.items import (
    Cursor,
    Deleted,
    Gone,
    Item,
    Land,
    Listed,
    ObservationClock,
    Observed,
    Unfetched,
)
from loaders.settings.constants import constants
from loaders.settings.times import grace
from loaders.sources.contract import FetchOptions, FetchRequest, Source, Usage
from loaders.transform import dbt_build, merge_counts
from loaders.transform.merge_scope import MAX_MONTHS, MergeScope, months_of_undated
from loaders.transform.selection import are_views_current, selection
from loaders.warehouse import dead_letters
from loaders.warehouse.base import Warehouse
from loaders.warehouse.chain import Standing
from loaders.warehouse.contents import Stored

logger = logging.getLogger(__name__)

HARD_TIMEOUT_MARGIN = 900.0
"""Seconds that landing, merge and checks may take after --max-duration is over."""


class DeadLettered(LandfallError):
    """Objects of this run lie among the dead letters; everything else is stored."""


class FetchIncomplete(LandfallError):
    """The source failed on objects that the next run tries again; everything else is stored."""

    retryable = True


class PartlyFetched(LandfallError):
    """The source could not read some object types; everything else is stored."""

    def __init__(self, failures: Mapping[str, SourceError]) -> None:
        reasons = "; ".join(f"{name}: {error}" for name, error in failures.items())
        super().__init__(f"{len(failures)} object type(s) not read, all else is stored: {reasons}")
        self.retryable = all(error.retryable for error in failures.values())


@dataclasses.dataclass(frozen=True)
class IngestOptions(FetchOptions):
    """What bounds and shapes one run."""

    batch_size: int | None = None
    max_duration: float = 3000.0
    full_check: bool = False
    """Test the whole store, whenever that was done last."""

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> IngestOptions:
        """The options that a command line has of them."""
        names = {field.name for field in dataclasses.fields(cls)} & vars(arguments).keys()
        return cls(**{name: getattr(arguments, name) for name in names})

    def parameters(self) -> dict[str, Any]:
        """As job.started records them."""
        return {
            name: value.isoformat() if isinstance(value, dt.datetime) else value
            for name, value in dataclasses.asdict(self).items()
            if value is not None
        }

    def date_filter(self) -> dict[str, str] | None:
        """As ingestion.completed records it."""
        bounds = {"since": self.since, "until": self.until}
        return {name: bound.isoformat() for name, bound in bounds.items() if bound} or None


def _within_bounds(request: FetchRequest, items: Iterator[Item]) -> Iterator[Item]:
    """What a source yields, while the run goes on and, where it keeps no bounds, within them.

    What is cut off is repeated by the next run: its cursors are not landed. Raises Cancelled.
    """
    parts = owners(request.stored.connection[0])
    expected = 0
    for item in items:
        if request.cancelled.is_set():
            raise Cancelled
        is_counted = isinstance(item, Observed) and item.object_type not in parts
        if is_counted and not request.bounds.are_kept and not request.bounds.take(1):
            request.outcome.has_more = True
            yield Listed(-expected)
            return
        if isinstance(item, Listed):
            expected += item.count - item.already_held - item.already_dead
        elif not isinstance(item, Cursor | Land):
            expected -= 1
        yield item


@dataclasses.dataclass
class Tally:
    """What became of what the source listed."""

    listed: int = 0
    already_held: int = 0
    already_dead: int = 0
    gone: int = 0


@dataclasses.dataclass
class RunSummary:
    """What a run reports at its end."""

    correlation_id: str
    telemetry: Mapping[str, Any]
    counts: Mapping[str, Any]
    tests: dict[str, int]
    warnings: tuple[str, ...]
    duration_seconds: float
    has_more: bool
    checks: Checks | None = None
    """By which a run goes that did none."""


class Ingestion:
    """One run of one connection: its job, and the work in it."""

    def __init__(
        self,
        warehouse: Warehouse,
        open_source: Callable[[], Source],
        *,
        source_system: str,
        connection_name: str,
        options: IngestOptions,
        progress: Progress | None = None,
    ) -> None:
        self.job = Job(
            warehouse,
            job_name=job_name_for(source_system, connection_name),
            source_system=source_system,
            connection_name=connection_name,
            parameters=options.parameters(),
            timeout_seconds=options.max_duration + HARD_TIMEOUT_MARGIN,
        )
        self.summary: RunSummary | None = None
        self._landing: Landing | None = None
        self._standing: Standing | None = None
        self._checks: Checks | None = None
        self._full_check_hours = full_check_hours()
        self._settled: list[str] = []
        self._failures: dict[str, SourceError] = {}
        self._vanished: dict[str, tuple[int, int]] = {}
        self._warehouse = warehouse
        self._open_source = open_source
        self._options = options
        self._progress = progress or NullProgress()

    def run(self) -> None:
        """Start, extract and land, merge, check, end. Raises what made it fail, after
        job.failed is written; `summary` is set whenever the merge was reached."""
        self.job.start()
        try:
            telemetry = self._ingest()
            if self._has_nothing_to_do(telemetry):
                self._end_idle(telemetry)
                return
            self.job.log("ingestion.completed", telemetry)
            crashpoints.reached("ingestion.after_event")
            self._merge_and_check(telemetry)
        except BaseException as error:
            self.job.fail(error)
            raise

    def dry_run(self) -> dict[str, Any]:
        """Extract and count; write nothing at all, not even an event."""
        return self._extract(dry_run=True)

    def _ingest(self) -> dict[str, Any]:
        began = time.monotonic()
        try:
            telemetry = self._extract(dry_run=False)
        except BaseException as error:
            duration = round(time.monotonic() - began, 3)
            self.job.log(
                "ingestion.failed",
                {
                    "duration_seconds": duration,
                    "step": self.job.step,
                    "batch": self._batch_telemetry(),
                },
                describe(error),
            )
            raise
        return telemetry

    def _extract(self, *, dry_run: bool) -> dict[str, Any]:
        began = time.monotonic()
        usage = Usage()
        self.job.step = "extract"
        source = self._open_source()
        self._landing = landing = self._new_landing(source, dry_run)
        tally = Tally()
        try:
            landing.load_pending()
            request = self._where_it_stands(usage, began, landing, dry_run)
            brake = Brake(request)
            items = itertools.chain(replay(request, source, landing), source.fetch(request))
            try:
                for item in brake.guard(_within_bounds(request, items)):
                    crashpoints.reached("extract.first_object")
                    self._take(item, landing, tally)
            except AskedToPause:
                landing.flush()
                raise
            landing.flush()
            self._vanished = brake.vanished
            # A letter may be settled by a tombstone that is held back.
            self._settled = [] if brake.vanished else request.outcome.settled
            self._failures = request.outcome.failures
        except LandingError:
            self.job.step = "land"
            raise
        finally:
            source.close()
            landing.close()
            self._progress.stop()
        counts = landing.counts
        return {
            "records_extracted": tally.listed,
            "records_landed": counts.landed,
            "already_held": tally.already_held,
            "gone": tally.gone,
            "erased": counts.erased,
            "dead_lettered": counts.dead_lettered + tally.already_dead,
            "new_dead_letters": counts.dead_lettered,
            "bytes": counts.bytes,
            "api_calls": usage.api_calls,
            "api_units": usage.api_units,
            "retries": usage.retries,
            "throttled_seconds": round(usage.throttled_seconds, 3),
            "chunks": counts.chunks,
            "batch": self._batch_telemetry(largest=counts.largest_chunk),
            "load_seconds": round(counts.load_seconds, 3),
            "mode": request.outcome.mode,
            "has_more": request.outcome.has_more,
            "deferred": request.outcome.deferred,
            "unfetched": request.outcome.unfetched,
            "date_filter": self._options.date_filter(),
            "objects": counts.objects,
            "duration_seconds": round(time.monotonic() - began, 3),
            **request.outcome.details,
        }

    def _where_it_stands(
        self, usage: Usage, began: float, landing: Landing, dry_run: bool
    ) -> FetchRequest:
        """What the source is asked for, by what the warehouse holds; opened once for all of it."""
        creates_nothing = dry_run and not self._warehouse.is_bootstrapped()
        with contextlib.nullcontext() if creates_nothing else self._warehouse.open():
            request = self._request(usage, began, dry_run)
            self._go_on(request, landing)
            if not dry_run or self._has_erasures():
                landing.erased = request.erased = request.stored.erased()
        return request

    def _go_on(self, request: FetchRequest, landing: Landing) -> None:
        """Go on from the position that the warehouse holds, or say why not."""
        position = request.stored.position
        if position.doubt:
            logger.warning(
                "%s: %s, as when a part of the warehouse was put back: the source is read from"
                " its beginning, what is stored stays",
                self.job.source_system,
                position.doubt,
            )
        if request.dry_run:
            return
        landing.go_on_from(position, request.clock, self.job.began_at)
        self._standing = request.stored.standing
        self._checks = checking.in_force(self._standing)
        self.job.checks = None if self._checks is None else self._checks.as_json()

    def _take(self, item: Item, landing: Landing, tally: Tally) -> None:
        match item:
            case Listed(count, already_held, already_dead):
                tally.listed += count
                tally.already_held += already_held
                tally.already_dead += already_dead
                self._progress.expect(count - already_held - already_dead)
                return
            case Observed():
                landing.observe(item)
            case Deleted():
                landing.delete(item)
            case Gone():
                tally.gone += 1
            case Unfetched(object_type, external_id, reason, attempts):
                landing.set_aside(object_type, external_id, reason, attempts=attempts)
            case Cursor():
                landing.advance(item)
                return
            case Land():
                landing.flush()
                return
        self._progress.advance()

    def _has_nothing_to_do(self, telemetry: Mapping[str, Any]) -> bool:
        """Whether neither a MERGE nor a test has anything to look at, by the warehouse's word."""
        if telemetry["chunks"] or telemetry["new_dead_letters"] or self._standing is None:
            return False
        if self._is_queued(self._standing) or not self._standing.position.is_proven:
            return False
        if self._checks is None or self._is_full:
            return False
        # A letter about what was erased may come late, with somebody's package: a build takes it.
        landed_at = self._standing.letters_landed_at
        is_late = landed_at is not None and landed_at >= self._checks.at - grace()
        if self._standing.has_erasures and is_late:
            return False
        with contextlib.suppress(WarehouseError):  # the MERGE will say so
            return are_views_current(self._warehouse, self.job.source_system)
        return False

    @property
    def _is_full(self) -> bool:
        """Whether this run is to test the whole store."""
        # What is not there any more was there when the last tests passed.
        is_asked_for = self._options.full_check or self.job.was_incomplete
        return is_asked_for or full_is_due(self._checks, self._full_check_hours)

    def _is_queued(self, standing: Standing) -> bool:
        """Whether this run's MERGE would take anything: what is queued of runs under way is theirs,
        and what others queue from now on waits for whoever comes next."""
        alive = {run.correlation_id for run in self.job.alive}
        own = ":".join(map(str, self.job.connection))
        return any(of == own or run not in alive for of, run in standing.queue)

    def _end_idle(self, telemetry: Mapping[str, Any]) -> None:
        """The end of a run that found nothing: it says by whose checks it goes."""
        assert self._checks is not None
        nothing = merge_counts.of_no_build()
        counts = {**dict.fromkeys(constants().merge_actions, 0), "rescued": {}}
        self._summarize(telemetry, counts, nothing["tests"], ())
        dead_letters.forget(self._warehouse, self._settled)
        if failure := self._failure(telemetry):
            self.job.log("ingestion.completed", telemetry)
            self.job.step = "check"
            raise failure
        self.job.step = "end"
        self.job.complete(
            {
                **nothing,
                **counts,
                "merge": "skipped",
                "reason": "nothing landed, nothing queued",
                "merge_seconds": 0.0,
                "build_seconds": 0.0,
            },
            telemetry,
        )
        assert self.summary is not None
        self.summary.checks = self._checks
        self.summary.duration_seconds = self.job.duration_seconds

    def _merge_and_check(self, telemetry: dict[str, Any]) -> None:
        self.job.step = "merge"
        crashpoints.reached("merge.before")
        # Until they have passed, the next run finds the checks due.
        self.job.checks = None
        is_full = self._is_full
        with self._warehouse.open():
            self._progress.note("merging and checking (dbt build)")
            result = dbt_build.build(
                self._warehouse.target,
                self.job.correlation_id,
                selection(
                    self._warehouse,
                    self.job.source_system,
                    is_full=is_full,
                    are_views_current=are_views_current(self._warehouse, self.job.source_system),
                ),
                connection=self.job.connection,
                is_full=is_full,
                scope=self._merge_scope(),
            )
            crashpoints.reached("merge.after")
            if "warn_older_runs" in result.warnings:
                # Perhaps of one that no run has closed in the days in which each looks for it.
                close_orphans(self._warehouse, dt.datetime.now(dt.UTC), FOREVER)
            if not isinstance(result.error, TransformFailed):
                self.job.step = "check"
            counts = self.job.counts(result.scope)
            self._summarize(telemetry, counts, result.tests, result.warnings)
            if result.error:
                raise result.error
            checks = passed(self.job.correlation_id, self._checks, is_full=is_full)
            self.job.checks = checks.as_json()
            dead_letters.forget(self._warehouse, self._settled)
            if failure := self._failure(telemetry):
                raise failure
            self.job.step = "end"
            self.job.complete(
                {
                    **counts,
                    "tests": result.tests,
                    "merge": result.merge,
                    "merge_seconds": result.merge_seconds,
                    "build_seconds": result.seconds,
                }
            )
            assert self.summary is not None
            self.summary.duration_seconds = self.job.duration_seconds

    def _merge_scope(self) -> MergeScope | None:
        """What this run knows of its MERGE; None where it matters to no warehouse, or may take what
        others have queued."""
        standing, landing = self._standing, self._landing
        if not self._warehouse.bills_months or self.job.connection_name is None:
            return None
        if standing is None or self._is_queued(standing):
            return None
        assert landing is not None
        times, head = landing.times, standing.position.head
        is_new = head is None or times.are_since(head.started_at)
        months = times.months
        if times.has_undated:
            months = months | months_of_undated(self._warehouse)
        scope = MergeScope(months, landing.counts.objects, inserts_only=is_new)
        return scope if len(months) <= MAX_MONTHS else None

    def _summarize(
        self,
        telemetry: Mapping[str, Any],
        counts: Mapping[str, Any],
        tests: dict[str, int],
        warnings: tuple[str, ...],
    ) -> None:
        self.summary = RunSummary(
            self.job.correlation_id,
            telemetry,
            counts,
            tests,
            warnings,
            self.job.duration_seconds,
            telemetry["has_more"],
        )

    def _failure(self, telemetry: Mapping[str, Any]) -> LandfallError | None:
        """What a run that has stored what it could fails of all the same."""
        if self._vanished:
            return DeletionsHeldBack(self._command(), self._vanished)
        if self._failures:
            return PartlyFetched(self._failures)
        if telemetry["new_dead_letters"]:
            return DeadLettered(
                f"{self.job.source_system}: {telemetry['new_dead_letters']} object(s) could not"
                " be stored and lie among the dead letters, all others are stored;"
                " see run.py dead-letters"
            )
        if telemetry["unfetched"]:
            # Between two dates no cursor is kept, and so not what has failed before.
            then = "" if telemetry["date_filter"] else " and sets aside what fails once more"
            return FetchIncomplete(
                f"{self.job.source_system}: {telemetry['unfetched']} object(s) could not be"
                f" fetched, all others are stored; the next run tries them again{then}"
            )
        return None

    def _command(self) -> str:
        """What a person types for this run."""
        retry = "retry " if self._options.retry else ""
        named = f"{self.job.source_system} --connection {self.job.connection_name}"
        return f"run.py {retry}{named}"

    def _has_erasures(self) -> bool:
        """Whether anything can have been erased; looking creates nothing."""
        warehouse = self._warehouse
        return warehouse.is_bootstrapped() and "erasures" in warehouse.columns()

    def _batch_telemetry(self, **more: Any) -> dict[str, Any] | None:
        """Of the packages, where there were any; no other run learns from one without."""
        chosen = self._landing and self._landing.chosen_batch_size
        return {**chosen.telemetry(), **more} if chosen else None

    def _choose_batch_size(self) -> BatchSize:
        if self._options.batch_size is not None:
            return batch_size.fixed(self._options.batch_size)
        connection_name = self.job.connection_name or ""
        return batch_size.choose(self._warehouse, self.job.source_system, connection_name)

    def _new_landing(self, source: Source, dry_run: bool) -> Landing:
        return Landing(
            self._warehouse,
            source_system=source.source_system,
            connection_name=self.job.connection_name or "",
            correlation_id=self.job.correlation_id,
            idem_key_of=source.idem_key,
            created_at_of=source.created_at,
            volatile_keys=source.volatile_keys,
            choose_batch_size=None if dry_run else self._choose_batch_size,
            dry_run=dry_run,
            check_lease=self.job.check_lease,
        )

    def _request(self, usage: Usage, began: float, dry_run: bool) -> FetchRequest:
        stored = Stored(
            self._warehouse,
            self.job.source_system,
            self.job.connection_name or "",
            is_empty=dry_run and not self._warehouse.is_bootstrapped(),
            job_name=self.job.job_name,
            log_days=self._full_check_hours / 24 + 1,
        )
        options = self._options
        return FetchRequest(
            clock=ObservationClock(stored.newest_observation()),
            usage=usage,
            stored=stored,
            say=self._progress.note,
            cancelled=self.job.cancelled,
            seconds_left=lambda: options.max_duration - (time.monotonic() - began),
            options=options,
            dry_run=dry_run,
        )
