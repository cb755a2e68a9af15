"""Incidents as the warehouse keeps them: table `alerts`, one row each, told once and once more.

Opening is an INSERT of an id that everyone derives alike; telling is claimed by an UPDATE that
one of two senders wins. A sender that dies after its claim is followed by another when the claim
is old, so a message is sent at least once, and twice only then.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import uuid
from collections.abc import Iterable

from loaders.monitoring.alerts.channels import Channel
from loaders.warehouse.base import Warehouse

logger = logging.getLogger(__name__)

CLAIM_LASTS = dt.timedelta(minutes=2)
"""Longer than any message may take."""
COLUMNS = (
    "alert_id",
    "source_system",
    "connection_name",
    "job_name",
    "kind",
    "correlation_id",
    "message",
    "opened_at",
    "told_to",
    "told_at",
    "resolved_at",
    "recovery_told_to",
    "recovery_told_at",
    "delivery_error",
)


@dataclasses.dataclass(frozen=True)
class Key:
    """What an incident is of: at most one of a key is open at a time."""

    source_system: str
    connection_name: str | None
    job_name: str
    """Of the connection's ingestion, or of the job that fails; of two connections it may be one."""
    kind: str


@dataclasses.dataclass(frozen=True)
class Incident:
    """A row of `alerts`."""

    alert_id: str
    source_system: str
    connection_name: str | None
    job_name: str
    kind: str
    correlation_id: str | None
    message: str
    opened_at: dt.datetime
    told_to: str | None = None
    told_at: dt.datetime | None = None
    resolved_at: dt.datetime | None = None
    recovery_told_to: str | None = None
    recovery_told_at: dt.datetime | None = None
    delivery_error: str | None = None

    @property
    def key(self) -> Key:
        """What it is of."""
        return Key(self.source_system, self.connection_name, self.job_name, self.kind)

    @property
    def is_open(self) -> bool:
        """Whether it goes on."""
        return self.resolved_at is None

    @property
    def is_pending(self) -> bool:
        """Whether somebody has still to be told.

        Of one that was over before anybody was told, nobody needs to know.
        """
        if self.is_open:
            return self.told_at is None
        return self.recovery_told_at is None and bool(self.told_to)

    @property
    def delivered(self) -> list[str]:
        """Marks of the channels that have the message that is due."""
        return _marks(self.told_to if self.is_open else self.recovery_told_to)

    def recipients(self, channels: Iterable[Channel]) -> list[Channel]:
        """Those of the configured channels that still have to be told.

        Of the end those that knew; all, when none of them is configured any more.
        """
        chosen = list(channels)
        if not self.is_open:
            knew = [each for each in chosen if each.is_among(_marks(self.told_to))]
            chosen = knew or chosen
        return [each for each in chosen if not each.is_among(self.delivered)]


def read(warehouse: Warehouse, source_system: str | None = None) -> list[Incident]:
    """All incidents (of a source), the earliest first. Raises WarehouseError."""
    rows = warehouse.execute(
        f"select {', '.join(COLUMNS)} from {_table(warehouse)}"
        " where ? is null or source_system = ? order by opened_at, alert_id",
        (source_system, source_system),
    )
    # Two senders that insert at the same moment may leave the row twice, on BigQuery; every
    # UPDATE changes both.
    return list({incident.alert_id: incident for incident in _incidents(rows)}.values())


def pending(warehouse: Warehouse) -> list[Incident]:
    """Incidents of which somebody has still to be told. Raises WarehouseError."""
    return [incident for incident in read(warehouse) if incident.is_pending]


def tell_undelivered(warehouse: Warehouse) -> None:
    """Log, for whoever looks, which alerts have not reached everybody. Raises WarehouseError."""
    if "alerts" not in warehouse.columns():  # of an earlier release, and not run since
        return
    for incident in pending(warehouse):
        logger.warning(
            "alert not delivered: %s %s since %s UTC: %s; run.py alert sends it again",
            incident.job_name,
            incident.kind,
            f"{incident.opened_at.astimezone(dt.UTC):%Y-%m-%d %H:%M}",
            incident.delivery_error or "it was not sent",
        )


