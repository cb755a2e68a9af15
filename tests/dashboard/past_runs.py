"""Runs of the past, as a log would have them: their events are written, nothing else."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping
from typing import Any

from loaders.jobs.event_log import JOB_RUN, log_event
from loaders.warehouse.base import Warehouse

ERRORS = (
    ("TransientSourceError", "extract", "gmail: 503 backend error after 4 attempts; run again"),
    ("WarehouseError", "land", "warehouse: the disk is full; make room and run again"),
    ("CheckFailed", "check", "acceptance: 1 of 17 tests failed: assert_queue_drained"),
)
TYPES = {
    "gmail": {"message": 60, "label": 1},
    "stripe": {
        "charge": 40, "payment_intent": 42, "customer": 12, "invoice": 9, "refund": 3,
        "payout": 1, "subscription": 4, "balance_transaction": 44, "dispute": 1,
    },
}  # fmt: skip


def write_run(
    warehouse: Warehouse,
    source_system: str,
    connection_name: str | None,
    started_at: dt.datetime,
    *,
    seconds: float = 10.0,
    objects: Mapping[str, int] | None = None,
    units: int = 0,
    error: tuple[str, str, str] | None = None,
    bytes_billed: int | None = None,
) -> str:
    """Write the events of one run; `error` is a type, a step and a message. Returns its id."""
    job_name = f"{source_system}_ingest_{connection_name}" if connection_name else "dbt_build"
    correlation_id = f"{job_name}-{started_at:%Y%m%d%H%M%S}-{started_at.microsecond % 65536:04x}"
    landed = dict(objects or {})
    total = sum(landed.values())
    ended_at = started_at + dt.timedelta(seconds=seconds)
    common: dict[str, Any] = {
        "source_system": source_system,
        "connection_name": connection_name,
        "correlation_id": correlation_id,
    }
    job = {"job_name": job_name, "package_name": "landfall"}
    log_event(
        warehouse,
        "job.started",
        **common,
        object_type=JOB_RUN,
        created_at=started_at,
        payload={**job, "parameters": {}, "timeout_seconds": 3600.0},
    )
    if connection_name and (error is None or error[1] in ("merge", "check", "end")):
        log_event(
            warehouse,
            "ingestion.completed",
            **common,
            created_at=ended_at,
            payload={
                "records_extracted": total,
                "records_landed": total,
                "objects": landed,
                "bytes": total * 4_096,
                "api_calls": total,
                "api_units": units,
                "mode": "incremental",
                "has_more": False,
                "new_dead_letters": 0,
            },
        )
    end = {**job, "duration_seconds": seconds}
    if error:
        payload = {**end, "error_type": error[0], "step": error[1], "retryable": True}
    else:
        merge = {"bytes_billed": bytes_billed} if bytes_billed is not None else {}
        payload = {**end, "inserted": total, "updated": 0, "deleted": 0, "merge": merge}
    log_event(
        warehouse,
        "job.failed" if error else "job.completed",
        **common,
        object_type=JOB_RUN,
        created_at=ended_at,
        error_message=error[2] if error else None,
        payload=payload,
    )
    return correlation_id


def write_month(
    warehouse: Warehouse, connections: Mapping[str, str], now: dt.datetime, days: int = 30
) -> None:
    """Four runs a day of each connection (its name and source), the last a few hours ago."""
    randomness = random.Random(5)
    with warehouse.open():
        for order, (name, source) in enumerate(sorted(connections.items())):
            for quarter in range(4 * days - 2, 0, -1):
                started_at = now - dt.timedelta(
                    hours=6 * quarter + order, seconds=randomness.randrange(240)
                )
                is_busy = started_at.weekday() < 5
                error = ERRORS[quarter % 3] if randomness.random() < 0.05 else None
                if source == "stripe" and 30 < quarter < 35:
                    error = (
                        "SourceError",
                        "extract",
                        "stripe: 401 the key was revoked; make another and set it as api_key",
                    )
                objects = {
                    kind: round(count * randomness.uniform(0.4, 1.6) * (1 if is_busy else 0.35))
                    for kind, count in TYPES[source].items()
                }
                total = sum(objects.values())
                write_run(
                    warehouse,
                    source,
                    name,
                    started_at,
                    seconds=round(6 + total * randomness.uniform(0.08, 0.14), 1),
                    objects={kind: count for kind, count in objects.items() if count},
                    units=total * (20 if source == "gmail" else 1),
                    error=error,
                )
