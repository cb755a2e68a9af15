"""Stripe's client: pacing, retries, what refusals become, bodies as they came; and the listing."""

from __future__ import annotations

import base64
import bisect
import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import email.utils
import functools
import http.server
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast
from unittest import mock

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from landfall_sandbox.controls import Sandbox
from loaders.errors import AskedToPause, ForeignAnswer, SourceError, TransientSourceError
from loaders.objects.items import ObservationClock
from loaders.sources import rest
from loaders.sources.contract import FetchOptions, FetchRequest, Usage
from loaders.sources.pacing import TokenBucket
from loaders.sources.refusals import KeyRefused, PermissionDenied, RequestRefused
from loaders.sources.stripe import listing as listing_module
from loaders.sources.stripe.client import Page, StripeClient
from loaders.sources.stripe.events import read_windows
from loaders.sources.stripe.kinds import KINDS
from loaders.sources.stripe.listing import Listing
from loaders.sources.stripe.options import API_VERSION, StripeConfig
from loaders.sources.stripe.reading import Reader, slices
from loaders.warehouse.contents import Stored

from .conftest import STRIPE_KEY

pytestmark = pytest.mark.timeout(60)

CONTENT = "ann.content@example.com"
EMPTY = b'{"object":"list","data":[],"has_more":false,"url":"/v1/charges"}'


@dataclasses.dataclass
class Answer:
    """What the server says to one request."""

    status: int = 200
    body: bytes = EMPTY
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def error(cls, status: int, headers: Mapping[str, str] | None = None, **error: str) -> Answer:
        return cls(status, json.dumps({"error": error}).encode(), headers or {})


@dataclasses.dataclass
class Heard:
    """One request that came in."""

    path: str
    headers: Mapping[str, str]


class Server:
    """A server on this machine that gives the answers it is told to, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [Answer()]
        self.heard: list[Heard] = []
        self.silent = False
        self.closing = threading.Event()
        self.url = ""

    def next_answer(self, heard: Heard) -> Answer | None:
        self.heard.append(heard)
        if self.silent:
            self.closing.wait(30)
            return None
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def server() -> Iterator[Server]:
    script = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = script.next_answer(Heard(self.path, headers))
            if answer is None:
                self.close_connection = True
                return
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    script.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield script
    script.closing.set()
    listener.shutdown()
    listener.server_close()
    thread.join()


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    with Sandbox(size=1, charges=20, seed=7) as sandbox:
        yield sandbox


class Clock:
    """The pacing's clock: it goes on while somebody waits."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """No time passes but what is waited."""
    monkeypatch.setattr(Waits, "clock", clock := Clock())

    def new_bucket(units: float, largest: float, *, seconds: float) -> TokenBucket:
        return TokenBucket(units, largest, clock, seconds)

    monkeypatch.setattr(rest, "TokenBucket", new_bucket)
    return clock


