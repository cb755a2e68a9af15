"""Copying a warehouse into another target: exact, repeatable, resumable, refused where unsafe."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loaders.cli import main
from loaders.errors import (
    CheckFailed,
    ConfigError,
    LandingError,
    UsageError,
    WarehouseBusy,
    WarehouseError,
)
from loaders.ingestion import packages
from loaders.jobs import crashpoints
from loaders.jobs.job import Job
from loaders.objects.items import Deleted, Observed, Unfetched
from loaders.settings.target import load_target
from loaders.upkeep import copying
from loaders.upkeep.copying import WarehouseCopy
from loaders.upkeep.erasing import Erasure, Selection
from loaders.upsert import upsert_objects
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from loaders.warehouse.opening import open_warehouse

from .conftest import (
    HOSTILE_TEXTS,
    TARGET,
    Project,
    at,
    count,
    cursor_item,
    event_types,
    events,
    prepared,
    run_scripted,
    stored,
)

pytestmark = [pytest.mark.usefixtures("stays_open"), pytest.mark.slow]

COPY_TARGET = f"{TARGET}-copy"
OBJECTS = 10
DEAD_LETTERS = 2
_LANDING = ("dead_letters", "cursors")


@pytest.fixture
def source(core_build: None, project: Project) -> Warehouse:
    """A warehouse of every kind of row: hostile texts, a change, deletions, dead letters."""
    return prepared(project, "before_copy", _ingest)


def _ingest(warehouse: Warehouse) -> None:
    texts = [{"id": f"m{index}", "text": text} for index, text in enumerate(HOSTILE_TEXTS.values())]
    observed = [
        Observed("message", json.dumps(value), at(index)) for index, value in enumerate(texts)
    ]
    unfetched = [Unfetched("message", f"bad{index}", "it's refused") for index in range(2)]
    run_scripted(warehouse, [*observed, *unfetched, cursor_item(20, page="näxt")])
    run_scripted(
        warehouse,
        [
            Observed("message", json.dumps({**texts[0], "n": 1.5}), at(30.000001)),
            Deleted("message", "m1", at(31)),
            Deleted("message", "never-seen", at(32)),
            cursor_item(33, page=None),
        ],
    )


@pytest.fixture
def target(project: Project, bootstrapped_file: Path) -> Warehouse:
    """Another target of the same profile, its tables all empty."""
    path = project.directory / "copy" / "landfall.duckdb"
    path.parent.mkdir()
    shutil.copy(bootstrapped_file, path)
    profile = yaml.safe_load(project.profiles.read_text())
    outputs = profile["landfall"]["outputs"]
    outputs[COPY_TARGET] = {**outputs[TARGET], "path": str(path)}
    project.profiles.write_text(yaml.safe_dump(profile))
    return open_warehouse(load_target(COPY_TARGET), 0.0)


def rows(warehouse: Warehouse, table: str) -> list[tuple[Any, ...]]:
    """Every row of a table that counts; without load ids and the events of copies."""
    if table in _LANDING:
        complete = "select load_id from events_staging._dlt_loads where status = 0"
        return warehouse.execute(
            f"select * exclude (_dlt_load_id) from events_staging.{table}"
            f" where _dlt_load_id in ({complete}) order by all"
        )
    own = " where source_system != 'landfall'" if table == "event_log" else ""
    return warehouse.execute(f"select * from events.{table}{own} order by all")


def everything(warehouse: Warehouse) -> dict[str, list[tuple[Any, ...]]]:
    return {table: rows(warehouse, table) for table in ("raw_objects", "event_log", *_LANDING)}


def results(copy: WarehouseCopy) -> dict[str, tuple[int, int, int, bool]]:
    return {
        result.table: (result.rows, result.copied, result.already_there, result.is_verified)
        for result in copy.results
    }


def copy_all(source: Warehouse, target: Warehouse) -> WarehouseCopy:
    copy = WarehouseCopy(source, target)
    copy.run()
    return copy


def test_a_copy_holds_exactly_the_rows_of_the_source(source: Warehouse, target: Warehouse) -> None:
    before = everything(source)

    copy = copy_all(source, target)

    assert everything(target) == before == everything(source)
    assert results(copy) == {
        "erasures": (0, 0, 0, True),
        "event_log": (6, 6, 0, True),
        "dead_letters": (DEAD_LETTERS, DEAD_LETTERS, 0, True),
        "raw_objects": (OBJECTS + 1, OBJECTS + 1, 0, True),
        "cursors": (2, 2, 0, True),
    }
    assert stored(target)["never-seen"]["payload"] is None
    assert Stored(target, "acme", "acct1").cursor("messages") == {"page": None}
    assert Stored(target, "acme", "acct1").dead("message") == {"bad0", "bad1"}


def test_a_copy_leaves_no_temporary_table(source: Warehouse, target: Warehouse) -> None:
    copy_all(source, target)
    assert not [table for table in target.columns() if table.startswith("copied_")]


def test_a_second_copy_brings_nothing(source: Warehouse, target: Warehouse) -> None:
    copy_all(source, target)
    again = copy_all(source, target)
    assert everything(target) == everything(source)
    assert results(again) == {
        "erasures": (0, 0, 0, True),
        "event_log": (6, 0, 6, True),
        "dead_letters": (DEAD_LETTERS, 0, DEAD_LETTERS, True),
        "raw_objects": (OBJECTS + 1, 0, OBJECTS + 1, True),
        "cursors": (2, 0, 2, True),
    }


def test_a_later_copy_brings_what_is_new(source: Warehouse, target: Warehouse) -> None:
    copy_all(source, target)
    run_scripted(source, [Observed("message", '{"id": "new"}', at(60)), cursor_item(61)])
    again = copy_all(source, target)
    assert everything(target)["raw_objects"] == everything(source)["raw_objects"]
    assert results(again)["raw_objects"] == (OBJECTS + 2, 1, OBJECTS + 1, True)
    assert Stored(target, "acme", "acct1").cursor("messages") == {}


def test_rows_that_only_the_target_has_stay(source: Warehouse, target: Warehouse) -> None:
    copy_all(source, target)
    target.execute(
        "insert into events.raw_objects by name select * replace ('own' as idem_key)"
        " from events.raw_objects limit 1"
    )
    again = copy_all(source, target)
    assert results(again)["raw_objects"] == (OBJECTS + 1, 0, OBJECTS + 1, True)
    assert count(target, "events.raw_objects") == OBJECTS + 2


@pytest.mark.parametrize("package_rows", [1, 3])
@pytest.mark.parametrize("range_keys", [2, 50])
def test_packages_and_ranges_may_be_of_any_size(
    source: Warehouse,
    target: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    package_rows: int,
    range_keys: int,
) -> None:
    monkeypatch.setattr(copying, "PACKAGE_ROWS", package_rows)
    monkeypatch.setattr(copying, "RANGE_KEYS", range_keys)
    monkeypatch.setattr("loaders.upkeep.copy_compare.SORTED_ROWS", 4)
    copy_all(source, target)
    assert everything(target) == everything(source)


class Killed(BaseException):
    """What ends a copy at a crash point."""


@pytest.fixture
def kill_at(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise at the n-th time that a crash point is reached."""
    name, left = request.param

    def hook(reached: str) -> None:
        nonlocal left
        left -= reached == name
        if reached == name and left == 0:
            raise Killed

    crashpoints.install(hook)
    yield
    crashpoints.install(None)


