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
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from loaders.settings.times import horizon
from loaders.warehouse.base import Warehouse

LINK, CLOCK = "_package", "_clock"
"""The streams of links, and of what was observed without one: their time alone counts. No stream of
a source begins with an underscore."""
_LOG_DAYS = 3
"""Days of the log that are read for a connection's last end and the run of its head, at least."""
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
    landed_at: dt.datetime | None = None
    """When the head was."""


@dataclasses.dataclass(frozen=True)
class Standing:
    """All that a run of a connection asks the warehouse for before it reads the source."""

    position: Position = dataclasses.field(default_factory=Position)
    observed_at: dt.datetime | None = None
    """Nothing of the connection was observed later, by the clock that orders states; None where
    only raw_objects tells."""
    queue: frozenset[tuple[str, str]] = frozenset()
    """Connection (`source:name`) and run of the queued states of complete loads, everybody's."""
    has_erasures: bool = False
    letters_landed_at: dt.datetime | None = None
    """When the connection's last dead letter was landed, settled or not; None without one."""
    checks: str | None = None
    """By which tests the last of the connection's ingestions goes that says so, as JSON."""
    unchecked_at: dt.datetime | None = None
    """When the last of them ended that does not say so."""


class _Row(NamedTuple):
    """A row of the one query: what it tells of, and up to three values."""

    kind: str
    name: str | None
    text: str | None
    moment: dt.datetime | None


def read_standing(
    warehouse: Warehouse,
    source_system: str,
    connection_name: str,
    *,
    job_name: str = "",
    log_days: float = 0,
) -> Standing:
    """What the warehouse tells of a connection, in one query that reads no stored object.

    `job_name` is that of its ingestions; their last end is looked for in `log_days`, or a few more.
    Raises WarehouseError.
    """
    connection = (source_system, connection_name)
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=max(log_days, _LOG_DAYS))
    parts = _parts(warehouse, connection, job_name, since)
    rows = [
        _Row(*row)
        for row in warehouse.execute(
            " union all ".join(sql for sql, _ in parts),
            [value for _, values in parts for value in values],
        )
    ]
    of_kind: dict[str, list[_Row]] = {}
    for row in rows:
        of_kind.setdefault(row.kind, []).append(row)
    queue = frozenset((str(row.name), str(row.text)) for row in of_kind.get("queued", ()))
    own = ":".join(connection)
    waiting = tuple(sorted(run for of, run in queue if of == own))
    times = [row.moment for row in rows if row.moment is not None and _is_observation(row, own)]
    position = _position(warehouse, of_kind.get("cursor", ()), of_kind.get("step", ()), waiting)
    [checked] = of_kind.get("checked", [None])
    [unchecked] = of_kind.get("unchecked", [None])
    return Standing(
        position,
        max(times) if position.head is not None else None,
        queue,
        "erasure" in of_kind,
        max((row.moment for row in of_kind.get("landed", ()) if row.moment), default=None),
        None if checked is None else checked.text,
        None if unchecked is None else unchecked.moment,
    )


def _is_observation(row: _Row, own: str) -> bool:
    """Whether a row's moment is one of an observation, or not earlier than some."""
    return row.kind not in ("landed", "erasure") and (row.kind != "queued" or row.name == own)


def read_position(warehouse: Warehouse, source_system: str, connection_name: str) -> Position:
    """The position of a connection. Raises WarehouseError."""
    return read_standing(warehouse, source_system, connection_name).position