class Waits(threading.Event):
    """Waits that take no real time and are remembered; the first may set something off."""

    clock = Clock()

    def __init__(self, first: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._first: Callable[[], object] | None = first

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        first, self._first = self._first, None
        if first is not None:
            first()
        self.clock.seconds += timeout or 0.0
        return self.is_set()


def new_request(cancelled: threading.Event | None = None, **options: Any) -> FetchRequest:
    return FetchRequest(
        clock=ObservationClock(),
        usage=Usage(),
        stored=cast(Stored, None),
        cancelled=cancelled or Waits(),
        **options,
    )


def new_client(url: str, **options: Any) -> StripeClient:
    config = {
        "api_key": STRIPE_KEY,
        "api_base_url": url,
        "backoff_seconds": 0.001,
        "max_attempts": 3,
        "timeout_seconds": 10.0,
        "requests_per_second": 100_000.0,
        "endpoint_requests_per_second": 100_000.0,
    }
    return StripeClient("acct1", StripeConfig(**{**config, **options}))


def waits_of(client: StripeClient, path: str = "/v1/charges") -> Sequence[float]:
    """The seconds that one call for a list waits."""
    waits = Waits()
    client.page(new_request(waits), path)
    return waits.seconds


def as_text(body: str | bytes) -> str:
    return body if isinstance(body, str) else body.decode()


def refusal(client: StripeClient, request: FetchRequest | None = None) -> SourceError:
    """What a call for a list ends with."""
    with pytest.raises(SourceError) as raised:
        client.page(request or new_request(), "/v1/charges")
    message = str(raised.value)
    assert STRIPE_KEY not in message
    assert CONTENT not in message
    assert "\n" not in message
    assert "charges.list" in message or "cancelled" in message
    return raised.value


# ---- retries


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


# ---- rate limits


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


# ---- refusals


@pytest.mark.parametrize(
    ("status", "error", "kind", "said"),
    [
        pytest.param(
            400,
            {"code": "resource_missing", "param": "starting_after"},
            RequestRefused,
            "400 resource_missing (starting_after)",
            id="400",
        ),
        pytest.param(
            400,
            {"type": "invalid_request_error", "param": "created[gte]"},
            RequestRefused,
            "400 invalid_request_error (created[gte])",
            id="400 without a code",
        ),
        pytest.param(402, {"code": "card_declined"}, RequestRefused, "402 card_declined", id="402"),
        pytest.param(
            401,
            {"code": "api_key_expired"},
            KeyRefused,
            "401 api_key_expired: the key is not accepted; correct sources.stripe.acct1.api_key",
            id="401",
        ),
        pytest.param(
            403,
            {"message": f"{STRIPE_KEY} lacks 'rak_charge_read' for {CONTENT}"},
            PermissionDenied,
            "rak_charge_read",
            id="403",
        ),
        pytest.param(
            403,
            {"code": "account_invalid"},
            SourceError,
            "sources.stripe.acct1.stripe_account",
            id="403 of an account",
        ),
        pytest.param(
            400,
            {"type": "invalid_request_error", "message": "Invalid Stripe API version: 2027-01-01"},
            SourceError,
            f"does not take the API version '{API_VERSION}'; correct"
            " sources.stripe.acct1.api_version",
            id="400 of a version",
        ),
    ],
)
def test_a_refusal_is_of_its_kind_and_quotes_names_alone(
    server: Server, status: int, error: dict[str, str], kind: type[SourceError], said: str
) -> None:
    message = f"No such thing: '{CONTENT}', provided key: {STRIPE_KEY}"
    server.answers = [Answer.error(status, None, **{"message": message, **error})]
    refused = refusal(new_client(server.url))
    assert type(refused) is kind
    assert not refused.retryable
    assert said in str(refused)
    assert str(status) in str(refused)
    assert len(server.heard) == 1
    if isinstance(refused, RequestRefused):
        assert refused.parameter == error.get("param", "")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>" + CONTENT.encode(), id="HTML"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"error":null}', id="no error"),
        pytest.param(b'{"error":"' + CONTENT.encode() + b'"}', id="a text"),
        pytest.param(b'{"error":{"code":7,"param":[],"message":{}}}', id="no names"),
        pytest.param(
            json.dumps({"error": {"code": f"see {CONTENT}", "param": CONTENT}}).encode(),
            id="content for names",
        ),
        pytest.param(b'{"error":{"code":"\xff"}}', id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
    ],
)
@pytest.mark.parametrize("status", [400, 503])
def test_any_body_of_an_error_will_do(server: Server, status: int, body: bytes) -> None:
    server.answers = [Answer(status, body)]
    assert str(status) in str(refusal(new_client(server.url)))


