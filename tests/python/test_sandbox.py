"""The sandbox server, as the real Google client sees it."""

import base64
import email
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth.exceptions
import google.auth.transport.requests
import google.oauth2.credentials
import httplib2
import pytest
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from landfall_sandbox.controls import Sandbox, SandboxError


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    with Sandbox(size=250, seed=5) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared: Sandbox) -> Iterator[Sandbox]:
    shared.reset_stats()
    yield shared
    shared.set_faults([])
    shared.settings(latency=0, quota=None, history_expired_before=None)


def users(sandbox: Sandbox, token: str = "any") -> Any:
    credentials = google.oauth2.credentials.Credentials(token)
    options = {"api_endpoint": sandbox.base_url}
    service = build(
        "gmail", "v1", credentials=credentials, client_options=options, static_discovery=True
    )
    return service.users()


def fetch_all(listing: Any, key: str = "messages", **parameters: Any) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    request = listing.list(userId="me", **parameters)
    while request is not None:
        answer = request.execute()
        entries += answer.get(key, [])
        request = listing.list_next(request, answer)
    return entries


def fetch_ids(sandbox: Sandbox, **parameters: Any) -> list[str]:
    return [entry["id"] for entry in fetch_all(users(sandbox).messages(), **parameters)]


def get(sandbox: Sandbox, message_id: str, **parameters: Any) -> dict[str, Any]:
    request = users(sandbox).messages().get(userId="me", id=message_id, **parameters)
    message: dict[str, Any] = request.execute()
    return message


def raw_get(sandbox: Sandbox, path: str, token: str | None = "any") -> tuple[int, Any]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    response, content = httplib2.Http().request(
        f"{sandbox.base_url}/gmail/v1/users/me/{path}", headers=headers
    )
    return response.status, json.loads(content)


def attached(part: dict[str, Any]) -> list[dict[str, Any]]:
    own = [part] if "attachmentId" in part["body"] else []
    return own + [found for child in part.get("parts", []) for found in attached(child)]


def test_the_client_lists_and_gets_every_message(sandbox: Sandbox) -> None:
    ids = fetch_ids(sandbox, maxResults=100, includeSpamTrash=True)
    assert ids == sandbox.live_ids(include_spam_trash=True)
    assert len(set(ids)) == 250
    messages = users(sandbox).messages()
    found = [messages.get(userId="me", id=message_id).execute() for message_id in ids]
    assert [message["id"] for message in found] == ids
    dates = [int(message["internalDate"]) for message in found]
    assert dates == sorted(set(dates), reverse=True)
    assert sandbox.stats()["requests"] == {"messages.list": 3, "messages.get": 250}
    assert sandbox.stats()["units"] == 3 * 5 + 250 * 5


def test_listings_leave_spam_and_trash_out_unless_asked(sandbox: Sandbox) -> None:
    every = set(fetch_ids(sandbox, includeSpamTrash=True))
    hidden = set(fetch_ids(sandbox, q="in:spam")) | set(fetch_ids(sandbox, labelIds=["TRASH"]))
    assert hidden
    assert set(fetch_ids(sandbox)) == every - hidden
    assert set(fetch_ids(sandbox, q="in:anywhere")) == every
    assert sandbox.live_ids() == fetch_ids(sandbox)


def test_labels_filter_by_conjunction(sandbox: Sandbox) -> None:
    both = fetch_ids(sandbox, labelIds=["INBOX", "UNREAD"])
    assert both
    for message_id in both:
        assert {"INBOX", "UNREAD"} <= set(get(sandbox, message_id, format="minimal")["labelIds"])
    assert both == fetch_ids(sandbox, q="in:inbox is:unread")
    label = users(sandbox).labels().get(userId="me", id="Label_2").execute()
    assert len(fetch_ids(sandbox, q="label:clients-harbor-supply")) == label["messagesTotal"] > 0
    assert fetch_ids(sandbox, q="label:nothing") == []


def test_date_terms_cut_at_the_second(sandbox: Sandbox) -> None:
    ids = fetch_ids(sandbox, includeSpamTrash=True)
    moment = int(get(sandbox, ids[100], format="minimal")["internalDate"]) // 1000
    in_anywhere = "in:anywhere"
    assert fetch_ids(sandbox, q=f"{in_anywhere} after:{moment}") == ids[:101]
    assert fetch_ids(sandbox, q=f"{in_anywhere} before:{moment}") == ids[101:]
    assert fetch_ids(sandbox, q=f"after:{moment} before:{moment}") == []
    assert fetch_ids(sandbox, q=f"{in_anywhere} newer_than:9y") == ids
    by_day = fetch_ids(sandbox, q=f"{in_anywhere} after:2020/01/01")
    assert by_day == fetch_ids(sandbox, q=f"{in_anywhere} after:{1_577_865_600}")


