"""The months that bound a MERGE on BigQuery; the same SQL on DuckDB, where nothing prunes."""

from __future__ import annotations

import datetime as dt

import duckdb
import pytest

from loaders.transform.merge_scope import CreationTimes, MergeScope
from loaders.warehouse.base import Warehouse

from .conftest import Project

pytestmark = [pytest.mark.usefixtures("stays_open"), pytest.mark.slow]


def compiled(project: Project, template: str) -> str:
    result = project.run_dbt("compile", "--inline", template)
    assert result.success, result.exception
    [node] = [each.node for each in result.result.results if each.node.name == "inline_query"]
    return str(node.compiled_code)


def month(year: int, number: int) -> int:
    return year * 12 + number - 1


def test_a_predicate_of_months_holds_for_them_and_for_no_time(project: Project) -> None:
    months = [month(1, 1), month(2024, 12), month(2025, 1), month(2025, 3), month(9999, 12)]
    predicate = compiled(project, f"{{{{ in_months('moment', {months}) }}}}")
    same = MergeScope(months, [], inserts_only=False).predicate("moment")
    for one in (predicate, same):
        # December and January are one range.
        assert one.count(">=") == 4
    expected = {
        None: True,
        "0001-01-31 23:59:59.999999": True,
        "0001-02-01 00:00:00": False,
        "2024-11-30 23:59:59.999999": False,
        "2024-12-01 00:00:00": True,
        "2025-01-31 23:59:59.999999": True,
        "2025-02-01 00:00:00": False,
        "2025-03-15 12:00:00": True,
        "2025-04-01 00:00:00": False,
        "9999-12-31 23:59:59.999999": True,
    }
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        for moment, inside in expected.items():
            query = f"select {predicate}, {same} from (select cast(? as timestamptz) as moment)"
            [found] = connection.execute(query, [moment]).fetchall()
            assert found == (inside, inside), moment


def test_the_times_of_states_are_their_months_and_what_is_not_known() -> None:
    times = CreationTimes()
    began = dt.datetime(2024, 12, 31, tzinfo=dt.UTC)
    assert times.are_since(began)
    times.note(began)
    times.note(began + dt.timedelta(days=1))
    assert (times.months, times.are_since(began)) == ({month(2024, 12), month(2025, 1)}, True)
    assert not times.are_since(began + dt.timedelta(seconds=1))
    times.note(None)
    assert not times.are_since(began)


def test_no_month_leaves_the_unknown_times(project: Project) -> None:
    predicate = compiled(project, "{{ in_months('moment', []) }}")
    assert " ".join(predicate.split()) == "( moment is null )"


def test_a_merge_names_the_stored_months_and_those_of_new_objects_and_no_more_than_a_job_may_touch(
    project: Project, warehouse: Warehouse
) -> None:
    template = "{% set target = ref('raw_objects') %}{{ merge_months(target) if execute }}"
    stored, queued = dt.datetime(2020, 5, 31, tzinfo=dt.UTC), dt.datetime(2024, 2, 1, tzinfo=dt.UTC)
    for load_id, status in (("done", 0), ("open", 1)):
        warehouse.execute(
            "insert into events_staging._dlt_loads (load_id, status, inserted_at)"
            " values (?, ?, now())",
            (load_id, status),
        )
    warehouse.execute(
        "insert into events.raw_objects by name select 'moved' as idem_key, 'a' as source_system,"
        " 'a' as connection_name, 'a' as object_type, 'a' as external_id, 'h' as payload_hash,"
        " cast(? as timestamptz) as object_created_at, now() as first_seen, now() as last_seen,"
        " now() as changed_at, 'r' as changed_by, 'r' as merged_by, 'inserted' as last_action",
        (stored.isoformat(),),
    )
    land(warehouse, "moved", queued, "done")
    land(warehouse, "new", queued, "done")
    land(warehouse, "unknown", None, "done")
    land(warehouse, "of an open load", dt.datetime(1999, 1, 1, tzinfo=dt.UTC), "open")
    assert compiled(project, template) == str([month(2020, 5), month(2024, 2)])
    warehouse.execute(
        "insert into events_staging.landed_objects select 'many' || range, source_system,"
        " connection_name, object_type, external_id, payload, payload_hash,"
        " timestamptz '1000-01-01 00:00:00+00' + to_months(cast(range as integer)), observed_at,"
        " is_deleted, correlation_id, _dlt_load_id"
        " from events_staging.landed_objects, range(5000) where idem_key = 'new'"
    )
    assert compiled(project, template).count(",") == 3900 - 1


def land(warehouse: Warehouse, key: str, created_at: dt.datetime | None, load_id: str) -> None:
    warehouse.execute(
        "insert into events_staging.landed_objects by name select ? as idem_key,"
        " 'a' as source_system, 'a' as connection_name, 'a' as object_type, 'a' as external_id,"
        " 'h' as payload_hash, cast(? as timestamptz) as object_created_at, now() as observed_at,"
        " false as is_deleted, 'r' as correlation_id, ? as _dlt_load_id",
        (key, created_at and created_at.isoformat(), load_id),
    )
