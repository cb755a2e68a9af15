"""Labels: their changes, their price, and themselves."""

from __future__ import annotations

import datetime as dt
import functools
import json

import pytest

from landfall_sandbox.controls import Sandbox
from landfall_sandbox.layout import LABEL_NAMES
from loaders.errors import SourceError
from loaders.ingestion import ingest
from loaders.ingestion.ingest import FetchIncomplete, IngestOptions
from loaders.objects.items import ObservationClock
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from tests.python.conftest import (
    LABELS,
    MAILBOX_SIZE,
    Run,
    assert_accounted,
    on_both_targets,
    run_gmail,
    stored,
)
from tests.python.test_ingest_gmail import fault, fetched, message_of, without_attachment_ids

from .conftest import assert_mirrors, live

pytestmark = [pytest.mark.usefixtures("merge_only", "stays_open"), pytest.mark.slow]


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