def test_content_terms_find_the_messages_that_hold_them(sandbox: Sandbox) -> None:
    ids = fetch_ids(sandbox, q="has:attachment from:example")
    assert ids
    assert all(attached(get(sandbox, message_id)["payload"]) for message_id in ids)
    headers = get(sandbox, ids[0], format="metadata", metadataHeaders=["message-id"])["payload"]
    header = next(iter(headers["headers"]))
    assert fetch_ids(sandbox, q=f"rfc822msgid:{header['value']}") == ids[:1]
    unknown = fetch_ids(sandbox, q="frobnicate:42")
    assert unknown == []


def test_threads_hold_the_messages_that_name_them(sandbox: Sandbox) -> None:
    threads = fetch_all(users(sandbox).threads(), "threads", maxResults=40, q="in:anywhere")
    by_thread: dict[str, list[str]] = {}
    for entry in fetch_all(users(sandbox).messages(), includeSpamTrash=True):
        by_thread.setdefault(entry["threadId"], []).insert(0, entry["id"])
    assert [thread["id"] for thread in threads] == list(by_thread)
    longest = max(by_thread, key=lambda thread: len(by_thread[thread]))
    thread = users(sandbox).threads().get(userId="me", id=longest, format="minimal").execute()
    assert [message["id"] for message in thread["messages"]] == by_thread[longest]
    profile = users(sandbox).getProfile(userId="me").execute()
    assert (profile["messagesTotal"], profile["threadsTotal"]) == (250, len(threads))


def test_attachment_ids_change_and_their_bytes_are_those_in_raw(sandbox: Sandbox) -> None:
    message_id = fetch_ids(sandbox, q="has:attachment")[0]
    raw = base64.urlsafe_b64decode(get(sandbox, message_id, format="raw")["raw"])
    first, second = (attached(get(sandbox, message_id)["payload"]) for _ in range(2))
    files = {part.get_filename(): part for part in email.message_from_bytes(raw).walk()}
    attachments = users(sandbox).messages().attachments()
    for one, other in zip(first, second, strict=True):
        assert one["body"]["attachmentId"] != other["body"]["attachmentId"]
        for body in (one["body"], other["body"]):
            answer = attachments.get(
                userId="me", messageId=message_id, id=body["attachmentId"]
            ).execute()
            content = base64.urlsafe_b64decode(answer["data"])
            assert len(content) == answer["size"] == body["size"]
            assert content == files[one["filename"]].get_payload(decode=True)


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("messages/zzz", 400, "invalidArgument"),
        ("messages/1000000000000000", 404, "notFound"),
        ("threads/1000000000000000", 404, "notFound"),
        ("labels/Label_99", 404, "notFound"),
        ("messages?maxResults=501", 400, "invalidArgument"),
        ("messages?maxResults=0", 400, "invalidArgument"),
        ("messages?pageToken=abc", 400, "invalidArgument"),
        ("messages?labelIds=NOPE", 400, "invalidArgument"),
        ("messages/1000000000000000?format=best", 400, "invalidArgument"),
        ("messages?maxresults=5", 400, "badRequest"),
        ("history", 400, "invalidArgument"),
        ("history?startHistoryId=1", 404, "notFound"),
        ("nothing", 404, "notFound"),
    ],
)
def test_a_bad_request_gets_googles_error(
    sandbox: Sandbox, path: str, status: int, reason: str
) -> None:
    got, answer = raw_get(sandbox, path)
    error = answer["error"]
    assert (got, error["code"], error["errors"][0]["reason"]) == (status, status, reason)
    assert error["status"] == {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}[status]


@pytest.mark.parametrize(("token", "reason"), [(None, "required"), ("expired", "authError")])
def test_a_request_without_a_valid_token_is_401(
    sandbox: Sandbox, token: str | None, reason: str
) -> None:
    status, answer = raw_get(sandbox, "profile", token)
    assert (status, answer["error"]["errors"][0]["reason"]) == (401, reason)


def test_a_page_without_matches_has_no_messages_key(sandbox: Sandbox) -> None:
    assert raw_get(sandbox, "messages?q=after:4000000000") == (200, {"resultSizeEstimate": 0})
    assert raw_get(sandbox, "profile?fields=historyId")[1].keys() == {"historyId"}


def test_a_refresh_token_gives_an_access_token(sandbox: Sandbox) -> None:
    credentials = google.oauth2.credentials.Credentials(
        None, "a refresh token", token_uri=f"{sandbox.base_url}/token", client_id="id",
        client_secret="secret",
    )  # fmt: skip
    credentials.refresh(google.auth.transport.requests.Request())
    assert credentials.valid
    assert raw_get(sandbox, "profile", credentials.token)[0] == 200


