"""What BigQuery would bill for a MERGE, from the predicate it was sent with.

The emulator bills nothing, so bytes are counted as BigQuery counts them (documentation,
"Estimate and control costs": a STRING or JSON value has 2 bytes and its UTF-8 text, a
TIMESTAMP 8): the payloads of the partitions that the predicate of the MERGE lets it touch, and
the narrow columns of every stored row that lookups read.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.harness import Figures, Workspace, new_workspace, print_table

BATCH = 1_000
ROWS_A_MONTH = 2_000
PAYLOAD_TEXT = 256
GOAL = "goal: partitions and payload bytes of 1,000 new objects stay the same"
RUNS_A_MONTH = 720
DOLLARS_A_TIB = 6.25
"""On-demand price of queries in the US multi-region (BigQuery pricing, 2026)."""
_KEY = "'gmail:bench:message:' || lpad(cast({number} as string), 16, '0')"
# What each step of a run reads of every stored row.
_NARROW: dict[str, tuple[str, ...]] = {
    "look months up": ("idem_key", "object_created_at"),
    "MERGE: find stored months": ("idem_key", "object_created_at"),
    "drain": ("idem_key", "first_seen", "last_seen", "object_created_at"),
    "count what was merged": ("merged_by", "last_action"),
    "test that keys are unique": ("idem_key",),
}


def run(quick: bool) -> Figures:
    """The same batches into tables of 5, 10, 20 and 40 years."""
    from tests.peers.emulator import run_emulator

    rows, figures = [], {}
    with (
        tempfile.TemporaryDirectory() as data,
        run_emulator(Path(data)) as emulator,
        new_workspace() as workspace,
    ):
        bench = _Bench(workspace, emulator)
        for years in (5, 10) if quick else (5, 10, 20, 40):
            bench.fill(years)
            for name, numbers in (("new", bench.new()), ("updated", bench.spread())):
                measured = bench.measure(numbers)
                figures[f"{name}, {years} years"] = measured
                rows.append((f"{BATCH:,} {name}", years, *measured.values()))
        narrow = bench.narrow_bytes()
    print_table(
        f"A MERGE on BigQuery, {ROWS_A_MONTH:,} objects a month ({GOAL})",
        ("batch", "years", "rows stored", "partitions", "payload MB", "of all MB", "predicate"),
        rows,
    )
    _print_narrow(narrow)
    figures["narrow bytes a stored row"] = narrow
    return figures


class _Bench:
    """One dataset of the emulator that grows."""

    def __init__(self, workspace: Workspace, emulator: Any) -> None:
        self._workspace = workspace
        self._emulator = emulator
        self._years = self._batches = 0
        self._warehouse = self._open()
        self._dbt("build", "--exclude-resource-type", "unit_test", "test")

    def fill(self, years: int) -> None:
        """Store the months before those that are stored: ROWS_A_MONTH objects each."""
        first, end = self._years * 12, years * 12
        self._warehouse.execute(
            f"insert into {self._warehouse.table('raw_objects')} (idem_key, source_system,"
            " connection_name, object_type, external_id, payload, payload_hash,"
            " object_created_at, first_seen, last_seen, changed_at, changed_by, merged_by,"
            f" last_action) select {_KEY.format(number='number')}, 'gmail', 'bench', 'message',"
            " cast(number as string),"
            f" parse_json(concat('{{\"text\": \"', repeat('x', {PAYLOAD_TEXT}), '\"}}')),"
            " to_hex(sha256(cast(number as string))),"
            " timestamp(date_sub(date '2026-11-15',"
            f" interval cast(floor(number / {ROWS_A_MONTH}) as int64) month)),"
            " timestamp '2026-11-16', timestamp '2026-11-16', timestamp '2026-11-16',"
            " 'gmail_ingest_bench-20261116000000-0000', 'gmail_ingest_bench-20261116000000-0000',"
            f" 'inserted' from unnest(generate_array({first * ROWS_A_MONTH},"
            f" {end * ROWS_A_MONTH - 1})) as number"
        )
        self._years = years

    def new(self) -> Sequence[int]:
        """Numbers of objects that are not stored: they came in this month."""
        first = 10**9 * (self._batches + 1)
        return range(first, first + BATCH)

    def spread(self) -> Sequence[int]:
        """Numbers of stored objects, from all months."""
        stored = self._years * 12 * ROWS_A_MONTH
        return range(0, stored, stored // BATCH)[:BATCH]

    def measure(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Land these objects, let dbt merge them, and count what its MERGE may touch."""
        self._land(numbers)
        [(stored, payload)] = self._count("true")
        self._dbt("run", "--select", "stg_landed_objects", "raw_objects")
        predicate = self._sent_predicate()
        [(_, touched)] = self._count(predicate)
        [(partitions,)] = self._warehouse.execute(
            "select count(distinct timestamp_trunc(object_created_at, month))"
            f" from {self._warehouse.table('raw_objects')} as stored where {predicate}"
        )
        return {
            "rows_stored": stored,
            "partitions": partitions,
            "payload_mb": touched / 1e6,
            "all_payload_mb": payload / 1e6,
            "predicate_length": len(predicate),
        }

    def narrow_bytes(self) -> dict[str, float]:
        """Bytes that each step reads of a stored row, on average."""
        kinds = {"object_created_at": "8", "first_seen": "8", "last_seen": "8"}
        found = {}
        for step, columns in _NARROW.items():
            size = " + ".join(kinds.get(each, f"2 + byte_length({each})") for each in columns)
            [(found[step],)] = self._warehouse.execute(
                f"select avg({size}) from {self._warehouse.table('raw_objects')}"
            )
        return found

    def _land(self, numbers: Sequence[int]) -> None:
        self._batches += 1
        load, landed = f"load{self._batches}", self._warehouse.staging_table("landed_objects")
        step = numbers[1] - numbers[0]
        self._warehouse.execute(
            f"insert into {landed} (idem_key, source_system, connection_name, object_type,"
            " external_id, payload, payload_hash, object_created_at, observed_at, is_deleted,"
            f" correlation_id, _dlt_load_id) select {_KEY.format(number='number')}, 'gmail',"
            " 'bench', 'message', cast(number as string), '{\"text\": \"y\"}', 'new',"
            " timestamp '2026-11-20', current_timestamp(), false, 'run', ?"
            f" from unnest(generate_array({numbers[0]}, {numbers[-1]}, {step})) as number",
            (load,),
        )
        self._warehouse.execute(
            f"insert into {self._warehouse.staging_table('_dlt_loads')}"
            " (load_id, status, inserted_at) values (?, 0, current_timestamp())",
            (load,),
        )

    def _count(self, predicate: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._warehouse.execute(
            "select count(*), sum(2 + byte_length(to_json_string(payload)))"
            f" from {self._warehouse.table('raw_objects')} as stored where {predicate}"
        )
        return rows

    def _sent_predicate(self) -> str:
        """What the last MERGE says of the stored rows besides their key."""
        merges = [
            job["query"]["query"]
            for job in self._emulator.jobs()
            if "merge into" in job["query"]["query"]
        ]
        found = re.search(r"on stored.idem_key = seen.idem_key\s+and (.*?)when ", merges[-1], re.S)
        if found is None:
            raise RuntimeError(f"merge cost: the MERGE has no predicate\n{merges[-1][:2000]}")
        return found.group(1)

    def _environment(self) -> dict[str, str]:
        return {"LANDFALL_EMULATOR_URL": self._emulator.url}

    def _open(self) -> Any:
        from loaders.settings.target import Target
        from loaders.warehouse.bigquery import BigQueryWarehouse
        from tests.peers.emulator import PROJECT

        settings = {
            "type": "bigquery",
            "method": "oauth-secrets",
            "token": "dummy",
            "project": PROJECT,
            "dataset": "events",
            "location": "US",
            "api_endpoint": self._emulator.url,
        }
        return BigQueryWarehouse(
            Target("emulator", "bigquery", settings, self._workspace.directory)
        )

    def _dbt(self, *arguments: str) -> None:
        command = ("-m", "dbt.cli.main", *arguments, "--target", "emulator")
        self._workspace.run(command, **self._environment())


def _print_narrow(narrow: dict[str, float]) -> None:
    total = sum(narrow.values())
    rows = list(narrow.items())
    print_table(
        "Narrow columns that a run reads of every stored row",
        ("step", "bytes a row"),
        [*rows, ("in all", total)],
    )
    objects = []
    for gigabytes in (10, 100):
        count = gigabytes * 1e9 / 4_000
        new = RUNS_A_MONTH * (count * total)
        current = RUNS_A_MONTH * gigabytes * 1e9 / 120
        whole = RUNS_A_MONTH * gigabytes * 1e9
        objects.append(
            (
                f"{gigabytes} GB of 4 KB objects, 10 years",
                (new + current) / 2**40 * DOLLARS_A_TIB,
                (new + whole) / 2**40 * DOLLARS_A_TIB,
            )
        )
    print_table(
        f"{RUNS_A_MONTH} hourly runs a month at ${DOLLARS_A_TIB} a TiB, free tier not deducted",
        ("stored", "with the predicate $", "without $"),
        objects,
    )
