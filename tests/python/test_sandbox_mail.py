"""Mail put into the sandbox as bytes: what the API shows of it, in process."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landfall_sandbox.controls.changes import apply_changes
from landfall_sandbox.mailbox import Mailbox
from landfall_sandbox.raw_mail import MAX_DEPTH
from loaders.objects.payloads import admit

NESTED = (
    b"From: inner@example.com\r\nSubject:no blank,\r\n\tfolded\r\nX-Odd:\xff\r\n"
    b"Content-Type: text/plain\r\n\r\ninner text \xfe\r\n"
)
TREE = (
    b"From: outer@example.com\r\n"
    b'Content-Type: multipart/mixed; boundary="outer"\r\n\r\npreamble\r\n'
    b"--outer\r\nContent-Type: multipart/alternative; boundary=inner\r\n\r\n"
    b"--inner\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\ncaf=E9\r\n"
    b"--inner\r\nContent-Type: text/html\r\n\r\n<p>caf&eacute;</p>\r\n--inner--\r\n"
    b"--outer\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
    b"Content-Disposition: attachment; filename*=utf-8''%C3%A9t%C3%A9.pdf\r\n\r\nJVBERg==\r\n"
    b"--outer\r\nContent-Type: message/rfc822\r\n\r\n" + NESTED + b"\r\n--outer--\r\n"
)
OWN_TEXT = b"Content-Type: text/plain\r\n\r\nhello"


@pytest.fixture(scope="module")
def mailbox() -> Mailbox:
    return Mailbox(1, 0)


def put(mailbox: Mailbox, raw: bytes) -> int:
    mail = {"raw": base64.urlsafe_b64encode(raw).decode()}
    (message_id,) = apply_changes(mailbox, {"insert": [mail]})["affected"]["insert"]
    return mailbox.index_of(message_id)


def full(mailbox: Mailbox, raw: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = mailbox.message(put(mailbox, raw))["payload"]
    return payload


def header(mailbox: Mailbox, line: bytes) -> tuple[str, str]:
    (only,) = full(mailbox, line + b"\r\n\r\n")["headers"]
    return only["name"], only["value"]


def parts(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield part
    for child in part.get("parts", []):
        yield from parts(child)


def data(part: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64decode(part["body"]["data"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b" plain", "plain"),
        (b"no blank", "no blank"),
        (b" one\r\n        two\r\n\tthree ", "one        two\tthree "),
        (b"\r\n folded at once", "folded at once"),
        (b" =?utf-8?q?a=C3=A9_b?= <a@example.com>", "aé b <a@example.com>"),
        (b" =?UTF-8?B?8J+a?=\r\n =?utf-8?b?gA?= x", "\U0001f680 x"),
        (b" =?iso-8859-1?q?=E9?= =?utf-8*en?q?=C3=A9?=", "éé"),
        (b" =?x-unknown?q?a?= =?utf-8?b?%%?=", "=?x-unknown?q?a?= =?utf-8?b?%%?="),
        ("é \U0001f680".encode(), "é \U0001f680"),
        (b" \xe9t\xe9", "été"),
        (b" a\x00b", "a\x00b"),
    ],
)
def test_header_values_are_unfolded_and_decoded(mailbox: Mailbox, value: bytes, shown: str) -> None:
    assert header(mailbox, b"Subject:" + value) == ("Subject", shown)


def test_the_tree_is_that_of_the_mail(mailbox: Mailbox) -> None:
    index = put(mailbox, TREE)
    message = mailbox.message(index)
    found = {part["partId"]: part for part in parts(message["payload"])}
    assert {part_id: part["mimeType"] for part_id, part in found.items()} == {
        "": "multipart/mixed",
        "0": "multipart/alternative",
        "0.0": "text/plain",
        "0.1": "text/html",
        "1": "application/pdf",
        "2": "message/rfc822",
        "2.0": "text/plain",
    }
    assert data(found["0.0"]) == "café".encode()
    assert data(found["0.1"]) == b"<p>caf&eacute;</p>"
    assert data(found["2.0"]) == b"inner text \xfe\r\n"
    assert found[""]["body"] == found["0"]["body"] == {"size": 0}
    assert [part["filename"] for part in found.values() if part["filename"]] == ["été.pdf"]
    attached = {
        part_id: mailbox.attachment(index, part["body"]["attachmentId"])
        for part_id, part in found.items()
        if "attachmentId" in part["body"]
    }
    assert attached == {"1": b"%PDF", "2": NESTED}
    assert all(found[each]["body"]["size"] == len(attached[each]) for each in attached)
    values = {each["name"]: each["value"] for each in found["2.0"]["headers"]}
    assert values["Subject"] == "no blank,\tfolded"
    assert message["snippet"] == "café"


def test_text_stays_as_it_is_where_its_charset_does_not_fit(mailbox: Mailbox) -> None:
    for charset in (b"us-ascii", b"x-unknown", b"utf-8"):
        raw = b"Content-Type: text/plain; charset=" + charset + b"\r\n\r\n\xff\xfe text"
        assert data(full(mailbox, raw)) == b"\xff\xfe text"


def test_html_alone_makes_the_snippet(mailbox: Mailbox) -> None:
    html = b"<style>p{}</style><p>Fish &amp; chips</p>"
    index = put(mailbox, b"Content-Type: text/html\r\n\r\n" + html)
    assert mailbox.message(index, "minimal")["snippet"] == "Fish &amp; chips"


def nested(depth: int) -> bytes:
    raw = OWN_TEXT
    for level in range(depth):
        mark = b"b%d" % level
        head = b"Content-Type: multipart/mixed; boundary=" + mark
        raw = head + b"\r\n\r\n--" + mark + b"\r\n" + raw + b"\r\n--" + mark + b"--\r\n"
    return raw


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 3_000])
def test_nesting_without_end_is_cut_off(mailbox: Mailbox, depth: int) -> None:
    raw = nested(depth)
    index = put(mailbox, raw)
    assert len(list(parts(mailbox.message(index)["payload"]))) <= MAX_DEPTH + 1
    assert mailbox.raw(index) == raw
    admit(json.dumps(mailbox.message(index)))


@pytest.mark.parametrize("size", [0, 1, 300])
def test_any_size_of_mail_comes_back(mailbox: Mailbox, size: int) -> None:
    raw = bytes(range(256)) * size
    message = mailbox.message(put(mailbox, raw), "raw")
    assert base64.urlsafe_b64decode(message["raw"]) == raw
    assert message["sizeEstimate"] == len(raw)


_LINES = st.sampled_from(
    [
        b"",
        b"Subject: =?utf-8?b?4oKs?=",
        b"Content-Type: multipart/mixed; boundary=b",
        b"Content-Type: multipart/digest; boundary=b",
        b"Content-Type: message/rfc822",
        b"Content-Type: message/delivery-status",
        b"Content-Type: text/plain; charset=\x00\xff",
        b"Content-Type: text/\xff",
        b"Content-Disposition: attachment; filename*=bad''%ff",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: x-uuencode",
        b"begin 666 x",
        b"--b",
        b"--b--",
        b"From me now",
    ]
)


@given(st.lists(_LINES | st.binary(max_size=12), max_size=14), st.sampled_from([b"\n", b"\r\n"]))
@settings(max_examples=300, deadline=None)
def test_nothing_is_refused_or_lost(lines: list[bytes], line_end: bytes) -> None:
    mailbox, raw = Mailbox(1, 0), line_end.join(lines)
    index = put(mailbox, raw)
    assert mailbox.raw(index) == raw
    message = mailbox.message(index)
    admit(json.dumps(message, ensure_ascii=False))
    for part in parts(message["payload"]):
        if "attachmentId" in part["body"]:
            content = mailbox.attachment(index, part["body"]["attachmentId"])
            assert len(content) == part["body"]["size"]
    mailbox.envelope(index)
    mailbox.message(index, "metadata")
