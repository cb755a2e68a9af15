"""The merge: what one MERGE does with the queue, and that order, split and repetition of the
same observations do not matter."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loaders.ingestion.arrow_tables import LandedObject
from loaders.objects.items import Cursor, Deleted, Item, Observed
from loaders.objects.payloads import TOMBSTONE_HASH
from loaders.transform import merge_counts
from loaders.transform.invocation import release_file
from loaders.warehouse.base import Warehouse

from .conftest import Project, at, run_scripted, stored

pytestmark = pytest.mark.usefixtures("stays_open")

RUN = "test-run"


@dataclasses.dataclass(frozen=True)
class State:
    """One landed row: content is the payload's text, None for a tombstone."""

    key: str
    seconds: float
    content: str | None = None
    created: float | None = None

    def row(self, load_id: str) -> tuple[Any, ...]:
        payload = None if self.content is None else json.dumps({"v": self.content})
        landed = LandedObject(
            f"acme:acct1:widget:{self.key}",
            "acme",
            "acct1",
            "widget",
            self.key,
            payload=payload,
            payload_hash=TOMBSTONE_HASH if self.content is None else f"hash-{self.content}",
            object_created_at=None if self.created is None else at(self.created),
            observed_at=at(self.seconds),
            is_deleted=self.content is None,
            correlation_id=f"run-{load_id}",
        )
        return (*landed, load_id)


@dataclasses.dataclass(frozen=True)
class Statements:
    """What dbt sends for raw_objects: the view over the queue, the MERGE, the drains."""

    view: str
    merge: str
    drains: tuple[str, ...]


@pytest.fixture(scope="module")
def statements(
    workspace: Path, bootstrapped_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Statements:
    """The SQL of one real dbt run, taken from its debug log.

    A dbt run costs a second, the statements alone a few milliseconds: so the examples
    below execute these. That dbt does send them is what the log proves.
    """
    import shutil

    from .conftest import _project

    with pytest.MonkeyPatch.context() as monkeypatch, _project(workspace, monkeypatch) as project:
        shutil.copy(bootstrapped_file, project.duckdb_path)
        monkeypatch.setenv("LANDFALL_CORRELATION_ID", RUN)
        project.run_dbt("run", "--select", "stg_landed_objects", "raw_objects")
        sent = sent_statements(project)
        release_file()
    by_start = {
        start: [sql for sql in sent if sql.startswith(start)]
        for start in (
            "create or replace temporary view",
            "create or replace temporary table",
            "delete from",
        )
    }
    view = next(sql for sql in sent if "stg_landed_objects__dbt_tmp" in sql and "as (" in sql)
    [source] = by_start["create or replace temporary view"]
    [merge] = by_start["create or replace temporary table"]
    assert len(by_start["delete from"]) == 3
    view = view.replace("stg_landed_objects__dbt_tmp", "stg_landed_objects")
    return Statements(f"{view};\n{source}", merge, tuple(by_start["delete from"]))


def sent_statements(project: Project) -> list[str]:
    """Statements in dbt's debug log, in the order sent, without the comment dbt adds."""
    log = (project.state_dir / "logs" / "dbt.log").read_text()
    entry = re.compile(
        r"\[debug\] \[[^\]]*\]: On [\w.]+: (.*?)(?=\n\x1b\[0m\d\d:|\n\d\d:|\Z)", re.DOTALL
    )
    texts = (re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL) for text in entry.findall(log))
    return [re.sub(r"^(\s*--[^\n]*\n)*\s*", "", text).strip() for text in texts]


