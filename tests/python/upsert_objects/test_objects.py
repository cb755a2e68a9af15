"""What is stored, and the job around it."""

from __future__ import annotations

import base64
import datetime as dt
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from loaders.event_log import log_event
from loaders.ingestion.packages import Package, PackageLoader
from loaders.jobs import crashpoints
from loaders.jobs.job import Job
from loaders.jobs.names import new_correlation_id
from loaders.objects.items import Deleted
from loaders.settings.places import state_dir
from loaders.transform import dbt_build, merge_counts
from loaders.upsert import UpsertResult
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from loaders.warehouse.dead_letters import DeadLetter
from tests.python.conftest import (
    Project,
    assert_accounted,
    duckdb_only,
    event_types,
    events,
    on_both_targets,
    run_scripted,
    stored,
)

from .conftest import CANARY, files_with, loads, queued, upsert, widgets

pytestmark = pytest.mark.usefixtures("merge_only", "stays_open")


@on_both_targets
def test_objects_are_stored_under_their_keys(warehouse: Warehouse) -> None:
    objects = widgets(3, name="naïve 🦆", nested={"list": [1, 2.5, None, True]})
    result = upsert(warehouse, objects)
    assert (result.landed, result.dead_lettered) == (3, 0)
    assert {name: n for name, n in result.counts.items() if n} == {"inserted": 3}
    rows = stored(warehouse)
    assert [json.loads(rows[each["id"]]["payload"]) for each in objects] == objects
    assert rows["w0"]["idem_key"] == "acme:acct1:widget:w0"
    assert {row["changed_by"] for row in rows.values()} == {result.correlation_id}
    assert event_types(warehouse) == ["job.started", "ingestion.completed", "job.completed"]
    assert_accounted(events(warehouse)[1]["payload"])


@on_both_targets
@pytest.mark.slow
def test_a_second_upsert_tells_changed_from_unchanged(warehouse: Warehouse) -> None:
    upsert(warehouse, widgets(3))
    objects = [*widgets(2), {"id": "w2", "size": "other"}, {"id": "w9"}]
    result = upsert(warehouse, objects)
    assert {name: n for name, n in result.counts.items() if n} == {
        "inserted": 1,
        "updated": 1,
        "unchanged": 2,
    }
    assert json.loads(stored(warehouse)["w2"]["payload"]) == {"id": "w2", "size": "other"}


def test_volatile_keys_and_created_at_are_honoured(warehouse: Warehouse) -> None:
    moment = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
    for url in ("https://example.test/1", "https://example.test/2"):
        upsert(
            warehouse,
            [{"id": "w0", "url": url}],
            merge=False,
            volatile_keys=("url",),
            created_at_fn=lambda _: moment,
        )
    rows = warehouse.execute(
        "select count(*), count(distinct payload_hash), min(object_created_at),"
        " max(object_created_at) from events_staging.landed_objects"
    )
    assert rows == [(2, 1, moment, moment)]


def test_a_generator_is_read_one_package_ahead_and_no_further(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    taken_while_loading: list[int] = []
    load = PackageLoader._load_whole
    # The eleventh object of a package is what shows that it is full.
    furthest = [21, 31, 35, 35]

    def objects() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for each in widgets(35):
            taken += 1
            yield each

    def slowly(self: PackageLoader, package: Package) -> None:
        deadline = time.monotonic() + 10
        while taken < furthest[len(taken_while_loading)] and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # enough to take many more
        taken_while_loading.append(taken)
        load(self, package)

    monkeypatch.setattr(PackageLoader, "_load_whole", slowly)
    result = upsert(warehouse, objects(), batch_size=10, merge=False)
    assert result.landed == queued(warehouse) == 35
    assert taken_while_loading == furthest


@pytest.mark.slow
def test_landing_only_upserts_at_once_land_each_object_once(project: Project) -> None:
    """They have no lease, and share dlt's directory of the connection."""
    warehouse = project.open_warehouse(lock_wait=60)
    upsert(warehouse, [], merge=False)

    def land(number: int) -> UpsertResult:
        objects = [{"id": f"{number}-{index}"} for index in range(20)]
        return upsert(warehouse, objects, batch_size=2, merge=False)

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(land, range(4)))
    assert [result.landed for result in results] == [20] * 4
    ids = "count(*), count(distinct external_id)"
    assert warehouse.execute(f"select {ids} from events_staging.landed_objects") == [(80, 80)]
    assert loads(warehouse) == 40


def test_what_one_upsert_leaves_on_disk_another_lands(warehouse: Warehouse) -> None:
    """Also one that has begun before: its own package does not push the other's through."""

    def die(name: str) -> None:
        if name == "land.normalized":
            raise SystemExit(1)

    def objects() -> Iterator[dict[str, Any]]:
        yield {"id": "first"}
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(crashpoints, "_hook", die)
            with pytest.raises(SystemExit):
                upsert(warehouse, [{"id": "left"}], merge=False)
        yield {"id": "second"}

    result = upsert(warehouse, objects(), batch_size=1, merge=False)
    assert (result.landed, queued(warehouse)) == (2, 3)
    assert not list(state_dir().glob("pipelines/**/*.parquet"))


@pytest.mark.parametrize(
    ("number", "batch_size", "packages"),
    [(0, 10, 0), (10, 10, 1), (11, 10, 2), (3, 1, 3)],
)
def test_a_package_holds_batch_size_objects(
    warehouse: Warehouse, number: int, batch_size: int, packages: int
) -> None:
    upsert(warehouse, widgets(number), batch_size=batch_size, merge=False)
    assert (loads(warehouse), queued(warehouse)) == (packages, number)


