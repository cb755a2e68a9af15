"""What is stored of a message is what the API sent, and that is the mail that was put in.

CPython's own mail corpus and a sample of the generated mail take the whole way: sandbox, HTTP,
GmailClient, the landing gate, dlt, the MERGE, and back out of raw_objects.
"""

from __future__ import annotations

import base64
import email.header
import json
import re
import urllib.request
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.warehouse.base import Warehouse
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable
from tests.python.conftest import LABELS, Run, run_gmail, stored

pytestmark = pytest.mark.slow

GENERATED = 60
NO_CORPUS = "NOT PROVED HERE: this Python comes without its own tests, whose mail is read"


@pytest.fixture(scope="module")
def corpus() -> dict[str, bytes]:
    """CPython's mails by file name."""
    try:
        folder = resources.files("test.test_email") / "data"
        found = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    except (ModuleNotFoundError, OSError):
        unavailable(PeerUnavailable(NO_CORPUS))
    mails = {name: raw for name, raw in found.items() if name.startswith("msg_")}
    if len(mails) < 40:
        unavailable(PeerUnavailable(NO_CORPUS))
    return mails


@pytest.fixture(scope="module")
def mailbox(corpus: dict[str, bytes]) -> Iterator[tuple[Sandbox, dict[str, bytes]]]:
    """A sandbox with the corpus and generated mail, and what was put in by message id."""
    with Sandbox(size=GENERATED, seed=3) as sandbox:
        put_in = {sandbox.insert(raw, labels=["INBOX"]): raw for raw in corpus.values()}
        assert len(put_in) == len(corpus)
        yield sandbox, put_in


def payloads(warehouse: Warehouse, run: Run, sandbox: Sandbox) -> dict[str, str]:
    assert run.error is None
    found = {key: str(row["payload"]) for key, row in stored(warehouse).items()}
    assert run.counts == {"inserted": len(found) + LABELS}
    assert sorted(found) == sorted(sandbox.live_ids())
    return found


def api(sandbox: Sandbox, message_id: str, format: str) -> str:
    """What the API says of a message."""
    url = f"{sandbox.base_url}/gmail/v1/users/me/messages/{message_id}?format={format}"
    request = urllib.request.Request(url, headers={"Authorization": "Bearer any"})
    with urllib.request.urlopen(request) as response:
        return str(response.read().decode())


def value(text: str) -> Any:
    """A JSON value whose numbers are their literals, without what changes on every read."""

    def number(literal: str) -> tuple[str, str]:
        return ("number", literal)

    def without_volatile(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: each for name, each in pairs if name != "attachmentId"}

    return json.loads(
        text, parse_int=number, parse_float=number, object_pairs_hook=without_volatile
    )


def headers_of(raw: bytes) -> list[tuple[str, str]]:
    """The headers of a mail, read without the `email` package's parser: RFC 5322, 2.2."""
    lines = re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", raw)
    found: list[list[bytes]] = []
    for number, line in enumerate(lines):
        if line[:1] in b" \t" and line.strip() and found:
            found[-1].append(line)
        elif re.match(rb"[!-9;-~]+:", line):
            found.append([line])
        elif not (number == 0 and line.startswith(b"From ")):
            break
    return [header_of(b"".join(lines)) for lines in found]


def header_of(source: bytes) -> tuple[str, str]:
    name, _, rest = source.decode().partition(":")
    unfolded = rest.replace("\r", "").replace("\n", "").lstrip(" \t")
    if "=?" in unfolded:
        unfolded = str(email.header.make_header(email.header.decode_header(unfolded)))
    return name, unfolded


def test_full_is_stored_as_the_api_sent_it(
    warehouse: Warehouse, mailbox: tuple[Sandbox, dict[str, bytes]], merge_only: None
) -> None:
    sandbox, put_in = mailbox
    sandbox.reset_stats()
    # With the costs as they are, threads are read whole where that is cheaper.
    run = run_gmail(warehouse, sandbox, fetch_format="full", unit_costs={})
    assert sandbox.stats()["requests"]["threads.get"] > 0
    found = payloads(warehouse, run, sandbox)
    assert found.keys() >= put_in.keys()
    for message_id, text in found.items():
        assert value(text) == value(api(sandbox, message_id, "full"))
        headers = [(each["name"], each["value"]) for each in json.loads(text)["payload"]["headers"]]
        raw = json.loads(api(sandbox, message_id, "raw"))["raw"]
        assert headers == headers_of(put_in.get(message_id, base64.urlsafe_b64decode(raw)))
    names = [[name.lower() for name, _ in headers_of(raw)] for raw in put_in.values()]
    assert any(len(set(each)) < len(each) for each in names), "no repeated header in the corpus"


def test_raw_is_stored_byte_by_byte(
    warehouse: Warehouse, mailbox: tuple[Sandbox, dict[str, bytes]], merge_only: None
) -> None:
    sandbox, put_in = mailbox
    found = payloads(warehouse, run_gmail(warehouse, sandbox, fetch_format="raw"), sandbox)
    for message_id, text in found.items():
        assert value(text) == value(api(sandbox, message_id, "raw"))
    for message_id, raw in put_in.items():
        assert base64.urlsafe_b64decode(json.loads(found[message_id])["raw"]) == raw
