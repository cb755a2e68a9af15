"""One mailbox as a source: what a run reads of it, and what its objects are called.

Source: Gmail API v1 reference; users.messages, users.labels, users.messages.attachments.
"""

from __future__ import annotations

import concurrent.futures
import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from loaders.objects.idem_keys import gmail_idem_key, idem_key
from loaders.objects.items import Gone, Item, Listed, Observed
from loaders.sources.contract import FetchRequest
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.fetching import ATTACHMENT, MESSAGE, Batch, Fetcher, internal_date
from loaders.sources.gmail.options import GmailConfig
from loaders.sources.gmail.snapshot import Snapshot
from loaders.sources.gmail.sync import MailboxSync
from loaders.sources.gmail.verification import MailboxVerification
from loaders.sources.inventory import Inventory
from loaders.warehouse.dead_letters import DeadLetter


class GmailSource:
    """One mailbox."""

    source_system = "gmail"
    volatile_keys: Collection[str] = ("attachmentId",)
    """Changes on every read of the same message."""

    def __init__(self, connection_name: str, credentials: Any, config: GmailConfig) -> None:
        self._connection_name = connection_name
        self._client = GmailClient(connection_name, credentials, config)
        self._pool = concurrent.futures.ThreadPoolExecutor(config.workers, "gmail")

    def idem_key(self, item: Observed, payload: Mapping[str, Any]) -> str:
        """By the API's id; an attachment by its message's id and its part's, as its own changes.

        Raises ValueError for an object without an id, or with another than was asked for.
        """
        if item.object_type == ATTACHMENT:
            external_id = item.external_id or ""
            return idem_key(self.source_system, self._connection_name, ATTACHMENT, external_id)
        key = gmail_idem_key(self._connection_name, item.object_type)(payload)
        if item.external_id not in (None, payload["id"]):
            raise ValueError(f"gmail {item.object_type} with another id than was asked for")
        return key

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        """A message's `internalDate`, an attachment's message's; None where it is not known."""
        return internal_date(payload) if item.object_type == MESSAGE else item.created_at

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        """Yield what changed since the last run; what lies between two dates; or dead letters."""
        request.outcome.max_deletions_percent = self._client.config.max_deletions_percent
        if request.options.retry:
            return self._retry(request)
        if request.options.since is not None or request.options.until is not None:
            return self._between(request)
        return MailboxSync(self._client, self._pool, request).items()

    def verify(self, request: FetchRequest, inventory: Inventory) -> None:
        """Fill an inventory with what is held and what the mailbox lists; no message is read."""
        MailboxVerification(self._client, request, inventory).read()

    def close(self) -> None:
        """Stop the worker threads; requests under way are waited for."""
        self._pool.shutdown(cancel_futures=True)

    def _retry(self, request: FetchRequest) -> Iterator[Item]:
        """The objects of dead letters, read anew; of those that cannot be, their texts again."""
        request.outcome.mode = "retry"
        asked: list[tuple[str, str]] = []
        failures: dict[str, int] = {}
        for letter in request.letters:
            if message_id := _message_of(letter):
                asked.append((letter.dead_letter_id, message_id))
                failures[message_id] = max(letter.attempts, failures.get(message_id, 1))
            elif letter.payload is not None:
                yield Listed(1)
                yield letter.observed(letter.payload)
                request.outcome.settled.append(letter.dead_letter_id)
        fetcher = Fetcher(self._client, self._pool, request, failures)
        yield from fetcher.run([Batch(key, (key,)) for key in failures], len(failures))
        for message_id in sorted(fetcher.gone):
            yield Gone(MESSAGE, message_id)
        fetcher.require_an_answer()
        settled = fetcher.attempted - fetcher.unfetched.keys()
        request.outcome.settled += [
            letter_id for letter_id, message_id in asked if message_id in settled
        ]
        request.outcome.has_more = fetcher.is_bounded

    def _between(self, request: FetchRequest) -> Iterator[Item]:
        """Messages between two dates that are not held; where the sync stands is left alone."""
        fetcher = Fetcher(self._client, self._pool, request)
        with Snapshot(self._client, request) as snapshot:
            if not request.options.full_resync:
                snapshot.hold(request.stored.held_ids(MESSAGE))
                snapshot.set_aside(request.stored.dead(MESSAGE))
            snapshot.list_mailbox(_query(request))
            snapshot.leave_out_erased()
            counts = snapshot.choose()
            yield Listed(counts.listed - counts.wanted, counts.already_held, counts.already_dead)
            yield from fetcher.run(snapshot.batches(), counts.wanted)
        for message_id in sorted(fetcher.gone):
            yield Gone(MESSAGE, message_id)
        fetcher.require_an_answer()
        request.outcome.unfetched = len(fetcher.unfetched)
        request.outcome.has_more = fetcher.is_bounded


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
