"""What these tests have in common."""

from __future__ import annotations

import base64
import dataclasses
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
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.options import GmailConfig
from loaders.sources.refusals import NotFound
from loaders.warehouse.contents import Stored
from tests.peers.emulate import run_emulate
from tests.peers.gmail_stand_ins import EmulateMailbox, SandboxMailbox, StandIn
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


def is_not_found(read: Callable[[], object]) -> bool:
    try:
        read()
    except NotFound:
        return True
    return False
