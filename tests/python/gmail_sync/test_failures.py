"""Messages that fail, an API that is down, retries and pauses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import AskedToPause, TransientSourceError
from loaders.ingestion.ingest import DeadLettered, FetchIncomplete, IngestOptions
from loaders.objects.items import Item, Observed
from loaders.sources.contract import FetchRequest
from loaders.sources.gmail import fetching
from loaders.sources.gmail.source import GmailSource
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from tests.python.conftest import (
    MAILBOX_SIZE,
    assert_accounted,
    events,
    position,
    run_gmail,
    stored,
)
from tests.python.test_ingest_gmail import fault, fetched

from .conftest import Killed, assert_mirrors, live, poisoned

pytestmark = [pytest.mark.usefixtures("merge_only", "stays_open"), pytest.mark.slow]


def test_what_was_read_before_a_pause_that_takes_too_long_is_landed(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    mailbox.set_faults(
        [
            {
                "match": {"method": "messages.get"},
                "skip": 12,
                "times": None,
                "action": {"status": 429, "retry_after": 9_000},
            }
        ]
    )
    run = run_gmail(warehouse, mailbox)
    assert type(run.error) is AskedToPause
    assert run.error.exit_code == 75
    failed = events(warehouse, run.correlation_id)[-1]
    assert failed["event_type"] == "job.failed"
    assert failed["payload"]["retryable"] is True
    [(landed,)] = warehouse.execute("select count(*) from events_staging.landed_objects")
    assert landed > 0
    mailbox.set_faults([])
    mailbox.reset_stats()
    assert run_gmail(warehouse, mailbox).error is None
    assert fetched(mailbox) == len(mailbox.live_ids()) - landed
    assert_mirrors(warehouse, mailbox)


def test_a_message_that_keeps_failing_is_set_aside_by_the_second_run(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    culprit = mailbox.live_ids()[3]
    fault(mailbox, "messages.get", culprit, times=None, status=500)
    first = run_gmail(warehouse, mailbox)
    assert isinstance(first.error, FetchIncomplete)
    assert first.error.retryable
    assert first.telemetry["unfetched"] == 1
    assert (position(warehouse) or {})["unfetched"] == [culprit]
    assert set(live(warehouse)) == set(mailbox.live_ids()) - {culprit}
    assert events(warehouse, first.correlation_id)[-1]["event_type"] == "job.failed"

    mailbox.change(deliver=1)
    second = run_gmail(warehouse, mailbox)
    assert isinstance(second.error, DeadLettered)
    assert second.telemetry["new_dead_letters"] == 1
    assert set(live(warehouse)) == set(mailbox.live_ids()) - {culprit}
    [letter] = Stored(warehouse, "gmail", "acct1").dead_letters()
    assert (letter.external_id, letter.attempts) == (culprit, 2)

    third = run_gmail(warehouse, mailbox)
    assert third.error is None
    assert third.telemetry["api_units"] == 2
    for run in (first, second, third):
        assert_accounted(run.telemetry)


def test_a_message_that_fails_once_is_stored_by_the_next_run(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    mailbox.change(deliver=2)
    culprit = mailbox.live_ids()[0]
    fault(mailbox, "messages.get", culprit, times=4, status=503)
    assert isinstance(run_gmail(warehouse, mailbox).error, FetchIncomplete)
    assert run_gmail(warehouse, mailbox).error is None
    assert_mirrors(warehouse, mailbox)
    assert "unfetched" not in (position(warehouse) or {})


def test_an_api_that_is_down_fails_the_run_and_sets_nothing_aside(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    fault(mailbox, "messages.get", times=None, status=503)
    for _ in range(2):
        run = run_gmail(warehouse, mailbox)
        assert isinstance(run.error, TransientSourceError)
    assert Stored(warehouse, "gmail", "acct1").dead_letters() == []


def killed_after(objects: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the source die after so many objects."""
    fetch = GmailSource.fetch

    def dying(self: GmailSource, request: FetchRequest) -> Iterator[Item]:
        left = objects
        for item in fetch(self, request):
            yield item
            left -= isinstance(item, Observed)
            if left == 0:
                raise Killed

    monkeypatch.setattr(GmailSource, "fetch", dying)


