"""Lists are read whole, in parallel, whatever is in them."""

from __future__ import annotations

import bisect
import collections
import concurrent.futures
import contextlib
import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.sources.contract import FetchOptions, FetchRequest
from loaders.sources.stripe import listing as listing_module
from loaders.sources.stripe.client import Page, StripeClient
from loaders.sources.stripe.kinds import KINDS
from loaders.sources.stripe.listing import Listing
from loaders.sources.stripe.options import StripeConfig
from loaders.sources.stripe.reading import Reader, slices

from .conftest import new_request, times

pytestmark = pytest.mark.timeout(60)


CHARGE, PRICE = KINDS["charge"], KINDS["price"]


class Account:
    """A client of a list that is only a list of times; counts what is asked of it."""

    def __init__(self, created: Sequence[int]) -> None:
        self.config = StripeConfig(api_key="sk_test_x")
        self.requests = 0
        self.slices: set[int] = set()
        self._newest_first = sorted(
            ((at, f"ch_{number:06d}") for number, at in enumerate(created)), reverse=True
        )
        self._places = {key: place for place, (_, key) in enumerate(self._newest_first)}
        self._ages = [-at for at, _ in self._newest_first]

    @property
    def ids(self) -> set[str]:
        return set(self._places)

    def page(
        self, request: FetchRequest, path: str, parameters: Mapping[str, Any], *, limit: int
    ) -> Page:
        since, before = parameters.get("created[gte]", 0), parameters.get("created[lt]")
        self.requests += 1
        self.slices.add(since)
        start = 0 if before is None else bisect.bisect_right(self._ages, -before)
        if "starting_after" in parameters:
            start = max(start, self._places[parameters["starting_after"]] + 1)
        end = bisect.bisect_right(self._ages, -since)
        found = self._newest_first[start : min(end, start + limit)]
        objects = [("{}", {"id": key, "created": at}) for at, key in found]
        return Page(objects, start + limit < end, None)


