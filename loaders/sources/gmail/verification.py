"""A mailbox against the warehouse: ids by listing, labels by listing each of them.

No message is read. Source: Gmail API v1, users.messages.list, users.history.list.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from loaders.errors import PayloadError, TransientSourceError
from loaders.objects.payloads import admit
from loaders.sources.contract import FetchRequest, NotVerifiable
from loaders.sources.gmail.client import GmailClient, LabelNotListed
from loaders.sources.gmail.fetching import ATTACHMENT, LABEL, MESSAGE
from loaders.sources.gmail.history import HIDDEN_LABELS, Changes, read_changes
from loaders.sources.gmail.identity import check_mailbox
from loaders.sources.gmail.position import Position
from loaders.sources.gmail.sync import MAX_LISTINGS, MESSAGES
from loaders.sources.inventory import (
    ANY,
    CHANGED_SINCE,
    DEAD_LETTER,
    EXTRA,
    NOT_READ_YET,
    Inventory,
)
from loaders.sources.refusals import NotFound


class MailboxVerification:
    """Fills an inventory with what the warehouse holds of a mailbox, and with what it lists."""

    def __init__(self, client: GmailClient, request: FetchRequest, inventory: Inventory) -> None:
        self._client = client
        self._request = request
        self._inventory = inventory

    def read(self) -> None:
        """Read both sides. Raises NotVerifiable, SourceError, TransientSourceError."""
        # The position before what is held: a run in between then only explains more.
        position = self._position()
        check_mailbox(self._client, self._request, position, self._client.profile(self._request))
        self._hold(position)
        pinned = self._after(self._changes(position), position)
        self._list_mailbox(pinned)
        self._list_labels()
        changes = self._changes(position)
        self._inventory.excuse(MESSAGE, changes.messages, CHANGED_SINCE)

    def _position(self) -> Position:
        position = Position.read(self._request.stored.cursor(MESSAGES))
        if position is None:
            raise NotVerifiable('gmail: nothing is stored yet; run "run.py gmail" first')
        if position.include_spam_trash != self._client.config.include_spam_trash:
            raise NotVerifiable(
                'gmail: include_spam_trash has changed; run "run.py gmail" first, it reads the'
                " mailbox whole"
            )
        if position.snapshot is not None:
            raise NotVerifiable(
                "gmail: the mailbox is still being read whole; finish that first, with"
                ' "run.py gmail --until-done"'
            )
        return position

    def _hold(self, position: Position) -> None:
        inventory, stored = self._inventory, self._request.stored
        inventory.hold(MESSAGE, (key for key, _ in stored.held_ids(MESSAGE)))
        inventory.excuse(MESSAGE, stored.dead(MESSAGE), DEAD_LETTER)
        inventory.excuse(MESSAGE, position.unfetched, NOT_READ_YET)
        if any(True for _ in stored.held_ids(ATTACHMENT)):
            inventory.notes.append("attachments: Gmail lists none")

    def _changes(self, position: Position) -> Changes:
        try:
            return read_changes(self._client.history(self._request, position.start), position)
        except NotFound as error:
            raise NotVerifiable(
                "gmail: the stored history id has expired, so what has changed since cannot be"
                ' told; run "run.py gmail" first, it reads the mailbox whole'
            ) from error

    @staticmethod
    def _after(changes: Changes, position: Position) -> Position:
        return dataclasses.replace(position, history_id=changes.history_id, label_history_id=None)

    def _list_mailbox(self, pinned: Position) -> None:
        """List all ids, again when a page may have skipped one: see MailboxSync._list_mailbox."""
        for number in range(1, MAX_LISTINGS + 1):
            self._inventory.list_states(MESSAGE, ((key, "") for key in self._listed()))
            changes = self._changes(pinned)
            if not changes.has_removals and (number > 1 or not self._inventory.differing(EXTRA)):
                return
            pinned = self._after(changes, pinned)
        raise TransientSourceError(
            f"gmail: messages were removed during each of {MAX_LISTINGS} listings, so none is"
            " known to be whole; verify again when the mailbox is at rest"
        )

    def _listed(self) -> Iterator[str]:
        pages = self._client.message_refs(self._request)
        return (ref["id"] for ref in itertools.chain.from_iterable(pages))

    def _list_labels(self) -> None:
        """The labels themselves, and of each the messages that have it."""
        inventory, stored = self._inventory, self._request.stored
        inventory.hold(LABEL, (key for key, _ in stored.held_ids(LABEL)))
        inventory.hold_states(LABEL, ((key, [value]) for key, value in stored.hashes(LABEL)))
        label_ids = set()
        for text, value in self._client.labels(self._request):
            label_id = str(value.get("id"))
            label_ids.add(label_id)
            try:
                inventory.list_states(LABEL, [(label_id, admit(text)[2])])
            except PayloadError:
                inventory.list_ids(LABEL, [label_id])
        # History tells nothing of labels themselves: a run reads all of them once in a while.
        inventory.excuse(LABEL, [ANY], CHANGED_SINCE)
        # Any other label of a message is left alone, as nothing can be listed by it.
        hidden = () if self._client.config.include_spam_trash else HIDDEN_LABELS
        label_ids.difference_update(hidden)
        unlisted = set()
        for label_id in sorted(label_ids):
            ids = self._client.labelled(self._request, label_id)
            try:
                inventory.list_states(MESSAGE, [(key, label_id) for key in ids])
            except LabelNotListed as error:
                unlisted.add(label_id)
                inventory.notes.append(f"label not compared: {error}")
        known = (label_ids | stored.held(LABEL)).difference(hidden, unlisted)
        inventory.hold_states(
            MESSAGE,
            (
                (key, [str(label) for label in labels or () if str(label) in known])
                for key, labels in stored.members(MESSAGE, "$.labelIds")
            ),
        )
