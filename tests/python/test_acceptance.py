"""Each acceptance test fails for the violation it is there for, and only then."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loaders import transform
from loaders.config import PROJECT_DIR
from loaders.items import Cursor, Deleted, Item, Observed
from loaders.warehouse import Warehouse

from .conftest import Project, _project, at, run_scripted

pytestmark = pytest.mark.slow

STARTED, INGESTED = "event_type = 'job.started'", "event_type = 'ingestion.completed'"
COMPLETED = "event_type = 'job.completed'"


def set_payload(where: str, **fields: Any) -> str:
    """A merge patch of the payload; None removes the field."""
    return (
        "update events.event_log set payload ="
        f" json_merge_patch(payload, '{json.dumps(fields)}') where {where}"
    )


def copy_event(where: str, **replacements: str) -> str:
    replaced = ", ".join(
        f"{expression} as {column}"
        for column, expression in {"event_id": "cast(uuid() as varchar)", **replacements}.items()
    )
    return (
        f"insert into events.event_log select * replace ({replaced})"
        f" from events.event_log where {where}"
    )


DELETE_INGESTION = f"delete from events.event_log where {INGESTED}"

# Of events; those older than acceptance_days must only warn.
EVENT_CORRUPTIONS = {
    "an object unaccounted for": (
        "assert_batch_upsert",
        [set_payload(INGESTED, records_landed=7)],
    ),
    "a shared correlation_id": (
        "assert_correlation_ids",
        [f"update events.event_log set connection_name = 'acct2' where {INGESTED}"],
    ),
    "two jobs under one id": (
        "assert_correlation_ids",
        [set_payload(COMPLETED, job_name="another_job")],
    ),
    "telemetry without a field": ("assert_event_payloads", [set_payload(STARTED, pid=None)]),
    "an end without counts": ("assert_event_payloads", [set_payload(COMPLETED, inserted=None)]),
    "a success that says failed": (
        "assert_event_payloads",
        [f"update events.event_log set status = 'failed', error_message = 'x' where {COMPLETED}"],
    ),
    "a success with an error": (
        "assert_event_payloads",
        [f"update events.event_log set error_message = 'x' where {INGESTED}"],
    ),
    "an event with an idem_key": (
        "assert_idem_keys",
        [f"update events.event_log set idem_key = 'acme:acct1:widget:a' where {INGESTED}"],
    ),
    "an end without a start": (
        "assert_job_lifecycle",
        [f"delete from events.event_log where {STARTED}"],
    ),
    "two ends": ("assert_job_lifecycle", [DELETE_INGESTION, copy_event(COMPLETED)]),
    "an event of an object": (
        "assert_no_per_object_events",
        [DELETE_INGESTION, copy_event(COMPLETED, event_type="'object.upserted'")],
    ),
    "a fourth event": (
        "assert_no_per_object_events",
        [
            set_payload(COMPLETED, error_type=None),
            copy_event(COMPLETED, event_type="'object.upserted'"),
        ],
    ),
    "an ingestion before its start": (
        "assert_timestamps",
        [
            "update events.event_log set created_at = created_at - interval 1 minute"
            f" where {INGESTED}"
        ],
    ),
    "an ingestion after its end": (
        "assert_timestamps",
        [
            "update events.event_log set created_at = created_at + interval 1 minute"
            f" where {INGESTED}"
        ],
    ),
}

OBJECT_CORRUPTIONS = {
    "seen before it was first seen": (
        "assert_object_timestamps",
        ["update events.raw_objects set first_seen = last_seen + interval 1 minute"],
    ),
    "changed when it was not seen": (
        "assert_object_timestamps",
        ["update events.raw_objects set changed_at = last_seen + interval 1 minute"],
    ),
    "deleted when it did not change": (
        "assert_object_timestamps",
        [
            "update events.raw_objects set deleted_at = last_seen - interval 1 second"
            " where external_id = 'b'"
        ],
    ),
    "a state landed and not merged": (
        "assert_queue_drained",
        [
            "insert into events_staging.landed_objects by name select 'acme:acct1:widget:z'"
            " as idem_key, 'acme' as source_system, 'acct1' as connection_name, 'widget' as"
            " object_type, 'z' as external_id, '{}' as payload, 'h' as payload_hash, now() as"
            " observed_at, false as is_deleted, correlation_id, (select max(load_id) from"
            f" events_staging._dlt_loads) as _dlt_load_id from events.event_log where {COMPLETED}"
        ],
    ),
}

CORRUPTIONS = EVENT_CORRUPTIONS | OBJECT_CORRUPTIONS


@pytest.fixture(scope="module")
def finished_file(
    workspace: Path, bootstrapped_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The warehouse of one completed run of three objects, all views and seeds in place."""
    template = tmp_path_factory.mktemp("finished") / "finished.duckdb"
    with pytest.MonkeyPatch.context() as monkeypatch, _project(workspace, monkeypatch) as project:
        shutil.copy(bootstrapped_file, project.duckdb_path)
        # Now, not in a fixed past: the tests of objects look at the last days.
        items: list[Item] = [
            Observed("widget", '{"id": "a"}', dt.datetime.now(dt.UTC), "a"),
            Observed("widget", '{"id": "b"}', dt.datetime.now(dt.UTC), "b"),
            Deleted("widget", "c", dt.datetime.now(dt.UTC)),
            Cursor("widgets", {}, at(9)),
        ]
        run = run_scripted(project.open_warehouse(), items)
        assert run.error is None
        shutil.copy(project.duckdb_path, template)
    return template