class Queue:
    """A warehouse in memory with the documented tables, and the statements of a merge."""

    def __init__(self, file: Path, statements: Statements) -> None:
        self._statements = statements
        self._loads = itertools.count()
        self.connection = duckdb.connect(":memory:")
        self.connection.execute("set TimeZone = 'UTC'")
        self.connection.execute("attach ':memory:' as landfall")
        self.connection.execute(f"attach '{file}' as template (read_only)")
        for schema, ddl in self.connection.execute(
            "select schema_name, sql from duckdb_tables() where database_name = 'template'"
        ).fetchall():
            self.connection.execute(f"create schema if not exists landfall.{schema}")
            self.connection.execute("use landfall")
            self.connection.execute(ddl.replace("template.", "", 1))
        self.connection.execute(statements.view)

    def clear(self) -> None:
        for table in ("events.raw_objects", "events_staging.landed_objects"):
            self.connection.execute(f"delete from landfall.{table}")
        for table in ("cursors", "_dlt_loads"):
            self.connection.execute(f"delete from landfall.events_staging.{table}")

    def land(self, states: Iterable[State], *, complete: bool = True) -> str:
        load_id = f"load{next(self._loads)}"
        columns = (*LandedObject._fields, "_dlt_load_id")
        rows = [state.row(load_id) for state in states]
        if rows:
            self.connection.executemany(
                f"insert into landfall.events_staging.landed_objects ({', '.join(columns)})"
                f" values ({', '.join('?' * len(columns))})",
                rows,
            )
        if complete:
            self.complete(load_id)
        return load_id

    def complete(self, load_id: str) -> None:
        self.connection.execute(
            "insert into landfall.events_staging._dlt_loads"
            " (load_id, status, inserted_at) values (?, 0, now())",
            [load_id],
        )

    def land_cursor(self, seconds: float, value: str, load_id: str) -> None:
        self.connection.execute(
            "insert into landfall.events_staging.cursors"
            " (source_system, connection_name, stream, cursor, observed_at, _dlt_load_id)"
            " values ('acme', 'acct1', 'widgets', ?, ?, ?)",
            [value, at(seconds), load_id],
        )

    def merge(self) -> None:
        self.connection.execute(self._statements.merge)
        for drain in self._statements.drains:
            self.connection.execute(drain)

    def store(self, *states: State) -> None:
        """Land and merge."""
        self.land(states)
        self.merge()

    def queued(self) -> list[tuple[str, dt.datetime]]:
        return self.connection.execute(
            "select external_id, observed_at from landfall.events_staging.landed_objects"
            " order by all"
        ).fetchall()

    def cursors(self) -> list[str]:
        rows = self.connection.execute(
            "select cursor from landfall.events_staging.cursors order by all"
        ).fetchall()
        return [cursor for (cursor,) in rows]

    def row(self, key: str = "a") -> dict[str, Any]:
        cursor = self.connection.execute(
            "select * from landfall.events.raw_objects where external_id = ?", [key]
        )
        names = [column[0] for column in cursor.description or ()]
        rows = cursor.fetchall()
        assert len(rows) == 1, rows
        return dict(zip(names, rows[0], strict=True))

    def content(self, key: str = "a") -> str | None:
        payload = self.row(key)["payload"]
        return None if payload is None else str(json.loads(payload)["v"])

    def everything(self) -> dict[str, tuple[Any, ...]]:
        """What must not depend on order, split or repetition, by key."""
        rows = self.connection.execute(
            "select external_id, payload_hash, deleted_at is not null, first_seen, last_seen,"
            " object_created_at from landfall.events.raw_objects"
        ).fetchall()
        assert len({row[0] for row in rows}) == len(rows), "a key is stored twice"
        return {row[0]: row[1:] for row in rows}


@pytest.fixture(scope="module")
def shared_queue(bootstrapped_file: Path, statements: Statements) -> Iterator[Queue]:
    queue = Queue(bootstrapped_file, statements)
    yield queue
    queue.connection.close()


@pytest.fixture
def queue(shared_queue: Queue) -> Queue:
    shared_queue.clear()
    return shared_queue


def test_a_new_object_is_inserted(queue: Queue) -> None:
    queue.store(State("a", 1, "x", created=-50))
    row = queue.row()
    assert queue.content() == "x"
    assert row["last_action"] == "inserted"
    assert row["first_seen"] == row["last_seen"] == row["changed_at"] == at(1)
    assert (row["object_created_at"], row["deleted_at"]) == (at(-50), None)
    assert (row["merged_by"], row["changed_by"]) == (RUN, row["changed_by"])
    assert queue.queued() == []


def test_newer_content_updates(queue: Queue) -> None:
    queue.store(State("a", 1, "x"))
    queue.store(State("a", 2, "y"))
    row = queue.row()
    assert (queue.content(), row["last_action"]) == ("y", "updated")
    assert (row["first_seen"], row["last_seen"], row["changed_at"]) == (at(1), at(2), at(2))


def test_the_same_content_only_moves_last_seen(queue: Queue) -> None:
    queue.store(State("a", 1, "x"))
    changed_by = queue.row()["changed_by"]
    queue.store(State("a", 2, "x"))
    row = queue.row()
    assert row["last_action"] == "unchanged"
    assert (row["first_seen"], row["last_seen"], row["changed_at"]) == (at(1), at(2), at(1))
    assert row["changed_by"] == changed_by


