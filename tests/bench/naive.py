"""The naive ways, on the same objects: dlt's own merge, and a statement per object."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.bench.harness import Figures, new_workspace, print_table
from tests.bench.landing import measure


def run(quick: bool) -> Figures:
    """Objects per second of each way beside ours, each in a project of its own."""
    rows, figures = [], {}
    for name, function, count in (
        ("dlt's merge write disposition", "dlt_merge", 5_000 if quick else 20_000),
        ("an event and a MERGE per object", "one_by_one", 200),
    ):
        with new_workspace() as workspace:
            path = str(workspace.directory / "mail.jsonl")
            workspace.call("mail:write_messages", path=path, count=count, message_format="full")
            naive = workspace.call(f"naive:{function}", path=path)
        with new_workspace() as workspace:
            ours = measure(workspace, count, "full")
        fixed = sum(ours["steps"][step] for step in ("dbt itself", "tests", "other SQL"))
        taken = (naive["seconds"], ours["seconds"], ours["seconds"] - fixed)
        rates = [count / seconds for seconds in taken]
        memory = [each["peak_rss_mb"] for each in (naive, ours)]
        figures[function] = {"objects": count, "naive": naive, "ours": ours}
        rows.append((name, count, *rates, *memory))
    print_table(
        "Naive ways, beside a whole run of ours, with events and checks",
        ("way", "objects", "objects/s", "ours", "ours without dbt, checks", "RSS MB", "ours"),
        rows,
    )
    return figures


def dlt_merge(path: str) -> dict[str, Any]:
    """Rows of the same columns, keyed, through dlt's `merge` into DuckDB."""
    import dlt

    from loaders.settings.target import load_target

    @dlt.resource(
        name="raw_objects", write_disposition="merge", primary_key="idem_key", max_table_nesting=0
    )
    def objects() -> Any:
        with Path(path).open() as file:
            for line in file:
                payload = json.loads(line)
                yield {"idem_key": f"gmail:bench:message:{payload['id']}", "payload": payload}

    pipeline = dlt.pipeline(
        "naive",
        destination=dlt.destinations.duckdb(str(load_target().path)),
        dataset_name="naive",
        pipelines_dir=str(Path(path).parent / "naive"),
    )
    began = time.perf_counter()
    pipeline.run(objects())
    return {"seconds": time.perf_counter() - began}


def one_by_one(path: str) -> dict[str, Any]:
    """One event and one MERGE per object, each statement a transaction."""
    import duckdb

    from loaders.settings.target import load_target

    with duckdb.connect(str(load_target().path)) as connection:
        connection.execute(
            "create table events (event_id uuid, key varchar, created_at timestamptz)"
        )
        connection.execute("create table objects (key varchar primary key, payload json)")
        began = time.perf_counter()
        with Path(path).open() as file:
            for line in file:
                key = f"gmail:bench:message:{json.loads(line)['id']}"
                connection.execute("insert into events values (uuid(), ?, now())", [key])
                connection.execute(
                    "merge into objects using (select ? as key, ?::json as payload) as seen"
                    " on objects.key = seen.key"
                    " when matched then update set payload = seen.payload"
                    " when not matched then insert values (seen.key, seen.payload)",
                    [key, line],
                )
        return {"seconds": time.perf_counter() - began}
