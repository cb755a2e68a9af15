"""The tables that jobs write: made, and completed, before anything else."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from loaders.errors import ConfigError, TransformFailed
from loaders.settings.places import PROJECT_DIR
from loaders.settings.target import Target
from loaders.transform.dbt_build import BuildResult, until_settled
from loaders.transform.invocation import invoke, may_pass, said_without_values
from loaders.warehouse.base import Warehouse

FORMAT = "warehouse_format"
"""The table whose columns say which releases may write; see models/core/_sources.yml."""


def bootstrap(warehouse: Warehouse) -> None:
    """Create the tables and columns that the documented ones have and the warehouse lacks.

    What fails while the tables change is tried again: two first jobs at once may trip
    over each other. Raises TransformFailed when dbt cannot, and ConfigError when a later release
    has changed the warehouse so that this one must not write to it.
    """
    documented = documented_columns()
    present = warehouse.columns()
    check_format(warehouse.target, present, documented)
    while any(columns.keys() - present.get(table, set()) for table, columns in documented.items()):
        result = until_settled(lambda: _bootstrap_once(warehouse.target))
        if result.error is None:
            return
        time.sleep(random.uniform(0.5, 1.5))
        before, present = present, warehouse.columns()
        if present == before:
            raise result.error


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
    tables: dict[str, dict[str, str]] = {}
    for path in sorted((PROJECT_DIR / "models").glob("*/_*.yml")):
        document = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        for source in document.get("sources", []):
            for table in source["tables"]:
                tables[table["name"]] = _data_types(table)
        for model in document.get("models", []):
            if model["name"] == "raw_objects":
                tables["raw_objects"] = _data_types(model)
    return tables


def _data_types(node: Mapping[str, Any]) -> dict[str, str]:
    return {column["name"]: column["data_type"] for column in node["columns"]}


def _bootstrap_once(target: Target) -> BuildResult:
    result, said = invoke(target, {}, ["run-operation", "run_bootstrap"], quiet=True)
    if result.success:
        return BuildResult()
    message = str(result.exception or said or "failed; see dbt's log")
    error = TransformFailed(f"bootstrap: {said_without_values(target, message)}")
    error.retryable = may_pass(target, message)
    return BuildResult(error=error)
