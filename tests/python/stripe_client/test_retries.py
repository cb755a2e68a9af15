"""Requests that fail: what is tried again, and how long it waits."""

from __future__ import annotations

import datetime as dt
import email.utils
import socket
import threading
from collections.abc import Callable

import pytest

from loaders.errors import AskedToPause, ForeignAnswer, TransientSourceError

from .conftest import CONTENT, Answer, Server, Waits, new_client, new_request, refusal, waits_of

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_for_again(server: Server, status: int) -> None:
    server.answers = [Answer.error(status), Answer.error(status), Answer()]
    request = new_request()
    assert new_client(server.url).page(request, "/v1/charges").objects == []
    assert (request.usage.api_calls, request.usage.retries) == (3, 2)
    assert request.usage.throttled_seconds > 0


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_what_does_not_pass_is_one_clear_transient_error(server: Server, status: int) -> None:
    server.answers = [Answer.error(status, code="some_code", message=CONTENT)]
    error = refusal(new_client(server.url))
    assert type(error) is TransientSourceError
    assert error.retryable
    assert f"failed 3 times, last with {status} some_code" in str(error)
    assert len(server.heard) == 3


def test_back_off_grows_and_is_jittered(server: Server) -> None:
    server.answers = [Answer.error(500)]
    waits = Waits()
    refusal(new_client(server.url, max_attempts=6, backoff_seconds=2.0), new_request(waits))
    assert len(waits.seconds) == 5
    for attempt, seconds in enumerate(waits.seconds):
        ceiling = 2.0 * 2**attempt
        assert ceiling / 2 <= seconds <= ceiling


PAUSES: dict[str, Callable[[dt.datetime], str]] = {
    "seconds": lambda until: str(round((until - dt.datetime.now(dt.UTC)).total_seconds())),
    "date": lambda until: email.utils.format_datetime(until, usegmt=True),
    "ISO date": lambda until: until.isoformat(),
}
"""Retry-After, in the forms that it has."""


@pytest.mark.parametrize("form", PAUSES)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(server: Server, status: int, form: str) -> None:
    now = dt.datetime.now(dt.UTC)
    server.answers = [
        Answer.error(status, {"Retry-After": PAUSES[form](now + dt.timedelta(seconds=170))}),
        Answer(),
    ]
    assert sum(waits_of(new_client(server.url))) == pytest.approx(170.0, abs=2)


def test_a_pause_counts_from_the_answer_s_own_date(server: Server) -> None:
    """This machine's clock may be wrong."""
    then = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    headers = {
        "Date": email.utils.format_datetime(then, usegmt=True),
        "Retry-After": PAUSES["date"](then + dt.timedelta(seconds=170)),
    }
    server.answers = [Answer.error(503, headers), Answer()]
    assert sum(waits_of(new_client(server.url))) == pytest.approx(170.0, abs=0.01)


def test_a_pause_that_the_run_has_no_time_for_ends_it_at_once(server: Server) -> None:
    server.answers = [Answer.error(429, {"Retry-After": "900"})]
    error = refusal(new_client(server.url), new_request(seconds_left=lambda: 600.0))
    assert type(error) is AskedToPause
    assert "stripe: charges.list: asked to pause for 0:15:00" in str(error)
    assert len(server.heard) == 1


@pytest.mark.parametrize("value", ["", "soon", "-5"], ids=["none", "text", "-5"])
def test_a_retry_after_that_is_no_number_of_seconds_leaves_the_back_off(
    server: Server, value: str
) -> None:
    server.answers = [Answer.error(503, {"Retry-After": value}), Answer()]
    [seconds] = waits_of(new_client(server.url))
    assert seconds <= 0.001


def test_a_rate_limit_is_waited_out_whatever_stripe_says_of_a_retry(server: Server) -> None:
    """The official clients give up at once; a sync has time."""
    server.answers = [Answer.error(429, {"Stripe-Should-Retry": "false"}), Answer()]
    assert new_client(server.url).page(new_request(), "/v1/charges").objects == []


def test_a_404_that_is_not_stripe_s_is_no_deletion(server: Server) -> None:
    server.answers = [Answer(404, b"<html>not here</html>")]
    error = refusal(new_client(server.url))
    assert type(error) is ForeignAnswer
    assert "a proxy or" in str(error)


@pytest.mark.parametrize("status", [400, 402, 409, 500])
@pytest.mark.parametrize("word", ["true", "false"])
def test_what_stripe_says_of_a_retry_wins_over_the_status(
    server: Server, status: int, word: str
) -> None:
    server.answers = [Answer.error(status, {"Stripe-Should-Retry": word}), Answer()]
    client = new_client(server.url)
    if word == "true":
        assert client.page(new_request(), "/v1/charges").objects == []
        assert len(server.heard) == 2
    else:
        assert not refusal(client).retryable
        assert len(server.heard) == 1


def test_a_refused_connection_is_one_clear_transient_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        request = new_request()
        error = refusal(new_client(f"http://127.0.0.1:{taken.getsockname()[1]}"), request)
    assert type(error) is TransientSourceError
    assert "ConnectionError" in str(error)
    assert request.usage.api_calls == 3


def test_a_read_that_takes_too_long_is_one_clear_transient_error(server: Server) -> None:
    server.silent = True
    error = refusal(new_client(server.url, timeout_seconds=0.2, max_attempts=2))
    assert type(error) is TransientSourceError
    assert "ReadTimeout" in str(error)
    assert len(server.heard) == 2


@pytest.mark.parametrize("retry_after", ["60", "300"])
def test_cancelling_ends_a_wait_at_once(server: Server, retry_after: str) -> None:
    """A wait that went on would exceed the test's time."""

    class Cancelled(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            threading.Timer(0.01, self.set).start()
            return super().wait(timeout)

    server.answers = [Answer.error(429, {"Retry-After": retry_after})]
    error = refusal(new_client(server.url), new_request(Cancelled()))
    assert "cancelled" in str(error)
    assert len(server.heard) == 1


def test_a_cancelled_run_asks_for_nothing(server: Server) -> None:
    cancelled = threading.Event()
    cancelled.set()
    assert "cancelled" in str(refusal(new_client(server.url), new_request(cancelled)))
    assert server.heard == []
