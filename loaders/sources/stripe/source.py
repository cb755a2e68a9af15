"""One Stripe account as a source: what a run reads of it, and what its objects are called.

Source: Stripe API reference.
"""

from __future__ import annotations

import concurrent.futures
import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from loaders.objects.idem_keys import idem_key, stripe_idem_key
from loaders.objects.items import Cursor, Item, Listed, Observed
from loaders.sources.contract import FetchRequest
from loaders.sources.inventory import Inventory
from loaders.sources.stripe.client import PermissionDenied, StripeClient
from loaders.sources.stripe.fetching import Fetcher
from loaders.sources.stripe.kinds import INVOICE_LINE, KINDS, kinds_of
from loaders.sources.stripe.listing import Listing
from loaders.sources.stripe.options import StripeConfig
from loaders.sources.stripe.position import Slice, check_account, read_positions
from loaders.sources.stripe.reading import OF_ONE_OBJECT, created, slices
from loaders.sources.stripe.sync import AccountSync
from loaders.sources.stripe.verification import AccountVerification
from loaders.warehouse.dead_letters import DeadLetter

_DATES = "created_between"
"""Stream of runs between two dates: what is left of the last one's listing."""


class StripeSource:
    """One account."""

    source_system = "stripe"
    # Signed addresses, made anew for every read. Metadata may use the same names.
    volatile_keys: Collection[str] = ("$.receipt_url", "$.hosted_invoice_url", "$.invoice_pdf")

    def __init__(self, connection_name: str, config: StripeConfig) -> None:
        self._connection_name = connection_name
        self._client = StripeClient(connection_name, config)
        self._pool = concurrent.futures.ThreadPoolExecutor(config.workers, "stripe")

    def idem_key(self, item: Observed, payload: Mapping[str, Any]) -> str:
        """By the API's id; an invoice's line by its invoice's and its own.

        Raises ValueError for an object without an id, or with another than was asked for.
        """
        if item.object_type == INVOICE_LINE:
            external_id = item.external_id or ""
            return idem_key(self.source_system, self._connection_name, INVOICE_LINE, external_id)
        key = stripe_idem_key(self._connection_name, item.object_type)(payload)
        if item.external_id not in (None, payload["id"]):
            raise ValueError(f"stripe {item.object_type} with another id than was asked for")
        return key

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        """`created`; a line's is its invoice's. None where it is not known."""
        return item.created_at or created(payload)

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        """Yield what changed since the last run; what lies between two dates; or dead letters."""
        request.outcome.max_deletions_percent = self._client.config.max_deletions_percent
        positions = read_positions(request.stored)
        account = self._client.account_id(request)
        check_account(positions, account, is_live=self._client.config.is_live)
        if request.options.retry:
            yield from self._retry(request)
        elif request.options.since is not None or request.options.until is not None:
            yield from self._between(request)
        else:
            sync = AccountSync(self._client, self._pool, request, positions, account)
            yield from sync.items()

    def verify(self, request: FetchRequest, inventory: Inventory) -> None:
        """Fill an inventory with what is held and what the account lists, by hashes."""
        positions = read_positions(request.stored)
        account = self._client.account_id(request)
        check_account(positions, account, is_live=self._client.config.is_live)
        verification = AccountVerification(
            self._client, self._pool, request, inventory, self.volatile_keys
        )
        verification.read(positions)

    def close(self) -> None:
        """Stop the worker threads; requests under way are waited for."""
        self._pool.shutdown(cancel_futures=True)

    def _between(self, request: FetchRequest) -> Iterator[Item]:
        """Objects created between two dates; where the sync stands is left alone.

        What a bounded run leaves is the next one's with the same dates.
        """
        config = self._client.config
        fetcher = Fetcher(self._client, self._pool, request, {})
        listing = Listing(fetcher.reader, self._pool, config.workers, fetcher.bounds)
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
                kind.name: [part.as_json() for part in parts]
                for kind in kinds
                if (parts := listing.left(kind))
            }
            yield Cursor(_DATES, {**dates, "left": left}, request.clock.now())
        request.outcome.failures.update(listing.failures)
        request.outcome.unfetched = sum(len(fetcher.unfetched(kind)) for kind in kinds)
        request.outcome.has_more = fetcher.bounds.is_reached

    def _retry(self, request: FetchRequest) -> Iterator[Item]:
        """The objects of dead letters, read anew; of those that cannot be, their texts again."""
        request.outcome.mode = "retry"
        wanted: dict[tuple[str, str], list[DeadLetter]] = {}
        for letter in request.letters:
            if letter.object_type not in self._client.config.objects:
                continue
            if (named := _object_of(letter)) is not None:
                wanted.setdefault(named, []).append(letter.without_text())
            elif letter.payload is not None:
                yield Listed(1)
                yield letter.observed(letter.payload)
                request.outcome.settled.append(letter.dead_letter_id)
        failures = {
            named: max(letter.attempts for letter in letters) for named, letters in wanted.items()
        }
        fetcher = Fetcher(self._client, self._pool, request, failures)
        for kind in KINDS.values():
            attempted: set[str] = set()
            ids = [key for name, key in wanted if name == kind.name]
            try:
                yield from fetcher.each(kind, ids, attempted)
            except (PermissionDenied, *OF_ONE_OBJECT) as error:
                request.outcome.failures[kind.name] = error
            for key in attempted:
                request.outcome.settled += [
                    letter.dead_letter_id for letter in wanted[kind.name, key]
                ]
        request.outcome.has_more = fetcher.bounds.is_reached


def _object_of(letter: DeadLetter) -> tuple[str, str] | None:
    """Kind and id of what to read for a letter: a line comes with its invoice."""
    kinds = kinds_of([letter.object_type])
    if letter.external_id is None or not kinds:
        return None
    if letter.object_type == INVOICE_LINE:
        return kinds[0].name, letter.external_id.partition(":")[0]
    return letter.object_type, letter.external_id
