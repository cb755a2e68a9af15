"""The on-run hooks: a plain dbt command that changes the warehouse is a job with its events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loaders import transform
from loaders.items import Observed
from loaders.warehouse import Warehouse

from .conftest import (
    DUCKDB,
    HOSTILE_TEXTS,
    Project,
    at,
    duckdb_only,
    event_types,
    events,
    on_both_targets,
    on_emulator,
    prepared,
    run_scripted,
    stored,
)

pytestmark = pytest.mark.slow

CORE = ("--select", "stg_landed_objects", "raw_objects")
NO_TESTS = ("--exclude-resource-type", "test")
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CANARY = "canary-content-90c1"


@pytest.fixture
def core(project: Project) -> Warehouse:
    """A warehouse in which the views are built, its event log empty."""

    def build(warehouse: Warehouse) -> None:
        transform.bootstrap(warehouse)
        assert project.run_dbt("run", *CORE).success
        warehouse.execute("delete from events.event_log where true")

    return prepared(project, "core", build)


def land(warehouse: Warehouse, payload: str | None, external_id: str = "a") -> None:
    """A complete load of one object, past the gate that a source would have to pass."""
    warehouse.execute(
        "insert into events_staging.landed_objects (idem_key, source_system, connection_name,"
        " object_type, external_id, payload, payload_hash, observed_at, is_deleted,"
        " correlation_id, _dlt_load_id) values (?, 'acme', 'acct1', 'widget', ?, ?, 'h',"
        " current_timestamp, false, 'r', 'l1')",
        (f"acme:acct1:widget:{external_id}", external_id, payload),
    )
    warehouse.execute(
        "insert into events_staging._dlt_loads (load_id, status, inserted_at)"
        " values ('l1', 0, current_timestamp)"
    )


def test_a_build_of_an_empty_warehouse_is_a_job(empty_project: Project) -> None:
    assert empty_project.run_dbt("build").success
    warehouse = empty_project.open_warehouse()
    started, completed = events(warehouse)
    assert (started["event_type"], completed["event_type"]) == ("job.started", "job.completed")
    assert started["correlation_id"] == completed["correlation_id"]
    assert started["correlation_id"].startswith("dbt_build-")
    assert {started["source_system"], started["object_type"]} == {"dbt", "job_run"}
    for event in (started, completed):
        assert event["payload"]["job_name"] == "dbt_build"
        assert event["status"] == "ok"
    assert {"host", "parameters", "pid", "timeout_seconds"} <= set(started["payload"])
    counts = {name: completed["payload"][name] for name in ("inserted", "updated", "stale")}
    assert counts == {"inserted": 0, "updated": 0, "stale": 0}
    assert completed["payload"]["tests"]["passed"] > 0
    assert completed["payload"]["tests"]["failed"] == 0
    assert 0 < completed["payload"]["duration_seconds"] < 300


@on_both_targets
def test_every_build_logs_its_own_start_and_end(core: Warehouse, project: Project) -> None:
    """The hooks once wrote the start in a transaction that dbt rolled back."""
    for _ in range(2):
        assert project.run_dbt("build", *CORE, *NO_TESTS).success
    assert event_types(core) == ["job.started", "job.completed"] * 2
    assert len({event["correlation_id"] for event in events(core)}) == 2


@on_both_targets
def test_counts_are_those_of_the_merge(core: Warehouse, project: Project) -> None:
    land(core, '{"id": "a"}')
    assert project.run_dbt("run", *CORE).success
    completed = events(core)[-1]
    assert completed["payload"]["inserted"] == 1
    assert stored(core)["a"]["merged_by"] == completed["correlation_id"]


def test_the_selection_is_recorded(core: Warehouse, project: Project) -> None:
    assert project.run_dbt("run", "--select", "raw_objects", "--full-refresh").success
    parameters = events(core)[0]["payload"]["parameters"]
    assert parameters["select"] == ["raw_objects"]
    assert parameters["full_refresh"] is True


@on_both_targets
def test_a_failing_model_is_a_failed_job_without_the_value(
    core: Warehouse, project: Project
) -> None:
    land(core, '{"id": "' + CANARY + '", broken')
    assert not project.run_dbt("run", *CORE).success
    started, failed = events(core)
    assert failed["event_type"] == "job.failed"
    assert failed["correlation_id"] == started["correlation_id"]
    assert failed["status"] == "failed"
    assert "raw_objects" in failed["error_message"]
    assert failed["payload"]["error_type"] == "TransformFailed"
    assert failed["payload"]["step"] == "merge"
    assert CANARY not in json.dumps(events(core), default=str)


@on_both_targets
def test_a_failing_test_is_a_failed_check(core: Warehouse, project: Project) -> None:
    assert project.run_dbt("seed").success
    core.execute("delete from events.event_log where true")
    core.execute(
        "insert into events.event_log (event_id, event_type, source_system, idem_key,"
        " correlation_id, created_at, status) values ('e', 'job.surprise', 'acme', ?, 'r',"
        " current_timestamp, 'ok')",
        (CANARY,),
    )
    assert not project.run_dbt("build", "--select", "assert_idem_keys").success
    failed = events(core)[-1]
    assert failed["event_type"] == "job.failed"
    assert failed["payload"]["error_type"] == "CheckFailed"
    assert failed["payload"]["step"] == "check"
    assert failed["payload"]["tests"] == {"passed": 0, "warned": 0, "failed": 1}
    assert "assert_idem_keys" in failed["error_message"]
    assert CANARY not in json.dumps([failed["error_message"], failed["payload"]])


@on_both_targets
def test_a_retry_is_a_job_of_its_own(
    core: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBT_WRITE_JSON", "true")  # dbt retry reads run_results.json
    land(core, "{broken")
    assert not project.run_dbt("run", *CORE).success
    core.execute("update events_staging.landed_objects set payload = '{}' where true")
    assert project.run_dbt("retry").success
    assert event_types(core) == ["job.started", "job.failed", "job.started", "job.completed"]
    last = events(core)[-1]
    assert last["correlation_id"] != events(core)[0]["correlation_id"]
    assert last["payload"]["inserted"] == 1


SILENT: dict[str, tuple[str, ...]] = {
    "test": ("test", "--select", "assert_idem_keys"),
    "compile": ("compile", *CORE),
    "parse": ("parse",),
    "list": ("list",),
    "docs": ("docs", "generate", "--select", "raw_objects"),
    "freshness": ("source", "freshness"),
    "show": ("show", "--select", "stg_landed_objects"),
    "run --empty": ("run", *CORE, "--empty"),
    "build --empty": ("build", *CORE, *NO_TESTS, "--empty"),
}


@pytest.mark.parametrize("command", SILENT.values(), ids=SILENT.keys())
def test_what_changes_nothing_writes_no_event(
    core: Warehouse, project: Project, command: tuple[str, ...]
) -> None:
    land(core, '{"id": "a"}')
    project.run_dbt(*command)
    assert events(core) == []


@pytest.mark.parametrize("command", ["compile", "test", "show"])
def test_what_changes_nothing_creates_no_table(project: Project, command: str) -> None:
    project.run_dbt(command, "--select", "stg_landed_objects")
    tables = project.open_warehouse().columns()
    assert "event_log" not in tables
    assert "raw_objects" not in tables


@on_both_targets
def test_hooks_stay_silent_inside_a_wrapped_job(
    core: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDFALL_CORRELATION_ID", "wrapper-1")
    land(core, '{"id": "a"}')
    assert project.run_dbt("run", *CORE).success
    assert events(core) == []
    assert stored(core)["a"]["merged_by"] == "wrapper-1"


def test_the_trace_id_of_the_caller_is_logged(
    core: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE_ID}-00f067aa0ba902b7-01")
    assert project.run_dbt("run", *CORE).success
    assert {event["trace_id"] for event in events(core)} == {TRACE_ID}


@pytest.mark.parametrize(
    ("target_type", "value"),
    [
        pytest.param(DUCKDB, "00-{{ 1/0 }}-b-c", id="jinja"),
        pytest.param(DUCKDB, "00-'); drop table events.event_log; ---c-d", id="sql"),
        pytest.param(DUCKDB, '00-"\\-x-y', id="quotes"),
        pytest.param(DUCKDB, "00-é🦆-x-y", id="unicode"),
        # One value for all: a run takes long there.
        on_emulator("00-{{ 1/0 }}'); drop table events.event_log; --\"\\é🦆-c-d", id="all"),
    ],
    indirect=["target_type"],
)
def test_a_hostile_traceparent_is_harmless(
    core: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TRACEPARENT", value)
    assert project.run_dbt("run", *CORE).success
    assert event_types(core) == ["job.started", "job.completed"]
    trace_ids = {event["trace_id"] for event in events(core)}
    assert len(trace_ids) == 1
    [trace_id] = trace_ids
    assert trace_id is None or trace_id in value


# The emulator writes a MERGE's expressions out anew; then a raw string's \u escapes are read.
MISREAD_IN_A_MERGE = {"emoji", "control characters"}


@pytest.mark.parametrize(
    ("target_type", "text"),
    [
        *(pytest.param(DUCKDB, text, id=name) for name, text in HOSTILE_TEXTS.items()),
        on_emulator(
            " ".join(
                text for name, text in HOSTILE_TEXTS.items() if name not in MISREAD_IN_A_MERGE
            ),
            id="all that it can read",
        ),
        on_emulator(
            " ".join(HOSTILE_TEXTS[name] for name in sorted(MISREAD_IN_A_MERGE)),
            pytest.mark.xfail(strict=True, reason="the emulator's own defect"),
            id="what it misreads",
        ),
    ],
    indirect=["target_type"],
)
def test_a_hostile_correlation_id_is_stored_literally(
    core: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LANDFALL_CORRELATION_ID", text)
    land(core, '{"id": "a"}')
    assert project.run_dbt("run", *CORE).success
    assert stored(core)["a"]["merged_by"] == text


@duckdb_only("a view that fails as it is planned")
@pytest.mark.parametrize(
    "text", ["it''s {{ 1 / 0 }}", "back\\slash \U0001f986 \u2028", "a); drop table x; --"]
)
def test_a_hostile_error_message_is_harmless(core: Warehouse, project: Project, text: str) -> None:
    """The message comes out of the warehouse, with the text in it, and goes back into SQL."""
    core.execute(
        f"create or replace view events.stg_landed_objects as select error('{text}') as idem_key"
    )
    assert not project.run_dbt("run", "--select", "raw_objects").success
    assert event_types(core) == ["job.started", "job.failed"]
    assert "raw_objects" in events(core)[-1]["error_message"]


@on_both_targets
def test_raw_objects_survives_a_full_refresh(core: Warehouse, project: Project) -> None:
    land(core, '{"id": "a"}')
    assert project.run_dbt("run", *CORE).success
    before = stored(core)
    assert project.run_dbt("build", *CORE, *NO_TESTS, "--full-refresh").success
    assert stored(core) == before
    assert event_types(core)[-2:] == ["job.started", "job.completed"]


@on_both_targets
def test_the_first_plain_build_merges_what_a_wrapper_landed(
    warehouse: Warehouse, project: Project, core_build: None
) -> None:
    run_scripted(warehouse, [Observed("widget", '{"id": "a"}', at(1), "a")])
    first: dict[str, Any] = stored(warehouse)["a"]
    assert project.run_dbt("run", *CORE).success
    assert stored(warehouse)["a"] == first


@on_both_targets
def test_a_start_that_cannot_be_logged_stops_the_models(core: Warehouse, project: Project) -> None:
    land(core, '{"id": "a"}')
    core.execute("drop table events.event_log")
    core.execute("create view events.event_log as select 1 as event_id")
    assert not project.run_dbt("run", *CORE).success
    assert stored(core) == {}
