"""The sync of a mailbox: history, its expiry, snapshots, what a run leaves for the next."""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from landfall_sandbox.layout import LABEL_NAMES
from loaders.errors import AskedToPause, SourceError, TransientSourceError
from loaders.ingestion import ingest
from loaders.ingestion.ingest import DeadLettered, FetchIncomplete, IngestOptions
from loaders.jobs import crashpoints
from loaders.objects.items import Item, ObservationClock, Observed
from loaders.sources.contract import FetchRequest
from loaders.sources.gmail import fetching
from loaders.sources.gmail.source import GmailSource
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

from .conftest import (
    LABELS,
    MAILBOX_SIZE,
    Run,
    assert_accounted,
    events,
    on_both_targets,
    position,
    run_gmail,
    stored,
)
from .test_ingest_gmail import fault, fetched, message_of, without_attachment_ids

pytestmark = [pytest.mark.usefixtures("merge_only", "stays_open"), pytest.mark.slow]


@pytest.fixture
def mailbox() -> Iterator[Sandbox]:
    """A mailbox of the test's own, to change."""
    with Sandbox(size=MAILBOX_SIZE, seed=7) as sandbox:
        yield sandbox


def live(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    return {
        key: row
        for key, row in stored(warehouse).items()
        if row["deleted_at"] is None and ":message:" in row["idem_key"]
    }


def assert_mirrors(warehouse: Warehouse, sandbox: Sandbox, *, spam_trash: bool = False) -> None:
    """Live rows are the mailbox: the same messages, each as the API has it now."""
    rows = live(warehouse)
    ids = sandbox.live_ids(include_spam_trash=spam_trash)
    assert set(rows) == set(ids)
    for message_id in ids:
        payload = without_attachment_ids(json.loads(rows[message_id]["payload"]))
        assert payload == message_of(sandbox, message_id)


@on_both_targets
def test_history_brings_arrivals_label_changes_deletions_and_restores(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    labelled, kept, deleted = mailbox.live_ids()[:3]
    mailbox.change(
        deliver=3,
        labels={"ids": [labelled, kept], "add": ["STARRED", "Label_2"], "remove": ["UNREAD"]},
        delete=[deleted],
    )
    arrived = set(mailbox.live_ids()) - set(live(warehouse))
    mailbox.reset_stats()
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert run.telemetry["mode"] == "incremental"
    assert run.counts == {"inserted": len(arrived), "updated": 2, "deleted": 1}
    assert mailbox.stats()["requests"] == {
        "history.list": 1,
        "getProfile": 1,
        "messages.get": len(arrived) + 2,
    }
    assert stored(warehouse)[deleted]["deleted_at"] is not None
    assert_accounted(run.telemetry)
    assert_mirrors(warehouse, mailbox)

    mailbox.change(restore=[deleted])
    run = run_gmail(warehouse, mailbox)
    assert run.counts == {"undeleted": 1}
    assert_mirrors(warehouse, mailbox)


def test_what_is_moved_to_the_trash_leaves_and_comes_back(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    trashed, spam = mailbox.live_ids()[:2]
    mailbox.change(labels={"ids": [trashed], "add": ["TRASH"]})
    mailbox.change(labels={"ids": [spam], "add": ["SPAM"], "remove": ["INBOX"]})
    mailbox.reset_stats()
    run = run_gmail(warehouse, mailbox)
    assert run.counts == {"deleted": 2}
    assert fetched(mailbox) == 0
    assert_mirrors(warehouse, mailbox)
    mailbox.change(labels={"ids": [trashed], "remove": ["TRASH"]})
    run = run_gmail(warehouse, mailbox)
    assert run.counts == {"undeleted": 1}
    assert_mirrors(warehouse, mailbox)


def test_a_wider_scope_is_read_whole(warehouse: Warehouse, mailbox: Sandbox) -> None:
    run_gmail(warehouse, mailbox)
    run = run_gmail(warehouse, mailbox, include_spam_trash=True)
    assert run.telemetry["mode"] == "resync"
    assert fetched(mailbox) == MAILBOX_SIZE
    assert_mirrors(warehouse, mailbox, spam_trash=True)
    run_gmail(warehouse, mailbox)
    assert_mirrors(warehouse, mailbox)


def test_expired_history_is_made_up_for_by_a_snapshot(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    before = set(live(warehouse))
    labelled, deleted = mailbox.live_ids()[2:4]
    done = mailbox.change(
        deliver=2, labels={"ids": [labelled], "add": ["STARRED", "Label_3"]}, delete=[deleted]
    )
    mailbox.settings(history_expired_before=done["history_id"])
    mailbox.reset_stats()
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert run.telemetry["mode"] == "resync"
    arrived = set(mailbox.live_ids()) - before
    assert fetched(mailbox) == len(arrived) + 1
    assert_accounted(run.telemetry)
    assert_mirrors(warehouse, mailbox)
    mailbox.reset_stats()
    assert run_gmail(warehouse, mailbox).telemetry["mode"] == "incremental"
    assert mailbox.stats()["units"] == 2


@pytest.mark.parametrize("status", [400, 410])
def test_history_that_is_refused_as_nothing_else_is_made_up_for_by_a_snapshot(
    warehouse: Warehouse, mailbox: Sandbox, status: int
) -> None:
    run_gmail(warehouse, mailbox)
    mailbox.change(deliver=2, delete=mailbox.live_ids()[:1])
    fault(mailbox, "history.list", times=1, status=status, reason="invalidArgument")
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert run.telemetry["mode"] == "resync"
    assert_mirrors(warehouse, mailbox)
    assert run_gmail(warehouse, mailbox).telemetry["mode"] == "incremental"


@pytest.mark.parametrize(("status", "reason"), [(404, "notFound"), (400, "failedPrecondition")])
def test_a_mailbox_without_history_is_stored_all_the_same(
    warehouse: Warehouse, mailbox: Sandbox, status: int, reason: str
) -> None:
    """Gmail answers so to the current id of some mailboxes: their snapshot stays open."""
    fault(mailbox, "history.list", times=None, status=status, reason=reason)
    for number in range(3):
        if number:
            trashed, deleted, *labelled = mailbox.live_ids()[:4]
            mailbox.change(
                deliver=number, delete=[deleted], labels={"ids": labelled, "add": ["Label_4"]}
            )
            mailbox.change(labels={"ids": [trashed], "add": ["TRASH"]})
        run = run_gmail(warehouse, mailbox)
        assert run.error is None
        assert run.telemetry["without_history"] is True
        assert run.telemetry["has_more"] is False
        assert_accounted(run.telemetry)
        assert_mirrors(warehouse, mailbox)
        assert (position(warehouse) or {})["snapshot"] in ("backfill", "resync")
    mailbox.set_faults([])
    run = run_gmail(warehouse, mailbox)
    assert "snapshot" not in (position(warehouse) or {})
    assert_mirrors(warehouse, mailbox)


def test_a_message_that_a_listing_without_history_skips_is_asked_for(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    skipped = {"mutate": {"set": {"messages": [{"id": mailbox.live_ids()[0]}]}}}
    mailbox.set_faults(
        [
            {
                "match": {"method": "history.list"},
                "times": None,
                "action": {"status": 404, "reason": "notFound"},
            },
            {"match": {"method": "messages.list"}, "action": skipped},
        ]
    )
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert run.counts.get("deleted") is None
    assert_mirrors(warehouse, mailbox)


def test_a_label_that_cannot_be_listed_is_named_and_left_out(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    done = mailbox.change(labels={"ids": mailbox.live_ids()[:9], "add": ["Label_4"]})
    mailbox.settings(history_expired_before=done["history_id"])
    refusal = {"status": 400, "reason": "invalidArgument"}
    match = {"method": "messages.list"}
    mailbox.set_faults([{"match": match, "skip": 3, "action": refusal}])
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert len(run.telemetry["unlisted_labels"]) == 1
    assert_mirrors(warehouse, mailbox)

    mailbox.settings(history_expired_before=mailbox.change(deliver=1)["history_id"])
    mailbox.set_faults([{"match": match, "skip": 1, "times": None, "action": refusal}])
    run = run_gmail(warehouse, mailbox)
    assert isinstance(run.error, SourceError)
    assert "messages.list refused with 400" in str(run.error)


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


@pytest.mark.parametrize("status", [403, 500])
def test_only_a_refusal_is_taken_for_expired_history(
    warehouse: Warehouse, mailbox: Sandbox, status: int
) -> None:
    run_gmail(warehouse, mailbox)
    fault(mailbox, "history.list", times=None, status=status, reason="backendError")
    run = run_gmail(warehouse, mailbox)
    assert isinstance(run.error, SourceError)
    assert mailbox.stats()["requests"].get("messages.list", 0) == 1


def test_a_listing_that_skips_a_message_does_not_bury_it(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    mailbox.settings(history_expired_before=mailbox.change(deliver=1)["history_id"])
    fault(mailbox, "messages.list", mutate={"set": {"messages": []}})
    run = run_gmail(warehouse, mailbox)
    assert run.counts.get("deleted") is None
    assert set(live(warehouse)) <= set(mailbox.live_ids())


def test_label_changes_wait_when_they_cost_too_much(warehouse: Warehouse, mailbox: Sandbox) -> None:
    run_gmail(warehouse, mailbox)
    ids = mailbox.live_ids()
    mailbox.change(labels={"ids": ids[:5], "add": ["Label_4"], "remove": ["Label_5"]})
    mailbox.change(deliver=2)
    arrived = len(set(mailbox.live_ids()) - set(ids))
    costs = {"threads.get": 10_000, "messages.get": 20}
    changed = len({key for key in ids[:5] if is_changed(warehouse, mailbox, key)})
    runs: list[Run] = []
    while not runs or runs[-1].telemetry["has_more"]:
        mailbox.reset_stats()
        run = run_gmail(warehouse, mailbox, unit_costs=costs, label_change_units=65)
        assert run.error is None
        assert fetched(mailbox) <= 3 + (0 if runs else arrived)
        assert_accounted(run.telemetry)
        runs.append(run)
    assert [run.telemetry["deferred"] for run in runs] == [*range(changed - 3, 0, -3), 0]
    assert runs[0].counts["inserted"] == arrived
    assert sum(run.counts["updated"] for run in runs) == changed
    assert_mirrors(warehouse, mailbox)


def test_label_changes_come_to_an_end_whatever_the_units(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    mailbox.change(labels={"ids": mailbox.live_ids()[:2], "add": ["Label_4"]})
    run = run_gmail(warehouse, mailbox, label_change_units=0)
    while run.telemetry["has_more"]:
        before = run.telemetry["deferred"]
        run = run_gmail(warehouse, mailbox, label_change_units=0)
        assert run.telemetry["deferred"] < before
    assert_mirrors(warehouse, mailbox)


def is_changed(warehouse: Warehouse, sandbox: Sandbox, message_id: str) -> bool:
    payload = without_attachment_ids(json.loads(stored(warehouse)[message_id]["payload"]))
    return bool(payload != message_of(sandbox, message_id))


def test_label_changes_are_read_at_once_when_asked(warehouse: Warehouse, mailbox: Sandbox) -> None:
    run_gmail(warehouse, mailbox)
    mailbox.change(labels={"ids": mailbox.live_ids()[:9], "add": ["Label_4"]})
    run = run_gmail(warehouse, mailbox, label_changes="refetch", label_change_units=0)
    assert run.telemetry["deferred"] == 0
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


def test_a_message_that_failed_does_not_wait_behind_label_changes(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    old = mailbox.live_ids()[:4]
    mailbox.change(deliver=3)
    culprit = mailbox.live_ids()[0]
    fault(mailbox, "messages.get", culprit, times=4, status=503)
    assert isinstance(run_gmail(warehouse, mailbox).error, FetchIncomplete)
    mailbox.change(labels={"ids": old, "add": ["Label_6"]})
    mailbox.change(labels={"ids": [culprit], "add": ["Label_6"]})
    run = run_gmail(warehouse, mailbox, label_change_units=20)
    assert run.error is None
    assert run.telemetry["deferred"] > 0
    assert culprit in live(warehouse)


def test_an_api_that_is_down_fails_the_run_and_sets_nothing_aside(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    fault(mailbox, "messages.get", times=None, status=503)
    for _ in range(2):
        run = run_gmail(warehouse, mailbox)
        assert isinstance(run.error, TransientSourceError)
    assert Stored(warehouse, "gmail", "acct1").dead_letters() == []


class Killed(BaseException):
    """The process is gone: nothing after it happens."""


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


def test_a_full_resync_in_bounded_runs_ends(warehouse: Warehouse, mailbox: Sandbox) -> None:
    run_gmail(warehouse, mailbox)
    mailbox.reset_stats()
    total = len(mailbox.live_ids())
    run = run_gmail(warehouse, mailbox, IngestOptions(full_resync=True, max_objects=14))
    assert run.telemetry["has_more"]
    runs = [run]
    while runs[-1].telemetry["has_more"]:
        runs.append(run_gmail(warehouse, mailbox, IngestOptions(full_resync=True, max_objects=14)))
    assert fetched(mailbox) == total
    assert {run.telemetry["mode"] for run in runs} == {"resync"}
    assert_mirrors(warehouse, mailbox)


def test_a_backfill_in_bounded_runs_follows_the_mailbox(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run = run_gmail(warehouse, mailbox, IngestOptions(max_objects=14))
    held = sorted(live(warehouse))
    mailbox.change(labels={"ids": held[:2], "add": ["Label_6"]}, delete=held[2:4], deliver=2)
    rounds = 0
    while run.telemetry["has_more"]:
        run = run_gmail(warehouse, mailbox, IngestOptions(max_objects=14))
        assert run.telemetry["mode"] == "full"
        rounds += 1
    assert rounds >= 1
    assert_mirrors(warehouse, mailbox)


def test_another_mailbox_behind_the_same_name_is_refused(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    before = live(warehouse)
    with Sandbox(size=MAILBOX_SIZE, seed=9) as other:
        fault(other, "getProfile", times=None, mutate={"set": {"emailAddress": "b@example.com"}})
        other.settings(history_expired_before=other.change(deliver=1)["history_id"])
        for options in (IngestOptions(), IngestOptions(full_resync=True)):
            run = run_gmail(warehouse, other, options)
            assert type(run.error) is SourceError
            assert "another mailbox" in str(run.error)
            assert "(0 of 20 stored messages" in str(run.error)
    assert "example.com" not in json.dumps(events(warehouse), default=str)
    assert live(warehouse) == before


@pytest.mark.parametrize("full_resync", [False, True])
@pytest.mark.parametrize("renamed", [str.upper, lambda _: "b@example.org"], ids=["case", "name"])
def test_a_renamed_mailbox_is_known_by_its_messages(
    warehouse: Warehouse, mailbox: Sandbox, renamed: Callable[[str], str], full_resync: bool
) -> None:
    run_gmail(warehouse, mailbox)
    address = renamed((position(warehouse) or {})["mailbox"])
    mailbox.change(deliver=2, delete=mailbox.live_ids()[:2])
    fault(mailbox, "getProfile", times=None, mutate={"set": {"emailAddress": address}})
    run = run_gmail(warehouse, mailbox, IngestOptions(full_resync=full_resync))
    assert run.error is None
    assert_mirrors(warehouse, mailbox)
    before = set(mailbox.live_ids())
    mailbox.change(deliver=2)
    mailbox.reset_stats()
    assert run_gmail(warehouse, mailbox).error is None
    assert fetched(mailbox) == len(set(mailbox.live_ids()) - before)  # it is proved once


def test_a_mailbox_with_the_same_ids_and_other_messages_is_another(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    mailbox.change(deliver=1)
    mailbox.set_faults(
        [
            {"match": {"method": method}, "times": None, "action": {"mutate": {"set": value}}}
            for method, value in (
                ("getProfile", {"emailAddress": "b@example.org"}),
                ("messages.get", {"threadId": "another"}),
            )
        ]
    )
    assert "another mailbox" in str(run_gmail(warehouse, mailbox).error)


def test_another_mailbox_with_a_history_of_its_own_is_refused_too(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    before, stands = live(warehouse), position(warehouse)
    with Sandbox(size=MAILBOX_SIZE, seed=9) as other:
        fault(other, "getProfile", times=None, mutate={"set": {"emailAddress": "b@example.com"}})
        other.change(deliver=5, delete=2)
        run = run_gmail(warehouse, other)
    assert "another mailbox" in str(run.error)
    assert live(warehouse) == before
    assert position(warehouse) == stands


def test_what_is_no_name_is_not_repeated_as_a_reason(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    fault(mailbox, "getProfile", times=None, status=403, reason="ann@example.com: Falcon")
    run = run_gmail(warehouse, mailbox)
    assert "403 unknown" in str(run.error)
    assert "Falcon" not in json.dumps(events(warehouse), default=str)


def test_a_tombstone_that_waits_in_the_queue_is_one(warehouse: Warehouse, mailbox: Sandbox) -> None:
    run_gmail(warehouse, mailbox)
    victim = mailbox.live_ids()[0]
    mailbox.change(delete=[victim])

    def die(name: str) -> None:
        if name == "merge.before":
            raise Killed

    crashpoints.install(die)
    try:
        with pytest.raises(Killed):
            run_gmail(warehouse, mailbox)
    finally:
        crashpoints.install(None)
    mailbox.settings(history_expired_before=mailbox.change(restore=[victim])["history_id"])
    assert run_gmail(warehouse, mailbox).error is None
    assert_mirrors(warehouse, mailbox)


def test_a_bound_below_a_thread_s_size_gets_on(warehouse: Warehouse, mailbox: Sandbox) -> None:
    run = run_gmail(warehouse, mailbox, IngestOptions(max_objects=1), unit_costs={})
    for _ in range(40):
        if not run.telemetry["has_more"]:
            break
        run = run_gmail(warehouse, mailbox, IngestOptions(max_objects=8), unit_costs={})
    assert_mirrors(warehouse, mailbox)


@pytest.mark.parametrize("fetch_format", ["full", "metadata", "raw"])
def test_threads_are_read_whole_where_that_is_cheaper(
    warehouse: Warehouse, mailbox: Sandbox, fetch_format: str
) -> None:
    run = run_gmail(warehouse, mailbox, fetch_format=fetch_format, unit_costs={})
    requests = mailbox.stats()["requests"]
    ids = mailbox.live_ids()
    assert run.counts == {"inserted": len(ids) + LABELS}
    if fetch_format == "raw":
        assert "threads.get" not in requests
        return
    assert requests["threads.get"] > 0
    assert requests["messages.get"] < len(ids)
    assert run.telemetry["api_units"] < 20 * len(ids)
    for message_id in ids if fetch_format == "full" else ():
        payload = without_attachment_ids(json.loads(stored(warehouse)[message_id]["payload"]))
        assert payload == message_of(mailbox, message_id)


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


def test_labels_and_profile_are_read_when_they_are_due(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    run_gmail(warehouse, mailbox)
    labels = warehouse.execute(
        "select external_id from events.raw_objects where object_type = 'label'"
    )
    assert len(labels) == LABELS
    mailbox.reset_stats()
    run = run_gmail(warehouse, mailbox, labels_interval_hours=0.0)
    assert mailbox.stats()["requests"] == {"history.list": 1, "getProfile": 1, "labels.list": 1}
    assert run.counts == {"unchanged": LABELS}
    assert run.telemetry["mailbox"] == {
        "messages_total": MAILBOX_SIZE,
        "threads_total": run.telemetry["mailbox"]["threads_total"],
    }


def test_labels_are_read_again_though_a_clock_was_ahead(
    warehouse: Warehouse, mailbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        ahead = functools.partial(
            ObservationClock, clock=lambda: dt.datetime.now(dt.UTC) + dt.timedelta(days=3_000)
        )
        patched.setattr(ingest, "ObservationClock", ahead)
        run_gmail(warehouse, mailbox)
    mailbox.reset_stats()
    assert run_gmail(warehouse, mailbox).error is None
    assert mailbox.stats()["requests"]["labels.list"] == 1


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


@pytest.mark.parametrize("mode", ["full", "incremental", "resync"])
def test_what_changes_during_a_run_is_in_it_or_in_the_next(
    warehouse: Warehouse, mailbox: Sandbox, mode: str
) -> None:
    """Mail arrives, goes and is relabelled between any two requests of the run."""
    if mode != "full":
        run_gmail(warehouse, mailbox)
        done = mailbox.change(deliver=8, delete=2)
        if mode == "resync":
            mailbox.settings(history_expired_before=done["history_id"])
    mailbox.schedule(
        [
            {"after": {"method": "messages.get", "count": 2}, "changes": {"deliver": 2}},
            {"after": {"method": "messages.get", "count": 3}, "changes": {"delete": 3}},
            {
                "after": {"method": "messages.get", "count": 5},
                "changes": {"labels": {"ids": 8, "add": ["Label_1"], "remove": ["UNREAD"]}},
            },
            {"after": {"method": "messages.get", "count": 6}, "changes": {"restore": 2}},
            {
                "after": {"method": "messages.get", "count": 7},
                "changes": {"labels": {"ids": 3, "add": ["TRASH"]}},
            },
        ]
    )
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert run.telemetry["mode"] == mode
    assert_accounted(run.telemetry)
    assert all(outcome and "error" not in outcome for outcome in mailbox.scheduled())
    following = run_gmail(warehouse, mailbox)
    assert following.error is None
    assert_mirrors(warehouse, mailbox)


def test_changes_between_the_pages_of_a_listing_lose_nothing(warehouse: Warehouse) -> None:
    with Sandbox(size=1_200, seed=2) as mailbox:
        mailbox.schedule(
            [
                {
                    "after": {"method": "messages.list", "count": 1},
                    "changes": {"deliver": 3, "delete": 20, "restore": 3},
                }
            ]
        )
        run = run_gmail(warehouse, mailbox, workers=20, unit_costs={})
        assert run.error is None
        run_gmail(warehouse, mailbox)
        assert set(live(warehouse)) == set(mailbox.live_ids())


def test_labels_that_come_and_go(warehouse: Warehouse, mailbox: Sandbox) -> None:
    run_gmail(warehouse, mailbox)
    mailbox.change(label_create={"id": "Label_9", "name": "New"})
    mailbox.change(labels={"ids": mailbox.live_ids()[:1], "add": ["Label_9"]})
    run = run_gmail(warehouse, mailbox)
    assert run.counts == {"inserted": 1, "updated": 1, "unchanged": LABELS}
    assert_mirrors(warehouse, mailbox)
    mailbox.change(label_delete="Label_9")
    run = run_gmail(warehouse, mailbox, labels_interval_hours=0.0)
    assert run.counts == {"updated": 1, "deleted": 1, "unchanged": LABELS}
    assert_mirrors(warehouse, mailbox)


def test_slow_bodies_only_take_longer(warehouse: Warehouse, mailbox: Sandbox) -> None:
    mailbox.set_faults(
        [{"match": {"method": "messages.get"}, "times": 3, "action": {"slow_body": 0.4}}]
    )
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert_mirrors(warehouse, mailbox)


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


def poisoned(*message_ids: str) -> list[dict[str, Any]]:
    """Faults of messages that fail whenever they are asked for."""
    return [
        {
            "match": {"method": "messages.get", "id": message_id},
            "times": None,
            "action": {"status": 500},
        }
        for message_id in message_ids
    ]


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


def test_runs_between_dates_do_not_promise_to_set_aside(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    mailbox.set_faults(poisoned(mailbox.live_ids()[3]))
    options = IngestOptions(since=dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
    for _ in range(2):
        run = run_gmail(warehouse, mailbox, options)
        assert isinstance(run.error, FetchIncomplete)
        assert str(run.error).endswith("the next run tries them again")
    assert str(run_gmail(warehouse, mailbox).error).endswith("sets aside what fails once more")


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


def skipping(mailbox: Sandbox, message_id: str, times: int) -> dict[str, Any]:
    """A fault of listings: a page lacks a message."""
    page = {"messages": [{"id": key, "threadId": key} for key in mailbox.live_ids()]}
    page["messages"] = [ref for ref in page["messages"] if ref["id"] != message_id]
    return {"match": {"method": "messages.list"}, "times": times, "action": {"json": page}}


def removals(mailbox: Sandbox, message_ids: list[str]) -> list[dict[str, Any]]:
    """A message is removed during each of the next listings, deleted or moved in turns."""
    changes: list[dict[str, Any]] = [{"labels": {"ids": message_ids[:1], "add": ["TRASH"]}}]
    changes += [{"delete": [message_id]} for message_id in message_ids[1:]]
    return [
        {"after": {"method": "messages.list", "count": number}, "changes": change}
        for number, change in enumerate(changes, start=1)
    ]


@pytest.mark.parametrize("mode", ["full", "resync"])
def test_a_message_that_a_listing_skips_while_others_are_removed_is_read(
    warehouse: Warehouse, mailbox: Sandbox, mode: str
) -> None:
    if mode == "resync":
        run_gmail(warehouse, mailbox)
        done = mailbox.change(deliver=4)
        mailbox.settings(history_expired_before=done["history_id"])
    skipped, *others = mailbox.live_ids()
    mailbox.schedule(removals(mailbox, others[4:6]))
    mailbox.set_faults([skipping(mailbox, skipped, times=2)])
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert run.telemetry["mode"] == mode
    assert not run.telemetry["has_more"]
    assert_accounted(run.telemetry)
    assert_mirrors(warehouse, mailbox)


def test_a_mailbox_from_which_something_is_always_removed_comes_to_an_end(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    skipped, *others = mailbox.live_ids()
    mailbox.set_faults([skipping(mailbox, skipped, times=3)])
    mailbox.schedule(removals(mailbox, others[4:14]))
    first = run_gmail(warehouse, mailbox)
    assert first.error is None
    assert first.telemetry["has_more"]
    second = run_gmail(warehouse, mailbox)
    assert second.error is None
    assert not second.telemetry["has_more"]
    assert mailbox.stats()["requests"]["messages.list"] == 6
    assert_mirrors(warehouse, mailbox)
    assert "is_shifting" not in (position(warehouse) or {})


def test_a_resync_leaves_labels_alone_that_the_mailbox_does_not_list(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    mailbox.change(labels={"ids": mailbox.live_ids()[:5], "add": ["Label_3"]})
    shown = [{"id": name} for name in LABEL_NAMES if name != "Label_3"]
    fault(mailbox, "labels.list", times=None, mutate={"set": {"labels": shown}})
    run_gmail(warehouse, mailbox)
    mailbox.settings(history_expired_before=mailbox.change(deliver=1)["history_id"])
    arrived = set(mailbox.live_ids()) - set(live(warehouse))
    mailbox.reset_stats()
    run = run_gmail(warehouse, mailbox)
    assert run.telemetry["mode"] == "resync"
    assert fetched(mailbox) == len(arrived)
    assert_mirrors(warehouse, mailbox)


def test_a_resync_in_bounded_runs_notices_a_label_that_is_gone(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    ids = mailbox.live_ids()[:5]
    mailbox.change(labels={"ids": ids, "add": ["Label_3"]})
    run_gmail(warehouse, mailbox)
    mailbox.change(label_delete="Label_3")
    mailbox.settings(history_expired_before=mailbox.change(deliver=1)["history_id"])
    run = run_gmail(warehouse, mailbox, IngestOptions(max_objects=2))
    while run.telemetry["has_more"]:
        run = run_gmail(warehouse, mailbox, IngestOptions(max_objects=2))
    assert_mirrors(warehouse, mailbox)
    labels = Stored(warehouse, "gmail", "acct1").held("label")
    assert labels == LABEL_NAMES.keys() - {"Label_3"}


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


def test_runs_get_on_whose_time_is_over_after_the_listing(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    for number in range(1, 4):
        mailbox.change(deliver=1)
        run = run_gmail(warehouse, mailbox, IngestOptions(max_duration=0.0))
        assert run.error is None
        assert run.telemetry["has_more"]
        assert len(live(warehouse)) == number
