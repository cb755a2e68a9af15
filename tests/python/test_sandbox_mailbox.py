"""The sandbox's generated mailbox, in process."""

import base64
import email
import email.header
import email.message
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls.changes import apply_changes
from landfall_sandbox.layout import LABEL_NAMES
from landfall_sandbox.mailbox import Mailbox
from landfall_sandbox.state import State

ROOT = Path(__file__).resolve().parents[2]
DIGEST = """
import hashlib
from landfall_sandbox.mailbox import Mailbox
mailbox = Mailbox(5, 250)
digest = hashlib.sha256()
for index in range(250):
    message = mailbox.message(index, "raw")
    digest.update(repr(sorted(message.items())).encode())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def mailbox() -> Mailbox:
    return Mailbox(5, 250)


def parts(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield part
    for child in part.get("parts", []):
        yield from parts(child)


def decoded(value: str) -> str:
    unfolded = value.replace("\r\n", "")
    if "=?" not in unfolded:
        return unfolded
    return str(email.header.make_header(email.header.decode_header(unfolded)))


def headers_of(message: email.message.Message) -> list[tuple[str, str]]:
    return [(name, decoded(value)) for name, value in message.items()]


def payload_headers(part: dict[str, Any]) -> list[tuple[str, str]]:
    return [(header["name"], header["value"]) for header in part["headers"]]


def test_two_processes_generate_the_same_mail() -> None:
    command = [sys.executable, "-c", DIGEST]
    runs = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert len(runs[0].stdout.strip()) == 64
    assert runs[0].stdout == runs[1].stdout


def test_another_seed_generates_other_mail(mailbox: Mailbox) -> None:
    other = Mailbox(6, 250)
    assert {other.message_id(i) for i in range(250)}.isdisjoint(
        mailbox.message_id(i) for i in range(250)
    )
    assert other.raw(3) != mailbox.raw(3)


def test_every_message_parses_from_raw_to_the_headers_of_full(mailbox: Mailbox) -> None:
    for index in range(250):
        raw = email.message_from_bytes(mailbox.raw(index))
        full = mailbox.message(index)["payload"]
        assert headers_of(raw) == payload_headers(full)
        parsed = [headers_of(part) for part in raw.walk()]
        assert parsed == [payload_headers(part) for part in parts(full)]


def test_every_body_holds_the_text_of_raw_in_utf_8(mailbox: Mailbox) -> None:
    charsets = set()
    for index in range(250):
        raw = email.message_from_bytes(mailbox.raw(index))
        for parsed, part in zip(raw.walk(), parts(mailbox.message(index)["payload"]), strict=True):
            if "data" not in part["body"]:
                continue
            shown = base64.urlsafe_b64decode(part["body"]["data"])
            charset = parsed.get_content_charset() or ""
            charsets.add(charset)
            original = parsed.get_payload(decode=True)
            assert isinstance(original, bytes)
            if charset == "x-unknown-7":
                assert shown == original
            else:
                assert shown.decode() == original.decode(charset)
            assert part["body"]["size"] == len(shown)
    odd = {"iso-8859-1", "windows-1251", "shift_jis", "x-unknown-7"}
    assert charsets == odd | {"us-ascii", "utf-8"}


def test_the_default_mailbox_holds_every_awkward_case() -> None:
    mailbox = Mailbox(1, 250)
    messages = [mailbox.message(index) for index in range(250)]
    names = [[header["name"] for header in message["payload"]["headers"]] for message in messages]
    assert all(any(missing not in each for each in names) for missing in ("Subject", "Date"))
    assert any("Message-ID" not in each for each in names)
    assert any(each.count("X-Tag") == 2 for each in names)
    assert any(each.count("Received") >= 2 for each in names)
    types = {part["mimeType"] for message in messages for part in parts(message["payload"])}
    assert {"multipart/alternative", "multipart/mixed", "message/rfc822"} <= types
    assert {"application/pdf", "image/png", "text/csv", "text/html", "text/plain"} <= types
    sizes = [part["body"]["size"] for m in messages for part in parts(m["payload"])]
    assert max(sizes) > 1_000_000
    assert any(
        "parts" not in m["payload"] and m["payload"]["body"] == {"size": 0} for m in messages
    )
    subjects = " ".join(value for m in messages for name, value in payload_headers(m["payload"]))
    assert all(text in subjects for text in ("{{", "DROP TABLE", "\"it's", "\U0001f680", "\u0645"))
    assert 2_500 < statistics.median(len(json.dumps(message)) for message in messages) < 6_000


def test_every_label_is_used_by_a_message_of_the_default_mailbox() -> None:
    mailbox = Mailbox(1, 250)
    used = {label for index in range(250) for label in mailbox.labels(index)}
    assert used == LABEL_NAMES.keys() - {"CHAT"}


@pytest.mark.parametrize("size", [1, 250, 1_000_000])
def test_ids_map_back_to_their_index(size: int) -> None:
    mailbox = Mailbox(5, size)
    for index in {0, size // 2, size - 1}:
        assert mailbox.index_of(mailbox.message_id(index)) == index
    with pytest.raises(KeyError):
        mailbox.index_of(mailbox.message_id(size))
    with pytest.raises(ValueError, match="not a Gmail id"):
        mailbox.index_of("not an id")


@pytest.mark.parametrize("size", [250, 1_000_000])
def test_dates_increase_strictly_and_deliveries_come_last(size: int) -> None:
    layout = Mailbox(5, size).layout
    dates = [layout.date_ms(index) for index in range(size - 250, size + 250)]
    assert all(earlier < later for earlier, later in pairwise(dates))
    assert layout.date_ms(size - 1) < 1_782_777_600_000 <= layout.date_ms(size)


def test_a_thread_is_named_after_its_first_message(mailbox: Mailbox) -> None:
    sizes = {}
    for index in range(240):
        members = mailbox.thread(mailbox.thread_id(index))
        sizes[members[0]] = len(members)
        assert index in members
        assert mailbox.thread_id(index) == mailbox.message_id(members[0])
    assert (min(sizes.values()), max(sizes.values())) == (1, 12)
    assert statistics.mean(sizes.values()) == 2.5


def test_counts_by_arithmetic_equal_counts_by_walking() -> None:
    mailbox = Mailbox(5, 130_000)
    apply_changes(mailbox, {"delete": 300, "deliver": 7})
    apply_changes(mailbox, {"labels": {"ids": 300, "add": ["Label_2"], "remove": ["INBOX"]}})
    for label in ("Label_2", "INBOX"):
        indexes = [i for i in range(mailbox.total) if mailbox.exists(i)]
        labelled = [i for i in indexes if label in mailbox.labels(i)]
        counts = mailbox.label(label)
        assert counts["messagesTotal"] == len(labelled)
        assert counts["threadsTotal"] == len({mailbox.layout.thread_root(i) for i in labelled})


def test_an_existing_state_decides_seed_and_size(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    first = Mailbox(5, 40, State(path, 5, 40))
    apply_changes(first, {"deliver": 2, "delete": 3})
    again = State(path, 6, 1_000)
    second = Mailbox(6, 1_000, again)
    assert (second.seed, second.size, len(second)) == (5, 40, 39)
    assert second.history_id == first.history_id
    assert second.state.deleted == first.state.deleted
