"""An account against the warehouse: every list read whole, objects compared by their hashes."""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence

from loaders.errors import PayloadError
from loaders.objects.items import Observed
from loaders.objects.payloads import admit
from loaders.sources.contract import FetchRequest, NotVerifiable
from loaders.sources.inventory import CHANGED_SINCE, DEAD_LETTER, EXTRA, NOT_READ_YET, Inventory
from loaders.sources.stripe.client import StripeClient
from loaders.sources.stripe.events import KEPT_DAYS, read_windows
from loaders.sources.stripe.kinds import INVOICE_LINE, Kind, kinds_of
from loaders.sources.stripe.listing import Listing
from loaders.sources.stripe.position import Position
from loaders.sources.stripe.reading import Read, Reader, created_seconds, slices

_NAMED = 20
"""Objects that could not be read, by their ids, in a note."""


class AccountVerification:
    """Fills an inventory with what the warehouse holds of an account, and with what it lists."""

    def __init__(
        self,
        client: StripeClient,
        pool: concurrent.futures.Executor,
        request: FetchRequest,
        inventory: Inventory,
        volatile_keys: Collection[str],
    ) -> None:
        self._client = client
        self._pool = pool
        self._request = request
        self._inventory = inventory
        self._volatile_keys = volatile_keys
        self._reader = Reader(client, request)
        self._known: dict[str, set[str]] = {}
        """Objects that runs failed on, by kind."""
        self._unreadable: dict[str, list[str]] = {}
        """Objects that only this verification failed on, by kind."""

    def read(self, positions: Mapping[str, Position]) -> None:
        """Read both sides; `positions` were read before. Raises NotVerifiable, SourceError."""
        kinds = self._verifiable(positions)
        for kind in kinds:
            self._hold(kind, positions[kind.name])
        self._list(kinds, positions)
        self._read_changes([kind for kind in kinds if kind.has_events], positions)
        self._read_unlisted(kinds)
        self._note_unreadable()

    def _verifiable(self, positions: Mapping[str, Position]) -> list[Kind]:
        """The kinds that were read. Raises NotVerifiable."""
        chosen = kinds_of(self._client.config.objects)
        kinds = [kind for kind in chosen if kind.name in positions]
        if not kinds:
            raise NotVerifiable('stripe: nothing is stored yet; run "run.py stripe" first')
        self._inventory.notes += [
            f"{kind.name}: no run has read it yet" for kind in chosen if kind not in kinds
        ]
        now = self._client.served_at.timestamp()
        for kind in kinds:
            position = positions[kind.name]
            if position.is_listing or not set(self._types(kind)) <= set(position.covers):
                raise NotVerifiable(
                    f"stripe: {kind.name} is still being read whole; finish that first, with"
                    ' "run.py stripe --until-done"'
                )
            if kind.has_events and now - position.until > KEPT_DAYS * 86_400:
                raise NotVerifiable(
                    f"stripe: {kind.name} was last read more than {KEPT_DAYS} days ago, so what has"
                    ' changed since cannot be told; run "run.py stripe" first'
                )
        return kinds

    def _types(self, kind: Kind) -> list[str]:
        return [name for name in kind.object_types if name in self._client.config.objects]

    def _hold(self, kind: Kind, position: Position) -> None:
        inventory, stored = self._inventory, self._request.stored
        self._known[kind.name] = stored.dead(kind.name).union(position.unfetched)
        for object_type in self._types(kind):
            inventory.hold(object_type, (key for key, _ in stored.held_ids(object_type)))
            inventory.hold_states(
                object_type, ((key, [value]) for key, value in stored.hashes(object_type))
            )
            inventory.excuse(object_type, stored.dead(object_type), DEAD_LETTER)
            inventory.excuse(object_type, position.unfetched, NOT_READ_YET)
        if not kind.has_events:
            self._excuse_pending(kind, position)

    def _excuse_pending(self, kind: Kind, position: Position) -> None:
        """Balance transactions become available without an event, also in their disputes."""
        for key, status, source in self._request.stored.members(
            kind.name, "$.status", "$.source", created_since=position.pending_since
        ):
            if status == "pending":
                self._inventory.excuse(kind.name, [key], CHANGED_SINCE)
                self._inventory.excuse("dispute", [str(source)], CHANGED_SINCE)

    def _list(self, kinds: Sequence[Kind], positions: Mapping[str, Position]) -> None:
        bounds = self._request.bounds
        listing = Listing(self._reader, self._pool, self._client.config.workers, bounds)
        for kind in kinds:
            listing.add(kind, slices(kind))
        for kind, reads in listing.run():
            self._note(kind, reads)
            if not kind.has_events:
                known_until = positions[kind.name].until - self._overlap
                self._inventory.excuse(kind.name, _created_since(reads, known_until), CHANGED_SINCE)
        for error in listing.failures.values():
            raise error

    @property
    def _overlap(self) -> int:
        return self._client.config.event_overlap_seconds

    def _note(self, kind: Kind, reads: Sequence[Read]) -> None:
        """Add what was read to the inventory."""
        states: dict[str, list[tuple[str, str]]] = {}
        for read in reads:
            if read.error is not None:
                self._fail(kind, read.object_id)
            for item in read.observed:
                external_id = item.external_id or ""
                payload_hash = self._hash(item)
                if payload_hash is None:
                    self._inventory.list_ids(item.object_type, [external_id])
                else:
                    states.setdefault(item.object_type, []).append((external_id, payload_hash))
        for object_type, some in states.items():
            self._inventory.list_states(object_type, some)

    def _fail(self, kind: Kind, object_id: str) -> None:
        """An object is there and cannot be read, nor can its lines.

        Raises SourceError when it is Stripe, or the way there, and not the object.
        """
        self._client.account_id(self._request)
        types, inventory = self._types(kind), self._inventory
        if object_id not in self._known[kind.name]:
            self._unreadable.setdefault(kind.name, []).append(object_id)
            if kind.name in types:
                inventory.list_ids(kind.name, [object_id])
        elif kind.name in types:
            inventory.list_states(kind.name, [(object_id, "")])  # a state that no object has
        if INVOICE_LINE in types:
            held = self._request.stored.held_within(INVOICE_LINE, [object_id])
            inventory.list_ids(INVOICE_LINE, held)

    def _note_unreadable(self) -> None:
        for name, ids in self._unreadable.items():
            named = ", ".join(sorted(ids)[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
            self._inventory.notes.append(
                f"{name}: {len(ids)} object(s) could not be read, though Stripe answers: {named}"
            )

    def _hash(self, item: Observed) -> str | None:
        try:
            return admit(item.text, self._volatile_keys, item.value)[2]
        except PayloadError:
            return None

    def _read_changes(self, kinds: Sequence[Kind], positions: Mapping[str, Position]) -> None:
        """What the event feed says has changed since the last run, and is not dealt with."""
        if not kinds:
            return
        since = {kind.name: positions[kind.name].until - self._overlap for kind in kinds}
        seen = {kind.name: set(positions[kind.name].seen) for kind in kinds}
        by_name = {kind.name: kind for kind in kinds}
        for window in read_windows(self._client, self._request, min(since.values())):
            changed: dict[str, list[str]] = {}
            for event in window.events:
                kind = by_name.get(event.kind)
                if kind is None or event.at < since[kind.name]:
                    continue
                if event.event_id not in seen[kind.name]:
                    for object_type in kind.object_types:
                        changed.setdefault(object_type, []).append(event.object_id)
            for object_type, ids in changed.items():
                self._inventory.excuse(object_type, ids, CHANGED_SINCE)

    def _read_unlisted(self, kinds: Sequence[Kind]) -> None:
        """A list may leave something out: what is held and not listed is asked for by its id.

        But for lines: their invoices were read with all of them.
        """
        unlisted = self._inventory.differing(EXTRA)
        for kind in kinds:
            ids = [key for object_type, key in unlisted if object_type == kind.name]
            one = functools.partial(self._reader.one, kind)
            for read in self._pool.map(one, ids):
                self._note(kind, [read])


def _created_since(reads: Sequence[Read], since: int) -> Iterator[str]:
    for read in reads:
        for item in read.observed:
            seconds = created_seconds(item.value or {})
            if item.external_id is not None and (seconds is None or seconds >= since):
                yield item.external_id
