"""Upserting objects from other Python jobs, on the same path as the sources."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from loaders.ingestion.batch_size import fixed
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.ingestion.landing import Landing
from loaders.jobs.names import job_name_for, new_correlation_id
from loaders.objects.idem_keys import IdemKeyFunction
from loaders.objects.items import Item, Listed, ObservationClock, Observed, Unfetched
from loaders.settings.constants import constants
from loaders.settings.private_files import made_private
from loaders.settings.target import load_target
from loaders.sources.contract import FetchRequest
from loaders.transform import bootstrap, dbt_build, merge_counts
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from loaders.warehouse.opening import open_warehouse

CreatedAtFunction = Callable[[Mapping[str, Any]], dt.datetime | None]


@dataclasses.dataclass(frozen=True)
class UpsertResult:
    """What became of the objects; the merge counts are zero when `merge` was false."""

    correlation_id: str
    landed: int
    dead_lettered: int
    counts: Mapping[str, int]
    """inserted, updated, unchanged, deleted, undeleted, stale"""


@made_private()
def upsert_objects(
    objects: Iterable[Mapping[str, Any]],
    *,
    source_system: str,
    connection_name: str,
    object_type: str,
    idem_key_fn: IdemKeyFunction,
    batch_size: int | None = None,
    merge: bool = True,
    created_at_fn: CreatedAtFunction | None = None,
    volatile_keys: Collection[str] = (),
    correlation_id: str | None = None,
    warehouse: Warehouse | None = None,
    max_duration: float = 3000.0,
) -> UpsertResult:
    """Land objects in batches and merge them into raw_objects in one statement.

    `objects` is any iterable of JSON objects; it is read once and never held whole:
    memory is bounded by `batch_size`. `idem_key_fn` makes an object's key, see
    loaders.objects.idem_keys; an object it refuses with ValueError becomes a dead letter.

    Called without `correlation_id` and with `merge`, this is a job of its own, with its
    three events. With a `correlation_id` it is a part of the caller's run, and with
    `merge=False` it only lands: the next merge takes the objects in. Neither writes
    events.

    As a job it holds the connection: another run of it waits. `objects` is to end within
    `max_duration` seconds: 25 minutes after that another run takes this one for dead, and it ends
    with LeaseLost. It tells no alert, and signals are the caller's.

    Raises ValueError for a missing argument and LandfallError when the job fails; then
    job.failed is written and what was landed waits for the next merge.
    """
    for name, value in (
        ("source_system", source_system),
        ("connection_name", connection_name),
        ("object_type", object_type),
        ("idem_key_fn", idem_key_fn),
    ):
        if not value:
            raise ValueError(f"upsert_objects: {name} is required")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"upsert_objects: batch_size must be at least 1, got {batch_size}")
    warehouse = warehouse or open_warehouse(load_target())
    source = _IterableSource(
        objects, source_system, object_type, idem_key_fn, created_at_fn, volatile_keys
    )
    if merge and correlation_id is None:
        options = IngestOptions(batch_size=batch_size, max_duration=max_duration)
        return _as_job(source, warehouse, connection_name, options)
    return _within_run(source, warehouse, connection_name, batch_size, merge, correlation_id)


class _IterableSource:
    """Python objects in the shape of a source."""

    def __init__(
        self,
        objects: Iterable[Mapping[str, Any]],
        source_system: str,
        object_type: str,
        idem_key_fn: IdemKeyFunction,
        created_at_fn: CreatedAtFunction | None,
        volatile_keys: Collection[str],
    ) -> None:
        self.source_system = source_system
        self.volatile_keys = volatile_keys
        self._objects = objects
        self._object_type = object_type
        self._idem_key_fn = idem_key_fn
        self._created_at_fn = created_at_fn

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        for item in self.items(request.clock):
            yield Listed(1)
            yield item

    def items(self, clock: ObservationClock) -> Iterator[Observed | Unfetched]:
        for payload in self._objects:
            try:
                text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
            except (TypeError, ValueError, RecursionError) as error:
                reason = f"cannot be written as JSON: {type(error).__name__}"
                yield Unfetched(self._object_type, None, reason)
            else:
                yield Observed(self._object_type, text, clock.now())

    def idem_key(self, item: Observed, payload: Mapping[str, Any]) -> str:
        return self._idem_key_fn(payload)

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        return self._created_at_fn(payload) if self._created_at_fn else None

    def close(self) -> None:
        pass


def _as_job(
    source: _IterableSource, warehouse: Warehouse, connection_name: str, options: IngestOptions
) -> UpsertResult:
    ingestion = Ingestion(
        warehouse,
        lambda: source,
        source_system=source.source_system,
        connection_name=connection_name,
        options=options,
    )
    ingestion.run()
    summary = ingestion.summary
    assert summary is not None
    return UpsertResult(
        summary.correlation_id,
        summary.telemetry["records_landed"],
        summary.telemetry["new_dead_letters"],
        summary.counts,
    )


def _within_run(
    source: _IterableSource,
    warehouse: Warehouse,
    connection_name: str,
    batch_size: int | None,
    merge: bool,
    correlation_id: str | None,
) -> UpsertResult:
    name = job_name_for(source.source_system, connection_name)
    run = correlation_id or new_correlation_id(name)
    with warehouse.open():
        bootstrap.bootstrap(warehouse)
        stored = Stored(warehouse, source.source_system, connection_name)
        clock = ObservationClock(stored.newest_observation())
        erased = stored.erased()
    landing = Landing(
        warehouse,
        source_system=source.source_system,
        connection_name=connection_name,
        correlation_id=run,
        idem_key_of=source.idem_key,
        created_at_of=source.created_at,
        volatile_keys=source.volatile_keys,
        choose_batch_size=None if batch_size is None else lambda: fixed(batch_size),
    )
    landing.erased = erased
    with contextlib.closing(landing):
        landing.load_pending()
        for item in source.items(clock):
            if isinstance(item, Observed):
                landing.observe(item)
            else:
                landing.set_aside(item.object_type, item.external_id, item.reason)
        landing.flush()
    counts = dict.fromkeys(constants().merge_actions, 0)
    if merge:
        with warehouse.open():
            connection = (source.source_system, connection_name)
            result = dbt_build.build(warehouse.target, run, connection=connection)
            if result.error:
                raise result.error
            counts = merge_counts.merge_counts(warehouse, run, connection)
    return UpsertResult(run, landing.counts.landed, landing.counts.dead_lettered, counts)
