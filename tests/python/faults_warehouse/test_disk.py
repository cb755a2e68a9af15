"""A full disk, and processes that die inside of a step."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dlt.common.storages.load_storage import LoadStorage
from dlt.extract.storage import ExtractStorage

from landfall_sandbox.controls import Sandbox
from loaders.errors import LandingError, WarehouseError
from loaders.ingestion import landing
from loaders.jobs import event_log, job
from loaders.objects import items
from loaders.settings.target import load_target
from loaders.transform.invocation import release_file
from loaders.warehouse.base import Warehouse
from loaders.warehouse.opening import open_warehouse
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable
from tests.python.conftest import (
    LABELS,
    Project,
    duckdb_only,
    event_types,
    run_gmail,
    run_scripted,
    stored,
)

from .conftest import (
    ENDED_WELL,
    LANDED,
    REFUSED,
    AtPoint,
    cursor,
    die,
    failed_payload,
    land,
    spooled,
    widgets,
    working_dir,
)

pytestmark = [pytest.mark.usefixtures("core_build"), pytest.mark.slow]


SMALL_MEGABYTES = 12


STEP = 16384
"""Bytes that are left on it, and so many more each time."""


@pytest.fixture
def small_disk(project: Project) -> Iterator[Path]:
    """A disk that is soon full."""
    path = project.directory / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_MEGABYTES}m", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        unavailable(PeerUnavailable("a small disk to fill: only root may mount one"))
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Fill a disk but for some bytes."""
    found = os.statvfs(disk)
    path = disk / "full"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_bsize - left)
    return path