@pytest.mark.parametrize("status", [204, 206, 301, 302, 303, 307, 308])
def test_a_redirect_is_a_transient_error_and_is_not_followed(server: Server, status: int) -> None:
    """Nobody else is sent the key; and it says nothing of the kind that was asked for."""
    server.answers = [Answer(status, b"", {"Location": f"{server.url}/elsewhere"}), Answer()]
    error = refusal(new_client(server.url, max_attempts=1))
    assert {heard.path for heard in server.heard} == {"/v1/charges?limit=100"}
    assert type(error) is ForeignAnswer


# ---- bodies


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>maintenance</html>", id="HTML"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"null", id="null"),
        pytest.param(b"7", id="a number"),
        pytest.param(b'{"data":[],"has_more":fal', id="cut off"),
        pytest.param(b'{"data":[]}', id="no has_more"),
        pytest.param(b'{"data":[],"has_more":null}', id="has_more null"),
        pytest.param(b'{"data":[],"has_more":"no"}', id="has_more a text"),
        pytest.param(b'{"has_more":false}', id="no data"),
        pytest.param(b'{"data":null,"has_more":false}', id="data null"),
        pytest.param(b'{"data":{},"has_more":false}', id="data an object"),
        pytest.param(b'{"data":[{"object":"charge"}],"has_more":false}', id="no id"),
        pytest.param(b'{"data":[{"id":"ch_1"},{"id":""}],"has_more":false}', id="empty id"),
        pytest.param(b'{"data":[{"id":7}],"has_more":false}', id="id a number"),
        pytest.param(b'{"data":["ch_1"],"has_more":false}', id="ids alone"),
        pytest.param(b'{"data":[[]],"has_more":false}', id="arrays"),
        pytest.param(b'{"data":[{"id":"\xff"}],"has_more":false}', id="not UTF-8"),
        pytest.param(b'{"data":' + b"[" * 100_000 + b"}", id="nested too deep"),
    ],
)
def test_a_page_that_is_none_is_one_clear_transient_error(server: Server, body: bytes) -> None:
    server.answers = [Answer(body=body)]
    error = refusal(new_client(server.url))
    assert type(error) is ForeignAnswer
    assert error.retryable
    assert "api_base_url" in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"ch_1"', b'{"id":"\xff"}'])
