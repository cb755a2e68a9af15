"""Access to a source of lists: its options, its check, no sandbox."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeVar

from loaders.errors import ConfigError, LandfallError
from loaders.settings.connection import Connection
from loaders.settings.options import check_options, read_options, section
from loaders.sources.access import Access, AccessOptions, say_which
from loaders.sources.check_lines import CheckLines
from loaders.sources.checking import NOT_KNOWN, ConnectionCheck
from loaders.sources.lists import ListOptions, ListPosition, ListSource, known_position
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

Options = TypeVar("Options", bound=ListOptions)


def access_to(
    options_type: type[Options], new_source: Callable[[str, Options], ListSource]
) -> Callable[[Connection, Warehouse, AccessOptions], contextlib.AbstractContextManager[Access]]:
    """The `open_access` of a source, from its options and what makes it of a connection's name."""

    @contextlib.contextmanager
    def open_access(
        connection: Connection, warehouse: Warehouse, options: AccessOptions
    ) -> Iterator[Access]:
        where = section(connection)
        if connection.is_sandbox:
            raise ConfigError(
                f"{connection.source_system}: no connection is configured, and it has no sandbox;"
                f" add [{where.rpartition('.')[0]}.NAME] to .dlt/secrets.toml"
            )
        say_which(connection, warehouse, "")

        def open_source(**changed: int) -> ListSource:
            found = options_type(**read_options(options_type, connection))
            check_options(found, where)
            return new_source(connection.name, dataclasses.replace(found, **changed))

        yield Access(
            open_source,
            lambda report, check_warehouse: ListCheck(
                report, connection, warehouse, open_source
            ).run(check_warehouse),
        )

    return open_access


class ListCheck(ConnectionCheck):
    """The account, every list, and where each type stands."""

    def __init__(
        self,
        report: CheckLines,
        connection: Connection,
        warehouse: Warehouse,
        open_source: Callable[..., ListSource],
    ) -> None:
        super().__init__(report, connection, warehouse)
        self._open_source = open_source
        self._source: ListSource | None = None
        self._account: str | None = None

    def check_access(self) -> None:
        """The account, and a page of each list."""
        try:
            source = self._open_source(max_attempts=self.MAX_ATTEMPTS)
            self._account = source.account(self.request)
        except LandfallError as error:
            self.report.failed("account", error)
            self.report.nothing("lists", NOT_KNOWN)
            return
        self._source = source
        self.report.ok("account", self._account or "the source does not say which it is")
        failed = []
        for object_type in source.object_types:
            try:
                source.page(self.request, object_type, None, None, 1)
            except LandfallError as error:
                failed.append(f"{object_type} ({error})")
        if failed:
            self.report.failed("lists", "; ".join(failed))
        else:
            self.report.ok("lists", f"read: {', '.join(source.object_types)}")

    def check_cursor(self, stored: Stored) -> None:
        """Where each type stands, and what the next run does about it."""
        if self._source is None:
            self.report.nothing("cursor", NOT_KNOWN)
            return
        said = []
        for object_type in self._source.object_types:
            request = dataclasses.replace(self.request, stored=stored)
            position = known_position(request, object_type, self._account)
            said.append(f"{object_type} {_next_run(self._source, position)}")
        self.report.ok("cursor", "; ".join(said))


def _next_run(source: ListSource, position: ListPosition | None) -> str:
    if position is None:
        return "none yet: the next run reads it whole"
    known = f"known up to {position.until:%Y-%m-%d %H:%M} UTC" if position.until else "empty so far"
    if position.is_open:
        return f"{known}: the next run goes on reading"
    is_whole = source.is_whole_due(position)
    return f"{known}: the next run {'reads it whole' if is_whole else 'is incremental'}"
