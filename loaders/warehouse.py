"""The warehouse as the loaders see it: statements, table names, a dlt destination."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb

from loaders.config import Target
from loaders.errors import WarehouseBusy, WarehouseError, describe

_LOCKED = "Could not set lock on file"


class DuckDBWarehouse:
    """A DuckDB file, held open only inside `open()`.

    DuckDB locks its file against other processes, so a run opens it to land, merge,
    check and write events, never while it waits for an API. Inside one process any
    number of connections (dlt's, dbt's, ours) share the file.
    """

    def __init__(self, target: Target, lock_wait: float = 60.0) -> None:
        self.target = target
        self.lock_wait = lock_wait
        self._lock = threading.RLock()
        self._holders = 0
        self._connection: duckdb.DuckDBPyConnection | None = None

    def table(self, name: str) -> str:
        """Qualified name of a table in the events dataset."""
        return f'"{self.target.schema}"."{name}"'

    def staging_table(self, name: str) -> str:
        """Qualified name of a table in the landing dataset."""
        return f'"{self.target.staging_schema}"."{name}"'

    @contextlib.contextmanager
    def open(self) -> Iterator[DuckDBWarehouse]:
        """Hold the file; nested and concurrent use inside the process share one hold.

        Raises WarehouseBusy when another process keeps it longer than `lock_wait`
        seconds, WarehouseError when it cannot be opened at all.
        """
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            self._holders += 1
        try:
            yield self
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._connection.close()
                    self._connection = None

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement with `?` parameters and return its rows.

        Raises WarehouseError.
        """
        with self.open():
            assert self._connection is not None
            cursor = self._connection.cursor()
            try:
                return cursor.execute(sql, list(parameters)).fetchall()
            except duckdb.Error as error:
                raise WarehouseError(f"{self.target.path.name}: {describe(error)}") from error
            finally:
                cursor.close()

    def is_bootstrapped(self) -> bool:
        """Whether the tables are there; looking does not create the file."""
        return self.target.path.exists() and "raw_objects" in self.columns()

    def columns(self) -> dict[str, set[str]]:
        """Columns of each table in both datasets."""
        found: dict[str, set[str]] = {}
        for table, column in self.execute(
            "select table_name, column_name from information_schema.columns"
            " where table_schema in (?, ?)",
            (self.target.schema, self.target.staging_schema),
        ):
            found.setdefault(table, set()).add(column)
        return found

    def destination(self) -> Any:
        """The dlt destination for this file."""
        import dlt
        from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

        credentials = DuckDbCredentials(str(self.target.path))
        credentials.global_config = dict(self.target.settings.get("settings") or {})
        return dlt.destinations.duckdb(credentials)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        began = time.monotonic()
        pause = 0.05
        while True:
            try:
                connection = duckdb.connect(str(self.target.path))
                break
            except duckdb.Error as error:
                if _LOCKED not in str(error):
                    raise WarehouseError(
                        f"{self.target.path}: cannot be opened: {describe(error)}"
                    ) from error
                if time.monotonic() + pause - began > self.lock_wait:
                    raise WarehouseBusy(
                        f"{self.target.path}: another process has held the file for"
                        f" {self.lock_wait:g} s; wait for it, or raise --lock-wait"
                    ) from error
                time.sleep(pause)
                pause = min(pause * 1.5, 1.0)
        for name, value in (self.target.settings.get("settings") or {}).items():
            connection.execute(f"set global {name} = '{value}'")
        connection.execute("set global TimeZone = 'UTC'")
        return connection


def open_warehouse(target: Target, lock_wait: float = 60.0) -> DuckDBWarehouse:
    """The warehouse of a dbt target; nothing is opened yet."""
    return DuckDBWarehouse(target, lock_wait)