def test_a_tombstone_deletes_and_keeps_the_payload(queue: Queue) -> None:
    queue.store(State("a", 1, "x"))
    queue.store(State("a", 2))
    row = queue.row()
    assert (queue.content(), row["last_action"], row["payload_hash"]) == (
        "x",
        "deleted",
        TOMBSTONE_HASH,
    )
    assert row["deleted_at"] == row["changed_at"] == row["last_seen"] == at(2)


def test_a_second_tombstone_changes_nothing_but_last_seen(queue: Queue) -> None:
    queue.store(State("a", 1, "x"))
    queue.store(State("a", 2))
    queue.store(State("a", 3))
    row = queue.row()
    assert (row["last_action"], row["deleted_at"], row["last_seen"]) == ("unchanged", at(2), at(3))


@pytest.mark.parametrize("content", ["x", "y"], ids=["as it was", "changed"])
def test_a_deleted_object_comes_back(queue: Queue, content: str) -> None:
    queue.store(State("a", 1, "x"))
    queue.store(State("a", 2))
    queue.store(State("a", 3, content))
    row = queue.row()
    assert (queue.content(), row["last_action"], row["deleted_at"]) == (content, "undeleted", None)
    assert row["changed_at"] == at(3)


@pytest.mark.parametrize("content", ["y", None], ids=["content", "tombstone"])
def test_an_older_state_is_stale_and_moves_first_seen_only(
    queue: Queue, content: str | None
) -> None:
    queue.store(State("a", 5, "x"))
    before = queue.row()
    queue.store(State("a", 2, content))
    after = queue.row()
    assert after["last_action"] == "stale"
    assert after["first_seen"] == at(2)
    ignored = ("last_action", "first_seen")
    assert {k: v for k, v in after.items() if k not in ignored} == {
        k: v for k, v in before.items() if k not in ignored
    }
    assert queue.queued() == []


def test_a_tombstone_of_an_unknown_object_is_a_row_without_payload(queue: Queue) -> None:
    queue.store(State("a", 1))
    row = queue.row()
    assert (row["payload"], row["last_action"], row["deleted_at"]) == (None, "inserted", at(1))
    queue.store(State("a", 2, "x"))
    assert (queue.content(), queue.row()["last_action"]) == ("x", "undeleted")


@pytest.mark.parametrize("held", [False, True], ids=["unknown before", "known before"])
def test_content_and_tombstone_in_one_batch_keep_the_content(queue: Queue, held: bool) -> None:
    if held:
        queue.store(State("a", 1, "old"))
    queue.store(State("a", 2, "new"), State("a", 3))
    row = queue.row()
    assert (queue.content(), row["deleted_at"]) == ("new", at(3))
    assert row["payload_hash"] == TOMBSTONE_HASH
    assert row["last_action"] == ("deleted" if held else "inserted")


def test_stale_content_before_a_tombstone_does_not_replace_newer_content(queue: Queue) -> None:
    queue.store(State("a", 5, "new"))
    queue.store(State("a", 2, "old"), State("a", 6))
    assert (queue.content(), queue.row()["last_action"]) == ("new", "deleted")


def test_of_several_states_of_a_key_the_newest_counts(queue: Queue) -> None:
    queue.store(State("a", 3, "z"), State("a", 1, "x"), State("a", 2, "y"), State("b", 1, "q"))
    assert (queue.content("a"), queue.content("b")) == ("z", "q")
    row = queue.row()
    assert (row["first_seen"], row["last_seen"], row["last_action"]) == (at(1), at(3), "inserted")
    assert queue.queued() == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["as is", "reversed"])
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
def test_a_tie_is_broken_by_tombstone_then_hash(
    queue: Queue, order: tuple[int, int], together: bool
) -> None:
    states = {
        "a": [State("a", 1, "x"), State("a", 1)],
        "b": [State("b", 1, "x"), State("b", 1, "y")],
    }
    batches = [[states[key][index] for key in "ab"] for index in order]
    for batch in [batches[0] + batches[1]] if together else batches:
        queue.store(*batch)
    assert queue.row("a")["deleted_at"] == at(1)
    assert queue.row("b")["payload_hash"] == "hash-y"


def test_a_state_that_was_merged_and_not_drained_changes_nothing(queue: Queue) -> None:
    """As after a kill, or a drain that failed: the counts of the MERGE before stay true."""
    queue.store(State("b", 1, "x"), State("c", 1, "x"))
    queue.land([State("a", 1, "x", created=-1), State("b", 2, "y"), State("c", 2)])
    queue.connection.execute(queue._statements.merge)
    before = [queue.row(key) for key in "abc"]
    assert [row["last_action"] for row in before] == ["inserted", "updated", "deleted"]
    queue.connection.execute(queue._statements.merge)
    assert [queue.row(key) for key in "abc"] == before