def test_a_revoked_refresh_token_is_an_invalid_grant(sandbox: Sandbox) -> None:
    credentials = google.oauth2.credentials.Credentials(
        None, "revoked", token_uri=f"{sandbox.base_url}/token", client_id="id",
        client_secret="secret",
    )  # fmt: skip
    with pytest.raises(google.auth.exceptions.RefreshError, match="invalid_grant"):
        credentials.refresh(google.auth.transport.requests.Request())


def test_history_tells_of_every_kind_of_change(tmp_path: Path) -> None:
    with Sandbox(size=60, state=tmp_path / "state.sqlite") as sandbox:
        start = users(sandbox).getProfile(userId="me").execute()["historyId"]
        kept, gone = sandbox.live_ids()[:2]
        new = sandbox.change(deliver=2)["affected"]["deliver"]
        labels = {"ids": [kept], "add": ["Label_6"], "remove": ["Label_6"]}
        sandbox.change(delete=[gone], labels=labels)
        end = sandbox.change(restore=[gone])["history_id"]
        history = users(sandbox).history()
        records = fetch_all(history, "history", startHistoryId=start, maxResults=2)
        kinds = [
            next(key for key in record if key.endswith(("ed", "Removed"))) for record in records
        ]
        assert kinds == [
            "messagesAdded", "messagesAdded", "messagesDeleted", "labelsAdded", "labelsRemoved",
            "messagesAdded",
        ]  # fmt: skip
        touched = [record["messages"][0]["id"] for record in records]
        assert touched == [*new, gone, kept, kept, gone]
        assert records[3]["labelsAdded"][0]["labelIds"] == ["Label_6"]
        numbers = [int(record["id"]) for record in records]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == int(end)
        assert int(get(sandbox, kept, format="minimal")["historyId"]) == numbers[4]

        by_type = fetch_all(history, "history", startHistoryId=start, historyTypes=["labelAdded"])
        by_label = fetch_all(history, "history", startHistoryId=start, labelId="Label_6")
        assert by_type == records[3:4]
        assert [record["id"] for record in by_label] == [records[3]["id"], records[4]["id"]]
        assert "history" not in history.list(userId="me", startHistoryId=end).execute()


def test_history_reaches_back_to_the_first_message(sandbox: Sandbox) -> None:
    oldest_first = sandbox.live_ids(include_spam_trash=True)[::-1]
    start = get(sandbox, oldest_first[9], format="minimal")["historyId"]
    records = fetch_all(users(sandbox).history(), "history", startHistoryId=start)
    added = [record["messagesAdded"][0]["message"]["id"] for record in records]
    assert added == oldest_first[10:]


def test_expired_history_is_404_until_a_current_id_is_used(sandbox: Sandbox) -> None:
    current = users(sandbox).getProfile(userId="me").execute()["historyId"]
    sandbox.settings(history_expired_before=current)
    assert raw_get(sandbox, f"history?startHistoryId={int(current) - 1}")[0] == 404
    assert raw_get(sandbox, f"history?startHistoryId={int(current) + 1}")[0] == 404
    assert raw_get(sandbox, f"history?startHistoryId={current}")[0] == 200


