"""What `run.py alert` does: compare connection_health with the open incidents, tell what is due."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loaders import status, transform
from loaders.alerts import incidents, messages
from loaders.alerts.channels import Channel, failures_to_tell
from loaders.alerts.delivery import Delivery
from loaders.alerts.incidents import Incident, Key
from loaders.alerts.messages import DEAD_LETTERS, FAILING, LATE, SILENT, UNUSUAL_ROWS
from loaders.alerts.of_jobs import is_ended_by
from loaders.job import job_name_for
from loaders.warehouse import Warehouse


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
    if not transform.has_tables(warehouse):
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
    if not transform.has_tables(warehouse):
        return []
    return [each for each in incidents.read(warehouse) if each.is_open or each.is_pending]


def _update(warehouse: Warehouse) -> list[Incident]:
    """Bring the incidents up to date; those that somebody has still to be told of."""
    now = dt.datetime.now(dt.UTC)
    with warehouse.open():
        rows = status.read(warehouse, 1).connections
        completed = _completed_runs(warehouse)
        known = incidents.read(warehouse)
        conditions = {condition.key: condition for row in rows for condition in _conditions(row)}
        for incident in known:
            if incident.is_open and _is_over(incident, conditions, rows, completed):
                incidents.resolve(warehouse, incident, now)
        known = incidents.read(warehouse)
        for key, condition in conditions.items():
            incidents.open_incident(
                warehouse,
                key,
                known,
                connection_name=condition.row["connection_name"],
                correlation_id=condition.row["last_correlation_id"],
                message=messages.of_connection(key.kind, condition.row),
                now=now,
            )
        return incidents.pending(warehouse)


def _conditions(row: Mapping[str, Any]) -> Iterator[Condition]:
    kinds = {
        LATE: row["state"] == LATE,
        SILENT: row["state"] == SILENT,
        # `ok` all the same is one that nobody expects to run any more.
        FAILING: row["state"] != "ok" and row["consecutive_failures"] >= failures_to_tell(),
        DEAD_LETTERS: row["open_dead_letters"] > 0,
        UNUSUAL_ROWS: row["is_unusual"],
    }
    for kind, holds in kinds.items():
        if holds:
            yield Condition(Key(*_job_of(row), kind), row)


def _is_over(
    incident: Incident,
    conditions: Mapping[Key, Condition],
    rows: Sequence[Mapping[str, Any]],
    completed: Sequence[tuple[str, str, dt.datetime]],
) -> bool:
    if incident.key in conditions:
        return False
    if incident.kind == FAILING:
        return any(
            is_ended_by(incident, source_system, job_name) and ended_at > incident.opened_at
            for source_system, job_name, ended_at in completed
        )
    if incident.kind in (LATE, SILENT):
        # A worse state hides it, and a failed run does not end it.
        of = (incident.source_system, incident.job_name)
        return all(row["state"] == "ok" for row in rows if _job_of(row) == of)
    return True


def _job_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Source and job name of a connection's ingestion."""
    return row["source_system"], job_name_for(row["source_system"], row["connection_name"])


def _completed_runs(warehouse: Warehouse) -> list[tuple[str, str, dt.datetime]]:
    """Source, job name and end of the last completed run of each job."""
    rows = warehouse.execute(
        f"select source_system, job_name, max(ended_at) from {warehouse.table('job_runs')}"
        " where state = 'completed' group by source_system, job_name"
    )
    return [(source_system, job_name, ended_at) for source_system, job_name, ended_at in rows]
