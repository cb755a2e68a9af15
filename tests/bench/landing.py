"""Landing and merging generated mail, from a file on disk to raw_objects."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from loaders.transform import dbt_build
from tests.bench.harness import Clock, Figures, Workspace, new_workspace, print_steps, print_table
from tests.bench.mail import CONNECTION, FileSource

GOAL = "goal 10,000 objects/s, at least 6,000; peak RSS under 1,024 MB"


def run(quick: bool) -> Figures:
    """Each size in a project of its own; steps are shown for the first."""
    sizes = [("4 KB", "full", 20_000 if quick else 100_000)]
    if not quick:
        sizes.append(("11 KB, some 1.4 MB", "mixed", 50_000))
        sizes.append(("1 KB", "headers", 1_000_000))
    rows: list[tuple[Any, ...]] = []
    figures: Figures = {}
    for size, message_format, count in sizes:
        with new_workspace() as workspace:
            try:
                measured = measure(workspace, count, message_format)
            except subprocess.CalledProcessError:
                rows.append((f"{count:,} of {size}", None, "failed", None, None))
                continue
        figures[f"{count} of {size}"] = measured
        seconds = measured["seconds"]
        cpu, memory = measured["cpu_seconds"], measured["peak_rss_mb"]
        rows.append((f"{count:,} of {size}", seconds, count / seconds, cpu, memory))
        print_steps(f"Where the seconds go: {count:,} of {size}", measured["steps"], seconds)
    print_table(
        f"Landing and merging on DuckDB, one whole run after imports ({GOAL})",
        ("objects", "seconds", "objects/s", "CPU seconds", "peak RSS MB"),
        rows,
    )
    return figures


def measure(workspace: Workspace, count: int, message_format: str) -> Figures:
    """Write the mail, let dbt parse once in a run of nothing, then measure one run."""
    path = str(workspace.directory / "mail.jsonl")
    empty = workspace.directory / "empty.jsonl"
    empty.touch()
    workspace.call("mail:write_messages", path=path, count=count, message_format=message_format)
    workspace.call("landing:ingest", path=str(empty))
    measured = workspace.call("landing:ingest", path=path)
    if measured["inserted"] != count:
        raise RuntimeError(f"landing: {measured['inserted']} inserted, expected {count}")
    measured["database_mb"] = workspace.database.stat().st_size / 2**20
    return measured


def ingest(path: str) -> dict[str, Any]:
    """One run of the file's messages: seconds in all and by step."""
    # Imports are not what is measured: these are loaded on first use otherwise.
    import dbt.cli.main  # noqa: F401
    import dlt.destinations.impl.duckdb.duck  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    from dbt.adapters.duckdb.environments.local import DuckDBCursorWrapper
    from dlt.pipeline.pipeline import Pipeline

    from loaders.ingestion import landing, packages
    from loaders.ingestion.ingest import Ingestion, IngestOptions
    from loaders.settings.target import load_target
    from loaders.warehouse.duckdb_file import DuckDBWarehouse
    from loaders.warehouse.opening import open_warehouse

    clock = Clock()
    clock.watch(landing, "admit", "gate and hash")
    clock.watch(packages, "arrow_table", "rows to Arrow")
    clock.watch(Pipeline, "extract", "dlt extract")
    clock.watch(Pipeline, "normalize", "dlt normalize")
    clock.watch(Pipeline, "load", "dlt load")
    clock.watch(DuckDBWarehouse, "_connect", "open the file")
    clock.watch(DuckDBWarehouse, "_close", "close the file, with a checkpoint")
    statements = _watch_statements(DuckDBCursorWrapper)
    clock.watch(dbt_build, "_invoke", "dbt")
    warehouse = open_warehouse(load_target())
    ingestion = Ingestion(
        warehouse,
        lambda: FileSource(path),
        source_system="gmail",
        connection_name=CONNECTION,
        options=IngestOptions(),
    )
    began, began_cpu = time.perf_counter(), time.process_time()
    ingestion.run()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    assert ingestion.summary is not None
    steps = dict(clock.seconds)
    # What dbt spends beside its statements; its two threads make this a lower bound.
    steps["dbt itself"] = steps.pop("dbt") - sum(statements.values())
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "steps": {**steps, **statements},
        "inserted": ingestion.summary.counts["inserted"],
        "bytes": Path(path).stat().st_size,
    }


def _watch_statements(cursor: Any) -> dict[str, float]:
    """Count the seconds of dbt's statements by what they do."""
    seconds = dict.fromkeys(("merge", "drain", "commit and checkpoint", "tests", "other SQL"), 0.0)
    execute = cursor.execute

    def timed(self: Any, sql: str, bindings: Any = None) -> Any:
        began = time.perf_counter()
        try:
            return execute(self, sql, bindings)
        finally:
            seconds[_kind(sql)] += time.perf_counter() - began

    cursor.execute = timed
    return seconds


def _kind(sql: str) -> str:
    text = sql.lower()
    if '"dbt_test__audit"' in text or "should_warn" in text:
        return "tests"
    if "merge into" in text:
        return "merge"
    if "delete from" in text:
        return "drain"
    if text.strip().startswith("commit"):
        return "commit and checkpoint"
    return "other SQL"
