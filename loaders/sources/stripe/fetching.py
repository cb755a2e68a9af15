"""What became of the objects that were asked for: stored, tombstones, failures."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from loaders.errors import ForeignAnswer, SourceError
from loaders.objects.items import Deleted, Gone, Item, Listed, Unfetched
from loaders.sources.contract import FetchRequest
from loaders.sources.stripe.client import StripeClient
from loaders.sources.stripe.kinds import INVOICE_LINE, Kind
from loaders.sources.stripe.reading import Read, Reader

_WINDOW = 4
"""Objects queued per worker: enough to keep all busy, few enough to bound memory."""
_SUSPICIOUS = 20
"""Failures in a row after which it may not be the objects."""


class Bounds:
    """How much more a run may read: by its time, and by its number of objects."""

    def __init__(self, request: FetchRequest) -> None:
        self.is_reached = False
        """Whether something was left because of them."""
        self._request = request
        self._left = request.options.max_objects
        self._has_begun = False

    def take(self, count: int) -> int:
        """So many of `count` objects may be read; the first one always, or no run got on."""
        granted = 0 if self._has_begun and self.is_over() else count
        if self._left is not None:
            granted = min(granted, self._left)
            self._left -= granted
        self._has_begun = True
        return granted

    def give_back(self, count: int) -> None:
        """So many were not there after all."""
        if self._left is not None:
            self._left += count

    def is_over(self) -> bool:
        """Whether no more may be read."""
        return self._left == 0 or self._request.must_stop()


class Held:
    """What the warehouse holds of the objects that are about to be read."""

    def __init__(self, request: FetchRequest, kind: Kind, ids: Collection[str]) -> None:
        # Dead letters too: a retry must not bring back what is deleted.
        self.ids = request.stored.held(kind.name, ids)
        if not request.options.retry:
            self.ids |= request.stored.dead(kind.name).intersection(ids)
        self._lines: dict[str, set[str]] = {}
        if INVOICE_LINE in kind.object_types:
            for key in request.stored.held_within(INVOICE_LINE, ids):
                self._lines.setdefault(key.partition(":")[0], set()).add(key)

    def lines(self, invoice_id: str) -> set[str]:
        """The lines of an invoice, by their ids in raw_objects."""
        return self._lines.get(invoice_id, set())


class Fetcher:
    """Reads objects for one run and says what became of each.

    `failures` says how often earlier runs failed on an object, by kind and id: what fails once
    more is set aside, provided that Stripe answers, what fails for the first time is kept, see
    `unfetched`.
    """

    def __init__(
        self,
        client: StripeClient,
        pool: concurrent.futures.Executor,
        request: FetchRequest,
        failures: Mapping[tuple[str, str], int],
    ) -> None:
        self.reader = Reader(client, request)
        self.bounds = Bounds(request)
        self._client = client
        self._pool = pool
        self._request = request
        self._failures = failures
        self._unfetched: dict[str, dict[str, None]] = {}
        self._failed_in_a_row = 0

    def unfetched(self, kind: Kind) -> tuple[str, ...]:
        """Ids of a kind that this run failed on and earlier ones did not."""
        return tuple(self._unfetched.get(kind.name, ()))

    def each(
        self, kind: Kind, ids: Sequence[str], attempted: set[str] | None = None
    ) -> Iterator[Item]:
        """Read objects one by one, in parallel; `attempted` gets the ids that were come to.

        Raises PermissionDenied, and SourceError when it is not the objects that fail.
        """
        held = Held(self._request, kind, ids)
        waiting = collections.deque(ids)
        pending: collections.deque[concurrent.futures.Future[Read]] = collections.deque()
        try:
            while waiting or pending:
                while waiting and len(pending) < _WINDOW * self._client.config.workers:
                    if not self.bounds.take(1):
                        self.bounds.is_reached = True
                        waiting.clear()
                        break
                    future = self._pool.submit(self.reader.one, kind, waiting.popleft())
                    pending.append(future)
                if pending:
                    read = pending.popleft().result()
                    yield from self.settle(kind, [read], held)
                    if attempted is not None:
                        attempted.add(read.object_id)
        finally:
            for future in pending:
                future.cancel()

    def settle(self, kind: Kind, reads: Iterable[Read], held: Held | None = None) -> Iterator[Item]:
        """What became of objects that were read; with `held`, of what is not there any more."""
        for read in reads:
            if read.error is not None:
                yield from self._fail(kind, read.object_id, read.error)
                continue
            self._failed_in_a_row = 0
            if read.is_gone:
                yield from self._gone(kind, read, held)
            else:
                yield Listed(len(read.observed))
                yield from read.observed
            if held is not None:
                yield from self._bury_lines(read, held)

    def _gone(self, kind: Kind, read: Read, held: Held | None) -> Iterator[Item]:
        if kind.name not in self._client.config.objects:
            return
        yield Listed(1)
        if held is not None and read.object_id in held.ids:
            yield Deleted(kind.name, read.object_id, read.observed_at)
        else:
            yield Gone(kind.name, read.object_id)

    def _bury_lines(self, read: Read, held: Held) -> Iterator[Item]:
        """Lines that an invoice had and has no more: it was read with all of them."""
        if INVOICE_LINE not in self._client.config.objects:
            return
        there = {item.external_id for item in read.observed}
        for key in sorted(held.lines(read.object_id) - there):
            yield Listed(1)
            yield Deleted(INVOICE_LINE, key, read.observed_at, with_owner=True)

    def _fail(self, kind: Kind, object_id: str, error: SourceError) -> Iterator[Item]:
        self._failed_in_a_row += 1
        attempts = self._failures.get((kind.name, object_id), 0) + 1
        if attempts > 1 or self._failed_in_a_row >= _SUSPICIOUS:
            # Raises when it is Stripe, or the way there: then no object is to blame.
            self._client.account_id(self._request)
            self._failed_in_a_row = 0
        if attempts == 1 or isinstance(error, ForeignAnswer):
            self._unfetched.setdefault(kind.name, {})[object_id] = None
            return
        yield Listed(1)
        yield Unfetched(kind.name, object_id, str(error), attempts)
