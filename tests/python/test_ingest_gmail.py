"""Whole runs of the Gmail connection against the local stand-in, and what goes wrong there."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from typing import Any

import httplib2
import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import SourceError, TransientSourceError
from loaders.ingestion.ingest import DeadLettered, FetchIncomplete, Ingestion, IngestOptions
from loaders.warehouse.base import Warehouse

from .conftest import (
    LABELS,
    MAILBOX_SIZE,
    Project,
    Run,
    assert_accounted,
    count,
    duckdb_only,
    event_types,
    events,
    gmail_source,
    position,
    run_gmail,
    run_stripe,
    stored,
)

pytestmark = pytest.mark.usefixtures("merge_only", "stays_open")

ENDED_WELL = ["job.started", "ingestion.completed", "job.completed"]
DEAD_LETTERED = ["job.started", "ingestion.completed", "job.failed"]
REFUSED = ["job.started", "ingestion.failed", "job.failed"]


@pytest.mark.parametrize("run", [run_gmail, run_stripe], ids=["gmail", "stripe"])
def test_a_start_records_what_the_run_was_asked_for(
    warehouse: Warehouse, sandbox: Sandbox, run: Callable[..., Run]
) -> None:
    since = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    asked = IngestOptions(since=since, objects=("message", "charge"), batch_size=7, max_objects=3)
    started = [
        events(warehouse, run(warehouse, sandbox, options).correlation_id)[0]["payload"]
        for options in (IngestOptions(), asked)
    ]
    defaults = {
        "full_resync": False,
        "retry": False,
        "accept_deletions": False,
        "max_duration": 3000.0,
        "full_check": False,
    }
    assert started[0]["parameters"] == defaults
    assert started[1]["parameters"] == defaults | {
        "since": "2030-01-01T00:00:00+00:00",
        "objects": ["message", "charge"],
        "batch_size": 7,
        "max_objects": 3,
    }


def message_of(sandbox: Sandbox, message_id: str) -> dict[str, Any]:
    """A message as the stand-in sends it, without the attachment ids, new on every read."""
    _, content = httplib2.Http().request(
        f"{sandbox.base_url}/gmail/v1/users/me/messages/{message_id}",
        headers={"Authorization": "Bearer any"},
    )
    message: dict[str, Any] = without_attachment_ids(json.loads(content))
    return message


def without_attachment_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: without_attachment_ids(item)
            for name, item in value.items()
            if name != "attachmentId"
        }
    if isinstance(value, list):
        return [without_attachment_ids(item) for item in value]
    return value


def is_complete(warehouse: Warehouse) -> bool:
    """Whether the stored position covers the whole mailbox."""
    return (position(warehouse) or {"snapshot": "none"}).get("snapshot") is None


def fetched(sandbox: Sandbox) -> int:
    requests: dict[str, int] = sandbox.stats()["requests"]
    return requests.get("messages.get", 0)


def fault(sandbox: Sandbox, method: str, message_id: str | None = None, **rule: Any) -> None:
    match = {"method": method} | ({"id": message_id} if message_id else {})
    times = rule.pop("times", 1)
    sandbox.set_faults([{"match": match, "times": times, "action": rule}])


def dead_letters(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return warehouse.execute(
        "select external_id, reason, payload from events_staging.dead_letters order by external_id"
    )


def assert_ended(run: Run, warehouse: Warehouse, types: list[str]) -> None:
    assert event_types(warehouse, run.correlation_id) == types
    if types[1] == "ingestion.completed":
        assert_accounted(run.telemetry)
        assert_accounted(events(warehouse, run.correlation_id)[1]["payload"])


def test_a_mailbox_is_stored_as_the_api_sent_it(warehouse: Warehouse, sandbox: Sandbox) -> None:
    run = run_gmail(warehouse, sandbox)
    assert run.error is None
    rows = stored(warehouse)
    live = sandbox.live_ids()
    assert set(rows) == set(live)
    assert_ended(run, warehouse, ENDED_WELL)
    assert run.counts == {"inserted": len(live) + LABELS}
    assert run.telemetry["objects"] == {"message": len(live), "label": LABELS}
    assert run.telemetry["mailbox"]["messages_total"] == MAILBOX_SIZE
    assert is_complete(warehouse)
    for message_id in live[:5] + live[-5:]:
        payload = json.loads(rows[message_id]["payload"])
        assert without_attachment_ids(payload) == message_of(sandbox, message_id)
        millis = int(payload["internalDate"])
        created_at = rows[message_id]["object_created_at"]
        assert created_at.timestamp() * 1000 == millis
        assert rows[message_id]["idem_key"] == f"gmail:acct1:message:{message_id}"


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 250])
def test_three_events_and_one_merge_for_any_number_of_objects(
    warehouse: Warehouse, size: int
) -> None:
    with Sandbox(size=size, seed=3) as sandbox:
        live = len(sandbox.live_ids())
        first = run_gmail(warehouse, sandbox)
        second = run_gmail(warehouse, sandbox)
    for run, landed in ((first, live + LABELS), (second, 0)):
        assert run.error is None
        assert_ended(run, warehouse, ENDED_WELL)
        assert run.telemetry["records_landed"] == landed
    assert {row["merged_by"] for row in stored(warehouse).values()} <= {first.correlation_id}
    assert len(stored(warehouse)) == live
    assert second.telemetry["mode"] == "incremental"


@pytest.mark.slow
def test_a_full_resync_changes_nothing_but_last_seen(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    run_gmail(warehouse, sandbox)
    before = stored(warehouse)
    sandbox.reset_stats()
    run = run_gmail(warehouse, sandbox, IngestOptions(full_resync=True))
    after = stored(warehouse)
    assert fetched(sandbox) == len(before)
    assert run.counts == {"unchanged": len(before) + LABELS}
    assert run.telemetry["mode"] == "resync"
    assert_ended(run, warehouse, ENDED_WELL)
    assert set(after) == set(before)
    for key, row in after.items():
        assert row["first_seen"] == before[key]["first_seen"]
        assert row["last_seen"] > before[key]["last_seen"]
        for name in ("payload_hash", "changed_at", "changed_by", "object_created_at"):
            assert row[name] == before[key][name]


@pytest.mark.slow
def test_a_second_run_fetches_nothing(warehouse: Warehouse, sandbox: Sandbox) -> None:
    run_gmail(warehouse, sandbox)
    sandbox.reset_stats()
    run = run_gmail(warehouse, sandbox)
    assert sandbox.stats()["requests"] == {"history.list": 1}
    assert run.counts == {}
    assert run.telemetry["records_extracted"] == 0
    assert run.telemetry["api_units"] == sandbox.stats()["units"] == 2
    assert_ended(run, warehouse, ENDED_WELL)


@pytest.mark.slow
def test_since_and_until_bound_what_is_fetched_and_leave_the_cursor_alone(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    dates = sorted(
        int(message_of(sandbox, message_id)["internalDate"]) for message_id in sandbox.live_ids()
    )
    since, until = (dt.datetime.fromtimestamp(dates[n] // 1000, dt.UTC) for n in (5, 15))
    options = IngestOptions(since=since, until=until)
    sandbox.reset_stats()
    run = run_gmail(warehouse, sandbox, options)
    moments = [row["object_created_at"] for row in stored(warehouse).values()]
    assert len(moments) == 10 == fetched(sandbox)
    assert all(since <= moment < until for moment in moments)
    assert position(warehouse) is None
    assert run.telemetry["date_filter"] == {
        "since": since.isoformat(),
        "until": until.isoformat(),
    }
    assert_ended(run, warehouse, ENDED_WELL)


@pytest.mark.slow
def test_bounded_runs_say_so_and_finish_in_the_end(warehouse: Warehouse, sandbox: Sandbox) -> None:
    live = len(sandbox.live_ids())
    options = IngestOptions(max_objects=(live + 2) // 3)
    runs: list[Run] = []
    while not runs or runs[-1].telemetry["has_more"]:
        assert not is_complete(warehouse)
        runs.append(run_gmail(warehouse, sandbox, options))
        assert_ended(runs[-1], warehouse, ENDED_WELL)
    assert len(runs) == 3
    assert len(stored(warehouse)) == live
    assert fetched(sandbox) == live
    assert is_complete(warehouse)


@pytest.mark.slow
def test_a_run_whose_time_is_over_ends_cleanly(warehouse: Warehouse, sandbox: Sandbox) -> None:
    run = run_gmail(warehouse, sandbox, IngestOptions(max_duration=0.0))
    assert run.error is None
    assert run.telemetry["has_more"] is True
    assert fetched(sandbox) == 1
    assert_ended(run, warehouse, ENDED_WELL)


@pytest.mark.parametrize(
    ("method", "action"),
    [
        pytest.param("messages.get", {"status": 429}, id="429"),
        pytest.param(
            "messages.get", {"status": 403, "reason": "rateLimitExceeded"}, id="403 rate limit"
        ),
        pytest.param(
            "messages.get", {"status": 403, "reason": "userRateLimitExceeded"}, id="403 user rate"
        ),
        pytest.param("messages.get", {"status": 503}, id="503"),
        pytest.param("messages.get", {"truncate": True}, id="truncated body"),
        pytest.param("messages.list", {"status": 503}, id="503 while listing"),
        pytest.param("messages.list", {"truncate": True}, id="truncated listing"),
        pytest.param("getProfile", {"status": 500}, id="500 for the profile"),
    ],
)
def test_what_passes_is_retried_and_counted(
    warehouse: Warehouse, sandbox: Sandbox, method: str, action: dict[str, Any]
) -> None:
    fault(sandbox, method, times=2, **action)
    run = run_extraction(warehouse, sandbox)
    assert run["retries"] == 2
    assert run["throttled_seconds"] > 0
    assert run["records_landed"] == len(sandbox.live_ids()) + LABELS
    assert_accounted(run)


def test_a_dropped_connection_is_retried(warehouse: Warehouse, sandbox: Sandbox) -> None:
    # httplib2 asks a second time by itself: the third drop is the second attempt's first.
    fault(sandbox, "messages.get", sandbox.live_ids()[3], times=3, drop=True)
    run = run_extraction(warehouse, sandbox)
    assert run["retries"] == 1
    assert run["records_landed"] == len(sandbox.live_ids()) + LABELS


def run_extraction(warehouse: Warehouse, sandbox: Sandbox) -> dict[str, Any]:
    """A dry run: everything of a run but landing, merge and events."""
    return ingestion(warehouse, sandbox).dry_run()


def ingestion(
    warehouse: Warehouse, sandbox: Sandbox, options: IngestOptions | None = None
) -> Ingestion:
    return Ingestion(
        warehouse,
        lambda: gmail_source(sandbox),
        source_system="gmail",
        connection_name="acct1",
        options=options or IngestOptions(),
    )


def test_what_does_not_pass_fails_the_run_and_can_be_retried(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    fault(sandbox, "messages.list", status=503, times=None)
    run = run_gmail(warehouse, sandbox)
    assert isinstance(run.error, TransientSourceError)
    assert "503" in str(run.error)
    assert_ended(run, warehouse, REFUSED)
    failed = events(warehouse, run.correlation_id)[-1]["payload"]
    assert (failed["retryable"], failed["step"]) == (True, "extract")


NO_JSON = {"body": "Sign in", "content_type": "application/json"}


@pytest.mark.slow
def test_a_body_that_is_no_json_is_never_set_aside(warehouse: Warehouse, sandbox: Sandbox) -> None:
    """It is somebody else's, or was cut off: no message is to blame, however often it comes."""
    culprit = sandbox.live_ids()[3]
    fault(sandbox, "messages.get", culprit, times=None, **NO_JSON)
    for _ in range(3):
        run = run_gmail(warehouse, sandbox)
        assert isinstance(run.error, FetchIncomplete)
        assert (run.telemetry["unfetched"], dead_letters(warehouse)) == (1, [])
    sandbox.set_faults([])
    assert run_gmail(warehouse, sandbox).error is None
    assert set(stored(warehouse)) == set(sandbox.live_ids())


