"""What Gmail's client makes of every fault of the API and of the way there."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.oauth2.credentials import Credentials

from landfall_sandbox.controls import Sandbox
from loaders.errors import AskedToPause, ForeignAnswer, SourceError, TransientSourceError
from loaders.sources.contract import FetchRequest
from loaders.sources.gmail import client as client_module
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.options import GmailConfig
from loaders.sources.pacing import TokenBucket
from loaders.sources.refusals import NotFound, RequestRefused

from .stripe_client.conftest import Clock, Waits, new_request
from .stripe_client.test_retries import PAUSES

pytestmark = pytest.mark.timeout(60)

ATTEMPTS = 3
HTML = "<!doctype html><title>Sign in as ann.content@example.com</title>"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """No time passes but what is waited."""
    monkeypatch.setattr(Waits, "clock", clock := Clock())
    monkeypatch.setattr(
        client_module, "TokenBucket", lambda units, largest: TokenBucket(units, largest, clock)
    )
    return clock


def new_client(
    base_url: str, credentials: Credentials | None = None, **options: Any
) -> GmailClient:
    config = GmailConfig(
        **{
            "api_base_url": base_url,
            "max_attempts": ATTEMPTS,
            "backoff_seconds": 0.001,
            "timeout_seconds": 10.0,
            "units_per_minute": 10_000_000,
            **options,
        }
    )
    return GmailClient("acct1", credentials or Credentials(token="any-token"), config)


def fault(sandbox: Sandbox, method: str, times: int | None = None, **action: Any) -> None:
    sandbox.set_faults([{"match": {"method": method}, "times": times, "action": action}])


def failure(
    call: Callable[[FetchRequest], object], request: FetchRequest | None = None
) -> SourceError:
    """What a call ends with: one line without content."""
    with pytest.raises(SourceError) as raised:
        call(request or new_request())
    message = str(raised.value)
    assert message.startswith("gmail: ")
    assert "\n" not in message
    assert "ann.content" not in message
    return raised.value


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What the API does, and what the call ends with."""

    action: dict[str, Any]
    said: str
    kind: type[SourceError] = SourceError


def of_status(status: int, reason: str = "") -> dict[str, Any]:
    return {"status": status, "reason": reason, "message": "Not for ann.content@example.com"}


PERMANENT = {
    "400": Refusal(of_status(400, "invalidArgument"), "page on errors", RequestRefused),
    "401": Refusal(of_status(401, "authError"), "run.py auth gmail"),
    "403 scope": Refusal(of_status(403, "insufficientPermissions"), "gmail.readonly"),
    "403 API is off": Refusal(of_status(403, "accessNotConfigured"), "enable the Gmail API"),
    "403 domain policy": Refusal(of_status(403, "domainPolicy"), "administrator"),
    "403 delegation": Refusal(of_status(403, "forbidden"), "may not open this mailbox"),
    "403 without a reason": Refusal({"status": 403, "body": HTML}, "refused with 403 unknown"),
    "404": Refusal(of_status(404, "notFound"), "not found", NotFound),
    "410": Refusal(of_status(410, "gone"), "refused with 410 gone", RequestRefused),
    "412": Refusal(of_status(412, "conditionNotMet"), "refused with 412", RequestRefused),
}
OF_ONE_OBJECT = ("messages.get", "threads.get", "messages.attachments.get")


@pytest.mark.parametrize("method", [*OF_ONE_OBJECT, "getProfile", "messages.list"])
@pytest.mark.parametrize("case", PERMANENT.values(), ids=PERMANENT.keys())
def test_a_gmail_refusal_is_final_and_says_what_to_do(
    sandbox: Sandbox, case: Refusal, method: str
) -> None:
    """Of one object it may be the object's, whatever its status; see Fetcher."""
    fault(sandbox, method, **case.action)
    client = new_client(sandbox.base_url)
    error = failure(lambda request: METHODS[method][0](client, request, sandbox.live_ids()[0]))
    is_of_object = method in OF_ONE_OBJECT and case.kind is SourceError
    assert type(error) is (RequestRefused if is_of_object else case.kind)
    assert not error.retryable
    assert case.said in str(error)
    assert sandbox.stats()["requests"] == {method: 1}


