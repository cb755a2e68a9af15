"""What fails, is refused or cannot be stored."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from loaders.errors import LandfallError, LandingError
from loaders.idem_keys import IdemKeyFunction, idem_key
from loaders.ingestion import packages
from loaders.ingestion.ingest import DeadLettered
from loaders.ingestion.packages import Package, PackageLoader
from loaders.monitoring.health import dead_letters
from loaders.objects.items import Cursor, Item, Observed, Unfetched
from loaders.transform import dbt_build
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from tests.python.conftest import (
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

from .conftest import CANARY, files_with, loads, queued, upsert, widget_key, widgets

pytestmark = pytest.mark.usefixtures("merge_only", "stays_open")


@pytest.fixture
def failing_load(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Every load package fails as a lost connection does; `undo()` ends it."""

    def fail(*_: Any) -> None:
        raise ConnectionError("the warehouse hung up")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PackageLoader, "_load_whole", fail)
        yield patched


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
