"""What became of the objects that were asked for: stored, tombstones, failures."""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from loaders.objects.items import Deleted, Gone, Item, Listed, Unfetched
from loaders.sources.contract import FetchRequest
from loaders.sources.failures import Failures
from loaders.sources.parallel import ReadAhead
from loaders.sources.stripe.client import StripeClient
from loaders.sources.stripe.kinds import INVOICE_LINE, Kind
from loaders.sources.stripe.reading import Read, Reader

_SUSPICIOUS = 20
"""Failures in a row after which it may not be the objects."""


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

    `failures` says how often earlier runs failed on an object, by kind and id, see Failures.
    """

    def __init__(
        self,
        client: StripeClient,
        pool: concurrent.futures.Executor,
        request: FetchRequest,
        failures: Mapping[tuple[str, str], int],
    ) -> None:
        self.reader = Reader(client, request)
        self._client = client
        self._pool = pool
        self._request = request
        self._failures = Failures(failures, self._is_answering, _SUSPICIOUS)

    def unfetched(self, kind: Kind) -> tuple[str, ...]:
        """Ids of a kind that this run failed on and earlier ones did not."""
        return tuple(key for name, key in self._failures.unfetched if name == kind.name)

    def each(
        self, kind: Kind, ids: Sequence[str], attempted: set[str] | None = None
    ) -> Iterator[Item]:
        """Read objects one by one, in parallel; `attempted` gets the ids that were come to.

        Raises PermissionDenied, and SourceError when it is not the objects that fail.
        """
        held = Held(self._request, kind, ids)
        workers = self._client.config.workers
        one = functools.partial(self.reader.one, kind)
        reader = ReadAhead(self._pool, self._request, workers, one)
        for object_id, read in reader.run(self._request.bounds.granted(ids)):
            yield from self.settle(kind, [read], held)
            if attempted is not None:
                attempted.add(object_id)

    def settle(self, kind: Kind, reads: Iterable[Read], held: Held | None = None) -> Iterator[Item]:
        """What became of objects that were read; with `held`, of what is not there any more."""
        for read in reads:
            named = (kind.name, read.object_id)
            if read.error is not None:
                if self._failures.is_to_blame(named, read.error):
                    yield Listed(1)
                    yield Unfetched(*named, str(read.error), self._failures.attempts(named))
                continue
            self._failures.succeeded(named)
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

    def _is_answering(self, _: object) -> bool:
        # Raises when it is Stripe, or the way there: then no object is to blame.
        self._client.account_id(self._request)
        return True
