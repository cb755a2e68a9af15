"""What `run.py alert` does: compare connection_health with the open incidents, tell what is due."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loaders.jobs.names import job_name_for
from loaders.monitoring import health
from loaders.monitoring.alerts import incidents, messages
from loaders.monitoring.alerts.channels import Channel, failures_to_tell
from loaders.monitoring.alerts.delivery import Delivery
from loaders.monitoring.alerts.incidents import Incident, Key
from loaders.monitoring.alerts.job_end import BACKFILL, RETRY, is_ended_by
from loaders.monitoring.alerts.messages import (
    DEAD_LETTERS,
    FAILING,
    LATE,
    NO_ROWS,
    SILENT,
    UNUSUAL_ROWS,
)
from loaders.settings.times import horizon
from loaders.transform import bootstrap
from loaders.warehouse.base import Warehouse
from loaders.warehouse.dead_letters import open_letters


@dataclasses.dataclass(frozen=True)
class Condition:
    """Something of a connection that its people are to know."""

    key: Key
    row: Mapping[str, Any]
    """Of connection_health."""


def watch(warehouse: Warehouse, channels: Sequence[Channel]) -> list[Delivery]:
    """Open and resolve incidents, tell whatever is due, also of jobs; what became of each.

    Nothing when there is no warehouse yet. Raises ConfigError, TransformFailed, WarehouseError.
    """
    if not bootstrap.has_tables(warehouse):
        return []
    deliveries = []
    for incident in _update(warehouse):
        delivery = Delivery(warehouse, incident, channels)
        # The file is not held while services answer.
        if delivery.claim():
            delivery.send()
            delivery.record()
            deliveries.append(delivery)
    return deliveries


def open_incidents(warehouse: Warehouse) -> list[Incident]:
    """Those that go on, and those whose end is still to be told; the earliest first."""
    if not bootstrap.has_tables(warehouse):
        return []
    return [each for each in incidents.read(warehouse) if each.is_open or each.is_pending]


def _update(warehouse: Warehouse) -> list[Incident]:
    """Bring the incidents up to date; those that somebody has still to be told of."""
    now = dt.datetime.now(dt.UTC)
    with warehouse.open():
        rows = health.read(warehouse, 1).connections
        completed = _completed_runs(warehouse)
        known = incidents.read(warehouse)
        conditions = {condition.key: condition for row in rows for condition in _conditions(row)}
        by_connection = {(row["source_system"], row["connection_name"]): row for row in rows}
        for incident in known:
            if not incident.is_open or incident.key in conditions:
                continue
            row = by_connection.get((incident.source_system, incident.connection_name))
            if incident.kind == FAILING:
                is_over = _has_run_again(incident, completed)
            elif row is None:
                is_over = _is_settled(warehouse, incident)
            else:
                is_over = _is_over(incident, row)
            if is_over:
                incidents.resolve(warehouse, incident, now)
        known = incidents.read(warehouse)
        for key, condition in conditions.items():
            incidents.open_incident(
                warehouse,
                key,
                known,
                correlation_id=condition.row["last_correlation_id"],
                message=messages.of_connection(key.kind, condition.row),
                now=now,
            )
        return incidents.pending(warehouse)


def _conditions(row: Mapping[str, Any]) -> Iterator[Condition]:
    # `ok` all the same is one that nobody expects to run any more.
    fails = row["state"] != "ok" and row["consecutive_failures"] >= failures_to_tell()
    hides_late = row["state"] == FAILING and not fails
    kinds = {
        LATE: row["state"] == LATE or (hides_late and row["is_late"]),
        SILENT: row["is_idle"],
        NO_ROWS: row["is_quiet"] and not row["is_idle"],
        FAILING: fails,
        DEAD_LETTERS: row["open_dead_letters"] > 0,
        UNUSUAL_ROWS: row["is_unusual"],
    }
    for kind, holds in kinds.items():
        if holds:
            source, connection = row["source_system"], row["connection_name"]
            yield Condition(Key(source, connection, job_name_for(source, connection), kind), row)


def _has_run_again(incident: Incident, completed: Mapping[Key, dt.datetime]) -> bool:
    return any(
        is_ended_by(incident, key) and ended_at > incident.opened_at
        for key, ended_at in completed.items()
    )


def _is_settled(warehouse: Warehouse, incident: Incident) -> bool:
    """Whether one is over of a connection that the view does not know any more.

    That its runs have left the period tells nothing of it; its letters are there all the same.
    """
    connection = (incident.source_system, incident.connection_name)
    return incident.kind == DEAD_LETTERS and not open_letters(warehouse, *connection, limit=1)


def _is_over(incident: Incident, row: Mapping[str, Any]) -> bool:
    """Whether what does not hold any more is over: something has happened, not only time gone by.

    The view judges by the runs of a period, and what they told is lost as they leave it.
    """
    if incident.kind == DEAD_LETTERS or row["is_retired"]:
        return True
    of_rows = incident.kind == NO_ROWS
    happened_at = row["last_rows_at"] if of_rows else row["last_success_at"]
    if happened_at is None or happened_at <= incident.opened_at:
        return False
    # A worse state hides the former, and a failed run does not end them.
    return incident.kind not in (LATE, SILENT) or row["state"] == "ok"


def _completed_runs(warehouse: Warehouse) -> dict[Key, dt.datetime]:
    """When the last completed run of each job ended, by the key that its failure would have."""
    rows = warehouse.execute(
        "select source_system, connection_name, job_name, is_ingestion and not is_sync,"
        f" is_retry, max(ended_at) from {warehouse.table('job_runs')}"
        f" where state = 'completed' and ended_at <= {warehouse.timestamp_parameter}"
        " group by 1, 2, 3, 4, 5",
        (horizon().isoformat(),),
    )
    completed = {}
    for source, connection, job_name, is_partial, is_retry, ended_at in rows:
        name = job_name
        if is_partial:
            name = job_name_for(source, connection, RETRY if is_retry else BACKFILL)
        completed[Key(source, connection, name, FAILING)] = ended_at
    return completed
