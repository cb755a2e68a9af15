"""Verification: whether the warehouse holds what the source has, as a logged job."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from loaders.errors import LandfallError, PayloadError
from loaders.jobs.job import Job
from loaders.jobs.names import job_name_for
from loaders.objects.items import ObservationClock
from loaders.objects.payloads import admit
from loaders.sources.contract import FetchOutcome, FetchRequest, Source, Usage, VerifiableSource
from loaders.sources.inventory import (
    ALTERED,
    ERASED,
    ERRORS,
    EXCUSES,
    MISSING,
    Inventory,
    TypeOutcome,
)
from loaders.transform import merge_counts
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

TIMEOUT_SECONDS = 24 * 3600.0
"""Listing a large mailbox takes hours of its quota."""


class VerificationFailed(LandfallError):
    """The warehouse does not hold what the source has."""


@dataclasses.dataclass
class Report:
    """What a verification found."""

    correlation_id: str
    types: list[TypeOutcome]
    ids: dict[str, list[tuple[str, str]]]
    """The first objects (type, id) of each kind of difference."""
    notes: list[str]
    usage: Usage
    duration_seconds: float

    @property
    def totals(self) -> dict[str, int]:
        """Objects of all types, by kind of difference; the errors always."""
        totals = dict.fromkeys(ERRORS, 0)
        for outcome in self.types:
            for kind, count in outcome.differences.items():
                totals[kind] = totals.get(kind, 0) + count
        return totals

    @property
    def is_equal(self) -> bool:
        """Whether every difference is explained."""
        return not any(self.totals[kind] for kind in ERRORS)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": self.correlation_id,
            "is_equal": self.is_equal,
            "totals": self.totals,
            "types": [dataclasses.asdict(outcome) for outcome in self.types],
            "ids": {
                kind: [{"object_type": name, "external_id": key} for name, key in ids]
                for kind, ids in self.ids.items()
            },
            "notes": self.notes,
            "api_calls": self.usage.api_calls,
            "api_units": self.usage.api_units,
            "duration_seconds": self.duration_seconds,
        }


class Verification:
    """One verification of one connection; `report` is there when both sides could be read.

    It writes no data and so takes no lease: runs of the connection go on beside it.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        open_source: Callable[[], VerifiableSource],
        *,
        source_system: str,
        connection_name: str,
        limit: int = 20,
        with_payloads: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`limit` ids of each kind are reported; `with_payloads` reads every stored payload."""
        self.job = Job(
            warehouse,
            job_name=job_name_for(source_system, connection_name, "verify"),
            source_system=source_system,
            connection_name=connection_name,
            parameters={"payloads": with_payloads},
            timeout_seconds=TIMEOUT_SECONDS,
            takes_lease=False,
        )
        self.report: Report | None = None
        self._warehouse = warehouse
        self._open_source = open_source
        self._limit = limit
        self._with_payloads = with_payloads
        self._say = say

    def run(self) -> None:
        """Compare, and log the outcome. Raises VerificationFailed when something differs that
        nothing explains, NotVerifiable, SourceError, WarehouseError."""
        self.job.start()
        try:
            self.job.step = "extract"
            self.report = self._compare()
            self.job.step = "check"
            if not self.report.is_equal:
                raise VerificationFailed(self._failure(self.report))
            self.job.step = "end"
            self.job.complete(_telemetry(self.report))
        except BaseException as error:
            self.job.fail(error)
            raise

    def _compare(self) -> Report:
        began = time.monotonic()
        stored = Stored(self._warehouse, self.job.source_system, self.job.connection_name or "")
        usage = Usage()
        request = FetchRequest(
            clock=ObservationClock(),
            usage=usage,
            stored=stored,
            cancelled=self.job.cancelled,
            say=self._say,
            outcome=FetchOutcome(mode="verify"),
        )
        source = self._open_source()
        try:
            with Inventory() as inventory:
                source.verify(request, inventory)
                if self._with_payloads:
                    inventory.alter(_altered(stored, source))
                _excuse_erased(inventory, stored)
                types = inventory.compare()
                ids = {kind: inventory.ids(kind, self._limit) for kind in (*ERRORS, *EXCUSES)}
                return Report(
                    self.job.correlation_id,
                    types,
                    {kind: found for kind, found in ids.items() if found},
                    inventory.notes,
                    usage,
                    round(time.monotonic() - began, 3),
                )
        finally:
            source.close()

    def _failure(self, report: Report) -> str:
        counts = ", ".join(f"{report.totals[kind]} {kind}" for kind in ERRORS)
        altered = "; of what is altered see docs/duties.md first" if report.totals[ALTERED] else ""
        return (
            f"{self.job.source_system}: connection '{self.job.connection_name}' does not hold what"
            f" the source has: {counts};"
            f' "run.py {self.job.source_system} --full-resync" reads all of it again{altered}'
        )


def _excuse_erased(inventory: Inventory, stored: Stored) -> None:
    """What was erased is missing on purpose."""
    if erased := stored.erased():
        missing = inventory.differing(MISSING)
        for object_type in {object_type for object_type, _ in missing}:
            ids = [external_id for of_type, external_id in missing if of_type == object_type]
            gone = (key for key in ids if erased.covers(*stored.connection, object_type, key))
            inventory.excuse(object_type, gone, ERASED)


def _altered(stored: Stored, source: Source) -> Iterator[tuple[str, str]]:
    """Live objects whose payload is not the one that payload_hash was made of."""
    for object_type, external_id, payload, payload_hash in stored.payloads():
        try:
            found = None if payload is None else admit(payload, source.volatile_keys)[2]
        except PayloadError:
            found = None
        if found != payload_hash:
            yield object_type, external_id


def _telemetry(report: Report) -> dict[str, Any]:
    return {
        **merge_counts.of_no_build(),
        "verified": {
            outcome.object_type: {
                "listed": outcome.listed,
                "held": outcome.held,
                **outcome.differences,
            }
            for outcome in report.types
        },
        "api_calls": report.usage.api_calls,
        "api_units": report.usage.api_units,
    }
