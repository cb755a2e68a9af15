"""Which mailbox it is, its history, and listings that move."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import SourceError
from loaders.ingestion.ingest import FetchIncomplete, IngestOptions
from loaders.jobs import crashpoints
from loaders.warehouse.base import Warehouse
from tests.python.conftest import (
    LABELS,
    MAILBOX_SIZE,
    assert_accounted,
    events,
    position,
    run_gmail,
    stored,
)
from tests.python.test_ingest_gmail import fault, fetched, message_of, without_attachment_ids

from .conftest import Killed, assert_mirrors, live, poisoned

pytestmark = [pytest.mark.usefixtures("merge_only", "stays_open"), pytest.mark.slow]


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


def test_slow_bodies_only_take_longer(warehouse: Warehouse, mailbox: Sandbox) -> None:
    mailbox.set_faults(
        [{"match": {"method": "messages.get"}, "times": 3, "action": {"slow_body": 0.4}}]
    )
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
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


def test_runs_get_on_whose_time_is_over_after_the_listing(
    warehouse: Warehouse, mailbox: Sandbox
) -> None:
    for number in range(1, 4):
        mailbox.change(deliver=1)
        run = run_gmail(warehouse, mailbox, IngestOptions(max_duration=0.0))
        assert run.error is None
        assert run.telemetry["has_more"]
        assert len(live(warehouse)) == number
