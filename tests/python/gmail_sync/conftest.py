"""What these tests have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.warehouse.base import Warehouse
from tests.python.conftest import (
    MAILBOX_SIZE,
    stored,
)
from tests.python.test_ingest_gmail import message_of, without_attachment_ids


@pytest.fixture
def mailbox() -> Iterator[Sandbox]:
    """A mailbox of the test's own, to change."""
    with Sandbox(size=MAILBOX_SIZE, seed=7) as sandbox:
        yield sandbox


def live(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    return {
        key: row
        for key, row in stored(warehouse).items()
        if row["deleted_at"] is None and ":message:" in row["idem_key"]
    }


def assert_mirrors(warehouse: Warehouse, sandbox: Sandbox, *, spam_trash: bool = False) -> None:
    """Live rows are the mailbox: the same messages, each as the API has it now."""
    rows = live(warehouse)
    ids = sandbox.live_ids(include_spam_trash=spam_trash)
    assert set(rows) == set(ids)
    for message_id in ids:
        payload = without_attachment_ids(json.loads(rows[message_id]["payload"]))
        assert payload == message_of(sandbox, message_id)


class Killed(BaseException):
    """The process is gone: nothing after it happens."""


def poisoned(*message_ids: str) -> list[dict[str, Any]]:
    """Faults of messages that fail whenever they are asked for."""
    return [
        {
            "match": {"method": "messages.get", "id": message_id},
            "times": None,
            "action": {"status": 500},
        }
        for message_id in message_ids
    ]
