"""run.py status."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from loaders.jobs.event_log import spool_dir
from loaders.jobs.processes import host_identity
from loaders.settings.places import PROJECT_DIR
from loaders.transform import dbt_build, views
from loaders.warehouse.base import Warehouse
from tests.python.conftest import (
    Project,
    event_types,
)

from .conftest import DAY, ENDED, HOUR, HOURLY, INGESTED, Log, run_status

pytestmark = pytest.mark.usefixtures("stays_open")


def test_status_is_0_when_all_is_ok_and_1_otherwise(
    monitored: Warehouse, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    log.completed("box", [day * DAY + 2.5 * HOUR for day in range(10)][::-1], 4)
    log.write(monitored)
    code, lines = run_status(capsys, "--limit", "1")
    assert code == 0
    assert [line.split("  ")[0] for line in lines[:2]] == ["connection", "acme.box"]
    assert lines[1].split() == [
        *["acme.box", "ok", "2", "h", "ago", "every", "24", "h", "0", "0"],
        *["the", "last", "run", "completed"],
    ]
    assert lines[2] == ""
    assert lines[3].split() == [
        *("started", "state", "inserted", "updated", "deleted", "duration", "run"),
    ]
    assert lines[4].split()[:8] == ["2", "h", "ago", "completed", "4", "0", "-", "10.0"]
    assert len(lines) == 5
    log.events.clear()
    log.run("shop", HOUR, "SourceError", source_system="other")
    log.events[0]["event_id"], log.events[1]["event_id"] = "more-1", "more-2"
    log.write(monitored)
    code, lines = run_status(capsys)
    assert code == 1
    assert lines[1].split()[:4] == ["other.shop", "failing", "never", "-"]  # the worst first
    assert lines[-1] == "shop-0: acme: SourceError"


def test_status_as_json_is_what_the_views_hold(
    monitored: Warehouse, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    log.run("me", HOUR, "completed", ingestion=INGESTED, **ENDED)
    log.write(monitored)
    code, lines = run_status(capsys, "--json")
    told = json.loads("\n".join(lines))
    assert code == 0
    assert told.keys() == {"connections", "runs", "spool"}
    assert told["spool"] == {
        **{"directory": str(spool_dir(monitored)), "waiting": 0, "set_aside": 0},
    }
    [connection], [run] = told["connections"], told["runs"]
    assert tuple(connection) == views.CONNECTION_COLUMNS
    assert tuple(run) == views.RUN_COLUMNS
    began = log.now - dt.timedelta(seconds=HOUR)
    assert dt.datetime.fromisoformat(run["started_at"]) == began
    assert run["started_at"].endswith("+00:00")
    assert run["objects_by_type"] == {"message": 7, "label": 1}


@pytest.mark.parametrize("has_warehouse", [True, False])
@pytest.mark.parametrize(
    ("ending", "told"), [("json", "1 event(s) wait"), ("json.unreadable", "look")]
)
def test_status_is_not_ok_while_the_spool_holds_something(
    monitored: Warehouse,
    capsys: pytest.CaptureFixture[str],
    has_warehouse: bool,
    ending: str,
    told: str,
) -> None:
    directory = spool_dir(monitored)
    directory.mkdir(parents=True)
    (directory / f"1.{ending}").write_text("{}")
    if not has_warehouse:
        monitored.target.path.unlink()
    code, lines = run_status(capsys)
    assert code == 1
    [line] = [line for line in lines if line.startswith("spool: ")]
    assert told in line
    assert str(directory) in line
    (directory / f"1.{ending}").unlink()
    assert run_status(capsys)[0] == 0


def test_status_makes_the_views_that_lack_once_and_logs_nothing(
    warehouse: Warehouse,
    log: Log,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A first run that failed while it fetched has built nothing."""
    log.run("me", HOUR, "SourceError")
    log.write(warehouse)
    before = event_types(warehouse)
    assert run_status(capsys)[0] == 1
    assert event_types(warehouse) == before

    built: list[Any] = []
    monkeypatch.setattr(dbt_build, "build", lambda *arguments, **_: built.append(arguments))
    run_status(capsys)
    # As made by another machine: good as they are.
    monkeypatch.setenv("LANDFALL_STATE_DIR", os.environ["LANDFALL_STATE_DIR"] + "-other")
    run_status(capsys)
    assert built == []


def test_status_knows_a_run_whose_process_is_gone(
    monitored: Warehouse, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = host_identity()
    log.completed("killed", HOURLY)
    log.run("killed", 60.0, started={"host": here, "pid": gone.pid})
    log.completed("alive", HOURLY)
    log.run("alive", 60.0, started={"host": here, "pid": os.getpid()})
    log.write(monitored)
    code, lines = run_status(capsys, "--json", "--limit", "100")
    told = json.loads("\n".join(lines))
    found = {each["connection_name"]: each for each in told["connections"]}
    assert code == 1
    assert [found["killed"][name] for name in ("state", "last_state", "consecutive_failures")] == [
        "failing",
        "orphaned",
        1,
    ]
    assert [found["alive"][name] for name in ("state", "last_state")] == ["ok", "running"]
    assert sorted(run["state"] for run in told["runs"] if run["state"] != "completed") == [
        "orphaned",
        "running",
    ]


@pytest.mark.slow
def test_colours_are_for_terminals_that_want_them(
    monitored: Warehouse, project: Project, log: Log
) -> None:
    log.run("me", HOUR, "SourceError")
    log.write(monitored)

    def printed(**environment: str) -> str:
        reader, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, str(PROJECT_DIR / "loaders" / "run.py"), "status"],
            env={**os.environ, "TERM": "xterm", **environment},
            stdout=terminal,
        )
        assert process.wait(60) == 1
        os.close(terminal)
        text = os.read(reader, 100_000).decode()
        os.close(reader)
        return text

    assert "\x1b[31mfailing\x1b[0m" in printed()
    plain = printed(NO_COLOR="1")
    assert "failing" in plain
    assert "\x1b" not in plain
    assert "\x1b" not in project.run_cli("status").stdout
