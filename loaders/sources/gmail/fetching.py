"""Reading messages: by thread where that costs fewer units, in parallel, attachments with them."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import datetime as dt
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from loaders.errors import SourceError, TransientSourceError
from loaders.items import FetchRequest, Gone, Item, Listed, Observed, Unfetched
from loaders.sources.gmail.client import GmailClient, NotFound, RequestRefused
from loaders.sources.gmail.history import HIDDEN_LABELS

MESSAGE, ATTACHMENT, LABEL = "message", "attachment", "label"
MAX_UNFETCHED = 20
"""Messages that may fail before the run does: then it is not the messages."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLIS = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_WINDOW = 4
"""Messages queued per worker: enough to keep all busy, few enough to bound memory."""
_OF_ONE_OBJECT = (TransientSourceError, RequestRefused)
"""Failures that may be those of the object asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one thread that are read together: by one threads.get, or one get."""

    thread_id: str
    message_ids: tuple[str, ...]
    by_thread: bool = False


class Fetcher:
    """Reads messages for one run and counts what became of them.

    `failed_before` says how often earlier runs failed on a message: what fails once more is
    set aside, what fails for the first time is kept in `unfetched`. What is not there (any
    more) is kept in `gone`.
    """

    def __init__(
        self,
        client: GmailClient,
        pool: concurrent.futures.Executor,
        request: FetchRequest,
        failed_before: Mapping[str, int] | None = None,
    ) -> None:
        self.unfetched: list[str] = []
        self.attempted: set[str] = set()
        self.fetched: set[str] = set()
        self.gone: set[str] = set()
        self.is_bounded = False
        self._client = client
        self._pool = pool
        self._request = request
        self._failed_before = failed_before or {}
        self._left = request.max_objects
        self._hidden = frozenset() if client.config.include_spam_trash else HIDDEN_LABELS
        self._attachments: set[str] | None = None

    def batches(self, refs: Iterable[tuple[str, str]]) -> list[Batch]:
        """Group (message id, thread id) so that the messages cost as few units as they can.

        In the order of the first message of each batch.
        """
        refs = list(refs)
        smallest, largest = self._client.thread_sizes
        threads: dict[str, list[str]] = {}
        for message_id, thread_id in refs:
            threads.setdefault(thread_id, []).append(message_id)
        batches: list[Batch] = []
        for message_id, thread_id in refs:
            ids = threads[thread_id]
            if not smallest <= len(ids) <= largest:
                batches.append(Batch(thread_id, (message_id,)))
            elif message_id == ids[0]:
                batches.append(Batch(thread_id, tuple(ids), by_thread=True))
        return batches

    def cost(self, batch: Batch) -> int:
        """Quota units of a batch."""
        return self._client.cost("threads.get" if batch.by_thread else "messages.get")

    def run(
        self,
        batches: Iterable[Batch],
        expected: int,
        after: Callable[[int], Iterator[Item]] = lambda done: iter(()),
    ) -> Iterator[Item]:
        """Read the batches, `expected` messages, and yield what they hold, in their order.

        `after(n)` adds items once n batches are done. It ends early, and `is_bounded` says so,
        when the run's time or number of objects is used up. Raises TransientSourceError when
        too many messages fail.
        """
        if self._client.config.attachment_max_bytes and expected and self._attachments is None:
            self._attachments = self._request.stored.held(ATTACHMENT)
        yield Listed(expected)
        todo, settled, done = self._within_bounds(batches), 0, 0
        pending: collections.deque[tuple[Batch, bool, concurrent.futures.Future[list[Item]]]]
        pending = collections.deque()
        queued, is_drained = 0, False
        try:
            while True:
                while not is_drained and queued < _WINDOW * self._client.config.workers:
                    batch, is_whole = next(todo, (None, False))
                    if batch is None:
                        is_drained = True
                        break
                    pending.append((batch, is_whole, self._pool.submit(self._read, batch)))
                    queued += len(batch.message_ids)
                if not pending:
                    break
                batch, is_whole, future = pending.popleft()
                yield from self._settle(future.result())
                queued -= len(batch.message_ids)
                settled += len(batch.message_ids)
                if is_whole:
                    done += 1
                    yield from after(done)
        finally:
            for _, _, future in pending:
                future.cancel()
        if settled < expected:
            yield Listed(settled - expected)

    def _within_bounds(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
        """Batches as long as the run may read, and whether each is all of it."""
        for batch in batches:
            if self._request.must_stop() or self._left == 0:
                self.is_bounded = True
                return
            if self._left is None:
                yield batch, True
                continue
            # The first one whole, or a bound below its size would let no run get on.
            is_first = self._left == self._request.max_objects
            wanted = batch.message_ids if is_first else batch.message_ids[: self._left]
            self._left = max(0, self._left - len(wanted))
            is_whole = len(wanted) == len(batch.message_ids)
            self.is_bounded |= not is_whole
            yield dataclasses.replace(batch, message_ids=wanted), is_whole

    def _settle(self, items: list[Item]) -> Iterator[Item]:
        for item in items:
            match item:
                case Observed(object_type="attachment") | Unfetched(object_type="attachment"):
                    yield Listed(1)
                case Observed(external_id=str() as message_id):
                    self.attempted.add(message_id)
                    self.fetched.add(message_id)
                case Gone(_, message_id):
                    self.attempted.add(message_id)
                    self.gone.add(message_id)
                    continue
                case Unfetched():
                    self.attempted.add(str(item.external_id))
                    if item.attempts == 1:
                        self._keep_unfetched(item)
                        yield Listed(-1)
                        continue
            yield item

    def _keep_unfetched(self, item: Unfetched) -> None:
        self.unfetched.append(str(item.external_id))
        if len(self.unfetched) > MAX_UNFETCHED:
            raise TransientSourceError(
                f"gmail: {len(self.unfetched)} messages failed, the last with:"
                f" {item.reason}; run again later"
            )

    def _read(self, batch: Batch) -> list[Item]:
        """In a worker thread: the items of a batch, one a message, attachments before it."""
        if not batch.by_thread:
            return self._read_message(batch.message_ids[0])
        observed_at = self._request.clock.now()
        try:
            found = {
                str(value.get("id")): (text, value)
                for text, value in self._client.thread_messages(self._request, batch.thread_id)
            }
        except (NotFound, *_OF_ONE_OBJECT):
            found = {}  # one by one then: it may be one of them that is the reason
        items: list[Item] = []
        for message_id in batch.message_ids:
            if message_id in found:
                items += self._message_items(message_id, *found[message_id], observed_at)
            else:
                items += self._read_message(message_id)
        return items

    def _read_message(self, message_id: str) -> list[Item]:
        observed_at = self._request.clock.now()
        try:
            body = self._client.message(self._request, message_id)
        except NotFound:
            return [Gone(MESSAGE, message_id)]
        except _OF_ONE_OBJECT as error:
            if self._request.cancelled.is_set():
                raise
            return [self._failed(message_id, error)]
        needs_value = self._attachments is not None or any(
            label.encode() in body for label in self._hidden
        )
        value = _parsed(body) if needs_value else {}
        return self._message_items(message_id, body, value, observed_at)

    def _message_items(
        self, message_id: str, text: str | bytes, value: Mapping[str, Any], observed_at: dt.datetime
    ) -> list[Item]:
        labels = value.get("labelIds")
        if isinstance(labels, list) and any(label in labels for label in self._hidden):
            return [Gone(MESSAGE, message_id)]
        message = Observed(MESSAGE, text, observed_at, message_id)
        if self._attachments is None:
            return [message]
        try:
            # Before the message: whoever holds a message holds its attachments.
            return [*self._read_attachments(message_id, value), message]
        except _OF_ONE_OBJECT as error:
            if self._request.cancelled.is_set():
                raise
            return [self._failed(message_id, error)]

    def _failed(self, message_id: str, error: SourceError) -> Unfetched:
        attempts = self._failed_before.get(message_id, 0) + 1
        return Unfetched(MESSAGE, message_id, str(error), attempts)

    def _read_attachments(self, message_id: str, value: Mapping[str, Any]) -> Iterator[Item]:
        assert self._attachments is not None
        created_at = internal_date(value)
        for part_id, attachment_id, size in _attachment_parts(value.get("payload")):
            external_id = f"{message_id}:{part_id}"
            too_large = size > self._client.config.attachment_max_bytes
            if too_large or external_id in self._attachments:
                continue
            observed_at = self._request.clock.now()
            try:
                body = self._client.attachment(self._request, message_id, attachment_id)
            except NotFound:
                continue  # gone with its message
            except _OF_ONE_OBJECT as error:
                attempts = self._failed_before.get(message_id, 0) + 1
                if attempts == 1 or self._request.cancelled.is_set():
                    raise
                yield Unfetched(ATTACHMENT, external_id, str(error), attempts)
            else:
                yield Observed(ATTACHMENT, body, observed_at, external_id, created_at)


def internal_date(payload: Mapping[str, Any]) -> dt.datetime | None:
    """`internalDate` (milliseconds since 1970), or None when absent or out of range.

    Digits only, as the SQL side reads it: int() takes more than that.
    """
    text = payload.get("internalDate")
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    if not isinstance(text, str) or not _MILLIS.fullmatch(text):
        return None
    try:
        return _EPOCH + dt.timedelta(milliseconds=int(text))
    except OverflowError:
        return None


def _parsed(body: bytes) -> dict[str, Any]:
    """The message, or nothing of it: the landing gate says what is wrong."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _attachment_parts(part: Any) -> Iterator[tuple[str, str, int]]:
    """(part id, attachment id, size in bytes) of the parts that are kept outside of a message."""
    parts = [part]
    while parts:
        part = parts.pop(0)
        if not isinstance(part, dict):
            continue
        match part.get("body"):
            case {"attachmentId": str() as attachment_id, "size": int() as size}:
                yield str(part.get("partId", "")), attachment_id, size
        if isinstance(part.get("parts"), list):
            parts += part["parts"]
