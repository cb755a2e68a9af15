"""What a visible cursor claims to cover, and whether it is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loaders.sources.gmail.sync import MESSAGES
from loaders.sources.stripe.kinds import KINDS
from tests.chaos.snapshots import Snapshot
from tests.chaos.truth import MESSAGE, Event, Truth

Cursor = Mapping[str, Any]
Key = tuple[str, str]
"""Object type and id."""


def uncovered(truth: Truth, killed: Snapshot, clean: Snapshot) -> Iterator[tuple[str, str, str]]:
    """(stream, object type, id) of what a cursor in `killed` covers and `killed` has otherwise.

    What is right is in `clean`. Dead letters count as covered.
    """
    known, final = _newest(killed), _newest(clean)
    dead = {(letter.object_type, letter.external_id) for letter in killed.letters}
    for stream, cursor in killed.cursors.items():
        for key in _claims(truth, stream, cursor):
            if key not in dead and known.get(key) != final.get(key):
                yield (stream, *key)


def _newest(snapshot: Snapshot) -> dict[Key, str | None]:
    """The hash of each object's newest state, merged or queued; None for a tombstone."""
    states = [
        (
            row["last_seen"],
            (row["object_type"], row["external_id"]),
            None if row["deleted_at"] is not None else row["payload_hash"],
        )
        for row in snapshot.objects
    ]
    states += [
        (
            row.observed_at,
            (row.object_type, row.external_id),
            None if row.is_deleted else row.payload_hash,
        )
        for row in snapshot.queue
        if row.is_complete
    ]
    # In time; a state that is merged and not drained yet is there twice.
    return {key: state for _, key, state in sorted(states, key=lambda state: state[0])}


def _claims(truth: Truth, stream: str, cursor: Cursor) -> Iterator[Key]:
    if truth.source == "gmail":
        if stream == MESSAGES:
            yield from _claims_of_history(truth, cursor)
    elif stream in KINDS:
        yield from _claims_of_kind(truth, stream, cursor)


def _claims_of_history(truth: Truth, cursor: Cursor) -> Iterator[Key]:
    """The messages to which nothing happened after the cursor's history id."""
    if cursor.get("snapshot"):
        return  # the mailbox is being read whole
    reached = int(cursor.get("label_history_id") or cursor["history_id"])
    unfetched = set(cursor.get("unfetched", ()))
    for message_id in (*truth.live[MESSAGE], *truth.gone[MESSAGE]):
        if truth.history.get(message_id, 0) <= reached and message_id not in unfetched:
            yield MESSAGE, message_id


def _claims_of_kind(truth: Truth, kind: str, cursor: Cursor) -> Iterator[Key]:
    """The objects of a kind that are listed, and whose last event is dealt with."""
    live, gone = truth.live[kind], truth.gone[kind]
    last = {event.external_id: event for event in truth.events if event.object_type == kind}
    created = {key: value["created"] for key, value in {**live, **gone}.items()}
    skipped = {*cursor.get("unfetched", ()), *(key for one, key in truth.silent if one == kind)}
    for key in created:
        is_being_looked_for = key in gone and cursor.get("resync_from")
        if key in skipped or is_being_looked_for:
            continue
        if _is_dealt_with(last.get(key), created[key], cursor) and not any(
            _is_left(part, created, key) for part in cursor.get("slices", ())
        ):
            yield kind, key


def _is_dealt_with(event: Event | None, created: int, cursor: Cursor) -> bool:
    if event is None:
        return bool(created < cursor["until"])
    return event.at < cursor["until"] or event.event_id in cursor.get("seen", ())


def _is_left(part: Cursor, created: Mapping[str, int], key: str) -> bool:
    """Whether a slice is still to list an object: newest first, what comes after `after`."""
    before, after = part.get("before"), part.get("after")
    at = created[key]
    if at < part.get("since", 0) or (before is not None and at >= before):
        return False
    return after is None or after not in created or at <= created[after]
