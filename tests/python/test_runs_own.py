"""A run merges what is its own, counts that, and says so however it ends."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from loaders.errors import ConfigError, Interrupted, LandfallError
from loaders.jobs import names, runs
from loaders.jobs.job import Job
from loaders.objects.idem_keys import idem_key
from loaders.objects.items import Deleted, Item, Observed, Unfetched
from loaders.settings.constants import constants
from loaders.settings.target import load_target
from loaders.transform import dbt_build, merge_counts
from loaders.upsert import upsert_objects
from loaders.warehouse.base import Warehouse
from loaders.warehouse.bigquery import BigQueryWarehouse

from .conftest import (
    EMULATOR_TARGET,
    Project,
    at,
    count,
    event_types,
    events,
    on_both_targets,
    run_scripted,
    stored,
)

pytestmark = [pytest.mark.usefixtures("stays_open"), pytest.mark.slow]

ZEROS = dict.fromkeys(constants().merge_actions, 0)
NULLS = dict.fromkeys(constants().merge_actions)


def widget(external_id: str, value: int = 0) -> Item:
    payload = {"id": external_id, "value": value}
    return Observed("widget", json.dumps(payload), dt.datetime.now(dt.UTC), external_id)


def counts_of(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: payload[name] for name in (*constants().merge_actions, "rescued")}


def end_of(warehouse: Warehouse, correlation_id: str) -> dict[str, Any]:
    """The payload of a run's last event."""
    payload: dict[str, Any] = events(warehouse, correlation_id)[-1]["payload"]
    return payload


def land_only(warehouse: Warehouse, connection: str, run: str | None, *ids: str) -> None:
    upsert_objects(
        [{"id": external_id, "run": run} for external_id in ids],
        source_system="acme",
        connection_name=connection,
        object_type="widget",
        idem_key_fn=lambda payload: idem_key("acme", connection, "widget", payload["id"]),
        merge=False,
        correlation_id=run,
        warehouse=warehouse,
    )


def started(warehouse: Warehouse, connection: str) -> Job:
    job = Job(warehouse, job_name=connection, source_system="acme", connection_name=connection)
    job.start()
    return job


@on_both_targets
def test_what_an_open_run_of_another_connection_landed_is_left_to_it(
    warehouse: Warehouse, project: Project, merge_only: None
) -> None:
    other = started(warehouse, "acct2")
    land_only(warehouse, "acct2", other.correlation_id, "x", "y")

    run = run_scripted(warehouse, [widget("a")])
    assert run.counts == {"inserted": 1}
    assert set(stored(warehouse)) == {"a"}
    assert project.run_dbt("run", "--select", "raw_objects").success
    assert set(stored(warehouse)) == {"a"}

    assert dbt_build.build(warehouse.target, other.correlation_id, connection=other.connection)
    assert other.counts() == {**ZEROS, "inserted": 2, "rescued": {}}
    assert {row["inserted_by"] for row in by_run(warehouse, "acct2")} == {other.correlation_id}
    assert count(warehouse, "events_staging.landed_objects") == 0


@on_both_targets
def test_what_an_ended_run_left_is_taken_over_and_counted_apart(
    warehouse: Warehouse, merge_only: None
) -> None:
    other = started(warehouse, "acct2")
    land_only(warehouse, "acct2", other.correlation_id, "x", "y")
    other.fail(LandfallError("lost its way"))
    land_only(warehouse, "acct3", None, "z")

    run = run_scripted(warehouse, [widget("a")])

    ended = end_of(warehouse, run.correlation_id)
    assert counts_of(ended) == {**ZEROS, "inserted": 1, "rescued": {"inserted": 3}}
    assert len(by_run(warehouse, run.correlation_id, "inserted_by")) == 4
    assert count(warehouse, "events_staging.landed_objects") == 0