@on_both_targets
@pytest.mark.slow
def test_a_job_over_many_packages_merges_once_and_writes_three_events(
    warehouse: Warehouse,
) -> None:
    result = upsert(warehouse, widgets(25), batch_size=10)
    assert loads(warehouse) == 3
    assert {row["merged_by"] for row in stored(warehouse).values()} == {result.correlation_id}
    assert len(stored(warehouse)) == 25
    assert len(events(warehouse)) == 3


@pytest.mark.slow
def test_nothing_to_upsert_is_a_completed_job(warehouse: Warehouse) -> None:
    result = upsert(warehouse, iter(()))
    assert (result.landed, result.dead_lettered) == (0, 0)
    assert event_types(warehouse) == ["job.started", "ingestion.completed", "job.completed"]


def unused(*_: object) -> DeadLetter:
    raise AssertionError


@pytest.mark.slow
def test_no_payload_is_left_on_disk(warehouse: Warehouse, project: Project) -> None:
    upsert(warehouse, widgets(5, note=CANARY), batch_size=2)
    assert queued(warehouse) == 0
    assert files_with(project.state_dir, CANARY) == []
    assert list(project.state_dir.rglob("*.parquet")) == []
    loader = PackageLoader(warehouse, "acme", "acct1", unused)
    assert not loader._open_pipeline().has_pending_data


@pytest.mark.slow
def test_landing_without_a_merge_waits_for_the_next_one(warehouse: Warehouse) -> None:
    result = upsert(warehouse, widgets(2), merge=False)
    assert result.landed == 2
    assert set(result.counts.values()) == {0}
    assert stored(warehouse) == {}
    assert events(warehouse) == []
    later = upsert(warehouse, [{"id": "w7"}])
    assert later.counts["inserted"] == 3
    assert sorted(stored(warehouse)) == ["w0", "w1", "w7"]
    assert queued(warehouse) == 0


@pytest.mark.slow
def test_a_callers_own_job_shares_its_correlation_id(warehouse: Warehouse) -> None:
    job = Job(warehouse, job_name="sync_widgets", source_system="acme", connection_name="acct1")
    job.start()
    result = upsert(warehouse, widgets(2), correlation_id=job.correlation_id)
    job.log("ingestion.completed", {"records_landed": result.landed})
    job.complete({**result.counts, "tests": {}})
    assert result.correlation_id == job.correlation_id
    assert {event["correlation_id"] for event in events(warehouse)} == {job.correlation_id}
    assert event_types(warehouse) == ["job.started", "ingestion.completed", "job.completed"]
    assert {row["changed_by"] for row in stored(warehouse).values()} == {job.correlation_id}
    assert merge_counts.merge_counts(warehouse, job.correlation_id)["inserted"] == 2


def test_a_job_of_somebody_s_own_with_its_events(warehouse: Warehouse, merge_only: None) -> None:
    """log_event and upsert_objects, as the README shows them."""
    run = new_correlation_id("nightly_widgets")
    about: dict[str, Any] = {
        "source_system": "acme",
        "correlation_id": run,
        "connection_name": "acct1",
    }
    telemetry = {"job_name": "nightly_widgets", "package_name": "acme"}
    log_event(warehouse, "job.started", object_type="job_run", payload=telemetry, **about)
    result = upsert(warehouse, widgets(2), correlation_id=run)
    end = {**telemetry, **result.counts}
    log_event(warehouse, "job.completed", object_type="job_run", payload=end, **about)
    assert result.correlation_id == run
    assert event_types(warehouse, run) == ["job.started", "job.completed"]
    assert events(warehouse, run)[-1]["payload"]["inserted"] == 2
    assert {row["merged_by"] for row in stored(warehouse).values()} == {run}
    assert merge_counts.merge_counts(warehouse, run, ("acme", "acct1"))["inserted"] == 2


@duckdb_only("DuckDB's own way to merge")
@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
def test_a_merge_leaves_no_temporary_table(warehouse: Warehouse, fails: bool) -> None:
    upsert(warehouse, widgets(2), merge=False)
    if fails:
        warehouse.execute("update events_staging.landed_objects set payload = '{broken'")
    with warehouse.open():  # and so none of dbt's is closed by the end of the last one
        selection = ["--select", "raw_objects", "--exclude-resource-type", "test", "unit_test"]
        result = dbt_build.build(warehouse.target, "a-run", selection)
        assert (result.error is not None) is fails
        left = "select table_name from duckdb_tables() where temporary or table_name like '%tmp%'"
        assert warehouse.execute(left) == []


@duckdb_only("DuckDB's memory limit")
@pytest.mark.slow
def test_mails_of_25_mb_fit_into_the_default_memory(warehouse: Warehouse) -> None:
    def mail(index: int, seed: int) -> dict[str, Any]:
        content = random.Random(seed).randbytes(25_500_000)
        raw = base64.b64encode(content).decode()
        return {"id": f"w{index}", "raw": raw, "labels": [f"L{seed}"]}

    for action in ("inserted", "unchanged"):
        result = upsert(warehouse, (mail(index, index) for index in range(4)))
        assert {name: n for name, n in result.counts.items() if n} == {action: 4}
    assert upsert(warehouse, [mail(0, 4)]).counts["updated"] == 1
    members = Stored(warehouse, "acme", "acct1").members("widget", "$.labels", "$.none")
    assert sorted(members) == [(f"w{n}", [f"L{n or 4}"], None) for n in range(4)]
    run = run_scripted(warehouse, [Deleted("widget", "w1", dt.datetime.now(dt.UTC))])
    assert run.counts == {"deleted": 1}
    assert queued(warehouse) == 0
    for index, seed in ((0, 4), (1, 1)):
        payload = "select payload from events.raw_objects where external_id = ?"
        assert json.loads(warehouse.execute(payload, (f"w{index}",))[0][0]) == mail(index, seed)
