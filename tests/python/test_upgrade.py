"""A warehouse that an earlier version left behind goes on with this one.

tests/data/warehouse-*: what earlier versions' own code made, and the mailbox that they read; see
tests/data/README.md.
"""

from __future__ import annotations

import contextlib
import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.ingest import IngestOptions
from loaders.settings.places import PROJECT_DIR, state_dir
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from loaders.warehouse.dead_letters import open_letters
from tests.data.make_warehouse import CONFIG

from .cli.conftest import run_main
from .conftest import Project, event_types, run_gmail, run_stripe
from .test_bootstrap import documented, present
from .test_dead_letters import new_landing

pytestmark = pytest.mark.slow

DATA = PROJECT_DIR / "tests" / "data"

CASES = [
    # Its cursor is a history id alone, which does not say of which mailbox; and the labels of two
    # messages have changed since, which it did not look at.
    pytest.param("before-history", "resync", 2, id="before-history"),
    pytest.param("before-stripe", "incremental", 0, id="before-stripe"),
    pytest.param("before-proof", "incremental", 0, id="before-proof"),
]
ROWS = (
    "select idem_key, payload_hash, first_seen, object_created_at, deleted_at, changed_by"
    " from events.raw_objects order by 1"
)

Earlier = tuple[Warehouse, Sandbox]


@pytest.fixture
def earlier(project: Project, request: pytest.FixtureRequest) -> Iterator[Earlier]:
    """The warehouse of an earlier version, and the mailbox that it read."""
    directory = DATA / f"warehouse-{request.param}"
    state = project.directory / "sandbox.sqlite"
    unpack(directory / "warehouse.duckdb.gz", project.duckdb_path)
    unpack(directory / "sandbox.sqlite.gz", state)
    with Sandbox(state=state, charges=8) as sandbox:
        yield project.open_warehouse(), sandbox


def unpack(packed: Path, path: Path) -> None:
    path.write_bytes(gzip.decompress(packed.read_bytes()))


@pytest.mark.parametrize(("earlier", "mode", "updates"), CASES, indirect=["earlier"])
def test_a_run_goes_on_where_the_earlier_version_stopped(
    earlier: Earlier, mode: str, updates: int, core_build: None
) -> None:
    warehouse, sandbox = earlier
    before = {key: row for key, *row in warehouse.execute(ROWS)}
    log = set(warehouse.execute("select * from events.event_log"))
    [killed] = open_runs(warehouse)
    waiting = queued(warehouse)
    assert waiting

    run = run_gmail(warehouse, sandbox, **CONFIG)  # with the acceptance tests

    assert run.error is None
    assert run.telemetry["mode"] == mode
    assert columns_of(present(warehouse)) >= columns_of(documented())
    # The log is what it was, and the killed run has an end.
    assert log < set(warehouse.execute("select * from events.event_log"))
    assert event_types(warehouse, killed)[-1] == "job.failed"
    assert open_runs(warehouse) == []
    # What had been landed is merged, and not read again.
    rows = warehouse.execute(ROWS)
    after = {key: row for key, *row in rows}
    assert len(after) == len(rows)
    assert waiting <= after.keys()
    assert queued(warehouse) == set()
    assert {after[key][-1] for key in waiting} == {killed}
    # The mailbox is all there, but for the message that is a dead letter.
    letters = {letter.external_id for letter in open_letters(warehouse)}
    assert ids_alive(after) | letters == set(sandbox.live_ids())
    unchanged = {key for key, row in before.items() if after[key] == row}
    updated = {key for key in before.keys() - unchanged if after[key][3] is None}
    assert len(updated) == updates
    assert all(after[key][1:3] == row[1:3] for key, row in before.items())


