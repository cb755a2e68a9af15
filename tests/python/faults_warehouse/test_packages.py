"""Packages that do not load are kept, and landed."""

from __future__ import annotations

import contextlib
import shutil
import types
from collections.abc import Iterator
from pathlib import Path

import dlt
import pytest
from dlt.common.storages.load_storage import LoadStorage
from dlt.destinations.exceptions import DatabaseTransientException

from loaders.errors import LandingError
from loaders.ingestion import packages
from loaders.ingestion.ingest import DeadLettered
from loaders.ingestion.landing import Landing
from loaders.ingestion.packages import PackageLoader
from loaders.jobs import crashpoints
from loaders.objects.items import Cursor, Observed
from loaders.settings.places import state_dir
from loaders.transform import bootstrap
from loaders.upkeep.erasing import Erasure, Selection
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from loaders.warehouse.dead_letters import find_letter, open_letters
from tests.python.conftest import (
    assert_accounted,
    at,
    duckdb_only,
    event_types,
    events,
    run_scripted,
    stored,
)
from tests.python.upsert_objects.conftest import upsert
from tests.python.upsert_objects.test_failures import refuse_where, refuse_widget

from .conftest import (
    REFUSED,
    AtPoint,
    cursor,
    die,
    failed_payload,
    go_on,
    landed,
    new_landing,
    widgets,
    working_dir,
)

pytestmark = [pytest.mark.usefixtures("core_build"), pytest.mark.slow]


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


@pytest.mark.parametrize(("times", "is_landed"), [(1, True), (3, False)])
def test_what_passes_is_loaded_again_and_what_stays_is_pending(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, times: int, is_landed: bool
) -> None:
    """dlt makes its own tables before it loads: two first jobs at once may trip over each other."""
    load, failures = dlt.Pipeline.load, [*range(times)]

    def trip_first(pipeline: dlt.Pipeline) -> object:
        if failures:
            raise DatabaseTransientException(RuntimeError(f"made at once, {failures.pop()}"))
        return load(pipeline)

    monkeypatch.setattr(dlt.Pipeline, "load", trip_first)
    monkeypatch.setattr("loaders.ingestion.packages.time.sleep", lambda _: None)
    run = run_scripted(warehouse, widgets(0))
    assert (run.error is None) == is_landed
    assert run_scripted(warehouse, widgets(0)).error is None
    assert set(stored(warehouse)) == {"w0"}


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


@pytest.mark.extended
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
