"""The mailbox that victims read, as its API serves it."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from loaders.sandbox import Sandbox

SIZE = 60
"""Messages, spam and trash included: three load packages of BATCH_SIZE."""
BATCH_SIZE = 20
CONNECTION = "chaos"
TOKEN = "token-of-the-kill-harness"


def open_mailbox() -> Sandbox:
    """A server with the same mailbox every time; nothing is started yet."""
    return Sandbox(size=SIZE, seed=1)


def live_messages(sandbox: Sandbox) -> dict[str, Any]:
    """The messages that a run must store, by id, without volatile values."""
    return {message_id: _fetch(sandbox, message_id) for message_id in sandbox.live_ids()}


def without_volatile(value: Any) -> Any:
    """A payload with its attachment ids blanked: they change on every read."""
    if isinstance(value, dict):
        return {
            key: None if key == "attachmentId" else without_volatile(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_volatile(item) for item in value]
    return value


def _fetch(sandbox: Sandbox, message_id: str) -> Any:
    request = urllib.request.Request(
        f"{sandbox.base_url}/gmail/v1/users/me/messages/{message_id}?format=full",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        return without_volatile(json.load(response))