@pytest.mark.parametrize(
    "kill_at",
    [
        pytest.param((name, times), id=f"{name} {times}")
        for name, times in (
            ("land.extracted", 1),
            ("land.normalized", 4),
            ("land.loaded", 4),
            ("land.loaded", 7),
            ("merge.before", 2),
            ("merge.after", 1),
            ("merge.after", 2),
        )
    ],
    indirect=True,
)
def test_an_interrupted_copy_is_finished_by_the_next(
    source: Warehouse, target: Warehouse, monkeypatch: pytest.MonkeyPatch, kill_at: None
) -> None:
    monkeypatch.setattr(copying, "PACKAGE_ROWS", 3)
    with pytest.raises(Killed):
        copy_all(source, target)
    assert rows(target, "cursors") == []
    crashpoints.install(None)

    copy_all(source, target)

    assert everything(target) == everything(source)
    assert event_types(target)[-4:] == ["job.started", "job.failed", "job.started", "job.completed"]


def test_what_a_killed_copy_has_landed_does_not_travel_again(
    source: Warehouse, target: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PACKAGE_ROWS", 3)
    load, sizes = packages.load_package, list[int]()

    def counting(pipeline: Any, tables: dict[str, Any]) -> None:
        if "copied_raw_objects" in tables:
            sizes.append(tables["copied_raw_objects"].num_rows)
        load(pipeline, tables)

    def failing(pipeline: Any, tables: dict[str, Any]) -> None:
        if len(sizes) == 2:
            raise OSError("the network went away")
        counting(pipeline, tables)

    with monkeypatch.context() as patched:
        patched.setattr(copying, "load_package", failing)
        with pytest.raises(LandingError, match="run the same command again"):
            copy_all(source, target)
    assert count(target, "events.raw_objects") == 0

    sizes.clear()
    monkeypatch.setattr(copying, "load_package", counting)
    copy_all(source, target)
    assert sum(sizes) == OBJECTS + 1 - 2 * 3
    assert everything(target) == everything(source)


def test_a_copy_is_a_logged_job_of_the_target(source: Warehouse, target: Warehouse) -> None:
    copy = copy_all(source, target)
    started, completed = events(target, copy.job.correlation_id)
    assert (started["event_type"], completed["event_type"]) == ("job.started", "job.completed")
    assert started["source_system"] == "landfall"
    assert started["payload"]["job_name"] == "copy"
    assert started["payload"]["parameters"] == {"from": TARGET, "to": COPY_TARGET}
    assert completed["payload"]["inserted"] == OBJECTS + 1
    assert completed["payload"]["copied"]["cursors"]["rows"] == 2
    assert not [event for event in events(source) if event["source_system"] == "landfall"]


def test_acceptance_holds_after_a_copy(
    source: Warehouse, target: Warehouse, project: Project
) -> None:
    copy_all(source, target)
    shutil.copy(target.target.path, project.duckdb_path)
    assert project.run_dbt("build", "--exclude-resource-type", "unit_test").success


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        pytest.param(
            "update events.raw_objects set payload_hash = 'x' where external_id = 'm3'",
            "0 missing, 1 different",
            id="other content",
        ),
        pytest.param(
            "insert into events.raw_objects from events.raw_objects where external_id = 'm3'",
            "acme/acct1/message: 11 and 12",
            id="doubled",
        ),
    ],
)
def test_a_target_that_differs_is_reported_and_gets_no_cursor(
    source: Warehouse, target: Warehouse, statement: str, complaint: str
) -> None:
    copy_all(source, target)
    target.execute(statement)
    target.execute("delete from events_staging.cursors")
    with pytest.raises(CheckFailed, match=complaint) as failed:
        copy_all(source, target)
    assert failed.value.exit_code == 1
    assert rows(target, "cursors") == []
    assert event_types(target)[-1] == "job.failed"