@pytest.mark.parametrize(
    "method",
    [*OF_ONE_OBJECT, "getProfile", "labels.list", "messages.list", "history.list"],
)
@pytest.mark.parametrize("reason", ["failedPrecondition", ""])
def test_a_failed_precondition_is_asked_for_again_and_is_final_then(
    sandbox: Sandbox, method: str, reason: str
) -> None:
    """Google gives it to one call in a hundred that succeeds a moment later."""
    call, good = METHODS[method]
    action = of_status(400, reason)
    if not reason:
        action = {"status": 400, "json": {"error": {"status": "FAILED_PRECONDITION"}}}
    match = {"match": {"method": method}}
    sandbox.set_faults(
        [{**match, "times": ATTEMPTS - 1, "action": action}, {**match, "action": {"json": good}}]
    )
    client, request = new_client(sandbox.base_url), new_request()
    call(client, request, sandbox.live_ids()[0])
    assert request.usage.retries == ATTEMPTS - 1

    fault(sandbox, method, **action)
    sandbox.reset_stats()
    error = failure(lambda request: call(client, request, sandbox.live_ids()[0]))
    assert type(error) is RequestRefused
    assert not error.retryable
    assert "the mail service is off" in str(error)
    assert sandbox.stats()["requests"] == {method: ATTEMPTS}


TRANSIENT = {
    "403 rate": Refusal(of_status(403, "rateLimitExceeded"), "403 rateLimitExceeded"),
    "403 user rate": Refusal(of_status(403, "userRateLimitExceeded"), "403 userRateLimit"),
    "403 quota": Refusal(of_status(403, "quotaExceeded"), "403 quotaExceeded"),
    "403 daily limit": Refusal(of_status(403, "dailyLimitExceeded"), "403 dailyLimitExceeded"),
    "408": Refusal(of_status(408), "408"),
    "409": Refusal(of_status(409, "aborted"), "409 aborted"),
    "429": Refusal(of_status(429, "rateLimitExceeded"), "429 rateLimitExceeded"),
    "429 of a proxy": Refusal({"status": 429, "body": HTML}, "429 unknown"),
    "500": Refusal(of_status(500), "500 internalError"),
    "502 of a proxy": Refusal({"status": 502, "body": HTML}, "502 unknown"),
    "503": Refusal(of_status(503), "503 backendError"),
    "504": Refusal(of_status(504), "504"),
    "cut off": Refusal({"truncate": True}, "IncompleteRead"),
    "reset": Refusal({"reset": True}, "ConnectionResetError"),
}


@pytest.mark.parametrize("case", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_what_may_pass_of_gmail_is_tried_again_and_ends(sandbox: Sandbox, case: Refusal) -> None:
    message_id = sandbox.live_ids()[0]
    client = new_client(sandbox.base_url)
    fault(sandbox, "messages.get", times=ATTEMPTS - 1, **case.action)
    request = new_request()
    assert json.loads(client.message(request, message_id))["id"] == message_id
    assert (request.usage.api_calls, request.usage.retries) == (ATTEMPTS, ATTEMPTS - 1)

    fault(sandbox, "messages.get", **case.action)
    sandbox.reset_stats()
    error = failure(lambda request: client.message(request, message_id))
    assert type(error) is TransientSourceError
    assert error.retryable
    assert f"messages.get failed {ATTEMPTS} times" in str(error)
    assert case.said in str(error)
    assert "run again later" in str(error)
    assert sandbox.stats()["requests"] == {"messages.get": ATTEMPTS}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", [*PAUSES, "text"])
def test_the_pause_that_gmail_asks_for_is_honoured_where_the_run_has_the_time(
    sandbox: Sandbox, status: int, form: str
) -> None:
    """In whatever form; else the run ends at once, and no attempt is spent on it."""
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=900)
    action: dict[str, Any] = (
        {"message": f"User-rate limit exceeded.  Retry after {until:%Y-%m-%dT%H:%M:%S.123Z}"}
        if form == "text"
        else {"retry_after": PAUSES[form](until)}
    )
    fault(sandbox, "getProfile", times=1, status=status, **action)
    waits = Waits()
    client = new_client(sandbox.base_url)
    client.profile(new_request(waits, seconds_left=lambda: 1_000.0))
    assert sum(waits.seconds) == pytest.approx(900, abs=2)

    fault(sandbox, "getProfile", status=status, **action)
    sandbox.reset_stats()
    for method in ("getProfile", "messages.get"):
        fault(sandbox, method, status=status, **action)
        waits, call = Waits(), METHODS[method][0]
        request = new_request(waits, seconds_left=lambda: 600.0)
        error = failure(functools.partial(lambda call, r: call(client, r, "m"), call), request)
        assert type(error) is AskedToPause
        assert error.retryable
        assert error.exit_code == 75
        assert sum(waits.seconds) < 1  # nor does another thread wait for it
        assert f"gmail: {method}: asked to pause for 0:1" in str(error)
    assert sandbox.stats()["requests"] == {"getProfile": 1, "messages.get": 1}


