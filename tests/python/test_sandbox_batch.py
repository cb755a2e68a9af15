"""The sandbox's batch endpoint, as the real Google client uses it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, TypeAlias

import httplib2
import pytest
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError
from googleapiclient.http import BatchHttpRequest

from landfall_sandbox.controls import Sandbox

Outcome: TypeAlias = dict[str, Any] | HttpError


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    with Sandbox(size=250, seed=5) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared: Sandbox) -> Iterator[Sandbox]:
    shared.reset_stats()
    yield shared
    shared.set_faults([])
    shared.schedule([])
    shared.settings(latency=0, quota=None, tokens_expired=False)


def users(sandbox: Sandbox) -> Any:
    return build(
        "gmail",
        "v1",
        credentials=Credentials("any"),
        client_options={"api_endpoint": sandbox.base_url},
        static_discovery=True,
    ).users()


def batch_uri(sandbox: Sandbox) -> str:
    return f"{sandbox.base_url}/batch/gmail/v1"


def run_batch(sandbox: Sandbox, requests: list[Any]) -> list[Outcome]:
    """What the client makes of each part, in the order of the requests."""
    outcomes: dict[str, Outcome] = {}

    def keep(request_id: str, answer: dict[str, Any], error: HttpError | None) -> None:
        outcomes[request_id] = error or answer

    batch = BatchHttpRequest(callback=keep, batch_uri=batch_uri(sandbox))
    for number, request in enumerate(requests):
        batch.add(request, request_id=str(number))
    batch.execute()
    return [outcomes[str(number)] for number in range(len(requests))]


def gets(sandbox: Sandbox, ids: list[str], **parameters: Any) -> list[Any]:
    messages = users(sandbox).messages()
    return [messages.get(userId="me", id=message_id, **parameters) for message_id in ids]


def statuses(outcomes: list[Outcome]) -> list[int]:
    return [each.status_code if isinstance(each, HttpError) else 200 for each in outcomes]


def post(sandbox: Sandbox, body: str, content_type: str) -> tuple[int, str]:
    headers = {"content-type": content_type, "authorization": "Bearer any"}
    response, content = httplib2.Http().request(batch_uri(sandbox), "POST", body, headers)
    return response.status, content.decode()


def test_each_part_gets_the_answer_of_a_call_of_its_own(sandbox: Sandbox) -> None:
    ids = sandbox.live_ids()[:50]
    alone = [request.execute() for request in gets(sandbox, ids, format="raw")]
    assert run_batch(sandbox, gets(sandbox, ids, format="raw")) == alone


def test_bodies_beyond_ascii_arrive_unharmed(sandbox: Sandbox) -> None:
    labels = users(sandbox).labels().list(userId="me")
    (answer,) = run_batch(sandbox, [labels])
    assert answer == labels.execute()
    assert any(not label["name"].isascii() for label in answer["labels"])


def test_parts_may_be_of_any_read_method(sandbox: Sandbox) -> None:
    api, (message_id,) = users(sandbox), sandbox.live_ids()[:1]
    requests = [
        api.getProfile(userId="me"),
        api.messages().list(userId="me", maxResults=3, q="in:inbox -is:unread"),
        api.messages().get(userId="me", id=message_id, format="metadata", metadataHeaders=["To"]),
        api.messages().get(userId="me", id="feedfeedfeedfeed"),
    ]
    assert statuses(outcomes := run_batch(sandbox, requests)) == [200, 200, 200, 404]
    assert outcomes[:3] == [request.execute() for request in requests[:3]]
    assert sandbox.stats()["requests"] == {"getProfile": 2, "messages.list": 2, "messages.get": 3}


def test_every_part_costs_units_and_is_refused_by_itself(sandbox: Sandbox) -> None:
    sandbox.settings(quota={"units_per_minute": 50, "costs": {"messages.get": 20}})
    outcomes = run_batch(sandbox, gets(sandbox, sandbox.live_ids()[:4]))
    assert statuses(outcomes)[:2] == [200, 200]
    assert sorted(statuses(outcomes)[2:]) == [403, 429]
    stats = sandbox.stats()
    assert stats == {"requests": {"messages.get": 4}, "units": 40, "refused": 2}


def test_latency_comes_once_a_batch(sandbox: Sandbox) -> None:
    requests = gets(sandbox, sandbox.live_ids()[:20], format="minimal")
    sandbox.settings(latency=0.3)
    began = time.monotonic()
    assert statuses(run_batch(sandbox, requests)) == [200] * 20
    assert 0.3 <= time.monotonic() - began < 2


def test_faults_befall_parts(sandbox: Sandbox) -> None:
    ids = sandbox.live_ids()[:3]
    sandbox.set_faults([{"match": {"id": ids[1]}, "action": {"status": 503, "retry_after": 7}}])
    outcomes = run_batch(sandbox, gets(sandbox, ids))
    assert statuses(outcomes) == [200, 503, 200]
    assert isinstance(outcomes[1], HttpError)
    assert outcomes[1].resp["retry-after"] == "7"


def test_a_part_without_an_answer_leaves_the_batch_without_one(sandbox: Sandbox) -> None:
    ids = sandbox.live_ids()[:2]
    # For ever: httplib2 sends a request without an answer again by itself.
    sandbox.set_faults([{"match": {"id": ids[1]}, "times": None, "action": {"drop": True}}])
    with pytest.raises((OSError, httplib2.HttpLib2Error)):
        run_batch(sandbox, gets(sandbox, ids))


def test_scheduled_changes_happen_between_parts(sandbox: Sandbox) -> None:
    sandbox.schedule(
        [{"after": {"method": "getProfile"}, "settings": {"quota": {"units_per_minute": 0}}}]
    )
    profile = users(sandbox).getProfile(userId="me")
    outcomes = run_batch(sandbox, [profile, profile, profile])
    assert statuses(outcomes)[0] == 200
    assert sorted(statuses(outcomes)[1:]) == [403, 429]


def test_parts_need_credentials_of_their_own_or_of_the_batch(sandbox: Sandbox) -> None:
    api = build(
        "gmail",
        "v1",
        http=httplib2.Http(),
        client_options={"api_endpoint": sandbox.base_url},
        static_discovery=True,
    ).users()
    profile = api.getProfile(userId="me")
    part = f"GET {profile.uri.removeprefix(sandbox.base_url)}\r\n\r\n"
    body = f"--b\r\nContent-Type: application/http\r\n\r\n{part}\r\n--b--"
    status, answer = post(sandbox, body, 'multipart/mixed; boundary="b"')
    assert status == 200
    assert "HTTP/1.1 200 OK\r\n" in answer
    headers = {"content-type": "multipart/mixed; boundary=b"}
    _, content = httplib2.Http().request(batch_uri(sandbox), "POST", body, headers)
    assert b"HTTP/1.1 401 Unauthorized\r\n" in content


def test_a_hundred_parts_are_answered_and_one_more_is_not(sandbox: Sandbox) -> None:
    ids = sandbox.live_ids()[:101]
    assert statuses(run_batch(sandbox, gets(sandbox, ids[:100]))) == [200] * 100
    sandbox.reset_stats()
    with pytest.raises(HttpError, match="at most 100") as raised:
        run_batch(sandbox, gets(sandbox, ids))
    assert raised.value.status_code == 400
    assert sandbox.stats()["requests"] == {}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("{}", "application/json"),
        ("", "multipart/mixed"),
        ("nothing of the kind", "multipart/mixed; boundary=b"),
        ("--b\r\nContent-Type: text/plain\r\n\r\nGET /\r\n--b--", "multipart/mixed; boundary=b"),
        ("--b\r\nContent-Type: application/http\r\n\r\n\r\n--b--", "multipart/mixed; boundary=b"),
    ],
    ids=["JSON", "no boundary", "no parts", "another type", "no request line"],
)
def test_a_malformed_batch_is_refused(sandbox: Sandbox, body: str, content_type: str) -> None:
    status, answer = post(sandbox, body, content_type)
    assert status == 400
    assert "batch" in answer


def test_only_get_requests_are_answered(sandbox: Sandbox) -> None:
    ids = sandbox.live_ids()[:1]
    trash = users(sandbox).messages().trash(userId="me", id=ids[0])
    assert statuses(run_batch(sandbox, [trash, *gets(sandbox, ids)])) == [404, 200]