REPEATED = '{"threadId": "x", "threadId": "y"}'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "reason"),
    [
        pytest.param({"mutate": {"remove": ["id"]}}, "without an id", id="no id"),
        pytest.param({"json": [1, 2]}, "not a JSON object", id="a list"),
        pytest.param({**NO_JSON, "body": REPEATED}, "repeats", id="repeated member"),
    ],
)
def test_an_answer_that_cannot_be_stored_is_set_aside_once(
    warehouse: Warehouse, sandbox: Sandbox, action: dict[str, Any], reason: str
) -> None:
    culprit = sandbox.live_ids()[3]
    fault(sandbox, "messages.get", culprit, times=None, **action)
    run = run_gmail(warehouse, sandbox)
    assert isinstance(run.error, DeadLettered)
    assert run.error.exit_code != 0
    assert set(stored(warehouse)) == set(sandbox.live_ids()) - {culprit}
    [(external_id, found, payload)] = dead_letters(warehouse)
    assert external_id == culprit
    assert reason in found
    assert payload
    assert_ended(run, warehouse, DEAD_LETTERED)
    assert events(warehouse, run.correlation_id)[-1]["payload"]["error_type"] == "DeadLettered"
    assert "Sign in" not in json.dumps(events(warehouse), default=str)

    sandbox.reset_stats()
    following = run_gmail(warehouse, sandbox)
    assert following.error is None
    assert fetched(sandbox) == 0
    assert len(dead_letters(warehouse)) == 1
    assert following.telemetry["dead_lettered"] == 0
    assert_ended(following, warehouse, ENDED_WELL)


