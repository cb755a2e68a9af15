"""History, and errors."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from loaders.sources.gmail import client as gmail_client
from tests.peers.gmail_stand_ins import LABEL

from .conftest import Contract, is_not_found


def kinds(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(what happened, to which message), in order."""
    known = ("messagesAdded", "messagesDeleted", "labelsAdded", "labelsRemoved")
    return [
        (kind, entry["message"]["id"])
        for record in records
        for kind in known
        for entry in record.get(kind, [])
    ]


def test_history_tells_every_kind_of_change_in_order(contract: Contract) -> None:
    start = contract.history_id(contract.deliver())
    added = contract.deliver(second=1, labels=["INBOX"])
    contract.box.relabel(added, add=["STARRED", LABEL])
    contract.box.relabel(added, remove=["STARRED"])
    contract.box.delete(added)
    records = contract.history(start)
    assert kinds(records) == [
        ("messagesAdded", added),
        ("labelsAdded", added),
        ("labelsRemoved", added),
        ("messagesDeleted", added),
    ]
    assert set(records[1]["labelsAdded"][0]["labelIds"]) == {"STARRED", LABEL}
    assert records[2]["labelsRemoved"][0]["labelIds"] == ["STARRED"]
    numbers = [int(record["id"]) for record in records]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > int(start)
    for record in records:
        assert [ref["id"] for ref in record["messages"]] == [added]
        assert isinstance(record["messages"][0]["threadId"], str)


def test_labels_changed_at_once_are_told_as_added_and_removed(contract: Contract) -> None:
    message_id = contract.deliver(labels=["INBOX"])
    start = contract.history_id(message_id)
    contract.box.relabel(message_id, add=["STARRED"], remove=["INBOX"])
    assert kinds(contract.history(start)) == [
        ("labelsAdded", message_id),
        ("labelsRemoved", message_id),
    ]
    assert contract.get(message_id, "minimal")["labelIds"] == ["STARRED"]


def test_history_from_its_end_is_empty_and_still_says_where_it_ends(contract: Contract) -> None:
    start = contract.history_id(contract.deliver())
    contract.deliver(second=1)
    pages = list(contract.client().history(contract.request, start))
    end = pages[-1]["historyId"]
    assert int(end) >= int(pages[-1]["history"][-1]["id"])
    (page,) = contract.client().history(contract.request, end)
    assert page.get("history", []) == []
    assert page["historyId"] == end


def test_history_comes_in_pages(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    start = contract.history_id(contract.deliver())
    delivered = [contract.deliver(second=second) for second in range(1, 6)]
    monkeypatch.setattr(gmail_client, "PAGE_SIZE", 2)
    pages = list(contract.client().history(contract.request, start))
    assert [len(page["history"]) for page in pages] == [2, 2, 1]
    records = list(itertools.chain.from_iterable(page["history"] for page in pages))
    assert kinds(records) == [("messagesAdded", message_id) for message_id in delivered]


def test_a_messages_history_id_is_that_of_its_last_change(contract: Contract) -> None:
    message_id = contract.deliver(labels=["INBOX"])
    start = contract.history_id(message_id)
    contract.box.relabel(message_id, add=["STARRED"])
    assert contract.history(start)[-1]["id"] == contract.history_id(message_id)
    assert contract.history(contract.history_id(message_id)) == []


def test_a_deleted_label_is_taken_off_its_messages(contract: Contract) -> None:
    wearer = contract.deliver(labels=["INBOX", LABEL])
    start = contract.history_id(wearer)
    contract.box.delete_label()
    (record,) = contract.history(start)
    assert kinds([record]) == [("labelsRemoved", wearer)]
    assert record["labelsRemoved"][0]["labelIds"] == [LABEL]
    assert contract.get(wearer, "minimal")["labelIds"] == ["INBOX"]
    assert LABEL not in [value["id"] for _, value in contract.client().labels(contract.request)]


def test_history_that_has_expired_is_not_found(contract: Contract) -> None:
    contract.deliver()
    assert is_not_found(lambda: contract.history(contract.box.expire_history()))


@pytest.mark.parametrize(
    ("path", "status", "reason", "name"),
    [
        ("me/messages/1000000000000000", 404, "notFound", "NOT_FOUND"),
        ("me/threads/1000000000000000", 404, "notFound", "NOT_FOUND"),
        ("me/labels/Label_77", 404, "notFound", "NOT_FOUND"),
        ("me/history", 400, "invalidArgument", "INVALID_ARGUMENT"),
    ],
)
def test_an_error_names_its_reason(
    contract: Contract, path: str, status: int, reason: str, name: str
) -> None:
    got, answer = contract.answer(path)
    error = answer["error"]
    assert (got, error["code"], error["status"]) == (status, status, name)
    assert error["errors"][0]["reason"] == reason
    assert error["errors"][0]["message"] == error["message"]


def test_a_request_without_a_token_is_refused(contract: Contract) -> None:
    status, answer = contract.answer("me/messages", token="")
    assert (status, answer["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_an_unknown_token_is_refused(contract: Contract) -> None:
    status, answer = contract.answer("me/messages", token="expired")
    assert status == 401
    assert answer["error"]["errors"][0]["reason"] == "authError"


def test_another_mailbox_is_refused(contract: Contract) -> None:
    assert contract.answer("someone@example.org/messages")[0] == 403
