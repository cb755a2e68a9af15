"""Runs, status, dead letters and builds from the command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.settings.places import PROJECT_DIR
from loaders.transform import views
from loaders.warehouse.base import Warehouse
from tests.python.conftest import Project, event_types, events, gmail_source, run_gmail

from .conftest import SECRET, one_line, run_main

HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=len(sys.argv) > 2)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another_process(path: Path, *, read_only: bool = False) -> Iterator[None]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *(["read-only"] if read_only else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.communicate()


@pytest.mark.parametrize("command", ["gmail", "status", "dead-letters", "build"])
def test_a_file_held_by_another_process_is_exit_75_and_one_line(
    warehouse: Warehouse,
    project: Project,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.setenv("SOURCES__GMAIL__ONE__ACCESS_TOKEN", "any-token")
    with held_by_another_process(project.duckdb_path):
        code, _, err = run_main(capsys, command, "--lock-wait", "0s")
    assert code == 75
    line = one_line(err)
    assert str(project.duckdb_path) in line
    assert "--lock-wait" in line


@pytest.mark.slow
@pytest.mark.parametrize("command", ["status", "dashboard"])
def test_a_file_that_another_process_reads_can_be_looked_at(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    views.build_views(warehouse)
    options = ("--output", str(project.directory / "page.html")) if command == "dashboard" else ()
    with held_by_another_process(project.duckdb_path, read_only=True):
        code, _, err = run_main(capsys, command, "--lock-wait", "0s", *options)
        assert (code, err) == (0, "")
        refused, _, err = run_main(capsys, "build", "--lock-wait", "0s")
    assert refused == 75
    assert "--lock-wait" in one_line(err)


def test_a_file_given_back_in_time_is_waited_for(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    held = contextlib.ExitStack()
    held.enter_context(held_by_another_process(project.duckdb_path))
    release = threading.Timer(0.3, held.close)
    release.start()
    code, _, _ = run_main(capsys, "status", "--lock-wait", "30s")
    release.join()
    assert code == 0


@pytest.mark.slow
def test_two_runs_of_a_connection_never_overlap(
    warehouse: Warehouse, sandbox: Sandbox, core_build: None
) -> None:
    """The second comes while the first fetches, is refused, and leaves no trace."""
    refused: list[Any] = []

    def open_source() -> Any:
        refused.append(run_gmail(warehouse, sandbox).error)
        return gmail_source(sandbox)

    first = Ingestion(
        warehouse,
        open_source,
        source_system="gmail",
        connection_name="acct1",
        options=IngestOptions(),
    )
    first.run()
    [error] = refused
    assert error.error_type == "WarehouseBusy"
    assert error.exit_code == 75
    assert first.job.correlation_id in str(error)
    assert event_types(warehouse) == ["job.started", "ingestion.completed", "job.completed"]


def test_a_run_that_is_to_skip_does_not_wait_for_one_of_its_connection(
    warehouse: Warehouse,
    project: Project,
    sandbox: Sandbox,
    no_build: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__ACCESS_TOKEN", "any-token")
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__API_BASE_URL", sandbox.base_url)
    command = ("gmail", "--connection", "acct1", "--lock-wait", "20s", "--skip-if-running")
    said: list[tuple[int, str, str]] = []

    def open_source() -> Any:
        said.append(run_main(capsys, *command))
        return gmail_source(sandbox)

    first = Ingestion(
        warehouse,
        open_source,
        source_system="gmail",
        connection_name="acct1",
        options=IngestOptions(),
    )
    first.run()
    [(code, out, _)] = said
    assert code == 0
    assert f"skipped: gmail: connection 'acct1' is being run by {first.job.correlation_id}" in out
    assert first.job.duration_seconds < 15
    assert event_types(warehouse) == ["job.started", "ingestion.completed", "job.completed"]


def test_status_before_any_run_says_how_to_start_one(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(capsys, "status")[:2] == (
        0,
        "no runs yet; start one with: python loaders/run.py gmail\n",
    )
    code, out, _ = run_main(capsys, "status", "--json")
    told = json.loads(out)
    assert (told.pop("spool")["waiting"], told) == (0, {"connections": [], "runs": []})
    assert code == 0
    assert run_main(capsys, "dead-letters")[:2] == (0, "no dead letters\n")
    assert run_main(capsys, "dead-letters", "--json")[:2] == (0, "[]\n")
    assert not project.duckdb_path.exists()


@pytest.mark.slow
def test_status_shows_runs_newest_first(
    warehouse: Warehouse,
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    core_build: None,
) -> None:
    good = run_gmail(warehouse, sandbox)
    sandbox.set_faults(
        [{"match": {"method": "history.list"}, "action": {"status": 401}, "times": None}]
    )
    bad = run_gmail(warehouse, sandbox)
    code, out, _ = run_main(capsys, "status")
    assert code == 1
    connection, runs = (part.splitlines() for part in out.split("\n\n"))
    assert connection[1].split()[:2] == ["gmail.acct1", "failing"]
    header, *rows = runs
    assert header.split()[:2] == ["started", "state"]
    assert [row.split()[-1] for row in rows[:2]] == [bad.correlation_id, good.correlation_id]
    assert [row.split()[3] for row in rows[:2]] == ["failed", "completed"]
    assert rows[2].startswith(f"{bad.correlation_id}: gmail: history.list refused with 401")
    _, out, _ = run_main(capsys, "status", "--json", "--limit", "1")
    [run] = json.loads(out)["runs"]
    assert run["correlation_id"] == bad.correlation_id
    assert run["state"] == "failed"
    assert run["ended_at"] > run["started_at"]
    assert run["error_type"] == "SourceError"


def test_dead_letters_are_listed_without_their_payload(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    warehouse.execute(
        "insert into events_staging.dead_letters by name select 'd1' as dead_letter_id, 'acme' as"
        " source_system, 'acct1' as connection_name, 'widget' as object_type, 'w1' as external_id,"
        " 'not JSON at character 0' as reason, ? as payload, 1 as attempts, 'run-1' as"
        " correlation_id, now() as created_at, 'l1' as _dlt_load_id",
        (SECRET,),
    )
    warehouse.execute(
        "insert into events_staging._dlt_loads (load_id, status, inserted_at)"
        " values ('l1', 0, now())"
    )
    _, out, _ = run_main(capsys, "dead-letters")
    assert "w1" in out
    assert "not JSON at character 0" in out
    _, as_json, _ = run_main(capsys, "dead-letters", "--json")
    assert json.loads(as_json)[0]["external_id"] == "w1"
    assert SECRET not in out + as_json


@pytest.mark.slow
def test_the_first_run_without_any_configuration(project: Project) -> None:
    done = project.run_cli("gmail", "--sandbox-size", "5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("connection: sandbox")
    for line in ("inserted:", "dead letters: 0 new", "tests:"):
        assert line in done.stdout
    assert event_types(project.open_warehouse()) == [
        "job.started",
        "ingestion.completed",
        "job.completed",
    ]


@pytest.mark.slow
def test_json_log_lines_carry_the_trace_id(project: Project) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    done = project.run_cli(
        "gmail", "--sandbox-size", "5", "--log-format", "json",
        environment={"TRACEPARENT": f"00-{trace_id}-00f067aa0ba902b7-01"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines
    for line in lines:
        assert line["trace_id"] == trace_id
        assert set(line) >= {"time", "level", "logger", "message"}
    assert {event["trace_id"] for event in events(project.open_warehouse())} == {trace_id}


def test_an_error_is_a_json_line_too(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(capsys, "gmail", "--connection", "nowhere", "--log-format", "json")
    assert code == 2
    line = json.loads(one_line(err))
    assert line["level"] == "error"
    assert "nowhere" in line["message"]


@pytest.mark.slow
def test_a_project_that_does_not_compile_is_a_failed_job(
    warehouse: Warehouse, project: Project
) -> None:
    """A copy of the project with one broken model: a plain dbt build would log nothing."""
    copy = project.directory / "broken"
    for name in ("loaders", "macros", "models", "seeds", "tests/acceptance"):
        shutil.copytree(
            PROJECT_DIR / name, copy / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(PROJECT_DIR / "dbt_project.yml", copy)
    (copy / "models" / "core" / "broken.sql").write_text("select {{ ref('nowhere') }} {% if %}")
    done = subprocess.run(
        [sys.executable, str(copy / "loaders" / "run.py"), "build"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert event_types(warehouse) == ["job.started", "job.failed"]
    failed = events(warehouse)[-1]
    assert failed["payload"]["error_type"] == "TransformFailed"
    assert failed["payload"]["step"] == "merge"
    assert "broken" in failed["error_message"]


@pytest.mark.slow
def test_build_is_a_logged_job(warehouse: Warehouse, project: Project) -> None:
    selection = ["--select", "stg_landed_objects", "raw_objects", "accepted_violations"]
    done = project.run_cli("build", *selection)
    assert done.returncode == 0, done.stdout + done.stderr
    started, completed = events(warehouse)
    assert started["payload"]["parameters"] == {"dbt_arguments": selection}
    assert completed["event_type"] == "job.completed"
    assert completed["payload"]["inserted"] == 0


@pytest.mark.slow
def test_a_build_that_selects_nothing_is_a_completed_job(
    warehouse: Warehouse, project: Project
) -> None:
    """dbt returns 0 and runs no hook then: the wrapper still logs it."""
    assert project.run_cli("build", "--select", "nowhere").returncode == 0
    assert event_types(warehouse) == ["job.started", "job.completed"]


def test_a_directory_that_does_not_exist_is_one_line(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = project.directory / "missing" / "landfall.duckdb"
    monkeypatch.setenv("LANDFALL_DUCKDB_PATH", str(missing))
    monkeypatch.setenv("SOURCES__GMAIL__ONE__ACCESS_TOKEN", "any-token")
    code, _, err = run_main(capsys, "gmail")
    assert code == 2
    line = one_line(err)
    assert str(missing) in line
    assert "its directory does not exist" in line


def test_a_warehouse_that_fills_up_is_one_line_and_a_spooled_event(
    warehouse: Warehouse,
    project: Project,
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the extract on nothing can be written any more: the end is spooled, not lost."""
    import duckdb

    from loaders.jobs.event_log import replay_spool, spool_dir

    connect = duckdb.connect
    monkeypatch.setenv("SOURCES__GMAIL__ONE__ACCESS_TOKEN", "any-token")
    monkeypatch.setenv("SOURCES__GMAIL__ONE__API_BASE_URL", sandbox.base_url)
    full = threading.Event()

    def refuse_when_full(*arguments: Any, **options: Any) -> Any:
        if full.is_set():
            raise duckdb.IOException("IO Error: Could not write file: No space left on device")
        return connect(*arguments, **options)

    def fill(*_: Any) -> Any:
        full.set()
        return iter(())

    monkeypatch.setattr(duckdb, "connect", refuse_when_full)
    monkeypatch.setattr("loaders.sources.gmail.source.GmailSource.fetch", fill)
    code, _, err = run_main(capsys, "gmail")
    assert code == 1
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "No space left" in last
    assert len(list(spool_dir(warehouse).glob("*.json"))) >= 1
    full.clear()
    replay_spool(warehouse)
    assert event_types(warehouse)[0] == "job.started"
    assert event_types(warehouse)[-1] == "job.failed"
