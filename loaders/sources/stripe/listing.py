"""Listing kinds in parallel, over slices of `created`.

A list can only be walked page by page, from its newest object on. So a walk that has much left
gives the older part of its slice away as soon as a worker is idle. Each slice ends with a page
that is half full on average, so slices are kept long: some thirty pages.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterator, Sequence

from loaders.errors import SourceError
from loaders.sources.bounds import Bounds
from loaders.sources.refusals import OF_ONE_TYPE, RequestRefused
from loaders.sources.stripe.client import PAGE_SIZE, not_advancing
from loaders.sources.stripe.kinds import Kind
from loaders.sources.stripe.position import Slice
from loaders.sources.stripe.reading import PageRead, Read, Reader

_PIECE = 32
"""Pages that a walk keeps of a slice whose beginning is not known."""
_WORTH_SPLITTING = 48
"""Pages left from which a slice is halved."""
_PAGES_BEFORE_SPLIT = 4
"""Pages after which the first walk of a kind is split: small kinds are not worth it."""


@dataclasses.dataclass
class _Walk:
    """The listing of one slice, page by page."""

    kind: Kind
    part: Slice
    must_read_first: int = 1
    limit: int = PAGE_SIZE
    pages: int = 0
    newest: int = 0
    oldest: int = 0
    """Creation, in Unix seconds, of the newest and oldest object met so far."""
    passed: set[str] = dataclasses.field(default_factory=set)
    """Objects after which a page was asked for."""

    def go_on(self, rest: Slice) -> None:
        """Go on with the next page. Raises TransientSourceError where it would go round."""
        assert rest.after is not None
        if rest.after in self.passed:
            raise not_advancing(self.kind.path)
        self.passed.add(rest.after)
        self.part = rest

    def meet(self, page: PageRead) -> None:
        """Take note of how dense the objects lie."""
        if page.newest is not None and page.oldest is not None:
            self.newest = max(self.newest, page.newest)
            self.oldest = min(self.oldest, page.oldest) if self.pages else page.oldest
            self.pages += 1

    @property
    def seconds_a_page(self) -> float:
        """Of creation time that one page covers, by what was met so far."""
        return max(1.0, (self.newest - self.oldest) / self.pages)

    @property
    def pages_left(self) -> float:
        """By the density of what was met so far; nobody knows where the first object is."""
        if self.part.since == 0:
            return math.inf
        return (self.oldest - self.part.since) / self.seconds_a_page


class Listing:
    """Lists slices of several kinds at once; `failures` has the kinds that could not be."""

    def __init__(
        self,
        reader: Reader,
        pool: concurrent.futures.Executor,
        workers: int,
        bounds: Bounds,
    ) -> None:
        self.failures: dict[str, SourceError] = {}
        self._bounds = bounds
        self._reader = reader
        self._pool = pool
        self._workers = workers
        self._waiting: list[_Walk] = []
        self._running: dict[concurrent.futures.Future[PageRead], _Walk] = {}

    def add(self, kind: Kind, slices: Sequence[Slice]) -> None:
        """List these slices of a kind too."""
        self._waiting += [_Walk(kind, part, _PAGES_BEFORE_SPLIT) for part in slices]

    def left(self, kind: Kind) -> tuple[Slice, ...]:
        """What is still to be listed of a kind."""
        walks = [*self._running.values(), *self._waiting]
        return tuple(walk.part for walk in walks if walk.kind is kind)

    def run(self) -> Iterator[tuple[Kind, Sequence[Read]]]:
        """Yield page after page, of any kind and slice, empty ones too; `left` has moved on.

        Ends early, with something left, when the run's time or number of objects is used up
        and where a kind fails. Raises SourceError for what is no matter of a kind.
        """
        try:
            self._submit()
            while self._running:
                finished, _ = concurrent.futures.wait(
                    self._running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in finished:
                    walk = self._running.pop(future)
                    reads = self._take(walk, future)
                    self._submit()
                    if walk.kind.name not in self.failures:
                        yield walk.kind, reads
        finally:
            for future in self._running:
                future.cancel()
        if any(walk.kind.name not in self.failures for walk in self._waiting):
            self._bounds.reach()

    def _submit(self) -> None:
        """Keep the workers busy."""
        for walk in list(self._waiting):
            if walk.kind.name in self.failures:
                continue
            if len(self._running) >= self._workers:
                return
            walk.limit = self._bounds.take(PAGE_SIZE)
            if not walk.limit:
                return
            self._waiting.remove(walk)
            future = self._pool.submit(self._reader.page, walk.kind, walk.part, walk.limit)
            self._running[future] = walk

    def _take(self, walk: _Walk, future: concurrent.futures.Future[PageRead]) -> Sequence[Read]:
        """The objects of a page; the walk goes on, or is over."""
        try:
            page = future.result()
            if page.rest is not None:
                walk.go_on(page.rest)
        except OF_ONE_TYPE as error:
            self._bounds.give_back(walk.limit)
            self._waiting.append(walk)
            self._note_failure(walk, error)
            return ()
        self._bounds.give_back(walk.limit - len(page.reads))
        if page.rest is not None:
            walk.meet(page)
            # First in the queue: what was begun is finished before other slices begin.
            self._waiting.insert(0, walk)
            self._split(walk)
        return page.reads

    def _note_failure(self, walk: _Walk, error: SourceError) -> None:
        is_deleted = isinstance(error, RequestRefused) and error.parameter == "starting_after"
        if is_deleted and walk.part.after is not None:
            # The object to go on after is no more: the slice is listed from its beginning.
            walk.part = dataclasses.replace(walk.part, after=None)
            walk.passed.clear()
            return
        self.failures[walk.kind.name] = error

    def _split(self, walk: _Walk) -> None:
        """Give the older part of a slice away when a worker has nothing to do."""
        if len(self._running) + len(self._waiting) >= self._workers:
            return
        if walk.pages < walk.must_read_first or walk.pages_left < _WORTH_SPLITTING:
            return
        kept = _PIECE if walk.part.since == 0 else walk.pages_left / 2
        middle = walk.oldest - math.ceil(kept * walk.seconds_a_page)
        if middle > walk.part.since:
            older = dataclasses.replace(walk.part, before=middle, after=None)
            self._waiting.append(_Walk(walk.kind, older))
            walk.part = dataclasses.replace(walk.part, since=middle)
