"""Landing: object states and their cursor, in load packages of bounded size.

A package is visible only when it is complete (its row in _dlt_loads), so a cursor is
never visible without the objects it covers, and a killed run leaves nothing half done.
Packages that carry cursors form a chain, see loaders.warehouse.chain.
One package is loaded while the next is collected: never more than these two are in memory.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from loaders.errors import PayloadError, redact
from loaders.ingestion.arrow_tables import LandedCursor, LandedObject
from loaders.ingestion.batch_size import FIRST, BatchSize
from loaders.ingestion.packages import Package, PackageLoader
from loaders.objects.erasure_blocks import Erased
from loaders.objects.idem_keys import idem_key, key_prefix
from loaders.objects.items import Cursor, Deleted, ObservationClock, Observed
from loaders.objects.payloads import TOMBSTONE_HASH, admit
from loaders.transform.merge_scope import CreationTimes
from loaders.warehouse.base import Warehouse
from loaders.warehouse.chain import CLOCK, LINK, Chain, Position
from loaders.warehouse.contents import Stored
from loaders.warehouse.dead_letters import DeadLetter

DEFAULT_BATCH_BYTES = 64 * 1024 * 1024
"""Payload bytes in a load package, at most (but always one object)."""

_OLD = dt.timedelta(days=1)
"""Age of a position from which on it is landed once more, even where it is the same."""

_VALUE = re.compile(r"(?s)\s*(?:[\"“‘«`(\[{:]|(?<!\w)'|(?<![\w.])-?\d).*")
"""Where an exception's message begins to show a value, which is object content."""

CreatedAt = Callable[[Observed, Mapping[str, Any]], dt.datetime | None]


@dataclasses.dataclass
class LandingCounts:
    """What a landing has put into the warehouse."""

    landed: int = 0
    erased: int = 0
    dead_lettered: int = 0
    bytes: int = 0
    chunks: int = 0
    largest_chunk: int = 0
    """Objects and dead letters in the largest of them."""
    load_seconds: float = 0.0
    """Of loading them, most of it while others were collected."""
    objects: dict[str, int] = dataclasses.field(default_factory=dict)