class Pool(concurrent.futures.Executor):
    """Runs what was submitted when it is waited for: as many, and which, as `order` says."""

    def __init__(self, order: random.Random, *, all_at_once: bool = False) -> None:
        self.most = self.rounds = 0
        self._order = order
        self._all_at_once = all_at_once
        self._submitted: list[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = []

    def submit(
        self, function: Callable[..., Any], /, *arguments: Any, **options: Any
    ) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._submitted.append((future, lambda: function(*arguments, **options)))
        self.most = max(self.most, len(self._submitted))
        return future

    def wait(
        self, futures: Any, timeout: float | None = None, return_when: str = ""
    ) -> tuple[Sequence[concurrent.futures.Future[Any]], Sequence[Any]]:
        self.rounds += 1
        self._order.shuffle(self._submitted)
        count = len(self._submitted)
        count = count if self._all_at_once else self._order.randint(1, count)
        finished, self._submitted = self._submitted[:count], self._submitted[count:]
        for future, work in finished:
            future.set_result(work())
        return [future for future, _ in finished], []

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        with mock.patch.object(concurrent.futures, "wait", self.wait):
            yield
        self._submitted.clear()


@dataclasses.dataclass
class Outcome:
    """What listing everything took."""

    times: collections.Counter[str]
    runs: int


def list_all(
    account: Account,
    pool_of_run: Callable[[], Pool],
    workers: int,
    *,
    max_objects: int | None = None,
    pages_of_run: int | None = None,
    bounds: tuple[int, int | None] = (0, None),
) -> Outcome:
    """Run after run until nothing is left; each ends by its bounds or is killed after a page."""
    left = slices(CHARGE, *bounds)
    outcome = Outcome(collections.Counter(), 0)
    while left:
        outcome.runs += 1
        assert outcome.runs < 5_000
        pool = pool_of_run()
        request = new_request(options=FetchOptions(max_objects=max_objects))
        reader = Reader(cast(StripeClient, account), request)
        limits = request.bounds
        listing = Listing(reader, pool, workers, limits)
        listing.add(CHARGE, left)
        count = pages = 0
        with pool.installed():
            for kind, reads in listing.run():
                assert kind is CHARGE
                outcome.times.update(read.object_id for read in reads)
                count, pages, left = count + len(reads), pages + 1, listing.left(CHARGE)
                if pages == pages_of_run:
                    break
        assert not listing.failures
        assert max_objects is None or count <= max_objects
        assert not left or limits.is_reached or pages_of_run
    return outcome


@settings(max_examples=150, deadline=None)
@given(
    created=times,
    workers=st.integers(1, 8),
    size=st.integers(1, 9),
    max_objects=st.none() | st.integers(1, 400),
    pages_of_run=st.none() | st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_every_object_is_listed_once_in_few_requests(
    created: list[int],
    workers: int,
    size: int,
    max_objects: int | None,
    pages_of_run: int | None,
    seed: int,
) -> None:
    account, order = Account(created), random.Random(seed)
    with mock.patch.object(listing_module, "PAGE_SIZE", size):
        outcome = list_all(
            account,
            lambda: Pool(order),
            workers,
            max_objects=max_objects,
            pages_of_run=pages_of_run,
        )
    assert outcome.times == collections.Counter(account.ids)
    if outcome.runs == 1:
        # A page that is not full for each slice, an empty one's only page included.
        assert account.requests <= len(created) // size + len(account.slices)
    elif pages_of_run is None:
        assert max_objects is not None
        assert outcome.runs <= -(-len(created) // max_objects) + 1


@settings(max_examples=50, deadline=None)
@given(created=times, data=st.data(), workers=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_dates_bound_a_listing_to_the_second(
    created: list[int], data: st.DataObject, workers: int, seed: int
) -> None:
    account, order = Account(created), random.Random(seed)
    moments = st.sampled_from(created or [1_300_000_000]) | st.integers(
        1_299_999_999, 1_340_000_000
    )
    since, before = sorted((data.draw(moments), data.draw(moments)))
    with mock.patch.object(listing_module, "PAGE_SIZE", 5):
        outcome = list_all(account, lambda: Pool(order), workers, bounds=(since, before))
    expected = sum(since <= at < before for at in created)
    assert outcome.times.total() == len(outcome.times) == expected


@pytest.mark.parametrize("pages", [100, 400, 1_000])
def test_a_long_list_is_read_in_parallel(pages: int) -> None:
    account = Account([1_500_000_000 + 977 * number for number in range(pages * 5)])
    pool = Pool(random.Random(1), all_at_once=True)
    with mock.patch.object(listing_module, "PAGE_SIZE", 5):
        outcome = list_all(account, lambda: pool, workers=8)
    assert set(outcome.times.values()) == {1}
    assert 1 < pool.most <= 8
    assert pool.rounds < {100: 80, 400: 120, 1_000: 230}[pages]
    assert account.requests < pages * 1.05 + 5


@pytest.mark.parametrize("pages", [1, 3])
def test_a_short_list_is_read_in_one_piece(pages: int) -> None:
    account = Account([1_500_000_000 + 977 * number for number in range(pages * 5)])
    pool = Pool(random.Random(1))
    with mock.patch.object(listing_module, "PAGE_SIZE", 5):
        list_all(account, lambda: pool, workers=8)
    assert (pool.most, account.requests) == (1, pages)


def test_workers_are_never_exceeded_by_several_kinds() -> None:
    account = Account([1_500_000_000 + 977 * number for number in range(3_000)])
    pool, request = Pool(random.Random(3)), new_request()
    reader = Reader(cast(StripeClient, account), request)
    listing = Listing(reader, pool, 4, request.bounds)
    kinds = [CHARGE, PRICE, KINDS["refund"]]
    for kind in kinds:
        listing.add(kind, slices(kind))
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    with mock.patch.object(listing_module, "PAGE_SIZE", 5), pool.installed():
        for kind, reads in listing.run():
            found.update((kind.name, read.object_id) for read in reads)
    assert pool.most == 4
    for kind in kinds:
        assert {found[kind.name, key] for key in account.ids} == {len(kind.lists)}