@pytest.mark.slow
def test_a_full_resync_tries_dead_letters_again(warehouse: Warehouse, sandbox: Sandbox) -> None:
    culprit = sandbox.live_ids()[3]
    fault(sandbox, "messages.get", culprit, **NO_JSON)
    run_gmail(warehouse, sandbox)
    run = run_gmail(warehouse, sandbox, IngestOptions(full_resync=True))
    assert run.error is None
    assert set(stored(warehouse)) == set(sandbox.live_ids())
    assert_ended(run, warehouse, ENDED_WELL)
    following = run_gmail(warehouse, sandbox)
    assert_ended(following, warehouse, ENDED_WELL)
    assert following.telemetry["records_extracted"] == 0


@pytest.mark.parametrize(
    ("action", "step"),
    [
        pytest.param({"status": 401, "reason": "authError"}, "authorise again", id="401"),
        pytest.param(
            {"status": 403, "reason": "insufficientPermissions"}, "gmail.readonly", id="403 scope"
        ),
        pytest.param(
            {"status": 403, "reason": "accessNotConfigured"}, "enable the Gmail API", id="403 API"
        ),
        pytest.param({"status": 400, "reason": "invalidArgument"}, "page on errors", id="400"),
    ],
)
def test_a_refusal_is_one_line_with_the_next_step(
    warehouse: Warehouse, sandbox: Sandbox, action: dict[str, Any], step: str
) -> None:
    fault(sandbox, "getProfile", times=None, **action)
    run = run_gmail(warehouse, sandbox)
    assert isinstance(run.error, SourceError)
    assert not run.error.retryable
    message = str(run.error)
    assert message.startswith(f"gmail: getProfile refused with {action['status']} ")
    assert step in message
    assert "\n" not in message
    assert_ended(run, warehouse, REFUSED)
    failed = events(warehouse, run.correlation_id)[-1]
    assert failed["error_message"] == message
    assert failed["payload"]["retryable"] is False
    assert sandbox.stats()["requests"] == {"getProfile": 1}


