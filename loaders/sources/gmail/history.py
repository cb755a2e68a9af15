"""What happened to each message, from the records of the mailbox's history.

Source: Gmail API v1, users.history.list. Records come in the order of their ids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from loaders.errors import TransientSourceError
from loaders.sources.gmail.position import Position

HIDDEN_LABELS = frozenset(("SPAM", "TRASH"))
"""Messages with one of these are in no listing, unless includeSpamTrash is set."""

ADDED, RELABELLED, REMOVED = "added", "relabelled", "removed"


@dataclasses.dataclass(slots=True)
class Change:
    """What the history comes to for one message, and the id of its last record."""

    kind: str
    thread_id: str
    record_id: str
    is_arrival: bool = False
    """Whether that is the only record, and the message is new."""

    @property
    def order(self) -> int:
        """History ids are numbers of any size, written as text."""
        return int(self.record_id)


@dataclasses.dataclass
class Changes:
    """The changes of a stretch of history, by message id."""

    history_id: str
    """Where the mailbox stood when the stretch was read: everything up to it is in here, and
    perhaps some of what came after."""
    messages: dict[str, Change]
    label_ids: set[str]
    """Labels that were put on messages."""
    has_removals: bool = False
    """Whether listed messages were deleted, or moved to where they are not listed."""
    pages: int = 1

    def of_kind(self, kind: str) -> dict[str, Change]:
        """The changes of one kind, by message id, in the order of their last records."""
        chosen = [item for item in self.messages.items() if item[1].kind == kind]
        return dict(sorted(chosen, key=lambda item: item[1].order))


def read_changes(pages: Iterable[Mapping[str, Any]], position: Position) -> Changes:
    """Reduce pages of history to one change a message.

    added: to be read, as it arrived, or came back from spam or trash; removed: deleted, or
    moved there; relabelled: only its labels changed. Records that `position` covers count
    for deferred label changes only. Raises TransientSourceError for a record that does not
    say which message it is about.
    """
    reader = _Reader(position)
    history_id: str | None = None
    number = 0
    for page in pages:
        number += 1
        # The first page's: later pages may be of a later mailbox.
        history_id = history_id or str(page.get("historyId", position.history_id))
        for record in page.get("history", []):
            reader.read(record)
    reached = history_id or position.history_id
    return Changes(reached, reader.changes, reader.label_ids, reader.has_removals, number)


class _Reader:
    def __init__(self, position: Position) -> None:
        self.changes: dict[str, Change] = {}
        self.label_ids: set[str] = set()
        self.has_removals = False
        self._covered = int(position.history_id)
        self._hidden = frozenset() if position.include_spam_trash else HIDDEN_LABELS

    def read(self, record: Mapping[str, Any]) -> None:
        try:
            record_id = str(record["id"])
            is_covered = int(record_id) <= self._covered
            self.has_removals |= not is_covered and self._removes(record)
            for message, kind in self._kinds(record):
                if is_covered and kind != RELABELLED:
                    # An earlier run read it after this: its labels are known up to there.
                    self.changes.pop(str(message["id"]), None)
                else:
                    self._note(message, kind, record_id, _adds(record, message["id"]))
        except (KeyError, TypeError, ValueError) as error:
            raise TransientSourceError(
                "gmail: history.list: a record without an id, or about no message; run again later"
            ) from error

    def _kinds(self, record: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
        named: set[str] = set()
        for member, kind in (
            ("messagesAdded", ADDED),
            ("labelsAdded", RELABELLED),
            ("labelsRemoved", RELABELLED),
            ("messagesDeleted", REMOVED),
        ):
            for entry in record.get(member, []):
                message = entry["message"]
                named.add(message["id"])
                yield message, self._visible_kind(member, kind, entry)
        for message in record.get("messages", []):
            # Gmail does not always say what happened: then it is to be looked at.
            if message["id"] not in named:
                yield message, RELABELLED

    def _visible_kind(self, member: str, kind: str, entry: Mapping[str, Any]) -> str:
        if kind == REMOVED:
            return kind
        labels = set(entry["message"].get("labelIds", []))
        changed = set(entry.get("labelIds", []))
        self.label_ids |= labels
        if member == "labelsAdded":
            labels |= changed
        if labels & self._hidden:
            return REMOVED
        if member == "labelsRemoved" and changed & self._hidden:
            return ADDED
        return kind

    def _removes(self, record: Mapping[str, Any]) -> bool:
        deleted = [entry["message"] for entry in record.get("messagesDeleted", [])]
        was_listed = any(self._hidden.isdisjoint(each.get("labelIds", [])) for each in deleted)
        moved = record.get("labelsAdded", [])
        return was_listed or any(
            not self._hidden.isdisjoint(entry.get("labelIds", [])) for entry in moved
        )

    def _note(self, message: Mapping[str, Any], kind: str, record_id: str, is_new: bool) -> None:
        message_id, thread_id = str(message["id"]), str(message["threadId"])
        earlier = self.changes.get(message_id)
        if kind == RELABELLED and earlier is not None and earlier.kind == ADDED:
            kind = ADDED
        is_arrival = is_new and earlier is None
        self.changes[message_id] = Change(kind, thread_id, record_id, is_arrival)


def _adds(record: Mapping[str, Any], message_id: str) -> bool:
    return any(entry["message"]["id"] == message_id for entry in record.get("messagesAdded", []))
