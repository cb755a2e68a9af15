"""The mailbox as a whole: its ids, and whose labels differ from the stored ones.

Source: Gmail API v1, users.messages.list; 5 units a page of 500 ids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator

from loaders.items import FetchRequest, Listed
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.fetching import MESSAGE


@dataclasses.dataclass
class Snapshot:
    """Messages that are to be read, as {id: thread id}, newest first; and held ones not listed."""

    wanted: dict[str, str]
    missing: set[str]
    total: int


def list_mailbox(
    client: GmailClient,
    request: FetchRequest,
    *,
    held: Collection[str],
    dead: Collection[str],
    query: str | None = None,
) -> Iterator[Listed | Snapshot]:
    """List all ids and yield what is done with already, then the Snapshot.

    `held` messages need no read; `dead` ones failed for good. Raises what the client raises.
    """
    wanted: dict[str, str] = {}
    missing, dead_left = set(held), set(dead) - set(held)
    total = 0
    for page in client.message_refs(request, query):
        new, known, known_dead = 0, 0, 0
        for ref in page:
            message_id = ref["id"]
            if message_id in missing:
                missing.remove(message_id)
                known += 1
            elif message_id in dead_left:
                dead_left.remove(message_id)
                known_dead += 1
            elif message_id not in wanted and message_id not in held and message_id not in dead:
                # One string where both are the same: most threads are one message.
                thread_id = ref.get("threadId", message_id)
                wanted[message_id] = message_id if thread_id == message_id else thread_id
                new += 1
        total += new + known + known_dead
        yield Listed(known + known_dead, known, known_dead)
    yield Snapshot(wanted, missing, total)


def still_missing(client: GmailClient, request: FetchRequest, missing: Collection[str]) -> set[str]:
    """Those of the missing that a second listing lacks too.

    A page may skip a message while others are deleted; a wrong tombstone would stay, as
    history says nothing of a message to which nothing happened.
    """
    left = set(missing)
    if not left:
        return left
    for page in client.message_refs(request):
        if not left:
            break
        left.difference_update(ref["id"] for ref in page)
    return left


def relabelled(
    client: GmailClient, request: FetchRequest, label_ids: Collection[str]
) -> dict[str, str]:
    """Stored messages, as {id: thread id}, whose labels differ from those they have now."""
    bits = {label_id: 1 << number for number, label_id in enumerate(sorted(label_ids))}
    stored: dict[str, int] = {}
    for message_id, labels in request.stored.members(MESSAGE, "$.labelIds"):
        stored[message_id] = sum(
            bits.setdefault(label, 1 << len(bits)) for label in set(labels or ())
        )
    threads: dict[str, str] = {}
    current: dict[str, int] = {}
    for label_id in sorted(label_ids):
        for page in client.message_refs(request, label=label_id):
            for ref in page:
                if ref["id"] in stored:
                    current[ref["id"]] = current.get(ref["id"], 0) | bits[label_id]
                    threads[ref["id"]] = ref.get("threadId", ref["id"])
    return {
        message_id: threads.get(message_id, message_id)
        for message_id, labels in stored.items()
        if current.get(message_id, 0) != labels
    }
