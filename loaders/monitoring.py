"""The monitoring marts: whether their views are there, and what they say."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loaders.config import PROJECT_DIR, state_dir
from loaders.warehouse import Warehouse

TAG = "monitoring"
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
_DEFINITIONS = ("models/marts/monitoring/*", "macros/monitoring/*", "macros/adapters/*")


def is_current(warehouse: Warehouse) -> bool:
    """Whether the views are there as this project defines them, as far as this machine knows.

    A run then need not build them: that takes a third of a second on DuckDB and some
    on BigQuery, and changes nothing.
    """
    return _noted(warehouse) == _fingerprint() and _are_there(warehouse)


def note_built(warehouse: Warehouse) -> None:
    """Remember on this machine that the views have just been built."""
    path = _note(warehouse)
    # Without the note they are built again: that costs time only.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_fingerprint())


def ensure_views(warehouse: Warehouse) -> None:
    """Build the views when one lacks, or this machine has built others. Raises TransformFailed.

    Views that another machine has built are good as they are: a reader need not be
    allowed to make any.
    """
    if _noted(warehouse) in (None, _fingerprint()) and _are_there(warehouse):
        return
    from loaders import transform

    transform.bootstrap(warehouse)
    # The id keeps dbt's hooks silent: looking is not a job.
    result = transform.build(
        warehouse.target,
        "status",
        ["--select", f"tag:{TAG}", "--exclude-resource-type", "test", "unit_test"],
    )
    if result.error:
        raise result.error
    note_built(warehouse)


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
    """The newest rows of job_runs, newest first."""
    newest_first = "order by started_at desc, correlation_id desc"
    # A warehouse looks for so many ids and reads their payloads only.
    ids = _rows(warehouse, "job_runs", ("correlation_id",), f"{newest_first} limit {limit:d}")
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
    parameters: Sequence[str] = (),
) -> list[dict[str, Any]]:
    found = warehouse.execute(
        f"select {', '.join(columns)} from {warehouse.table(view)} {clauses}", parameters
    )
    return [dict(zip(columns, row, strict=True)) for row in found]


def _are_there(warehouse: Warehouse) -> bool:
    present = warehouse.columns()
    return all(
        view in present and not set(columns) - present[view] for view, columns in _VIEWS.items()
    )


def _fingerprint() -> str:
    """SHA-256 of the files that define the views."""
    digest = hashlib.sha256((PROJECT_DIR / "dbt_project.yml").read_bytes())
    for pattern in _DEFINITIONS:
        for path in sorted(PROJECT_DIR.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _noted(warehouse: Warehouse) -> str | None:
    try:
        return _note(warehouse).read_text()
    except OSError:
        return None


def _note(warehouse: Warehouse) -> Path:
    return state_dir() / TAG / f"{warehouse.target.key}.sha256"
