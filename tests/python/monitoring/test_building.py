"""Who builds the views."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from loaders.cli.main import main
from loaders.errors import TransformFailed
from loaders.objects.items import Observed
from loaders.transform import dbt_build, invocation, views
from loaders.transform.dbt_build import MONITORING
from loaders.warehouse.base import Warehouse
from loaders.warehouse.bigquery import BigQueryWarehouse
from tests.python.conftest import (
    Project,
    at,
    events,
    on_both_targets,
    run_scripted,
)

from .conftest import DAY, HOUR, Log, run_status

pytestmark = pytest.mark.usefixtures("stays_open")


@pytest.mark.slow
def test_a_run_builds_the_views_when_they_lack_or_have_changed(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[bool] = []
    build = dbt_build.build

    def noted(target: Any, correlation_id: str, arguments: Sequence[str], **options: Any) -> Any:
        excluded = arguments[arguments.index("--exclude") :]
        built.append("config.materialized:view" not in excluded)
        no_tests = ("--exclude-resource-type", "test", "unit_test")
        return build(target, correlation_id, (*arguments, *no_tests), **options)

    monkeypatch.setattr(dbt_build, "build", noted)
    assert run_scripted(warehouse, []).error is None
    assert {run["state"] for run in views.runs(warehouse, 5)} == {"completed"}
    assert run_scripted(warehouse, []).error is None
    warehouse.execute("drop view events.connection_health")
    assert run_scripted(warehouse, []).error is None
    monkeypatch.setattr(invocation, "views_fingerprint", lambda: "ofanotherrelease")
    assert run_scripted(warehouse, []).error is None
    assert run_scripted(warehouse, []).error is None
    assert run_scripted(warehouse, [Observed("widget", '{"id": "a"}', at(1), "a")]).error is None
    assert built == [True, True, True, False]  # and none of what found nothing
    assert len(events(warehouse)) == 18


def replaced(warehouse: Warehouse, _project: Project | None = None) -> None:
    """Somebody makes a view of his own in the place of one."""
    table = warehouse.table("connection_health")
    columns = ", ".join(f"null as {name}" for name in views.CONNECTION_COLUMNS)
    warehouse.execute(f"create or replace view {table} as select * from (select {columns}) as one")


def edited(warehouse: Warehouse, project: Project) -> None:
    """Somebody edits a view's text in place, which BigQuery's pages and API allow."""
    if not isinstance(warehouse, BigQueryWarehouse):
        replaced(warehouse, project)
        return
    client = warehouse.client()
    view = client.get_table(warehouse.table("job_runs").replace("`", ""))
    view.view_query = f"select * from ({view.view_query}) limit 0"
    client.update_table(view, ["view_query"])
    assert view.labels


@pytest.mark.slow
@on_both_targets
@pytest.mark.parametrize("change", [replaced, edited])
def test_views_that_somebody_has_changed_are_built_anew(
    monitored: Warehouse,
    project: Project,
    log: Log,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Warehouse, Project], None],
) -> None:
    log.run("me", HOUR, "completed")
    log.write(monitored)
    views.build_views(monitored)
    assert views.is_current(monitored)
    change(monitored, project)
    assert not views.is_current(monitored)
    code, lines = run_status(capsys)
    assert code == 0
    assert any("acme.me" in line for line in lines)
    assert views.is_current(monitored)
    assert not (project.state_dir / "monitoring").exists()


@pytest.mark.slow
@on_both_targets
def test_views_of_a_plain_dbt_build_are_good_to_read_and_built_by_the_next_run(
    monitored: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.run_dbt("run", "--select", f"tag:{MONITORING}").success
    assert not views.is_current(monitored)
    monkeypatch.setattr(views, "build_views", None)  # nothing calls it
    views.ensure_views(monitored)


@pytest.mark.slow
def test_views_that_a_command_line_s_variables_have_shaped_are_not_the_project_s(
    monitored: Warehouse, project: Project
) -> None:
    arguments = ["--select", f"tag:{MONITORING}", "--vars", "{monitoring_days: 1}"]
    assert dbt_build.build(monitored.target, "job", arguments).error is None
    assert not views.is_current(monitored)


@pytest.mark.slow
def test_a_log_whose_runs_are_all_old_is_not_called_empty(
    monitored: Warehouse, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    log.run("me", 200 * DAY, "completed")
    log.write(monitored)
    code, [line] = run_status(capsys)
    assert code == 1
    assert "no run within monitoring_days" in line
    assert f"{log.now - dt.timedelta(days=200):%Y-%m-%d}" in line


def test_views_that_cannot_be_built_anew_are_one_clear_line(
    monitored: Warehouse,
    log: Log,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log.run("me", HOUR, "completed")
    log.write(monitored)
    replaced(monitored)
    refused = dbt_build.BuildResult(error=TransformFailed("dbt build: Access Denied"))
    monkeypatch.setattr(dbt_build, "build", lambda *_arguments: refused)
    for command in ("status", "dashboard"):
        code = main([command])
        out, err = capsys.readouterr()
        assert (code, out) == (1, "")
        [line] = err.strip().splitlines()
        assert "monitoring views of" in line
        assert "Access Denied" in line
