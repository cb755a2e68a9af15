"""A cursor counts only with the package that the warehouse holds last, and on a store that has
what it covers. What befalls whole warehouses is tests/chaos/disasters.py."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from loaders.ingestion import packages
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.ingestion.landing import Landing
from loaders.ingestion.packages import CursorNotLanded
from loaders.jobs import crashpoints
from loaders.jobs.event_log import log_event
from loaders.objects.items import Cursor, Item, Land, ObservationClock, Observed
from loaders.settings.places import state_dir
from loaders.sources.contract import FetchRequest
from loaders.warehouse.base import Warehouse
from loaders.warehouse.chain import LINK, Link, Position
from loaders.warehouse.contents import Stored
from tests.chaos.disasters import wait_until_closed

from .conftest import (
    DUCKDB,
    Project,
    Run,
    ScriptedSource,
    at,
    count,
    duckdb_only,
    event_types,
    events,
    on_both_targets,
    on_emulator,
    run_ingestion,
    run_scripted,
    stored,
)
from .faults_warehouse.test_packages import die_when_normalized

pytestmark = pytest.mark.slow

CONNECTION = ("acme", "acct1")
CURSORS = "events_staging.cursors"
QUEUE = "events_staging.landed_objects"


def widget(number: int, seconds: float | None = None) -> Observed:
    text = f'{{"id": "w{number}", "at": {seconds or number}}}'
    return Observed("widget", text, at(number if seconds is None else seconds), f"w{number}")


def widgets(*numbers: int) -> list[Item]:
    """Objects and the cursor that covers them."""
    cursor = Cursor("widgets", {"last": max(numbers)}, at(max(numbers)))
    return [*map(widget, numbers), cursor]


def position(warehouse: Warehouse) -> Position:
    return Stored(warehouse, *CONNECTION).position


def head(warehouse: Warehouse) -> Link:
    found = position(warehouse).head
    assert found is not None
    return found


def last(warehouse: Warehouse) -> object:
    """What the cursor that counts says."""
    return position(warehouse).cursors.get("widgets", {}).get("last")


@on_both_targets
@pytest.mark.usefixtures("core_build")
def test_packages_follow_each_other_and_the_last_one_has_the_whole_position(
    warehouse: Warehouse,
) -> None:
    other = Cursor("gadgets", {"last": "g"}, at(0))
    first_run = run_scripted(warehouse, [*widgets(0), other, Land(), *widgets(1)])
    first = head(warehouse)
    assert (first.run, first.waiting) == (first_run.correlation_id,) * 1 + (
        (first_run.correlation_id,),
    )
    assert run_scripted(warehouse, widgets(2)).error is None
    assert head(warehouse).follows == first.id
    assert position(warehouse).cursors == {"widgets": {"last": 2}, "gadgets": {"last": "g"}}
    # What is superseded is gone.
    assert count(warehouse, CURSORS) == 3
    # Nothing to land: no package.
    before = head(warehouse)
    assert run_scripted(warehouse, []).error is None
    assert head(warehouse) == before


class _Meanwhile(ScriptedSource):
    """Between what it yields first and then, something happens to the warehouse."""

    def __init__(
        self, first: Sequence[Item], happens: Callable[[], None], then: Sequence[Item]
    ) -> None:
        super().__init__([*first, Land(), *then])
        self._happens = happens

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        for item in super().fetch(request):
            yield item
            if isinstance(item, Land):
                self._happens()


def run_meanwhile(
    warehouse: Warehouse, first: Sequence[Item], happens: Callable[[], None], then: Sequence[Item]
) -> Run:
    return run_ingestion(
        Ingestion(
            warehouse,
            lambda: _Meanwhile(first, happens, then),
            source_system=CONNECTION[0],
            connection_name=CONNECTION[1],
            options=IngestOptions(),
        )
    )


@on_both_targets
@pytest.mark.usefixtures("core_build")
def test_a_warehouse_put_back_while_a_run_reads_takes_its_objects_and_not_its_cursor(
    warehouse: Warehouse, project: Project, target_type: str
) -> None:
    assert run_scripted(warehouse, widgets(0)).error is None
    before = head(warehouse)
    project.store.save("backup")

    def put_back() -> None:
        if target_type == DUCKDB:
            wait_until_closed(project.duckdb_path)
        project.store.restore("backup")

    run = run_meanwhile(warehouse, widgets(1), put_back, widgets(2))
    assert isinstance(run.error, CursorNotLanded)
    # w1 went with the file. The run is whole in the log that does not have its beginning.
    assert set(stored(warehouse)) == {"w0"}
    assert count(warehouse, QUEUE) == 1
    assert head(warehouse) == before
    assert event_types(warehouse, run.correlation_id) == [
        "job.started",
        "ingestion.failed",
        "job.failed",
    ]
    assert last(warehouse) == 0
    assert run_scripted(warehouse, widgets(1, 2)).error is None
    assert set(stored(warehouse)) == {"w0", "w1", "w2"}
    assert last(warehouse) == 2


def forget_run(warehouse: Warehouse, run: str) -> None:
    warehouse.execute("delete from events.event_log where correlation_id = ?", (run,))


def forget_all_runs(warehouse: Warehouse, run: str) -> None:
    warehouse.execute("delete from events.event_log where true")


def forget_merge(warehouse: Warehouse, run: str) -> None:
    """Of the moment between the beginning of the run and its merge."""
    warehouse.execute(
        "delete from events.event_log where correlation_id = ? and event_type = 'job.completed'",
        (run,),
    )
    log_event(
        warehouse,
        "job.failed",
        source_system=CONNECTION[0],
        correlation_id=run,
        error_message="it was killed",
        payload={"step": None},
    )
    warehouse.execute("delete from events.raw_objects where changed_by = ?", (run,))


@pytest.mark.parametrize(
    ("target_type", "forget"),
    [
        (DUCKDB, forget_run),
        (DUCKDB, forget_all_runs),
        (DUCKDB, forget_merge),
        on_emulator(forget_merge),
    ],
    indirect=["target_type"],
)
@pytest.mark.usefixtures("core_build")
def test_a_head_that_the_other_dataset_does_not_know_is_not_believed(
    warehouse: Warehouse,
    forget: Callable[[Warehouse, str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert run_scripted(warehouse, widgets(0)).error is None
    second = run_scripted(warehouse, widgets(1))
    forget(warehouse, second.correlation_id)
    assert (position(warehouse).cursors, position(warehouse).doubt is None) == ({}, False)
    run = run_scripted(warehouse, widgets(0, 1))
    assert any(second.correlation_id in message for message in caplog.messages)
    assert set(stored(warehouse)) == {"w0", "w1"}
    # The chain goes on from there.
    assert last(warehouse) == 1
    assert position(warehouse).doubt is None
    assert head(warehouse).run == run.correlation_id


@pytest.mark.usefixtures("core_build")
def test_a_run_that_died_after_landing_is_believed_and_its_head_is_relieved(
    warehouse: Warehouse,
) -> None:
    """What it landed waits in the queue; what comes next says that it is merged."""

    class Died(Exception):
        pass

    def die(name: str) -> None:
        if name == "merge.before":
            raise Died

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(crashpoints, "_hook", die)
        with pytest.raises(Died):
            run_scripted(warehouse, widgets(0))
    died = head(warehouse)
    assert position(warehouse).cursors == {"widgets": {"last": 0}}
    run = run_scripted(warehouse, [])
    assert run.error is None
    assert head(warehouse).follows == died.id
    assert position(warehouse) == dataclasses.replace(
        position(warehouse), cursors={"widgets": {"last": 0}}, doubt=None, is_proven=True
    )


def new_landing(warehouse: Warehouse, run: str, since: Position) -> Landing:
    landing = Landing(
        warehouse,
        source_system=CONNECTION[0],
        connection_name=CONNECTION[1],
        correlation_id=run,
        idem_key_of=lambda item, payload: f"acme:acct1:widget:{payload['id']}",
    )
    landing.go_on_from(since, ObservationClock(), at(0))
    return landing


def land(landing: Landing, *numbers: int) -> None:
    for item in widgets(*numbers):
        if isinstance(item, Observed):
            landing.observe(item)
        elif isinstance(item, Cursor):
            landing.advance(item)
    landing.flush()


@pytest.mark.parametrize("has_looked", [False, True], ids=["late", "looked before"])
@pytest.mark.usefixtures("core_build")
def test_the_package_of_a_run_that_was_suspended_lands_objects_and_no_cursor(
    warehouse: Warehouse, has_looked: bool
) -> None:
    """Also when it had found the head to be its own before it was suspended."""
    assert run_scripted(warehouse, widgets(0)).error is None
    since = position(warehouse)
    assert since.head is not None
    known = since.head.id
    suspended = new_landing(warehouse, "suspended", since)
    then = suspended._now()  # its package has the time of before
    assert run_scripted(warehouse, widgets(1)).error is None
    with pytest.MonkeyPatch.context() as patched, contextlib.closing(suspended):
        if has_looked:
            patched.setattr(packages, "head_id", lambda *_: known)
            patched.setattr(suspended, "_now", lambda: then)
        with contextlib.nullcontext() if has_looked else pytest.raises(CursorNotLanded):
            land(suspended, 2)
    assert last(warehouse) == 1
    assert run_scripted(warehouse, widgets(3)).error is None
    assert set(stored(warehouse)) == {"w0", "w1", "w2", "w3"}
    assert (last(warehouse), count(warehouse, CURSORS)) == (3, 2)


def leave_pending(warehouse: Warehouse, *numbers: int, point: str = "land.normalized") -> None:
    """A process dies with a package on disk."""
    with (
        pytest.MonkeyPatch.context() as patched,
        contextlib.closing(new_landing(warehouse, "died", position(warehouse))) as landing,
    ):
        patched.setattr(
            crashpoints,
            "_hook",
            lambda name: die_when_normalized("land.normalized") if name == point else None,
        )
        with pytest.raises(SystemExit):
            land(landing, *numbers)


def on_disk() -> list[Path]:
    return list(state_dir().glob("pipelines/**/*.parquet"))


@pytest.mark.parametrize(
    ("target_type", "point"),
    [
        (DUCKDB, "land.extracted"),
        (DUCKDB, "land.normalized"),
        (DUCKDB, "land.loaded"),
        on_emulator("land.normalized"),
    ],
    indirect=["target_type"],
)
@pytest.mark.usefixtures("core_build")
def test_a_package_on_disk_lands_whole_where_it_follows(warehouse: Warehouse, point: str) -> None:
    assert run_scripted(warehouse, widgets(0)).error is None
    leave_pending(warehouse, 1, point=point)
    with contextlib.closing(new_landing(warehouse, "next", Position())) as landing:
        landing.load_pending()
    assert on_disk() == []
    assert (head(warehouse).run, count(warehouse, QUEUE)) == ("died", 1)
    rows = warehouse.execute(f"select cursor from {CURSORS} where stream = 'widgets'")
    assert sorted(json.loads(text)["last"] for (text,) in rows) == [0, 1]


@pytest.mark.usefixtures("core_build")
def test_a_package_on_disk_lands_its_objects_where_something_else_came_first(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_scripted(warehouse, widgets(0)).error is None
    leave_pending(warehouse, 1)
    moved = state_dir() / "moved"
    (state_dir() / "pipelines").rename(moved)
    assert run_scripted(warehouse, widgets(2)).error is None
    before = head(warehouse)
    pipelines = state_dir() / "pipelines"
    pipelines.rename(state_dir() / "other")
    moved.rename(pipelines)
    run = run_scripted(warehouse, [])
    assert run.error is None
    assert any("does not follow" in message for message in caplog.messages)
    assert set(stored(warehouse)) == {"w0", "w1", "w2"}
    assert (last(warehouse), head(warehouse)) == (2, before)


@duckdb_only("what a killed load has loaded is there at once")
@pytest.mark.usefixtures("core_build")
def test_what_was_loaded_of_a_package_that_lands_anew_does_not_stay(warehouse: Warehouse) -> None:
    with contextlib.closing(new_landing(warehouse, "other", Position())) as other:
        land(other, 2)
    leave_pending(warehouse, 1)
    [directory] = {path.parent.parent for path in on_disk()}
    warehouse.execute(f"update {QUEUE} set _dlt_load_id = ?", (directory.name,))
    with contextlib.closing(new_landing(warehouse, "next", Position())) as landing:
        landing.load_pending()
    rows = warehouse.execute(
        f"select external_id, _dlt_load_id = ? from {QUEUE}", (directory.name,)
    )
    assert rows == [("w1", False)]


@pytest.mark.usefixtures("core_build")
def test_cursors_of_a_release_without_links_are_gone_on_from_once(warehouse: Warehouse) -> None:
    assert run_scripted(warehouse, widgets(0)).error is None
    warehouse.execute(f"delete from {CURSORS} where stream = '{LINK}'")
    assert position(warehouse) == Position(None, {"widgets": {"last": 0}})
    assert run_scripted(warehouse, widgets(1)).error is None
    assert (head(warehouse).follows, last(warehouse)) == (None, 1)
    assert count(warehouse, CURSORS) == 2


@pytest.mark.usefixtures("core_build")
def test_a_package_of_a_release_without_links_lands_without_its_cursor(
    warehouse: Warehouse,
) -> None:
    assert run_scripted(warehouse, widgets(0)).error is None
    with pytest.MonkeyPatch.context() as patched:
        for module in ("packages", "landing"):
            patched.setattr(f"loaders.ingestion.{module}.LINK", "unknown")
        leave_pending(warehouse, 1)
    assert run_scripted(warehouse, widgets(2)).error is None
    assert set(stored(warehouse)) == {"w0", "w1", "w2"}
    assert last(warehouse) == 2
    assert head(warehouse).follows is not None


@pytest.mark.usefixtures("core_build")
def test_an_end_that_was_spooled_for_another_warehouse_has_its_start_with_it(
    warehouse: Warehouse, project: Project
) -> None:
    """The next warehouse takes both."""

    def remove() -> None:
        project.store.empty()

    run = run_meanwhile(warehouse, widgets(0), remove, widgets(1))
    assert run.error is not None
    warehouse = project.open_warehouse()
    assert run_scripted(warehouse, widgets(0, 1)).error is None
    types = [event["event_type"] for event in events(warehouse, run.correlation_id)]
    assert (types.count("job.started"), types[-1]) == (1, "job.failed")
