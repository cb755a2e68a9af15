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
import math
from collections.abc import Collection, Iterator, Sequence

from loaders.errors import SourceError
from loaders.items import Cursor, Deleted, FetchRequest, Item, Land, Listed
from loaders.sources.stripe.client import PAGE_SIZE, PermissionDenied, StripeClient
from loaders.sources.stripe.events import KEPT_DAYS, Changed, Event, Window, read_windows
from loaders.sources.stripe.fetching import Fetcher, Held
from loaders.sources.stripe.kinds import INVOICE, INVOICE_LINE, Kind, kinds_of
from loaders.sources.stripe.listing import Listing
from loaders.sources.stripe.position import Position, Slice
from loaders.sources.stripe.reading import OF_ONE_OBJECT, slices

_MAX_SEEN = 1_000
"""Event ids that a position keeps; what more events are about is read once more."""
_STEP = 200
"""Objects read again after which the position moves along."""
_FEED = "event"
_OF_ONE_KIND = (PermissionDenied, *OF_ONE_OBJECT)


class AccountSync:
    """What one run does for one account; `items` yields it once."""

    def __init__(
        self, client: StripeClient, pool: concurrent.futures.Executor, request: FetchRequest
    ) -> None:
        self._client = client
        self._config = client.config
        self._pool = pool
        self._request = request
        self._kinds = kinds_of(client.config.objects)
        self._cursors = {kind.name: request.stored.cursor(kind.name) for kind in self._kinds}
        self._before = {
            name: position
            for name, cursor in self._cursors.items()
            if (position := Position.read(cursor)) is not None
        }
        self._positions: dict[str, Position] = {}
        self._due: dict[str, list[str]] = {}
        self._unread: dict[str, tuple[str, ...]] = {}
        failures = {
            (name, object_id): 1
            for name, position in self._before.items()
            for object_id in position.unfetched
        }
        self._fetcher = Fetcher(client, pool, request, failures)

    def items(self) -> Iterator[Item]:
        """Yield what changed. Raises SourceError and TransientSourceError."""
        account = self._client.account_id(self._request)
        self._check_account(account)
        now = int(self._client.served_at.timestamp())
        for kind in self._kinds:
            self._positions[kind.name] = self._begin(kind, now, account)
        self._request.mode = self._mode()
        yield from self._read_unfetched()
        yield from self._read_due()
        # What is read whole comes first: what is new anywhere must not keep it waiting for ever.
        listed = [kind for kind in self._kinds if self._position(kind).is_listing]
        listed.sort(key=self._is_only_new)
        yield from self._follow([kind for kind in self._kinds if kind not in listed])
        yield from self._list(listed)
        yield from self._follow([kind for kind in listed if not self._position(kind).is_listing])
        yield from self._finish()

    def _check_account(self, account: str | None) -> None:
        """Another account under the same name would tombstone all of the first one's objects."""
        for position in self._before.values():
            is_other = None not in (account, position.account) and account != position.account
            if is_other or position.livemode != self._config.is_live:
                raise SourceError(
                    "stripe: the key opens another account, or the other one of live and test"
                    " mode, than this connection has read so far; give it a connection of its"
                    " own, or correct the key"
                )

    # ---- positions

    def _begin(self, kind: Kind, now: int, account: str | None) -> Position:
        """Where a kind goes on from: its position, or the beginning."""
        chosen = tuple(name for name in kind.object_types if name in self._config.objects)
        position = self._before.get(kind.name)
        if position is not None and not self._must_list(kind, position, now, chosen):
            account = account or position.account
            position = dataclasses.replace(position, covers=chosen, account=account)
            return position if kind.has_events else self._with_new(kind, position, now)
        is_first = self._cursors[kind.name] is None
        return Position(
            until=now,
            livemode=self._config.is_live,
            account=account,
            covers=chosen,
            slices=slices(kind),
            resync_from=None if is_first else self._request.clock.now(),
            unfetched=position.unfetched if position else (),
        )

    def _must_list(self, kind: Kind, position: Position, now: int, chosen: Collection[str]) -> bool:
        if not set(chosen) <= set(position.covers):
            return True
        if position.resync_from is not None:
            return False  # it is gone on with
        is_expired = kind.has_events and now - position.until > KEPT_DAYS * 86_400
        return self._request.full_resync or is_expired

    def _with_new(self, kind: Kind, position: Position, now: int) -> Position:
        """The position of a kind without events: what is new of it is to be listed."""
        if position.is_listing:
            return position
        since = max(1, position.until - self._config.event_overlap_seconds)
        pending = self._pending(kind, position)
        due = {key: created for key, (created, at) in pending.items() if at <= now}
        new, older = slices(kind, since), tuple[Slice, ...]()
        due = {key: created for key, created in due.items() if created < since}
        if due:
            first, last = min(due.values()), max(due.values())
            held = self._request.stored.count(kind.name, first, last + 1)
            if math.ceil(held / PAGE_SIZE) < len(due):
                older = slices(kind, first, last + 1)
            else:
                self._due[kind.name] = sorted(due)
        return dataclasses.replace(
            position,
            until=now,
            slices=(*new, *older),
            pending_since=min([since, *(created for created, _ in pending.values())]),
        )

    def _pending(self, kind: Kind, position: Position) -> dict[str, tuple[int, int]]:
        """When pending balance transactions that we hold were created, and when they are due.

        In Unix seconds. Source: Stripe API reference, Balance Transactions.
        """
        pending: dict[str, tuple[int, int]] = {}
        for key, status, created, available_on in self._request.stored.members(
            kind.name,
            "$.status",
            "$.created",
            "$.available_on",
            created_since=position.pending_since,
        ):
            if status == "pending" and isinstance(created, int):
                pending[key] = (created, available_on if isinstance(available_on, int) else 0)
            else:
                pending.pop(key, None)
        return pending

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
        if cursor != self._cursors[kind.name]:
            self._cursors[kind.name] = cursor
            yield Cursor(kind.name, cursor, self._request.clock.now())

    def _fail(self, name: str, error: SourceError) -> None:
        """A kind (or the feed) cannot be read: the others go on."""
        self._request.failures[name] = error

    def _finish(self) -> Iterator[Item]:
        request, failures = self._request, self._request.failures
        for kind in self._kinds:
            if kind.name not in failures:
                yield from self._move(kind, self._position(kind))
        request.unfetched = sum(len(self._fetcher.unfetched(kind)) for kind in self._kinds)
        request.has_more = self._fetcher.bounds.is_reached
        request.details["api_version"] = self._config.api_version
        if failures:
            request.details["failed_objects"] = sorted(failures)

    # ---- listing

    def _list(self, kinds: Sequence[Kind]) -> Iterator[Item]:
        """List kinds, whole or what is new of them; the positions move along."""
        kinds = [kind for kind in kinds if kind.name not in self._request.failures]
        if not kinds:
            return
        listing = self._new_listing()
        for kind in kinds:
            listing.add(kind, self._position(kind).slices)
        for kind, reads in listing.run():
            yield from self._fetcher.settle(kind, reads)
            position = dataclasses.replace(self._position(kind), slices=listing.left(kind))
            # A resync is over when it was compared too.
            yield from self._move(kind, position)
        for name, error in listing.failures.items():
            self._fail(name, error)
        yield Land()
        for kind in kinds:
            if not listing.left(kind):
                yield from self._end_listing(kind)

    def _new_listing(self) -> Listing:
        fetcher = self._fetcher
        return Listing(fetcher.reader, self._pool, self._config.workers, fetcher.bounds)

    def _end_listing(self, kind: Kind) -> Iterator[Item]:
        """All of a kind is listed; what an earlier listing had and this one lacks is looked at."""
        position = self._position(kind)
        if position.resync_from is not None and not self._request.dry_run:
            yield from self._read_missing(kind, position.resync_from)
            if self._fetcher.bounds.is_reached or kind.name in self._request.failures:
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
        if INVOICE_LINE in self._position(kind).covers and not self._fetcher.bounds.is_reached:
            yield Land()
            unread = {*self._fetcher.unfetched(kind), *stored.dead(INVOICE)}
            observed_at = self._request.clock.now()
            lines = stored.held_ids(INVOICE_LINE, since)
            for key in [key for key, is_fresh in lines if not is_fresh]:
                if key.partition(":")[0] not in unread:
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
        if kind.name in self._request.failures:
            return
        try:
            for start in range(0, len(ids), _STEP):
                yield from self._fetcher.each(kind, ids[start : start + _STEP], attempted)
        except _OF_ONE_KIND as error:
            self._fail(kind.name, error)

    # ---- following

    def _follow(self, kinds: Sequence[Kind]) -> Iterator[Item]:
        """Read again what the event feed says has changed."""
        failures = self._request.failures
        kinds = [kind for kind in kinds if kind.has_events and kind.name not in failures]
        if not kinds or self._fetcher.bounds.is_reached or _FEED in failures:
            return
        since = min(self._position(kind).until for kind in kinds)
        windows = read_windows(
            self._client, self._request, since - self._config.event_overlap_seconds
        )
        try:
            for window in windows:
                for kind in kinds:
                    yield from self._apply(kind, window)
                if self._fetcher.bounds.is_reached:
                    return
                if not window.is_last:
                    yield Land()  # the next one asks what is held
        except _OF_ONE_KIND as error:
            self._fail(_FEED, error)

    def _apply(self, kind: Kind, window: Window) -> Iterator[Item]:
        """Read what a window says of a kind; the position moves along, oldest events first."""
        before = self._position(kind)
        since = before.until - self._config.event_overlap_seconds
        events = [event for event in window.events if event.kind == kind.name and event.at >= since]
        changed = Changed.of(events, before.seen)
        done: set[str] = set()
        yield from self._list_new(kind, changed, done)
        left = [key for key in changed.created if key not in done]
        for start in range(0, len(left), _STEP):
            yield from self._in_steps(kind, left[start : start + _STEP], done)
            yield from self._move(kind, self._reached(kind, before, window, events, done))
            if self._fetcher.bounds.is_reached or kind.name in self._request.failures:
                return
        if kind.name not in self._request.failures:
            yield from self._move(kind, self._reached(kind, before, window, events, done))

    def _list_new(self, kind: Kind, changed: Changed, done: set[str]) -> Iterator[Item]:
        """List what the window says is new, where that takes fewer requests than single reads."""
        since = self._position(kind).until - self._config.event_overlap_seconds
        new = {key: at for key, at in changed.created.items() if at is not None and at >= since}
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
        dealt_with = [
            event for event in events if event.event_id in known or event.object_id in done
        ]
        left = [event.at for event in events if event not in dealt_with]
        until = max(before.until, min(left, default=window.until))
        overlap = until - self._config.event_overlap_seconds
        seen = [event.event_id for event in dealt_with if event.at >= overlap]
        return dataclasses.replace(
            self._position(kind), until=until, seen=tuple(dict.fromkeys(seen))[-_MAX_SEEN:]
        )