@on_both_targets
def test_of_a_key_only_the_states_of_ended_runs_are_taken(
    warehouse: Warehouse, project: Project, merge_only: None
) -> None:
    land_only(warehouse, "acct2", None, "x")
    other = started(warehouse, "acct2")
    land_only(warehouse, "acct2", other.correlation_id, "x")

    assert project.run_dbt("run", "--select", "raw_objects").success
    assert json.loads(stored(warehouse)["x"]["payload"])["run"] is None
    assert count(warehouse, "events_staging.landed_objects") == 1

    dbt_build.build(warehouse.target, other.correlation_id, connection=other.connection)
    assert json.loads(stored(warehouse)["x"]["payload"])["run"] == other.correlation_id
    assert other.counts() == {**ZEROS, "updated": 1, "rescued": {}}


@on_both_targets
def test_who_inserted_a_row_never_changes(warehouse: Warehouse, merge_only: None) -> None:
    first = run_scripted(warehouse, [widget("a"), widget("b"), widget("c")])
    deleted = Deleted("widget", "b", dt.datetime.now(dt.UTC))
    run_scripted(warehouse, [widget("a", 1), deleted, widget("c")])
    last = run_scripted(warehouse, [widget("b", 2)])
    assert {row["inserted_by"] for row in by_run(warehouse, "acct1")} == {first.correlation_id}
    assert last.counts == {"undeleted": 1}
    # Others have touched its rows since: they are its own all the same.
    connection = ("acme", "acct1")
    counts = merge_counts.merge_counts(warehouse, first.correlation_id, connection)
    assert counts["inserted"] == 3


def test_a_run_that_fails_after_its_merge_says_what_it_did(
    warehouse: Warehouse, merge_only: None
) -> None:
    run = run_scripted(warehouse, [widget("a"), Unfetched("widget", "b", "is broken")])
    assert run.error is not None
    ended = end_of(warehouse, run.correlation_id)
    assert counts_of(ended) == {**ZEROS, "inserted": 1, "rescued": {}}


def test_a_run_that_fails_before_its_merge_did_nothing(warehouse: Warehouse) -> None:
    job = started(warehouse, "acct1")
    job.fail(LandfallError("no"))
    assert counts_of(end_of(warehouse, job.correlation_id)) == {**ZEROS, "rescued": {}}


def interrupted_in_merge(warehouse: Warehouse) -> Job:
    """A run whose MERGE is through, and that has not counted it yet."""
    job = started(warehouse, "acct1")
    land_only(warehouse, "acct1", job.correlation_id, "a", "b")
    job.step = "merge"
    dbt_build.build(warehouse.target, job.correlation_id, connection=job.connection)
    return job


@pytest.mark.parametrize("error", [Interrupted(15), LandfallError("no")], ids=["signal", "error"])
def test_an_end_counts_what_was_merged(
    warehouse: Warehouse, merge_only: None, error: LandfallError
) -> None:
    job = interrupted_in_merge(warehouse)
    job.fail(error)
    assert end_of(warehouse, job.correlation_id)["inserted"] == 2


def test_a_count_that_cannot_be_read_is_null(warehouse: Warehouse, merge_only: None) -> None:
    job = interrupted_in_merge(warehouse)
    warehouse.execute("alter table events.raw_objects rename to away")
    job.fail(LandfallError("no"))
    assert counts_of(end_of(warehouse, job.correlation_id)) == {**NULLS, "rescued": None}


@on_both_targets
def test_a_dead_run_is_closed_with_its_counts(warehouse: Warehouse, merge_only: None) -> None:
    dead = interrupted_in_merge(warehouse)
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=3)
    warehouse.execute(
        "update events.event_log set created_at = ? where correlation_id = ?",
        (long_ago, dead.correlation_id),
    )
    run = run_scripted(warehouse, [widget("c")])
    assert run.counts == {"inserted": 1}
    ended = end_of(warehouse, dead.correlation_id)
    assert ended["error_type"] == runs.ORPHANED
    assert counts_of(ended) == {**ZEROS, "inserted": 2, "rescued": {}}


def test_what_an_earlier_release_inserted_is_not_known(
    warehouse: Warehouse, merge_only: None
) -> None:
    run = run_scripted(warehouse, [widget("a")])
    warehouse.execute("update events.raw_objects set inserted_by = null")
    dead = runs.OpenRun(run.correlation_id, "acme", "acct1", at(0), {})
    counts = runs.counts_or_nulls(lambda: runs.final_counts(warehouse, dead))
    assert counts == {**NULLS, "rescued": None}


