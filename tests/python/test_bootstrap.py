"""The bootstrap: one definition of every table, made once, widened later, never rebuilt."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import yaml

from loaders.errors import TransformFailed, WarehouseError
from loaders.jobs.event_log import log_event
from loaders.objects.items import Observed
from loaders.settings.places import PROJECT_DIR
from loaders.settings.target import load_target
from loaders.transform import bootstrap, dbt_build, invocation
from loaders.transform.selection import selection
from loaders.warehouse.base import Warehouse
from loaders.warehouse.tables import documented_tables

from .conftest import Project, at, event_types, on_both_targets, run_scripted
from .test_hooks import rendered

TYPES = {
    "string": "VARCHAR",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "integer": "BIGINT",
    "boolean": "BOOLEAN",
    "json": "JSON",
}
TABLES = {
    "event_log",
    "raw_objects",
    "landed_objects",
    "cursors",
    "dead_letters",
    "erasures",
    "alerts",
    "warehouse_format",
    "_dlt_loads",
}


def documented() -> dict[str, list[tuple[str, str, bool]]]:
    """(name, type, is required) of the columns of each documented table, in order."""
    tables: list[dict[str, Any]] = []
    for path in ("core/_sources.yml", "staging/_sources.yml"):
        for source in yaml.safe_load((PROJECT_DIR / "models" / path).read_text())["sources"]:
            tables += source["tables"]
    models = yaml.safe_load((PROJECT_DIR / "models/core/_models.yml").read_text())["models"]
    tables += [model for model in models if model["name"] == "raw_objects"]
    return {
        table["name"]: [
            (
                column["name"],
                TYPES[column["data_type"]],
                {"type": "not_null"} in column.get("constraints", []),
            )
            for column in table["columns"]
        ]
        for table in tables
    }


def present(warehouse: Warehouse) -> dict[str, list[tuple[str, str, bool]]]:
    tables: dict[str, list[tuple[str, str, bool]]] = {}
    for table, name, kind, nullable in warehouse.execute(
        "select table_name, column_name, data_type, is_nullable from information_schema.columns"
        " where table_name in (select table_name from duckdb_tables())"
        " order by table_name, ordinal_position"
    ):
        tables.setdefault(table, []).append((name, kind, nullable == "NO"))
    return tables


def one_event_and_object(warehouse: Warehouse) -> None:
    log_event(warehouse, "job.started", source_system="acme", correlation_id="run-1")
    warehouse.execute(
        "insert into events.raw_objects by name select 'acme:acct1:widget:a' as idem_key, 'acme'"
        " as source_system, 'acct1' as connection_name, 'widget' as object_type, 'a' as"
        " external_id, '{}' as payload, 'h' as payload_hash, now() as first_seen, now() as"
        " last_seen, now() as changed_at, 'r' as changed_by, 'r' as merged_by, 'inserted' as"
        " last_action"
    )


def rows(warehouse: Warehouse) -> list[list[tuple[Any, ...]]]:
    return [
        warehouse.execute("select event_id, event_type, created_at from events.event_log"),
        warehouse.execute("select idem_key, payload, first_seen from events.raw_objects"),
    ]


def test_the_tables_are_the_documented_ones(warehouse: Warehouse) -> None:
    assert set(documented()) == TABLES
    assert present(warehouse) == documented()


def test_a_second_bootstrap_changes_nothing(warehouse: Warehouse) -> None:
    one_event_and_object(warehouse)
    before = rows(warehouse)
    assert bootstrap.statements_for(warehouse, warehouse.columns()) == []
    again = bootstrap.statements_for(warehouse, {})  # as another first job has them
    assert len(again) == len(TABLES)
    warehouse.execute(";\n".join(again))
    assert rows(warehouse) == before
    assert present(warehouse) == documented()


def of_dbt(project: Project) -> list[str]:
    """What dbt's macro makes of the same documented columns, CREATE TABLE of all tables."""
    return normalized(rendered(project, "bootstrap_sql() if execute else ''").split(";\n"))


def normalized(statements: Iterable[str]) -> list[str]:
    """In order of their texts, as dbt's graph has none; without DuckDB's name of the database, the
    escapes that Jinja's JSON has for HTML, and blanks that mean nothing."""
    return sorted(_normalized(statement) for statement in statements)


def _normalized(statement: str) -> str:
    text = statement.replace('"landfall".', "", 1)
    text = re.sub(r"\\u00\w\w", lambda found: str(json.loads(f'"{found[0]}"')), text)
    return re.sub(r" ?([(),]) ?", r"\1", " ".join(text.split())).strip()