def test_rows_of_packages_that_lie_among_each_other_are_inserted_once(queue: Queue) -> None:
    first = queue.land([State("a", 1, "x")])
    queue.land([State("b", 1, "y")])
    last = queue.land([State("c", 1, "z"), State("d", 1)])
    queue.connection.execute(
        "update landfall.events_staging.landed_objects set _dlt_load_id = ? where _dlt_load_id = ?",
        [first, last],
    )
    queue.merge()
    assert [queue.content(key) for key in "abcd"] == ["x", "y", "z", None]
    assert queue.queued() == []


def test_an_incomplete_load_is_ignored_and_stays_queued(queue: Queue) -> None:
    queue.store(State("a", 1, "x"))
    load_id = queue.land([State("a", 2, "y"), State("b", 2, "q")], complete=False)
    queue.merge()
    assert (queue.content(), queue.queued()) == ("x", [("a", at(2)), ("b", at(2))])
    queue.complete(load_id)
    queue.merge()
    assert (queue.content("a"), queue.content("b"), queue.queued()) == ("y", "q", [])


def test_the_drain_takes_only_what_is_held(queue: Queue) -> None:
    """Rows that arrive between the MERGE and the drain stay for the next MERGE."""
    queue.land([State("a", 1, "x"), State("b", 5, "x")])
    queue.connection.execute(queue._statements.merge)
    late = [
        State("a", 2, "newer"),
        State("b", 3, "older: would move first_seen"),
        State("c", 1, "unknown"),
    ]
    queue.land(late)
    for drain in queue._statements.drains:
        queue.connection.execute(drain)
    assert queue.queued() == [("a", at(2)), ("b", at(3)), ("c", at(1))]
    queue.merge()
    assert queue.queued() == []
    assert queue.content("a") == "newer"
    assert queue.row("b")["first_seen"] == at(3)


def test_the_drain_waits_for_a_creation_time_that_is_not_held(queue: Queue) -> None:
    queue.land([State("a", 5, "x")])
    queue.connection.execute(queue._statements.merge)
    queue.land([State("a", 5, "x", created=-1)])
    for drain in queue._statements.drains:
        queue.connection.execute(drain)
    assert queue.queued() == [("a", at(5))]
    queue.merge()
    assert (queue.row()["object_created_at"], queue.queued()) == (at(-1), [])


def test_object_created_at_is_written_once(queue: Queue) -> None:
    queue.store(State("a", 1, "x"))
    assert queue.row()["object_created_at"] is None
    queue.store(State("a", 2, "y", created=-5))
    assert queue.row()["object_created_at"] == at(-5)
    queue.store(State("a", 3, "z", created=-9))
    queue.store(State("a", 4, "z"))
    queue.store(State("a", 5))
    assert queue.row()["object_created_at"] == at(-5)


def test_a_stale_state_may_bring_the_creation_time(queue: Queue) -> None:
    queue.store(State("a", 5, "x"))
    queue.store(State("a", 2, "old", created=-5))
    assert queue.row()["object_created_at"] == at(-5)


def test_of_each_stream_the_newest_complete_cursor_stays(queue: Queue) -> None:
    complete = queue.land([])
    queue.land_cursor(1, "one", complete)
    queue.land_cursor(2, "two", complete)
    incomplete = queue.land([], complete=False)
    queue.land_cursor(3, "three", incomplete)
    queue.merge()
    assert queue.cursors() == ["three", "two"]
    queue.complete(incomplete)
    queue.merge()
    assert queue.cursors() == ["three"]


@pytest.mark.slow
def test_more_than_fits_in_memory_is_inserted_and_updated(
    bootstrapped_file: Path, statements: Statements, tmp_path: Path
) -> None:
    """200 MB of new payloads, then of changed ones, in 120 MB: the MERGE must not hold them."""
    import shutil

    # dbt's statements name the database after its file
    file = tmp_path / "landfall.duckdb"
    shutil.copy(bootstrapped_file, file)
    with duckdb.connect(str(file)) as connection:
        connection.execute("set global memory_limit = '120MB'")
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(statements.view)
        connection.execute(
            "insert into events_staging._dlt_loads (load_id, status, inserted_at)"
            " values ('load', 0, now())"
        )
        for content, action in (("one", "inserted"), ("two", "updated")):
            connection.execute(
                "insert into events_staging.landed_objects"
                " select 'acme:acct1:widget:' || range, 'acme', 'acct1', 'widget', range,"
                " json_object('v', $content, 'x', repeat(md5(range::varchar), 125)), $content,"
                " null, now(), false, 'run', 'load' from range(50000)",
                {"content": content},
            )
            connection.execute("begin")
            connection.execute(statements.merge)
            for drain in statements.drains:
                connection.execute(drain)
            connection.execute("commit")
            rows = connection.execute(
                "select last_action, count(*), min(payload ->> 'v'), max(payload ->> 'v')"
                " from events.raw_objects group by last_action"
            ).fetchall()
            assert rows == [(action, 50000, content, content)]
        assert connection.execute("from events_staging.landed_objects").fetchall() == []


