"""Load packages of a fixed size beside those whose size follows the connection's own runs."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from loaders.objects.idem_keys import idem_key
from loaders.objects.items import Item, Listed, Observed
from loaders.sources.contract import FetchRequest
from tests.bench.harness import Figures, median, new_workspace, print_table

SIZES = ((300, 200_000), (4_000, 60_000), (64_000, 4_000), (1_000_000, 250))
"""Bytes of a payload, and how many of them: some 60 to 260 MB."""
FIXED = (500, 5_000, 20_000, 80_000)
AUTO = "auto"
GOAL = 1.2
_SYSTEM, _CONNECTION, _TYPE = "acme", "bench", "thing"


def run(quick: bool) -> Figures:
    """Each size in turn; the second run of a warehouse counts, as the first one teaches it."""
    repeats = 1 if quick else 3
    figures: Figures = {}
    rows = []
    for size, count in SIZES:
        number = count // 4 if quick else count
        ways, chosen = _compare(size, number, repeats)
        best = min(seconds for name, seconds in ways.items() if name != AUTO)
        figures[f"{number} of {size} bytes"] = {"seconds": ways, "auto": chosen}
        rows.append(
            (f"{number:,} of {size:,} bytes", *ways.values(), ways[AUTO] / best, chosen["last"])
        )
    print_table(
        "Landing alone, seconds by the number of objects in a package (64 MB at most in each);"
        f" auto: at most {GOAL} times the best, in a warehouse that has seen a run",
        ("objects", *(f"{size:,}" for size in FIXED), AUTO, "auto / best", "auto came to"),
        rows,
    )
    return figures


def _compare(size: int, number: int, repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds by way, and what auto came to.

    The ways take turns, so that what else the machine does meets them alike.
    """
    taken: dict[str, list[float]] = {}
    chosen: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        warehouses = [
            (batch_size, stack.enter_context(new_workspace())) for batch_size in (*FIXED, None)
        ]
        for repeat in range(repeats + 1):
            for batch_size, workspace in warehouses:
                measured = workspace.call(
                    "batch:ingest",
                    size=size,
                    count=number,
                    first=repeat * number,
                    batch_size=batch_size,
                )
                taken.setdefault(str(batch_size or AUTO), []).append(measured["seconds"])
                chosen = measured["batch"]
    return {way: median(seconds[1:]) for way, seconds in taken.items()}, chosen


def ingest(size: int, count: int, first: int, batch_size: int | None) -> dict[str, Any]:
    """One run of new objects: seconds of reading and landing."""
    import dlt.destinations.impl.duckdb.duck  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    from loaders.ingestion.ingest import Ingestion, IngestOptions
    from loaders.settings.target import load_target
    from loaders.warehouse.opening import open_warehouse

    ingestion = Ingestion(
        open_warehouse(load_target()),
        lambda: _Things(size, count, first),
        source_system=_SYSTEM,
        connection_name=_CONNECTION,
        options=IngestOptions(batch_size=batch_size),
    )
    began = time.perf_counter()
    ingestion.run()
    seconds = time.perf_counter() - began
    assert ingestion.summary is not None
    told = ingestion.summary.telemetry
    if told["records_landed"] != count:
        raise RuntimeError(f"batch: {told['records_landed']} landed, expected {count}")
    return {"seconds": told["duration_seconds"], "whole": seconds, "batch": told["batch"]}


class _Things:
    """Objects of one size, as fast as they can be made."""

    source_system = _SYSTEM
    volatile_keys: Collection[str] = ()

    def __init__(self, size: int, count: int, first: int) -> None:
        self._filler = "x" * (size - 40)
        self._numbers = range(first, first + count)

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        yield Listed(len(self._numbers))
        for number in self._numbers:
            text = f'{{"id":"t{number:09}","filler":"{self._filler}"}}'
            yield Observed(_TYPE, text, request.clock.now())

    def idem_key(self, item: Observed, payload: Mapping[str, Any]) -> str:
        return idem_key(_SYSTEM, _CONNECTION, _TYPE, payload["id"])

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        return None

    def close(self) -> None:
        pass
