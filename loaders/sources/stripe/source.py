"""One Stripe account as a source: what a run reads of it, and what its objects are called.

Source: Stripe API reference.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from loaders.objects.items import Cursor, Item, Observed
from loaders.sources.base import EngineSource
from loaders.sources.contract import FetchRequest
from loaders.sources.inventory import Inventory
from loaders.sources.letters import wanted_objects
from loaders.sources.refusals import OF_ONE_TYPE
from loaders.sources.stripe.client import StripeClient
from loaders.sources.stripe.fetching import Fetcher
from loaders.sources.stripe.kinds import INVOICE_LINE, KINDS, kinds_of
from loaders.sources.stripe.listing import Listing
from loaders.sources.stripe.options import StripeConfig
from loaders.sources.stripe.position import Position, Slice, check_account, read_positions
from loaders.sources.stripe.reading import created, slices
from loaders.sources.stripe.sync import AccountSync
from loaders.sources.stripe.verification import AccountVerification
from loaders.warehouse.dead_letters import DeadLetter

_DATES = "created_between"
"""Stream of runs between two dates: what is left of the last one's listing."""


class StripeSource(EngineSource):
    """One account."""

    source_system = "stripe"
    # Signed addresses, made anew for every read. Metadata may use the same names.
    volatile_keys: Collection[str] = ("$.receipt_url", "$.hosted_invoice_url", "$.invoice_pdf")

    def __init__(self, connection_name: str, config: StripeConfig) -> None:
        super().__init__(connection_name, config)
        self._client = StripeClient(connection_name, config)

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        """`created`; a line's is its invoice's. None where it is not known."""
        return item.created_at or created(payload)

    def verify(self, request: FetchRequest, inventory: Inventory) -> None:
        """Fill an inventory with what is held and what the account lists, by hashes."""
        positions, _ = self._checked(request)
        verification = AccountVerification(
            self._client, self._pool, request, inventory, self.volatile_keys
        )
        verification.read(positions)

    def sync(self, request: FetchRequest) -> Iterator[Item]:
        """Follow the event feed, or list the account."""
        positions, account = self._checked(request)
        yield from AccountSync(self._client, self._pool, request, positions, account).items()

    def between(self, request: FetchRequest) -> Iterator[Item]:
        """List what was created between two dates; a bounded run leaves the rest to the next one
        with the same dates."""
        self._checked(request)
        config = self._client.config
        fetcher = Fetcher(self._client, self._pool, request, {})
        listing = Listing(fetcher.reader, self._pool, config.workers, request.bounds)
        since = 0 if request.options.since is None else int(request.options.since.timestamp())
        before = None if request.options.until is None else int(request.options.until.timestamp())
        kinds = kinds_of(config.objects)
        dates = {"created": [since, before], "objects": sorted(config.objects)}
        cursor = request.stored.cursor(_DATES) or {}
        left = cursor.get("left") if {**cursor, "left": None} == {**dates, "left": None} else None
        for kind in kinds:
            parts = left.get(kind.name, ()) if left else None
            listing.add(
                kind,
                slices(kind, since, before)
                if parts is None
                else tuple(Slice(**part) for part in parts),
            )
        for kind, reads in listing.run():
            yield from fetcher.settle(kind, reads)
            left = {
                kind.name: [part.cursor() for part in parts]
                for kind in kinds
                if (parts := listing.left(kind))
            }
            yield Cursor(_DATES, {**dates, "left": left}, request.clock.now())
        request.outcome.failures.update(listing.failures)
        request.outcome.unfetched = sum(len(fetcher.unfetched(kind)) for kind in kinds)

    def retry(self, request: FetchRequest) -> Iterator[Item]:
        """Read the objects of dead letters; a line comes with its invoice."""
        self._checked(request)
        wanted = yield from wanted_objects(request, _object_of, self._client.config.objects)
        fetcher = Fetcher(self._client, self._pool, request, wanted.attempts)
        for kind in KINDS.values():
            attempted: set[str] = set()
            ids = [key for name, key in wanted.attempts if name == kind.name]
            try:
                yield from fetcher.each(kind, ids, attempted)
            except OF_ONE_TYPE as error:
                request.outcome.failures[kind.name] = error
            wanted.settle(((kind.name, key) for key in attempted), request)

    def _checked(self, request: FetchRequest) -> tuple[dict[str, Position], str | None]:
        """The positions, and the account. Raises SourceError for another than they are of."""
        positions = read_positions(request.stored)
        account = self._client.account_id(request)
        check_account(positions, account, is_live=self._client.config.is_live)
        return positions, account


def _object_of(letter: DeadLetter) -> tuple[str, str] | None:
    """Kind and id of what to read for a letter: a line comes with its invoice."""
    kinds = kinds_of([letter.object_type])
    if letter.external_id is None or not kinds:
        return None
    if letter.object_type == INVOICE_LINE:
        return kinds[0].name, letter.external_id.partition(":")[0]
    return letter.object_type, letter.external_id