def test_a_refusal_midway_lands_no_cursor(warehouse: Warehouse, sandbox: Sandbox) -> None:
    fault(sandbox, "messages.get", times=None, status=401, reason="authError")
    run = run_gmail(warehouse, sandbox)
    assert type(run.error) is SourceError
    assert_ended(run, warehouse, REFUSED)
    assert not is_complete(warehouse)


def test_a_message_that_vanishes_after_the_listing_is_gone(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    culprit = sandbox.live_ids()[3]
    fault(sandbox, "messages.get", culprit, status=404, reason="notFound")
    run = run_gmail(warehouse, sandbox)
    assert run.error is None
    assert run.telemetry["gone"] == 1
    assert culprit not in stored(warehouse)
    assert dead_letters(warehouse) == []
    assert_ended(run, warehouse, ENDED_WELL)


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("getProfile", "<html>"),
        ("getProfile", "{}"),
        ("messages.list", "[]"),
        ("messages.list", '{"messages": [{"threadId": "t"}]}'),
        ("messages.list", '{"messages": ["x"]}'),
        ("labels.list", '{"labels": [1]}'),
        ("labels.list", "<html>"),
    ],
)
def test_an_answer_that_is_not_the_api_s_fails_the_run_in_one_line(
    warehouse: Warehouse, sandbox: Sandbox, method: str, body: str
) -> None:
    fault(sandbox, method, times=None, body=body)
    run = run_gmail(warehouse, sandbox)
    assert isinstance(run.error, TransientSourceError)
    assert f"{method} answered something else" in str(run.error)
    assert_ended(run, warehouse, REFUSED)


