"""Usage: what is accepted, and what is no run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from loaders.cli import main
from loaders.jobs.job import Job
from loaders.settings.places import PROJECT_DIR
from loaders.warehouse.base import Warehouse
from tests.python.conftest import Project, event_types, events

from .conftest import configure, one_line, run_main

COMMON = ("--target", "--lock-wait", "--log-format", "--debug")


OPTIONS = {
    "gmail": (
        "--connection", "--since", "--until", "--full-resync", "--batch-size", "--max-duration",
        "--max-objects", "--until-done", "--dry-run", "--sandbox-size",
    ),
    "check": ("gmail", "--connection"),
    "build": ("DBT_ARGUMENT",),
    "status": ("--limit", "--json"),
    "dead-letters": ("--limit", "--json", "list", "show", "drop"),
    "verify": ("gmail", "--connection", "--payloads", "--limit", "--json"),
    "erase": (
        "--source", "--connection", "--object", "--where", "--again", "--expired", "--reason",
        "--dry-run",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", OPTIONS)
def test_help_mentions_every_option(
    project: Project, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, out, _ = run_main(capsys, command, "--help")
    assert code == 0
    for option in (*COMMON, *OPTIONS[command]):
        assert option in out


def test_help_lists_commands_examples_and_exit_codes(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run_main(capsys, "--help")
    assert code == 0
    for word in (*OPTIONS, "examples:", "exit codes:", "75", "143"):
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["gmail", "--since", "yesterday"], "2026-01-31", id="since"),
        pytest.param(["gmail", "--since", "-7weeks"], "-7d", id="since, relative"),
        pytest.param(["gmail", "--until", "31.1.2026"], "2026-01-31T12:00", id="until"),
        pytest.param(["gmail", "--batch-size", "0"], "whole number from 1", id="batch size"),
        pytest.param(["gmail", "--max-duration", "soon"], "s, m or h", id="duration"),
        pytest.param(["status", "--limit", "-3"], "whole number from 1", id="limit"),
        pytest.param(["gmial"], "invalid choice", id="command"),
        pytest.param(["gmail", "--frist"], "unrecognized", id="option"),
        pytest.param([], "COMMAND", id="nothing"),
    ],
)
def test_wrong_usage_names_what_is_accepted(
    project: Project, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    code, _, err = run_main(capsys, *arguments)
    assert code == 2
    assert expected in err


def test_since_after_until_is_refused(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_main(capsys, "gmail", "--since", "2026-02-01", "--until", "2026-01-01")
    assert code == 2
    assert "--until" in one_line(err)


def test_an_unknown_connection_is_one_line_with_the_next_step(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(capsys, "gmail", "--connection", "nowhere")
    assert code == 2
    line = one_line(err)
    assert "no connection 'nowhere'" in line
    assert "[sources.gmail.nowhere]" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param(["gmail", "--connection", "nowhere"], "'nowhere'", id="connection"),
        pytest.param(["retry", "gmail", "--connection", "nowhere"], "'nowhere'", id="retry"),
        pytest.param(["stripe", "--objects", "chargee"], "chargee", id="objects"),
        pytest.param(["gmail", "--since", "-1d", "--until", "-2d"], "--until", id="period"),
        pytest.param(["build", "--frist"], "No such option '--frist'", id="dbt's option"),
        pytest.param(["build", "--threads", "some"], "'some'", id="dbt's value"),
    ],
)
def test_wrong_usage_is_no_run(
    warehouse: Warehouse,
    project: Project,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    named: str,
) -> None:
    """No row, and so no alert; what was typed is shown."""
    configure(project, '[sources.gmail.one]\naccess_token = "x"\n')
    code, _, err = run_main(capsys, *arguments)
    assert code == 2
    assert named in one_line(err)
    assert event_types(warehouse) == []


def test_a_run_whose_configuration_is_gone_is_a_failed_job(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scheduler's log must show it."""
    job = Job(warehouse, job_name="j", source_system="gmail", connection_name="me")
    job.start()
    job.complete({})
    for arguments in (["gmail", "--connection", "me"], ["gmail"]):
        assert run_main(capsys, *arguments)[0] == 2
        assert event_types(warehouse)[-2:] == ["job.started", "job.failed"]
        assert events(warehouse)[-1]["payload"]["error_type"] == "ConfigError"


def test_who_stops_reading_is_told_nothing(
    warehouse: Warehouse, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `status | head` does."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        assert main.main(["status"]) == 141
    assert capfd.readouterr().err == ""


READ_ONLY = {
    "state": ("LANDFALL_STATE_DIR", ["gmail", "--sandbox-size", "4"]),
    "warehouse": ("LANDFALL_DUCKDB_PATH", ["gmail", "--sandbox-size", "4"]),
    "dashboard": ("", ["dashboard", "--output", "{path}"]),
}


@pytest.mark.parametrize("place", READ_ONLY)
def test_a_place_that_takes_no_file_is_one_line(
    warehouse: Warehouse,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """/proc takes none, not even root's."""
    variable, arguments = READ_ONLY[place]
    path = "/proc/sys/landfall"
    if variable:
        monkeypatch.setenv(variable, path)
    code, _, err = run_main(capsys, *(each.format(path=path) for each in arguments))
    assert code in (1, 2)
    line = err.strip().splitlines()[-1]
    assert path in line
    assert "Errno" not in line
    assert "--debug" not in line
    assert "Traceback" not in err


def test_help_loads_no_library_that_runs_need() -> None:
    code = (
        "import runpy, sys; sys.argv = ['run.py', '--help']\n"
        f"try: runpy.run_path({str(PROJECT_DIR / 'loaders' / 'run.py')!r}, run_name='__main__')\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "loaders.cli.main" in loaded
    heavy = {"dlt", "dbt", "duckdb", "google.auth", "googleapiclient", "pyarrow", "requests"}
    assert not loaded & heavy
