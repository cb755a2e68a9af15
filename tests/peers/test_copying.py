"""A warehouse moved from DuckDB to BigQuery, then run on there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.settings.places import PROJECT_DIR
from loaders.settings.target import load_target
from loaders.warehouse.base import Warehouse
from loaders.warehouse.opening import open_warehouse
from tests.peers.emulator import Emulator
from tests.peers.gate import Gate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MAILBOX_SIZE = 30
_COMPARED = {
    "raw_objects": "idem_key",
    "event_log": "event_id",
    "dead_letters": "dead_letter_id",
    "cursors": "stream",
}
_JSON = ("raw_objects", "event_log")


@pytest.fixture
def environment(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sandbox]:
    """A profile, local state and datasets of this test's own, and a mailbox."""
    example = PROJECT_DIR / "profiles.example.yml"
    (tmp_path / "profiles.yml").write_text(example.read_text())
    with Sandbox(size=MAILBOX_SIZE) as sandbox:
        for name, value in {
            "DBT_PROFILES_DIR": str(tmp_path),
            "DLT_PROJECT_DIR": str(tmp_path),
            "LANDFALL_STATE_DIR": str(tmp_path / "state"),
            "LANDFALL_DUCKDB_PATH": str(tmp_path / "landfall.duckdb"),
            "LANDFALL_BIGQUERY_DATASET": "copied",
            "LANDFALL_EMULATOR_URL": emulator.url,
            "SOURCES__GMAIL__ACCT1__ACCESS_TOKEN": "token-of-the-sandbox",
            "SOURCES__GMAIL__ACCT1__UNITS_PER_MINUTE": "10000000",
            "SOURCES__GMAIL__ACCT1__API_BASE_URL": sandbox.base_url,
        }.items():
            monkeypatch.setenv(name, value)
        yield sandbox


def loader(*arguments: str) -> str:
    """Run the command line; it must succeed."""
    result = subprocess.run(
        [sys.executable, "loaders/run.py", *arguments],
        cwd=PROJECT_DIR,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def rows(warehouse: Warehouse, table: str) -> list[dict[str, Any]]:
    """A table's rows by column, its JSON parsed; without load ids and the events of copies."""
    is_landing = table not in _JSON
    qualified = warehouse.staging_table(table) if is_landing else warehouse.table(table)
    columns = sorted(warehouse.columns()[table] - {"_dlt_load_id", "_dlt_id"})
    selected = [
        warehouse.json_as_text(name) if name == "payload" and not is_landing else name
        for name in columns
    ]
    own = " where source_system != 'landfall'" if table == "event_log" else ""
    found = warehouse.execute(
        f"select {', '.join(selected)} from {qualified}{own} order by {_COMPARED[table]}"
    )
    values = [dict(zip(columns, row, strict=True)) for row in found]
    for row in values:
        if row.get("payload") and not is_landing:
            row["payload"] = json.loads(row["payload"])
    return values


def test_a_copied_warehouse_is_equal_and_runs_on(
    environment: Sandbox, emulator: Emulator, gate: Gate
) -> None:
    loader("gmail", "--connection", "acct1", "--target", "dev")
    environment.change(deliver=1, delete=1)
    loader("gmail", "--connection", "acct1", "--target", "dev")
    source, target = (open_warehouse(load_target(name)) for name in ("dev", "emulator"))
    # A tombstone of an object that was never held has no payload.
    source.execute("update events.raw_objects set payload = null where deleted_at is not null")
    expected = {table: rows(source, table) for table in _COMPARED}

    first = loader("copy", "--from", "dev", "--to", "emulator")

    assert len(expected["raw_objects"]) > MAILBOX_SIZE * 0.8
    assert [row for row in expected["raw_objects"] if row["deleted_at"] and not row["payload"]]
    for table in _COMPARED:
        assert rows(target, table) == expected[table], table
    assert_printed(first, expected, copied=True)
    assert_printed(loader("copy", "--from", "dev", "--to", "emulator"), expected, copied=False)
    assert not [table for table in target.columns() if table.startswith("copied_")]

    after = loader("gmail", "--connection", "acct1", "--target", "emulator")
    assert "extracted:    0 " in after
    assert "inserted:     0\n" in after
    assert len(rows(target, "raw_objects")) == len(expected["raw_objects"])

    back = loader("copy", "--from", "emulator", "--to", "dev")
    assert " yes" in back
    assert " NO" not in back
    refused = gate.refused()
    assert not refused


def assert_printed(output: str, expected: dict[str, list[Any]], *, copied: bool) -> None:
    lines = [line.split() for line in output.splitlines()]
    for table in _COMPARED:
        if table == "dead_letters":
            continue  # there are none
        count = len(expected[table])
        cells = (count, 0) if copied else (0, count)
        assert [table, str(count), *map(str, cells), "yes"] in lines, output