def test_a_restarted_server_keeps_its_changes(tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite"
    with Sandbox(size=60, seed=5, state=state) as sandbox:
        deleted = sandbox.change(deliver=3, delete=4)["affected"]["delete"]
        relabelled = sandbox.change(labels={"ids": 1, "add": ["Label_6", "STARRED"]})
        message_id = relabelled["affected"]["labels"][0]
        before = sandbox.live_ids(include_spam_trash=True), get(sandbox, message_id, format="raw")
        profile = users(sandbox).getProfile(userId="me").execute()
    with Sandbox(size=999, seed=6, state=state) as sandbox:
        after = sandbox.live_ids(include_spam_trash=True), get(sandbox, message_id, format="raw")
        assert after == before
        assert len(after[0]) == 59
        assert not set(deleted) & set(after[0])
        assert {"Label_6", "STARRED"} <= set(after[1]["labelIds"])
        assert users(sandbox).getProfile(userId="me").execute() == profile


def test_an_error_fault_fires_as_often_as_told(sandbox: Sandbox) -> None:
    first, second = fetch_ids(sandbox)[:2]
    rule = {"match": {"method": "messages.get", "id": second}, "skip": 1, "times": 1}
    action = {"status": 503, "reason": "backendError", "retry_after": "1"}
    sandbox.set_faults([rule | {"action": action}])
    get(sandbox, first), get(sandbox, second)
    with pytest.raises(HttpError) as caught:
        get(sandbox, second)
    assert (caught.value.status_code, caught.value.resp["retry-after"]) == (503, "1")
    assert caught.value.error_details[0]["reason"] == "backendError"
    assert get(sandbox, second)["id"] == second


def test_every_nth_request_fails_where_a_rule_says_so(sandbox: Sandbox) -> None:
    rule = {"match": {"method": "getProfile"}, "every": 3, "times": None}
    sandbox.set_faults([rule | {"action": {"status": 500}}])
    assert [raw_get(sandbox, "profile")[0] for _ in range(6)] == [200, 200, 500, 200, 200, 500]


def test_a_truncated_answer_is_an_incomplete_read(sandbox: Sandbox) -> None:
    sandbox.set_faults([{"action": {"truncate": True}}])
    with pytest.raises(http.client.IncompleteRead):
        users(sandbox).getProfile(userId="me").execute()
    assert users(sandbox).getProfile(userId="me").execute()["messagesTotal"] == 250


def test_a_dropped_connection_gives_no_answer(sandbox: Sandbox) -> None:
    sandbox.set_faults([{"times": None, "action": {"drop": True}}])
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        users(sandbox).getProfile(userId="me").execute()


def test_a_literal_body_reaches_the_client(sandbox: Sandbox) -> None:
    html = {"body": "<html>not json</html>", "content_type": "text/html", "status": 200}
    sandbox.set_faults([{"action": html}, {"action": {"json": {"historyId": "7"}}}])
    # The client hands on what it can't decode, as text.
    assert users(sandbox).getProfile(userId="me").execute() == "<html>not json</html>"
    assert users(sandbox).getProfile(userId="me").execute() == {"historyId": "7"}


def test_a_mutation_removes_and_sets_keys_of_the_answer(sandbox: Sandbox) -> None:
    mutation = {"remove": ["historyId"], "set": {"emailAddress": None}}
    sandbox.set_faults([{"action": {"mutate": mutation}}])
    answer = users(sandbox).getProfile(userId="me").execute()
    assert "historyId" not in answer
    assert (answer["emailAddress"], answer["messagesTotal"]) == (None, 250)


def test_latency_delays_each_request(sandbox: Sandbox) -> None:
    sandbox.settings(latency=0.05)
    sandbox.set_faults([{"action": {"latency": 0.1}}])
    start = time.monotonic()
    raw_get(sandbox, "profile"), raw_get(sandbox, "profile")
    assert time.monotonic() - start >= 0.2


def test_answers_on_a_kept_connection_are_not_held_back(sandbox: Sandbox) -> None:
    http_client = httplib2.Http()
    url = f"{sandbox.base_url}/gmail/v1/users/me/messages"
    start = time.monotonic()
    for _ in range(100):
        http_client.request(url, headers={"Authorization": "Bearer any"})
    # Nagle with delayed ACKs costs 40 ms a request: 4 s.
    assert time.monotonic() - start < 2


def test_the_quota_is_refused_in_both_of_googles_forms(sandbox: Sandbox) -> None:
    sandbox.settings(quota={"units_per_minute": 10, "costs": {"getProfile": 5}})
    answers = [raw_get(sandbox, "profile") for _ in range(4)]
    reasons = [(status, answer["error"]["errors"][0]["reason"]) for status, answer in answers[2:]]
    assert [status for status, _ in answers[:2]] == [200, 200]
    assert reasons == [(429, "rateLimitExceeded"), (403, "userRateLimitExceeded")]
    assert (sandbox.stats()["units"], sandbox.stats()["refused"]) == (10, 2)
    sandbox.settings(quota=None)
    assert raw_get(sandbox, "profile")[0] == 200


@pytest.mark.parametrize(
    "rules",
    [
        {},
        [{"action": {}}],
        [{"action": {"mutate": ["id"]}}],
        [{"action": {"statsu": 503}}],
        [{"when": 1}],
    ],
)
def test_a_malformed_fault_rule_is_refused(sandbox: Sandbox, rules: Any) -> None:
    with pytest.raises(SandboxError, match="faults:"):
        sandbox.set_faults(rules)


def test_a_malformed_change_is_refused_and_changes_nothing(sandbox: Sandbox) -> None:
    before = users(sandbox).getProfile(userId="me").execute()
    for change in (
        {"delete": ["1000000000000000"]},
        {"labels": {"ids": 1, "add": ["X"]}},
        {"x": 1},
    ):
        with pytest.raises(SandboxError, match="400"):
            sandbox.change(**change)
    assert users(sandbox).getProfile(userId="me").execute() == before