@on_both_targets
@pytest.mark.slow
def test_an_empty_warehouse_gets_what_dbt_would_make(empty_project: Project) -> None:
    warehouse = empty_project.open_warehouse()
    statements = normalized(bootstrap.statements_for(warehouse, warehouse.columns()))
    assert statements == of_dbt(empty_project)
    assert len(statements) == len(TABLES) + 2
    assert sum(" not null" in statement for statement in statements) > 5


@on_both_targets
@pytest.mark.slow
def test_an_incomplete_warehouse_gets_what_dbt_would_add(
    warehouse: Warehouse, project: Project
) -> None:
    for table, column in (("event_log", "trace_id"), ("raw_objects", "payload")):
        warehouse.execute(f"alter table {warehouse.table(table)} drop column {column}")
    warehouse.execute(f"drop table {warehouse.staging_table('cursors')}")
    present = warehouse.columns()
    made = bootstrap.statements_for(warehouse, present)
    there = [f"create table if not exists {name} (" for name in names_of(warehouse, {*present})]
    by_dbt = [each for each in of_dbt(project) if not each.startswith(tuple(normalized(there)))]
    assert normalized(made) == by_dbt
    assert sorted(each.split()[0] for each in made) == ["alter", "alter", "create"]
    bootstrap.bootstrap(warehouse)
    assert bootstrap.statements_for(warehouse, warehouse.columns()) == []


def names_of(warehouse: Warehouse, tables: set[str]) -> Iterator[str]:
    """The qualified names of documented tables."""
    for table in documented_tables():
        if table.name in tables:
            name = warehouse.staging_table if table.is_staging else warehouse.table
            yield name(table.name)


