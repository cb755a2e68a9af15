"""Whether a mailbox is the one that a connection has read so far, whatever its address is now."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Mapping
from typing import Any

import orjson

from loaders.errors import SourceError
from loaders.sources.contract import FetchRequest
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.fetching import MESSAGE
from loaders.sources.gmail.position import Position
from loaders.sources.refusals import NotFound, RequestRefused

_CHOSEN_FROM, _LOOKED_UP = 1_000, 20
"""Stored messages to look up in a mailbox with another address."""
_NEVER_CHANGING = ("threadId", "internalDate")


def check_mailbox(
    client: GmailClient, request: FetchRequest, position: Position, profile: Mapping[str, Any]
) -> Position:
    """The position, of the mailbox's address today.

    A mailbox with another address is the same when at least half of some stored messages are
    there, and none of them as another message: ids are a mailbox's own. Raises SourceError for
    another one, which under the same name would tombstone all of the first one's mail.
    """
    address = str(profile.get("emailAddress", ""))
    if address.casefold() == position.mailbox.casefold():
        return position
    stored = request.stored.members(MESSAGE, *(f"$.{name}" for name in _NEVER_CHANGING))
    chosen = list(itertools.islice(stored, _CHOSEN_FROM))
    chosen = random.sample(chosen, min(_LOOKED_UP, len(chosen)))
    found = [_found(client, request, message_id) for message_id, *_ in chosen]
    same = sum(one == list(then) for one, (_, *then) in zip(found, chosen, strict=True))
    others = sum(one is not None for one in found) - same
    if others or not same or 2 * same < len(chosen):
        raise SourceError(
            "gmail: the credentials open another mailbox than this connection has read so far"
            f" ({same} of {len(chosen)} stored messages looked up are in it); give that mailbox a"
            " connection of its own, or correct the credentials"
        )
    request.say(
        f"gmail: the mailbox has another address and is the same: {same} of {len(chosen)} stored"
        " messages looked up are in it"
    )
    return dataclasses.replace(position, mailbox=address)


def _found(client: GmailClient, request: FetchRequest, message_id: str) -> list[Any] | None:
    """What never changes of a message; None where it is not there."""
    try:
        value = orjson.loads(client.message(request, message_id))
    except (NotFound, RequestRefused, orjson.JSONDecodeError):
        return None
    return [value.get(name) for name in _NEVER_CHANGING] if isinstance(value, dict) else None
