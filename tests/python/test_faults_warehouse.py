"""What is kept when the warehouse, the disk or the clock gives way in the middle of a run."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dlt.common.storages.load_storage import LoadStorage
from dlt.extract.storage import ExtractStorage

from landfall_sandbox.controls import Sandbox
from loaders.errors import LandingError, TransientSourceError, WarehouseError
from loaders.ingestion import landing, packages
from loaders.ingestion.ingest import DeadLettered
from loaders.ingestion.landing import Landing
from loaders.ingestion.packages import PackageLoader
from loaders.jobs import crashpoints, event_log, job
from loaders.jobs.event_log import EventNotKept, spool_dir
from loaders.jobs.runs import ORPHANED
from loaders.objects import items
from loaders.objects.items import Cursor, Item, ObservationClock, Observed
from loaders.settings.places import state_dir
from loaders.settings.target import load_target
from loaders.transform import bootstrap
from loaders.transform.invocation import release_file
from loaders.upkeep.erasing import Erasure, Selection
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from loaders.warehouse.dead_letters import find_letter, open_letters
from loaders.warehouse.opening import open_warehouse
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable

from .conftest import (
    LABELS,
    Project,
    Run,
    assert_accounted,
    at,
    duckdb_only,
    event_types,
    events,
    run_gmail,
    run_scripted,
    stored,
)
from .test_upsert_objects import refuse_where, refuse_widget, upsert

pytestmark = [pytest.mark.usefixtures("core_build"), pytest.mark.slow]

LANDED = ["job.started", "ingestion.completed", "job.failed"]
REFUSED = ["job.started", "ingestion.failed", "job.failed"]
ENDED_WELL = ["job.started", "ingestion.completed", "job.completed"]
SMALL_MEGABYTES = 12
STEP = 16384
"""Bytes that are left on it, and so many more each time."""


AtPoint = Callable[[str, Callable[[], object]], None]


@pytest.fixture
def at_point() -> Iterator[AtPoint]:
    """Do something once when a run reaches a point."""

    def install(point: str, action: Callable[[], object]) -> None:
        def hook(name: str) -> None:
            if name == point:
                crashpoints.install(None)
                action()

        crashpoints.install(hook)

    yield install
    crashpoints.install(None)


def widgets(*numbers: int) -> list[Item]:
    """Objects and the cursor that covers them."""
    items: list[Item] = [Observed("widget", f'{{"id": "w{n}"}}', at(n), f"w{n}") for n in numbers]
    return [*items, Cursor("widgets", {"last": max(numbers)}, at(max(numbers)))]


def cursor(warehouse: Warehouse, connection_name: str = "acct1") -> object:
    """The newest one, whether or not the log knows its run."""
    rows = warehouse.execute(
        "select cursor from events_staging.cursors where stream = 'widgets'"
        f" and connection_name = ? and {warehouse.is_complete()}"
        " order by observed_at desc limit 1",
        (connection_name,),
    )
    return json.loads(rows[0][0]) if rows else None


def failed_payload(warehouse: Warehouse, run: Run) -> dict[str, Any]:
    payload: dict[str, Any] = events(warehouse, run.correlation_id)[-1]["payload"]
    return payload


def spooled(warehouse: Warehouse) -> list[str]:
    return sorted(path.name for path in spool_dir(warehouse).glob("*"))


@duckdb_only("a file")
@pytest.mark.parametrize("point", ["merge.before", "land.before_extract"])
def test_a_warehouse_file_that_is_gone_during_a_run_is_not_made_anew(
    warehouse: Warehouse,
    project: Project,
    at_point: AtPoint,
    point: str,
) -> None:
    """An empty file in its place would make the run complete, and everything be gone."""
    aside = project.directory / "aside.duckdb"
    at_point(point, lambda: project.duckdb_path.rename(aside))
    run = run_scripted(warehouse, widgets(0, 1, 2))
    assert isinstance(run.error, WarehouseError)
    assert run.error.retryable
    assert "put it back and run again" in str(run.error)
    assert not project.duckdb_path.exists()
    assert spooled(warehouse)
    aside.rename(project.duckdb_path)
    following = run_scripted(project.open_warehouse(), widgets(3))
    assert following.error is None
    assert set(stored(warehouse)) == {"w0", "w1", "w2", "w3"}
    assert event_types(warehouse, run.correlation_id) == LANDED
    assert failed_payload(warehouse, run)["error_type"] == "WarehouseError"
    assert spooled(warehouse) == []


def test_a_warehouse_that_is_lost_is_filled_again(warehouse: Warehouse, project: Project) -> None:
    """What this machine remembers of the former one is no reason to leave anything out."""
    assert run_scripted(warehouse, widgets(0, 1)).error is None
    project.duckdb_path.unlink()
    again = project.open_warehouse()
    run = run_scripted(again, widgets(0, 1))
    assert run.error is None
    assert run.counts == {"inserted": 2}
    assert cursor(again) == {"last": 1}


def test_an_end_that_the_warehouse_does_not_take_is_replayed(
    warehouse: Warehouse, at_point: AtPoint
) -> None:
    def away() -> None:
        warehouse.execute("alter table events.event_log rename to event_log_away")

    at_point("end.before_event", away)
    run = run_scripted(warehouse, widgets(0))
    assert run.error is None
    assert len(spooled(warehouse)) == 2  # with its start, which another warehouse would lack
    warehouse.execute("alter table events.event_log_away rename to event_log")
    assert run_scripted(warehouse, widgets(1)).error is None
    assert event_types(warehouse, run.correlation_id) == ENDED_WELL
    assert spooled(warehouse) == []


NOT_KEPT = {
    "job.started": "start.before_event",
    "ingestion.completed": "land.loaded",
    "job.completed": "end.before_event",
}


@pytest.mark.parametrize(("event_type", "point"), NOT_KEPT.items(), ids=NOT_KEPT.keys())
def test_an_event_that_nothing_takes_fails_the_run_in_one_line(
    warehouse: Warehouse,
    at_point: AtPoint,
    project: Project,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    event_type: str,
    point: str,
) -> None:
    """Neither the warehouse nor the spool: a run that cannot be believed has not completed."""
    full = project.directory / "full"
    full.write_text("no directory, so nothing can be spooled here")
    monkeypatch.setenv("LANDFALL_SPOOL_DIR", str(full))
    at_point(
        point, lambda: warehouse.execute("alter table events.event_log rename to event_log_away")
    )
    run = run_scripted(warehouse, widgets(0))
    assert isinstance(run.error, EventNotKept)
    assert str(run.error).startswith(f"{event_type}: neither the warehouse nor the spool takes")
    assert run.error.retryable
    assert any(f'"event_type": "{event_type}"' in line for line in caplog.messages)

    monkeypatch.delenv("LANDFALL_SPOOL_DIR")
    warehouse.execute("alter table events.event_log_away rename to event_log")
    end_process_of(warehouse, run)
    assert run_scripted(warehouse, widgets(0)).error is None
    assert set(stored(warehouse)) == {"w0"}
    assert cursor(warehouse) == {"last": 0}
    if event_type != "job.started":
        assert failed_payload(warehouse, run)["error_type"] == ORPHANED


def end_process_of(warehouse: Warehouse, run: Run) -> None:
    """Make the log say of a run of this process that it was of one that is no more."""
    warehouse.execute(
        """update events.event_log set payload = json_merge_patch(payload,
        '{"host": {"process_start": "1"}}')
        where event_type = 'job.started' and correlation_id = ?""",
        (run.correlation_id,),
    )


def test_a_failure_is_what_a_run_ends_with_where_no_event_is_taken(
    warehouse: Warehouse, at_point: AtPoint, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        warehouse.execute("alter table events.event_log rename to event_log_away")
        spool_dir(warehouse).parent.mkdir(parents=True)
        spool_dir(warehouse).write_text("no directory")
        raise TransientSourceError("acme: the API is down; run again later")

    at_point("extract.first_object", fail)
    run = run_scripted(warehouse, widgets(0))
    assert isinstance(run.error, TransientSourceError)
    assert sum("neither the warehouse nor the spool" in line for line in caplog.messages) == 2


# ---- packages that do not load


def test_a_pending_package_that_the_warehouse_comes_to_refuse_holds_up_no_run(
    warehouse: Warehouse, at_point: AtPoint
) -> None:
    """It is landed by halves, its cursor last; all but the culprit is stored."""

    def fail() -> None:
        raise LandingError("the process ends here")

    at_point("land.normalized", fail)
    assert isinstance(run_scripted(warehouse, widgets(0, 1, 2)).error, LandingError)
    refuse_widget(warehouse, "w1")
    run = run_scripted(warehouse, widgets(0, 1, 2))
    assert isinstance(run.error, DeadLettered)
    assert set(stored(warehouse)) == {"w0", "w2"}
    letters = Stored(warehouse, "acme", "acct1").dead_letters()
    assert [letter.external_id for letter in letters] == ["w1"]
    assert cursor(warehouse) == {"last": 2}
    assert run_scripted(warehouse, widgets(3)).error is None


def die_when_normalized(point: str) -> None:
    if point == "land.normalized":
        die()


def leave_pending(warehouse: Warehouse, connection_name: str, *numbers: int) -> None:
    """A process dies with a package that is not loaded: objects, a dead letter and a cursor."""
    with (
        pytest.MonkeyPatch.context() as patched,
        contextlib.closing(new_landing(warehouse, connection_name)) as package,
    ):
        patched.setattr(crashpoints, "_hook", die_when_normalized)
        go_on(warehouse, package, connection_name)
        for number in numbers:
            package.observe(Observed("widget", f'{{"id": "w{number}"}}', at(number), f"w{number}"))
        package.set_aside("widget", None, "unreadable", "text")
        package.advance(Cursor("widgets", {"last": max(numbers)}, at(max(numbers))))
        with pytest.raises(SystemExit):
            package.flush()


def load_pending(warehouse: Warehouse, connection_name: str = "acct1") -> Landing:
    """What the next run begins with."""
    with contextlib.closing(new_landing(warehouse, connection_name)) as package:
        package.load_pending()
    return package


def landed(warehouse: Warehouse, connection_name: str = "acct1") -> set[str]:
    """Ids that complete loads hold."""
    return {
        external_id
        for (external_id,) in warehouse.execute(
            "select external_id from events_staging.landed_objects where connection_name = ?"
            " and _dlt_load_id in (select load_id from events_staging._dlt_loads)",
            (connection_name,),
        )
    }


def kept_on_disk() -> list[Path]:
    return list(state_dir().glob("pipelines/**/*.parquet"))


@duckdb_only("the table has a constraint")
def test_a_refused_pending_package_of_objects_that_are_read_once_loses_none(
    warehouse: Warehouse,
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(crashpoints, "_hook", die_when_normalized)
        with pytest.raises(SystemExit):
            upsert(warehouse, iter([{"id": f"w{n}", "note": "kept"} for n in range(3)]))
    refuse_widget(warehouse, "w1")
    with pytest.raises(DeadLettered, match=r"1 object\(s\)"):
        upsert(warehouse, iter([{"id": "w3"}]))
    assert set(stored(warehouse)) == {"w0", "w2", "w3"}
    [letter] = open_letters(warehouse)
    assert (letter.external_id, letter.attempts) == ("w1", 2)
    assert "the warehouse refuses it" in letter.reason
    assert find_letter(warehouse, letter.dead_letter_id).payload == '{"id":"w1","note":"kept"}'
    [completed] = [
        event["payload"]
        for event in events(warehouse)
        if event["event_type"] == "ingestion.completed"
    ]
    assert_accounted(completed)
    assert (completed["records_landed"], completed["new_dead_letters"]) == (1, 1)
    assert kept_on_disk() == []
    assert upsert(warehouse, iter([{"id": "w4"}])).counts["inserted"] == 1


@duckdb_only("the table has a constraint")
def test_every_refused_pending_package_is_landed_again(warehouse: Warehouse) -> None:
    """Several may lie there, each with its dead letters, and a cursor if it follows the head."""
    leave_pending(warehouse, "acct1", 0, 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PackageLoader, "_load_pending", lambda _: [])
        leave_pending(warehouse, "acct1", 2, 3)
    assert len(list((working_dir(warehouse) / "load" / "normalized").iterdir())) == 2
    refuse_where(warehouse, "external_id in ('w1', 'w2')")
    assert load_pending(warehouse).counts.dead_lettered == 2
    assert landed(warehouse) == {"w0", "w3"}
    letters = open_letters(warehouse)
    assert sorted(letter.external_id or "" for letter in letters) == ["", "", "w1", "w2"]
    # The second was made as if there were no first.
    assert cursor(warehouse) == {"last": 1}
    assert kept_on_disk() == []


@duckdb_only("the table has a constraint")
def test_an_erasure_lands_a_refused_pending_package_first(warehouse: Warehouse) -> None:
    leave_pending(warehouse, "acct1", 0, 1, 2)
    refuse_widget(warehouse, "w1")
    keys = ("acme:acct1:widget:w0", "acme:acct1:widget:w1")
    erasure = Erasure(warehouse, Selection("acme", "acct1", keys))
    erasure.run()
    assert (erasure.counts["landed_objects"], erasure.counts["dead_letters"]) == (1, 1)
    assert landed(warehouse) == {"w2"}
    assert [letter.external_id for letter in open_letters(warehouse)] == [None]
    assert kept_on_disk() == []


@duckdb_only("the table has a constraint")
def test_a_pending_package_that_is_refused_as_a_whole_stays_on_disk(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "MAX_REFUSED", 1)
    leave_pending(warehouse, "acct1", 0, 1, 2)
    refuse_where(warehouse, "external_id is not null")
    for _ in range(2):
        with pytest.raises(LandingError, match="refuses more than 1 objects of one package"):
            load_pending(warehouse)
        assert open_letters(warehouse) == []
    warehouse.execute("drop table events_staging.landed_objects")
    bootstrap.bootstrap(warehouse)
    load_pending(warehouse)
    assert landed(warehouse) == {"w0", "w1", "w2"}
    assert cursor(warehouse) == {"last": 2}
    assert kept_on_disk() == []


def test_a_pending_package_that_cannot_be_read_stays_on_disk(warehouse: Warehouse) -> None:
    leave_pending(warehouse, "acct1", 0)
    [path] = working_dir(warehouse).glob("load/normalized/*/new_jobs/landed_objects.*")
    path.write_bytes(path.read_bytes()[:100])
    for _ in range(2):
        with pytest.raises(LandingError, match="pending package"):
            load_pending(warehouse)
    assert kept_on_disk()
    assert cursor(warehouse) is None


@contextlib.contextmanager
def dying_at(number: int | None) -> Iterator[list[str]]:
    """Die at the n-th of the moments: points, moves and removals; yields their names."""
    moments: list[str] = []
    rename, complete = Path.rename, LoadStorage.complete_load_package

    def reached(name: str) -> None:
        moments.append(name)
        if len(moments) - 1 == number:
            die()

    def and_reach(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        reached("renamed")
        return moved

    def reach_in_the_middle(path: Path, ignore_errors: bool = False) -> None:
        if files := [each for each in path.rglob("*") if each.is_file()]:
            files[0].unlink()
            reached("removing")
        shutil.rmtree(path, ignore_errors=ignore_errors)

    def completed(storage: LoadStorage, load_id: str, aborted: bool) -> None:
        complete(storage, load_id, aborted)
        reached("completed")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(crashpoints, "_hook", reached)
        patched.setattr(Path, "rename", and_reach)
        patched.setattr(packages, "shutil", types.SimpleNamespace(rmtree=reach_in_the_middle))
        patched.setattr(LoadStorage, "complete_load_package", completed)
        yield moments


@duckdb_only("the table has a constraint")
def test_a_death_while_a_refused_package_is_landed_again_loses_nothing(
    warehouse: Warehouse,
) -> None:
    """The first and the last time that a step is taken: of the new packages, of dropping them and
    the old one."""
    refuse_widget(warehouse, "w1")
    leave_pending(warehouse, "acct", 0, 1, 2)
    with dying_at(None) as moments:
        load_pending(warehouse, "acct")
    last = {name: number for number, name in enumerate(moments)}
    assert moments[last["completed"] :].count("renamed") == 1  # the old one, when all is landed
    first = {name: moments.index(name) for name in last}
    steps = ("land.normalized", "completed", "land.loaded", "renamed", "removing")
    for moment in sorted({each[name] for name in steps for each in (first, last)}):
        name = f"acct{moment}"
        leave_pending(warehouse, name, 0, 1, 2)
        with dying_at(moment) as until, pytest.raises(SystemExit):
            load_pending(warehouse, name)
        with contextlib.closing(new_landing(warehouse, name)) as package:
            package.load_pending()
            package.observe(Observed("widget", '{"id": "w3"}', at(3), "w3"))
            package.flush()
        assert landed(warehouse, name) == {"w0", "w2", "w3"}, until
        letters = open_letters(warehouse, "acme", name)
        assert sorted(letter.external_id or "" for letter in letters) == ["", "w1"], until
        assert {find_letter(warehouse, letter.dead_letter_id).payload for letter in letters} == {
            "text",
            '{"id": "w1"}',
        }
        assert cursor(warehouse, name) == {"last": 2}, until
        assert kept_on_disk() == [], until


@duckdb_only("a view in the table's place")
def test_a_table_that_takes_nothing_is_no_fault_of_the_objects(warehouse: Warehouse) -> None:
    """Every run ends, none sets anything aside, and the cursor stays where it is."""
    table = "events_staging.landed_objects"
    warehouse.execute(f"alter table {table} rename to landed_objects_away")
    warehouse.execute(f"create view {table} as select * from {table}_away")
    for _ in range(2):
        run = run_scripted(warehouse, widgets(0, 1))
        assert isinstance(run.error, LandingError)
        assert "landed_objects is not" in str(run.error)
        assert event_types(warehouse, run.correlation_id) == REFUSED
        assert failed_payload(warehouse, run)["retryable"] is True
        assert cursor(warehouse) is None
    warehouse.execute(f"drop view {table}")
    warehouse.execute(f"alter table {table}_away rename to landed_objects")
    assert run_scripted(warehouse, widgets(0, 1)).error is None
    assert set(stored(warehouse)) == {"w0", "w1"}
    assert cursor(warehouse) == {"last": 1}
    assert Stored(warehouse, "acme", "acct1").dead_letters() == []


# ---- a full disk


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


def new_landing(warehouse: Warehouse, connection_name: str = "acct1") -> Landing:
    return Landing(
        warehouse,
        source_system="acme",
        connection_name=connection_name,
        correlation_id="run",
        idem_key_of=lambda item, payload: f"acme:{connection_name}:widget:{payload['id']}",
    )


def go_on(warehouse: Warehouse, landing: Landing, connection_name: str = "acct1") -> None:
    position = Stored(warehouse, "acme", connection_name).position
    landing.go_on_from(position, ObservationClock(), at(0))


def land(warehouse: Warehouse, number: int) -> None:
    """Land one object and its cursor."""
    package = new_landing(warehouse)
    package.load_pending()
    go_on(warehouse, package)
    for item in widgets(number):
        if isinstance(item, Observed):
            package.observe(item)
        elif isinstance(item, Cursor):
            package.advance(item)
    package.flush()


# ---- a process that dies inside of dlt's own steps


def die(*_: object, **__: object) -> None:
    raise SystemExit("killed here")


def working_dir(warehouse: Warehouse) -> Path:
    [pipeline] = state_dir().glob(f"pipelines/{warehouse.target.key}/acme-acct1/landfall")
    return pipeline


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


# ---- a clock that jumps back


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