@pytest.mark.parametrize("earlier", ["before-proof"], indirect=True)
def test_a_package_that_the_earlier_version_left_on_disk_lands_without_its_cursor(
    earlier: Earlier, merge_only: None
) -> None:
    """Nothing in it says which position it follows: that of the warehouse counts."""
    warehouse, sandbox = earlier
    before = Stored(warehouse, "gmail", "acct1").position
    packages = state_dir() / "pipelines" / warehouse.target.key
    packages.mkdir(parents=True)
    with tarfile.open(DATA / "warehouse-before-proof" / "state.tar.gz") as archive:
        archive.extractall(packages, filter="data")
    landing = new_landing(warehouse)
    with contextlib.closing(landing):
        landing.load_pending()
    on_disk = queued(warehouse)
    assert list(packages.rglob("*.parquet")) == []
    assert Stored(warehouse, "gmail", "acct1").position.cursors == before.cursors

    run = run_gmail(warehouse, sandbox, **CONFIG)
    assert run.error is None
    after = {key: row for key, *row in warehouse.execute(ROWS)}
    assert on_disk <= after.keys()
    letters = {letter.external_id for letter in open_letters(warehouse)}
    assert ids_alive(after) | letters == set(sandbox.live_ids())
    head = Stored(warehouse, "gmail", "acct1").position.head
    assert head is not None
    assert (head.follows, head.run) == (None, run.correlation_id)


@pytest.mark.parametrize("earlier", ["before-stripe"], indirect=True)
def test_everything_read_again_is_what_it_was(earlier: Earlier, merge_only: None) -> None:
    """With another payload_hash every object would be an update."""
    warehouse, sandbox = earlier
    before = {key: row for key, *row in warehouse.execute(ROWS)}
    run = run_gmail(warehouse, sandbox, IngestOptions(full_resync=True), **CONFIG)
    assert run.error is None
    assert run.counts["unchanged"] > 10
    assert "updated" not in run.counts
    after = {key: row for key, *row in warehouse.execute(ROWS)}
    for key, row in before.items():
        assert after[key][1:3] == row[1:3], key
        assert after[key][0] == row[0] or after[key][3], key
    assert open_letters(warehouse) == []  # the source answers well now


@pytest.mark.parametrize("earlier", ["before-stripe"], indirect=True)
def test_a_source_that_came_later_is_read_into_it(earlier: Earlier, merge_only: None) -> None:
    warehouse, sandbox = earlier
    mail = {row[0] for row in warehouse.execute(ROWS)}
    run = run_stripe(warehouse, sandbox, objects=("product", "customer"))
    assert run.error is None
    assert mail <= {row[0] for row in warehouse.execute(ROWS)}
    stored = warehouse.execute(
        "select object_type, count(*) from events.raw_objects where source_system = 'stripe'"
        " group by 1"
    )
    assert dict(stored) == {
        kind: len(sandbox.stripe_objects(kind)) for kind in ("product", "customer")
    }


@pytest.mark.parametrize("earlier", ["before-stripe"], indirect=True)
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("status", "gmail_ingest_acct1"),
        ("dead-letters", "beyond 64 bits"),
        ("check gmail --connection sandbox", "cursor"),
    ],
)
def test_what_only_looks_works_before_any_run(
    earlier: Earlier, capsys: pytest.CaptureFixture[str], command: str, told: str
) -> None:
    _, out, err = run_main(capsys, *command.split())
    assert err == ""
    assert told in out


def open_runs(warehouse: Warehouse) -> list[str]:
    """Runs without an end."""
    rows = warehouse.execute(
        "select correlation_id from events.event_log group by 1"
        " having not bool_or(event_type in ('job.completed', 'job.failed'))"
    )
    return [row[0] for row in rows]


def queued(warehouse: Warehouse) -> set[str]:
    rows = warehouse.execute("select idem_key from events_staging.landed_objects")
    return {row[0] for row in rows}


def ids_alive(rows: dict[str, list[Any]]) -> set[str]:
    """Ids of messages without a tombstone."""
    return {
        key.rpartition(":")[2] for key, row in rows.items() if ":message:" in key and not row[3]
    }


def columns_of(tables: dict[str, list[tuple[str, str, bool]]]) -> set[tuple[str, str, str]]:
    """(table, column, type)."""
    return {(table, name, kind) for table, columns in tables.items() for name, kind, _ in columns}
