"""The warehouse as a DuckDB file."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import random
import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import duckdb

from loaders.errors import ConfigError, WarehouseBusy, WarehouseError, describe
from loaders.settings.places import DEFAULT_LOCK_WAIT
from loaders.settings.target import Target
from loaders.warehouse.base import View, Warehouse
from loaders.warehouse.tables import Column, Layout

_LOCKED = "Could not set lock on file"
_NO_FILE_OF_ITS = "not a valid DuckDB database file"
_HEADER_BYTES = 3 * 4096
_MADE_WITHIN_SECONDS = 5.0
# A COMMIT says only what it could not do.
_OUT_OF_MEMORY = re.compile(r"Out of Memory Error|failed to (?:pin block|allocate data) of size")
_HOLDER = re.compile(r"\(PID ([1-9]\d*)\)")
_LOOK_AGAIN_SECONDS = (0.1, 0.5)
"""Random, and the same for all: whoever has waited long must not look more rarely than others."""
_SAY_AFTER_SECONDS = 5.0
_STREAMED_ROWS = 256

logger = logging.getLogger(__name__)


class DuckDBWarehouse(Warehouse):
    """A DuckDB file, held open only inside `open()`.

    DuckDB locks its file against other processes, so a run opens it to land, merge,
    check and write events, never while it waits for an API. Inside one process any
    number of connections (dlt's, dbt's, ours) share the file.
    """

    json_parameter = "cast(? as json)"
    timestamp_parameter = "cast(? as timestamptz)"
    column_types: ClassVar[Mapping[str, str]] = {
        "string": "varchar",
        "timestamp": "timestamptz",
        "integer": "bigint",
        "boolean": "boolean",
        "json": "json",
    }
    largest_json = 100_000
    """It takes the payloads of 2,048 rows apart at once, each into four times its size."""

    def __init__(self, target: Target, lock_wait: float = DEFAULT_LOCK_WAIT) -> None:
        super().__init__(target, lock_wait)
        self._lock = threading.RLock()
        self._holders = 0
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._file: tuple[int, int] | None = None
        """Device and inode of the file as it was opened first."""
        self._is_read_only = False

    def table(self, name: str) -> str:
        """Qualified name of a table in the events dataset."""
        return f'"{self.target.schema}"."{name}"'

    def staging_table(self, name: str) -> str:
        """Qualified name of a table in the landing dataset."""
        return f'"{self.target.staging_schema}"."{name}"'

    def qualified_schema(self, name: str) -> str:
        """Qualified name of a schema."""
        return f'"{name}"'

    def has_schema(self, name: str) -> bool:
        """Whether the schema is there. Raises WarehouseError."""
        query = "select 1 from duckdb_schemas() where schema_name = ?"
        return bool(self.execute(f"{query} and database_name = current_database()", (name,)))

    def column_options(self, column: Column) -> str:
        """Its compression. Choosing is most of what a checkpoint costs: 11 s of CPU for 400 MB of
        mail by default, 6 s for zstd, which is also the smallest."""
        return f"using compression {column.compression}" if column.compression else ""

    def table_layout(self, layout: Layout) -> str:
        """Nothing: DuckDB has neither, its zone maps do this work."""
        return ""

    def json_text(self, json: str, path: str) -> str:
        """SQL of the scalar at a JSON path, as text."""
        return f"json_extract_string({json}, '{path}')"

    def json_member(self, json: str, path: str) -> str:
        """SQL of the JSON value at a path."""
        return f"json_extract({json}, '{path}')"

    def json_as_text(self, json: str) -> str:
        """SQL of a JSON value written as text."""
        return f"cast({json} as varchar)"

    def json_parsed(self, text: str) -> str:
        """SQL of the JSON value of a text."""
        return f"cast({text} as json)"

    def row_as_json(self, table: str) -> str:
        """SQL of a row of a table, or of its alias, as the text of a JSON object."""
        return f"cast(to_json({table}) as varchar)"

    def sha256(self, text: str) -> str:
        """SQL of a text's SHA-256, in lower-case hexadecimal."""
        return f"sha256({text})"

    @contextlib.contextmanager
    def open(self) -> Iterator[DuckDBWarehouse]:
        """Hold the file; nested and concurrent use inside the process share one hold.

        Raises WarehouseBusy when others keep it for `lock_wait` seconds, WarehouseError when
        it cannot be opened at all.
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
                    self._close()

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
                raise WarehouseError(
                    f"{self.target.path.name}: {self.with_next_step(describe(error))}"
                ) from error
            finally:
                cursor.close()

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Run one query and yield its rows, never all of them held. Raises WarehouseError."""
        with self.open():
            assert self._connection is not None
            cursor = self._connection.cursor()
            try:
                cursor.execute(sql, list(parameters))
                while rows := cursor.fetchmany(_STREAMED_ROWS):
                    yield from rows
            except duckdb.Error as error:
                raise WarehouseError(
                    f"{self.target.path.name}: {self.with_next_step(describe(error))}"
                ) from error
            finally:
                cursor.close()

    def insert_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows of event_log, all or none, but those whose event_id is there.

        Raises WarehouseError.
        """
        event_log, columns = self.table("event_log"), list(events[0])
        row = ", ".join(f"{self.event_value(column)} as {column}" for column in columns)
        rows = " union all ".join([f"select {row}"] * len(events))
        self.execute(
            f"insert into {event_log} ({', '.join(columns)}) select * from ({rows}) as added"
            f" where added.event_id not in (select event_id from {event_log})",
            [event[column] for event in events for column in columns],
        )

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

    def views(self, names: Collection[str]) -> dict[str, View]:
        """The views of these names in the events dataset, as their metadata has them."""
        columns = self.columns()
        return {
            name: View(columns[name], mark) for name, mark in self.marks().items() if name in names
        }

    def marks(self) -> dict[str, str]:
        """What each view of the events dataset is marked with, at the end of its comment."""
        rows = self.execute(
            "select view_name, regexp_extract(comment, '\\[landfall (\\w+)\\]$', 1)"
            " from duckdb_views() where schema_name = ? and database_name = current_database()",
            (self.target.schema,),
        )
        return {name: mark or "" for name, mark in rows}

    def with_next_step(self, message: str) -> str:
        """Where its memory did not suffice, the name that its limit has here."""
        if not _OUT_OF_MEMORY.search(message):
            return message
        said = message.partition("Possible solutions")[0].strip()
        return f"{said}; raise LANDFALL_DUCKDB_MEMORY, which is memory_limit in profiles.yml"

    def checkpoint(self) -> None:
        """End the row groups: DuckDB writes 2,048 rows of one at once, and its memory bounds those.

        While a transaction is open in this process, a stream's too, that is refused.
        """
        self.execute("checkpoint")

    def end_statements(self, label: str, value: str, since: dt.datetime) -> None:
        """Nothing: a statement ends with its process."""

    def destination(self) -> Any:
        """The dlt destination for this file."""
        import dlt
        from dlt.common.destination.configuration import ParquetFormatConfiguration
        from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

        credentials = DuckDbCredentials(str(self.target.path))
        credentials.global_config = dict(self.target.settings.get("settings") or {})
        # A package's file lives for a moment and travels nowhere: not worth compressing.
        uncompressed = ParquetFormatConfiguration(compression="none")
        return dlt.destinations.duckdb(credentials, parquet_format=uncompressed)

    def _close(self) -> None:
        """Close the file, which writes what its log holds into it."""
        assert self._connection is not None
        self._connection.close()
        self._connection = None

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if not self.target.path.parent.is_dir():
            raise ConfigError(
                f"{self.target.path}: its directory does not exist; make it, or correct the path"
                f" of target '{self.target.name}' (LANDFALL_DUCKDB_PATH)"
            )
        if self._file is not None and self._file != self._found_file():
            # DuckDB would begin an empty one, and the run complete with nothing in it.
            raise WarehouseError(
                f"{self.target.path}: the file that this run began with is gone, or another one is"
                " in its place; put it back and run again"
            )
        connection = self._connect_unlocked()
        if self._file is None and not self._is_read_only:
            self._remove_spilled()
        self._file = self._found_file()
        for name, value in (self.target.settings.get("settings") or {}).items():
            connection.execute(f"set global {name} = '{value}'")
        connection.execute("set global TimeZone = 'UTC'")
        # A checkpoint merges small row groups: those of the queue, with every payload in them,
        # again and again. The MERGE allows it again (macros/merge/get_merge_sql.sql).
        connection.execute("set global max_vacuum_tasks = 0")
        return connection

    def _found_file(self) -> tuple[int, int] | None:
        try:
            found = self.target.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _remove_spilled(self) -> None:
        """Remove what killed processes have spilled: DuckDB does so when it spills again, and until
        then payloads lie there. No other process has the file, so none of theirs is in use."""
        own = f"duckdb_temp_{os.getpid()}_"
        directory = self.target.path.with_name(f"{self.target.path.name}.tmp")
        for path in directory.glob("duckdb_temp_*"):
            if not path.name.startswith(own):
                with contextlib.suppress(OSError):  # another user's; the run itself needs it not
                    path.unlink()

    def _is_being_made(self, error: duckdb.Error) -> bool:
        """Whether another process may have begun the file and not come to its header yet: DuckDB
        looks at that before it looks for a lock."""
        if _NO_FILE_OF_ITS not in str(error):
            return False
        found = self.target.path.stat()
        age = time.time() - found.st_mtime
        return found.st_size < _HEADER_BYTES and 0 <= age < _MADE_WITHIN_SECONDS

    def _connect_unlocked(self) -> duckdb.DuckDBPyConnection:
        """A connection as soon as no other process has the file open."""
        began = time.monotonic()
        has_said = False
        while True:
            self._is_read_only = False
            try:
                return duckdb.connect(str(self.target.path))
            except duckdb.Error as error:
                if self.may_be_read_only:
                    with contextlib.suppress(duckdb.Error):  # who holds the file writes
                        connection = duckdb.connect(str(self.target.path), read_only=True)
                        self._is_read_only = True
                        return connection
                if _LOCKED not in str(error) and not self._is_being_made(error):
                    raise WarehouseError(
                        f"{self.target.path}: cannot be opened: {describe(error)}"
                    ) from error
                waited = time.monotonic() - began
                if waited >= self.lock_wait:
                    self.lock_wait = 0.0  # the run ends now, and its events go into the spool
                    raise WarehouseBusy(
                        f"{self.target.path}: {_holder(error)} holds the file, longer than"
                        " --lock-wait; wait for its end, or raise that"
                    ) from error
                if waited >= _SAY_AFTER_SECONDS and not has_said:
                    has_said = True
                    logger.info(
                        "%s: %s holds the file; waiting, %g s at most (--lock-wait)",
                        self.target.path.name,
                        _holder(error),
                        self.lock_wait,
                    )
            time.sleep(random.uniform(*_LOOK_AGAIN_SECONDS))


def _holder(error: duckdb.Error) -> str:
    """The process that holds a file, as DuckDB tells it."""
    found = _HOLDER.search(str(error))
    return f"process {found.group(1)}" if found else "another process"