KEYS = ("a", "b")
CREATED = {"a": -7.0, "b": None}


@st.composite
def histories(draw: st.DrawFn) -> list[State]:
    """Observations of few keys: times and contents from so few that they collide."""
    return draw(
        st.lists(
            st.builds(
                lambda key, seconds, content, knows: State(
                    key, seconds, content, CREATED[key] if knows else None
                ),
                st.sampled_from(KEYS),
                st.integers(0, 4),
                st.sampled_from(["x", "y", None]),
                st.booleans(),
            ),
            min_size=1,
            max_size=8,
        )
    )


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[State], list[list[State]]]:
    """A history, and the same observations shuffled, repeated and cut into batches."""
    history = draw(histories())
    repeated = [*history, *draw(st.lists(st.sampled_from(history), max_size=4))]
    shuffled: Sequence[State] = draw(st.permutations(repeated))
    cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    edges = [0, *cuts, len(shuffled)]
    return history, [list(shuffled[a:b]) for a, b in itertools.pairwise(edges)]


@pytest.mark.extended
@pytest.mark.slow
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(deliveries())
def test_order_split_and_repetition_do_not_matter(
    shared_queue: Queue, delivery: tuple[list[State], list[list[State]]]
) -> None:
    history, batches = delivery
    shared_queue.clear()
    shared_queue.store(*history)
    expected = shared_queue.everything()
    for key, row in expected.items():  # the rules, told without SQL
        of_key = [state for state in history if state.key == key]
        newest = max(
            of_key,
            key=lambda state: (state.seconds, state.content is None, state.row("")[6]),
        )
        assert row[:2] == (newest.row("")[6], newest.content is None)
        assert row[2] == at(min(state.seconds for state in of_key))
        assert row[3] == at(newest.seconds)
    shared_queue.clear()
    for batch in batches:
        shared_queue.store(*batch)
    assert shared_queue.everything() == expected
    assert shared_queue.queued() == []


@pytest.mark.slow
def test_a_dbt_run_does_what_the_statements_do(
    warehouse: Warehouse, queue: Queue, merge_only: None
) -> None:
    """The same history through whole runs and through the captured statements."""
    history = [
        [State("a", 1, "x"), State("b", 1, "x"), State("c", 4, "x")],
        [State("a", 2, "y"), State("b", 2), State("c", 3, "old")],
        [State("a", 3, "y"), State("b", 5, "z"), State("c", 5, "w"), State("c", 6)],
    ]
    for batch in history:
        queue.store(*batch)
        run = run_scripted(warehouse, [_item(state) for state in batch])
        assert run.error is None
        assert {key: _facts(row) for key, row in stored(warehouse).items()} == {
            key: _facts(queue.row(key)) for key in "abc"
        }
        counts = merge_counts.merge_counts(warehouse, run.correlation_id)
        assert counts.pop("rescued") == {}
        assert sum(counts.values()) == 3


def _facts(row: dict[str, Any]) -> tuple[Any, ...]:
    times = ("first_seen", "last_seen", "changed_at", "deleted_at")
    return row["last_action"], json.loads(row["payload"])["v"], *(row[name] for name in times)


def _item(state: State) -> Item:
    if state.content is None:
        return Deleted("widget", state.key, at(state.seconds))
    text = json.dumps({"v": state.content, "id": state.key})
    return Observed("widget", text, at(state.seconds), state.key)


@pytest.mark.slow
def test_a_run_lands_its_cursor_with_its_objects(warehouse: Warehouse, merge_only: None) -> None:
    for seconds in (1, 2):
        item = Observed("widget", json.dumps({"id": "a", "n": seconds}), at(seconds), "a")
        run_scripted(warehouse, [item, Cursor("widgets", {"n": seconds}, at(seconds))])
    rows = warehouse.execute("select cursor from events_staging.cursors where stream = 'widgets'")
    assert rows == [('{"n":2}',)]