def test_a_disk_that_is_full_while_landing_loses_nothing(
    warehouse: Warehouse, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step of a load package it hits: that of the packages' directory."""
    monkeypatch.setenv("LANDFALL_STATE_DIR", str(small_disk / "state"))
    reasons: list[str] = []
    for left in range(0, 2**20, STEP):
        shutil.rmtree(small_disk / "state", ignore_errors=True)
        full = fill(small_disk, left)
        try:
            land(warehouse, left)
            break
        except LandingError as error:
            reasons.append(str(error))
        finally:
            full.unlink()
        land(warehouse, left)
        assert cursor(warehouse) == {"last": left}
    assert len(reasons) > 3
    assert all("No space left on device" in reason for reason in reasons)
    landed = warehouse.execute("select distinct external_id from events_staging.landed_objects")
    assert {external_id for (external_id,) in landed} == {
        f"w{number * STEP}" for number in range(len(reasons) + 1)
    }


@duckdb_only("a file")
@pytest.mark.parametrize(
    ("point", "error_type", "types"),
    [
        ("land.before_extract", "LandingError", REFUSED),
        ("merge.before", "TransformFailed", LANDED),
    ],
)
def test_a_full_disk_of_the_warehouse_loses_nothing(
    warehouse: Warehouse,
    project: Project,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_point: AtPoint,
    point: str,
    error_type: str,
    types: list[str],
) -> None:
    path = small_disk / "landfall.duckdb"
    shutil.copy(project.duckdb_path, path)
    monkeypatch.setenv("LANDFALL_DUCKDB_PATH", str(path))
    warehouse = project.open_warehouse()
    at_point(point, lambda: fill(small_disk, 0))
    run = run_scripted(warehouse, widgets(0, 1, 2))
    assert run.error is not None
    assert "No space left on device" in str(run.error)
    assert cursor(warehouse) == (None if point.startswith("land") else {"last": 2})
    assert spooled(warehouse)

    (small_disk / "full").unlink()
    assert run_scripted(warehouse, widgets(3)).error is None
    # What was not landed lies in a pending package, which is loaded before anything new.
    assert set(stored(warehouse)) == {"w0", "w1", "w2", "w3"}
    assert cursor(warehouse) == {"last": 3}
    assert event_types(warehouse, run.correlation_id) == types
    assert failed_payload(warehouse, run)["error_type"] == error_type
    release_file()


def test_a_death_between_the_halves_of_normalizing_blocks_no_later_run(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dlt moves the package on and then deletes what it was made of: both are there now."""
    commit = LoadStorage.commit_new_load_package

    def and_die(storage: LoadStorage, load_id: str) -> None:
        commit(storage, load_id)
        die()

    with monkeypatch.context() as patch:
        patch.setattr(LoadStorage, "commit_new_load_package", and_die)
        with pytest.raises(SystemExit):
            land(warehouse, 0)
    for stage in ("normalize/extracted", "load/normalized"):
        assert list((working_dir(warehouse) / stage).iterdir())
    land(warehouse, 1)
    landed = warehouse.execute(
        "select external_id from events_staging.landed_objects order by external_id"
    )
    assert landed == [("w0",), ("w1",)]


def test_a_death_while_extracting_leaves_no_payload_behind(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ExtractStorage, "commit_new_load_package", die)
        with pytest.raises(SystemExit):
            land(warehouse, 0)
    left = list(working_dir(warehouse).glob("normalize/*/*/new_jobs/*.parquet"))
    assert left
    land(warehouse, 1)
    assert not list(working_dir(warehouse).rglob("*.parquet"))
    landed = warehouse.execute("select external_id from events_staging.landed_objects")
    assert landed == [("w1",)]


SPILLING = """
import duckdb, os, pathlib, sys, threading, time
path = pathlib.Path(sys.argv[1])

def die_when_spilled():
    while sum(file.stat().st_size for file in pathlib.Path(f"{path}.tmp").glob("*")) < 20e6:
        time.sleep(0.01)
    os.kill(os.getpid(), 9)

connection = duckdb.connect(path)
connection.execute("set memory_limit = '60MB'; set threads = 1")
threading.Thread(target=die_when_spilled).start()
connection.execute(
    "create temp table sorted as select 'canary' || repeat(md5(n::varchar), 10) as text"
    " from range(10000000) as numbers (n) order by md5(n::varchar)"
)
"""


@duckdb_only("DuckDB's memory limit")
def test_too_little_memory_names_the_setting_that_raises_it(warehouse: Warehouse) -> None:
    with warehouse.open():
        warehouse.execute("set global memory_limit = '20MB'")
        with pytest.raises(
            WarehouseError, match=r"Out of Memory Error.*LANDFALL_DUCKDB_MEMORY"
        ) as of:
            warehouse.execute(
                "select max(x) from (select repeat('x', 90000000) as x from range(3))"
            )
    assert "SET " not in str(of.value)


def test_a_commit_that_lacks_memory_names_the_setting_too() -> None:
    said = "TransactionContext Error: Failed to commit: failed to pin block of size 32.4 MiB"
    more = "\n\nPossible solutions:\n* Increasing the memory limit (SET memory_limit='...GB')"
    told = open_warehouse(load_target()).with_next_step(said + more)
    assert told == f"{said}; raise LANDFALL_DUCKDB_MEMORY, which is memory_limit in profiles.yml"


@duckdb_only("DuckDB's own files")
def test_what_a_killed_process_spilled_does_not_stay(warehouse: Warehouse) -> None:
    path = warehouse.target.path
    spilling = [sys.executable, "-c", SPILLING, str(path)]
    assert subprocess.run(spilling, timeout=120, check=False).returncode == -signal.SIGKILL
    directory = path.with_name(f"{path.name}.tmp")
    spilled = list(directory.glob("duckdb_temp_*"))
    assert any(b"canary" in file.read_bytes() for file in spilled)
    own = directory / f"duckdb_temp_{os.getpid()}_0_storage_S32K-0.tmp"
    own.touch()  # as dbt's connection in this process may have it
    open_warehouse(warehouse.target).execute("select 1")
    assert list(directory.glob("*")) == [own]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> type[dt.datetime]:
    """This machine's clock, an hour ahead until its `offset` is set to nothing."""

    class Clock(dt.datetime):
        offset = dt.timedelta(hours=1)

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return dt.datetime.now(tz) + cls.offset

    shifted = types.SimpleNamespace(datetime=Clock, timedelta=dt.timedelta, UTC=dt.UTC)
    for module in (event_log, items, job, landing):
        monkeypatch.setattr(module, "dt", shifted)
    return Clock


def test_a_clock_that_jumps_back_leaves_states_and_events_in_order(
    warehouse: Warehouse, ahead: Any, at_point: AtPoint
) -> None:
    """Within a run, and from a run to the next."""

    def jump_back() -> None:
        ahead.offset = dt.timedelta()

    with Sandbox(size=4, seed=7) as mailbox:
        at_point("extract.first_object", jump_back)
        first = run_gmail(warehouse, mailbox)
        assert first.error is None
        last_seen = max(row["last_seen"] for row in stored(warehouse).values())
        message_id = mailbox.live_ids()[0]
        mailbox.change(labels={"ids": [message_id], "add": ["STARRED"]})
        second = run_gmail(warehouse, mailbox)
        assert second.error is None
        # Labels are read again: when they were read last is ahead of this clock.
        assert second.counts == {"updated": 1, "unchanged": LABELS}
        row = stored(warehouse)[message_id]
        assert row["last_seen"] > last_seen
        assert "STARRED" in json.loads(row["payload"])["labelIds"]
    for run in (first, second):
        # By their times, as `events` orders them.
        assert event_types(warehouse, run.correlation_id) == ENDED_WELL