@pytest.mark.parametrize("retry_after", ["soon", "-5", "nan", "inf", "Wed, 99 Nov 2026"])
def test_what_asks_for_no_pause_leaves_the_back_off(sandbox: Sandbox, retry_after: str) -> None:
    fault(sandbox, "getProfile", times=1, status=503, retry_after=retry_after)
    waits = Waits()
    new_client(sandbox.base_url).profile(new_request(waits))
    assert sum(waits.seconds) <= 0.01


def new_user(base_url: str) -> Credentials:
    """Who needs a token first."""
    return Credentials(
        token=None,
        refresh_token="any",
        token_uri=f"{base_url}/token",
        client_id="client-1",
        client_secret="any",
    )


@pytest.mark.parametrize(
    "action",
    [
        {"status": 502, "body": HTML},
        {"status": 403, "body": HTML},
        {"status": 200, "body": HTML},
        {"status": 200, "json": []},
        {"status": 200, "json": "a token"},
        {"status": 200, "json": {"access_token": None}},
        {"status": 200, "json": {"access_token": "a", "expires_in": "soon"}},
        {"status": 400, "json": {"message": "bad request"}},
        {"status": 403, "json": {"error": "Forbidden"}},
        {"status": 429, "reason": "rate_limit_exceeded"},
        {"status": 500, "reason": "internal_failure"},
        {"status": 400, "reason": "temporarily_unavailable"},
        {"status": 503, "reason": "invalid_grant"},
    ],
    ids=str,
)
def test_a_token_endpoint_that_refuses_nothing_is_asked_again(
    sandbox: Sandbox, action: dict[str, Any]
) -> None:
    """Only an OAuth error says that a grant is gone."""
    fault(sandbox, "token", times=ATTEMPTS - 1, **action)
    client = new_client(sandbox.base_url, new_user(sandbox.base_url))
    request = new_request()
    assert client.profile(request)["historyId"]
    assert request.usage.retries == ATTEMPTS - 1

    fault(sandbox, "token", **action)
    client = new_client(sandbox.base_url, new_user(sandbox.base_url))
    error = failure(client.profile)
    assert type(error) is ForeignAnswer
    assert f"failed {ATTEMPTS} times, last with {action['status']} of the token endpoint" in str(
        error
    )
    assert "authorise" not in str(error)


