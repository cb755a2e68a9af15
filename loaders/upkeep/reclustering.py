"""A new order of raw_objects on BigQuery, month by month.

What is stored keeps the clusters it was written with until it is written again. BigQuery does that
of its own, some time; this does it now: an UPDATE of every month that changes nothing (BigQuery
docs, "Modify the clustering specification").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from loaders.errors import UsageError
from loaders.jobs.job import Job
from loaders.transform import bootstrap, merge_counts
from loaders.transform.merge_scope import in_range
from loaders.warehouse.base import Warehouse
from loaders.warehouse.bigquery import BigQueryWarehouse
from loaders.warehouse.tables import documented_tables

_TABLE = "raw_objects"
_TIMEOUT_SECONDS = 7 * 86_400.0
_NO_TIME = 0
"""In the place of a month: of the objects whose time of creation is not known; it is the first."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done; nothing without months."""

    before: Sequence[str]
    """The clustering columns of the table, and those that it shall have."""
    after: Sequence[str]
    months: Sequence[int]
    """Still to be written, counted since year 0, oldest first."""
    rows: int
    """In them."""
    bytes: float
    """That BigQuery bills for that: all columns of the months."""


class Reclustering:
    """Writes raw_objects anew in the documented order; `done` counts months.

    Where it stands is a label of the table, so that who dies on the way is followed by who goes on.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        """Raises UsageError where there is nothing to cluster, WarehouseError."""
        if not isinstance(warehouse, BigQueryWarehouse):
            raise UsageError(
                f"recluster: {warehouse.target.shown} is a DuckDB file, which has no clusters;"
                " expected a target on BigQuery"
            )
        if not bootstrap.has_tables(warehouse):
            raise UsageError(f"recluster: {warehouse.target.shown} holds no warehouse yet")
        self.done = 0
        self.job = Job(
            warehouse,
            job_name="recluster",
            source_system="dbt",
            timeout_seconds=_TIMEOUT_SECONDS,
            takes_lease=False,
        )
        self._warehouse = warehouse
        self.plan = self._plan()

    def run(self) -> None:
        """Do it, log. Raises WarehouseError; what was done by then is not done again."""
        self.job.start()
        try:
            self.job.step = "merge"
            if list(self.plan.before) != list(self.plan.after):
                self._warehouse.set_clustering(_TABLE, self.plan.after, "")
            for month in self.plan.months:
                self._write_again(month)
                self._warehouse.set_clustering(_TABLE, self.plan.after, str(month))
                self.done += 1
            self._warehouse.set_clustering(_TABLE, self.plan.after, None)
            self.job.step = "end"
            self.job.complete({**merge_counts.of_no_build(), "reclustered_months": self.done})
        except BaseException as error:
            self.job.fail(error)
            raise

    def _plan(self) -> Plan:
        before, mark, size = self._warehouse.clustering(_TABLE)
        [layout] = [table.layout for table in documented_tables() if table.name == _TABLE]
        assert layout is not None
        is_same = list(before) == list(layout.cluster_by)
        if is_same and mark is None:
            return Plan(before, before, (), 0, 0.0)
        reached = int(mark) if is_same and mark else -1
        rows = self._warehouse.execute(
            "select coalesce(extract(year from object_created_at) * 12"
            f" + extract(month from object_created_at) - 1, {_NO_TIME}) as month, count(*)"
            f" from {self._warehouse.table(_TABLE)} group by month order by month"
        )
        left = {int(month): int(count) for month, count in rows if int(month) > reached}
        share = sum(left.values()) / max(1, sum(int(count) for _, count in rows))
        return Plan(before, layout.cluster_by, tuple(left), sum(left.values()), size * share)

    def _write_again(self, month: int) -> None:
        column = "object_created_at"
        where = f"{column} is null" if month == _NO_TIME else in_range(column, month, month)
        self._warehouse.execute(
            f"update {self._warehouse.table(_TABLE)} set source_system = source_system"
            f" where {where}"
        )
