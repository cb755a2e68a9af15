"""Telling what is due of an incident: claimed, sent, recorded."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import uuid
from collections.abc import Mapping, Sequence

from loaders.monitoring.alerts import incidents, messages
from loaders.monitoring.alerts.channels import SEND_SECONDS, Channel, send
from loaders.monitoring.alerts.incidents import Incident
from loaders.warehouse.base import Warehouse

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Delivery:
    """One telling: `claim` and `record` ask the warehouse, `send` only the services."""

    warehouse: Warehouse
    incident: Incident
    channels: Sequence[Channel]
    sender: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    outcome: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    def claim(self) -> bool:
        """Whether it is ours to tell, and not told or being told. Raises WarehouseError."""
        claimed = incidents.claim(
            self.warehouse, self.incident, self.sender, dt.datetime.now(dt.UTC)
        )
        # Another may have told some of the channels since it was read.
        self.incident = claimed or self.incident
        return claimed is not None

    def send(self, seconds: float = SEND_SECONDS) -> None:
        """Send it to whoever has not got it."""
        message = messages.of_incident(self.incident, self.warehouse.target.name)
        self.outcome = send(self.incident.recipients(self.channels), message, seconds)
        report(self.outcome, message.title)

    def record(self) -> None:
        """Store what became of it. Raises WarehouseError."""
        told = [label for label, error in self.outcome.items() if error is None]
        delivered = [channel.mark for channel in self.channels if channel.label in told]
        incidents.record(
            self.warehouse,
            self.incident,
            self.sender,
            delivered,
            self.error,
            dt.datetime.now(dt.UTC),
        )

    @property
    def error(self) -> str | None:
        """Whom it did not reach, and why; None when it reached all."""
        failed = [f"{label}: {error}" for label, error in self.outcome.items() if error]
        return "; ".join(failed) or None


def report(outcome: Mapping[str, str | None], title: str, *, is_kept: bool = True) -> None:
    """Log whom a message reached and whom it did not; whether it is kept for another attempt."""
    told = [label for label, error in outcome.items() if error is None]
    if told:
        logger.info("alert sent to %s: %s", ", ".join(told), title)
    then = "; run.py alert sends it again" if is_kept else ""
    for label, error in outcome.items():
        if error:
            logger.warning("alert not delivered to %s: %s (%s)%s", label, error, title, then)
