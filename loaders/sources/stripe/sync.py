"""One run's sync of an account, kind by kind: by the event feed where that suffices.

    no position                      pin the time, list the kind, in parallel over slices of its
                                     creation times; then as below
    a position                       the events since: read again what they are about; tombstones
                                     of what is not there any more
    a position older than the feed   list the kind again, read once more what the list lacks

Balance transactions have no events: what is new is listed, what was pending is read again. Each
kind has a position of its own, so a kind may be left out, refused or added at any time.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime as dt
import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from loaders.errors import SourceError
from loaders.objects.items import Cursor, Deleted, Item, Land, Listed
from loaders.sources.contract import FetchRequest
from loaders.sources.refusals import OF_ONE_TYPE
from loaders.sources.stripe.client import PAGE_SIZE, StripeClient
from loaders.sources.stripe.events import (
    KEPT_DAYS,
    Event,
    Window,
    changed_objects,
    known_until,
    newest_event,
    read_windows,
)
from loaders.sources.stripe.fetching import Fetcher, Held
from loaders.sources.stripe.kinds import INVOICE, INVOICE_LINE, Kind, kinds_of
from loaders.sources.stripe.listing import Listing
from loaders.sources.stripe.position import Position, Slice
from loaders.sources.stripe.reading import Read, created_seconds, slices

_MAX_SEEN = 10_000
"""Event ids that a position keeps; what more events are about is read once more."""
_ASK_AGAIN_SECONDS = 86_400
"""After which the warehouse is asked again what is pending: an object may have come another way."""
_LONGEST_PENDING_SECONDS = 35 * 86_400
"""How long a balance transaction is pending, at most: a payout schedule delays by up to 31 days."""
_STEP = 200
"""Objects read again after which the position moves along."""
_FEED = "event"


@dataclasses.dataclass(frozen=True, slots=True)
class _Pending:
    """A balance transaction that is to become available; times in Unix seconds."""

    key: str
    created: int
    available_on: int
    source: str


class AccountSync:
    """What one run does for one account; `items` yields it once."""

    def __init__(
        self,
        client: StripeClient,
        pool: concurrent.futures.Executor,
        request: FetchRequest,
        before: Mapping[str, Position],
        account: str | None,
    ) -> None:
        """`before` are the positions of the last run, by kind; `account` is the id of the account
        that is read, None when the key may not say."""
        self._client = client
        self._config = client.config
        self._pool = pool
        self._request = request
        self._kinds = kinds_of(client.config.objects)
        self._before = {kind.name: before[kind.name] for kind in self._kinds if kind.name in before}
        self._account = account
        self._cursors = {name: position.cursor() for name, position in self._before.items()}
        self._positions: dict[str, Position] = {}
        self._due: dict[str, list[str]] = {}
        self._unread: dict[str, tuple[str, ...]] = {}
        self._now = 0
        self._feed_stands_at: int | None = None
        self._has_long_feed = False
        failures = {
            (name, object_id): 1
            for name, position in self._before.items()
            for object_id in position.unfetched
        }
        self._fetcher = Fetcher(client, pool, request, failures)

    def items(self) -> Iterator[Item]:
        """Yield what changed. Raises SourceError and TransientSourceError."""
        self._now = int(self._client.served_at.timestamp())
        for kind in self._kinds:
            self._positions[kind.name] = self._begin(kind, self._now)
        self._request.outcome.mode = self._mode()
        yield from self._read_unfetched()
        yield from self._read_due()
        listed = [kind for kind in self._kinds if self._position(kind).is_listing]
        # What is read whole before what is new: that must not keep it waiting for ever.
        listed.sort(key=self._is_only_new)
        yield from self._follow([kind for kind in self._kinds if kind not in listed])
        yield from self._list(listed)
        yield from self._follow([kind for kind in listed if not self._position(kind).is_listing])
        yield from self._finish()

    # ---- positions

    def _begin(self, kind: Kind, now: int) -> Position:
        """Where a kind goes on from: its position, or the beginning."""
        chosen = tuple(name for name in kind.object_types if name in self._config.objects)
        before = self._before.get(kind.name)
        is_expired = before is not None and kind.has_events and _is_expired(before, now)
        if before is not None and not is_expired and not self._must_list(before, chosen):
            account = self._account or before.account
            position = dataclasses.replace(before, covers=chosen, account=account)
            return position if kind.has_events else self._with_new(kind, position, now)
        # A list may leave something out that the feed tells of.
        has_feed = before is not None and kind.has_events and not is_expired
        return Position(
            until=before.until if before is not None and has_feed else self._pinned(kind),
            livemode=self._config.is_live,
            account=self._account,
            covers=chosen,
            slices=slices(kind),
            resync_from=None if self._is_first(kind) else self._request.clock.now(),
            seen=before.seen if before is not None and has_feed else (),
            listed_pending=None if kind.has_events else self._now,
            next_due=None if kind.has_events else self._now + _ASK_AGAIN_SECONDS,
            unfetched=before.unfetched if before is not None else (),
        )

    def _pinned(self, kind: Kind) -> int:
        """Where a kind that is about to be listed stands: no change after that may be missed."""
        if not kind.has_events:
            return known_until(self._now, ())
        if self._feed_stands_at is None:
            try:
                self._feed_stands_at = newest_event(self._client, self._request, self._now)
            except OF_ONE_TYPE:  # following the feed says so
                self._feed_stands_at = known_until(self._now, ())
        return self._feed_stands_at

    def _is_first(self, kind: Kind) -> bool:
        """Whether nothing of a kind was ever stored: parts may be, without a position."""
        stored = self._request.stored
        return kind.name not in self._before and not any(
            True for name in kind.object_types for _ in stored.held_ids(name)
        )

    def _must_list(self, position: Position, chosen: Collection[str]) -> bool:
        if not set(chosen) <= set(position.covers):
            return True
        # A resync under way is gone on with.
        return self._request.options.full_resync and position.resync_from is None

    def _with_new(self, kind: Kind, position: Position, now: int) -> Position:
        """The position of a kind without events: what is new of it is to be listed."""
        if position.is_listing:
            return position
        since = max(1, position.until - self._config.event_overlap_seconds)
        next_due, known_since = position.next_due, position.pending_since or position.listed_pending
        pending_since = min(since, known_since or since)
        due: list[_Pending] = []
        if next_due is None or next_due <= now:
            pending = self._pending(kind, known_since)
            due = [one for one in pending if one.available_on <= now]
            pending_since = min([since, *(one.created for one in pending)])
            wait = self._overdue_seconds if due else _ASK_AGAIN_SECONDS
            to_come = (one.available_on for one in pending if one not in due)
            next_due = min([now + wait, *to_come])
        self._due["dispute"] = self._disputes_of(due)
        older = [one for one in due if one.created < since]
        again: tuple[Slice, ...] = ()
        if older:
            first, last = (choose(one.created for one in older) for choose in (min, max))
            held = self._request.stored.count(kind.name, first, last + 1)
            if math.ceil(held / PAGE_SIZE) < len(older):
                again = slices(kind, first, last + 1)
            else:
                self._due[kind.name] = sorted(one.key for one in older)
        return dataclasses.replace(
            position,
            slices=(*slices(kind, since), *again),
            pending_since=pending_since,
            next_due=next_due,
        )

    def _pending(self, kind: Kind, since: int | None) -> list[_Pending]:
        """The pending balance transactions that we hold, of those created since then or any.

        Source: Stripe API reference, Balance Transactions.
        """
        # One that was set aside and came by a retry may be older than what was known to be pending.
        since = None if since is None else min(since, self._now - _LONGEST_PENDING_SECONDS)
        pending: dict[str, _Pending] = {}
        for key, status, *values in self._request.stored.members(
            kind.name,
            "$.status",
            "$.created",
            "$.available_on",
            "$.source",
            created_since=since,
        ):
            created, available_on, source = values
            pending.pop(key, None)
            if _is_pending({"status": status}) and isinstance(created, int):
                at = available_on if isinstance(available_on, int) else 0
                pending[key] = _Pending(key, created, at, str(source))
        return list(pending.values())

    def _disputes_of(self, due: Collection[_Pending]) -> list[str]:
        """The disputes that hold a copy of these transactions: no event tells of that change."""
        if "dispute" not in self._config.objects:
            return []
        return sorted(self._request.stored.held("dispute", {one.source for one in due}))

    @property
    def _overdue_seconds(self) -> int:
        return int(60 * self._config.pending_interval_minutes)

    def _is_only_new(self, kind: Kind) -> bool:
        """Whether what is new of a kind is listed, not all of it."""
        position = self._position(kind)
        return position.pending_since is not None and position.resync_from is None

    def _mode(self) -> str:
        if any(position.resync_from is not None for position in self._positions.values()):
            return "resync"
        listing = [kind for kind in self._kinds if self._position(kind).is_listing]
        return "incremental" if all(map(self._is_only_new, listing)) else "full"

    def _position(self, kind: Kind) -> Position:
        return self._positions[kind.name]

    def _move(self, kind: Kind, position: Position) -> Iterator[Item]:
        """The cursor of a position, when it differs from the last one."""
        unfetched = (*self._unread.get(kind.name, ()), *self._fetcher.unfetched(kind))
        position = dataclasses.replace(position, unfetched=unfetched)
        self._positions[kind.name] = position
        cursor = position.cursor()
        if cursor != self._cursors.get(kind.name):
            self._cursors[kind.name] = cursor
            can_wait = not self._has_long_feed and self._is_only_further(kind, position)
            yield Cursor(kind.name, cursor, self._request.clock.now(), can_wait)

    def _is_only_further(self, kind: Kind, position: Position) -> bool:
        """Whether a position differs from that of the last run by what it has passed only."""
        before = self._before.get(kind.name)
        return before is not None and position == dataclasses.replace(
            before,
            until=position.until,
            seen=position.seen,
            pending_since=position.pending_since,
            listed_pending=position.listed_pending,
        )

    def _fail(self, name: str, error: SourceError) -> None:
        """A kind (or the feed) cannot be read: the others go on."""
        self._request.outcome.failures[name] = error

    def _finish(self) -> Iterator[Item]:
        request, failures = self._request, self._request.outcome.failures
        for kind in self._kinds:
            if kind.name not in failures:
                yield from self._move(kind, self._position(kind))
        request.outcome.unfetched = sum(len(self._fetcher.unfetched(kind)) for kind in self._kinds)
        request.outcome.details["api_version"] = self._config.api_version
        if failures:
            request.outcome.details["failed_objects"] = sorted(failures)

    # ---- listing

    def _list(self, kinds: Sequence[Kind]) -> Iterator[Item]:
        """List kinds, whole or what is new of them; the positions move along."""
        kinds = [kind for kind in kinds if kind.name not in self._request.outcome.failures]
        if not kinds:
            return
        listing = self._new_listing()
        for kind in kinds:
            listing.add(kind, self._position(kind).slices)
        for kind, reads in listing.run():
            try:
                yield from self._fetcher.settle(kind, self._not_seen(kind, reads))
            except OF_ONE_TYPE as error:
                listing.failures[kind.name] = error
                continue
            position = dataclasses.replace(self._position(kind), slices=listing.left(kind))
            if not kind.has_events:
                position = self._listed(position, reads)
            yield from self._move(kind, position)
        for name, failure in listing.failures.items():
            self._fail(name, failure)
        if not all(map(self._is_only_new, kinds)):
            yield Land()  # what follows asks what is held
        for kind in kinds:
            if not listing.left(kind) and kind.name not in listing.failures:
                yield from self._end_listing(kind)

    def _not_seen(self, kind: Kind, reads: Sequence[Read]) -> Sequence[Read]:
        """What was listed but what is stored as it is: the overlap of a list without events."""
        if kind.has_events or not self._is_only_new(kind):
            return reads
        seen = set(self._before[kind.name].seen)
        return [read for read in reads if not seen or _named(read) not in seen]

    def _listed(self, position: Position, reads: Sequence[Read]) -> Position:
        """Of a kind without events: up to the newest object that was listed."""
        values = [item.value or {} for read in reads for item in read.observed]
        created = [created_seconds(value) for value in values]
        until = known_until(self._now, (at for at in created if at is not None))
        until = max(position.until, until)
        overlap = until - self._config.event_overlap_seconds
        recent = [read for read in reads if (_created(read) or 0) >= overlap]
        met = dict.fromkeys([*position.seen, *map(_named, recent)])
        kept = [name for name in met if int(name.partition(" ")[0]) >= overlap]
        # What the first listing finds overdue is looked at by the next run.
        wait = 0 if position.pending_since is None else self._overdue_seconds
        next_due, overdue = position.next_due, self._now + wait
        pending = [value for value in values if _is_pending(value)]
        if next_due is not None:
            stated = (value.get("available_on") for value in pending)
            to_come = (at if isinstance(at, int) and at > self._now else overdue for at in stated)
            next_due = min([next_due, *to_come])
        listed_pending = position.listed_pending
        if listed_pending is not None:
            began = (created_seconds(value) for value in pending)
            listed_pending = min([listed_pending, *(at or 0 for at in began)])
        return dataclasses.replace(
            position,
            until=until,
            seen=tuple(kept)[-_MAX_SEEN:],
            next_due=next_due,
            listed_pending=listed_pending,
        )

    def _new_listing(self) -> Listing:
        fetcher = self._fetcher
        return Listing(fetcher.reader, self._pool, self._config.workers, self._request.bounds)

    def _end_listing(self, kind: Kind) -> Iterator[Item]:
        """All of a kind is listed; what an earlier listing had and this one lacks is looked at."""
        position = self._position(kind)
        if position.resync_from is not None and not self._request.dry_run:
            yield from self._read_missing(kind, position.resync_from)
            if self._request.bounds.is_reached or kind.name in self._request.outcome.failures:
                return
        yield from self._move(kind, dataclasses.replace(position, slices=(), resync_from=None))

    def _read_missing(self, kind: Kind, since: dt.datetime) -> Iterator[Item]:
        """Held objects that were not listed: Stripe is asked for each before it counts as deleted.

        It cannot be asked for lines: they are gone when no invoice was read with them.
        """
        stored = self._request.stored
        if kind.name in self._config.objects:
            missing = [key for key, is_fresh in stored.held_ids(kind.name, since) if not is_fresh]
            yield from self._in_steps(kind, missing)
        if INVOICE_LINE in self._position(kind).covers and not self._request.bounds.is_reached:
            yield Land()
            unread = {*self._fetcher.unfetched(kind), *stored.dead(INVOICE)}
            dead = stored.dead(INVOICE_LINE)
            observed_at = self._request.clock.now()
            lines = stored.held_ids(INVOICE_LINE, since)
            for key in [key for key, is_fresh in lines if not is_fresh]:
                if key.partition(":")[0] not in unread and key not in dead:
                    yield Listed(1)
                    yield Deleted(INVOICE_LINE, key, observed_at)

    # ---- reading again

    def _read_unfetched(self) -> Iterator[Item]:
        """What the last run failed on, before anything else."""
        for kind in self._kinds:
            ids = self._before[kind.name].unfetched if kind.name in self._before else ()
            attempted: set[str] = set()
            yield from self._in_steps(kind, ids, attempted)
            self._unread[kind.name] = tuple(key for key in ids if key not in attempted)
        if any(position.unfetched for position in self._before.values()):
            yield Land()

    def _read_due(self) -> Iterator[Item]:
        """What has changed without an event."""
        for kind in self._kinds:
            yield from self._in_steps(kind, self._due.get(kind.name, ()))

    def _in_steps(
        self, kind: Kind, ids: Sequence[str], attempted: set[str] | None = None
    ) -> Iterator[Item]:
        """Read objects of a kind one by one, unless the kind fails."""
        if kind.name in self._request.outcome.failures:
            return
        try:
            for start in range(0, len(ids), _STEP):
                yield from self._fetcher.each(kind, ids[start : start + _STEP], attempted)
        except OF_ONE_TYPE as error:
            self._fail(kind.name, error)

    # ---- following

    def _follow(self, kinds: Sequence[Kind]) -> Iterator[Item]:
        """Read again what the event feed says has changed."""
        failures = self._request.outcome.failures
        kinds = [kind for kind in kinds if kind.has_events and kind.name not in failures]
        if not kinds or self._request.bounds.is_reached or _FEED in failures:
            return
        since = min(self._position(kind).until for kind in kinds)
        windows = read_windows(
            self._client, self._request, since - self._config.event_overlap_seconds
        )
        try:
            for window in windows:
                self._has_long_feed |= window.pages > 1 or not window.is_last
                for kind in kinds:
                    if kind.name not in failures:
                        yield from self._apply(kind, window)
                if window.is_last or self._request.bounds.is_reached:
                    return
                if self._request.bounds.is_over:
                    self._request.bounds.reach()
                    return
                if window.events:
                    yield Land()  # the next one asks what is held
        except OF_ONE_TYPE as error:
            self._fail(_FEED, error)

    def _apply(self, kind: Kind, window: Window) -> Iterator[Item]:
        """Read what a window says of a kind; the position moves along, oldest events first."""
        before = self._position(kind)
        since = before.until - self._config.event_overlap_seconds
        events = [event for event in window.events if event.kind == kind.name and event.at >= since]
        changed = changed_objects(events, set(before.seen))
        done: set[str] = set()
        yield from self._list_new(kind, changed, done)
        left = [key for key in changed if key not in done]
        for start in range(0, len(left), _STEP):
            if self._request.bounds.is_reached or kind.name in self._request.outcome.failures:
                break
            yield from self._in_steps(kind, left[start : start + _STEP], done)
            yield from self._move(kind, self._reached(kind, before, window, events, done))
        yield from self._move(kind, self._reached(kind, before, window, events, done))

    def _list_new(
        self, kind: Kind, changed: Mapping[str, int | None], done: set[str]
    ) -> Iterator[Item]:
        """List what the window says is new, where that takes fewer requests than single reads."""
        since = self._position(kind).until - self._config.event_overlap_seconds
        new = {key: at for key, at in changed.items() if at is not None and at >= since}
        if len(new) <= len(kind.lists) + math.ceil(len(new) / PAGE_SIZE):
            return
        held = Held(self._request, kind, list(new))
        listing = self._new_listing()
        listing.add(kind, slices(kind, min(new.values()), max(new.values()) + 1))
        for _, reads in listing.run():
            done.update(read.object_id for read in reads)
            yield from self._fetcher.settle(kind, reads, held)
        for error in listing.failures.values():
            self._fail(kind.name, error)

    def _reached(
        self, kind: Kind, before: Position, window: Window, events: Sequence[Event], done: set[str]
    ) -> Position:
        """The position up to the first event that is not dealt with."""
        known = set(before.seen)
        seen, left = list[Event](), list[Event]()
        for event in events:
            is_known = event.event_id in known or event.object_id in done
            (seen if is_known else left).append(event)
        until = max(before.until, min((event.at for event in left), default=window.until))
        overlap = until - self._config.event_overlap_seconds
        met_again = dict.fromkeys(() if window.is_last else before.seen)
        met_again |= dict.fromkeys(event.event_id for event in seen if event.at >= overlap)
        # All of them while some are left: those would be read first by every bounded run.
        kept = tuple(met_again) if left else tuple(met_again)[-_MAX_SEEN:]
        return dataclasses.replace(self._position(kind), until=until, seen=kept)


def _is_pending(transaction: Mapping[str, Any]) -> bool:
    """Whether a balance transaction is still to become available."""
    return transaction.get("status") == "pending"


def _created(read: Read) -> int | None:
    return created_seconds(read.observed[0].value or {}) if read.observed else None


def _named(read: Read) -> str:
    """An object as `Position.seen` has it: its creation, its id and a hash of what it was."""
    digest = hashlib.sha256()
    for item in read.observed:
        digest.update(item.text if isinstance(item.text, bytes) else item.text.encode())
    return f"{_created(read) or 0} {read.object_id} {digest.hexdigest()[:16]}"


def _is_expired(position: Position, now: int) -> bool:
    return now - position.until > KEPT_DAYS * 86_400
