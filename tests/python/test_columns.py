"""That each documented column has a writer: one that nothing writes would be NULL for ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from loaders.ingestion.arrow_tables import LandedCursor, LandedObject
from loaders.ingestion.ingest import DeadLettered
from loaders.objects.items import Deleted, Observed
from loaders.transform import dbt_build
from loaders.transform.bootstrap import documented_columns
from loaders.warehouse.base import Warehouse
from loaders.warehouse.dead_letters import DeadLetter, drop, open_letters

from .conftest import (
    Project,
    ScriptedSource,
    at,
    cursor_item,
    on_both_targets,
    run_scripted,
)
from .test_hooks import rendered

LANDING = ("landed_objects", "dead_letters", "cursors")
MERGE_ONLY = (
    *("--select", "stg_landed_objects", "raw_objects"),
    *("--exclude-resource-type", "test", "unit_test"),
)
UNWRITTEN = {"event_log.idem_key"}
"""Documented as NULL."""


def unwritten(
    warehouse: Warehouse, documented: Mapping[str, Collection[str]], *tables: str
) -> set[str]:
    """Documented columns that no row has a value in."""
    found = set()
    for table in tables:
        of = warehouse.staging_table(table) if table in LANDING else warehouse.table(table)
        counted = ", ".join(f"count({column})" for column in documented[table])
        [counts] = warehouse.execute(f"select {counted} from {of}")
        named = zip(documented[table], counts, strict=True)
        found |= {f"{table}.{column}" for column, count in named if not count}
    return found


def write_all(
    warehouse: Warehouse,
    documented: Mapping[str, Collection[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> set[str]:
    """Let every writer write, as runs do, and return the columns that none has written."""
    monkeypatch.setenv("TRACEPARENT", f"00-{'a' * 32}-{'b' * 16}-01")
    monkeypatch.setattr(ScriptedSource, "created_at", lambda *_: at(0))
    with monkeypatch.context() as landing:
        landing.setattr(dbt_build, "build", lambda *_, **__: dbt_build.BuildResult())
        run = run_scripted(
            warehouse,
            [
                Observed("widget", '{"id": "w1"}', at(1), "w1"),
                Deleted("widget", "w2", at(1)),
                Observed("widget", "not json", at(1), "w3"),
                cursor_item(2, n=1),
            ],
        )
    assert isinstance(run.error, DeadLettered)
    [letter] = open_letters(warehouse)
    drop(warehouse, letter, "why", keep_payload=True)
    found = unwritten(warehouse, documented, *LANDING, "event_log")
    assert dbt_build.build(warehouse.target, "run", MERGE_ONLY).error is None
    return found | unwritten(warehouse, documented, "raw_objects")


@on_both_targets
@pytest.mark.slow
def test_each_documented_column_has_a_writer(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write_all(warehouse, documented_columns(), monkeypatch) == UNWRITTEN


@pytest.mark.slow
def test_a_column_that_nothing_writes_is_found(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [*LANDING, "event_log", "raw_objects"]
    for table in tables:
        of = warehouse.staging_table(table) if table in LANDING else warehouse.table(table)
        warehouse.execute(f"alter table {of} add column planted varchar")
    documented = {
        table: [*columns, *(["planted"] if table in tables else [])]
        for table, columns in documented_columns().items()
    }
    found = write_all(warehouse, documented, monkeypatch)
    assert found == UNWRITTEN | {f"{table}.planted" for table in tables}


def test_the_lists_of_columns_are_the_documented_ones(project: Project) -> None:
    documented = {table: set(columns) for table, columns in documented_columns().items()}
    by_dlt = {"_dlt_load_id"}
    for table, row in (
        ("landed_objects", LandedObject),
        ("cursors", LandedCursor),
        ("dead_letters", DeadLetter),
    ):
        assert documented[table] == {*row._fields} | by_dlt, table
    of_objects = [
        name for names in rendered(project, "object_columns()").values() for name in names
    ]
    assert len(of_objects) == len(set(of_objects))
    assert documented["raw_objects"] == set(of_objects)