def test_what_a_bootstrap_imports_is_little() -> None:
    """A run that finds nothing imports no more than it needs."""
    program = (
        "import sys, loaders.transform.bootstrap as it; it.documented_columns();print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_DIR, capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert "duckdb" in imported
    assert not imported & {"dbt", "dbt_common", "dlt", "pyarrow", "jinja2", "google.auth"}


@pytest.mark.parametrize("meta", ["{}", "null", "{compression: zstd}"])
def test_a_column_without_meta_has_no_options(warehouse: Warehouse, meta: str) -> None:
    """dbt 2 has none where nothing is written, dbt 1 an empty one."""
    column = f"{{column: {{name: x, config: {{meta: {meta}}}}}}}"
    result, said = invocation.invoke(
        warehouse.target,
        {},
        ["run-operation", "column_options", "--args", column],
        quiet=True,
    )
    assert result.success, said


LATE_COLUMNS = [
    ("event_log", "trace_id"),
    ("event_log", "payload"),
    ("raw_objects", "object_created_at"),
    ("raw_objects", "deleted_at"),
    ("raw_objects", "inserted_by"),
    ("erasures", "inserted_by"),
    ("landed_objects", "object_created_at"),
    ("dead_letters", "external_id"),
    ("dead_letters", "dropped_at"),
]


def drop_late_columns(warehouse: Warehouse) -> None:
    """The shape of an earlier release."""
    for table, column in LATE_COLUMNS:
        schema = "events" if table in ("event_log", "raw_objects", "erasures") else "events_staging"
        warehouse.execute(f"alter table {schema}.{table} drop column {column}")


@pytest.mark.parametrize("way", ["wrapper", "dbt"])
@pytest.mark.slow
def test_an_earlier_warehouse_gets_the_late_columns_and_keeps_its_rows(
    warehouse: Warehouse, project: Project, way: str
) -> None:
    one_event_and_object(warehouse)
    [before, _] = rows(warehouse)
    drop_late_columns(warehouse)
    if way == "wrapper":
        bootstrap.bootstrap(warehouse)
    else:
        assert project.run_dbt("run", "--select", "stg_landed_objects", "raw_objects").success
    assert event_types(warehouse) == ["job.started"] + (
        [] if way == "wrapper" else ["job.started", "job.completed"]
    )
    assert set(before) <= set(rows(warehouse)[0])
    tables = present(warehouse)
    for table, columns in documented().items():
        assert {column[:2] for column in tables[table]} == {column[:2] for column in columns}
    assert warehouse.execute("select idem_key from events.raw_objects") == [
        ("acme:acct1:widget:a",)
    ]


@pytest.mark.slow
def test_a_run_works_on_an_earlier_warehouse(warehouse: Warehouse, core_build: None) -> None:
    drop_late_columns(warehouse)
    item = Observed("widget", '{"id": "b"}', dt.datetime.now(dt.UTC), "b")
    run = run_scripted(warehouse, [item])
    assert run.error is None
    assert run.counts == {"inserted": 1}
    assert set(present(warehouse)["raw_objects"]) == set(documented()["raw_objects"])


@pytest.mark.slow
def test_a_plain_dbt_build_makes_the_same_tables(project: Project) -> None:
    warehouse = project.open_warehouse()
    assert project.run_dbt("run", "--select", "stg_landed_objects", "raw_objects").success
    tables = present(warehouse)
    assert {table: tables[table] for table in TABLES} == documented()


@pytest.mark.slow
def test_the_wrapper_makes_the_tables_before_anything_else(
    project: Project, core_build: None
) -> None:
    warehouse = project.open_warehouse()
    run = run_scripted(warehouse, [])
    assert run.error is None
    tables = present(warehouse)
    assert {table: tables[table] for table in TABLES} == documented()


def test_a_bootstrap_that_trips_over_another_goes_on(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, sent = warehouse.execute, []

    def trip(sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        if not sql.startswith("create"):
            return execute(sql, *arguments)
        sent.append(sql.count("create table"))
        if len(sent) == 1:
            execute(sql.partition(";")[0])  # the other has made one of three
            raise WarehouseError("it is there")
        return execute(sql)

    for table in ("cursors", "dead_letters", "landed_objects"):
        warehouse.execute(f"drop table {warehouse.staging_table(table)}")
    monkeypatch.setattr(warehouse, "execute", trip)
    bootstrap.bootstrap(warehouse)
    assert sent == [3, 2]
    assert warehouse.columns().keys() >= TABLES


@pytest.mark.parametrize(
    ("message", "retryable"),
    [("Access Denied: Dataset d: not allowed", False), ("Exceeded rate limits: tables", True)],
)
def test_a_bootstrap_that_fails_and_changes_nothing_says_so(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, message: str, retryable: bool
) -> None:
    execute = warehouse.execute

    def refuse(sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        if sql.startswith("create"):
            raise WarehouseError(message)
        return execute(sql, *arguments)

    warehouse.execute(f"drop table {warehouse.staging_table('cursors')}")
    monkeypatch.setattr(warehouse, "execute", refuse)
    monkeypatch.setattr(warehouse, "target", dataclasses.replace(warehouse.target, type="bigquery"))
    with pytest.raises(TransformFailed, match=f"^bootstrap: {message}$") as caught:
        bootstrap.bootstrap(warehouse)
    assert caught.value.retryable is retryable


def test_a_bootstrap_that_duckdb_refuses_is_told_in_one_line(warehouse: Warehouse) -> None:
    warehouse.execute("drop table events.event_log; create view events.event_log as select 1 as x")
    with pytest.raises(TransformFailed, match=r"^bootstrap: landfall\.duckdb: ") as caught:
        bootstrap.bootstrap(warehouse)
    assert "\n" not in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.slow
def test_every_view_is_there_after_the_first_run(warehouse: Warehouse, project: Project) -> None:
    """The tests of the views of other sources, too, pass from then on."""
    assert run_scripted(warehouse, [Observed("widget", '{"id": "a"}', at(1), "a")]).error is None
    assert project.run_dbt("test", "--exclude-resource-type", "unit_test").success


def test_a_run_leaves_the_marts_of_others_alone_where_they_are(warehouse: Warehouse) -> None:
    def excluded() -> list[str]:
        chosen = selection(warehouse, "gmail", is_full=True, are_views_current=False)
        assert chosen[0] == "--exclude"
        return chosen[1:-2]

    assert excluded() == ["path:models/marts/stripe,resource_type:test"]
    for path in PROJECT_DIR.glob("models/marts/stripe/*.sql"):
        warehouse.execute(f"create view events.{path.stem} as select 1 as one")
    assert excluded() == ["path:models/marts/stripe"]


@pytest.mark.parametrize("given", [None, "elsewhere"])
def test_dbt_writes_nothing_into_the_project(
    project: Project, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    """A container's may be read-only."""
    import dbt.cli.main

    asked: list[str] = []
    monkeypatch.setattr(
        dbt.cli.main.dbtRunner, "invoke", lambda _, arguments: asked.extend(arguments)
    )
    monkeypatch.delenv("DBT_TARGET_PATH")
    if given:
        monkeypatch.setenv("DBT_TARGET_PATH", given)
    target = load_target()
    with pytest.raises(AttributeError):  # there is no result
        dbt_build.build(target, "a-run")
    base = given or project.state_dir / "target"
    assert asked[asked.index("--target-path") + 1] == f"{base}/{target.name}"
    assert str(project.state_dir) in asked[asked.index("--log-path") + 1]