def test_skipped_tests_did_not_fail(warehouse: Warehouse, project: Project) -> None:
    warehouse.execute("alter table events_staging.landed_objects alter observed_at type integer")
    selection = ["--select", "raw_objects", "accepted_violations", "assert_erasures"]
    selection += ["--exclude-resource-type", "unit_test"]
    result = dbt_build.build(warehouse.target, "run", selection)
    assert result.error is not None
    assert (result.tests["failed"], result.tests["skipped"] > 0) == (0, True)
    assert not project.run_dbt("build", *selection).success
    ended = events(warehouse)[-1]
    assert ended["event_type"] == "job.failed"
    assert ended["payload"]["tests"] == result.tests
    assert counts_of(ended["payload"]) == {**ZEROS, "rescued": {}}


@on_both_targets
def test_a_warehouse_of_a_later_release_is_refused(warehouse: Warehouse, project: Project) -> None:
    table = warehouse.table("warehouse_format")
    warehouse.execute(f"alter table {table} add column if not exists version_7 bool")
    with pytest.raises(ConfigError, match=r"a later release .* version_7.*update this checkout"):
        started(warehouse, "acct1")
    result = project.run_dbt("run", "--select", "raw_objects")
    assert not result.success
    assert event_types(warehouse) == []


# ---- a MERGE that goes on without its process


class Jobs(BaseHTTPRequestHandler):
    """BigQuery's jobs.list, jobs.cancel and jobs.get: what is cancelled is done."""

    running: dict[str, str]
    seen: list[str]

    def do_GET(self) -> None:
        states = {"RUNNING": list(self.running), "PENDING": []}
        wanted = "RUNNING" if "stateFilter=running" in self.path else "PENDING"
        is_list = "stateFilter" in self.path
        if not is_list:
            self.reply(self.job(self.path.split("?")[0].rpartition("/")[2], "DONE"))
            return
        self.reply({"jobs": [self.job(job_id, wanted) for job_id in states[wanted]]})

    def do_POST(self) -> None:
        job_id = self.path.split("/cancel")[0].rpartition("/")[2]
        self.seen.append(job_id)
        self.reply({"job": self.job(job_id, "DONE")})

    def job(self, job_id: str, state: str) -> dict[str, Any]:
        labels = {"correlation_id": self.running[job_id]}
        query = {"query": "merge", "destinationTable": {}}
        return {
            "jobReference": {"projectId": "landfall-dev", "jobId": job_id, "location": "US"},
            "configuration": {"jobType": "QUERY", "query": query, "labels": labels},
            "status": {"state": state},
            "state": state,
            "statistics": {},
        }

    def reply(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(running: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    handler = type("Handler", (Jobs,), {"running": running, "seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def test_the_statements_of_a_dead_run_are_ended_and_no_others(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = "gmail_ingest_Some.Body-20260101000000-0a0b"
    with serving({"its_merge": names.label(run), "another": "gmail_ingest_me"}) as (url, ended):
        monkeypatch.setenv("LANDFALL_EMULATOR_URL", url)
        warehouse = BigQueryWarehouse(load_target(EMULATOR_TARGET))
        warehouse.end_statements("correlation_id", names.label(run), at(0))
    assert ended == ["its_merge"]


def test_statements_that_cannot_be_listed_leave_the_counts_unknown(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDFALL_EMULATOR_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("loaders.warehouse.bigquery._MAX_ATTEMPTS", 1)
    warehouse = BigQueryWarehouse(load_target(EMULATOR_TARGET))
    dead = runs.OpenRun("run", "acme", "acct1", at(0), {})
    assert runs.counts_or_nulls(lambda: runs.final_counts(warehouse, dead)) == {
        **NULLS,
        "rescued": None,
    }


def by_run(
    warehouse: Warehouse, value: str, column: str = "connection_name"
) -> list[dict[str, Any]]:
    """Rows of raw_objects by a column."""
    names = ("external_id", "inserted_by", "merged_by")
    rows = warehouse.execute(
        f"select {', '.join(names)} from events.raw_objects where {column} = ?", (value,)
    )
    return [dict(zip(names, row, strict=True)) for row in rows]