def _parts(
    warehouse: Warehouse, connection: tuple[str, str], job_name: str, since: dt.datetime
) -> list[tuple[str, Sequence[Any]]]:
    """The parts of the query, each with its parameters; every part is of _Row's shape."""
    cursors, event_log = warehouse.staging_table("cursors"), warehouse.table("event_log")
    letters = warehouse.staging_table("dead_letters")
    of_connection = "source_system = ? and connection_name = ?"
    complete = f"{of_connection} and {warehouse.is_complete()}"
    nothing = "cast(null as string)"
    in_log = f"created_at >= {warehouse.timestamp_parameter}"
    step = warehouse.json_text("payload", "$.step")
    checks = warehouse.json_as_text(warehouse.json_member("ended.payload", "$.checks"))
    checked_by = warehouse.json_text("payload", "$.checks.run")
    ends = (
        f"{in_log} and event_type in ('job.completed', 'job.failed') and {of_connection}"
        f" and {warehouse.json_text('payload', '$.job_name')} = ?"
    )
    bound = since.isoformat()
    return [
        (
            # the head's package and later; of a connection without a head all
            f"select 'cursor' as kind, stream as name, cursor as text, observed_at as moment"
            f" from {cursors} where {complete} and observed_at >= coalesce((select max(observed_at)"
            f" from {cursors} where stream = '{LINK}' and {complete}), observed_at)",
            connection * 2,
        ),
        (
            f"select 'observed', {nothing}, {nothing}, max(observed_at) from {cursors}"
            f" where {of_connection} having count(*) > 0",
            connection,
        ),
        (
            "select 'queued', concat(source_system, ':', connection_name), correlation_id,"
            f" max(observed_at) from {warehouse.staging_table('landed_objects')}"
            f" where {warehouse.is_complete()} group by 2, 3",
            (),
        ),
        (
            f"select 'erasure', {nothing}, {nothing}, max(erased_at)"
            f" from {warehouse.table('erasures')} where {of_connection} having count(*) > 0",
            connection,
        ),
        (
            f"select 'letter', {nothing}, {nothing}, max(created_at) from {letters}"
            f" where {of_connection} having count(*) > 0",
            connection,
        ),
        (
            f"select 'landed', {nothing}, {nothing}, max(inserted_at)"
            f" from {warehouse.staging_table('_dlt_loads')} where load_id in ("
            f"select _dlt_load_id from {letters} where {of_connection})",
            connection,
        ),
        (
            "select 'step', correlation_id, case when event_type = 'job.failed'"
            f" then {step} else substr(event_type, 5) end, created_at from {event_log}"
            f" where {in_log} and event_type like 'job.%' and correlation_id in ("
            f"select {warehouse.json_text('cursor', '$.run')} from {cursors}"
            f" where stream = '{LINK}' and {complete})",
            (bound, *connection),
        ),
        (
            # An end may have come into a warehouse that was put in the place of the one that its
            # run began with: no checks are believed of a run that this log does not know.
            f"select 'checked', {nothing}, {checks}, ended.created_at from ("
            f"select payload, created_at, {checked_by} as checked_by from {event_log} where {ends}"
            f" and {checked_by} is not null and created_at <= {warehouse.timestamp_parameter}"
            " order by created_at desc limit 1) as ended where ended.checked_by in ("
            f"select correlation_id from {event_log}"
            f" where event_type = 'job.started' and {in_log})",
            (bound, *connection, job_name, horizon().isoformat(), bound),
        ),
        (
            f"select 'unchecked', {nothing}, {nothing}, max(created_at) from {event_log}"
            f" where {ends} and {checked_by} is null having count(*) > 0",
            (bound, *connection, job_name),
        ),
    ]


def _position(
    warehouse: Warehouse,
    cursors: Collection[_Row],
    log: Collection[_Row],
    waiting: tuple[str, ...],
) -> Position:
    """The position by the rows of a connection's cursors and of the log."""
    rows = [(str(name), str(text), at) for _, name, text, at in cursors if at and name != CLOCK]
    links = [(observed_at, Link.read(text)) for name, text, observed_at in rows if name == LINK]
    if not links:
        # Of a release that had no links: of each stream the newest counts.
        in_time = sorted(rows, key=lambda row: row[2])
        return Position(None, {name: json.loads(text) for name, text, _ in in_time}, waiting)
    landed_at, head = max(links, key=lambda link: (link[0], link[1].id))
    steps = {str(step) for _, run, step, _ in log if run == head.run}
    if not steps:
        # It may be older than what was read of the log.
        steps = _recorded(warehouse, head)
    is_proven = bool(steps & {"completed", "check", "end"})
    doubt = _doubt(warehouse, head, steps, () if is_proven else waiting, is_proven)
    values = {name: json.loads(text) for name, text, at in rows if at == landed_at}
    values.pop(LINK)
    return Position(head, {} if doubt else values, waiting, doubt, is_proven, landed_at)


def head_id(warehouse: Warehouse, source_system: str, connection_name: str) -> str | None:
    """The id of the connection's newest package. Raises WarehouseError."""
    rows = warehouse.execute(
        f"select cursor from {warehouse.staging_table('cursors')}"
        f" where source_system = ? and connection_name = ? and stream = '{LINK}'"
        f" and {warehouse.is_complete()} order by observed_at desc, cursor limit 1",
        (source_system, connection_name),
    )
    return Link.read(rows[0][0]).id if rows else None


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