def open_incident(
    warehouse: Warehouse,
    key: Key,
    known: Iterable[Incident],
    *,
    correlation_id: str | None,
    message: str,
    now: dt.datetime,
) -> Incident | None:
    """Insert an incident unless one of the key is open among those `known`; the new one.

    Raises WarehouseError.
    """
    earlier = [incident for incident in known if incident.key == key]
    if any(incident.is_open for incident in earlier):
        return None
    # Not how many there were: whoever deletes old rows would have an id used again.
    newest = max(earlier, key=lambda each: (each.opened_at, each.alert_id), default=None)
    name = json.dumps([*dataclasses.astuple(key), newest and newest.alert_id])
    incident = Incident(
        str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
        key.source_system,
        key.connection_name,
        key.job_name,
        key.kind,
        correlation_id,
        message,
        now,
    )
    row = {k: v for k, v in dataclasses.asdict(incident).items() if v is not None}
    warehouse.execute(
        f"insert into {_table(warehouse)} ({', '.join(row)}, attempts)"
        f" select {', '.join('?' for _ in row)}, 0 from (select 1 as one)"
        f" where not exists (select 1 from {_table(warehouse)} where alert_id = ?)",
        (*row.values(), incident.alert_id),
    )
    return incident


def resolve(warehouse: Warehouse, incident: Incident, now: dt.datetime) -> Incident:
    """Record that it is over; the incident as it is now. Raises WarehouseError."""
    warehouse.execute(
        f"update {_table(warehouse)} set resolved_at = ?"
        " where alert_id = ? and resolved_at is null",
        (now, incident.alert_id),
    )
    return dataclasses.replace(incident, resolved_at=now)


def claim(
    warehouse: Warehouse, incident: Incident, sender: str, now: dt.datetime
) -> Incident | None:
    """The incident as it is now, when this sender, and no other, is to tell what is due.

    Raises WarehouseError.
    """
    due = (
        "resolved_at is null and told_at is null"
        if incident.is_open
        else "resolved_at is not null and recovery_told_at is null"
    )
    warehouse.execute(
        f"update {_table(warehouse)}"
        " set claimed_by = ?, claimed_at = ?, attempts = attempts + 1"
        f" where alert_id = ? and {due} and (claimed_by is null or claimed_at < ?)",
        (sender, now, incident.alert_id, now - CLAIM_LASTS),
    )
    rows = warehouse.execute(
        f"select {', '.join(COLUMNS)} from {_table(warehouse)}"
        " where alert_id = ? and claimed_by = ?",
        (incident.alert_id, sender),
    )
    return next(iter(_incidents(rows)), None)


def record(
    warehouse: Warehouse,
    incident: Incident,
    sender: str,
    delivered: Iterable[str],
    error: str | None,
    now: dt.datetime,
) -> None:
    """Record the marks of who was told, and the error of those who were not.

    Raises WarehouseError.
    """
    which = "" if incident.is_open else "recovery_"
    told_to = ", ".join([*incident.delivered, *delivered])
    values: dict[str, str | dt.datetime] = {}
    if told_to:
        values[f"{which}told_to"] = told_to
    if error is None:
        values[f"{which}told_at"] = now
    else:
        values["delivery_error"] = error
    settings = [f"{name} = ?" for name in values] + ["claimed_by = null"]
    if error is None:
        settings.append("delivery_error = null")
    warehouse.execute(
        f"update {_table(warehouse)} set {', '.join(settings)}"
        " where alert_id = ? and claimed_by = ?",
        (*values.values(), incident.alert_id, sender),
    )


def _incidents(rows: Iterable[tuple[object, ...]]) -> Iterable[Incident]:
    return (Incident(*row) for row in rows)  # type: ignore[arg-type]


def _marks(text: str | None) -> list[str]:
    return text.split(", ") if text else []


def _table(warehouse: Warehouse) -> str:
    return warehouse.table("alerts")
