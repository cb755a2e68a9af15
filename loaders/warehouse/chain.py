"""The chain of a connection's load packages: which of them holds the position that counts.

Every package of a run carries the connection's whole position, and one cursor row more, its link:
which package it follows, and of which run it is. All of its cursor rows have one time, later than
that of the package before. So the newest link of a complete load, the head, tells which cursors
count: those of its own package, and no others. A package that does not follow the head was made
for another warehouse, or for this one as it was before somebody put it back: what it has observed
is true all the same, what it says of the position is not.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import uuid
from collections.abc import Mapping
from typing import Any

from loaders.warehouse.base import Warehouse

LINK = "_package"
"""The stream of links; no stream of a source begins with an underscore."""
_SLACK = dt.timedelta(days=1)
"""How far the time that a link gives for its run's start may be from its row in the log."""


@dataclasses.dataclass(frozen=True)
class Link:
    """One package's place in the chain.

    `run` landed it and began at `started_at`. `waiting` are the runs whose states the queue holds
    once it has landed: those of no other run may be missing from raw_objects.
    """

    id: str
    follows: str | None
    run: str
    started_at: dt.datetime
    waiting: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> Link:
        """The inverse of `as_json`."""
        values = json.loads(text)
        values["started_at"] = dt.datetime.fromisoformat(values["started_at"])
        values["waiting"] = tuple(values["waiting"])
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {**dataclasses.asdict(self), "started_at": self.started_at.isoformat()}


@dataclasses.dataclass
class Chain:
    """The links of one run: each package follows the one before, the first the head."""

    head: str | None
    run: str
    started_at: dt.datetime
    waiting: tuple[str, ...] = ()

    def next(self, *, has_states: bool) -> Link:
        """The link of the next package; `has_states` is whether it lands any object."""
        if has_states:
            self.waiting = tuple(sorted({*self.waiting, self.run}))
        link = Link(str(uuid.uuid4()), self.head, self.run, self.started_at, self.waiting)
        self.head = link.id
        return link


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a connection stands by the warehouse's own word.

    `cursors` by stream; none when `doubt` says why those of the head are not believed.
    """

    head: Link | None = None
    cursors: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    """Runs whose states the queue holds."""
    doubt: str | None = None
    is_proven: bool = True
    """Whether the log says that all the head covers is merged; if not, a run lands a new head."""


def read_position(warehouse: Warehouse, source_system: str, connection_name: str) -> Position:
    """The position of a connection. Raises WarehouseError."""
    connection = (source_system, connection_name)
    rows = _newest_cursors(warehouse, connection)
    links = [(observed_at, Link.read(text)) for name, text, observed_at in rows if name == LINK]
    waiting = _queued_runs(warehouse, connection)
    if not links:
        # Of a release that had no links: of each stream the newest counts.
        in_time = sorted(rows, key=lambda row: row[2])
        return Position(None, {name: json.loads(text) for name, text, _ in in_time}, waiting)
    landed_at, head = max(links, key=lambda link: (link[0], link[1].id))
    steps = _recorded(warehouse, head)
    is_proven = bool(steps & {"completed", "check", "end"})
    doubt = _doubt(warehouse, head, steps, () if is_proven else waiting, is_proven)
    cursors = {name: json.loads(text) for name, text, at in rows if at == landed_at}
    cursors.pop(LINK)
    return Position(head, {} if doubt else cursors, waiting, doubt, is_proven)


def head_id(warehouse: Warehouse, source_system: str, connection_name: str) -> str | None:
    """The id of the connection's newest package. Raises WarehouseError."""
    rows = warehouse.execute(
        f"select cursor from {warehouse.staging_table('cursors')}"
        f" where source_system = ? and connection_name = ? and stream = '{LINK}'"
        f" and {warehouse.is_complete()} order by observed_at desc, cursor limit 1",
        (source_system, connection_name),
    )
    return Link.read(rows[0][0]).id if rows else None


def _newest_cursors(
    warehouse: Warehouse, connection: tuple[str, str]
) -> list[tuple[str, str, dt.datetime]]:
    """(stream, cursor, observed_at) of the head's package and later; of all without a head."""
    cursors = warehouse.staging_table("cursors")
    of_connection = f"source_system = ? and connection_name = ? and {warehouse.is_complete()}"
    rows: list[Any] = warehouse.execute(
        f"select stream, cursor, observed_at from {cursors} where {of_connection}"
        " and observed_at >= coalesce((select max(observed_at)"
        f" from {cursors} where stream = '{LINK}' and {of_connection}), observed_at)",
        connection * 2,
    )
    return rows


def _queued_runs(warehouse: Warehouse, connection: tuple[str, str]) -> tuple[str, ...]:
    rows = warehouse.execute(
        f"select distinct correlation_id from {warehouse.staging_table('landed_objects')}"
        f" where source_system = ? and connection_name = ? and {warehouse.is_complete()}",
        connection,
    )
    return tuple(sorted(run for (run,) in rows))


def _recorded(warehouse: Warehouse, head: Link) -> set[str]:
    """What the log says of the head's run: `started`, `completed`, or the step it failed at."""
    rows = warehouse.execute(
        f"select event_type, {warehouse.json_text('payload', '$.step')}"
        f" from {warehouse.table('event_log')} where correlation_id = ? and created_at >= ?"
        " and event_type like 'job.%'",
        (head.run, head.started_at - _SLACK),
    )
    return {
        str(step) if event_type == "job.failed" else event_type.removeprefix("job.")
        for event_type, step in rows
    }


def _doubt(
    warehouse: Warehouse,
    head: Link,
    steps: set[str],
    queued: tuple[str, ...],
    is_proven: bool,
) -> str | None:
    """Why the head's cursors may be ahead of the store, which may be another dataset's backup."""
    if "started" not in steps:
        return f"event_log does not know run {head.run}, which moved the position last"
    if is_proven:
        return None
    for run in head.waiting:
        if run not in queued and not _has_merged(warehouse, run):
            return f"what run {run} landed is neither queued nor in raw_objects"
    return None


def _has_merged(warehouse: Warehouse, run: str) -> bool:
    """Whether raw_objects holds anything that a run landed or merged."""
    return bool(
        warehouse.execute(
            f"select 1 from {warehouse.table('raw_objects')}"
            " where changed_by = ? or merged_by = ? limit 1",
            (run, run),
        )
    )
