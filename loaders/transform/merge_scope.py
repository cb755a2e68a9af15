"""What a run knows of its MERGE before it: that spares BigQuery most of what is stored.

BigQuery bills by column and partition, and raw_objects is partitioned by the month in which an
object was created. A run that has landed all that its MERGE takes knows those months. The MERGE
looks whether that is so in the statement that writes (macros/merge/merge_objects.sql), and is done
once more without a scope where it is not.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
from collections.abc import Collection

from loaders.warehouse.base import Warehouse

NOT_AS_LANDED = "an object is stored otherwise than the run knows"
"""What a MERGE fails with whose scope does not hold."""
MAX_MONTHS = 3_900
"""A job may modify 4,000 partitions."""


@dataclasses.dataclass
class CreationTimes:
    """Of the states that a run has landed."""

    months: set[int] = dataclasses.field(default_factory=set)
    """Counted since year 0."""
    oldest: dt.datetime | None = None
    has_undated: bool = False
    """Whether one does not tell its time, as a tombstone."""

    def note(self, created_at: dt.datetime | None) -> None:
        """Take in a state's."""
        if created_at is None:
            self.has_undated = True
            return
        self.months.add(created_at.year * 12 + created_at.month - 1)
        if self.oldest is None or created_at < self.oldest:
            self.oldest = created_at

    def are_since(self, moment: dt.datetime) -> bool:
        """Whether all are known, and none is earlier."""
        return not self.has_undated and (self.oldest is None or self.oldest >= moment)


@dataclasses.dataclass(frozen=True)
class MergeScope:
    """The months that hold every object the MERGE takes, beside those whose time is not known, and
    the object types that it takes; with `inserts_only` none of them is stored yet."""

    months: Collection[int]
    types: Collection[str]
    inserts_only: bool

    def as_json(self) -> str:
        """As macros/merge/merge_scope.sql reads it."""
        value = {
            "months": sorted(self.months),
            "types": sorted(self.types),
            "inserts_only": self.inserts_only,
            "refusal": NOT_AS_LANDED,
        }
        return json.dumps(value)

    def predicate(self, column: str) -> str:
        """SQL that holds for their times and no time; macros/merge/merge_months.sql, in_months."""
        parts = [f"{column} is null"]
        months = sorted(self.months)
        # Neighbours have one difference to their place.
        runs = itertools.groupby(enumerate(months), lambda each: each[1] - each[0])
        for _, neighbours in runs:
            numbers = [month for _, month in neighbours]
            parts.append(f"({in_range(column, numbers[0], numbers[-1])})")
        return f"({' or '.join(parts)})"


def months_of_undated(warehouse: Warehouse) -> set[int]:
    """The months in which that is stored whose queued states tell no time.

    Raises WarehouseError.
    """
    rows = warehouse.execute(
        "select distinct extract(year from object_created_at) * 12"
        f" + extract(month from object_created_at) - 1 from {warehouse.table('raw_objects')}"
        " where object_created_at is not null and idem_key in ("
        f"select idem_key from {warehouse.staging_table('landed_objects')}"
        " where object_created_at is null)"
    )
    return {int(month) for (month,) in rows}


def in_range(column: str, first: int, last: int) -> str:
    """SQL that holds for times from one month to another, both included."""
    # The last month that a timestamp knows has no end.
    until = "" if last + 1 >= 120_000 else f" and {column} < {_first_of(last + 1)}"
    return f"{column} >= {_first_of(first)}{until}"


def _first_of(month: int) -> str:
    return f"timestamp '{month // 12:04d}-{month % 12 + 1:02d}-01 00:00:00+00'"
