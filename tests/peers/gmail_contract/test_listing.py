"""Listing as strangers serve it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from loaders.sources.gmail import client as gmail_client
from tests.peers.gmail_stand_ins import LABEL

from .conftest import KNOWN_DIFFERENCES, START, Contract


def test_every_known_difference_names_a_test() -> None:
    files = Path(__file__).parent.glob("test_*.py")
    tests = re.findall(
        r"^def (test_\w+)", "".join(path.read_text() for path in files), re.MULTILINE
    )
    assert KNOWN_DIFFERENCES.keys() <= set(tests)


def test_the_profile_tells_the_mailbox_and_where_its_history_stands(contract: Contract) -> None:
    message_id = contract.deliver()
    profile = contract.client().profile(contract.request)
    assert profile["emailAddress"] == contract.box.address
    assert profile["historyId"] == contract.history_id(message_id)
    assert (profile["messagesTotal"], profile["threadsTotal"]) == (1, 1)


def test_an_empty_mailbox_is_one_empty_page(contract: Contract) -> None:
    assert list(contract.client().message_refs(contract.request)) == [[]]


def test_messages_are_listed_newest_first_with_their_threads(contract: Contract) -> None:
    delivered = {second: contract.deliver(second=second) for second in (5, 1, 9)}
    reply = contract.deliver(second=3, thread_id=contract.get(delivered[1])["threadId"])
    (page,) = contract.client().message_refs(contract.request)
    assert [ref["id"] for ref in page] == [delivered[9], delivered[5], reply, delivered[1]]
    assert [ref["threadId"] for ref in page] == [
        contract.get(ref["id"])["threadId"] for ref in page
    ]
    assert page[2]["threadId"] == page[3]["threadId"]
    assert len({ref["threadId"] for ref in page}) == 3


@pytest.mark.parametrize(("size", "pages"), [(2, [2, 2, 1]), (5, [5]), (500, [5])])
def test_pages_are_as_long_as_asked_and_hold_every_message_once(
    contract: Contract, monkeypatch: pytest.MonkeyPatch, size: int, pages: list[int]
) -> None:
    delivered = [contract.deliver(second=second) for second in range(5)]
    monkeypatch.setattr(gmail_client, "PAGE_SIZE", size)
    found = list(contract.client().message_refs(contract.request))
    assert [len(page) for page in found] == pages
    assert [ref["id"] for page in found for ref in page] == delivered[::-1]


def listed_with(
    contract: Contract, monkeypatch: pytest.MonkeyPatch, change: Callable[[list[str]], object]
) -> tuple[list[str], list[str]]:
    """Five messages listed in pages of two, with a change after the first page."""
    delivered = [contract.deliver(second=second) for second in range(5)]
    monkeypatch.setattr(gmail_client, "PAGE_SIZE", 2)
    found = []
    for number, page in enumerate(contract.client().message_refs(contract.request)):
        found += [ref["id"] for ref in page]
        if number == 0:
            change(delivered)
    return delivered, found


def test_an_arrival_between_two_pages_repeats_no_message(
    contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered, found = listed_with(contract, monkeypatch, lambda _: contract.deliver(second=60))
    assert found == delivered[::-1]


def test_an_arrival_between_two_pages_hides_no_message(
    contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered, found = listed_with(contract, monkeypatch, lambda _: contract.deliver(second=60))
    assert set(found) >= set(delivered)


def test_a_deletion_between_two_pages_hides_no_other_message(
    contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered, found = listed_with(
        contract, monkeypatch, lambda delivered: contract.box.delete(delivered[-1])
    )
    assert set(found) >= set(delivered[:-1])


def test_a_label_narrows_a_listing(contract: Contract) -> None:
    both = contract.deliver(labels=["INBOX", LABEL], second=2)
    inbox = contract.deliver(labels=["INBOX"], second=1)
    contract.deliver()
    assert contract.ids(label="INBOX") == [both, inbox]
    assert contract.ids(label=LABEL) == [both]


def test_spam_and_trash_are_listed_only_when_asked(contract: Contract) -> None:
    kept = contract.deliver(labels=["INBOX"])
    trashed = contract.deliver(labels=["TRASH"], second=1)
    spam = contract.deliver(labels=["SPAM"], second=2)
    assert contract.ids() == [kept]
    assert contract.ids(include_spam_trash=True) == [spam, trashed, kept]
    assert contract.ids(label="TRASH", include_spam_trash=True) == [trashed]


def test_a_trashed_message_is_listed_by_that_label(contract: Contract) -> None:
    trashed = contract.deliver(labels=["TRASH"])
    assert contract.ids(label="TRASH") == [trashed]


def test_a_window_in_epoch_seconds_holds_what_is_in_it(contract: Contract) -> None:
    seconds = (8.9, 9.0, 9.5, 10.0, 10.001, 15.0, 19.999, 20.0, 20.001)
    delivered = {second: contract.deliver(second=second) for second in seconds}
    # As GmailSource asks for [10, 20): after: may or may not include its own second.
    found = contract.ids(f"after:{START + 9} before:{START + 20}")
    inside = [delivered[second] for second in (19.999, 15.0, 10.001, 10.0)]
    assert found[:4] == inside
    assert set(found[4:]) <= {delivered[9.0], delivered[9.5]}
    assert contract.ids(f"after:{START + 20}")[:1] == [delivered[20.001]]
    assert contract.ids(f"before:{START + 9}") == [delivered[8.9]]


def test_an_unknown_label_in_a_listing_is_refused(contract: Contract) -> None:
    assert contract.answer("me/messages?labelIds=Label_77")[0] == 400


def test_an_invalid_page_token_is_refused(contract: Contract) -> None:
    assert contract.answer("me/messages?pageToken=zzz")[0] == 400
