"""What BigQuery refuses: one line that says what to do, no retry of what is permanent."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from loaders.errors import WarehouseError
from loaders.settings.target import load_target
from loaders.warehouse.bigquery import BigQueryWarehouse, is_transient_message

from .conftest import EMULATOR_TARGET, Project

# Status, reason and message as BigQuery's REST API gives them (docs, "Error messages").
REFUSALS = {
    "wrong project": (
        404,
        "notFound",
        "Not found: Project landfall-dev",
        "correct the target's project",
    ),
    "no permission": (
        403,
        "accessDenied",
        "Access Denied: Dataset landfall-dev:events: Permission bigquery.tables.create denied",
        "docs/bigquery.md",
    ),
    "no jobs": (
        403,
        "accessDenied",
        "Access Denied: Project landfall-dev: User does not have bigquery.jobs.create permission",
        "docs/bigquery.md",
    ),
    "expired token": (
        401,
        "authError",
        "Request had invalid authentication credentials.",
        "authorise again",
    ),
    "wrong location": (
        404,
        "notFound",
        "Not found: Dataset landfall-dev:events was not found in location EU",
        "target's location",
    ),
    "bytes billed": (
        500,
        "bytesBilledLimitExceeded",
        "Query exceeded limit for bytes billed: 1000. 10485760 or higher required.",
        "raise maximum_bytes_billed",
    ),
}
refusal = pytest.mark.parametrize(
    ("status", "reason", "message", "step"), REFUSALS.values(), ids=REFUSALS.keys()
)


@contextlib.contextmanager
def refusing(status: int, reason: str, message: str) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every request with one error: its URL, and the requests' paths.

    The emulator has no permissions, locations or limits that it could refuse by.
    """
    error = {"reason": reason, "message": message, "domain": "global"}
    body = json.dumps({"error": {"code": status, "message": message, "errors": [error]}}).encode()
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            paths.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", paths
    finally:
        server.shutdown()
        server.server_close()


@refusal
def test_a_refused_statement_says_what_to_do_and_is_not_repeated(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    reason: str,
    message: str,
    step: str,
) -> None:
    with refusing(status, reason, message) as (url, paths):
        monkeypatch.setenv("LANDFALL_EMULATOR_URL", url)
        warehouse = BigQueryWarehouse(load_target(EMULATOR_TARGET))
        with pytest.raises(WarehouseError) as caught:
            warehouse.execute("select 1")
    if status != 401:  # Google's library tries to get a new token and says that it cannot
        assert message in str(caught.value)
    assert step in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(paths) == 1


def test_a_table_that_is_missing_says_nothing_of_the_location(project: Project) -> None:
    """BigQuery names the location whatever it does not find."""
    message = "Not found: Table landfall-dev:events.event_log was not found in location EU"
    assert BigQueryWarehouse(load_target(EMULATOR_TARGET)).with_next_step(message) == message


@pytest.mark.parametrize(
    ("message", "is_transient"),
    [
        ("Could not serialize access to table due to concurrent update", True),
        ("412 PATCH http://host/tables/stg_landed_objects: Precondition check failed.", True),
        ("Exceeded rate limits: too many table update operations for this table", True),
        ("Syntax error: Unexpected identifier", False),
    ],
)
def test_what_another_job_is_the_cause_of_may_be_repeated(message: str, is_transient: bool) -> None:
    assert is_transient_message(message) is is_transient


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no permission", "expired token"])
def test_a_run_that_is_refused_ends_in_one_line_and_spools_its_event(
    project: Project, name: str
) -> None:
    status, reason, message, step = REFUSALS[name]
    with refusing(status, reason, message) as (url, _):
        result = project.run_cli(
            *("gmail", "--connection", "sandbox", "--target", EMULATOR_TARGET),
            environment={"LANDFALL_EMULATOR_URL": url},
        )
    assert result.returncode == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert step in line
    assert "Traceback" not in result.stderr
    spooled = [
        json.loads(line)
        for file in (project.state_dir / "spool").rglob("*")
        if file.is_file()
        for line in file.read_text().splitlines()
    ]
    by_type = {event["event_type"]: event for event in spooled}
    assert sorted(by_type) == ["job.failed", "job.started"]
    assert step in by_type["job.failed"]["error_message"]
