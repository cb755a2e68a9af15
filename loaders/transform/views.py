"""The monitoring marts: whether their views are there, and what they say."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from loaders.errors import TransformFailed
from loaders.settings.times import horizon
from loaders.transform import bootstrap, dbt_build, invocation
from loaders.transform.dbt_build import MONITORING
from loaders.warehouse.base import View, Warehouse

CONNECTION_COLUMNS = (
    "source_system",
    "connection_name",
    "state",
    "reason",
    "last_run_at",
    "last_state",
    "last_correlation_id",
    "last_success_at",
    "age_seconds",
    "expected_interval_seconds",
    "consecutive_failures",
    "last_rows",
    "median_rows",
    "mad_rows",
    "is_unusual",
    "open_dead_letters",
    "is_idle",
    "is_quiet",
    "is_late",
    "is_retired",
    "last_rows_at",
)
RUN_COLUMNS = (
    "correlation_id",
    "job_name",
    "source_system",
    "connection_name",
    "started_at",
    "ended_at",
    "state",
    "duration_seconds",
    "timeout_seconds",
    "is_ingestion",
    "is_sync",
    "is_retry",
    "mode",
    "has_more",
    "inserted",
    "updated",
    "unchanged",
    "deleted",
    "undeleted",
    "dead_letters",
    "records_extracted",
    "objects_by_type",
    "failed_objects",
    "bytes",
    "api_calls",
    "api_units",
    "retries",
    "throttled_seconds",
    "bytes_processed",
    "bytes_billed",
    "slot_ms",
    "tests_passed",
    "tests_warned",
    "tests_failed",
    "error_type",
    "error_message",
    "step",
    "is_retryable",
    "trace_id",
)
_VIEWS: Mapping[str, Sequence[str]] = {
    "connection_health": CONNECTION_COLUMNS,
    "job_runs": RUN_COLUMNS,
    "ingestion_runs": (),
    "daily_activity": (),
}
"""Every view, with the columns that are read here."""
_JSON_COLUMNS = ("objects_by_type", "failed_objects")


def fingerprint() -> str:
    """What a view is marked with that is as this project defines it."""
    return invocation.views_fingerprint()


def is_current(warehouse: Warehouse) -> bool:
    """Whether the views are there as this project defines them, by the warehouse's own word.

    A run then need not build them: that takes a third of a second on DuckDB and some
    on BigQuery, and changes nothing.
    """
    mark = fingerprint()
    return all(view.mark == mark for view in _views(warehouse))


def ensure_views(warehouse: Warehouse) -> None:
    """Build the views unless all are as a build of dbt's has left them.

    Those of another release are good where they have the columns: a reader need not be allowed
    to make any. Raises TransformFailed.
    """
    if not all(view.mark for view in _views(warehouse)):
        build_views(warehouse)


def build_views(warehouse: Warehouse) -> None:
    """Build the views anew. Raises TransformFailed."""
    bootstrap.bootstrap(warehouse)
    # The id keeps dbt's hooks silent: looking is not a job.
    result = dbt_build.build(
        warehouse.target,
        "status",
        ["--select", f"tag:{MONITORING}", "--exclude-resource-type", "test", "unit_test"],
    )
    if result.error:
        raise TransformFailed(
            f"the monitoring views of {warehouse.target.shown} are not as they were built, and"
            f" cannot be made anew: {result.error}"
        ) from result.error


def newest_run(warehouse: Warehouse) -> dt.datetime | None:
    """When the last run began, by the log itself."""
    began: dt.datetime | None
    [[began]] = warehouse.execute(
        f"select max(created_at) from {warehouse.table('event_log')}"
        " where event_type = 'job.started'"
    )
    return began


def connections(warehouse: Warehouse) -> list[dict[str, Any]]:
    """Rows of connection_health, the worst first."""
    return _rows(
        warehouse,
        "connection_health",
        CONNECTION_COLUMNS,
        "order by case state when 'silent' then 0 when 'failing' then 1 when 'late' then 2"
        " else 3 end, source_system, connection_name",
    )


def runs(
    warehouse: Warehouse, limit: int, columns: Sequence[str] = RUN_COLUMNS
) -> list[dict[str, Any]]:
    """The newest rows of job_runs, newest first; before them as many of the future."""
    newest_first = "order by started_at desc, correlation_id desc"
    # A warehouse looks for so many ids and reads their payloads only.
    ids = []
    for is_in in ("<=", ">"):
        of_time = f"where started_at {is_in} {warehouse.timestamp_parameter}"
        clauses = f"{of_time} {newest_first} limit {limit:d}"
        ids += _rows(warehouse, "job_runs", ("correlation_id",), clauses, [horizon().isoformat()])
    if not ids:
        return []
    chosen = ", ".join("?" * len(ids))
    rows = _rows(
        warehouse,
        "job_runs",
        columns,
        f"where correlation_id in ({chosen}) {newest_first}",
        [row["correlation_id"] for row in ids],
    )
    for row in rows:
        for name in set(_JSON_COLUMNS).intersection(columns):
            row[name] = json.loads(row[name]) if row[name] else None
    return rows


def _rows(
    warehouse: Warehouse,
    view: str,
    columns: Sequence[str],
    clauses: str,
    parameters: Sequence[Any] = (),
) -> list[dict[str, Any]]:
    found = warehouse.execute(
        f"select {', '.join(columns)} from {warehouse.table(view)} {clauses}", parameters
    )
    return [dict(zip(columns, row, strict=True)) for row in found]


def _views(warehouse: Warehouse) -> list[View]:
    """The views as they are; of one that is not there, or lacks a column, nothing is as built."""
    found = warehouse.views(_VIEWS)
    return [
        found[name] if name in found and set(columns) <= found[name].columns else View(set(), "")
        for name, columns in _VIEWS.items()
    ]
