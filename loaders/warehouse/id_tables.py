"""Tables of ids in an in-memory DuckDB of bounded size: sets are compared in SQL."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb

if TYPE_CHECKING:
    import pyarrow as pa

_MEMORY = "150MB"
"""What more rows than that take is spilled to a temporary directory."""
_ROWS = 20_000

Schemas = Mapping[str, Sequence[tuple[str, Any]]]
"""The columns of each table, with their Arrow types or Arrow's names of these."""


class SpilledTables:
    """Tables of these columns, empty at first. A context manager, which forgets them."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = {table: _schema(columns) for table, columns in schemas.items()}
        self._directory = tempfile.TemporaryDirectory(prefix="landfall-ids-")
        self.connection = duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "memory_limit": _MEMORY,
                "temp_directory": self._directory.name,
                "preserve_insertion_order": False,
            },
        )
        for table, schema in self._schemas.items():
            self.connection.register("empty", schema.empty_table())
            self.connection.execute(f"create table {table} as select * from empty")

    def __enter__(self) -> Self:
        """Hold the rows."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Forget them."""
        self.connection.close()
        self._directory.cleanup()

    def add(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Append rows, so many at a time."""
        import pyarrow as pa

        schema = self._schemas[table]
        rows = iter(rows)
        while some := list(itertools.islice(rows, _ROWS)):
            columns = [
                pa.array(values, field.type)
                for values, field in zip(zip(*some, strict=True), schema, strict=True)
            ]
            self.connection.register("page", pa.Table.from_arrays(columns, schema=schema))
            self.connection.execute(f"insert into {table} select * from page")
            self.connection.unregister("page")


def _schema(columns: Sequence[tuple[str, Any]]) -> pa.Schema:
    import pyarrow as pa

    def of(kind: Any) -> pa.DataType:
        if not isinstance(kind, str):
            return kind
        if kind.startswith("list<"):
            return pa.list_(of(kind[5:-1]))
        return pa.type_for_alias(kind)

    return pa.schema([(column, of(name)) for column, name in columns])