def test_a_single_read_that_is_no_object_is_one_clear_transient_error(
    server: Server, body: bytes
) -> None:
    server.answers = [Answer(body=body)]
    client = new_client(server.url)
    with pytest.raises(TransientSourceError, match=r"charges\.get.*api_base_url"):
        client.object(new_request(), "/v1/charges", "ch_1")
    with pytest.raises(TransientSourceError, match=r"account\.get.*api_base_url"):
        client.account_id(new_request())
    assert len(server.heard) == 6  # each as often as max_attempts says


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"object":"list","data":[', b"null"])
@pytest.mark.parametrize("method", ["list", "get", "events", "account", "lines"])
def test_a_success_without_json_is_asked_for_again(
    server: Server, method: str, body: bytes
) -> None:
    """Whatever is asked for: it is a proxy's page, or was cut off, and no state of an object."""
    good = b'{"id":"in_1","object":"list","data":[],"has_more":false}'
    server.answers = [Answer(body=body), Answer(body=body), Answer(body=good)]
    client, request = new_client(server.url), new_request()
    calls: dict[str, Callable[[], object]] = {
        "list": lambda: client.page(request, "/v1/charges"),
        "get": lambda: client.object(request, "/v1/invoices", "in_1"),
        "events": lambda: list(read_windows(client, request, 0)),
        "account": lambda: client.account_id(request),
        "lines": lambda: client.page(request, "/v1/invoices/in_1/lines", owner_id="in_1"),
    }
    calls[method]()
    assert (request.usage.api_calls, request.usage.retries) == (3, 2)


def event(kind: str, event_type: str = "x.updated", **members: Any) -> dict[str, Any]:
    changed = {"object": kind, "id": f"{kind}_1", **members}
    return {"id": "evt_1", "type": event_type, "created": 5, "data": {"object": changed}}


@pytest.mark.parametrize(
    ("told", "changed"),
    [
        pytest.param(event("invoice", "invoice.upcoming"), [], id="preview with an id"),
        pytest.param(event("invoice", "invoice.upcoming", id=None), [], id="preview without one"),
        pytest.param(event("invoice"), ["invoice_1"], id="invoice"),
        pytest.param(
            event("payment_intent", latest_charge="ch_1"), ["payment_intent_1", "ch_1"], id="intent"
        ),
        pytest.param(
            event("payment_intent", latest_charge={"id": "ch_1"}),
            ["payment_intent_1", "ch_1"],
            id="expanded",
        ),
        pytest.param(
            event("payment_intent", charges={"data": [{"id": "ch_2"}, {"id": "ch_1"}]}),
            ["payment_intent_1", "ch_2", "ch_1"],
            id="intent before 2022-11-15",
        ),
        pytest.param(event("payment_intent", charges=[]), ["payment_intent_1"], id="no charge"),
        pytest.param(event("refund", charge="ch_1"), ["refund_1", "ch_1"], id="refund"),
        pytest.param(event("dispute", charge=None), ["dispute_1"], id="dispute"),
    ],
)
def test_an_event_tells_of_what_is_there_and_of_its_charges(
    server: Server, told: dict[str, Any], changed: list[str]
) -> None:
    page = {"object": "list", "data": [told], "has_more": False}
    server.answers = [Answer(body=json.dumps(page).encode())]
    [window] = read_windows(new_client(server.url), new_request(), 0)
    assert [each.object_id for each in window.events] == changed


OBJECT_TEXTS = {
    "numbers": '{"id":"a","n":1.10,"e":1e5,"E":1.5E+3,"z":-0,"big":12345678901234567890}',
    "order": '{ "z":1 ,\n\t"id" : "b","a" : {"y":[ 1,2 ],"x":null} }',
    "escapes": '{"id":"c","t":"\\u00e9\\/\\ud83e\\udd86\\u2028\\n\\"","u":"é🦆\u2028"}',
    "duplicates": '{"id":"d","a":1,"a":2}',
    "brackets": '{"id":"e","t":"]}],[{","has_more":true,"data":[{"id":"inner"}]}',
    "surrogate": '{"id":"f","t":"a\\ud800b"}',
}


@pytest.mark.parametrize("text", OBJECT_TEXTS.values(), ids=OBJECT_TEXTS.keys())
def test_objects_are_kept_byte_for_byte(server: Server, text: str) -> None:
    around = '{"id":"before"}'
    page = '{ "object":"list", "data" : [%s ,\n %s,%s ] ,"has_more":true,"url":"/v1/charges"}'
    server.answers = [
        Answer(body=(page % (around, text, around)).encode()),
        Answer(body=text.encode()),
    ]
    client = new_client(server.url)
    found = client.page(new_request(), "/v1/charges")
    assert [as_text(one) for one, _ in found.objects] == [around, text, around]
    assert found.has_more is True
    assert as_text(client.object(new_request(), "/v1/charges", "any")[0]) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)
json_objects = st.dictionaries(
    st.sampled_from(["data", "has_more", "id", "a", "\u2028", "é"]), json_values, max_size=4
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    values=st.lists(json_objects, max_size=5),
    is_ascii=st.booleans(),
    indent=st.sampled_from([2, None]),
)
def test_a_listed_object_has_the_text_of_a_single_read(
    server: Server, values: list[dict[str, Any]], is_ascii: bool, indent: int | None
) -> None:
    """Stripe indents its answers: a list's objects lie deeper."""
    page: dict[str, Any] = {
        "object": "list",
        "data": [value | {"id": "x"} for value in values],
        "has_more": False,
    }
    body = json.dumps(page, indent=indent, ensure_ascii=is_ascii)
    server.answers = [Answer(body=body.encode())]
    found = new_client(server.url).page(new_request(), "/v1/charges").objects
    expected = [json.dumps(value, indent=indent, ensure_ascii=is_ascii) for value in page["data"]]
    assert [as_text(text) for text, _ in found] == expected
    assert [value for _, value in found] == page["data"]


