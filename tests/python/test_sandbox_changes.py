"""What changes in the sandbox while a client is at work."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth.exceptions
import google.oauth2.credentials
import pytest
from googleapiclient.discovery import build

from landfall_sandbox.controls import Sandbox, SandboxError
from landfall_sandbox.layout import USER_LABELS
from tests.python.test_sandbox import fetch_all, fetch_ids, get, raw_get, users

RAW = b"From: Ann <ann@example.com>\r\nSubject: one\r\nSubject: two\r\n\r\nhello\xff\r\n"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(size=30, seed=5) as sandbox:
        yield sandbox


def history_id(sandbox: Sandbox) -> str:
    return str(users(sandbox).getProfile(userId="me").execute()["historyId"])


def history(sandbox: Sandbox, start: str) -> list[dict[str, Any]]:
    return fetch_all(users(sandbox).history(), "history", startHistoryId=start)


def labels(sandbox: Sandbox) -> dict[str, str]:
    answer = users(sandbox).labels().list(userId="me").execute()
    return {label["id"]: label["name"] for label in answer["labels"]}


# ---- while requests are made


def test_scheduled_changes_come_after_the_nth_request_and_before_the_next(sandbox: Sandbox) -> None:
    first, second, third = sandbox.live_ids()[:3]
    sandbox.schedule(
        [
            {"after": {"method": "messages.get", "count": 2}, "changes": {"delete": [second]}},
            {"after": {"method": "messages.list"}, "changes": {"deliver": 1}},
        ]
    )
    get(sandbox, first)
    assert sandbox.scheduled() == [None, None]
    assert get(sandbox, second)["id"] == second
    assert raw_get(sandbox, f"messages/{second}")[0] == 404
    before = fetch_ids(sandbox, maxResults=500)
    assert before[:2] == [first, third]
    deleted, delivered = (outcome["affected"] for outcome in sandbox.scheduled() if outcome)
    assert deleted == {"delete": [second]}
    assert delivered["deliver"][0] in sandbox.live_ids(include_spam_trash=True)


def test_a_change_before_the_answer_shows_in_it(sandbox: Sandbox) -> None:
    gone = sandbox.live_ids()[0]
    after = {"method": "messages.get", "id": gone}
    sandbox.schedule([{"after": after, "changes": {"delete": [gone]}, "before_answer": True}])
    get(sandbox, sandbox.live_ids()[1])
    assert raw_get(sandbox, f"messages/{gone}")[0] == 404


def test_a_schedule_counts_from_its_setting_and_fires_once(sandbox: Sandbox) -> None:
    raw_get(sandbox, "profile")
    start = history_id(sandbox)
    sandbox.schedule([{"after": {"method": "*", "count": 2}, "changes": {"delete": 1}}])
    for _ in range(5):
        raw_get(sandbox, "profile")
    assert [list(record)[2] for record in history(sandbox, start)] == ["messagesDeleted"]
    sandbox.schedule([])
    assert sandbox.scheduled() == []


def test_a_schedule_changes_settings_too(sandbox: Sandbox) -> None:
    start = history_id(sandbox)
    sandbox.change(deliver=1)
    expired = {"history_expired_before": history_id(sandbox)}
    sandbox.schedule([{"after": {"method": "history.list"}, "settings": expired}])
    path = f"history?startHistoryId={start}"
    assert [raw_get(sandbox, path)[0] for _ in range(2)] == [200, 404]


def test_a_scheduled_change_that_cannot_be_is_told(sandbox: Sandbox) -> None:
    sandbox.schedule(
        [{"after": {"method": "getProfile"}, "changes": {"delete": ["1000000000000000"]}}]
    )
    assert raw_get(sandbox, "profile")[0] == 200
    assert sandbox.scheduled() == [{"error": "no such message: 1000000000000000"}]


@pytest.mark.parametrize(
    "step",
    [
        {},
        {"after": {"method": "getProfile"}},
        {"after": {"methd": "getProfile"}, "changes": {"deliver": 1}},
        {"after": {"method": "getProfile", "count": 0}, "changes": {"deliver": 1}},
        {"after": {"method": "getProfile"}, "changes": {"delivr": 1}},
        {"after": {"method": "getProfile"}, "settings": {"latncy": 1}},
    ],
)
def test_a_malformed_schedule_is_refused(sandbox: Sandbox, step: Any) -> None:
    with pytest.raises(SandboxError, match="400"):
        sandbox.schedule([step])


def test_a_slow_body_trickles_in_whole(sandbox: Sandbox) -> None:
    whole = raw_get(sandbox, "messages?maxResults=500")
    sandbox.set_faults([{"action": {"slow_body": 0.3}}])
    start = time.monotonic()
    assert raw_get(sandbox, "messages?maxResults=500") == whole
    assert time.monotonic() - start >= 0.3


def test_a_literal_body_can_be_bytes(sandbox: Sandbox) -> None:
    body = base64.b64encode(b'{"id": "\xe9"}').decode()
    sandbox.set_faults([{"action": {"body_base64": body, "content_type": "application/json"}}])
    request = users(sandbox).getProfile(userId="me")
    request.postproc = lambda response, content: content
    assert request.execute() == b'{"id": "\xe9"}'


# ---- labels


def test_labels_come_are_renamed_and_go(tmp_path: Path) -> None:
    with Sandbox(size=60, seed=5, state=tmp_path / "state.sqlite") as sandbox:
        created = {"id": "Label_9", "name": "Ärger"}
        sandbox.change(label_create=created, label_rename={"id": "Label_1", "name": "Customers"})
        expected = {**USER_LABELS, "Label_1": "Customers", "Label_9": "Ärger"}
        assert labels(sandbox).items() >= expected.items()
        kept = sandbox.live_ids()[0]
        sandbox.change(labels={"ids": [kept], "add": ["Label_9"]})
        assert fetch_ids(sandbox, q="label:ärger") == fetch_ids(sandbox, labelIds=["Label_9"])
        assert fetch_ids(sandbox, labelIds=["Label_9"]) == [kept]

        start = history_id(sandbox)
        touched = sandbox.change(label_delete="Label_9")["affected"]["label_delete"]
        assert touched == [kept]
        (record,) = history(sandbox, start)
        assert record["labelsRemoved"][0]["labelIds"] == ["Label_9"]
        assert record["messages"][0]["id"] == kept
        assert "Label_9" not in get(sandbox, kept, format="minimal").get("labelIds", [])
        assert raw_get(sandbox, "messages?labelIds=Label_9")[0] == 400
        assert raw_get(sandbox, "labels/Label_9")[0] == 404
        before = labels(sandbox)
    with Sandbox(state=tmp_path / "state.sqlite") as sandbox:
        assert labels(sandbox) == before
        with pytest.raises(SandboxError, match="not used again"):
            sandbox.change(label_create=created)


def test_a_deleted_label_is_on_no_message_restored_or_delivered_later(sandbox: Sandbox) -> None:
    wearer = sandbox.live_ids()[0]
    sandbox.change(labels={"ids": [wearer], "add": ["Label_3"]}, delete=[wearer])
    sandbox.change(label_delete=list(USER_LABELS), restore=[wearer], deliver=60)
    for message_id in sandbox.live_ids():
        shown = get(sandbox, message_id, format="minimal").get("labelIds", [])
        assert not USER_LABELS.keys() & set(shown)


@pytest.mark.parametrize(
    "change",
    [
        {"label_create": {"id": "Label_1", "name": "new"}},
        {"label_create": {"id": "INBOX", "name": "new"}},
        {"label_create": {"id": "Label_9", "name": "Clients"}},
        {"label_rename": {"id": "Label_9", "name": "new"}},
        {"label_delete": "INBOX"},
        {"label_delete": "Label_9"},
        {"insert": [{"raw": "%"}]},
        {"insert": [{"raw": "YQ", "labels": ["Label_9"]}]},
        {"insert": [{"raw": "YQ", "thread_id": "1000000000000000"}]},
        {"insert": [{"raw": "YQ", "internal_date_ms": 1 << 63}]},
        {"insert": {"raw": "YQ"}},
    ],
)
def test_a_change_that_cannot_be_is_refused(sandbox: Sandbox, change: dict[str, Any]) -> None:
    before = raw_get(sandbox, "profile"), labels(sandbox)
    with pytest.raises(SandboxError, match="400"):
        sandbox.change(**change)
    assert (raw_get(sandbox, "profile"), labels(sandbox)) == before


# ---- mail that is put in


def test_mail_put_in_is_kept_byte_by_byte(tmp_path: Path) -> None:
    with Sandbox(size=30, seed=5, state=tmp_path / "state.sqlite") as sandbox:
        start = history_id(sandbox)
        message_id = sandbox.insert(RAW, labels=["INBOX", "Label_1"])
        assert sandbox.live_ids()[0] == message_id
        (record,) = history(sandbox, start)
        assert record["messagesAdded"][0]["message"]["labelIds"] == ["INBOX", "Label_1"]
        before = get(sandbox, message_id, format="raw")
    with Sandbox(state=tmp_path / "state.sqlite") as sandbox:
        assert get(sandbox, message_id, format="raw") == before
        assert base64.urlsafe_b64decode(before["raw"]) == RAW
        full = get(sandbox, message_id)
        assert [header["value"] for header in full["payload"]["headers"]][1:] == ["one", "two"]
        assert full["sizeEstimate"] == len(RAW)
        only = get(sandbox, message_id, format="metadata", metadataHeaders=["subject"])
        assert [header["value"] for header in only["payload"]["headers"]] == ["one", "two"]


def test_mail_put_in_is_listed_where_its_date_belongs(sandbox: Sandbox) -> None:
    generated = sandbox.live_ids(include_spam_trash=True)
    dates = [int(get(sandbox, each, format="minimal")["internalDate"]) for each in generated]
    wanted = [dates[4], dates[4] + 1, -5, 253_402_300_800_000, dates[20] - 1, 0]
    added = [sandbox.insert(RAW, internal_date_ms=date) for date in wanted]
    keys = [
        *zip(dates, [0] * 30, generated, strict=True),
        *zip(wanted, [1] * 6, added, strict=True),
    ]
    expected = [message_id for _, _, message_id in sorted(keys, reverse=True)]
    for size in (1, 2, 500):
        assert fetch_ids(sandbox, includeSpamTrash=True, maxResults=size) == expected
    assert sandbox.live_ids(include_spam_trash=True) == expected
    assert get(sandbox, added[2], format="minimal")["internalDate"] == "-5"
    second = dates[20] // 1000
    after = fetch_ids(sandbox, q=f"in:anywhere after:{second + 1}")
    assert after == expected[: expected.index(generated[20])]
    threads = fetch_all(users(sandbox).threads(), "threads", q="in:anywhere", maxResults=7)
    assert len({thread["id"] for thread in threads}) == len(threads)
    profile = users(sandbox).getProfile(userId="me").execute()
    assert (profile["messagesTotal"], profile["threadsTotal"]) == (36, len(threads))


def test_mail_put_in_is_searched_deleted_relabelled_and_restored(sandbox: Sandbox) -> None:
    message_id = sandbox.insert(RAW.replace(b"one", b"zebra"), labels=["INBOX"])
    for query in ("from:ann@example.com", "subject:zebra", "zebra", "in:inbox hello"):
        assert fetch_ids(sandbox, q=query)[0] == message_id
    sandbox.change(labels={"ids": [message_id], "add": ["TRASH"], "remove": ["INBOX"]})
    assert message_id not in fetch_ids(sandbox)
    assert users(sandbox).labels().get(userId="me", id="TRASH").execute()["messagesTotal"] >= 1
    sandbox.change(delete=[message_id])
    assert raw_get(sandbox, f"messages/{message_id}")[0] == 404
    sandbox.change(restore=[message_id])
    assert get(sandbox, message_id)["labelIds"] == ["TRASH"]


def test_mail_put_in_joins_a_thread(sandbox: Sandbox) -> None:
    first = sandbox.insert(RAW, internal_date_ms=2_000)
    reply = sandbox.insert(RAW, internal_date_ms=1_000, thread_id=first)
    thread = users(sandbox).threads().get(userId="me", id=first).execute()
    assert [message["id"] for message in thread["messages"]] == [reply, first]
    other = get(sandbox, sandbox.live_ids()[5], format="minimal")
    sandbox.insert(RAW, thread_id=other["threadId"])
    thread = users(sandbox).threads().get(userId="me", id=other["threadId"]).execute()
    assert thread["messages"][-1]["payload"]["headers"][0]["name"] == "From"


def test_an_empty_mailbox_takes_mail() -> None:
    with Sandbox(size=0) as sandbox:
        assert raw_get(sandbox, "messages?q=newer_than:1d") == (200, {"resultSizeEstimate": 0})
        message_id = sandbox.insert(RAW, internal_date_ms=1_700_000_000_000)
        assert sandbox.live_ids() == fetch_ids(sandbox) == [message_id]
        assert sandbox.change(delete=1)["affected"]["delete"] == [message_id]
        assert sandbox.live_ids() == []


# ---- threads


@pytest.mark.parametrize(("threads", "length"), [("none", 1), ("four", 4)])
def test_threads_are_as_long_as_asked(tmp_path: Path, threads: str, length: int) -> None:
    state = tmp_path / "state.sqlite"
    with Sandbox(size=120, state=state, threads=threads) as sandbox:
        assert raw_get(sandbox, "profile")[1]["threadsTotal"] == 120 // length
    with Sandbox(state=state) as sandbox:
        found = fetch_all(users(sandbox).threads(), "threads", q="in:anywhere")
        assert len(found) == 120 // length
        thread = users(sandbox).threads().get(userId="me", id=found[0]["id"]).execute()
        assert len(thread["messages"]) == length


# ---- tokens and quota


def refreshing(sandbox: Sandbox) -> tuple[google.oauth2.credentials.Credentials, Any]:
    credentials = google.oauth2.credentials.Credentials(
        None, "a refresh token", token_uri=f"{sandbox.base_url}/token", client_id="id",
        client_secret="secret",
    )  # fmt: skip
    options = {"api_endpoint": sandbox.base_url}
    service = build(
        "gmail", "v1", credentials=credentials, client_options=options, static_discovery=True
    )
    return credentials, service.users()


def test_expired_tokens_are_refused_until_a_new_one_is_fetched(sandbox: Sandbox) -> None:
    credentials, mailbox = refreshing(sandbox)
    mailbox.getProfile(userId="me").execute()
    before = credentials.token
    sandbox.settings(tokens_expired=True)
    for token in ("any", before):
        status, answer = raw_get(sandbox, "profile", token)
        assert (status, answer["error"]["errors"][0]["reason"]) == (401, "authError")
    mailbox.getProfile(userId="me").execute()
    assert credentials.token != before
    assert sandbox.stats()["requests"]["token"] == 2
    with pytest.raises(google.auth.exceptions.RefreshError):
        users(sandbox).getProfile(userId="me").execute()
    sandbox.settings(tokens_expired=False)
    assert raw_get(sandbox, "profile")[0] == 200


def test_tokens_expire_after_so_many_requests(sandbox: Sandbox) -> None:
    _, mailbox = refreshing(sandbox)
    sandbox.settings(token_requests=3)
    for _ in range(7):
        mailbox.getProfile(userId="me").execute()
    assert sandbox.stats()["requests"] == {"token": 3, "getProfile": 9}
    sandbox.settings(token_requests=None, tokens_expired=False)
    assert raw_get(sandbox, "profile")[0] == 200


def test_the_quota_of_newer_projects_can_be_set(sandbox: Sandbox) -> None:
    costs = {"messages.get": 20, "threads.get": 40, "messages.attachments.get": 20}
    sandbox.settings(quota={"units_per_minute": 6000, "costs": costs})
    message_id = sandbox.live_ids()[0]
    answers = [raw_get(sandbox, f"messages/{message_id}?format=minimal") for _ in range(302)]
    assert [status for status, _ in answers] == [200] * 300 + [429, 403]
    reasons = [answer["error"]["errors"][0]["reason"] for _, answer in answers[300:]]
    assert reasons == ["rateLimitExceeded", "userRateLimitExceeded"]
    assert sandbox.stats()["units"] == 6000
    with pytest.raises(SandboxError, match=r"message\.get"):
        sandbox.settings(quota={"costs": {"message.get": 20}})
