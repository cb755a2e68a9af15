"""One mailbox as a source: what a run reads of it, and what its objects are called.

Source: Gmail API v1 reference; users.messages, users.labels, users.messages.attachments.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from loaders.objects.items import Gone, Item, Listed, Observed
from loaders.sources.base import EngineSource
from loaders.sources.contract import FetchRequest
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.fetching import ATTACHMENT, MESSAGE, Batch, Fetcher, internal_date
from loaders.sources.gmail.options import GmailConfig
from loaders.sources.gmail.snapshot import Snapshot
from loaders.sources.gmail.sync import MailboxSync
from loaders.sources.gmail.verification import MailboxVerification
from loaders.sources.inventory import Inventory
from loaders.sources.letters import wanted_objects
from loaders.warehouse.dead_letters import DeadLetter


class GmailSource(EngineSource):
    """One mailbox."""

    source_system = "gmail"
    volatile_keys: Collection[str] = ("attachmentId",)
    """Changes on every read of the same message."""

    def __init__(self, connection_name: str, credentials: Any, config: GmailConfig) -> None:
        super().__init__(connection_name, config)
        self._client = GmailClient(connection_name, credentials, config)

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        """A message's `internalDate`, an attachment's message's; None where it is not known."""
        return internal_date(payload) if item.object_type == MESSAGE else item.created_at

    def verify(self, request: FetchRequest, inventory: Inventory) -> None:
        """Fill an inventory with what is held and what the mailbox lists; no message is read."""
        MailboxVerification(self._client, request, inventory).read()

    def sync(self, request: FetchRequest) -> Iterator[Item]:
        """Follow the history, or read the mailbox whole."""
        return MailboxSync(self._client, self._pool, request).items()

    def retry(self, request: FetchRequest) -> Iterator[Item]:
        """Read the messages of dead letters; an attachment comes with its message."""
        wanted = yield from wanted_objects(request, _message_of)
        fetcher = Fetcher(self._client, self._pool, request, wanted.attempts)
        batches = [Batch(key, (key,)) for key in wanted.attempts]
        yield from self._read(fetcher, batches, len(batches))
        wanted.settle(fetcher.attempted - fetcher.unfetched.keys(), request)

    def between(self, request: FetchRequest) -> Iterator[Item]:
        """Read messages between two dates that are not held."""
        fetcher = Fetcher(self._client, self._pool, request)
        with Snapshot(self._client, request) as snapshot:
            if not request.options.full_resync:
                snapshot.hold(request.stored.held_ids(MESSAGE))
                snapshot.set_aside(request.stored.dead(MESSAGE))
            snapshot.list_mailbox(_query(request))
            snapshot.leave_out_erased()
            counts = snapshot.choose()
            yield Listed(counts.listed - counts.wanted, counts.already_held, counts.already_dead)
            yield from self._read(fetcher, snapshot.batches(), counts.wanted)
        request.outcome.unfetched = len(fetcher.unfetched)

    def _read(self, fetcher: Fetcher, batches: Iterable[Batch], expected: int) -> Iterator[Item]:
        yield from fetcher.run(batches, expected)
        for message_id in sorted(fetcher.gone):
            yield Gone(MESSAGE, message_id)
        fetcher.require_an_answer()
        fetcher.request.outcome.has_more = fetcher.is_bounded


def _message_of(letter: DeadLetter) -> str | None:
    """The message to read for a letter: an attachment comes with its message."""
    if letter.external_id is None or letter.object_type not in (MESSAGE, ATTACHMENT):
        return None
    return letter.external_id.partition(":")[0]


def _query(request: FetchRequest) -> str:
    """Gmail search in epoch seconds: dates there would mean midnight Pacific."""
    terms = []
    if request.options.since is not None:
        # after: excludes its own second.
        terms.append(f"after:{int(request.options.since.timestamp()) - 1}")
    if request.options.until is not None:
        terms.append(f"before:{int(request.options.until.timestamp())}")
    return " ".join(terms)
