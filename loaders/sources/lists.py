"""A source of lists: each object type has one, filtered by when its objects were changed.

    no position       read the list whole
    a position        what was changed since, with an overlap; what that repeats is known by its id
    whole again       when asked for, and every `whole_hours`: what is held and not in the list is
                      asked for by its id, and a tombstone where it is not there

A list may move while it is read, so the position afterwards is what was seen by then to have been
changed before the list was begun. What is left by a bounded run is gone on with page by page.
"""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from loaders.errors import PayloadError, SourceError
from loaders.objects.items import Cursor, Deleted, Gone, Item, Land, Listed, Observed, Unfetched
from loaders.objects.payloads import admit
from loaders.settings.options import within
from loaders.sources.base import EngineSource
from loaders.sources.contract import FetchRequest, NotVerifiable
from loaders.sources.failures import Failures
from loaders.sources.inventory import (
    CHANGED_SINCE,
    DEAD_LETTER,
    EXTRA,
    NOT_READ_YET,
    Inventory,
)
from loaders.sources.letters import wanted_objects
from loaders.sources.options import SourceOptions
from loaders.sources.parallel import ReadAhead
from loaders.sources.positions import StoredPosition
from loaders.sources.refusals import (
    OF_ONE_OBJECT,
    OF_ONE_TYPE,
    NotFound,
    RequestRefused,
    another_object,
    foreign_answer,
    not_advancing,
)
from loaders.sources.rest import Element, RestClient, is_object

