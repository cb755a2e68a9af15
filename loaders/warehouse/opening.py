"""Which warehouse a target has."""

from __future__ import annotations

from loaders.settings.places import DEFAULT_LOCK_WAIT
from loaders.settings.target import Target
from loaders.warehouse.base import Warehouse
from loaders.warehouse.duckdb_file import DuckDBWarehouse


def open_warehouse(target: Target, lock_wait: float = DEFAULT_LOCK_WAIT) -> Warehouse:
    """The warehouse of a dbt target; nothing is opened yet."""
    if target.type == "bigquery":
        from loaders.warehouse.bigquery import BigQueryWarehouse

        return BigQueryWarehouse(target, lock_wait)
    return DuckDBWarehouse(target, lock_wait)
