"""What must hold after a kill, a run to the end and one run more."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from signal import Signals
from typing import Any

from loaders.sandbox.layout import LABEL_NAMES
from tests.chaos.snapshots import Event, Snapshot

MAX_OWN_EVENTS = 3


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What one case left.

    `killed`, `clean` and `repeated` are the warehouse after the victim, after the next run
    and after the one that follows it. `exit_codes` are those of the three: negative for a
    signal that ended the process. `mailbox` holds the messages by id.
    """

    signal: Signals
    exit_codes: tuple[int, int, int]
    mailbox: Mapping[str, Any]
    killed: Snapshot
    clean: Snapshot
    repeated: Snapshot


def violations(evidence: Evidence) -> list[str]:
    """Every violated invariant, one line each; empty when all of them hold."""
    return [
        f"{check.__name__.removeprefix('_')}: {violation}"
        for check in (
            _exit_codes,
            _stored,
            _drained,
            _lifecycles,
            _interrupted,
            _cursor,
            _first_seen,
            _repeated,
            _accounting,
            _accepted,
        )
        for violation in check(evidence)
    ]


def _exit_codes(evidence: Evidence) -> Iterator[str]:
    """The runs that nobody kills succeed."""
    for name, code in zip(("clean", "repeated"), evidence.exit_codes[1:], strict=True):
        if code != 0:
            yield f"the {name} run ended with {code}"


def _stored(evidence: Evidence) -> Iterator[str]:
    """Every message is there, once, as it was served, and nothing else is."""
    messages = [row for row in evidence.clean.objects if row["object_type"] == "message"]
    labels = {row["external_id"] for row in evidence.clean.objects} & LABEL_NAMES.keys()
    for label in sorted(LABEL_NAMES.keys() - labels):
        yield f"label {label} is missing"
    counts = collections.Counter(row["external_id"] for row in messages)
    for external_id in sorted(evidence.mailbox.keys() - counts.keys()):
        yield f"{external_id} is missing"
    for external_id, count in sorted(counts.items()):
        if count > 1:
            yield f"{external_id} is there {count} times"
    for row in messages:
        external_id = row["external_id"]
        if external_id not in evidence.mailbox:
            yield f"{external_id} is not in the mailbox"
        elif row["payload"] != evidence.mailbox[external_id]:
            yield f"{external_id} differs from what the API serves"
        elif row["deleted_at"] is not None:
            yield f"{external_id} is marked as deleted"


def _drained(evidence: Evidence) -> Iterator[str]:
    """The queue keeps nothing of complete loads, and nothing that raw_objects holds."""
    last_seen = {row["idem_key"]: row["last_seen"] for row in evidence.clean.objects}
    for row in evidence.clean.queue:
        if row.is_complete:
            yield f"{row.external_id} of a complete load is still queued"
        elif last_seen.get(row.idem_key, 0) >= row.observed_at:
            yield f"{row.external_id} is still queued, though raw_objects holds it"


def _lifecycles(evidence: Evidence) -> Iterator[str]:
    """Each run has one start, one effective end and at most three events of its own."""
    for correlation_id, events in _runs(evidence.repeated).items():
        starts = sum(event.is_start for event in events)
        ends = [event for event in events if event.is_end]
        real = sum(not event.is_orphaned for event in ends)
        own = sum(not event.is_orphaned for event in events)
        if starts != 1:
            yield f"{correlation_id} has {starts} job.started"
        if real > 1 or (real == 0 and len(ends) != 1):
            yield f"{correlation_id} has {real} ends of its own and {len(ends) - real} Orphaned"
        if own > MAX_OWN_EVENTS:
            yield f"{correlation_id} has {own} events of its own"
    for event in evidence.repeated.spooled:
        yield f"{event.event_type} of {event.correlation_id} is still in the spool"


