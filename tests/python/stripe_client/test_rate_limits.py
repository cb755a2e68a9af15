"""Pacing: no more requests than Stripe takes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence

import pytest

from loaders.sources.stripe.client import StripeClient

from .conftest import Answer, Clock, Server, Waits, new_client, new_request, refusal, waits_of

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    ("reason", "own", "other"),
    [
        pytest.param("global-rate", True, True, id="of the account"),
        pytest.param("global-concurrency", True, True, id="of the account at once"),
        pytest.param("endpoint-rate", True, False, id="of the endpoint"),
        pytest.param("endpoint-concurrency", True, False, id="of the endpoint at once"),
        pytest.param("resource-specific", True, False, id="of the object"),
        pytest.param(None, True, True, id="not said"),
    ],
)
def test_a_refusal_slows_down_what_it_is_about(
    server: Server, reason: str | None, own: bool, other: bool
) -> None:
    headers = {"Retry-After": "30"} | ({"Stripe-Rate-Limited-Reason": reason} if reason else {})
    for path, is_slowed in (("/v1/charges", own), ("/v1/customers", other)):
        client = new_client(server.url)
        server.answers = [Answer.error(429, headers, code="rate_limit"), Answer()]
        waited = waits_while_refused(client, functools.partial(waits_of, client, path))
        assert waited == pytest.approx(30.0 if is_slowed else 0.0, abs=0.01), path


def waits_while_refused(client: StripeClient, call: Callable[[], Sequence[float]]) -> float:
    """The seconds that a call waits that is made while another waits for having been refused."""
    found: list[float] = []
    refused = Waits(first=lambda: found.extend(call()))
    client.page(new_request(refused), "/v1/charges")
    assert sum(refused.seconds) >= 30
    return sum(found)


def test_single_reads_and_lists_are_endpoints_of_their_own(server: Server) -> None:
    headers = {"Retry-After": "30", "Stripe-Rate-Limited-Reason": "endpoint-rate"}
    body = b'{"id":"ch_1","object":"charge"}'
    server.answers = [Answer.error(429, headers), Answer(body=body), Answer()]
    client = new_client(server.url)

    def read_one() -> Sequence[float]:
        waits = Waits()
        client.object(new_request(waits), "/v1/charges", "ch_1")
        return waits.seconds

    assert waits_while_refused(client, read_one) == 0


def test_a_call_that_waits_for_its_turn_heeds_a_refusal_of_another(server: Server) -> None:
    """Sixteen threads have reserved their turns when the first of them is told to wait."""
    client = new_client(server.url, requests_per_second=10.0)
    client.page(new_request(), "/v1/charges")  # the burst is used up
    headers = {"Retry-After": "30", "Stripe-Rate-Limited-Reason": "global-rate"}
    server.answers = [Answer.error(429, headers, code="rate_limit"), Answer()]

    class Leaves(threading.Event):
        """Whoever is refused waits no longer than this test."""

        def wait(self, timeout: float | None = None) -> bool:
            if timeout == 30.0:
                self.set()
            return self.is_set()

    def be_refused() -> None:
        assert "cancelled" in str(refusal(client, new_request(Leaves())))

    waits = Waits(first=be_refused)
    client.page(new_request(waits), "/v1/charges")
    assert waits.seconds[0] < 1
    assert sum(waits.seconds) >= 30


def test_a_refusal_for_the_rate_leaves_less_of_it_for_a_while(server: Server, clock: Clock) -> None:
    client = new_client(server.url, requests_per_second=10.0)
    before = [sum(waits_of(client)) for _ in range(3)][-1]
    server.answers = [Answer.error(429, {"Retry-After": "1"}), Answer()]
    waits_of(client)
    after = [sum(waits_of(client)) for _ in range(3)][-1]
    assert after > before * 1.2
    clock.seconds += 600
    assert sum(sum(waits_of(client)) for _ in range(3)) <= before * 3


def test_other_failures_slow_nothing_down(server: Server) -> None:
    server.answers = [Answer.error(503, {"Retry-After": "30"}), Answer()]
    client = new_client(server.url)
    assert waits_while_refused(client, lambda: waits_of(client)) == 0


@pytest.mark.parametrize(
    ("limits", "paths", "rate"),
    [
        pytest.param({"requests_per_second": 10.0}, ["charges", "customers"], 10, id="in all"),
        pytest.param({"endpoint_requests_per_second": 10.0}, ["charges"], 10, id="of one"),
        pytest.param(
            {"endpoint_requests_per_second": 10.0}, ["charges", "customers"], 20, id="of each"
        ),
        pytest.param({"requests_per_second": 0.5}, ["charges"], 0.5, id="less than one a second"),
        pytest.param({"requests_per_second": 0.0}, ["charges"], 25, id="what a test key has"),
    ],
)
def test_no_second_has_more_calls_than_the_rate_limit(
    server: Server, clock: Clock, limits: dict[str, float], paths: list[str], rate: float
) -> None:
    client = new_client(server.url, **limits)
    made = []
    for turn in range(60):
        client.page(new_request(), f"/v1/{paths[turn % len(paths)]}")
        made.append(clock.seconds)
    window = max(1.0, 10 / rate)
    for at in made:
        assert sum(at <= other < at + window for other in made) <= rate * window
    assert 60 / made[-1] > rate * 0.85
