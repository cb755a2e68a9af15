"""upsert_objects: any iterable of JSON objects, landed in batches, merged once."""

from __future__ import annotations

import base64
import datetime as dt
import json
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from loaders.errors import LandfallError, LandingError
from loaders.event_log import log_event
from loaders.idem_keys import IdemKeyFunction, idem_key
from loaders.ingestion import packages
from loaders.ingestion.ingest import DeadLettered
from loaders.ingestion.packages import Package, PackageLoader
from loaders.jobs import crashpoints
from loaders.jobs.job import Job
from loaders.jobs.names import new_correlation_id
from loaders.monitoring.health import dead_letters
from loaders.objects.items import Cursor, Deleted, Item, Observed, Unfetched
from loaders.settings.places import state_dir
from loaders.transform import dbt_build, merge_counts
from loaders.upsert import UpsertResult, upsert_objects
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from loaders.warehouse.dead_letters import DeadLetter

from .conftest import (
    Project,
    assert_accounted,
    at,
    count,
    duckdb_only,
    event_types,
    events,
    on_both_targets,
    run_scripted,
    stored,
)

pytestmark = pytest.mark.usefixtures("merge_only", "stays_open")

CANARY = "canary-content-31f7"


def widget_key(payload: Mapping[str, Any]) -> str:
    return idem_key("acme", "acct1", "widget", payload.get("id"))  # type: ignore[arg-type]


def upsert(warehouse: Warehouse, objects: Any, **options: Any) -> UpsertResult:
    arguments: dict[str, Any] = {
        "source_system": "acme",
        "connection_name": "acct1",
        "object_type": "widget",
        "idem_key_fn": widget_key,
        "warehouse": warehouse,
    }
    return upsert_objects(objects, **{**arguments, **options})


