"""Each acceptance test fails for the violation it is there for, and only then."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pytest

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.ingest import IngestOptions
from loaders.objects.items import Cursor, Deleted, Item, Observed
from loaders.settings.places import PROJECT_DIR
from loaders.transform import dbt_build, merge_counts
from loaders.warehouse.base import Warehouse

from .conftest import Project, at, on_both_targets, prepared, run_gmail, run_scripted
from .replay import Recorded, violations

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("full_checks")]

STARTED, INGESTED = "event_type = 'job.started'", "event_type = 'ingestion.completed'"
COMPLETED = "event_type = 'job.completed'"
EVENT, OBJECT = ("events.event_log", "event_id"), ("events.raw_objects", "idem_key")


Found = Callable[[], dict[str, str]]
Corruption = str | Callable[[Warehouse], None]
"""A statement that every warehouse understands, or what has to be done in Python."""


def set_payload(where: str, **fields: Any) -> Corruption:
    """A merge patch of the payload; None removes the field."""

    def patch(warehouse: Warehouse) -> None:
        [(text,)] = warehouse.execute(
            f"select {warehouse.json_as_text('payload')} from events.event_log where {where}"
        )
        patched = {**json.loads(text), **fields}
        kept = {name: value for name, value in patched.items() if name not in removed}
        warehouse.execute(
            f"update events.event_log set payload = {warehouse.json_parameter} where {where}",
            (json.dumps(kept),),
        )

    removed = {name for name, value in fields.items() if value is None}
    return patch


def move(
    row: tuple[str, str], column: str, base: str, seconds: float, where: str = "true"
) -> Corruption:
    """Set a time of some rows to so many seconds after another; `row` is their table and key."""
    table, key = row

    def set_each(warehouse: Warehouse) -> None:
        for identity, moment in warehouse.execute(
            f"select {key}, {base} from {table} where {where}"
        ):
            warehouse.execute(
                f"update {table} set {column} = ? where {key} = ?",
                (moment + dt.timedelta(seconds=seconds), identity),
            )

    return set_each


def copy_event(where: str, **replacements: str) -> Corruption:
    replaced = ", ".join(
        f"{expression} as {column}"
        for column, expression in {"event_id": "'copied'", **replacements}.items()
    )
    return (
        f"insert into events.event_log select * replace ({replaced})"
        f" from events.event_log where {where}"
    )


def copy_object(external_id: str, copied_id: str, **replacements: str) -> Corruption:
    """Insert a row like another."""
    replaced = {
        "external_id": f"'{copied_id}'",
        "idem_key": f"'acme:acct1:widget:{copied_id}'",
        **replacements,
    }
    expressions = ", ".join(f"{value} as {column}" for column, value in replaced.items())
    return (
        f"insert into events.raw_objects select * replace ({expressions})"
        f" from events.raw_objects where external_id = '{external_id}'"
    )


DELETE_INGESTION = f"delete from events.event_log where {INGESTED}"

# Of events; those older than acceptance_days must only warn.
EVENT_CORRUPTIONS: dict[str, tuple[str, list[Corruption]]] = {
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
        [f"delete from events.event_log where {STARTED} and correlation_id != 'unended'"],
    ),
    "two ends": ("assert_job_lifecycle", [DELETE_INGESTION, copy_event(COMPLETED)]),
    "an ingestion without its event": ("assert_job_lifecycle", [DELETE_INGESTION]),
    "an event of an object": (
        "assert_no_per_object_events",
        [
            set_payload(COMPLETED, merge_seconds=None),
            DELETE_INGESTION,
            copy_event(COMPLETED, event_type="'object.upserted'"),
        ],
    ),
    "an event of no type that there is": (
        "assert_no_per_object_events",
        [
            set_payload(COMPLETED, merge_seconds=None),
            f"update events.event_log set event_type = 'banana' where {INGESTED}",
            set_payload("event_type = 'banana'", error_type="Orphaned"),
        ],
    ),
    "a job event of an object's type": (
        "assert_event_payloads",
        [f"update events.event_log set object_type = 'banana' where {COMPLETED}"],
    ),
    "an ingestion event of a job": (
        "assert_event_payloads",
        [f"update events.event_log set object_type = 'job_run' where {INGESTED}"],
    ),
    "a start without parameters": ("assert_event_payloads", [set_payload(STARTED, parameters="")]),
    "an end that is gone": (
        "assert_runs_end",
        [
            f"delete from events.event_log where {COMPLETED}",
            move(EVENT, "created_at", "created_at", -86_400 * 4),
        ],
    ),
    "a run that never ended": (
        "assert_runs_end",
        [
            copy_event(STARTED, correlation_id="'unended'"),
            move(EVENT, "created_at", "created_at", -86_400 * 4, "correlation_id = 'unended'"),
        ],
    ),
    "more rows logged than inserted": (
        "assert_store_matches_log",
        [set_payload(COMPLETED, inserted=999_999)],
    ),
    "fewer rows logged than inserted": (
        "assert_store_matches_log",
        [set_payload(COMPLETED, inserted=0)],
    ),
    "more rows logged than there are": (
        "assert_store_matches_log",
        [set_payload(COMPLETED, unchanged=999_999)],
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
        [move(EVENT, "created_at", "created_at", -60, INGESTED)],
    ),
    "an ingestion after its end": (
        "assert_timestamps",
        [move(EVENT, "created_at", "created_at", 60, INGESTED)],
    ),
}

OBJECT_CORRUPTIONS: dict[str, tuple[str, list[Corruption]]] = {
    "seen before it was first seen": (
        "assert_object_timestamps",
        [move(OBJECT, "first_seen", "last_seen", 60)],
    ),
    "changed when it was not seen": (
        "assert_object_timestamps",
        [move(OBJECT, "changed_at", "last_seen", 60)],
    ),
    "deleted when it did not change": (
        "assert_object_timestamps",
        [move(OBJECT, "deleted_at", "last_seen", -1, "external_id = 'b'")],
    ),
    "a row that is gone": (
        "assert_store_matches_log",
        ["delete from events.raw_objects where external_id = 'a'"],
    ),
    "a row that no run inserted": (
        "assert_store_matches_log",
        [copy_object("b", "z", inserted_by="null")],
    ),
    "a row that a run did not insert": ("assert_store_matches_log", [copy_object("b", "z")]),
    "a row of a run that is not there": (
        "assert_store_matches_log",
        [
            copy_object(
                "b",
                "z",
                inserted_by="'nobody'",
                **dict.fromkeys(("first_seen", "last_seen", "changed_at"), "current_timestamp"),
            )
        ],
    ),
    "a row of another type than its key": (
        "assert_store_matches_log",
        ["update events.raw_objects set object_type = 'gadget' where external_id = 'a'"],
    ),
    "a state landed and not merged": (
        "assert_queue_drained",
        [
            "insert into events_staging.landed_objects (idem_key, source_system, connection_name,"
            " object_type, external_id, payload, payload_hash, observed_at, is_deleted,"
            " correlation_id, _dlt_load_id) select 'acme:acct1:widget:z', 'acme', 'acct1',"
            " 'widget', 'z', '{}', 'h', current_timestamp, false, correlation_id, (select"
            f" max(load_id) from events_staging._dlt_loads) from events.event_log where {COMPLETED}"
        ],
    ),
}

CORRUPTIONS = EVENT_CORRUPTIONS | OBJECT_CORRUPTIONS
TOGETHER = (
    "a state landed and not merged",
    "seen before it was first seen",
    "an object unaccounted for",
    "a shared correlation_id",
    "an end without counts",
    "an event with an idem_key",
    "an ingestion after its end",
    "a fourth event",
    "a row of another type than its key",
    "a run that never ended",
    "an end without a start",
)
"""One for each test, in an order in which none hides another."""


def finish(warehouse: Warehouse) -> None:
    """A completed run of three objects, all views and seeds in place."""
    # Now, not in a fixed past: the tests of objects look at the last days.
    items: list[Item] = [
        Observed("widget", '{"id": "a"}', dt.datetime.now(dt.UTC), "a"),
        Observed("widget", '{"id": "b"}', dt.datetime.now(dt.UTC), "b"),
        Deleted("widget", "c", dt.datetime.now(dt.UTC)),
        Cursor("widgets", {}, at(9)),
    ]
    run = run_scripted(warehouse, items)
    assert run.error is None


@pytest.fixture
def finished(project: Project) -> Warehouse:
    """The warehouse of one completed run."""
    return prepared(project, "finished", finish)


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


@pytest.fixture
def found(finished: Warehouse, recorded: Recorded) -> Found:
    """As `outcomes`, by the queries alone that dbt sends for the tests."""
    statements = recorded[False].of_run("dbt_test-1", None)

    def look() -> dict[str, str]:
        with duckdb.connect(str(finished.target.path)) as connection:
            failed = list(violations(connection, statements))
        return {name: "warn" if name.startswith("warn_") else "fail" for name in failed}

    return look


def corrupt(warehouse: Warehouse, corruptions: Sequence[Corruption]) -> None:
    for each in corruptions:
        if isinstance(each, str):
            warehouse.execute(each)
        else:
            each(warehouse)


def age(warehouse: Warehouse, days: int) -> None:
    corrupt(warehouse, [move(EVENT, "created_at", "created_at", -86_400 * days)])


def excuse(warehouse: Warehouse, test: str) -> None:
    warehouse.execute(
        "insert into events.accepted_violations (correlation_id, test, reason, accepted_on)"
        " select distinct correlation_id, ?, 'looked at', current_date from events.event_log",
        (test,),
    )


@on_both_targets
def test_a_finished_warehouse_passes(finished: Warehouse, project: Project) -> None:
    assert outcomes(project) == {}


@pytest.mark.parametrize(("test", "corruptions"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_violation_fails_its_test_and_no_other(
    finished: Warehouse, found: Found, test: str, corruptions: list[Corruption]
) -> None:
    corrupt(finished, corruptions)
    assert found() == {test: "fail"}


@on_both_targets
def test_violations_together_fail_a_test_each(finished: Warehouse, project: Project) -> None:
    """In one build: each takes long on the emulator."""
    for name in TOGETHER:
        corrupt(finished, CORRUPTIONS[name][1])
    assert outcomes(project) == dict.fromkeys((test for test, _ in CORRUPTIONS.values()), "fail")


@pytest.mark.parametrize(("test", "corruptions"), EVENT_CORRUPTIONS.values(), ids=EVENT_CORRUPTIONS)
def test_a_violation_of_long_ago_only_warns(
    finished: Warehouse, found: Found, test: str, corruptions: list[Corruption]
) -> None:
    corrupt(finished, corruptions)
    age(finished, 30)
    assert found() == {"warn_older_runs": "warn"}


def one_of_each() -> dict[str, list[Corruption]]:
    chosen: dict[str, list[Corruption]] = {}
    for test, corruptions in EVENT_CORRUPTIONS.values():
        chosen.setdefault(test, corruptions)
    return chosen


@pytest.mark.parametrize("days", [0, 30], ids=["recent", "older"])
@pytest.mark.parametrize(("test", "corruptions"), one_of_each().items(), ids=one_of_each())
def test_an_accepted_violation_is_excused(
    finished: Warehouse, found: Found, test: str, corruptions: list[Corruption], days: int
) -> None:
    corrupt(finished, corruptions)
    age(finished, days)
    excuse(finished, test)
    assert found() == {}


@on_both_targets
def test_an_accepted_undrained_state_is_excused(finished: Warehouse, project: Project) -> None:
    test, corruptions = OBJECT_CORRUPTIONS["a state landed and not merged"]
    corrupt(finished, corruptions)
    excuse(finished, test)
    assert outcomes(project) == {}


@on_both_targets
@pytest.mark.parametrize(
    ("days", "expected"),
    [(0, {"assert_batch_upsert": "fail"}), (30, {"warn_older_runs": "warn"})],
    ids=["recent", "older"],
)
def test_an_excuse_for_one_test_does_not_excuse_another(
    finished: Warehouse, project: Project, days: int, expected: dict[str, str]
) -> None:
    _, corruptions = EVENT_CORRUPTIONS["an object unaccounted for"]
    corrupt(finished, corruptions)
    age(finished, days)
    excuse(finished, "assert_idem_keys")
    assert outcomes(project) == expected


@on_both_targets
def test_a_violation_of_another_run_fails_todays(finished: Warehouse, project: Project) -> None:
    """What the checks are for: the run that finds a violation ends with CheckFailed."""
    corrupt(finished, EVENT_CORRUPTIONS["an object unaccounted for"][1])
    run = run_scripted(finished, [])
    assert run.error is not None
    assert run.error.error_type == "CheckFailed"
    assert "assert_batch_upsert" in str(run.error)
    assert run.ingestion.summary is not None
    assert run.ingestion.summary.tests["failed"] == 1
    assert merge_counts.merge_counts(finished, run.correlation_id)["inserted"] == 0


@on_both_targets
def test_a_run_across_the_edge_of_the_period_is_seen_whole(
    finished: Warehouse, project: Project
) -> None:
    """Began just inside or just outside of the last seven days: never half a run."""
    edge = dt.datetime.now(dt.UTC) - dt.timedelta(days=7)
    minute = dt.timedelta(minutes=1)
    finished.execute(
        "update events.event_log set created_at = case event_type when 'job.started' then ?"
        " else ? end where true",
        (edge - minute, edge + minute),
    )
    assert outcomes(project) == {}


def test_the_line_of_a_failed_check_names_the_run(finished: Warehouse, project: Project) -> None:
    [(culprit,)] = finished.execute("select distinct inserted_by from events.raw_objects")
    corrupt(finished, OBJECT_CORRUPTIONS["a row that is gone"][1])
    said = str(run_scripted(finished, []).error).replace("!= 0", "!=0")
    found = "assert_store_matches_log: Got 1 result, configured to fail if !=0"
    assert f"{found}; of {culprit}; " in said
    assert "`dbt show --select assert_store_matches_log --target " in said
    assert "docs/faults.md says what to do; log: " in said


@pytest.mark.slow
def test_the_line_of_a_failed_check_names_the_objects(
    finished: Warehouse, project: Project
) -> None:
    """Of a test of dbt's own, too."""
    build = dbt_build.build
    [[key]] = finished.execute("select min(idem_key) from events.raw_objects")
    finished.execute(
        f"insert into events.raw_objects select * from events.raw_objects where idem_key = '{key}'"
    )
    finished.execute("update events.raw_objects set first_seen = last_seen + interval 1 day")
    for test in ("assert_object_timestamps", "unique_raw_objects_idem_key"):
        said = str(build(finished.target, "a-run", ["--select", test]).error)
        assert f"first {test}: Got " in said
        assert f"; of {key}" in said
        assert f"`dbt show --select {test} --target " in said


def test_what_a_resync_inserts_anew_makes_up_for_lost_rows(
    project: Project, warehouse: Warehouse, sandbox: Sandbox, core_build: None
) -> None:
    """And for no more: what is lost after it is missed again."""
    first = run_gmail(warehouse, sandbox)
    assert first.error is None
    lost = [row[0] for row in warehouse.execute(f"{MESSAGES_BY_ID} limit 3")]

    def lose(*ids: str) -> str:
        for external_id in ids:
            warehouse.execute(
                "delete from events.raw_objects where external_id = ?", (external_id,)
            )
        return str(run_gmail(warehouse, sandbox).error)

    assert first.correlation_id in lose(*lost)
    healing = run_gmail(warehouse, sandbox, IngestOptions(full_resync=True))
    assert (healing.error, healing.counts["inserted"]) == (None, 3)
    assert lose() == "None"
    [(kept,)] = warehouse.execute(
        f"select external_id from ({MESSAGES_BY_ID}) as ids where external_id not in (?, ?, ?)"
        " limit 1",
        lost,
    )
    assert first.correlation_id in lose(kept)
    assert healing.correlation_id in lose(lost[0])


MESSAGES_BY_ID = (
    "select external_id from events.raw_objects where object_type = 'message' order by 1"
)