_SUSPICIOUS = 20
"""Failures in a row after which it may not be the objects."""
_MAX_SEEN = 10_000
"""Objects of the overlap that a position keeps; what more there are of is landed once more."""
_MODES = ("incremental", "full", "resync")
_NOT_UNDERSTOOD = (LookupError, TypeError, ValueError, AttributeError)
"""What a source's own code raises for another shape than it was written for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOptions(SourceOptions):
    """Options of a connection to a source of lists."""

    overlap_seconds: int = within(300, 0)
    """A change that turns up in the list so long after its time is not missed."""
    whole_hours: float = within(24.0, 0)
    """How often lists are read whole: what is gone from them is found out then."""


@dataclasses.dataclass(frozen=True)
class ListPage:
    """A page of a list: its objects, and what the next one is asked for with; None at the end."""

    objects: Sequence[Element]
    after: str | None = None


@dataclasses.dataclass(frozen=True)
class ListPosition(StoredPosition):
    """Every change up to `until` is stored, except for what the other fields say."""

    account: str | None
    """Whose objects they are: ids of others mean nothing here. None where nobody can say."""
    until: dt.datetime | None = None
    whole_at: dt.datetime | None = None
    """When the list was begun that was read whole last."""
    is_open: bool = False
    """Whether a list is being read; the fields below are about that one."""
    begun_at: dt.datetime | None = None
    """When its first page was read."""
    since: dt.datetime | None = None
    """What was changed from then on is in it; None for a whole one."""
    after: str | None = None
    """What its next page is asked for with."""
    is_read: bool = False
    """Whether its last page is read: what it lacks may be left to be looked at."""
    reached: dt.datetime | None = None
    """The latest change before `begun_at` that it has shown so far."""
    resync_from: dt.datetime | None = None
    """What was last seen before then may be gone."""
    seen: tuple[str, ...] = ()
    """Objects of the overlap that are stored, each with its time of change."""
    unfetched: tuple[str, ...] = ()
    """Objects that the last run failed on."""


class ListSource(EngineSource):
    """One connection to a source of lists; `page`, `object` and `changed_at` are the source's."""

    object_types: ClassVar[Sequence[str]]
    page_size: ClassVar[int] = 100

    def __init__(self, connection_name: str, options: ListOptions, client: RestClient) -> None:
        super().__init__(connection_name, options)
        self.client = client
        self._lists = options

    # ---- what a source says

    @abc.abstractmethod
    def page(
        self,
        request: FetchRequest,
        object_type: str,
        since: dt.datetime | None,
        after: str | None,
        limit: int,
    ) -> ListPage:
        """A page of a type's list: objects changed at `since` or later, all of them without it."""

    @abc.abstractmethod
    def object(self, request: FetchRequest, object_type: str, object_id: str) -> Element:
        """One object. Raises NotFound."""

    @abc.abstractmethod
    def changed(self, value: Mapping[str, Any]) -> dt.datetime:
        """When an object was changed, by the field that the list is filtered by."""

    @abc.abstractmethod
    def created(self, value: Mapping[str, Any]) -> dt.datetime:
        """When an object came into being."""

    def account(self, request: FetchRequest) -> str | None:
        """Whose objects the credentials open; None where the source cannot say."""
        return None

    # ---- what the engine makes of it; of what the source makes nothing, nothing is lost

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        """When an object came into being. Raises ValueError where it does not say."""
        try:
            return _aware(self.created(payload))
        except _NOT_UNDERSTOOD as error:
            raise ValueError(f"{self.source_system} {item.object_type} without a time") from error

    def changed_at(self, value: Mapping[str, Any]) -> dt.datetime | None:
        """When an object was changed; None where it does not say."""
        try:
            return _aware(self.changed(value))
        except _NOT_UNDERSTOOD:
            return None

    def sync(self, request: FetchRequest) -> Iterator[Item]:
        """Type after type: one that fails keeps none of the others waiting."""
        account = self.account(request)
        request.outcome.mode = _MODES[0]
        for object_type in request.options.objects or self.object_types:
            reading = _Reading(self, request, object_type, account)
            try:
                yield from reading.items()
            except OF_ONE_TYPE as error:
                request.outcome.failures[object_type] = error
            request.outcome.unfetched += len(reading.unfetched)

    def between(self, request: FetchRequest) -> Iterator[Item]:
        """What was created between two dates was changed since the first of them; what a bounded
        run leaves is the next one's with the same dates."""
        since, until = request.options.since, request.options.until
        dates = [None if moment is None else moment.isoformat() for moment in (since, until)]
        account = self.account(request)
        for object_type in request.options.objects or self.object_types:
            known_position(request, object_type, account)
            stream = f"{object_type}.between"
            cursor = request.stored.cursor(stream) or {}
            after = cursor.get("after") if cursor.get("dates") == dates else None
            try:
                for observed_at, page in self.pages(request, object_type, since, after):
                    for text, value in page.objects:
                        if self._is_between(value, since, until):
                            yield Listed(1)
                            yield Observed(object_type, text, observed_at, value["id"], None, value)
                    now = {"dates": dates, "after": page.after}
                    yield Cursor(stream, now, request.clock.now())
            except OF_ONE_TYPE as error:
                request.outcome.failures[object_type] = error

    def _is_between(
        self, value: Mapping[str, Any], since: dt.datetime | None, until: dt.datetime | None
    ) -> bool:
        try:
            at = _aware(self.created(value))
        except _NOT_UNDERSTOOD:
            return True  # it is set aside, which is not for this run to hide
        return (since is None or at >= since) and (until is None or at < until)

    def retry(self, request: FetchRequest) -> Iterator[Item]:
        """Read the objects of dead letters."""

        def object_of(letter: Any) -> tuple[str, str] | None:
            return (letter.object_type, letter.external_id) if letter.external_id else None

        wanted = yield from wanted_objects(request, object_of, self.object_types)
        for object_type in self.object_types:
            attempts = {key: n for (name, key), n in wanted.attempts.items() if name == object_type}
            attempted: set[str] = set()
            try:
                yield from self.each(request, object_type, list(attempts), attempts, attempted)
            except OF_ONE_TYPE as error:
                request.outcome.failures[object_type] = error
            wanted.settle(((object_type, key) for key in attempted), request)

    def verify(self, request: FetchRequest, inventory: Inventory) -> None:
        """Fill an inventory with what is held and what the lists have, by hashes."""
        stored, account = request.stored, self.account(request)
        for object_type in self.object_types:
            position = known_position(request, object_type, account)
            if position is None or position.is_open:
                state = "still being read" if position else "not read yet"
                raise NotVerifiable(
                    f'{self.source_system}: {object_type} is {state}; run "run.py'
                    f' {self.source_system} --until-done" first'
                )
            inventory.hold(object_type, (key for key, _ in stored.held_ids(object_type)))
            states = ((key, [value]) for key, value in stored.hashes(object_type))
            inventory.hold_states(object_type, states)
            inventory.excuse(object_type, stored.dead(object_type), DEAD_LETTER)
            inventory.excuse(object_type, position.unfetched, NOT_READ_YET)
            since = self.overlap_of(position.until)
            for _, page in self.pages(request, object_type, None):
                self._note(inventory, object_type, page.objects, since)
        for object_type, key in inventory.differing(EXTRA):
            try:  # a list may leave something out
                self._note(inventory, object_type, [self.object(request, object_type, key)], None)
            except NotFound:
                # Between two whole lists nothing tells of what is gone.
                inventory.excuse(object_type, [key], CHANGED_SINCE)

    def _note(
        self,
        inventory: Inventory,
        object_type: str,
        objects: Sequence[Element],
        since: dt.datetime | None,
    ) -> None:
        for text, value in objects:
            try:
                state = [(value["id"], admit(text, self.volatile_keys, value)[2])]
                inventory.list_states(object_type, state)
            except PayloadError:
                inventory.list_ids(object_type, [value["id"]])
            at = self.changed_at(value)
            if at is None or since is None or at >= since:
                inventory.excuse(object_type, [value["id"]], CHANGED_SINCE)

    def pages(
        self,
        request: FetchRequest,
        object_type: str,
        since: dt.datetime | None,
        after: str | None = None,
    ) -> Iterator[tuple[dt.datetime, ListPage]]:
        """Pages of a list, with the moment before each, as far as the run's bounds allow."""
        passed = {after}
        while True:
            limit = request.bounds.take(self.page_size)
            if not limit:
                request.bounds.reach()
                return
            observed_at = request.clock.now()
            page = self._checked_page(request, object_type, since, after, limit)
            request.bounds.give_back(limit - len(page.objects))
            yield observed_at, page
            if page.after is None:
                return
            if page.after in passed:
                raise not_advancing(self.source_system, object_type)
            after = page.after
            passed.add(after)

    def _checked_page(
        self,
        request: FetchRequest,
        object_type: str,
        since: dt.datetime | None,
        after: str | None,
        limit: int,
    ) -> ListPage:
        """A page. Raises ForeignAnswer for what is none."""
        error: Exception | None = None
        try:
            page = self.page(request, object_type, since, after, limit)
            if all(map(is_object, page.objects)):
                return page
        except _NOT_UNDERSTOOD as raised:
            error = raised
        raise foreign_answer(self.source_system, f"{object_type}.list") from error

    def each(
        self,
        request: FetchRequest,
        object_type: str,
        ids: Sequence[str],
        failures: Mapping[str, int],
        attempted: set[str],
        unfetched: dict[str, SourceError] | None = None,
    ) -> Iterator[Item]:
        """Read objects one by one, in parallel; `attempted` gets the ids that were come to, and
        `unfetched` those for the next run. Raises SourceError when it is not the objects."""
        stored = request.stored
        held = stored.held(object_type, ids)
        if not request.options.retry:
            held |= stored.dead(object_type).intersection(ids)
        failed = Failures(failures, lambda _: self.is_answering(request, object_type), _SUSPICIOUS)

        def one(key: str) -> tuple[dt.datetime, Element | None, SourceError | None]:
            observed_at = request.clock.now()
            try:
                element = self.object(request, object_type, key)
                if not is_object(element) or element[1]["id"] != key:
                    raise another_object(self.source_system, object_type)
            except NotFound:
                return observed_at, None, None
            except OF_ONE_OBJECT as error:
                return observed_at, None, error
            return observed_at, element, None

        reader = ReadAhead(self._pool, request, self._options.workers, one)
        for key, (observed_at, element, error) in reader.run(request.bounds.granted(ids)):
            attempted.add(key)
            if error is not None:
                if failed.is_to_blame(key, error):
                    yield Listed(1)
                    yield Unfetched(object_type, key, str(error), failed.attempts(key))
                continue
            failed.succeeded(key)
            yield Listed(1)
            if element is not None:
                yield Observed(object_type, element[0], observed_at, key, value=element[1])
            elif key in held:
                yield Deleted(object_type, key, observed_at)
            else:
                yield Gone(object_type, key)
        if unfetched is not None:
            unfetched.update(failed.unfetched)

    def is_answering(self, request: FetchRequest, object_type: str) -> bool:
        """Whether the list can be read. Raises SourceError when it cannot."""
        self._checked_page(request, object_type, None, None, 1)
        return True

    def overlap_of(self, moment: dt.datetime | None) -> dt.datetime | None:
        """From when on changes are asked for that are known up to a moment."""
        overlap = dt.timedelta(seconds=self._lists.overlap_seconds)
        return None if moment is None else moment - overlap

    def now(self) -> dt.datetime:
        """The time by the API's clock, or by this machine's if that is behind."""
        return min(self.client.served_at, dt.datetime.now(dt.UTC))

    def is_whole_due(self, position: ListPosition) -> bool:
        """Whether a list is to be read whole again."""
        if position.whole_at is None:
            return True
        # By a clock that was ahead it would never be.
        whole = dt.timedelta(hours=self._lists.whole_hours)
        return not dt.timedelta() <= self.now() - position.whole_at < whole


