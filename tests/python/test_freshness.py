"""Source freshness: how long ago the connection that is most behind brought its last data."""

from __future__ import annotations

import datetime as dt

import pytest

from loaders.jobs.event_log import log_event
from loaders.warehouse.base import Warehouse

from .conftest import Project, on_both_targets

pytestmark = pytest.mark.slow


def ingested(warehouse: Warehouse, connection_name: str, hours_ago: float) -> None:
    log_event(
        warehouse,
        "ingestion.completed",
        source_system="gmail",
        connection_name=connection_name,
        correlation_id=f"run-{connection_name}-{hours_ago}",
        created_at=dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours_ago),
    )


def freshness(project: Project, intervals: str = "{}") -> str:
    variables = f"{{expected_intervals: {intervals}}}"
    results = project.run_dbt("source", "freshness", "--vars", variables).result.results
    [result] = [each for each in results if each.node.name == "event_log"]
    return str(result.status)


@pytest.mark.parametrize(
    ("connections", "status"),
    [
        pytest.param({}, "error", id="nothing yet"),
        pytest.param({"acct1": [1]}, "pass", id="fresh"),
        pytest.param({"acct1": [90, 1], "acct2": [2]}, "pass", id="each has a fresh one"),
        pytest.param({"acct1": [1], "acct2": [30]}, "warn", id="one is late"),
        pytest.param({"acct1": [1], "acct2": [50]}, "error", id="one is very late"),
        pytest.param({"acct1": [1], "acct2": [24 * 31]}, "pass", id="one was given up"),
        pytest.param({"acct1": [1], "sandbox": [50]}, "pass", id="the sandbox was tried once"),
        pytest.param({"sandbox": [1]}, "pass", id="nothing but the sandbox"),
        pytest.param({"sandbox": [24 * 31]}, "pass", id="nothing but the sandbox, long ago"),
        pytest.param({"acct1": [24 * 31]}, "error", id="the only one was given up"),
        pytest.param({"acct1": [24 * 31], "sandbox": [1]}, "error", id="that, and the sandbox"),
    ],
)
def test_the_stalest_connection_decides(
    warehouse: Warehouse, project: Project, connections: dict[str, list[float]], status: str
) -> None:
    for name, ages in connections.items():
        for hours_ago in ages:
            ingested(warehouse, name, hours_ago)
    before = warehouse.execute("select count(*) from events.event_log")
    assert freshness(project) == status
    # Looking is not a job.
    assert warehouse.execute("select count(*) from events.event_log") == before


@on_both_targets
def test_what_connection_health_expects_of_a_connection_counts(
    warehouse: Warehouse, project: Project
) -> None:
    ingested(warehouse, "acct1", 1)
    ingested(warehouse, "o'neil", 50)
    ingested(warehouse, "sandbox", 50)
    assert {
        intervals: freshness(project, intervals)
        for intervals in (
            "{}",
            "{gmail: {o'neil: 1h}}",
            "{gmail: {o'neil: never}}",
            "{stripe: {o'neil: never}}",
            "{gmail: {o'neil: never, sandbox: 1d}}",
        )
    } == {
        "{}": "error",
        "{gmail: {o'neil: 1h}}": "error",
        "{gmail: {o'neil: never}}": "pass",
        "{stripe: {o'neil: never}}": "error",
        "{gmail: {o'neil: never, sandbox: 1d}}": "error",
    }
