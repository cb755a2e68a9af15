"""Two warehouses side by side: their rows by key, in order, neither of them ever held whole."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from loaders.ingestion.arrow_tables import Row
from loaders.warehouse.base import Warehouse

SORTED_ROWS = 500_000
"""Rows that one query sorts: BigQuery sorts the end of a result in one worker."""


@dataclasses.dataclass
class Side:
    """What one warehouse holds of the compared keys."""

    rows: int = 0
    groups: collections.Counter[tuple[Any, ...]] = dataclasses.field(
        default_factory=collections.Counter
    )
    """Rows by (source_system, connection_name, object_type)."""
    _digest: Any = dataclasses.field(default_factory=hashlib.sha256)

    def add(self, row: Row, grouped_from: int | None) -> None:
        """Take in one row; the values from `grouped_from` on are its group."""
        self.rows += 1
        self._digest.update(_canonical(row[:grouped_from]))
        if grouped_from is not None:
            self.groups[row[grouped_from:]] += 1

    @property
    def fingerprint(self) -> str:
        """sha256, in hexadecimal, over the rows in the order of their keys."""
        return str(self._digest.hexdigest())


@dataclasses.dataclass
class Comparison:
    """What the source holds, and what the target holds under the source's keys."""

    source: Side = dataclasses.field(default_factory=Side)
    target: Side = dataclasses.field(default_factory=Side)
    missing: int = 0
    differing: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether counts, groups and fingerprints are the same."""
        sides = [(side.rows, side.groups, side.fingerprint) for side in (self.source, self.target)]
        return sides[0] == sides[1]


def compare(
    source: Iterable[Row], target: Iterable[Row], key_width: int, grouped_from: int | None
) -> Comparison:
    """Compare rows that are ordered by their first `key_width` values.

    Of the target only the source's keys count: it may hold other rows.
    """
    comparison = Comparison()
    for wanted, found in matched(source, target, key_width):
        comparison.source.add(wanted, grouped_from)
        comparison.missing += not found
        comparison.differing += any(row != wanted for row in found)
        for row in found:
            comparison.target.add(row, grouped_from)
    return comparison


def matched(
    source: Iterable[Row], target: Iterable[Row], key_width: int
) -> Iterator[tuple[Row, list[Row]]]:
    """For each key of the source its (first) row and the target's rows of that key.

    Both are ordered by their first `key_width` values.
    """
    held = _by_key(target, key_width)
    found = next(held, None)
    for key, rows in _by_key(source, key_width):
        while found and found[0] < key:
            found = next(held, None)
        yield rows[0], found[1] if found and found[0] == key else []


def sorted_rows(
    warehouse: Warehouse, relation: str, key: Sequence[str], columns: Sequence[str] = ()
) -> Iterator[Row]:
    """Key and columns of a relation, ordered by key; a key of one column is text, never empty.

    Both warehouses order text by its bytes in UTF-8, as Python orders it. Raises
    WarehouseError.
    """
    select = f"select {', '.join((*key, *columns))} from {relation}"
    order = f"order by {', '.join(key)}"
    if len(key) > 1:
        yield from warehouse.stream(f"{select} {order}")
        return
    page = f"{select} where {key[0]} > ? {order} limit {SORTED_ROWS}"
    after, is_full = "", True
    while is_full:
        count = 0
        for row in warehouse.stream(page, (after,)):
            yield row
            after, count = row[0], count + 1
        is_full = count == SORTED_ROWS


def _by_key(rows: Iterable[Row], key_width: int) -> Iterator[tuple[Row, list[Row]]]:
    for key, group in itertools.groupby(rows, lambda row: row[:key_width]):
        yield key, list(group)


def _canonical(row: Row) -> bytes:
    return json.dumps(row, default=_utc_text).encode()


def _utc_text(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat()
