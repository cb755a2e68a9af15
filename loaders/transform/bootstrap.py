"""The tables that jobs write: made, and completed, before anything else.

What macros/event_log/bootstrap.sql does for a plain dbt command, from the same documented columns,
without dbt. tests/python/test_bootstrap.py holds the two equal.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator, Mapping

from loaders.errors import ConfigError, TransformFailed, WarehouseError
from loaders.settings.target import Target
from loaders.transform.invocation import may_pass
from loaders.warehouse.base import Warehouse
from loaders.warehouse.tables import Column, Table, documented_tables

FORMAT = "warehouse_format"
"""The table whose columns say which releases may write; see models/core/_sources.yml."""
_SEED = "accepted_violations"
"""What no job makes, and a build without `--select` does: the copy of a warehouse has none."""


def bootstrap(warehouse: Warehouse) -> bool:
    """Create the tables and columns that the documented ones have and the warehouse lacks; whether
    it lacked any, or no build has made the seed in it yet.

    What fails while the tables change is tried again: two first jobs at once may trip over each
    other. Raises TransformFailed when the warehouse refuses, WarehouseError when it cannot be
    asked, and ConfigError when a later release has changed the warehouse so that this one must not
    write to it.
    """
    present = warehouse.columns()
    check_format(warehouse.target, present, documented_columns())
    statements = statements_for(warehouse, present)
    is_lacking = bool(statements) or _SEED not in present
    while statements:
        try:
            warehouse.execute(";\n".join(statements))
        except WarehouseError as error:
            time.sleep(random.uniform(0.5, 1.5))
            before, statements = statements, statements_for(warehouse, warehouse.columns())
            if statements == before:
                raise _failure(warehouse.target, error) from error
        else:
            break
    return is_lacking


def check_format(
    target: Target,
    present: Mapping[str, Collection[str]],
    documented: Mapping[str, Collection[str]],
) -> None:
    """Raise ConfigError when the warehouse has a format of which this release knows nothing."""
    unknown = set(present.get(FORMAT, ())) - set(documented[FORMAT])
    if unknown:
        raise ConfigError(
            f"{target.location}: a later release writes this warehouse ({FORMAT}"
            f" {', '.join(sorted(unknown))}), this one knows {', '.join(documented[FORMAT])};"
            " update this checkout"
        )


def has_tables(warehouse: Warehouse) -> bool:
    """Whether there is a warehouse; one of an earlier release gets the columns that it lacks."""
    if not warehouse.is_bootstrapped():
        return False
    bootstrap(warehouse)
    return True


def documented_columns() -> dict[str, dict[str, str]]:
    """Columns and data types, as the project's YAML says, of each table that jobs write."""
    return {
        table.name: {column.name: column.data_type for column in table.columns}
        for table in documented_tables()
    }


def statements_for(warehouse: Warehouse, present: Mapping[str, Collection[str]]) -> list[str]:
    """What makes the documented tables of those that are present: forward only, safe to repeat.

    None when nothing is missing. Raises WarehouseError.
    """
    found = [*_table_statements(warehouse, present)]
    return [*_schema_statements(warehouse), *found] if found else []


def _table_statements(
    warehouse: Warehouse, present: Mapping[str, Collection[str]]
) -> Iterator[str]:
    for table in documented_tables():
        name = (warehouse.staging_table if table.is_staging else warehouse.table)(table.name)
        if table.name not in present:
            yield _create_table(warehouse, name, table)
            continue
        for column in table.columns:
            if column.name not in present[table.name]:
                yield f"alter table {name} add column if not exists {_typed(warehouse, column)}"


def _schema_statements(warehouse: Warehouse) -> Iterator[str]:
    """Even IF NOT EXISTS takes BigQuery's permission to make datasets: only of what is missing."""
    for schema in (warehouse.target.schema, warehouse.target.staging_schema):
        if not warehouse.has_schema(schema):
            yield f"create schema if not exists {warehouse.qualified_schema(schema)}"


def _create_table(warehouse: Warehouse, name: str, table: Table) -> str:
    columns = ",\n    ".join(_definition(warehouse, column) for column in table.columns)
    layout = f"\n{warehouse.table_layout(table.layout)}" if table.layout else ""
    return f"create table if not exists {name} (\n    {columns}\n){layout}".rstrip()


def _definition(warehouse: Warehouse, column: Column) -> str:
    """A column of a new table; one that is added to rows that are there cannot be NOT NULL."""
    required = " not null" if column.is_required else ""
    return f"{_typed(warehouse, column)}{required} {warehouse.column_options(column)}".rstrip()


def _typed(warehouse: Warehouse, column: Column) -> str:
    return f"{column.name} {warehouse.column_types[column.data_type]}"


def _failure(target: Target, error: WarehouseError) -> TransformFailed:
    failure = TransformFailed(f"bootstrap: {error}")
    failure.retryable = may_pass(target, str(error))
    return failure
