"""The dashboard, as a browser shows it: its figures, its filters, what it refuses to run."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from landfall_sandbox.controls import Sandbox
from loaders.monitoring import health
from loaders.monitoring.dashboard import content
from loaders.monitoring.dashboard.page import embedded, render
from loaders.transform import bootstrap
from loaders.warehouse.base import Warehouse
from tests.dashboard.browser import ALL, Opened, open_page, run_browser, wait_for_charts
from tests.dashboard.past_runs import write_month, write_run
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable

from .cli.conftest import one_line, run_main
from .conftest import HOSTILE_TEXTS, Project, _project, on_both_targets, prepared, run_gmail

pytestmark = pytest.mark.slow

DAYS = 10
CONNECTIONS = {"me": "gmail", "shop": "stripe"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!-- & \u2028"
CANARY = "canary-content-of-a-dead-letter"


@dataclasses.dataclass(frozen=True)
class Dashboard:
    """A page, and what the marts said when it was written."""

    path: Path
    marts: dict[str, list[dict[str, Any]]]
    last_day: dt.date

    def rows(self, mart: str, key: str, days: int) -> list[dict[str, Any]]:
        """Rows of a connection (`source.name`, or all) in the last so many days."""
        first = self.last_day - dt.timedelta(days=days - 1)
        return [
            row
            for row in self.marts[mart]
            if key in (ALL, f"{row['source_system']}.{row['connection_name']}")
            and row["day"] >= first
        ]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        with run_browser() as running:
            yield running
    except PeerUnavailable as error:
        unavailable(error)


@pytest.fixture(scope="module")
def dashboard(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Dashboard:
    """Some days of two connections, a dead letter, and a run whose every text is hostile.

    It is written late in the evening: at night the last day of a page is a short one, and which
    runs are of which day would depend on the hour of the test.
    """
    midnight = dt.datetime.combine(dt.datetime.now(dt.UTC).date(), dt.time(), dt.UTC)
    now = midnight - dt.timedelta(minutes=2)
    path = tmp_path_factory.mktemp("dashboard") / "page.html"
    with pytest.MonkeyPatch.context() as monkeypatch, _project(workspace, monkeypatch) as project:
        warehouse = prepared(project, "bootstrapped", bootstrap.bootstrap)
        write_month(warehouse, CONNECTIONS, now - dt.timedelta(hours=8), DAYS)
        write_run(warehouse, "acme", HOSTILE, now, objects={HOSTILE: 3})
        failed_at = now - dt.timedelta(seconds=9)
        write_run(warehouse, "acme", HOSTILE, failed_at, error=("Error", "check", HOSTILE))
        write_run(warehouse, "dbt", None, now, seconds=40)
        insert_dead_letter(warehouse, now)
        path.write_text(render(content.read(warehouse, DAYS, now)), encoding="utf-8")
        marts = {
            "daily_activity": mart(warehouse, "daily_activity", "activity_date"),
            "job_runs": mart(warehouse, "job_runs", "cast(started_at as date)"),
            "connection_health": mart(warehouse, "connection_health", "current_date"),
        }
    return Dashboard(path, marts, now.date())


def insert_dead_letter(warehouse: Warehouse, now: dt.datetime) -> None:
    loads = warehouse.staging_table("_dlt_loads")
    warehouse.execute(
        f"insert into {loads} (load_id, schema_name, status, inserted_at) values ('1', 'x', 0, ?)",
        (now,),
    )
    warehouse.execute(
        f"insert into {warehouse.staging_table('dead_letters')} (dead_letter_id, source_system,"
        " connection_name, object_type, external_id, reason, payload, attempts, correlation_id,"
        " created_at, _dlt_load_id) values ('1', 'stripe', 'shop', 'charge', ?, ?, ?, 2, 'run', ?,"
        " '1')",
        (HOSTILE, "holds a number that is no JSON", CANARY, now - dt.timedelta(days=40)),
    )


def mart(warehouse: Warehouse, name: str, day: str) -> list[dict[str, Any]]:
    columns = [
        column
        for (column,) in warehouse.execute(
            "select column_name from information_schema.columns where table_name = ?", (name,)
        )
    ]
    rows = warehouse.execute(f"select {day}, {', '.join(columns)} from {warehouse.table(name)}")
    return [dict(zip(["day", *columns], row, strict=True)) for row in rows]


@pytest.fixture
def opened(browser: Browser, dashboard: Dashboard) -> Iterator[Opened]:
    found = open_page(browser, dashboard.path)
    yield found
    found.page.close()


def test_it_draws_every_chart_from_a_file_without_a_message_or_a_request(
    opened: Opened, dashboard: Dashboard
) -> None:
    marks = opened.page.evaluate(
        "() => [...document.querySelectorAll('.chart')].map("
        "chart => chart.querySelectorAll('path[aria-roledescription], .mark-symbol path,"
        " .mark-rect path, .mark-line path').length)"
    )
    assert len(marks) == 5
    assert min(marks) >= 2
    assert opened.messages == []
    assert opened.requests == [dashboard.path.as_uri()]


def test_a_mark_tells_its_figures_where_the_pointer_is(
    opened: Opened, dashboard: Dashboard
) -> None:
    opened.choose("gmail.me", 1)
    chart = opened.page.locator("figure", has=opened.page.get_by_role("heading", name="Objects"))
    wait_for_charts(opened.page)
    chart.locator(".mark-rect path").first.hover()
    shown = opened.page.locator(".tip dd").all_text_contents()
    assert shown[0] == str(dashboard.last_day)
    assert shown[1].startswith("gmail ")
    assert opened.messages == []


def test_its_policy_lets_nothing_else_run_or_be_asked(opened: Opened) -> None:
    violations = opened.page.evaluate(
        """async () => {
            const refused = [];
            document.addEventListener("securitypolicyviolation", (event) =>
                refused.push(event.effectiveDirective));
            await fetch("http://127.0.0.1:9/").catch(() => null);
            const script = document.createElement("script");
            script.textContent = "window.hasRun = true";
            document.body.append(script);
            document.body.append(Object.assign(new Image(), { src: "http://127.0.0.1:9/x.png" }));
            await new Promise((resolve) => setTimeout(resolve, 100));
            return [refused, window.hasRun ?? false];
        }"""
    )
    assert violations == [["connect-src", "script-src-elem", "img-src"], False]


def test_its_figures_are_those_of_the_marts_whatever_is_chosen(
    opened: Opened, dashboard: Dashboard
) -> None:
    seen = set()
    for key, days in itertools.product((ALL, "gmail.me", "stripe.shop"), (1, 7, DAYS)):
        opened.choose(key, days)
        activity = dashboard.rows("daily_activity", key, days)
        of_runs = [row for row in activity if row["object_type"] is None]
        health = dashboard.rows("connection_health", key, 1)
        failed = [row for row in dashboard.rows("job_runs", key, days) if row["error_message"]]
        expected = {
            "runs": sum(row["runs"] for row in of_runs),
            "failures": sum(row["failures"] for row in of_runs),
            "objects": sum(row["objects_landed"] or 0 for row in activity),
            "units": sum(row["api_units"] or 0 for row in activity),
            "letters": sum(row["open_dead_letters"] for row in health),
        }
        shown = {name: opened.figure(name) for name in expected}
        assert shown == {name: f"{value:,}" for name, value in expected.items()}, (key, days)
        assert len(opened.cells("errors")) == min(len(failed), 10)
        seen.add(tuple(shown.values()))
    assert len(seen) == 9


def test_its_data_tables_hold_every_figure_of_a_chart(opened: Opened, dashboard: Dashboard) -> None:
    opened.choose("stripe.shop", DAYS)
    rows = opened.data_table("Objects landed per day")
    expected = {
        (str(row["day"]), f"stripe {row['object_type']}", f"{row['objects_landed']:,}")
        for row in dashboard.rows("daily_activity", "stripe.shop", DAYS)
        if row["objects_landed"]
    }
    assert len(expected) > 20
    assert {tuple(row) for row in rows} == expected
    runs = opened.data_table("Runs by connection")
    assert {row[-1] for row in runs} == {
        row["correlation_id"] for row in dashboard.rows("job_runs", "stripe.shop", DAYS)
    }


def test_the_health_table_says_state_and_reason_in_words(
    opened: Opened, dashboard: Dashboard
) -> None:
    shown = {row[0]: row for row in opened.cells("health")}
    assert len(shown) == len(dashboard.marts["connection_health"]) == 3
    for row in dashboard.marts["connection_health"]:
        name = f"{row['source_system']}.{row['connection_name']}"
        _, state, success, expected, failures, letters, reason = shown[name]
        assert state.lstrip("✓◷✕∅") == row["state"]
        assert failures == str(row["consecutive_failures"])
        assert letters == str(row["open_dead_letters"])
        assert reason.split(" ")[:3] == row["reason"].split(" ")[:3]
        if row["last_success_at"]:
            assert f"{row['last_success_at']:%Y-%m-%d %H:%M} UTC" in success
            assert " ago" in success
        assert expected.startswith("every" if row["expected_interval_seconds"] else "–")


def test_hostile_texts_stay_texts(opened: Opened, dashboard: Dashboard) -> None:
    page = opened.page
    opened.choose(f"acme.{HOSTILE}", 1)
    shown = " ".join(HOSTILE.split())  # the log keeps one line
    [error] = opened.cells("errors")
    assert shown in error[4]
    assert opened.data_table("Objects landed per day")[0][1:] == [f"acme {HOSTILE}", "3"]
    opened.choose("stripe.shop", 1)
    [letter] = opened.cells("letters")
    assert letter == [
        "stripe.shop", "charge", HOSTILE, "holds a number that is no JSON", "2", "40 days",
    ]  # fmt: skip
    assert page.locator("img, iframe, script:not([type])").count() == 0
    assert page.locator("script").count() == 3
    assert opened.messages == []


def test_no_content_of_a_dead_letter_is_in_the_page(dashboard: Dashboard) -> None:
    assert CANARY not in dashboard.path.read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(
    browser: Browser, dashboard: Dashboard, scheme: str
) -> None:
    opened = open_page(browser, dashboard.path, 360, scheme)
    opened.data_table("Runs by connection")
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    wider = opened.page.evaluate(
        "() => [...document.querySelectorAll('body *')].filter(element =>"
        " element.getBoundingClientRect().right > 360.5 && !element.closest('.scroll, svg'))"
        ".map(element => element.outerHTML.slice(0, 80))"
    )
    opened.page.close()
    assert (width, wider) == (360, [])


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_axe_finds_no_barrier(
    browser: Browser, dashboard: Dashboard, width: int, scheme: str
) -> None:
    opened = open_page(browser, dashboard.path, width, scheme)
    opened.data_table("Objects landed per day")
    found = Axe().run(opened.page)
    opened.page.close()
    assert found.response["testEngine"]["name"] == "axe-core"
    assert [
        (violation["id"], [node["html"][:120] for node in violation["nodes"]][:3])
        for violation in found.response["violations"]
    ] == []


def test_a_keyboard_is_enough(opened: Opened) -> None:
    page = opened.page
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.slice(0, 10)"))
    assert reached[0] == "Skip to th"
    before = opened.figure("runs")
    page.get_by_label("Period", exact=True).focus()
    page.keyboard.press("ArrowUp")
    assert opened.figure("runs") != before
    assert "last 7 days" in str(page.text_content("[role=status]"))
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    page.locator("figure table").first.wait_for()


def test_a_screen_reader_hears_what_each_part_is(opened: Opened) -> None:
    page = opened.page
    for role in ("banner", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    for name in ("Health", "Period at a glance", "Activity", "Latest errors"):
        assert page.get_by_role("region", name=name).count() == 1
    summaries = [chart.get_attribute("aria-label") or "" for chart in page.locator(".chart").all()]
    assert all("Highest" in text or "runs of all jobs" in text for text in summaries)
    assert page.get_by_role("table").count() == page.locator("table caption").count() == 3


def test_an_empty_warehouse_says_what_to_run(
    browser: Browser, project: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    code, out, err = run_main(capsys, "dashboard", "--output", str(path))
    assert (code, err) == (0, "")
    assert str(path) in out
    opened = open_page(browser, path)
    text = opened.page.inner_text("main")
    opened.page.close()
    assert "No runs yet" in text
    assert "python loaders/run.py gmail" in text
    assert "Health" not in text
    assert opened.messages == []
    assert not project.duckdb_path.exists()


def test_real_runs_and_their_dead_letter_are_shown(
    browser: Browser,
    project: Project,
    warehouse: Warehouse,
    sandbox: Sandbox,
    core_build: None,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    path = tmp_path / "page.html"
    unstorable = {"mutate": {"set": {"sizeEstimate": 10**30}}}
    sandbox.set_faults([{"match": {"method": "messages.get"}, "action": unstorable}])
    run_gmail(warehouse, sandbox)
    code, out, err = run_main(capsys, "dashboard", "--output", str(path), "--days", "2")
    assert (code, err) == (0, "")
    assert f"written: {path}" in out
    opened = open_page(browser, path)
    objects = opened.figure("objects")
    [letter] = opened.cells("letters")
    opened.page.close()
    landed = warehouse.execute("select sum(objects_landed) from events.daily_activity")[0][0]
    assert objects == f"{landed:,}" != "0"
    assert letter[:2] == ["gmail.acct1", "message"]
    # Looking is not a job.
    assert len(health.last_runs(warehouse, 10)) == 1


@on_both_targets
def test_what_it_reads_is_bounded_and_says_how_much_there_is(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = dt.datetime.now(dt.UTC)
    noon = dt.datetime.combine(now.date(), dt.time(12), dt.UTC) - dt.timedelta(days=1)
    for day in range(3):
        for minute in range(2):
            write_run(
                warehouse,
                "gmail",
                "me",
                noon - dt.timedelta(days=day, minutes=minute),
                seconds=10.0 * (1 + minute),
                objects={"message": 30},
                units=7,
                bytes_billed=1_000,
                error=("Error", "check", "no") if minute else None,
            )
    monkeypatch.setattr(content, "MAX_RUNS", 3)
    monkeypatch.setattr(content, "MAX_ERRORS", 1)
    monkeypatch.setattr(content, "MAX_ACTIVITY", 5)
    found = content.read(warehouse, 30, now)
    json.dumps(found)
    # Six rows of activity are one too many: the oldest day goes, as a whole.
    assert found["first_day"] == str(noon.date() - dt.timedelta(days=1))
    assert len(found["activity"]["rows"]) == 4
    runs = records(found["runs"])
    assert (len(runs), found["runs"]["total"]) == (3, 4)
    assert [run["error_message"] for run in runs] == [None, "no", None]
    [newest, _] = records(found["by_day"])
    assert newest["activity_date"] == str(noon.date())
    assert (newest["median_seconds"], newest["objects_per_second"]) == (10.0, 3.0)
    assert newest["bytes_billed"] == 1_000
    [connection] = records(found["connections"])
    assert connection["consecutive_failures"] in (0, 1)


def records(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def test_a_page_with_more_runs_than_it_holds_says_so(
    browser: Browser, dashboard: Dashboard, tmp_path: Path
) -> None:
    text = dashboard.path.read_text(encoding="utf-8")
    runs = len(dashboard.marts["job_runs"])
    assert text.count(f'"total":{runs}}}') == 1
    path = tmp_path / "page.html"
    path.write_text(text.replace(f'"total":{runs}}}', '"total":9000}'), encoding="utf-8")
    opened = open_page(browser, path)
    notice = opened.page.inner_text("#bounds")
    opened.page.close()
    assert f"the newest {runs} of 9,000 runs" in notice


@pytest.mark.parametrize("output", ["missing/page.html", "."])
def test_a_file_that_cannot_be_written_is_one_clear_line(
    project: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path, output: str
) -> None:
    code, _, err = run_main(capsys, "dashboard", "--output", str(tmp_path / output))
    assert code == 2
    assert "--output" in one_line(err)
    assert list(tmp_path.iterdir()) == []


def test_embedded_json_keeps_its_texts_and_cannot_end_its_element() -> None:
    texts = [*HOSTILE_TEXTS.values(), HOSTILE, "]]>", "<!--<script>"]
    text = embedded(texts)
    assert json.loads(text) == texts
    assert not set(text) & {"<", ">", "&", "\u2028", "\u2029"}
