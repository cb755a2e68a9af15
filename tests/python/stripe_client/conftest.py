"""What these tests have in common."""

from __future__ import annotations

import dataclasses
import http.server
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import strategies as st

from landfall_sandbox.controls import Sandbox
from loaders.errors import SourceError
from loaders.objects.items import ObservationClock
from loaders.sources import rest
from loaders.sources.contract import FetchRequest, Usage
from loaders.sources.pacing import TokenBucket
from loaders.sources.stripe.client import StripeClient
from loaders.sources.stripe.options import StripeConfig
from loaders.warehouse.contents import Stored
from tests.python.conftest import STRIPE_KEY

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