@pytest.mark.parametrize("mode", ["backfill", "incremental", "resync"])
def test_a_killed_run_costs_a_chunk_at_most(
    warehouse: Warehouse, mailbox: Sandbox, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    chunk = 4
    options = IngestOptions(batch_size=chunk)
    if mode != "backfill":
        run_gmail(warehouse, mailbox)
        mailbox.change(deliver=20, labels={"ids": 3, "add": ["Label_2"]}, delete=2)
    if mode == "resync":
        history_id = mailbox.change(deliver=1)["history_id"]
        mailbox.settings(history_expired_before=history_id)
    to_fetch = len(set(mailbox.live_ids()) - set(live(warehouse)))
    mailbox.reset_stats()
    with monkeypatch.context() as patch:
        killed_after(11, patch)
        with pytest.raises(Killed):
            run_gmail(warehouse, mailbox, options, workers=1)
    # One more is under way when the process dies, and a window of them is requested.
    window = 4
    run = run_gmail(warehouse, mailbox, options, workers=1)
    assert run.error is None
    assert fetched(mailbox) <= to_fetch + 3 + chunk + window
    assert_mirrors(warehouse, mailbox)


def test_what_is_no_name_is_not_repeated_as_a_reason(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    fault(mailbox, "getProfile", times=None, status=403, reason="ann@example.com: Falcon")
    run = run_gmail(warehouse, mailbox)
    assert "403 unknown" in str(run.error)
    assert "Falcon" not in json.dumps(events(warehouse), default=str)


def test_a_thread_that_fails_is_read_message_by_message(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    mailbox.set_faults(
        [
            {"match": {"method": "threads.get"}, "times": None, "action": {"status": 500}},
        ]
    )
    run = run_gmail(warehouse, mailbox, unit_costs={})
    assert run.error is None
    assert_mirrors(warehouse, mailbox)


def test_attachments_are_objects_too_up_to_a_size(warehouse: Warehouse) -> None:
    with Sandbox(size=120, seed=4) as mailbox:
        run = run_gmail(warehouse, mailbox, attachment_max_bytes=1_500)
        rows = [row for row in stored(warehouse).values() if ":attachment:" in row["idem_key"]]
        assert len(rows) == run.telemetry["objects"]["attachment"] > 3
        messages = live(warehouse)
        for row in rows:
            message_id, _, part_id = row["external_id"].partition(":")
            assert json.loads(row["payload"])["size"] <= 1_500
            assert row["object_created_at"] == messages[message_id]["object_created_at"]
            assert part_id
        assert_accounted(run.telemetry)

        with_attachment = rows[0]["external_id"].partition(":")[0]
        mailbox.change(labels={"ids": [with_attachment], "add": ["Label_3"]})
        mailbox.reset_stats()
        run_gmail(warehouse, mailbox, attachment_max_bytes=1_500)
        assert "messages.attachments.get" not in mailbox.stats()["requests"]
        mailbox.change(delete=[with_attachment])
        run_gmail(warehouse, mailbox, attachment_max_bytes=1_500)
        assert stored(warehouse)[rows[0]["external_id"]]["deleted_at"] is not None
        mailbox.change(restore=[with_attachment])
        run_gmail(warehouse, mailbox, attachment_max_bytes=1_500)
        assert stored(warehouse)[rows[0]["external_id"]]["deleted_at"] is None


def test_a_retry_reads_dead_letters_again_and_settles_them(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    ids = mailbox.live_ids()
    poisoned = [{"match": {"method": "messages.get", "id": key}, "times": None} for key in ids[:3]]
    mailbox.set_faults([{**rule, "action": {"json": [1]}} for rule in poisoned])
    run_gmail(warehouse, mailbox)
    assert len(Stored(warehouse, "gmail", "acct1").dead_letters()) == 3

    mailbox.set_faults([{**poisoned[0], "action": {"json": [1]}}])
    mailbox.change(delete=[ids[2]])
    mailbox.reset_stats()
    run = run_gmail(warehouse, mailbox, IngestOptions(retry=True))
    assert isinstance(run.error, DeadLettered)
    assert run.telemetry["mode"] == "retry"
    assert mailbox.stats()["requests"] == {"messages.get": 3}
    assert run.counts == {"inserted": 1}
    assert run.telemetry["gone"] == 1
    assert_accounted(run.telemetry)
    [letter] = Stored(warehouse, "gmail", "acct1").dead_letters()
    assert letter.external_id == ids[0]

    mailbox.set_faults([])
    run = run_gmail(warehouse, mailbox, IngestOptions(retry=True))
    assert run.error is None
    rows = warehouse.execute("select count(*) from events_staging.dead_letters")
    assert rows == [(0,)]
    run_gmail(warehouse, mailbox)
    assert_mirrors(warehouse, mailbox)


def test_a_letter_with_nothing_but_a_text_is_tried_again(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    fault(mailbox, "labels.list", json={"labels": [{"name": "no id"}]})
    run = run_gmail(warehouse, mailbox, labels_interval_hours=0.0)
    assert isinstance(run.error, DeadLettered)
    run = run_gmail(warehouse, mailbox, IngestOptions(retry=True))
    assert isinstance(run.error, DeadLettered)
    [letter] = Stored(warehouse, "gmail", "acct1").dead_letters()
    assert letter.reason == "gmail label without an id"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "invalidArgument"),
        (400, "failedPrecondition"),
        (401, "authError"),
        (403, "domainPolicy"),
    ],
)
def test_one_object_that_is_refused_does_not_end_the_run(
    warehouse: Warehouse, status: int, reason: str
) -> None:
    with Sandbox(size=60, seed=4) as mailbox:
        culprit = mailbox.live_ids()[0]
        refused = {"status": status, "reason": reason}
        attachments = {"method": "messages.attachments.get"}
        mailbox.set_faults(
            [
                {"match": match, "times": None, "action": refused}
                for match in (attachments, {"method": "messages.get", "id": culprit})
            ]
        )
        first = run_gmail(warehouse, mailbox, attachment_max_bytes=10_000)
        assert isinstance(first.error, FetchIncomplete)
        second = run_gmail(warehouse, mailbox, attachment_max_bytes=10_000)
        assert isinstance(second.error, DeadLettered)
        assert set(live(warehouse)) == set(mailbox.live_ids()) - {culprit}
        letters = Stored(warehouse, "gmail", "acct1").dead_letters()
        assert {letter.object_type for letter in letters} == {"message", "attachment"}
        assert_accounted(second.telemetry)
        mailbox.set_faults([])
        run = run_gmail(warehouse, mailbox, IngestOptions(retry=True), attachment_max_bytes=10_000)
        assert run.error is None
        assert Stored(warehouse, "gmail", "acct1").dead_letters() == []
        assert set(live(warehouse)) == set(mailbox.live_ids())


def letters(warehouse: Warehouse) -> set[str | None]:
    return {letter.external_id for letter in Stored(warehouse, "gmail", "acct1").dead_letters()}


@pytest.mark.parametrize("healthy", [slice(-15, None), slice(15), slice(0, 60, 4)])
@pytest.mark.parametrize("options", [IngestOptions(), IngestOptions(max_objects=9)])
def test_any_number_of_failing_messages_is_got_through(
    warehouse: Warehouse, healthy: slice, options: IngestOptions
) -> None:
    with Sandbox(size=60, seed=7) as mailbox:
        ids = mailbox.live_ids(include_spam_trash=True)
        good = set(ids[healthy])
        mailbox.set_faults(poisoned(*set(ids) - good))
        runs = 0
        run = None
        while run is None or run.error or run.telemetry["has_more"]:
            run = run_gmail(warehouse, mailbox, options, include_spam_trash=True)
            runs += 1
            assert runs <= 14, run.error
            assert_accounted(run.telemetry)
    assert len(good) == 15
    assert set(live(warehouse)) == good
    assert letters(warehouse) == set(ids) - good
    count = "select count(*) from events_staging.dead_letters"
    assert warehouse.execute(count) == [(len(ids) - len(good),)]


def test_an_api_that_is_down_halfway_sets_nothing_aside(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    down = {"match": {"method": "messages.get"}, "times": None, "action": {"status": 503}}
    for skip in (10, 2, 9):
        mailbox.set_faults([{**down, "skip": skip}])
        run = run_gmail(warehouse, mailbox)
        assert isinstance(run.error, FetchIncomplete)
        assert run.telemetry["has_more"]
        assert_accounted(run.telemetry)
    waiting = (position(warehouse) or {})["unfetched"]
    assert waiting
    mailbox.set_faults([down])
    assert isinstance(run_gmail(warehouse, mailbox).error, TransientSourceError)
    assert (position(warehouse) or {})["unfetched"] == waiting
    mailbox.set_faults([])
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert not run.telemetry["has_more"]
    assert letters(warehouse) == set()
    assert_mirrors(warehouse, mailbox)


def test_a_held_message_that_keeps_failing_is_not_taken_for_an_outage(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    culprit = mailbox.live_ids()[0]
    mailbox.set_faults(poisoned(culprit))
    for error in (FetchIncomplete, DeadLettered):
        mailbox.change(labels={"ids": [culprit], "add": ["Label_4"]})
        assert isinstance(run_gmail(warehouse, mailbox).error, error)
        mailbox.change(labels={"ids": [culprit], "remove": ["Label_4"]})
    assert letters(warehouse) == {culprit}


def test_a_message_that_failed_and_was_removed_is_not_waited_for(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    culprit = mailbox.live_ids()[3]
    mailbox.set_faults(poisoned(culprit))
    assert isinstance(run_gmail(warehouse, mailbox).error, FetchIncomplete)
    mailbox.change(delete=[culprit])
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert "unfetched" not in (position(warehouse) or {})
    assert_mirrors(warehouse, mailbox)


def test_a_full_resync_in_bounded_runs_gets_past_failing_messages(
    warehouse: Warehouse, mailbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of so many that fail, those drawn to see whether any can be read might all be.
    monkeypatch.setattr(fetching, "_CHOSEN", MAILBOX_SIZE)
    run_gmail(warehouse, mailbox)
    ids = mailbox.live_ids()
    mailbox.set_faults(poisoned(*ids[:8]))
    options = IngestOptions(full_resync=True, max_objects=4)
    runs = [run_gmail(warehouse, mailbox, options)]
    while runs[-1].telemetry["has_more"]:
        assert len(runs) < len(ids)
        runs.append(run_gmail(warehouse, mailbox, options))
    assert letters(warehouse) == set(ids[:8])
    mailbox.set_faults([])
    assert run_gmail(warehouse, mailbox, IngestOptions(full_resync=True)).error is None
    assert letters(warehouse) == set()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("messages.list", {"messages": None}),
        ("labels.list", {"labels": [{"name": "no id"}]}),
        ("history.list", {"history": None}),
    ],
)
def test_an_answer_without_what_a_resync_needs_fails_it_in_one_line(
    warehouse: Warehouse, mailbox: Sandbox, method: str, answer: dict[str, Any]
) -> None:
    run_gmail(warehouse, mailbox)
    mailbox.settings(history_expired_before=mailbox.change(deliver=1)["history_id"])
    rule = {"match": {"method": method}, "times": None, "action": {"json": answer}}
    mailbox.set_faults([rule])
    run = run_gmail(warehouse, mailbox)
    assert isinstance(run.error, TransientSourceError)
    assert f"{method} answered something else" in str(run.error)