@pytest.mark.parametrize(
    ("status", "body", "named"),
    [
        (400, {"error": "invalid_grant"}, "401 invalid_grant: the token has expired"),
        (401, {"error": "deleted_client"}, "the OAuth client was deleted"),
        (400, {"error": "access_denied"}, "401 access_denied: "),
        (
            400,
            {"error": "invalid_grant", "error_subtype": "invalid_rapt"},
            "401 invalid_rapt: the organisation wants its people to sign in again",
        ),
        (
            400,
            {"error": "invalid_grant", "error_description": "reauth related error (rapt_required)"},
            "401 invalid_rapt: ",
        ),
    ],
)
def test_an_oauth_error_is_final_and_said_for_what_it_is(
    sandbox: Sandbox, status: int, body: dict[str, str], named: str
) -> None:
    fault(sandbox, "token", status=status, json=body)
    error = failure(new_client(sandbox.base_url, new_user(sandbox.base_url)).profile)
    assert type(error) is SourceError
    assert named in str(error)
    assert sandbox.stats()["requests"] == {"token": 1}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        '{"error": null}',
        '{"error": []}',
        '{"error": "unavailable"}',
        '{"error": {"errors": null, "details": null}}',
        '{"error": {"errors": ["x"]}}',
        '{"error": {"errors": [], "details": [7], "status": {}}}',
        '{"error": {"message": 7}}',
    ],
)
@pytest.mark.parametrize("status", [400, 403, 503])
def test_gmail_s_error_may_have_any_body(sandbox: Sandbox, status: int, body: str) -> None:
    fault(sandbox, "getProfile", status=status, body=body, content_type="application/json")
    error = failure(new_client(sandbox.base_url).profile)
    assert error.retryable is (status == 503)
    assert str(status) in str(error)


METHODS: dict[str, tuple[Callable[[GmailClient, FetchRequest, str], object], dict[str, Any]]] = {
    "getProfile": (lambda client, request, _: client.profile(request), {"historyId": "7"}),
    "labels.list": (lambda client, request, _: client.labels(request), {"labels": []}),
    "messages.list": (
        lambda client, request, _: list(client.message_refs(request)),
        {"resultSizeEstimate": 0},
    ),
    "history.list": (
        lambda client, request, _: list(client.history(request, "1")),
        {"historyId": "7"},
    ),
    "messages.get": (lambda client, request, key: client.message(request, key), {"id": "m"}),
    "threads.get": (
        lambda client, request, key: list(client.thread_messages(request, key)),
        {"messages": []},
    ),
    "messages.attachments.get": (
        lambda client, request, key: client.attachment(request, key, "a"),
        {"size": 0, "data": ""},
    ),
}
JSON = "application/json; charset=UTF-8"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("body", "content_type"),
    [(HTML, "text/html"), (HTML, JSON), ("", JSON), ('{"id": "m", "labels": [', JSON)],
    ids=["HTML", "HTML called JSON", "empty", "cut off"],
)
def test_a_success_of_gmail_without_json_is_asked_for_again(
    sandbox: Sandbox, method: str, body: str, content_type: str
) -> None:
    """Above all it is no message: stored as a dead letter, it would never be read again."""
    call, good = METHODS[method]
    bad: dict[str, Any] = {"status": 200, "body": body, "content_type": content_type}
    client, request = new_client(sandbox.base_url), new_request()
    message_id = sandbox.live_ids()[0]
    match = {"match": {"method": method}}
    sandbox.set_faults(
        [{**match, "times": ATTEMPTS - 1, "action": bad}, {**match, "action": {"json": good}}]
    )
    call(client, request, message_id)
    assert (request.usage.api_calls, request.usage.retries) == (ATTEMPTS, ATTEMPTS - 1)

    fault(sandbox, method, **bad)
    error = failure(lambda request: call(client, request, message_id))
    assert type(error) is ForeignAnswer
    assert error.retryable
    assert f"{method} answered something else than the API's JSON" in str(error)


IDS = ["a/b", "a+b", "a b", "50%", "what?", "#1", "größe", "🦆", "..", "a:b", "{x}"]


@pytest.mark.parametrize("object_id", IDS)
def test_an_id_is_escaped_as_google_s_client_does(sandbox: Sandbox, object_id: str) -> None:
    """The rules answer for that id of that method alone; anything else is refused."""
    client = new_client(sandbox.base_url)
    for method in ("messages.get", "threads.get", "messages.attachments.get"):
        call, good = METHODS[method]
        match = {"method": method, "id": object_id}
        sandbox.set_faults([{"match": match, "action": {"json": good}}])
        call(client, new_request(), object_id)


