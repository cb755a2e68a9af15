"""dbt in this process: by which of its names, what it says of values, what it leaves open."""

from __future__ import annotations

import ast
import inspect
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from loaders.settings.places import PROJECT_DIR
from loaders.transform import invocation
from loaders.warehouse.base import Warehouse

from .conftest import Project, duckdb_only, on_both_targets

CANARY = "cAn4ryDearDiary"
DBT_S_NAMES = {
    "loaders/transform/dbt_build.py": {"dbt.cli.main.build"},
    "loaders/transform/invocation.py": {
        "dbt.cli.main.dbtRunner",
        "dbt.adapters.duckdb.connections.DuckDBConnectionManager",
    },
    "loaders/warehouse/bigquery.py": {
        "dbt.adapters.bigquery.credentials.BigQueryCredentials",
        "dbt.adapters.bigquery.credentials.create_google_credentials",
    },
}
"""dbtRunner and the command line are documented, the adapters' names are not."""


def imported(path: Path) -> set[str]:
    """What a module imports of dbt, and of its packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.partition(".")[0].startswith("dbt")}


def test_dbt_is_known_by_these_names_alone() -> None:
    found = {
        str(path.relative_to(PROJECT_DIR)): names
        for path in (PROJECT_DIR / "loaders").rglob("*.py")
        if (names := imported(path))
    }
    assert found == DBT_S_NAMES


def test_the_adapters_names_are_what_they_were() -> None:
    from dbt.adapters.bigquery import credentials
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    assert not inspect.signature(DuckDBConnectionManager.close_all_connections).parameters
    assert [*inspect.signature(credentials.create_google_credentials).parameters] == ["credentials"]


@on_both_targets
@pytest.mark.slow
@pytest.mark.parametrize("line_format", ["text", "json"])
def test_what_a_warehouse_quotes_is_neither_shown_nor_logged(
    warehouse: Warehouse,
    project: Project,
    capsys: pytest.CaptureFixture[str],
    line_format: str,
) -> None:
    table = warehouse.table("diary")
    warehouse.execute(f"create table {table} as select '{CANARY}' as page")
    try:
        result, said = invocation.invoke(
            warehouse.target,
            {},
            [
                *("--debug", "--log-format", line_format, "--log-format-file", line_format),
                *("show", "--inline", f"select cast(page as date) as day from {table}"),
            ],
            quiet=False,
        )
    finally:
        warehouse.execute(f"drop table {table}")
    assert not result.success
    # As it was said, so that something was there to be left out.
    assert CANARY in f"{result.exception} {result.result} {said}"
    out, err = capsys.readouterr()
    log = (invocation.log_dir(warehouse.target) / "dbt.log").read_text()
    for text in (out + err, log):
        assert "…" in text or "\\u2026" in text
        assert CANARY not in text


@duckdb_only("a file")
def test_after_a_command_the_file_is_free_for_another_process(
    warehouse: Warehouse, project: Project
) -> None:
    result, _ = invocation.invoke(
        warehouse.target, {}, ["show", "--inline", "select 1 as one"], quiet=True
    )
    assert result.success
    write = f"import duckdb; duckdb.connect({str(project.duckdb_path)!r}).execute('checkpoint')"
    subprocess.run([sys.executable, "-c", write], check=True)


def test_the_log_of_others_is_as_it_was_afterwards(
    project: Project, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    before = logging.getLogRecordFactory()
    invocation.invoke(warehouse.target, {}, ["no-such-command"], quiet=True)
    assert logging.getLogRecordFactory() is before
