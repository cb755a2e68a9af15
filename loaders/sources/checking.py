"""Whether a connection works: what every source's check has in common."""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable
from typing import ClassVar

from loaders.errors import LandfallError
from loaders.objects.items import ObservationClock
from loaders.settings.connection import Connection
from loaders.sources.check_lines import CheckLines
from loaders.sources.contract import FetchRequest, Usage
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

NOT_KNOWN = "not known, see what failed"


class ConnectionCheck(abc.ABC):
    """Reports a line for each part: access, the warehouse, where the connection stands.

    Writes nothing but what keeps a token that was refreshed.
    """

    MAX_ATTEMPTS: ClassVar[int] = 2
    """Of a request: a person waits."""

    def __init__(self, report: CheckLines, connection: Connection, warehouse: Warehouse) -> None:
        self.report = report
        self.connection = connection
        self._warehouse = warehouse
        self.request = FetchRequest(
            clock=ObservationClock(),
            usage=Usage(),
            stored=self._stored(is_empty=True),
            cancelled=threading.Event(),
        )

    def run(self, check_warehouse: Callable[[], bool | None]) -> None:
        """Report all of it; `check_warehouse` reports the warehouse, and returns whether it has
        tables (None: it cannot be reached)."""
        self.check_access()
        has_tables = check_warehouse()
        if has_tables is None:
            self.report.nothing("cursor", NOT_KNOWN)
            return
        try:
            self.check_cursor(self._stored(is_empty=not has_tables))
        except LandfallError as error:
            self.report.failed("cursor", error)

    @abc.abstractmethod
    def check_access(self) -> None:
        """Report what the source says to the credentials."""

    @abc.abstractmethod
    def check_cursor(self, stored: Stored) -> None:
        """Report where the connection stands, and what the next run does. Raises LandfallError."""

    def _stored(self, *, is_empty: bool) -> Stored:
        connection = self.connection
        return Stored(self._warehouse, connection.source_system, connection.name, is_empty=is_empty)
