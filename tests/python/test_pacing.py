"""The token bucket: never above the quota in any minute, near it in the long run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.sources.pacing import TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def spend(bucket: TokenBucket, clock: Clock, units: list[int]) -> list[tuple[float, int]]:
    """(moment, units) of calls made one after the other as soon as each may be."""
    spent = []
    for cost in units:
        clock.now += bucket.reserve(cost)
        spent.append((clock.now, cost))
    return spent


@pytest.mark.parametrize(("quota", "cost"), [(6_000, 20), (15_000, 5), (6_000, 40)])
def test_a_long_run_uses_nearly_all_of_the_quota(quota: int, cost: int) -> None:
    clock = Clock()
    bucket = TokenBucket(quota, largest=40, clock=clock)
    spent = spend(bucket, clock, [cost] * (5 * quota // cost))
    used = sum(units for _, units in spent) / (spent[-1][0] / 60)
    assert 0.97 * quota < used < 1.01 * quota


@given(st.lists(st.sampled_from([1, 2, 5, 20, 40]), min_size=400, max_size=800))
def test_no_minute_holds_more_than_the_quota(costs: list[int]) -> None:
    clock = Clock()
    spent = spend(TokenBucket(6_000, largest=40, clock=clock), clock, costs)
    start, inside = 0, 0
    for moment, units in spent:
        inside += units
        while spent[start][0] <= moment - 60:
            inside -= spent[start][1]
            start += 1
        assert inside <= 6_000 + 1e-6


def test_a_refusal_slows_down_once_for_all_threads_and_is_recovered_from() -> None:
    clock = Clock()
    bucket = TokenBucket(6_000, largest=40, clock=clock)
    full = bucket.rate
    for _ in range(10):
        bucket.slow_down(2.0)
    assert bucket.rate == pytest.approx(0.7 * full)
    assert bucket.reserve(1) >= 2.0
    clock.now += 3.0
    bucket.slow_down(1.0)
    assert bucket.rate < 0.6 * full
    clock.now += 120.0
    bucket.reserve(1)
    assert bucket.rate == full


def test_it_never_stops() -> None:
    clock = Clock()
    bucket = TokenBucket(6_000, largest=40, clock=clock)
    for _ in range(100):
        clock.now += 1.5
        bucket.slow_down(1.0)
    assert bucket.rate > 0.04 * 6_000 / 60


def test_a_burst_waits_for_its_own_share_only() -> None:
    clock = Clock()
    bucket = TokenBucket(6_000, largest=40, clock=clock)
    waits = [bucket.reserve(20) for _ in range(12)]
    assert waits[:6] == [0.0] * 6
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(120 / 98, rel=0.01)


def test_a_closure_that_begins_while_a_thread_waits_holds_for_it_too() -> None:
    clock = Clock()
    bucket = TokenBucket(6_000, largest=40, clock=clock)
    waits = [bucket.reserve(20) for _ in range(12)]
    clock.now += waits[-1] / 2
    bucket.slow_down(5.0)
    clock.now += waits[-1] / 2
    assert bucket.closed_for() == pytest.approx(5.0 - waits[-1] / 2)
    clock.now += bucket.closed_for()
    assert bucket.closed_for() == 0.0