def test_a_repeated_page_token_is_noticed(warehouse: Warehouse, sandbox: Sandbox) -> None:
    page = {"messages": [{"id": sandbox.live_ids()[0]}], "nextPageToken": "again"}
    fault(sandbox, "messages.list", times=None, json=page)
    run = run_gmail(warehouse, sandbox)
    assert isinstance(run.error, TransientSourceError)
    assert "page token" in str(run.error)
    assert_ended(run, warehouse, REFUSED)
    assert sandbox.stats()["requests"]["messages.list"] <= 3


def test_an_id_listed_twice_is_fetched_once(warehouse: Warehouse, sandbox: Sandbox) -> None:
    ids = sandbox.live_ids()[:2]
    page = {"messages": [{"id": ids[0]}, {"id": ids[1]}, {"id": ids[0]}]}
    fault(sandbox, "messages.list", json=page)
    telemetry = run_extraction(warehouse, sandbox)
    assert telemetry["objects"]["message"] == fetched(sandbox) == 2
    assert_accounted(telemetry)


@duckdb_only("a file")
def test_a_dry_run_creates_no_file(project: Project, sandbox: Sandbox) -> None:
    telemetry = run_extraction(project.open_warehouse(), sandbox)
    assert telemetry["records_landed"] == len(sandbox.live_ids()) + LABELS
    assert_accounted(telemetry)
    assert list(project.duckdb_path.parent.iterdir()) == []
    assert not project.state_dir.exists()


@duckdb_only("a file")
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [IngestOptions(), IngestOptions(full_resync=True)],
    ids=["everything held", "everything read again"],
)
def test_a_dry_run_leaves_an_existing_file_as_it_is(
    warehouse: Warehouse, project: Project, sandbox: Sandbox, options: IngestOptions
) -> None:
    run_gmail(warehouse, sandbox)
    before = snapshot(project)
    ingestion(warehouse, sandbox, options).dry_run()
    assert snapshot(project) == before


def snapshot(project: Project) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for directory in (project.duckdb_path.parent, project.state_dir)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_new_mail_is_the_only_thing_fetched(warehouse: Warehouse) -> None:
    with Sandbox(size=MAILBOX_SIZE, seed=11) as sandbox:
        run_gmail(warehouse, sandbox)
        before = set(stored(warehouse))
        sandbox.change(deliver=4)
        sandbox.reset_stats()
        run = run_gmail(warehouse, sandbox)
        new = set(sandbox.live_ids()) - before
        assert fetched(sandbox) == len(new) > 0
        assert run.counts == {"inserted": len(new)}
        assert set(stored(warehouse)) == before | new
        assert_ended(run, warehouse, ENDED_WELL)


@pytest.mark.slow
def test_observations_never_go_back_in_time(
    warehouse: Warehouse, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumped ahead in an earlier run must not make the newer state stale."""
    ahead = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
    warehouse.execute(
        "insert into events_staging.cursors values ('gmail', 'acct1', 'messages', '{}', ?, 'l')",
        (ahead,),
    )
    run = run_gmail(warehouse, sandbox, IngestOptions(max_objects=2))
    assert run.error is None
    assert all(row["first_seen"] > ahead for row in stored(warehouse).values())
    assert count(warehouse, "events.raw_objects") == 2 + LABELS
