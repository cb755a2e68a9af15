"""Messages as no mailbox should have them: stored as they are, or set aside with the reason."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.ingest import DeadLettered
from loaders.sources.gmail.fetching import internal_date
from loaders.warehouse.base import Warehouse
from tests.python.conftest import assert_accounted, on_both_targets, run_gmail, stored

pytestmark = [pytest.mark.usefixtures("stays_open"), pytest.mark.slow]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""
LARGE_BYTES = 25_000_000


@dataclasses.dataclass(frozen=True)
class Bad:
    """What the API answers for one message, and what is to become of it.

    Without `refused_with` it is stored, with that object_created_at. Unless it `counts` it is no
    answer about the message, which the next run asks for again.
    """

    body: bytes
    refused_with: str | None = None
    created_at: dt.datetime | None = None
    counts: bool = True


def message(**members: Any) -> bytes:
    """A message as JSON; ID stands for its id."""
    whole = {"id": "ID", "threadId": "ID", "labelIds": ["INBOX"], "payload": {"headers": []}}
    return json.dumps(whole | members).encode()


def dated(internal_date: Any, created_at: dt.datetime | None = None) -> Bad:
    return Bad(message(internalDate=internal_date), created_at=created_at)


CASES: Mapping[str, Bad] = {
    "without id": Bad(json.dumps({"threadId": "t"}).encode(), "without an id"),
    "another id": Bad(message(id="ID\x00"), counts=False),
    "empty": Bad(b"", counts=False),
    "byte order mark": Bad(b"\xef\xbb\xbf" + message(), counts=False),
    "invalid UTF-8": Bad(message(snippet="SNIPPET").replace(b"SNIPPET", b"\xc3\x28"), "not UTF-8"),
    "Latin-1": Bad(message(snippet="SNIPPET").replace(b"SNIPPET", b"caf\xe9"), "not UTF-8"),
    "surrogate in UTF-8": Bad(message(snippet="S").replace(b'"S"', b'"\xed\xa0\x80"'), "not UTF-8"),
    "lone surrogate": Bad(message(snippet="\ud800"), "unpaired surrogate"),
    "lone surrogate in a name": Bad(message(**{"\udfff": 1}), "unpaired surrogate"),
    "surrogate pair": Bad(message(snippet="\U0001f680")),
    "too deep": Bad(message(payload="P").replace(b'"P"', b"[" * 300 + b"]" * 300), "nested"),
    "number too large": Bad(message(sizeEstimate=10**20), "64 bits"),
    "NUL": Bad(
        message(
            snippet="a\x00b", payload={"headers": [{"name": "Subject", "value": "\x00nul\x00"}]}
        )
    ),
    "control characters": Bad(message(snippet="".join(map(chr, range(1, 160))) + "\u2028\ufffe")),
    "no date": Bad(message()),
    "null date": dated(None),
    "negative date": dated("-5", EPOCH - dt.timedelta(milliseconds=5)),
    "date 0": dated("0", EPOCH),
    "year 1": dated("-62135596800000", dt.datetime(1, 1, 1, tzinfo=dt.UTC)),
    "before year 1": dated("-62135596800001"),
    "year 9999": dated(str(LAST_MS), dt.datetime(9999, 12, 31, 23, 59, 59, 999_000, dt.UTC)),
    "beyond 9999": dated(str(LAST_MS + 1)),
    "beyond 64 bits": dated("9" * 40),
    "no number": dated("yesterday"),
    "empty date": dated(""),
    "fraction": dated("1700000000123.5"),
    "exponent": dated("1e12"),
    "hexadecimal": dated("0x10"),
    "date in a list": dated(["1700000000123"]),
    "number, not text": dated(1_700_000_000_123, EPOCH + dt.timedelta(milliseconds=1700000000123)),
    "large": Bad(message(payload={"headers": [], "body": {"data": "x" * LARGE_BYTES}})),
}


@pytest.fixture(scope="module")
def mailbox() -> Iterator[tuple[Sandbox, dict[str, str]]]:
    """A mailbox with a message for each case, and their ids by case."""
    with Sandbox(size=0) as sandbox:
        ids = {name: sandbox.insert(b"Subject: x\r\n\r\n") for name in CASES}
        sandbox.set_faults(
            [
                faulty("messages.get", ids[name], bad.body.replace(b"ID", ids[name].encode()))
                for name, bad in CASES.items()
            ]
        )
        yield sandbox, ids


def faulty(method: str, object_id: str, body: bytes) -> dict[str, Any]:
    """A rule that answers for one object with these bytes."""
    action = {
        "body_base64": base64.b64encode(body).decode(),
        "content_type": "application/json",
    }
    return {"match": {"method": method, "id": object_id}, "times": None, "action": action}


@on_both_targets
def test_each_is_stored_as_it_is_or_set_aside_with_the_reason(
    warehouse: Warehouse, mailbox: tuple[Sandbox, dict[str, str]]
) -> None:
    sandbox, ids = mailbox
    run = run_gmail(warehouse, sandbox)
    assert isinstance(run.error, DeadLettered)
    assert_accounted(run.telemetry)
    assert run.telemetry["unfetched"] == sum(not bad.counts for bad in CASES.values())

    select = "select external_id, reason, payload from events_staging.dead_letters"
    letters = {key: (reason, text) for key, reason, text in warehouse.execute(select)}
    refused = {name: bad.refused_with for name, bad in CASES.items() if bad.refused_with}
    assert letters.keys() == {ids[name] for name in refused}
    for name, expected in refused.items():
        reason, text = letters[ids[name]]
        assert expected in reason, name
        sent = CASES[name].body.replace(b"ID", ids[name].encode())
        assert text == sent.decode(errors="backslashreplace"), name

    rows = stored(warehouse)
    kept = {name: bad for name, bad in CASES.items() if bad.counts and name not in refused}
    assert rows.keys() == {ids[name] for name in kept}
    for name, bad in kept.items():
        row = rows[ids[name]]
        sent = bad.body.replace(b"ID", ids[name].encode())
        assert json.loads(row["payload"]) == json.loads(sent), name
        assert row["object_created_at"] == bad.created_at, name

    view = "select message_id, internal_date, subject, snippet from events.gmail_messages"
    for message_id, date, subject, snippet in warehouse.execute(view):
        assert date == rows[message_id]["object_created_at"]
        assert snippet == json.loads(rows[message_id]["payload"]).get("snippet")
        assert subject == ("\x00nul\x00" if message_id == ids["NUL"] else None)


def test_a_thread_that_cannot_be_read_is_read_message_by_message(
    warehouse: Warehouse, merge_only: None
) -> None:
    bodies = (b"", b'{"messages": 5}', b'{"messages": [{}, {"id": 7}]}', b'{"messages": ["\xff"]}')
    with Sandbox(size=0) as sandbox:
        rules = []
        for body in bodies:
            root = sandbox.insert(b"Subject: x\r\n\r\n")
            for _ in range(3):
                sandbox.insert(b"Subject: y\r\n\r\n", thread_id=root)
            rules.append(faulty("threads.get", root, body))
        sandbox.set_faults(rules)
        run = run_gmail(warehouse, sandbox, unit_costs={})
        assert run.error is None
        assert sandbox.stats()["requests"]["threads.get"] >= len(bodies)
        assert stored(warehouse).keys() == set(sandbox.live_ids())


def test_labels_of_another_kind_do_not_end_the_run(warehouse: Warehouse, merge_only: None) -> None:
    with Sandbox(size=0) as sandbox:
        message_id = sandbox.insert(b"Subject: x\r\n\r\n")
        body = message(labelIds=[["TRASH"]]).replace(b"ID", message_id.encode())
        sandbox.set_faults([faulty("messages.get", message_id, body)])
        assert run_gmail(warehouse, sandbox).error is None
        assert stored(warehouse).keys() == {message_id}


@pytest.mark.parametrize("literal", [" 12 ", "+5", "1_000", "\uff11\uff12", 1.5, True, "12\n"])
def test_a_date_is_digits_and_nothing_else(literal: Any) -> None:
    assert internal_date({"internalDate": literal}) is None