class Landing:
    """Collects what one run observed and lands it chunk by chunk.

    `idem_key_of` and `created_at_of` take (item, payload). A chunk holds what `choose_batch_size`
    says, FIRST objects and as many as the first ones teach without one. With `dry_run` everything
    is checked and counted and nothing is written. `check_lease` raises when the run may land no
    more.

    Each method but `close` raises LandingError when a package before did not load; then that
    package stays on disk, nothing after it is loaded, and the next run lands it.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        *,
        source_system: str,
        connection_name: str,
        correlation_id: str,
        idem_key_of: Callable[[Observed, Mapping[str, Any]], str],
        created_at_of: CreatedAt = lambda *_: None,
        volatile_keys: Iterable[str] = (),
        choose_batch_size: Callable[[], BatchSize] | None = None,
        batch_bytes: int = DEFAULT_BATCH_BYTES,
        dry_run: bool = False,
        check_lease: Callable[[], None] = lambda: None,
    ) -> None:
        self.counts = LandingCounts()
        self.times = CreationTimes()
        self.erased = Erased()
        """Objects that are counted and not stored again."""
        self.failures: dict[tuple[str, str | None], int] = {}
        """How often earlier runs failed on an object, by type and id."""
        self._source = (source_system, connection_name)
        self._correlation_id = correlation_id
        self._idem_key_of = idem_key_of
        self._created_at_of = created_at_of
        self._volatile_keys = tuple(volatile_keys)
        self._choose_batch_size = choose_batch_size
        self.chosen_batch_size: BatchSize | None = None
        """None while nothing was queued."""
        self._batch_bytes = batch_bytes
        self._dry_run = dry_run
        self._objects: list[LandedObject] = []
        self._dead_letters: list[DeadLetter] = []
        self._cursors: dict[str, Mapping[str, Any]] = {}
        self._chain: Chain | None = None
        """Without one, packages carry no cursors."""
        self._is_position_due = self._has_moved = False
        self._bytes = 0
        self._clock: ObservationClock | None = None
        self._newest = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._chunk_began = time.monotonic()
        self._warehouse = warehouse
        self._loader = PackageLoader(warehouse, *self._source, self._refused_row, check_lease)
        # A single thread: packages follow each other, and dlt's pipeline belongs to a thread.
        self._thread = ThreadPoolExecutor(1, "landfall-landing")
        self._loading: Future[list[LandedObject]] | None = None
        self._handed_over = 0

    @property
    def batch_size(self) -> BatchSize:
        """How many objects go into a package; chosen when first asked for."""
        if self.chosen_batch_size is None:
            choose = self._choose_batch_size
            default = BatchSize(FIRST, "nothing is known")
            self.chosen_batch_size = default if choose is None else choose()
        return self.chosen_batch_size

    def observe(self, item: Observed) -> None:
        """Queue one object; what fails the gate or has no key becomes a dead letter."""
        try:
            data, payload, payload_hash = admit(item.text, self._volatile_keys, item.value)
            key = self._idem_key_of(item, payload)
            created_at = self._created_at_of(item, payload)
        except ValueError as error:  # PayloadError is one
            self.set_aside(
                item.object_type,
                item.external_id,
                self._reason(item, error),
                item.text,
                attempts=item.attempts,
                observed_at=item.observed_at,
            )
            return
        self._queue(item.object_type, key, data, payload_hash, created_at, item.observed_at, False)

    def delete(self, item: Deleted) -> None:
        """Queue a tombstone."""
        key = idem_key(*self._source, item.object_type, item.external_id)
        self._queue(item.object_type, key, None, TOMBSTONE_HASH, None, item.observed_at, True)

    def set_aside(
        self,
        object_type: str,
        external_id: str | None,
        reason: str,
        text: str | bytes | None = None,
        *,
        attempts: int = 1,
        observed_at: dt.datetime | None = None,
    ) -> None:
        """Queue a dead letter, with its text when there is one; the reason is redacted.

        Without `observed_at` it counts as observed now, after all that the connection has stored.
        """
        if external_id and self.erased.covers(*self._source, object_type, external_id):
            self.counts.erased += 1
            return
        if isinstance(text, bytes):
            text = text.decode("utf-8", errors="backslashreplace")
        text = None if text is None else _encodable(text)
        external_id = None if external_id is None else _encodable(external_id)
        self._make_room(len(text or ""))
        observed_at = observed_at or self._now()
        self._dead_letters.append(
            self._dead_letter(
                object_type, external_id, redact(reason), text, observed_at, attempts=attempts
            )
        )
        self._newest = max(self._newest, observed_at)
        self.counts.dead_lettered += 1
        self._bytes += len(text or "")

    def _reason(self, item: Observed, error: ValueError) -> str:
        """Why an object is set aside; without what a key or date function quotes of it."""
        if isinstance(error, PayloadError):
            return str(error)
        # What idem_key says begins so; behind any other colon there may be a value.
        about = f"{self._source[0]} {item.object_type}: "
        said = str(error)
        begin = about if said.startswith(about) else ""
        shown = begin + _VALUE.sub(" …", said.removeprefix(begin))
        is_whole = shown and shown == said
        return shown if is_whole else f"{type(error).__name__}: {shown}"

    def go_on_from(
        self, position: Position, clock: ObservationClock, started_at: dt.datetime
    ) -> None:
        """Let the packages to come follow the head of a position, and carry it on.

        `started_at` is when the run began. Without this call packages carry no cursors.
        """
        head = None if position.head is None else position.head.id
        self._chain = Chain(head, self._correlation_id, started_at, position.waiting)
        self._cursors = dict(position.cursors)
        self._clock = clock
        # Whoever finds a head that the log does not prove has to look into raw_objects, and one
        # that is old far back in the log.
        is_old = position.landed_at is not None and self._now() - position.landed_at >= _OLD
        self._is_position_due = is_old or not position.is_proven

    def advance(self, cursor: Cursor) -> None:
        """Land this cursor with what was queued before it, in the next load package; one that can
        wait makes none of its own."""
        self._cursors[cursor.stream] = cursor.value
        # After one that could not wait, all are landed: it may have been a step on the way.
        self._has_moved |= not cursor.can_wait
        self._is_position_due |= self._has_moved

    def flush(self) -> None:
        """Land what is queued, and return when all of it is landed."""
        self._hand_over()
        began, is_loading = time.monotonic(), self._loading is not None
        self._wait()
        self._chunk_began = time.monotonic()
        if is_loading and self._handed_over:
            self.batch_size.note_loading(self._handed_over, self._chunk_began - began)

    def load_pending(self) -> None:
        """Load the package that an earlier process left on disk, before anything new.

        What the warehouse refuses of it is a dead letter of this run.
        """
        if not self._dry_run:
            refused = self._thread.submit(self._loader.load_pending).result()
            self.counts.dead_lettered += len(refused)

    def close(self) -> None:
        """Wait for the package under way, however it ends; what is queued is dropped."""
        self._thread.shutdown()

    def _hand_over(self) -> None:
        """Begin to load what is queued as one package, after the one before it."""
        if not (self._queued or self._is_position_due):
            return
        self._wait()
        package = Package(self._objects, self._dead_letters, self._position_rows())
        if self._queued:
            self.batch_size.note(self._queued, time.monotonic() - self._chunk_began)
        self._objects, self._dead_letters, self._bytes = [], [], 0
        self._is_position_due = False
        if not self._dry_run:
            self._loading = self._thread.submit(self._load, package)
        self.counts.chunks += 1
        self._handed_over = len(package.objects) + len(package.dead_letters)
        self.counts.largest_chunk = max(self.counts.largest_chunk, self._handed_over)
        self._chunk_began = time.monotonic()

    def _load(self, package: Package) -> list[LandedObject]:
        began = time.monotonic()
        try:
            return self._loader.load(package)
        finally:
            self.counts.load_seconds += time.monotonic() - began

    def _wait(self) -> None:
        """Wait for the package under way."""
        loading, self._loading = self._loading, None
        if loading is not None:
            for refused in loading.result():
                self.counts.landed -= 1
                self.counts.objects[refused.object_type] -= 1
                self.counts.dead_lettered += 1

    def _queue(
        self,
        object_type: str,
        key: str,
        data: bytes | None,
        payload_hash: str,
        created_at: dt.datetime | None,
        observed_at: dt.datetime,
        is_deleted: bool,
    ) -> None:
        prefix = key_prefix(*self._source, object_type)
        if not key.startswith(prefix) or key == prefix:
            raise ValueError(f"idem_key_fn: expected a key that begins with {prefix!r}")
        if self.erased.covers(*self._source, object_type, key[len(prefix) :]):
            self.counts.erased += 1
            return
        size = len(data or b"")
        self._make_room(size)
        self._objects.append(
            LandedObject(
                key,
                *self._source,
                object_type,
                external_id=key[len(prefix) :],
                payload=data,
                payload_hash=payload_hash,
                object_created_at=created_at,
                observed_at=observed_at,
                is_deleted=is_deleted,
                correlation_id=self._correlation_id,
            )
        )
        self._newest = max(self._newest, observed_at)
        self.times.note(created_at)
        self.counts.landed += 1
        self.counts.bytes += size
        self.counts.objects[object_type] = self.counts.objects.get(object_type, 0) + 1
        self._bytes += size

    def _make_room(self, size: int) -> None:
        """Land what is queued when one more object would not fit in the package.

        Not as soon as it is full: the last package then has room for the cursor.
        """
        if self._queued and (
            self._queued >= self.batch_size.size
            or self._bytes + size > self._batch_bytes
            or self.batch_size.is_overtime(time.monotonic() - self._chunk_began)
        ):
            self._hand_over()

    def _now(self) -> dt.datetime:
        """By the clock that orders states: this machine's may be behind the last run's."""
        if self._clock is None:
            stored = Stored(self._warehouse, *self._source, is_empty=self._dry_run)
            self._clock = ObservationClock(stored.newest_observation())
        return max(self._clock.now(), self._newest + dt.timedelta(microseconds=1))

    @property
    def _queued(self) -> int:
        return len(self._objects) + len(self._dead_letters)

    def _position_rows(self) -> list[LandedCursor]:
        """The whole position and the link of the next package, all of one time."""
        if self._chain is None:
            # Without a place in the chain; how far the clock has come is known all the same.
            return [LandedCursor(*self._source, CLOCK, "{}", self._newest)] if self._queued else []
        link = self._chain.next(has_states=bool(self._objects))
        self._newest = self._now()
        texts = {
            stream: json.dumps(value, separators=(",", ":"))
            for stream, value in {**self._cursors, LINK: link.as_json()}.items()
        }
        return [LandedCursor(*self._source, *each, self._newest) for each in texts.items()]

    def _refused_row(self, row: LandedObject, reason: str) -> DeadLetter:
        """The dead letter of an object that passed the gate and that the warehouse refuses."""
        # Of a pending package it is a str.
        text = row.payload.decode() if isinstance(row.payload, bytes) else row.payload
        of = (row.object_type, row.external_id)
        return self._dead_letter(*of, reason, text, row.observed_at, attempts=2)

    def _dead_letter(
        self,
        object_type: str,
        external_id: str | None,
        reason: str,
        text: str | None,
        observed_at: dt.datetime,
        *,
        attempts: int = 1,
    ) -> DeadLetter:
        return DeadLetter(
            str(uuid.uuid4()),
            *self._source,
            object_type,
            external_id,
            reason,
            attempts=max(attempts, self.failures.get((object_type, external_id), 0) + 1),
            correlation_id=self._correlation_id,
            created_at=observed_at,
            payload=text,
        )


def _encodable(text: str) -> str:
    """The text with unpaired surrogates, which JSON can spell and UTF-8 cannot, spelt out."""
    return text.encode(errors="backslashreplace").decode()
