"""What GmailClient relies on, of our sandbox and of a stand-in that somebody else wrote.

Every test runs against both. Where they differ, KNOWN_DIFFERENCES says so and why; a difference
that is no more fails.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from google.oauth2.credentials import Credentials

from landfall_sandbox.controls import Sandbox
from loaders.errors import SourceError
from loaders.objects.items import ObservationClock
from loaders.sources.contract import FetchRequest, Usage
from loaders.sources.gmail import client as gmail_client
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.options import GmailConfig
from loaders.sources.refusals import NotFound
from loaders.warehouse.contents import Stored
from tests.peers.emulate import run_emulate
from tests.peers.gmail_stand_ins import LABEL, LABEL_NAME, EmulateMailbox, SandboxMailbox, StandIn
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable

SANDBOX, EMULATE = "sandbox", "emulate"

# By test, of `emulate` 0.11.2; our sandbox does what Google documents or is known to do.
KNOWN_DIFFERENCES = {
    "test_the_profile_tells_the_mailbox_and_where_its_history_stands": "has no users.getProfile",
    "test_history_that_has_expired_is_not_found": "keeps all history and takes any start",
    "test_a_deletion_between_two_pages_hides_no_other_message": "page tokens are offsets",
    "test_an_arrival_between_two_pages_repeats_no_message": "page tokens are offsets",
    "test_every_header_is_there_in_order_and_repeated": "shows ten headers, each once",
    "test_the_date_header_is_the_senders": "writes the Date header anew, from internalDate",
    "test_a_folded_header_keeps_its_blanks": "joins the lines of a header with one blank",
    "test_encoded_words_are_decoded": "leaves encoded-words as they are",
    "test_a_forwarded_message_is_shown_with_its_parts": "shows no parts of a message/rfc822",
    "test_eight_bit_text_is_shown_in_utf_8": "reads all mail as UTF-8, whatever its charset",
    "test_text_is_shown_to_its_last_byte": "trims the text of a part",
    "test_a_message_without_labels_has_no_label_ids": "gives an empty list",
    "test_a_thread_has_its_trashed_messages_too": "leaves them out of threads.get",
    "test_a_trashed_message_is_listed_by_that_label": "wants includeSpamTrash for it as well",
    "test_the_size_is_that_of_the_mail": "gives the size of the base64 text",
    "test_an_unknown_token_is_refused": "takes any token, for its first user",
    "test_another_mailbox_is_refused": "says 404 of it",
    "test_an_unknown_label_in_a_listing_is_refused": "finds nothing under it",
    "test_an_invalid_page_token_is_refused": "starts from the beginning",
}

START = 1_750_000_000
"""Epoch seconds of the first message."""
_USERS = 80


@dataclasses.dataclass(frozen=True)
class Contract:
    """A mailbox on a stand-in and the client that reads it."""

    box: StandIn
    request: FetchRequest

    def client(self, format: str = "full", **options: Any) -> GmailClient:
        config = GmailConfig(
            api_base_url=self.box.url,
            fetch_format=format,
            units_per_minute=10_000_000,
            max_attempts=1,
            timeout_seconds=10.0,
            **options,
        )
        return GmailClient("acct1", Credentials(token=self.box.token), config)

    def deliver(self, raw: bytes | None = None, second: float = 0, **options: Any) -> str:
        date_ms = int((START + second) * 1000)
        return self.box.deliver(raw or mail(f"at {second}"), date_ms, **options)

    def ids(self, query: str | None = None, label: str | None = None, **options: Any) -> list[str]:
        pages = self.client(**options).message_refs(self.request, query, label)
        return [ref["id"] for page in pages for ref in page]

    def get(self, message_id: str, format: str = "full") -> dict[str, Any]:
        value = json.loads(self.client(format).message(self.request, message_id))
        assert isinstance(value, dict)
        return value

    def raw(self, message_id: str) -> bytes:
        return decode(self.get(message_id, "raw")["raw"])

    def history_id(self, message_id: str) -> str:
        return str(self.get(message_id, "minimal")["historyId"])

    def history(self, start: str) -> list[dict[str, Any]]:
        pages = self.client().history(self.request, start)
        return [record for page in pages for record in page.get("history", [])]

    def answer(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """Status and body of a request without the client."""
        headers = {"Authorization": f"Bearer {token or self.box.token}"} if token != "" else {}
        request = urllib.request.Request(f"{self.box.url}/gmail/v1/users/{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def emulate_boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[EmulateMailbox]]:
    """Mailboxes of one server, none given out twice."""
    try:
        with run_emulate(tmp_path_factory.mktemp("emulate"), EmulateMailbox.seed(_USERS)) as url:
            yield (EmulateMailbox.of_number(url, number) for number in range(_USERS))
    except PeerUnavailable as error:
        unavailable(error)


@pytest.fixture(
    params=[
        SANDBOX,
        # The first one may have to install it.
        pytest.param(EMULATE, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ]
)
def contract(request: pytest.FixtureRequest) -> Iterator[Contract]:
    fetch = FetchRequest(ObservationClock(), Usage(), cast(Stored, None), threading.Event())
    if request.param == SANDBOX:
        with Sandbox(size=0) as sandbox:
            yield Contract(SandboxMailbox(sandbox), fetch)
        return
    box = next(request.getfixturevalue("emulate_boxes"))
    known = KNOWN_DIFFERENCES.get(request.node.originalname)
    if known is not None:
        raises = (AssertionError, SourceError)
        request.applymarker(pytest.mark.xfail(reason=known, raises=raises, strict=True))
    yield Contract(box, fetch)


def mail(subject: str, body: bytes = b"hello\r\n", *headers: str) -> bytes:
    lines = [
        "From: Ann <ann@example.com>",
        "To: Sam <sam@example.com>",
        f"Subject: {subject}",
        f"Message-ID: <{subject.replace(' ', '-')}@example.com>",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def parts(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield part
    for child in part.get("parts", []):
        yield from parts(child)


def values(payload: dict[str, Any], name: str) -> list[str]:
    return [each["value"] for each in payload["headers"] if each["name"] == name]


def is_not_found(read: Callable[[], object]) -> bool:
    try:
        read()
    except NotFound:
        return True
    return False


def test_every_known_difference_names_a_test() -> None:
    assert KNOWN_DIFFERENCES.keys() <= globals().keys()


# ---- listing


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


# ---- messages


@pytest.mark.parametrize(
    "raw",
    [
        mail("plain"),
        mail("odd", bytes(range(256)) * 3),
        b"Subject: no other header\n\nbare line feeds\n\n",
        mail("long", b"x" * 300_000),
    ],
    ids=["plain", "every byte", "line feeds", "long"],
)
def test_raw_is_the_mail_byte_by_byte(contract: Contract, raw: bytes) -> None:
    assert contract.raw(contract.deliver(raw)) == raw


@pytest.mark.parametrize("format", ["full", "metadata", "minimal", "raw"])
def test_every_format_has_the_same_frame(contract: Contract, format: str) -> None:
    message_id = contract.deliver(second=1.234, labels=["INBOX", "UNREAD", LABEL])
    message = contract.get(message_id, format)
    assert message["id"] == message_id
    assert isinstance(message["threadId"], str)
    assert set(message["labelIds"]) == {"INBOX", "UNREAD", LABEL}
    assert message["internalDate"] == str(START * 1000 + 1234)
    assert message["historyId"].isdigit()
    assert isinstance(message["sizeEstimate"], int)
    assert isinstance(message["snippet"], str)
    assert ("payload" in message) == (format in ("full", "metadata"))
    assert ("raw" in message) == (format == "raw")


def test_the_size_is_that_of_the_mail(contract: Contract) -> None:
    raw = mail("size", b"y" * 999)
    assert contract.get(contract.deliver(raw))["sizeEstimate"] == len(raw)


def test_a_message_without_labels_has_no_label_ids(contract: Contract) -> None:
    assert "labelIds" not in contract.get(contract.deliver())


@pytest.mark.parametrize("format", ["full", "metadata"])
def test_the_common_headers_are_there(contract: Contract, format: str) -> None:
    payload = contract.get(contract.deliver(mail("common")), format)["payload"]
    assert values(payload, "From") == ["Ann <ann@example.com>"]
    assert values(payload, "To") == ["Sam <sam@example.com>"]
    assert values(payload, "Subject") == ["common"]
    assert values(payload, "Message-ID") == ["<common@example.com>"]


def test_metadata_has_no_body(contract: Contract) -> None:
    payload = contract.get(contract.deliver(mail("m", b"a secret")), "metadata")["payload"]
    assert payload["mimeType"] == "text/plain"
    assert "parts" not in payload
    assert "data" not in payload.get("body", {})


def test_every_header_is_there_in_order_and_repeated(contract: Contract) -> None:
    raw = mail("h", b"", "X-Tag: 1", "Received: a", "x-tag: 2", "Received: b")
    payload = contract.get(contract.deliver(raw))["payload"]
    assert [(each["name"], each["value"]) for each in payload["headers"]][4:] == [
        ("X-Tag", "1"),
        ("Received", "a"),
        ("x-tag", "2"),
        ("Received", "b"),
    ]


def test_the_date_header_is_the_senders(contract: Contract) -> None:
    date = "Wed, 1 Jan 2020 03:00:00 +0300"
    payload = contract.get(contract.deliver(mail("d", b"", f"Date: {date}")))["payload"]
    assert values(payload, "Date") == [date]


def test_a_folded_header_keeps_its_blanks(contract: Contract) -> None:
    payload = contract.get(contract.deliver(b"Subject: one\r\n\t  two\r\n\r\n"))["payload"]
    assert values(payload, "Subject") == ["one\t  two"]


def test_encoded_words_are_decoded(contract: Contract) -> None:
    payload = contract.get(contract.deliver(mail("=?utf-8?q?caf=C3=A9?=")))["payload"]
    assert values(payload, "Subject") == ["café"]


TREE = mail(
    "tree",
    b"--outer\r\nContent-Type: multipart/alternative; boundary=inner\r\n\r\n"
    b"--inner\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\ncaf=E9\r\n"
    b"--inner\r\nContent-Type: text/html; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nPGI+aGk8L2I+\r\n--inner--\r\n"
    b'--outer\r\nContent-Type: application/pdf; name="a b.pdf"\r\n'
    b'Content-Disposition: attachment; filename="a b.pdf"\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(bytes(range(256))).replace(b"\n", b"\r\n")
    + b"--outer--\r\n",
    "MIME-Version: 1.0",
    "Content-Type: multipart/mixed; boundary=outer",
)


def test_the_body_is_a_tree_of_numbered_parts(contract: Contract) -> None:
    payload = contract.get(contract.deliver(TREE))["payload"]
    found = {part["partId"]: part for part in parts(payload)}
    assert {part_id: part["mimeType"] for part_id, part in found.items()} == {
        "": "multipart/mixed",
        "0": "multipart/alternative",
        "0.0": "text/plain",
        "0.1": "text/html",
        "1": "application/pdf",
    }
    assert decode(found["0.0"]["body"]["data"]) == "café".encode()
    assert decode(found["0.1"]["body"]["data"]) == b"<b>hi</b>"
    assert found["1"]["filename"] == "a b.pdf"
    assert found[""]["body"] == found["0"]["body"] == {"size": 0}
    assert found["0.0"]["body"]["size"] == 5


def test_an_attachment_is_fetched_on_its_own(contract: Contract) -> None:
    message_id = contract.deliver(TREE)
    part = contract.get(message_id)["payload"]["parts"][1]
    assert "data" not in part["body"]
    body = contract.client().attachment(contract.request, message_id, part["body"]["attachmentId"])
    answer = json.loads(body)
    assert decode(answer["data"]) == bytes(range(256))
    assert answer["size"] == part["body"]["size"] == 256


def test_a_forwarded_message_is_shown_with_its_parts(contract: Contract) -> None:
    raw = mail(
        "outer",
        b"--b\r\nContent-Type: text/plain\r\n\r\nsee below\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment; "
        b"filename=in.eml\r\n\r\n" + mail("inner") + b"\r\n--b--\r\n",
        "Content-Type: multipart/mixed; boundary=b",
    )
    payload = contract.get(contract.deliver(raw))["payload"]
    forwarded = payload["parts"][1]
    assert forwarded["mimeType"] == "message/rfc822"
    assert "parts" in forwarded
    assert values(forwarded["parts"][0], "Subject") == ["inner"]


def test_eight_bit_text_is_shown_in_utf_8(contract: Contract) -> None:
    raw = mail("8bit", b"caf\xe9", "Content-Type: text/plain; charset=iso-8859-1")
    payload = contract.get(contract.deliver(raw))["payload"]
    assert decode(payload["body"]["data"]) == "café".encode()


def test_text_is_shown_to_its_last_byte(contract: Contract) -> None:
    payload = contract.get(contract.deliver(mail("t", b" \r\ntext\r\n\r\n")))["payload"]
    assert decode(payload["body"]["data"]) == b" \r\ntext\r\n\r\n"


def test_what_is_not_there_is_not_found(contract: Contract) -> None:
    gone = contract.deliver()
    contract.box.delete(gone)
    for message_id in (gone, "1000000000000000"):
        assert is_not_found(lambda: contract.get(message_id))  # noqa: B023 - called at once
    client = contract.client()
    assert is_not_found(lambda: list(client.thread_messages(contract.request, "1000000000000000")))
    assert contract.ids() == []


# ---- threads and labels


@pytest.mark.parametrize("format", ["full", "metadata"])
def test_a_thread_holds_its_messages_oldest_first_as_they_are_one_by_one(
    contract: Contract, format: str
) -> None:
    first = contract.deliver(second=10)
    thread_id = contract.get(first)["threadId"]
    later = contract.deliver(second=30, thread_id=thread_id)
    between = contract.deliver(second=20, thread_id=thread_id)
    contract.deliver(second=15)
    messages = list(contract.client(format).thread_messages(contract.request, thread_id))
    assert [value["id"] for _, value in messages] == [first, between, later]
    for text, value in messages:
        assert json.loads(text) == value == contract.get(value["id"], format)


def test_a_thread_has_its_trashed_messages_too(contract: Contract) -> None:
    first = contract.deliver()
    thread_id = contract.get(first)["threadId"]
    trashed = contract.deliver(second=1, thread_id=thread_id, labels=["TRASH"])
    messages = contract.client().thread_messages(contract.request, thread_id)
    assert [value["id"] for _, value in messages] == [first, trashed]


def test_labels_are_listed_with_id_name_and_type(contract: Contract) -> None:
    found = {
        value["id"]: (value["name"], value["type"])
        for text, value in contract.client().labels(contract.request)
        if json.loads(text) == value
    }
    assert found[LABEL] == (LABEL_NAME, "user")
    assert found["INBOX"] == ("INBOX", "system")
    assert found.keys() >= {"SENT", "TRASH", "SPAM", "UNREAD", "STARRED", "DRAFT"}


def test_a_label_keeps_its_id_when_it_is_renamed(contract: Contract) -> None:
    wearer = contract.deliver(labels=[LABEL])
    contract.box.rename_label("Customers")
    names = {value["id"]: value["name"] for _, value in contract.client().labels(contract.request)}
    assert names[LABEL] == "Customers"
    assert contract.get(wearer, "minimal")["labelIds"] == [LABEL]


# ---- history


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


# ---- errors


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