class _Reading:
    """What one run does for one object type."""

    def __init__(
        self, source: ListSource, request: FetchRequest, object_type: str, account: str | None
    ) -> None:
        self.unfetched: dict[str, SourceError] = {}
        self._source = source
        self._request = request
        self._type = object_type
        self._before = known_position(request, object_type, account)
        self._cursor = self._before.cursor() if self._before else None
        self._left = self._before.unfetched if self._before else ()
        self._account = account

    def items(self) -> Iterator[Item]:
        """Yield what changed. Raises SourceError."""
        position = self._begin()
        attempted: set[str] = set()
        if self._left:
            yield from self._each(self._left, attempted)
            self._left = tuple(key for key in self._left if key not in attempted)
        if not position.is_read:
            position = yield from self._read_list(position)
            if not position.is_read:
                return
        if position.resync_from is not None and not self._request.dry_run:
            yield Land()
            held = self._request.stored.held_ids(self._type, position.resync_from)
            yield from self._each([key for key, is_fresh in held if not is_fresh], set())
            if self._request.bounds.is_reached:
                yield from self._move(position)
                return
        yield from self._move(self._finished(position))

    def _begin(self) -> ListPosition:
        """Where the type goes on from: a list under way, or the beginning of one."""
        before, options, clock = self._before, self._request.options, self._request.clock
        is_held = any(True for _ in self._request.stored.held_ids(self._type))
        if before is not None and before.is_open and not (options.full_resync and before.since):
            position = before
        else:
            position = dataclasses.replace(
                before or ListPosition(None),
                account=self._account or (before.account if before else None),
            )
            is_whole = options.full_resync or self._source.is_whole_due(position)
            position = dataclasses.replace(
                position,
                is_open=True,
                begun_at=None,
                since=None if is_whole else self._source.overlap_of(position.until),
                after=None,
                reached=None,
                resync_from=clock.now() if is_held and is_whole else None,
            )
        mode = _MODES[(position.since is None) + (position.resync_from is not None)]
        outcome = self._request.outcome
        outcome.mode = max(outcome.mode, mode, key=_MODES.index)
        return position

    def _read_list(self, position: ListPosition) -> Generator[Item, None, ListPosition]:
        """Read a list, as far as the run's bounds allow."""
        source, request = self._source, self._request
        known = set(position.seen) if position.since is not None else set()
        is_last = False
        while True:
            try:
                for observed_at, page in source.pages(
                    request, self._type, position.since, position.after
                ):
                    for text, value in page.objects:
                        if self._named(value) not in known:
                            yield Listed(1)
                            yield Observed(self._type, text, observed_at, value["id"], value=value)
                    position, is_last = self._met(position, page), page.after is None
                    if not is_last:
                        yield from self._move(position)
            except RequestRefused:
                if position.after is None:
                    raise
                # Where it was gone on from is no more: the list is read from its beginning.
                position = dataclasses.replace(position, after=None)
                continue
            if not is_last:
                yield from self._move(position)
            return dataclasses.replace(position, is_read=is_last)

    def _met(self, position: ListPosition, page: ListPage) -> ListPosition:
        """The position after a page."""
        times = {self._named(value): self._source.changed_at(value) for _, value in page.objects}
        begun_at = position.begun_at or self._source.now()
        reached = _latest(
            position.reached, *(at for at in times.values() if at is not None and at <= begun_at)
        )
        since = self._source.overlap_of(_latest(reached, position.until))
        seen = dict.fromkeys(position.seen)
        for named, at in times.items():
            if at is not None and since is not None and at >= since:
                seen[named] = None
        return dataclasses.replace(
            position,
            begun_at=begun_at,
            after=page.after,
            reached=reached,
            seen=tuple(seen)[-_MAX_SEEN:],
        )

    def _finished(self, position: ListPosition) -> ListPosition:
        """The position once a list is read."""
        until = _latest(position.until, position.reached)
        since = self._source.overlap_of(until)
        return dataclasses.replace(
            ListPosition(position.account),
            until=until,
            whole_at=position.whole_at if position.since is not None else position.begun_at,
            seen=tuple(named for named in position.seen if since and _moment_of(named) >= since),
        )

    def _each(self, ids: Sequence[str], attempted: set[str]) -> Iterator[Item]:
        failures = dict.fromkeys(self._before.unfetched if self._before else (), 1)
        return self._source.each(
            self._request, self._type, ids, failures, attempted, self.unfetched
        )

    def _move(self, position: ListPosition) -> Iterator[Item]:
        """The cursor of a position, when it differs from the last one."""
        unfetched = (*self._left, *self.unfetched)
        cursor = dataclasses.replace(position, unfetched=unfetched).cursor()
        if cursor != self._cursor:
            self._cursor = cursor
            yield Cursor(self._type, cursor, self._request.clock.now())

    def _named(self, value: Mapping[str, Any]) -> str:
        at = self._source.changed_at(value)
        return f"{at.isoformat() if at else ''} {value['id']}"


def _aware(moment: dt.datetime) -> dt.datetime:
    """A time without a zone is UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _latest(*moments: dt.datetime | None) -> dt.datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _moment_of(named: str) -> dt.datetime:
    return dt.datetime.fromisoformat(named.partition(" ")[0])


def known_position(
    request: FetchRequest, object_type: str, account: str | None
) -> ListPosition | None:
    """The stored position. Raises SourceError where it is another account's."""
    position = ListPosition.read(request.stored.cursor(object_type))
    if position is not None and position.account not in (None, account or position.account):
        raise SourceError(
            f"{request.stored.connection[0]}: the credentials open another account than this"
            " connection has read so far; give it a connection of its own, or correct them"
        )
    return position
