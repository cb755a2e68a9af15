"""Several mailboxes in one command: a job each, none of which stops the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.jobs.job import Job
from loaders.settings.places import PROJECT_DIR
from loaders.warehouse.base import Warehouse

from .cli.conftest import one_line, run_main
from .conftest import MAILBOX_SIZE, Project, event_types

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAMES = ("ann", "bob", "cid")


@pytest.fixture
def mailboxes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Sandbox]]:
    """Three connections; bob's token is refused."""
    sandboxes = {
        name: Sandbox(size=MAILBOX_SIZE, seed=seed) for seed, name in enumerate(NAMES, start=1)
    }
    for name, sandbox in sandboxes.items():
        sandbox.start()
        prefix = f"SOURCES__GMAIL__{name.upper()}__"
        monkeypatch.setenv(f"{prefix}ACCESS_TOKEN", "expired" if name == "bob" else "any-token")
        monkeypatch.setenv(f"{prefix}API_BASE_URL", sandbox.base_url)
        monkeypatch.setenv(f"{prefix}UNITS_PER_MINUTE", "10000000")
    yield sandboxes
    for sandbox in sandboxes.values():
        sandbox.stop()


def jobs(warehouse: Warehouse) -> dict[str, list[str]]:
    rows = warehouse.execute("select distinct correlation_id from events.event_log")
    return {
        correlation_id.split("-")[0].removeprefix("gmail_ingest_"): event_types(
            warehouse, correlation_id
        )
        for (correlation_id,) in rows
    }


def test_one_that_is_busy_does_not_hide_one_that_has_failed(
    warehouse: Warehouse, project: Project, mailboxes: dict[str, Sandbox]
) -> None:
    running = Job(
        warehouse,
        job_name="gmail_ingest_ann",
        source_system="gmail",
        connection_name="ann",
    )
    running.start()
    done = project.run_cli("gmail", "--all", "--lock-wait", "0s")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "3 connections: 1 completed, 2 did not: ann, bob"
    done = project.run_cli("gmail", "--connection=ann", "--connection=cid", "--lock-wait", "0s")
    assert done.returncode == 75, done.stderr


def test_log_lines_in_json_stay_json_and_say_whose_they_are(
    warehouse: Warehouse, project: Project, mailboxes: dict[str, Sandbox]
) -> None:
    chosen = ("--connection=ann", "--connection=bob", "--parallel=2", "--log-format=json")
    done = project.run_cli("gmail", *chosen, "--lock-wait", "120s")
    assert done.returncode == 1, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    errors = [line for line in lines if line["level"] == "error"]
    assert [line["connection"] for line in errors] == ["gmail:bob"]
    assert "[ann] " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("--all", "--parallel", "3"), ("--connection", "ann", "--connection=bob", "--conn", "cid")],
    ids=["all at once", "named, one by one"],
)
def test_one_that_fails_does_not_stop_the_others(
    warehouse: Warehouse,
    project: Project,
    mailboxes: dict[str, Sandbox],
    arguments: tuple[str, ...],
) -> None:
    done = project.run_cli("gmail", *arguments, "--lock-wait", "120s")
    assert done.returncode == 1, done.stderr
    completed = ["job.started", "ingestion.completed", "job.completed"]
    assert jobs(warehouse) == {
        "ann": completed,
        "bob": ["job.started", "ingestion.failed", "job.failed"],
        "cid": completed,
    }
    assert done.stdout.splitlines()[-1] == "3 connections: 2 completed, 1 did not: bob"
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert "refused with 401" in errors[0]
    assert errors[0].startswith("[bob] error: " if "--parallel" in arguments else "error: ")
    for name in ("ann", "cid"):
        rows = warehouse.execute(
            "select external_id from events.raw_objects"
            " where connection_name = ? and object_type = 'message'",
            (name,),
        )
        assert {key for (key,) in rows} == set(mailboxes[name].live_ids())


def test_without_a_choice_nothing_runs(
    warehouse: Warehouse, mailboxes: dict[str, Sandbox], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(capsys, "gmail")
    assert code == 2
    assert "--all" in one_line(err)
    code, _, err = run_main(capsys, "gmail", "--connection", "ann", "--connection", "nobody")
    assert code == 2
    assert "no connection 'nobody'" in one_line(err)


def test_a_signal_ends_all_of_them(
    warehouse: Warehouse, project: Project, mailboxes: dict[str, Sandbox]
) -> None:
    for sandbox in mailboxes.values():
        sandbox.settings(latency=1.0)
    process = subprocess.Popen(
        [
            *(sys.executable, str(PROJECT_DIR / "loaders" / "run.py")),
            *("gmail", "--all", "--log-format", "json"),
        ],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("warehouse:"):
            break
    warehouse = project.open_warehouse(lock_wait=30.0)
    deadline = time.monotonic() + 60
    while not jobs(warehouse) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    [line] = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert (line["level"], line["connection"]) == ("error", "gmail:ann")
    assert "interrupted by signal 15" in line["message"]
    assert process.returncode == 128 + signal.SIGTERM
    [(name, types)] = jobs(warehouse).items()
    assert name == "ann"
    assert types[-1] == "job.failed"
    failed = warehouse.execute(
        "select payload from events.event_log where event_type = 'job.failed'"
    )
    assert json.loads(failed[0][0])["error_type"] == "Interrupted"


def test_retry_runs_what_has_dead_letters(
    warehouse: Warehouse,
    mailboxes: dict[str, Sandbox],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCES__GMAIL__ANN__UNIT_COSTS", json.dumps({"threads.get": 10_000}))
    culprit = mailboxes["ann"].live_ids()[0]
    no_message: dict[str, Any] = {"json": [1]}
    mailboxes["ann"].set_faults(
        [{"match": {"method": "messages.get", "id": culprit}, "times": None, "action": no_message}]
    )
    assert run_main(capsys, "gmail", "--connection", "ann")[0] == 1
    code, out, _ = run_main(capsys, "retry", "--connection", "bob")
    assert (code, out) == (0, "gmail 'bob': no dead letters\n")
    assert culprit in run_main(capsys, "dead-letters")[1]
    mailboxes["ann"].set_faults([])
    code, out, _ = run_main(capsys, "retry", "gmail", "--connection", "ann")
    assert code == 0
    assert "inserted:     1" in out
    assert run_main(capsys, "dead-letters")[1] == "no dead letters\n"