@pytest.fixture
def finished(finished_file: Path, project: Project) -> Warehouse:
    shutil.copy(finished_file, project.duckdb_path)
    return project.open_warehouse()


def outcomes(project: Project) -> dict[str, str]:
    """Outcome of each singular test that did not pass."""
    result = project.run_dbt("test", "--select", "test_type:singular")
    assert result.result is not None, result.exception
    found = {
        each.node.name: str(each.status)
        for each in result.result.results
        if each.node.resource_type == "test"
    }
    assert set(found) == {path.stem for path in (PROJECT_DIR / "tests/acceptance").glob("*.sql")}
    return {name: status for name, status in found.items() if status != "pass"}


def corrupt(warehouse: Warehouse, statements: list[str]) -> None:
    for statement in statements:
        warehouse.execute(statement)


def age(warehouse: Warehouse, days: int) -> None:
    warehouse.execute(f"update events.event_log set created_at = created_at - interval {days} day")


def excuse(warehouse: Warehouse, test: str) -> None:
    warehouse.execute(
        "insert into events.accepted_violations (correlation_id, test, reason, accepted_on)"
        " select distinct correlation_id, ?, 'looked at', current_date from events.event_log",
        (test,),
    )


def test_a_finished_warehouse_passes(finished: Warehouse, project: Project) -> None:
    assert outcomes(project) == {}


@pytest.mark.parametrize(("test", "statements"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_violation_fails_its_test_and_no_other(
    finished: Warehouse, project: Project, test: str, statements: list[str]
) -> None:
    corrupt(finished, statements)
    assert outcomes(project) == {test: "fail"}


@pytest.mark.parametrize(("test", "statements"), EVENT_CORRUPTIONS.values(), ids=EVENT_CORRUPTIONS)
def test_a_violation_of_long_ago_only_warns(
    finished: Warehouse, project: Project, test: str, statements: list[str]
) -> None:
    corrupt(finished, statements)
    age(finished, 30)
    assert outcomes(project) == {"warn_older_runs": "warn"}


def one_of_each() -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {}
    for test, statements in EVENT_CORRUPTIONS.values():
        chosen.setdefault(test, statements)
    return chosen


@pytest.mark.parametrize("days", [0, 30], ids=["recent", "older"])
@pytest.mark.parametrize(("test", "statements"), one_of_each().items(), ids=one_of_each())
def test_an_accepted_violation_is_excused(
    finished: Warehouse, project: Project, test: str, statements: list[str], days: int
) -> None:
    corrupt(finished, statements)
    age(finished, days)
    excuse(finished, test)
    assert outcomes(project) == {}


def test_an_accepted_undrained_state_is_excused(finished: Warehouse, project: Project) -> None:
    test, statements = OBJECT_CORRUPTIONS["a state landed and not merged"]
    corrupt(finished, statements)
    excuse(finished, test)
    assert outcomes(project) == {}


def test_an_excuse_for_one_test_does_not_excuse_another(
    finished: Warehouse, project: Project
) -> None:
    test, statements = EVENT_CORRUPTIONS["an object unaccounted for"]
    corrupt(finished, statements)
    excuse(finished, "assert_idem_keys")
    assert outcomes(project) == {test: "fail"}


def test_a_violation_of_another_run_fails_todays(finished: Warehouse, project: Project) -> None:
    """What the checks are for: the run that finds a violation ends with CheckFailed."""
    corrupt(finished, EVENT_CORRUPTIONS["an object unaccounted for"][1])
    run = run_scripted(finished, [])
    assert run.error is not None
    assert run.error.error_type == "CheckFailed"
    assert "assert_batch_upsert" in str(run.error)
    assert run.ingestion.summary is not None
    assert run.ingestion.summary.tests["failed"] == 1
    assert transform.merge_counts(finished, run.correlation_id)["inserted"] == 0


def test_a_run_across_the_edge_of_the_period_is_seen_whole(
    finished: Warehouse, project: Project
) -> None:
    """Began just inside or just outside of the last seven days: never half a run."""
    finished.execute(
        "update events.event_log set created_at = case event_type"
        " when 'job.started' then now() - interval 7 day - interval 1 minute"
        " else now() - interval 7 day + interval 1 minute end"
    )
    assert outcomes(project) == {}