def test_the_same_database_is_refused(source: Warehouse, target: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="are the same database"):
        WarehouseCopy(source, source)
    target.target.path.unlink()
    os.symlink(source.target.path, target.target.path)
    with pytest.raises(UsageError, match="are the same database"):
        WarehouseCopy(source, target)


def test_a_source_without_tables_is_refused_and_not_created(
    source: Warehouse, target: Warehouse
) -> None:
    target.target.path.unlink()
    with pytest.raises(ConfigError, match="lacks tables or columns"):
        WarehouseCopy(target, source)
    assert not target.target.path.exists()


def test_a_source_with_a_queue_is_refused(source: Warehouse, target: Warehouse) -> None:
    upsert_objects(
        [{"id": "queued"}],
        source_system="acme",
        connection_name="acct1",
        object_type="message",
        idem_key_fn=lambda payload: f"acme:acct1:message:{payload['id']}",
        merge=False,
        warehouse=source,
    )
    with pytest.raises(UsageError, match=r"1 landed object\(s\) .* build --target"):
        copy_all(source, target)
    assert event_types(target) == ["job.started", "job.failed"]


@pytest.mark.parametrize("side", ["source", "target"])
def test_an_open_run_on_either_side_is_refused(
    source: Warehouse, target: Warehouse, side: str
) -> None:
    running = {"source": source, "target": target}[side]
    job = Job(running, job_name="j", source_system="acme", connection_name="acct1")
    job.start()
    with pytest.raises(WarehouseBusy, match=f"being written by {job.correlation_id}"):
        copy_all(source, target)
    job.complete({})
    copy_all(source, target)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_verification_on_either_side_hinders_no_copy(
    source: Warehouse, target: Warehouse, side: str
) -> None:
    """It writes no data; its events are copied when it has ended, both of them."""
    job = Job(
        {"source": source, "target": target}[side],
        job_name="acme_verify_acct1",
        source_system="acme",
        connection_name="acct1",
        takes_lease=False,
    )
    job.start()
    copy_all(source, target)
    of_job = "select event_type from events.event_log where correlation_id = ? order by created_at"
    found = target.execute(of_job, (job.correlation_id,))
    assert found == ([] if side == "source" else [("job.started",)])
    job.complete({})
    copy_all(source, target)
    found = target.execute(of_job, (job.correlation_id,))
    assert found == [("job.started",), ("job.completed",)]