@pytest.mark.parametrize(
    "path", ["/v1/products", "/v1/customers", "/v1/prices", "/v1/subscriptions"]
)
def test_the_sandbox_is_read_byte_for_byte(account: Sandbox, path: str) -> None:
    client = new_client(account.base_url)
    page = client.page(new_request(), path)
    assert page.objects
    for listed, value in page.objects[:8]:
        url = f"{account.base_url}{path}/{value['id']}"
        raw = requests.get(url, auth=(STRIPE_KEY, ""), timeout=10).text
        read, again = client.object(new_request(), path, value["id"])
        assert as_text(read) == raw
        assert as_text(listed) == raw.strip()
        assert json.loads(raw) == value == again


# ---- what is sent


def test_key_version_and_account_are_sent(server: Server) -> None:
    client = new_client(server.url)
    client.page(new_request(), "/v1/charges", {"created[gte]": 5}, limit=7)
    connected = new_client(server.url, stripe_account="acct_7", api_version="2025-01-01.any")
    connected.page(new_request(), "/v1/charges")
    own, other = server.heard
    assert own.path == "/v1/charges?limit=7&created%5Bgte%5D=5"
    expected = base64.b64encode(f"{STRIPE_KEY}:".encode()).decode()
    assert own.headers["authorization"] == f"Basic {expected}"
    assert own.headers["stripe-version"] == API_VERSION
    assert "stripe-account" not in own.headers
    assert other.headers["stripe-version"] == "2025-01-01.any"
    assert other.headers["stripe-account"] == "acct_7"


def test_the_account_is_none_when_the_key_may_not_say(server: Server) -> None:
    server.answers = [
        Answer.error(403, message="Having the 'rak_accounts_kyc_basic_read' permission"),
        Answer(body=b'{"id":"acct_7","object":"account"}'),
        Answer(body=b'{"object":"account"}'),
    ]
    client = new_client(server.url)
    assert [client.account_id(new_request()) for _ in range(3)] == [None, "acct_7", None]


def test_stripes_clock_is_that_of_its_answers(server: Server) -> None:
    server.answers = [
        Answer(headers={"Date": "Wed, 21 Oct 2037 07:28:00 GMT"}),
        Answer(headers={"Date": "yesterday"}),
        Answer(),
    ]
    client = new_client(server.url)
    pages = [client.page(new_request(), "/v1/charges") for _ in range(3)]
    assert pages[0].served_at is not None
    assert pages[0].served_at.isoformat() == "2037-10-21T07:28:00+00:00"
    assert [page.served_at for page in pages[1:]] == [None, None]
    assert client.served_at == pages[0].served_at


def test_threads_share_a_client(server: Server) -> None:
    client, request = new_client(server.url), new_request()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.page, request, "/v1/charges") for _ in range(64)]
        assert [call.result().has_more for call in calls] == [False] * 64
    assert request.usage.api_calls == len(server.heard) == 64


# ---- the listing

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


bursts = st.tuples(
    st.integers(1, 2_000_000),  # seconds after the last one
    st.sampled_from([1, 1, 60, 3_600, 5_000_000]),  # seconds that it lasts
    st.integers(0, 250),  # objects
)
times = st.builds(
    lambda bursts, seed: _created(bursts, random.Random(seed)),
    st.lists(bursts, max_size=6),
    st.integers(0, 2**32),
)


def _created(bursts: Sequence[tuple[int, int, int]], choice: random.Random) -> list[int]:
    created, at = [], 1_300_000_000
    for gap, lasts, count in bursts:
        at += gap
        created += [at + choice.randrange(lasts) for _ in range(count)]
        at += lasts
    return created


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