@pytest.mark.parametrize("body", [HTML, "", "{}", '{"message": "no Route matched"}'])
def test_a_404_that_is_not_gmail_s_is_no_deletion(sandbox: Sandbox, body: str) -> None:
    fault(sandbox, "messages.get", status=404, body=body, content_type="application/json")
    client = new_client(sandbox.base_url)
    error = failure(lambda request: client.message(request, sandbox.live_ids()[0]))
    assert type(error) is ForeignAnswer
    assert "answered something else" in str(error)


@contextlib.contextmanager
def nobody_accepts() -> Iterator[str]:
    """An address whose connections are never made: the queue of its socket is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        host, port = listener.getsockname()
        yield f"http://{host}:{port}"


def test_a_connection_to_gmail_that_is_never_made_ends_in_time() -> None:
    with nobody_accepts() as base_url:
        client = new_client(base_url, timeout_seconds=0.1)
        began = time.monotonic()
        error = failure(client.profile)
    assert type(error) is TransientSourceError
    assert "TimeoutError" in str(error)
    assert time.monotonic() - began < 10


def test_an_answer_of_gmail_that_does_not_come_ends_in_time(sandbox: Sandbox) -> None:
    fault(sandbox, "getProfile", latency=1.0)
    client = new_client(sandbox.base_url, timeout_seconds=0.1)
    request = new_request()
    error = failure(client.profile, request)
    assert type(error) is TransientSourceError
    assert "TimeoutError" in str(error)
    assert request.usage.api_calls == ATTEMPTS


def test_a_refused_connection_to_gmail_can_be_tried_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        client = new_client(f"http://127.0.0.1:{taken.getsockname()[1]}")
        error = failure(client.profile)
    assert type(error) is TransientSourceError
    assert "ConnectionRefusedError" in str(error)


def listed(sandbox: Sandbox, *pages: dict[str, Any]) -> list[str]:
    """Ids that the client lists of these pages, which come again and again after the last."""
    match = {"method": "messages.list"}
    rules = [{"match": match, "action": {"json": page}} for page in pages[:-1]]
    rules.append({"match": match, "action": {"json": pages[-1]}, "times": None})
    sandbox.set_faults(rules)
    client = new_client(sandbox.base_url)
    return [ref["id"] for page in client.message_refs(new_request()) for ref in page]


def test_an_empty_page_of_gmail_is_not_the_end(sandbox: Sandbox) -> None:
    last = {"messages": [{"id": "b"}]}
    first = {"messages": [{"id": "a"}], "nextPageToken": "t1"}
    assert listed(sandbox, first, {"nextPageToken": "t2"}, last) == ["a", "b"]


@pytest.mark.parametrize("token", ["", None])
def test_an_empty_page_token_of_gmail_is_the_end(sandbox: Sandbox, token: str | None) -> None:
    assert listed(sandbox, {"messages": [{"id": "a"}], "nextPageToken": token}) == ["a"]


@pytest.mark.parametrize("token", [["t"], {"t": 1}, 7])
def test_a_page_token_of_gmail_that_is_no_text_is_no_answer(sandbox: Sandbox, token: Any) -> None:
    with pytest.raises(TransientSourceError, match="answered something else"):
        listed(sandbox, {"messages": [{"id": "a"}], "nextPageToken": token})


@pytest.mark.parametrize("method", ["messages.list", "history.list"])
def test_the_json_of_somebody_else_is_no_empty_answer(sandbox: Sandbox, method: str) -> None:
    fault(sandbox, method, json={"error": "sign in"})
    client = new_client(sandbox.base_url)
    read: dict[str, Callable[[FetchRequest], Iterator[object]]] = {
        "messages.list": client.message_refs,
        "history.list": lambda request: client.history(request, "1"),
    }
    error = failure(lambda request: list(read[method](request)))
    assert isinstance(error, TransientSourceError)
    assert "answered something else" in str(error)


def test_page_tokens_of_gmail_that_go_round_are_noticed(sandbox: Sandbox) -> None:
    pages = [{"messages": [{"id": key}], "nextPageToken": f"to-{key}"} for key in "abca"]
    with pytest.raises(TransientSourceError, match="repeats a page token"):
        listed(sandbox, *pages)
    assert sandbox.stats()["requests"]["messages.list"] == 4
