"""Makes a warehouse file as an earlier version left it; that version's own code does.

git archive COMMIT | tar x -C DIRECTORY, then there, in the project's environment:

    PYTHONPATH=. python .../tests/data/make_warehouse.py OUTPUT

In it: a mailbox that was read and has changed since, a tombstone, a dead letter, an account of
Stripe, and the last run killed while it loaded its second package: the objects of the first wait in
the queue, the second waits on disk with the cursor, and the run has no end.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any
from unittest import mock

MAILBOX_SIZE, SEED = 20, 11
CONFIG: dict[str, Any] = {"fetch_format": "metadata", "max_attempts": 2}
STRIPE_OBJECTS = ("product", "customer")
SECONDS = 60.0
"""--max-duration of the runs: the killed one is taken for dead soon, wherever the file is used."""


def make(output: Path) -> None:
    """Write warehouse.duckdb.gz, sandbox.sqlite.gz and state.tar.gz, the packages on disk."""
    from landfall_sandbox.controls import Sandbox
    from loaders.ingestion.ingest import IngestOptions
    from loaders.jobs import crashpoints
    from loaders.settings.places import state_dir
    from loaders.settings.target import load_target
    from loaders.warehouse.opening import open_warehouse
    from tests.python.conftest import run_gmail, run_stripe

    # Of no machine that runs tests: the killed run is over when its time is.
    host = {"name": "earlier", "boot_id": "0", "pid_namespace": "0"}
    mock.patch("loaders.jobs.job.host_identity", return_value=host).start()
    warehouse = open_warehouse(load_target())
    state = output / "sandbox.sqlite"
    options = IngestOptions(max_duration=SECONDS)
    with Sandbox(size=MAILBOX_SIZE, seed=SEED, charges=8, state=state) as sandbox:
        poisoned = sorted(sandbox.live_ids())[0]
        answer = {"json": {"id": poisoned, "sizeEstimate": 10**20}}
        sandbox.set_faults(
            [{"match": {"method": "*", "id": poisoned}, "times": None, "action": answer}]
        )
        print(run_gmail(warehouse, sandbox, options, **CONFIG).error)
        sandbox.change(
            deliver=2, delete=2, labels={"ids": sorted(sandbox.live_ids())[2:4], "add": ["STARRED"]}
        )
        print(run_gmail(warehouse, sandbox, options, **CONFIG).error)
        print(run_stripe(warehouse, sandbox, options, objects=STRIPE_OBJECTS).error)
        sandbox.change(deliver=3, delete=1)
    packages = state_dir() / "pipelines" / warehouse.target.key
    normalized: list[str] = []

    def kill(point: str) -> None:
        if point == "land.normalized":
            normalized.append(point)
            if len(normalized) == 2:
                finish(output, packages)
                os._exit(0)

    crashpoints.install(kill)
    with Sandbox(charges=8, state=state) as sandbox:
        run_gmail(warehouse, sandbox, dataclasses.replace(options, batch_size=3), **CONFIG)
    raise AssertionError("the last run was to be killed")


def finish(output: Path, packages: Path) -> None:
    """Pack both files, and the load packages of the connection."""
    with tarfile.open(output / "state.tar.gz", "w:gz") as archive:
        for connection in sorted(packages.iterdir()):
            archive.add(connection, connection.name, filter=_without_leftovers)
    for source in (Path(os.environ["LANDFALL_DUCKDB_PATH"]), output / "sandbox.sqlite"):
        packed = output / (source.name + ".gz")
        with source.open("rb") as plain, gzip.GzipFile(packed, "wb", mtime=0) as file:
            shutil.copyfileobj(plain, file)


def _without_leftovers(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Neither what is loaded already, nor the traces, which tell of the machine."""
    is_left_over = "/load/loaded/" in member.name or member.name.endswith("trace.pickle")
    return None if is_left_over else member


if __name__ == "__main__":
    make(Path(sys.argv[1]))
