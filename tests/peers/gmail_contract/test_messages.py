"""Messages, threads and labels."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.peers.gmail_stand_ins import LABEL, LABEL_NAME

from .conftest import START, Contract, decode, is_not_found, mail, parts


def values(payload: dict[str, Any], name: str) -> list[str]:
    return [each["value"] for each in payload["headers"] if each["name"] == name]


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
