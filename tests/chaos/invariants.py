"""What must hold after a kill, a run to the end and one run more."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from signal import Signals
from typing import Any

from tests.chaos.cursors import uncovered
from tests.chaos.snapshots import Event, Snapshot
from tests.chaos.truth import LABEL, Truth

MAX_OWN_EVENTS = 3
_OF_A_SECOND_LOOK = ("last_seen", "merged_by", "last_action")
"""Columns that change when an object is read again and is the same."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What one case left.

    `prepared`, `killed`, `clean` and `repeated` are the warehouse before the victim, after it,
    after the runs that follow, and after one more. `exit_codes` are those of the last three:
    negative for a signal that ended the process; `last_words` are the last lines they printed.
    """

    signal: Signals
    exit_codes: tuple[int, int, int]
    last_words: tuple[str, str, str]
    truth: Truth
    prepared: Snapshot
    killed: Snapshot
    clean: Snapshot
    repeated: Snapshot
    has_befallen: bool = False
    """Whether a part of the warehouse was put back: then `prepared` is what that left."""


def violations(evidence: Evidence) -> list[str]:
    """Every violated invariant, one line each; empty when all of them hold."""
    return [
        f"{check.__name__.removeprefix('_')}: {violation}"
        for check in (
            _exit_codes,
            _stored,
            _tombstones,
            _drained,
            _letters,
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
    snapshots = (evidence.prepared, evidence.killed, evidence.clean, evidence.repeated)
    for number, name in ((1, "clean"), (2, "repeated")):
        code = evidence.exit_codes[number]
        if code != 0:
            failed = [
                event.error_message
                for event in _new_ends(snapshots[number], snapshots[number + 1])
                if event.error_message
            ]
            reason = "; ".join(failed) or evidence.last_words[number]
            yield f"the {name} run ended with {code}: {reason}"


def _stored(evidence: Evidence) -> Iterator[str]:
    """Every object is there, once, as it was served, and no other is alive."""
    live = evidence.truth.live
    counts = collections.Counter(_key(row) for row in evidence.clean.objects)
    for object_type, objects in live.items():
        for external_id in sorted(objects):
            if not counts[object_type, external_id]:
                yield f"{_name(object_type, external_id)} is missing"
    for (object_type, external_id), count in sorted(counts.items()):
        if count > 1:
            yield f"{_name(object_type, external_id)} is there {count} times"
    for row in evidence.clean.objects:
        object_type, external_id = _key(row)
        name, there = _name(object_type, external_id), live.get(object_type, {})
        if external_id not in there:
            if row["deleted_at"] is None:
                yield f"{name} is not there any more and not marked as deleted"
        elif row["deleted_at"] is not None:
            yield f"{name} is marked as deleted"
        elif object_type != LABEL and row["payload"] != there[external_id]:
            yield f"{name} differs from what the API serves"


def _tombstones(evidence: Evidence) -> Iterator[str]:
    """What was stored once keeps its row."""
    stored = {_key(row) for row in evidence.clean.objects}
    for row in evidence.prepared.objects:
        if _key(row) not in stored:
            yield f"the row of {_name(*_key(row))} is gone"


def _drained(evidence: Evidence) -> Iterator[str]:
    """The queue keeps nothing of complete loads, and nothing that raw_objects holds."""
    last_seen = {row["idem_key"]: row["last_seen"] for row in evidence.clean.objects}
    for row in evidence.clean.queue:
        name = _name(row.object_type, row.external_id)
        if row.is_complete:
            yield f"{name} of a complete load is still queued"
        elif last_seen.get(row.idem_key, 0) >= row.observed_at:
            yield f"{name} is still queued, though raw_objects holds it"


def _letters(evidence: Evidence) -> Iterator[str]:
    """Nothing is left among the dead letters once all of it can be stored."""
    seen = {
        _key(row): row["last_seen"] for row in evidence.clean.objects if row["deleted_at"] is None
    }
    for letter in evidence.clean.letters:
        key = (letter.object_type, letter.external_id or "")
        if seen.get(key, 0) < letter.created_at:
            yield f"{_name(*key)} is still a dead letter"


def _lifecycles(evidence: Evidence) -> Iterator[str]:
    """Each run has one start, one effective end, at most three events of its own, the end last."""
    for correlation_id, events in _runs(evidence.repeated).items():
        starts = sum(event.is_start for event in events)
        ends = [event for event in events if event.is_end]
        own = [event for event in events if not event.is_orphaned]
        real = [event for event in ends if not event.is_orphaned]
        if starts != 1:
            yield f"{correlation_id} has {starts} job.started"
        if len(real) > 1 or (not real and len(ends) != 1):
            yield (
                f"{correlation_id} has {len(real)} ends of its own"
                f" and {len(ends) - len(real)} Orphaned"
            )
        if len(own) > MAX_OWN_EVENTS:
            yield f"{correlation_id} has {len(own)} events of its own"
        if real and not own[-1].is_end:
            yield f"{correlation_id} has {own[-1].event_type} after its end"
    for event in evidence.repeated.spooled:
        yield f"{event.event_type} of {event.correlation_id} is still in the spool"


def _interrupted(evidence: Evidence) -> Iterator[str]:
    """A run ended by SIGTERM or SIGINT says so, unless it was over already."""
    victim = _victim(evidence)
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
    """A cursor that the kill left visible covers what it says."""
    if evidence.has_befallen:
        return  # of what covers what, a dataset that is put back alone knows nothing
    for stream, object_type, external_id in uncovered(
        evidence.truth, evidence.killed, evidence.clean
    ):
        name = _name(object_type, external_id)
        yield f"the cursor of {stream} is visible without {name} as it is now"


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
            yield f"{_name(*_key(stored))} was seen before its first_seen"


def _repeated(evidence: Evidence) -> Iterator[str]:
    """One run more changes no row, but for what an object that was read again says of that."""
    runs = {event.correlation_id for event in _new_ends(evidence.clean, evidence.repeated)}
    before, after = ([*snapshot.objects] for snapshot in (evidence.clean, evidence.repeated))
    for row in after:
        if row["merged_by"] in runs and row["last_action"] != "unchanged":
            yield f"the next run {row['last_action']} {_name(*_key(row))}"
    again = {_key(row) for row in after if row["merged_by"] in runs}
    if [_content(row, again) for row in before] != [_content(row, again) for row in after]:
        yield "the next run changed raw_objects"
    for event in _new_ends(evidence.clean, evidence.repeated):
        for action in ("inserted", "updated", "deleted", "undeleted"):
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
        types = [event.event_type for event in ends]
        if set(types) != {"job.completed"}:
            yield f"the {name} run has {types}"
        for event in ends:
            tests = event.payload.get("tests") or {}
            if name == "clean" and event.payload.get("merge") == "skipped":
                continue  # nothing was left to it
            if tests.get("failed") != 0 or not tests.get("passed"):
                yield f"the {name} run has tests {tests}"


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["object_type"], row["external_id"]


def _name(object_type: str, external_id: str) -> str:
    return f"{object_type} {external_id}"


def _content(row: dict[str, Any], again: set[tuple[str, str]]) -> dict[str, Any]:
    """A row; without what a second look changes if it is among those looked at again."""
    if _key(row) not in again:
        return row
    return {name: value for name, value in row.items() if name not in _OF_A_SECOND_LOOK}


def _runs(snapshot: Snapshot) -> dict[str, list[Event]]:
    runs = collections.defaultdict[str, list[Event]](list)
    for event in snapshot.events:
        runs[event.correlation_id].append(event)
    return runs


def _victim(evidence: Evidence) -> str | None:
    """The correlation_id of the killed run, if it came to write job.started."""
    known = {event.correlation_id for event in evidence.prepared.events}
    events = [*evidence.killed.events, *evidence.killed.spooled]
    return next(
        (
            event.correlation_id
            for event in events
            if event.is_start and event.correlation_id not in known
        ),
        None,
    )


def _new_ends(before: Snapshot, after: Snapshot) -> list[Event]:
    """Ends of the runs that began between two snapshots."""
    known = {event.correlation_id for event in (*before.events, *before.spooled)}
    return [event for event in after.events if event.is_end and event.correlation_id not in known]