def widgets(number: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": f"w{index}", "size": index, **fields} for index in range(number)]


def loads(warehouse: Warehouse) -> int:
    return count(warehouse, "events_staging._dlt_loads")


def queued(warehouse: Warehouse) -> int:
    return count(warehouse, "events_staging.landed_objects")


def files_with(directory: Path, text: str) -> list[Path]:
    return [
        path
        for path in directory.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    ]


@pytest.fixture
def failing_load(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Every load package fails as a lost connection does; `undo()` ends it."""

    def fail(*_: Any) -> None:
        raise ConnectionError("the warehouse hung up")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PackageLoader, "_load_whole", fail)
        yield patched


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source_system", ""),
        ("source_system", None),
        ("connection_name", ""),
        ("connection_name", None),
        ("object_type", ""),
        ("object_type", None),
        ("idem_key_fn", None),
        ("batch_size", 0),
    ],
)
def test_a_missing_argument_is_named_and_nothing_is_written(
    warehouse: Warehouse, name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=name):
        upsert(warehouse, widgets(1), **{name: value})
    assert events(warehouse) == []
    assert queued(warehouse) == 0


@on_both_targets
@pytest.mark.slow
def test_a_failed_load_is_a_failed_job_and_a_rerun_repairs_it(
    warehouse: Warehouse, failing_load: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LandingError, match="the warehouse hung up"):
        upsert(warehouse, widgets(3))
    types = ["job.started", "ingestion.failed", "job.failed"]
    assert event_types(warehouse) == types
    failed = events(warehouse)[-1]
    assert failed["payload"]["error_type"] == "LandingError"
    assert failed["payload"]["retryable"] is True
    assert "hung up" in failed["error_message"]
    failing_load.undo()
    result = upsert(warehouse, widgets(3))
    assert result.counts["inserted"] == 3
    assert len(stored(warehouse)) == 3


@on_both_targets
@pytest.mark.slow
def test_a_load_that_fails_midway_keeps_the_packages_before_it(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = PackageLoader._load_whole

    def fail_at_second(self: PackageLoader, package: Package) -> None:
        if loads(warehouse) == 1:
            raise ConnectionError("the warehouse hung up")
        load(self, package)

    with monkeypatch.context() as patched:
        patched.setattr(PackageLoader, "_load_whole", fail_at_second)
        with pytest.raises(LandingError):
            upsert(warehouse, widgets(30), batch_size=10)
    assert queued(warehouse) == 10
    assert len(stored(warehouse)) == 0
    upsert(warehouse, widgets(30), batch_size=10)
    assert len(stored(warehouse)) == 30
    assert queued(warehouse) == 0


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


def refuse_everything(_: Mapping[str, Any]) -> str:
    raise ValueError("widget without an id")


@pytest.mark.parametrize(
    ("culprit", "key_fn", "reason"),
    [
        pytest.param({"size": 1}, widget_key, "expected an id", id="no id"),
        pytest.param({"id": ""}, widget_key, "the id is empty", id="empty id"),
        pytest.param({"id": 17}, widget_key, "expected an id", id="id is a number"),
        pytest.param({"id": "x", "size": float("nan")}, widget_key, "NaN", id="NaN"),
        pytest.param({"id": "x", "size": float("-inf")}, widget_key, "Infinity", id="infinity"),
        pytest.param({"id": "x", "size": 2**64}, widget_key, "64 bits", id="huge integer"),
        pytest.param({"id": "x", "text": "\ud800"}, widget_key, "surrogate", id="surrogate"),
        pytest.param({"id": "x", "when": at(0)}, widget_key, "as JSON", id="not JSON"),
        pytest.param({"id": "x"}, refuse_everything, "without an id", id="key function"),
    ],
)
def test_what_cannot_be_stored_is_a_dead_letter_with_a_reason(
    warehouse: Warehouse, culprit: Any, key_fn: IdemKeyFunction, reason: str
) -> None:
    result = upsert(
        warehouse, [*widgets(2), culprit] if key_fn is widget_key else [culprit],
        merge=False, idem_key_fn=key_fn,
    )  # fmt: skip
    assert result.dead_lettered == 1
    assert result.landed == queued(warehouse)
    [(found, object_type, attempts)] = warehouse.execute(
        "select reason, object_type, attempts from events_staging.dead_letters"
    )
    assert reason in found
    assert (object_type, attempts) == ("widget", 1)


def created(payload: Mapping[str, Any]) -> dt.datetime:
    return dt.datetime.fromisoformat(payload["when"])


def strictly_dated(payload: Mapping[str, Any]) -> dt.datetime:
    return dt.datetime.strptime(payload["when"], "%Y").astimezone()


def numbered(payload: Mapping[str, Any]) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(payload["when"]), dt.UTC)


def of_a_kind(payload: Mapping[str, Any]) -> str:
    return idem_key("acme", "acct1", payload["when"], payload["id"])


@pytest.mark.parametrize(
    ("options", "when", "reason"),
    [
        pytest.param(
            {"created_at_fn": created}, CANARY, "ValueError: Invalid isoformat string", id="date"
        ),
        pytest.param(
            {"created_at_fn": strictly_dated}, f"2026{CANARY}", "unconverted data", id="rest"
        ),
        pytest.param({"created_at_fn": numbered}, CANARY, "invalid literal for int", id="number"),
        pytest.param({"idem_key_fn": of_a_kind}, f"{CANARY} it's", "object_type", id="key"),
    ],
)
def test_what_a_function_says_of_an_object_quotes_no_content(
    warehouse: Warehouse, options: Any, when: str, reason: str
) -> None:
    result = upsert(warehouse, [{"id": "w0", "when": when}], merge=False, **options)
    assert result.dead_lettered == 1
    [letter] = dead_letters(warehouse, 10)
    assert reason in letter["reason"]
    assert CANARY not in letter["reason"]


def test_what_a_source_says_of_an_object_holds_no_secret(
    warehouse: Warehouse,
) -> None:
    reason = "acme: refused\nGET /widgets/w7?access_token=" + "s3cret" * 200
    run_scripted(warehouse, [Unfetched("widget", "w7", reason)])
    [letter] = dead_letters(warehouse, 10)
    assert letter["reason"] == "acme: refused GET /widgets/w7?access_token=***"


def test_a_job_with_dead_letters_stores_the_rest_and_fails(warehouse: Warehouse) -> None:
    objects = [*widgets(2), {"size": CANARY}, {"id": "w8", "size": float("nan")}, {"id": "w9"}]
    with pytest.raises(DeadLettered, match=r"2 object\(s\)"):
        upsert(warehouse, objects)
    assert sorted(stored(warehouse)) == ["w0", "w1", "w9"]
    assert count(warehouse, "events_staging.dead_letters") == 2
    assert event_types(warehouse) == ["job.started", "ingestion.completed", "job.failed"]
    completed, failed = events(warehouse)[1:]
    assert_accounted(completed["payload"])
    assert completed["payload"]["dead_lettered"] == 2
    assert failed["payload"]["error_type"] == "DeadLettered"
    reasons = warehouse.execute("select reason from events_staging.dead_letters")
    assert CANARY not in json.dumps([completed, failed, reasons], default=str)


def test_a_key_of_another_connection_is_refused(warehouse: Warehouse) -> None:
    def foreign(payload: Mapping[str, Any]) -> str:
        return idem_key("acme", "acct2", "widget", payload["id"])

    with pytest.raises(ValueError, match=r"idem_key_fn.*acme:acct1:widget:"):
        upsert(warehouse, widgets(1), idem_key_fn=foreign, merge=False)
    assert queued(warehouse) == 0


def test_an_error_of_the_iterable_fails_the_job(warehouse: Warehouse) -> None:
    def objects() -> Iterator[dict[str, Any]]:
        yield {"id": "w0"}
        raise RuntimeError("the export broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        upsert(warehouse, objects())
    assert event_types(warehouse) == ["job.started", "ingestion.failed", "job.failed"]
    assert events(warehouse)[-1]["payload"]["error_type"] == "RuntimeError"


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


@duckdb_only("the table has a constraint")
@pytest.mark.slow
def test_what_the_warehouse_refuses_is_found_by_halves(
    warehouse: Warehouse, project: Project
) -> None:
    refuse_widget(warehouse, "w5")
    items: list[Item] = [
        Observed("widget", json.dumps(each), at(index), each["id"])
        for index, each in enumerate(widgets(9, note=CANARY))
    ]
    run = run_scripted(warehouse, [*items, Cursor("widgets", {"page": 7}, at(0))])
    assert isinstance(run.error, DeadLettered)
    assert sorted(stored(warehouse)) == [f"w{n}" for n in range(9) if n != 5]
    [(external_id, reason, text, attempts)] = warehouse.execute(
        "select external_id, reason, payload, attempts from events_staging.dead_letters"
    )
    assert (external_id, attempts, json.loads(text)["id"]) == ("w5", 2, "w5")
    assert "the warehouse refuses it" in reason
    assert CANARY not in reason
    # The cursor covers all of them, so it may land only now that all are stored or set aside.
    assert Stored(warehouse, "acme", "acct1").cursor("widgets") == {"page": 7}
    assert_accounted(run.telemetry)
    assert run.telemetry["objects"] == {"widget": 8}
    assert run.telemetry["dead_lettered"] == 1
    assert files_with(project.state_dir, CANARY) == []


@duckdb_only("the table has a constraint")
@pytest.mark.slow
def test_a_warehouse_that_refuses_everything_sets_nothing_aside(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "MAX_REFUSED", 2)
    refuse_where(warehouse, "external_id is not null")
    with pytest.raises(LandfallError, match="refuses more than 2 objects of one package"):
        upsert(warehouse, widgets(6))
    assert event_types(warehouse) == ["job.started", "ingestion.failed", "job.failed"]
    assert dead_letters(warehouse, 10) == []
    warehouse.execute("drop table events_staging.landed_objects")
    assert upsert(warehouse, widgets(6)).counts["inserted"] == 6


def refuse_widget(warehouse: Warehouse, external_id: str) -> None:
    """Make the warehouse refuse one object."""
    refuse_where(warehouse, f"external_id = '{external_id}'")


def refuse_where(warehouse: Warehouse, condition: str) -> None:
    """Give landed_objects a constraint that some objects break (for this test alone)."""
    table = "events_staging.landed_objects"
    [(ddl,)] = warehouse.execute(
        "select sql from duckdb_tables() where table_name = 'landed_objects'"
    )
    closing = ddl.rindex(")")
    warehouse.execute(f"drop table {table}")
    ddl = ddl[:closing] + f", check (not ({condition})))"
    warehouse.execute(ddl.replace("CREATE TABLE ", "create table "))


@on_both_targets
@pytest.mark.slow
def test_a_merge_that_fails_leaves_the_objects_for_the_next_one(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> dbt_build.BuildResult:
        return dbt_build.BuildResult(error=LandfallError("dbt build: the MERGE failed"))

    with monkeypatch.context() as patched:
        patched.setattr(dbt_build, "build", fail)
        with pytest.raises(LandfallError, match="the MERGE failed"):
            upsert(warehouse, widgets(2))
    assert event_types(warehouse) == ["job.started", "ingestion.completed", "job.failed"]
    assert queued(warehouse) == 2
    result = upsert(warehouse, [])
    assert result.counts["inserted"] == 2


@duckdb_only("the table has a constraint")
@pytest.mark.slow
def test_a_refused_package_does_not_list_its_dead_letters_twice(
    warehouse: Warehouse,
) -> None:
    refuse_widget(warehouse, "w0")
    items: list[Item] = [
        Unfetched("widget", "w7", "the source keeps failing on it"),
        Observed("widget", '{"id": "w0"}', at(0), "w0"),
        Observed("widget", '{"id": "w1"}', at(1), "w1"),
    ]
    run = run_scripted(warehouse, items)
    assert run.telemetry["new_dead_letters"] == 2
    assert sorted(each["external_id"] for each in dead_letters(warehouse, 10)) == ["w0", "w7"]


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
