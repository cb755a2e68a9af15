"""How many objects go into a load package: a fixed number, or what the connection's runs teach.

A package costs a share of a second on DuckDB and seconds on BigQuery, whatever it holds; a kill
costs the time that went into one package. So packages grow while they come fast, and shrink when
they take long, do not load at all or end the run. Each run goes on where the last one of its
connection was.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from loaders.jobs.names import job_name_for
from loaders.settings.times import horizon
from loaders.warehouse.base import Warehouse

SMALLEST, FIRST, LARGEST = 100, 5_000, 80_000
"""Objects: the least and the most in a package, and the number of a connection's first ones."""
CHEAP_SECONDS = 10.0
"""A full package that took no longer, from its first object until it could be handed over, is
followed by one of twice as many objects."""
OVERTIME_SECONDS = 120.0
"""A package that takes longer is landed as it is, and followed by one of half as many objects."""
_LEARN_FROM_DAYS, _LAST = 30, 100


class BatchSize:
    """Objects in a load package, `size`, and why so many."""

    def __init__(self, size: int, reason: str, *, is_fixed: bool = False) -> None:
        self.size = size
        self._first = size
        self._reason = reason
        self._is_fixed = is_fixed

    def note(self, objects: int, seconds: float) -> None:
        """Learn from a package: how many objects it got, and how long they took."""
        if self._is_fixed:
            return
        if seconds > OVERTIME_SECONDS:
            self._become(self.size // 2, f"halved: {objects} objects took {seconds:.0f} s")
        elif objects >= self.size and seconds < CHEAP_SECONDS:
            self._become(self.size * 2, f"doubled: {objects} objects took {seconds:.1f} s")

    def note_loading(self, objects: int, seconds: float) -> None:
        """Learn from how long a package took to load that none was collected beside."""
        if not self._is_fixed and seconds > OVERTIME_SECONDS:
            self._become(self.size // 2, f"halved: {objects} objects took {seconds:.0f} s to load")

    def is_overtime(self, seconds: float) -> bool:
        """Whether a package has been collected for too long."""
        return not self._is_fixed and seconds > OVERTIME_SECONDS

    def telemetry(self) -> dict[str, Any]:
        """As ingestion events record it; `choose` of the next run reads it."""
        return {
            "mode": "fixed" if self._is_fixed else "auto",
            "first": self._first,
            "last": self.size,
            "reason": self._reason,
        }

    def _become(self, size: int, reason: str) -> None:
        size = min(max(size, SMALLEST), LARGEST)
        if size != self.size:
            self.size, self._reason = size, reason


def fixed(size: int) -> BatchSize:
    """The number that was asked for."""
    return BatchSize(size, "asked for", is_fixed=True)


def choose(warehouse: Warehouse, source_system: str, connection_name: str) -> BatchSize:
    """What the last run of a connection came to; half of it when that run could not land, and for
    each run since that did not end by itself: its memory may have run out, or its time."""
    size, reason = FIRST, "first packages of this connection"
    cut_short: set[str] = set()
    for event_type, correlation_id, payload in _last_ends(
        warehouse, source_system, connection_name
    ):
        told = json.loads(payload)
        if event_type == "job.failed":
            cut_short.add(correlation_id)
            continue
        # What ended it was not its packages: they were landed, or the event tells why not.
        cut_short.discard(correlation_id)
        if told["batch"]["mode"] == "auto":
            size, reason = int(told["batch"]["last"]), "as the last run left it"
            if event_type == "ingestion.failed" and told["step"] == "land":
                size, reason = size // 2, "halved: the last run could not land"
            break
    if cut_short:
        size >>= len(cut_short)
        reason = f"halved: {len(cut_short)} run(s) since did not end by themselves"
    return BatchSize(min(max(size, SMALLEST), LARGEST), reason)


def _last_ends(
    warehouse: Warehouse, source_system: str, connection_name: str
) -> list[tuple[str, str, str]]:
    """Of a connection's last ingestions (event type, correlation_id, payload), newest first: their
    own events, and the ends of those that were cut short."""
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=_LEARN_FROM_DAYS)
    return warehouse.execute(
        f"select event_type, correlation_id, {warehouse.json_as_text('payload')}"
        f" from {warehouse.table('event_log')}"
        " where source_system = ? and connection_name = ?"
        f" and created_at >= {warehouse.timestamp_parameter}"
        f" and created_at <= {warehouse.timestamp_parameter}"
        " and (event_type in ('ingestion.completed', 'ingestion.failed')"
        f" and {warehouse.json_text('payload', '$.batch.mode')} is not null"
        " or event_type = 'job.failed'"
        f" and {warehouse.json_text('payload', '$.error_type')} in ('Orphaned', 'TimedOut')"
        f" and {warehouse.json_text('payload', '$.job_name')} = ?)"
        f" order by created_at desc limit {_LAST:d}",
        (
            source_system,
            connection_name,
            since.isoformat(),
            horizon().isoformat(),
            job_name_for(source_system, connection_name),
        ),
    )
