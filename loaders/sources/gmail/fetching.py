"""Reading messages: by thread where that costs fewer units, in parallel, attachments with them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime as dt
import itertools
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from loaders.errors import ForeignAnswer, SourceError, TransientSourceError
from loaders.objects.items import Gone, Item, Listed, Observed, Unfetched
from loaders.sources.contract import FetchRequest
from loaders.sources.failures import Failures
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.history import HIDDEN_LABELS
from loaders.sources.parallel import ReadAhead
from loaders.sources.refusals import OF_ONE_OBJECT, NotFound, RequestRefused, another_object

MESSAGE, ATTACHMENT, LABEL = "message", "attachment", "label"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLIS = re.compile(r"-?[0-9]{1,15}", re.ASCII)
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
class _Asked:
    """A batch to read, and whether it is all of what was listed."""

    batch: Batch
    is_whole: bool


class Fetcher:
    """Reads messages for one run and counts what became of them.

    `failures` says how often earlier runs failed on a message, see Failures. When no other message
    can be read the API `is_down`, and reading ends. What is not there (any more) is in `gone`.
    """

    def __init__(
        self,
        client: GmailClient,
        pool: concurrent.futures.Executor,
        request: FetchRequest,
        failures: Mapping[str, int] | None = None,
    ) -> None:
        self.attempted: set[str] = set()
        self.fetched: set[str] = set()
        self.failed: set[str] = set()
        self.gone: set[str] = set()
        self.is_down = False
        self.request = request
        self._client = client
        self._bounds = request.bounds
        self._failures = Failures(failures or {}, self._can_read_another, suspicious=1)
        self._reader = ReadAhead[_Asked, _Answer](
            pool,
            request,
            client.config.workers,
            lambda asked: self._read(asked.batch),
            lambda asked: len(asked.batch.message_ids),
            lambda answer: answer.size,
        )
        self._hidden = frozenset() if client.config.include_spam_trash else HIDDEN_LABELS
        self._attachments: set[str] | None = None
        self._last_fetched: str | None = None
        self._held: list[str] | None = None
        self._has_answered = False
        self._errors: dict[str, SourceError] = {}
        """What messages failed with in this run."""

    @property
    def unfetched(self) -> Mapping[str, SourceError]:
        """Messages for the next run, and why."""
        return self._failures.unfetched

    @property
    def is_bounded(self) -> bool:
        """Whether something was left, by the run's bounds or as the API is down."""
        return self.is_down or self._bounds.is_reached

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
            self._attachments = self.request.stored.held(ATTACHMENT)
        yield Listed(expected)
        settled, done = 0, 0
        for asked, answer in self._reader.run(self._within_bounds(batches), self._may_submit):
            yield from self._settle(answer)
            settled += len(asked.batch.message_ids)
            if asked.is_whole:
                done += 1
                yield from after(done)
            if self.is_down:
                break
        if settled < expected:
            yield Listed(settled - expected)

    def require_an_answer(self) -> None:
        """Raise SourceError when messages failed and not one could be read."""
        if self.unfetched and not self._has_read:
            *_, error = self.unfetched.values()
            kind = SourceError if isinstance(error, RequestRefused) else TransientSourceError
            raise kind(
                f"gmail: {len(self.unfetched)} message(s) failed and none could be read, the last"
                f" with: {error}"
            ) from error

    def _may_submit(self, pending: int) -> bool:
        # What is read may fail, and not count.
        return not (self._bounds.is_used_up and pending)

    def _within_bounds(self, batches: Iterable[Batch]) -> Iterator[_Asked]:
        """Batches as long as the run may read."""
        for batch in batches:
            # The first one whole, or a bound below its size would let no run get on.
            count = 0 if self.is_bounded else self._bounds.take(len(batch.message_ids), whole=True)
            is_whole = count == len(batch.message_ids)
            if not is_whole:
                self._bounds.reach()
            if count == 0:
                return
            yield _Asked(
                dataclasses.replace(batch, message_ids=batch.message_ids[:count]), is_whole
            )

    def _settle(self, answer: _Answer) -> Iterator[Item]:
        for message_id, items in answer.items.items():
            self.attempted.add(message_id)
            has_failed = any(isinstance(item, Unfetched) for item in items)
            if has_failed and not self._failures.is_to_blame(message_id, self._errors[message_id]):
                yield from self._keep(message_id)
            else:
                yield from self._settle_message(message_id, items)

    def _keep(self, message_id: str) -> Iterator[Item]:
        self.failed.add(message_id)
        if not self._has_read:
            self._bounds.give_back(1)  # or no run would get past so many that fail before any other
            if len(self.unfetched) >= _SUSPICIOUS:
                self.is_down = True
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
                    self._failures.succeeded(message_id)
                    self._last_fetched = message_id
                case Unfetched():
                    self.failed.add(message_id)
            yield item

    def _can_read_another(self, message_id: str) -> bool:
        """Read a message that could be read before; when none of them can be, the API is down.

        Raises SourceError when it refuses them: then it is who asks that is refused.
        """
        failure: SourceError | None = None
        for other_id in self._read_before(message_id):
            try:
                self._client.message(self.request, other_id)
            except NotFound:
                continue
            except OF_ONE_OBJECT as error:
                failure = error
            else:
                self._has_answered = True
                return True
        if isinstance(failure, RequestRefused):
            raise SourceError(str(failure)) from failure.__cause__
        if failure is not None:
            self.is_down = True
        return False

    def _read_before(self, message_id: str) -> list[str]:
        """Another message: the one that this run read last, or else some held ones, by lot."""
        if self.is_down:
            return []
        if self._last_fetched is not None and self._last_fetched != message_id:
            return [self._last_fetched]
        if self._held is None:
            held = self.request.stored.held_ids(MESSAGE)
            self._held = [key for key, _ in itertools.islice(held, _CHOSEN_FROM)]
        others = [key for key in self._held if key != message_id and key not in self.failed]
        return random.sample(others, min(_CHOSEN, len(others)))

    def _read(self, batch: Batch) -> _Answer:
        """In a worker thread: the items of a batch, attachments before their message."""
        if not batch.by_thread:
            [message_id] = batch.message_ids
            return _Answer({message_id: self._read_message(message_id)})
        observed_at = self.request.clock.now()
        try:
            found = {
                str(value.get("id")): (text, value)
                for text, value in self._client.thread_messages(self.request, batch.thread_id)
            }
        except (NotFound, *OF_ONE_OBJECT):
            found = {}  # one by one then: it may be one of them that is the reason
        items: dict[str, list[Item]] = {}
        for message_id in batch.message_ids:
            if message_id in found:
                items[message_id] = self._message_items(message_id, *found[message_id], observed_at)
            else:
                items[message_id] = self._read_message(message_id)
        return _Answer(items)

    def _read_message(self, message_id: str) -> list[Item]:
        observed_at = self.request.clock.now()
        try:
            body = self._client.message(self.request, message_id)
        except NotFound:
            return [Gone(MESSAGE, message_id)]
        except OF_ONE_OBJECT as error:
            return [self._failed(message_id, error)]
        value = _parsed(body)
        if value.get("id", message_id) != message_id:
            return [self._failed(message_id, another_object("gmail", MESSAGE))]
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
        except OF_ONE_OBJECT as error:
            return [self._failed(message_id, error)]

    def _failed(self, message_id: str, error: SourceError) -> Unfetched:
        self._errors[message_id] = error
        attempts = self._failures.attempts(message_id)
        return Unfetched(MESSAGE, message_id, str(error), attempts)

    def _read_attachments(self, message_id: str, value: Mapping[str, Any]) -> Iterator[Item]:
        """Raises NotFound when it is the message that is gone."""
        assert self._attachments is not None
        created_at = internal_date(value)
        for part_id, attachment_id, size in _attachment_parts(value.get("payload")):
            external_id = f"{message_id}:{part_id}"
            too_large = size > self._client.config.attachment_max_bytes
            if too_large or external_id in self._attachments:
                continue
            observed_at = self.request.clock.now()
            try:
                body = self._read_attachment(message_id, attachment_id)
            except OF_ONE_OBJECT as error:
                attempts = self._failures.attempts(message_id)
                if attempts == 1 or isinstance(error, ForeignAnswer):
                    raise
                self._errors[message_id] = error
                yield Unfetched(ATTACHMENT, external_id, str(error), attempts)
            else:
                yield Observed(ATTACHMENT, body, observed_at, external_id, created_at)

    def _read_attachment(self, message_id: str, attachment_id: str) -> bytes:
        try:
            return self._client.attachment(self.request, message_id, attachment_id)
        except NotFound as error:
            self._client.message(self.request, message_id)
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