def test_the_command_prints_a_table_and_says_what_is_wrong(
    source: Warehouse, target: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["copy", "--from", TARGET, "--to", COPY_TARGET]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["raw_objects", "11", "11", "0", "yes"] in [line.split() for line in lines]

    target.execute("update events.raw_objects set payload_hash = 'x'")
    assert main.main(["copy", "--from", TARGET, "--to", COPY_TARGET]) == 1
    out, err = capsys.readouterr()
    assert ["raw_objects", "11", "0", "11", "NO"] in [line.split() for line in out.splitlines()]
    assert err.startswith("error: copy: raw_objects: source")

    assert main.main(["copy", "--from", TARGET, "--to", TARGET]) == 2
    assert "the same database" in capsys.readouterr().err


def test_a_stream_that_is_refused_is_a_warehouse_error(source: Warehouse) -> None:
    with pytest.raises(WarehouseError):
        list(source.stream("select nonsense from nowhere"))


def test_what_was_erased_on_either_side_is_not_copied(source: Warehouse, target: Warehouse) -> None:
    of_message = ("acme", "acct1")
    for warehouse, name in ((source, "m2"), (target, "m3"), (target, "bad0")):
        key = f"acme:acct1:message:{name}"
        Erasure(warehouse, Selection(*of_message, (key,)), "asked for").run()
    copy = copy_all(source, target)
    assert results(copy)["erasures"] == (1, 1, 0, True)
    assert "m3" in stored(source)
    assert set(stored(target)) == set(stored(source)) - {"m3"}
    assert Stored(target, "acme", "acct1").dead("message") == {"bad1"}
    assert count(target, "events.erasures") == 3
    assert results(copy_all(source, target))["raw_objects"][1] == 0


@pytest.mark.parametrize("kill_at", [("merge.before", 3)], ids=["raw_objects"], indirect=True)
@pytest.mark.parametrize("sides", ["source", "target", "source target"])
def test_what_was_erased_since_a_killed_copy_is_not_taken_over(
    source: Warehouse, target: Warehouse, kill_at: None, sides: str
) -> None:
    with pytest.raises(Killed):
        copy_all(source, target)
    crashpoints.install(None)
    assert count(target, "events_staging.copied_raw_objects") == OBJECTS + 1
    for side in sides.split():
        warehouse = {"source": source, "target": target}[side]
        Erasure(warehouse, Selection("acme", "acct1", ("acme:acct1:message:m2",))).run()
    if "target" in sides:
        assert not [table for table in target.columns() if table.startswith("copied_")]
    copy = copy_all(source, target)
    assert set(stored(target)) == set(stored(source)) - {"m2"}
    assert results(copy)["raw_objects"] == (OBJECTS, OBJECTS, 0, True)


@pytest.mark.parametrize("kill_at", [("land.normalized", 2)], indirect=True)
def test_an_erasure_drops_the_package_that_a_killed_copy_left(
    source: Warehouse, target: Warehouse, project: Project, kill_at: None
) -> None:
    with pytest.raises(Killed):
        copy_all(source, target)
    crashpoints.install(None)

    def packages_left() -> list[Path]:
        return list(project.state_dir.glob("pipelines/*/landfall-copy/**/*.parquet"))

    assert packages_left()
    Erasure(target, Selection("acme", "acct1", ("acme:acct1:message:m2",))).run()
    assert packages_left() == []
    copy_all(source, target)
    assert set(stored(target)) == set(stored(source)) - {"m2"}
