"""Reading messages: by thread where that costs fewer units, in parallel, attachments with them."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import datetime as dt
import itertools
import json
import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import orjson

from loaders.errors import AskedToPause, Cancelled, ForeignAnswer, SourceError, TransientSourceError
from loaders.objects.items import Gone, Item, Listed, Observed, Unfetched
from loaders.sources.contract import FetchRequest
from loaders.sources.gmail.client import GmailClient, NotFound, RequestRefused
from loaders.sources.gmail.history import HIDDEN_LABELS

MESSAGE, ATTACHMENT, LABEL = "message", "attachment", "label"
MAX_WAITING_BYTES = 64 * 1024**2
"""Of answers that wait for those before them: with so many no further request is made."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLIS = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_WINDOW = 4
"""Messages per worker that are requested or wait: enough to keep all busy behind a slow one."""
_OF_ONE_OBJECT = (TransientSourceError, RequestRefused)
"""Failures that may be those of the object asked for."""
_CHOSEN_FROM, _CHOSEN = 1_000, 3
"""Held messages to read when another one fails: more than one, as they may be failing too."""
_SUSPICIOUS = 100
"""Messages that fail before one can be read, after which it may not be the messages."""


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one thread that are read together: by one threads.get, or one get."""

    thread_id: str
    message_ids: tuple[str, ...]
    by_thread: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """What a batch came to: the items of each of its messages."""

    items: dict[str, list[Item]]

    @property
    def size(self) -> int:
        """Bytes, or characters, of its payloads."""
        items = itertools.chain.from_iterable(self.items.values())
        return sum(len(item.text) for item in items if isinstance(item, Observed))


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """A batch that is being read, and whether it is all of what was asked for."""

    batch: Batch
    is_whole: bool
    answer: concurrent.futures.Future[_Answer]

    @property
    def waiting_bytes(self) -> int:
        """The size of its answer once it is there."""
        if not self.answer.done() or self.answer.exception():
            return 0
        return self.answer.result().size


class Fetcher:
    """Reads messages for one run and counts what became of them.

    `failures` says how often earlier runs failed on a message. What fails once more is set
    aside, provided that another message can be read right after it: an outage is no message's
    fault. Whatever else fails is kept in `unfetched`. When no other message can be read the API
    `is_down`, and reading ends. What is not there (any more) is kept in `gone`.
    """

    def __init__(
        self,
        client: GmailClient,
        pool: concurrent.futures.Executor,
        request: FetchRequest,
        failures: Mapping[str, int] | None = None,
    ) -> None:
        self.unfetched: dict[str, str] = {}
        """Reasons, by message id."""
        self.attempted: set[str] = set()
        self.fetched: set[str] = set()
        self.failed: set[str] = set()
        self.gone: set[str] = set()
        self.is_bounded = False
        self.is_down = False
        self._client = client
        self._pool = pool
        self._request = request
        self._failures = failures or {}
        self._left = request.options.max_objects
        self._hidden = frozenset() if client.config.include_spam_trash else HIDDEN_LABELS
        self._attachments: set[str] | None = None
        self._last_fetched: str | None = None
        self._held: list[str] | None = None
        self._has_answered = False
        self._errors: dict[str, SourceError] = {}
        """What messages failed with in this run."""

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
        when the run's time or number of objects is used up or the API is down.
        """
        if self._client.config.attachment_max_bytes and expected and self._attachments is None:
            self._attachments = self._request.stored.held(ATTACHMENT)
        yield Listed(expected)
        todo, settled, done = self._within_bounds(batches), 0, 0
        pending: collections.deque[_Reading] = collections.deque()
        try:
            while not self.is_down and self._submit(todo, pending):
                if not pending[0].answer.done():
                    self._wait_for_any(pending)
                    continue
                reading = pending.popleft()
                yield from self._settle(reading.answer.result())
                settled += len(reading.batch.message_ids)
                if reading.is_whole:
                    done += 1
                    yield from after(done)
        except AskedToPause:
            for reading in pending:
                if reading.answer.done() and not reading.answer.exception():
                    yield from self._settle(reading.answer.result())
            raise
        finally:
            for reading in pending:
                reading.answer.cancel()
        if settled < expected:
            yield Listed(settled - expected)

    def require_an_answer(self) -> None:
        """Raise SourceError when messages failed and not one could be read."""
        if self.unfetched and not self._has_read:
            *_, last = self.unfetched
            error = self._errors[last]
            kind = SourceError if isinstance(error, RequestRefused) else TransientSourceError
            raise kind(
                f"gmail: {len(self.unfetched)} message(s) failed and none could be read, the last"
                f" with: {error}"
            ) from error

    def _submit(
        self, todo: Iterator[tuple[Batch, bool]], pending: collections.deque[_Reading]
    ) -> bool:
        """Ask for as much as there is room for; return whether there is an answer to wait for."""
        while self._has_room(pending):
            batch, is_whole = next(todo, (None, False))
            if batch is None:
                break
            pending.append(_Reading(batch, is_whole, self._pool.submit(self._read, batch)))
        return bool(pending)

    def _has_room(self, pending: Collection[_Reading]) -> bool:
        """Whether a worker is free, and memory for what it would read.

        No request waits for a worker: its answer would come whatever has come meanwhile.
        """
        if self._left == 0 and pending:
            return False  # what is read may fail, and not count
        workers = self._client.config.workers
        return (
            sum(not reading.answer.done() for reading in pending) < workers
            and sum(len(reading.batch.message_ids) for reading in pending) < _WINDOW * workers
            and sum(reading.waiting_bytes for reading in pending) < MAX_WAITING_BYTES
        )

    def _wait_for_any(self, pending: Iterable[_Reading]) -> None:
        answers = [reading.answer for reading in pending if not reading.answer.done()]
        concurrent.futures.wait(answers, return_when=concurrent.futures.FIRST_COMPLETED)
        if self._request.cancelled.is_set():
            raise Cancelled

    def _within_bounds(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
        """Batches as long as the run may read, and whether each is all of it."""
        for number, batch in enumerate(batches):
            # The first one always: with a listing that takes all the time no run would get on.
            is_late = number > 0 and self._request.must_stop()
            if self.is_bounded or is_late or self._left == 0:
                self.is_bounded = True
                return
            if self._left is None:
                yield batch, True
                continue
            # The first one whole, or a bound below its size would let no run get on.
            is_first = self._left == self._request.options.max_objects
            wanted = batch.message_ids if is_first else batch.message_ids[: self._left]
            self._left = max(0, self._left - len(wanted))
            is_whole = len(wanted) == len(batch.message_ids)
            self.is_bounded |= not is_whole
            yield dataclasses.replace(batch, message_ids=wanted), is_whole

    def _settle(self, answer: _Answer) -> Iterator[Item]:
        for message_id, items in answer.items.items():
            self.attempted.add(message_id)
            failure = next((item for item in items if isinstance(item, Unfetched)), None)
            if failure is not None and not self._is_at_fault(message_id):
                yield from self._keep(message_id, failure.reason)
            else:
                yield from self._settle_message(message_id, items)

    def _keep(self, message_id: str, reason: str) -> Iterator[Item]:
        self.failed.add(message_id)
        self.unfetched[message_id] = reason
        if self._left is not None and not self._has_read:
            self._left += 1  # or no run would get past so many that fail before any other
        if len(self.unfetched) >= _SUSPICIOUS and not self._has_read:
            self.is_down = self.is_bounded = True
        yield Listed(-1)

    @property
    def _has_read(self) -> bool:
        """Whether the API has given a message to this run."""
        return self._has_answered or bool(self.fetched)

    def _settle_message(self, message_id: str, items: list[Item]) -> Iterator[Item]:
        for item in items:
            match item:
                case Gone():
                    self.gone.add(message_id)
                    continue
                case Observed(object_type="attachment") | Unfetched(object_type="attachment"):
                    yield Listed(1)
                case Observed():
                    self.fetched.add(message_id)
                    self.unfetched.pop(message_id, None)
                    self._last_fetched = message_id
                case Unfetched():
                    self.failed.add(message_id)
            yield item

    def _is_at_fault(self, message_id: str) -> bool:
        """Whether a message that failed is the reason: it did before, and another one does not."""
        is_foreign = isinstance(self._errors.get(message_id), ForeignAnswer)
        is_known = message_id in self._failures and not is_foreign
        return self._can_read_another(message_id) and is_known

    def _can_read_another(self, message_id: str) -> bool:
        """Read a message that could be read before; when none of them can be, the API is down.

        Raises SourceError when it refuses them: then it is who asks that is refused.
        """
        failure: SourceError | None = None
        for other_id in self._read_before(message_id):
            try:
                self._client.message(self._request, other_id)
            except NotFound:
                continue
            except _OF_ONE_OBJECT as error:
                failure = error
            else:
                self._has_answered = True
                return True
        if isinstance(failure, RequestRefused):
            raise SourceError(str(failure)) from failure.__cause__
        if failure is not None:
            self.is_down = self.is_bounded = True
        return False

    def _read_before(self, message_id: str) -> list[str]:
        """Another message: the one that this run read last, or else some held ones, by lot."""
        if self.is_down:
            return []
        if self._last_fetched is not None and self._last_fetched != message_id:
            return [self._last_fetched]
        if self._held is None:
            held = self._request.stored.held_ids(MESSAGE)
            self._held = [key for key, _ in itertools.islice(held, _CHOSEN_FROM)]
        others = [key for key in self._held if key != message_id and key not in self.failed]
        return random.sample(others, min(_CHOSEN, len(others)))

    def _read(self, batch: Batch) -> _Answer:
        """In a worker thread: the items of a batch, attachments before their message."""
        if not batch.by_thread:
            [message_id] = batch.message_ids
            return _Answer({message_id: self._read_message(message_id)})
        observed_at = self._request.clock.now()
        try:
            found = {
                str(value.get("id")): (text, value)
                for text, value in self._client.thread_messages(self._request, batch.thread_id)
            }
        except (NotFound, *_OF_ONE_OBJECT):
            found = {}  # one by one then: it may be one of them that is the reason
        items: dict[str, list[Item]] = {}
        for message_id in batch.message_ids:
            if message_id in found:
                items[message_id] = self._message_items(message_id, *found[message_id], observed_at)
            else:
                items[message_id] = self._read_message(message_id)
        return _Answer(items)

    def _read_message(self, message_id: str) -> list[Item]:
        observed_at = self._request.clock.now()
        try:
            body = self._client.message(self._request, message_id)
        except NotFound:
            return [Gone(MESSAGE, message_id)]
        except _OF_ONE_OBJECT as error:
            return [self._failed(message_id, error)]
        value = _parsed(body)
        if value.get("id", message_id) != message_id:
            return [self._failed(message_id, _another())]
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
        except NotFound:
            return [Gone(MESSAGE, message_id)]
        except _OF_ONE_OBJECT as error:
            return [self._failed(message_id, error)]

    def _failed(self, message_id: str, error: SourceError) -> Unfetched:
        self._errors[message_id] = error
        return Unfetched(MESSAGE, message_id, str(error), self._attempts(message_id))

    def _attempts(self, message_id: str) -> int:
        return self._failures.get(message_id, 0) + 1

    def _read_attachments(self, message_id: str, value: Mapping[str, Any]) -> Iterator[Item]:
        """Raises NotFound when it is the message that is gone."""
        assert self._attachments is not None
        created_at = internal_date(value)
        for part_id, attachment_id, size in _attachment_parts(value.get("payload")):
            external_id = f"{message_id}:{part_id}"
            too_large = size > self._client.config.attachment_max_bytes
            if too_large or external_id in self._attachments:
                continue
            observed_at = self._request.clock.now()
            try:
                body = self._read_attachment(message_id, attachment_id)
            except _OF_ONE_OBJECT as error:
                attempts = self._attempts(message_id)
                if attempts == 1 or isinstance(error, ForeignAnswer):
                    raise
                yield Unfetched(ATTACHMENT, external_id, str(error), attempts)
            else:
                yield Observed(ATTACHMENT, body, observed_at, external_id, created_at)

    def _read_attachment(self, message_id: str, attachment_id: str) -> bytes:
        try:
            return self._client.attachment(self._request, message_id, attachment_id)
        except NotFound as error:
            self._client.message(self._request, message_id)
            raise RequestRefused(str(error)) from error


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


def _another() -> TransientSourceError:
    return TransientSourceError(
        "gmail: messages.get: the answer is another message than was asked for; run again later"
    )


def _parsed(body: bytes) -> dict[str, Any]:
    """The message, or nothing of it: the landing gate says what is wrong."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
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
