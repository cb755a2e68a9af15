"""Pages of the mailbox's history.

Source: Gmail API v1, users.history.list.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from landfall_sandbox import google_errors as errors
from landfall_sandbox.layout import FIRST_HISTORY_ID, HISTORY_STEP
from landfall_sandbox.mailbox import Mailbox
from landfall_sandbox.state import Change

_RECORD_KEYS = {
    "messageAdded": "messagesAdded",
    "messageDeleted": "messagesDeleted",
    "labelAdded": "labelsAdded",
    "labelRemoved": "labelsRemoved",
}
HISTORY_TYPES = tuple(_RECORD_KEYS)


def history_page(
    mailbox: Mailbox,
    start: int,
    position: int | None,
    limit: int,
    types: list[str],
    label: str | None,
) -> tuple[dict[str, Any], int | None]:
    """Return one page of history after `start`, and where the next one begins, if any.

    `position` is where an earlier page ended. Raises ApiError 404 when `start` is older than the
    history kept, or newer than the mailbox.
    """
    kept_since = mailbox.state.history_expired_before or FIRST_HISTORY_ID
    if not kept_since <= start <= mailbox.history_id:
        raise errors.not_found()
    changes = (
        change
        for change in _changes(mailbox, max(start, position or 0))
        if change.kind in types and (not label or label in change.labels + change.changed)
    )
    found = list(islice(changes, limit + 1))
    answer: dict[str, Any] = {"historyId": str(mailbox.history_id)}
    if found:
        answer["history"] = [_record(mailbox, change) for change in found[:limit]]
    return answer, found[limit - 1].history_id if len(found) > limit else None


def _changes(mailbox: Mailbox, after: int) -> Iterator[Change]:
    first = max(0, (after - FIRST_HISTORY_ID) // HISTORY_STEP)
    for index in range(first, mailbox.size):
        history_id = mailbox.layout.base_history_id(index)
        yield Change(history_id, "messageAdded", index, mailbox.layout.labels(index), ())
    yield from mailbox.state.changes(max(after, mailbox.state.first_history_id))


def _record(mailbox: Mailbox, change: Change) -> dict[str, Any]:
    ids = {"id": mailbox.message_id(change.index), "threadId": mailbox.thread_id(change.index)}
    message: dict[str, Any] = ids | ({"labelIds": list(change.labels)} if change.labels else {})
    entry: dict[str, Any] = {"message": message}
    if change.changed:
        entry["labelIds"] = list(change.changed)
    return {"id": str(change.history_id), "messages": [ids], _RECORD_KEYS[change.kind]: [entry]}