def _interrupted(evidence: Evidence) -> Iterator[str]:
    """A run ended by SIGTERM or SIGINT says so, unless it was over already."""
    victim = _victim(evidence.killed)
    if evidence.signal == Signals.SIGKILL or victim is None:
        return
    ends = [
        event
        for event in _runs(evidence.repeated).get(victim, [])
        if event.is_end and not event.is_orphaned
    ]
    if any(event.event_type == "job.completed" for event in ends):
        return
    if [event.payload.get("error_type") for event in ends] != ["Interrupted"]:
        yield f"{victim} has no job.failed with error_type Interrupted"
    expected = 128 + evidence.signal
    if evidence.exit_codes[0] != expected:
        yield f"{victim} ended with {evidence.exit_codes[0]}, expected {expected}"


def _cursor(evidence: Evidence) -> Iterator[str]:
    """A cursor that the kill left visible covers what it says: here the whole mailbox."""
    killed = evidence.killed
    if not killed.complete_cursors:
        return
    covered = {row["external_id"] for row in killed.objects}
    covered |= {row.external_id for row in killed.queue if row.is_complete}
    for external_id in sorted(evidence.mailbox.keys() - covered):
        yield f"a cursor is visible without {external_id}"


def _first_seen(evidence: Evidence) -> Iterator[str]:
    """What was landed before the kill was first seen then, not later."""
    landed = collections.defaultdict[str, list[int]](list)
    for row in evidence.killed.queue:
        if row.is_complete:
            landed[row.idem_key].append(row.observed_at)
    for stored in evidence.killed.objects:
        landed[stored["idem_key"]].append(stored["first_seen"])
    for stored in evidence.clean.objects:
        known = landed.get(stored["idem_key"])
        if known and stored["first_seen"] > min(known):
            yield f"{stored['external_id']} was seen before its first_seen"


def _repeated(evidence: Evidence) -> Iterator[str]:
    """One run more changes no row."""
    if evidence.clean.objects != evidence.repeated.objects:
        yield "the next run changed raw_objects"
    for event in _new_ends(evidence.clean, evidence.repeated):
        for action in ("inserted", "updated"):
            if event.payload.get(action) != 0:
                yield f"{event.correlation_id} says {action} {event.payload.get(action)}"


def _accounting(evidence: Evidence) -> Iterator[str]:
    """What was listed is landed, held, gone or a dead letter."""
    parts = ("records_landed", "already_held", "gone", "dead_lettered")
    for event in evidence.repeated.events:
        if event.event_type != "ingestion.completed":
            continue
        listed = event.payload["records_extracted"]
        if listed != (found := sum(event.payload[part] for part in parts)):
            yield f"{event.correlation_id} listed {listed} and accounts for {found}"


def _accepted(evidence: Evidence) -> Iterator[str]:
    """The runs that nobody kills pass the acceptance tests."""
    for name, before, after in (
        ("clean", evidence.killed, evidence.clean),
        ("repeated", evidence.clean, evidence.repeated),
    ):
        ends = _new_ends(before, after)
        if [event.event_type for event in ends] != ["job.completed"]:
            yield f"the {name} run has {[event.event_type for event in ends]}"
        for event in ends:
            tests = event.payload.get("tests") or {}
            if tests.get("failed") != 0 or not tests.get("passed"):
                yield f"the {name} run has tests {tests}"


def _runs(snapshot: Snapshot) -> dict[str, list[Event]]:
    runs = collections.defaultdict[str, list[Event]](list)
    for event in snapshot.events:
        runs[event.correlation_id].append(event)
    return runs


def _victim(killed: Snapshot) -> str | None:
    """The correlation_id of the killed run, if it came to write job.started."""
    events = [*killed.events, *killed.spooled]
    return next((event.correlation_id for event in events if event.is_start), None)


def _new_ends(before: Snapshot, after: Snapshot) -> list[Event]:
    """Ends of the runs that began between two snapshots."""
    known = {event.correlation_id for event in (*before.events, *before.spooled)}
    return [event for event in after.events if event.is_end and event.correlation_id not in known]
