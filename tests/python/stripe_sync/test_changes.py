"""What a run brings: events, deletions, clocks."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.ingest import DeadLettered, IngestOptions, PartlyFetched
from loaders.sources.stripe import events as stripe_events
from loaders.sources.stripe.kinds import KINDS, OBJECT_TYPES
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from tests.python.conftest import (
    event_types,
    on_both_targets,
    run_stripe,
)

from .conftest import assert_mirrors, completed, position, rows

pytestmark = [pytest.mark.usefixtures("merge_only", "stays_open"), pytest.mark.slow]


DAY = 86_400


def test_a_first_run_stores_every_object(warehouse: Warehouse, account: Sandbox) -> None:
    run = completed(run_stripe(warehouse, account))
    assert run.telemetry["mode"] == "full"
    assert not run.telemetry["has_more"]
    assert event_types(warehouse, run.correlation_id) == [
        "job.started",
        "ingestion.completed",
        "job.completed",
    ]
    assert_mirrors(warehouse, account)
    counts = {name: len(account.stripe_objects(name)) for name in OBJECT_TYPES}
    assert all(counts.values())
    assert run.telemetry["objects"] == counts
    assert run.counts == {"inserted": sum(counts.values())}
    charge = next(iter(account.stripe_objects("charge").values()))
    created_at = rows(warehouse, "charge")[charge["id"]]["object_created_at"]
    assert created_at.timestamp() == charge["created"]
    invoice_lines = rows(warehouse, "invoice_line")
    invoices = account.stripe_objects("invoice")
    assert invoice_lines
    for key, line in invoice_lines.items():
        assert line["object_created_at"].timestamp() == invoices[key.split(":")[0]]["created"]


def test_a_run_with_nothing_new_costs_three_requests(
    warehouse: Warehouse, account: Sandbox
) -> None:
    account.change_stripe(settle=10_000)
    completed(run_stripe(warehouse, account))
    account.reset_stats()
    run = completed(run_stripe(warehouse, account))
    assert run.telemetry["mode"] == "incremental"
    assert not {"inserted", "updated", "deleted"} & run.counts.keys()
    assert account.stats()["requests"] == {
        "account.get": 1,
        "events.list": 1,
        "balance_transactions.list": 1,
    }


@on_both_targets
def test_events_bring_every_change(warehouse: Warehouse, account: Sandbox) -> None:
    completed(run_stripe(warehouse, account))
    invoice = next(
        key
        for key, value in account.stripe_objects("invoice").items()
        if len(value["lines"]["data"]) > 1
    )
    account.change_stripe(
        create={"customer": 2, "invoice": 1, "charge": 3, "price": 1},
        update={"customer": 2, "charge": 1, "subscription": 1, "product": 1},
        delete={"customer": 1, "product": 1, "subscription": 1},
        refund=2,
        dispute=1,
        payout=1,
        add_lines={invoice: 12},
        remove_lines={invoice: 1},
    )
    run = completed(run_stripe(warehouse, account))
    assert run.telemetry["mode"] == "incremental"
    assert run.counts["deleted"] >= 3  # a customer, a product, a line
    assert_mirrors(warehouse, account)
    assert not {"inserted", "updated", "deleted"} & run_stripe(warehouse, account).counts.keys()


def test_new_objects_are_listed_and_not_read_one_by_one(
    warehouse: Warehouse, account: Sandbox
) -> None:
    completed(run_stripe(warehouse, account))
    account.change_stripe(create={"customer": 150})
    account.reset_stats()
    run = completed(run_stripe(warehouse, account))
    requests = account.stats()["requests"]
    assert requests["customers.list"] == 2
    assert "customers.get" not in requests
    assert run.counts["inserted"] >= 150
    assert_mirrors(warehouse, account)


def test_a_deleted_object_is_a_tombstone_and_its_last_payload_stays(
    warehouse: Warehouse, account: Sandbox
) -> None:
    completed(run_stripe(warehouse, account))
    [customer] = account.change_stripe(delete={"customer": 1})["affected"]["delete"]
    run = completed(run_stripe(warehouse, account))
    assert run.counts["deleted"] == 1
    row = rows(warehouse, "customer")[customer]
    assert row["deleted_at"] is not None
    assert json.loads(row["payload"])["email"]


def test_what_came_and_went_between_two_runs_is_gone(
    warehouse: Warehouse, account: Sandbox
) -> None:
    completed(run_stripe(warehouse, account))
    created = account.change_stripe(create={"customer": 1})["affected"]["create"]
    account.change_stripe(delete={"customer": created})
    run = completed(run_stripe(warehouse, account))
    assert run.telemetry["gone"] == 1
    assert created[0] not in rows(warehouse, "customer")


def test_settled_balance_transactions_are_read_again(
    warehouse: Warehouse, account: Sandbox
) -> None:
    account.change_stripe(settle=10_000)
    account.change_stripe(create={"charge": 3})
    completed(run_stripe(warehouse, account))
    account.settings(stripe_clock_offset=10 * DAY)
    settled = account.change_stripe(settle=10_000)["affected"]["settle"]
    assert settled
    account.reset_stats()
    run = completed(run_stripe(warehouse, account))
    assert run.counts["updated"] >= len(settled)
    assert_mirrors(warehouse, account)
    account.reset_stats()
    completed(run_stripe(warehouse, account))
    requests = account.stats()["requests"]
    assert (requests["balance_transactions.list"], requests.get("balance_transactions.get")) == (
        1,
        None,
    )


def test_a_change_without_an_event_waits_for_a_full_resync(
    warehouse: Warehouse, account: Sandbox
) -> None:
    completed(run_stripe(warehouse, account))
    account.change_stripe(update_silently={"charge": 2})
    assert "updated" not in run_stripe(warehouse, account).counts
    run = completed(run_stripe(warehouse, account, IngestOptions(full_resync=True)))
    assert run.telemetry["mode"] == "resync"
    assert run.counts["updated"] == 2
    assert_mirrors(warehouse, account)


def test_a_position_older_than_the_feed_is_made_up_for_by_listing(
    warehouse: Warehouse, account: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed(run_stripe(warehouse, account))
    invoice = next(
        key
        for key, value in account.stripe_objects("invoice").items()
        if len(value["lines"]["data"]) > 1
    )
    account.change_stripe(
        create={"charge": 2},
        update_silently={"customer": 2},
        delete={"customer": 1, "price": 1},
        remove_lines={invoice: 1},
    )
    account.settings(stripe_clock_offset=40 * DAY)
    now = stripe_events.machine_seconds
    monkeypatch.setattr(stripe_events, "machine_seconds", lambda: now() + 40 * DAY)
    run = completed(run_stripe(warehouse, account))
    assert run.telemetry["mode"] == "resync"
    assert run.counts["deleted"] == 3
    assert_mirrors(warehouse, account)
    assert completed(run_stripe(warehouse, account)).telemetry["mode"] == "incremental"


def test_what_no_list_holds_comes_with_its_event_through_a_resync_too(
    warehouse: Warehouse, account: Sandbox
) -> None:
    """Inline prices are such."""
    completed(run_stripe(warehouse, account))
    [price] = account.change_stripe(create={"price": 1})["affected"]["create"]
    others = [value for key, value in account.stripe_objects("price").items() if key != price]
    page = {"object": "list", "data": others, "has_more": False, "url": "/v1/prices"}
    account.set_faults([{"match": {"method": "prices.list"}, "times": 2, "action": {"json": page}}])
    completed(run_stripe(warehouse, account, IngestOptions(full_resync=True)))
    assert_mirrors(warehouse, account)


def test_what_was_stored_before_the_first_position_is_compared(
    warehouse: Warehouse, account: Sandbox
) -> None:
    since = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    completed(run_stripe(warehouse, account, IngestOptions(since=since)))
    account.change_stripe(delete={"customer": 2})
    account.settings(stripe_clock_offset=3600)
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_an_invoice_that_is_deleted_before_its_lines_are_read_is_gone(
    warehouse: Warehouse, account: Sandbox
) -> None:
    completed(run_stripe(warehouse, account))
    invoice = next(
        key
        for key, value in account.stripe_objects("invoice").items()
        if value["lines"]["has_more"]
    )
    account.change_stripe(update={"invoice": [invoice]})
    account.schedule(
        [
            {
                "after": {"method": "invoices.get", "count": 1},
                "stripe_changes": {"delete": {"invoice": [invoice]}},
            }
        ]
    )
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_what_a_list_lacks_is_asked_for_before_it_counts_as_deleted(
    warehouse: Warehouse, account: Sandbox
) -> None:
    completed(run_stripe(warehouse, account))
    page = {"object": "list", "data": [], "has_more": False, "url": "/v1/products"}
    account.set_faults([{"match": {"method": "products.list"}, "action": {"json": page}}])
    account.reset_stats()
    run = completed(run_stripe(warehouse, account, IngestOptions(full_resync=True)))
    assert "deleted" not in run.counts
    products = len(account.stripe_objects("product"))
    assert account.stats()["requests"]["products.get"] == products
    assert_mirrors(warehouse, account)


def test_what_changes_while_the_account_is_listed_is_not_missed(
    warehouse: Warehouse, account: Sandbox
) -> None:
    account.schedule(
        [
            {
                "after": {"method": "charges.list", "count": 1},
                "stripe_changes": {
                    "create": {"charge": 2, "customer": 1},
                    "update": {"charge": 2, "product": 1},
                    "delete": {"customer": 2},
                    "refund": 1,
                },
            },
            {
                "after": {"method": "events.list", "count": 1},
                "stripe_changes": {"update": {"customer": 1}},
            },
        ]
    )
    completed(run_stripe(warehouse, account))
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_events_that_show_up_late_are_not_missed(warehouse: Warehouse, account: Sandbox) -> None:
    completed(run_stripe(warehouse, account))
    account.settings(stripe_late_events=60)
    account.change_stripe(update={"customer": 3})
    account.settings(stripe_clock_offset=30)
    assert "updated" not in completed(run_stripe(warehouse, account)).counts
    account.settings(stripe_clock_offset=90)
    assert completed(run_stripe(warehouse, account)).counts["updated"] == 3
    assert_mirrors(warehouse, account)


def test_an_event_is_dealt_with_once(warehouse: Warehouse, account: Sandbox) -> None:
    completed(run_stripe(warehouse, account))
    account.change_stripe(update={"customer": 2})
    completed(run_stripe(warehouse, account))
    account.reset_stats()
    completed(run_stripe(warehouse, account))
    assert "customers.get" not in account.stats()["requests"]


def test_a_clock_that_is_behind_misses_nothing(warehouse: Warehouse, account: Sandbox) -> None:
    account.settings(stripe_clock_offset=3600)
    completed(run_stripe(warehouse, account))
    account.settings(stripe_clock_offset=0)
    account.change_stripe(update={"customer": 2}, create={"charge": 1})
    # Its events lie an hour before what Stripe's clock said, as if it had been ahead.
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


@pytest.mark.parametrize("seconds", [600, -600, 20_000, -20_000, 260_000, 3_500_000])
@pytest.mark.parametrize("has_events", [True, False])
def test_a_date_that_is_not_stripe_s_misses_nothing(
    warehouse: Warehouse, account: Sandbox, seconds: int, has_events: bool
) -> None:
    """A proxy's: positions go by what was seen, and by a clock for what is a day old alone."""
    change = {"update": {"customer": 2}, "create": {"charge": 1, "price": 1}, "settle": 10_000}
    if has_events:
        account.change_stripe(**change)
    for offset in (seconds, 0, seconds):
        account.settings(stripe_date_offset=offset)
        completed(run_stripe(warehouse, account))
        account.change_stripe(**change)
    account.settings(stripe_date_offset=0)
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Since when runs have asked the warehouse for pending transactions; None: for all."""
    found: list[int | None] = []
    members = Stored.members

    def noted(
        self: Stored, object_type: str, *paths: str, created_since: int | None = None
    ) -> Iterator[tuple[Any, ...]]:
        if object_type == "balance_transaction":
            found.append(created_since)
        return members(self, object_type, *paths, created_since=created_since)

    monkeypatch.setattr(Stored, "members", noted)
    return found


@pytest.mark.parametrize("max_objects", [None, 100])
def test_what_is_pending_is_known_from_its_listing(
    warehouse: Warehouse, account: Sandbox, asked: list[int | None], max_objects: int | None
) -> None:
    """The payloads of what is stored are read when something is due, and never of all that is."""
    account.change_stripe(settle=10_000)
    account.change_stripe(create={"charge": 1})
    transactions = account.stripe_objects("balance_transaction").values()
    [pending] = [one for one in transactions if one["status"] == "pending"]
    for _ in range(12):
        run = completed(run_stripe(warehouse, account, IngestOptions(max_objects=max_objects)))
    assert run.telemetry["mode"] == "incremental"
    assert run.telemetry["chunks"] == 0
    assert asked == []
    days = (pending["available_on"] - account_time(account)) // DAY + 1
    for day in (1, days, days + 1):
        account.settings(stripe_clock_offset=day * DAY + 60)
        account.change_stripe(settle=10_000)
        completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)
    assert asked
    assert all(since is not None and since <= pending["created"] for since in asked)


def test_what_the_warehouse_was_asked_for_is_kept(
    warehouse: Warehouse, account: Sandbox, asked: list[int | None]
) -> None:
    """As by a release that did not note what it listed: the next run asks, and then none does."""
    account.change_stripe(settle=10_000)
    completed(run_stripe(warehouse, account))
    warehouse.execute(
        "update events_staging.cursors set cursor = json_merge_patch(cursor, ?)"
        " where stream = 'balance_transaction'",
        (json.dumps({"next_due": None, "listed_pending": None}),),
    )
    for _ in range(3):
        completed(run_stripe(warehouse, account))
    assert asked == [None]


def test_a_pending_transaction_that_came_by_a_retry_is_read_again_when_it_is_due(
    warehouse: Warehouse, account: Sandbox
) -> None:
    """It is older than what was known to be pending when the position last moved."""
    account.change_stripe(settle=10_000)
    completed(run_stripe(warehouse, account))
    account.change_stripe(create={"charge": 1})
    transactions = account.stripe_objects("balance_transaction")
    late = max(transactions.values(), key=lambda each: each["created"])
    unfit = {**late, "tooPrecise": 12345678901234567890123}
    listed = {"object": "list", "data": [unfit], "has_more": False, "url": "/"}
    account.set_faults(
        [{"match": {"method": "balance_transactions.list"}, "action": {"json": listed}}]
    )
    assert isinstance(run_stripe(warehouse, account).error, DeadLettered)
    account.set_faults([])
    day = 86_400
    account.settings(stripe_clock_offset=day)
    account.change_stripe(create={"charge": 1})
    completed(run_stripe(warehouse, account))
    assert run_stripe(warehouse, account, IngestOptions(retry=True)).error is None
    for days in (20, 22):
        account.settings(stripe_clock_offset=days * day)
        account.change_stripe(settle=10_000)
        completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_a_feed_too_long_to_be_held_is_read_window_by_window(
    warehouse: Warehouse, account: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.change_stripe(settle=10_000)
    completed(run_stripe(warehouse, account))
    for hours in range(1, 9):
        account.settings(stripe_clock_offset=3600 * hours)
        account.change_stripe(
            create={"charge": 20}, update={"customer": 12}, delete={"customer": 1}, refund=5
        )
    monkeypatch.setattr(stripe_events, "_EVENTS_AT_ONCE", 100)
    run = completed(run_stripe(warehouse, account))
    assert run.telemetry["chunks"] > 2
    assert_mirrors(warehouse, account)
    position_now = position(warehouse, "customer")
    assert position_now is not None
    assert position_now.until >= account_time(account) - 60
    account.reset_stats()
    completed(run_stripe(warehouse, account))
    assert "customers.get" not in account.stats()["requests"]


def test_a_kind_that_fails_in_a_window_keeps_what_it_did_not_read_for_the_next_run(
    warehouse: Warehouse, account: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.change_stripe(settle=10_000)
    completed(run_stripe(warehouse, account))
    for hours in range(1, 9):
        account.settings(stripe_clock_offset=3600 * hours)
        account.change_stripe(update={"customer": 12, "charge": 12})
    monkeypatch.setattr(stripe_events, "_EVENTS_AT_ONCE", 100)
    key = "rk_test_withoutcustomers"
    allowed = [*KINDS, "event"]
    allowed.remove("customer")
    account.settings(stripe_permissions={key: allowed})
    run = run_stripe(warehouse, account, api_key=key)
    assert isinstance(run.error, PartlyFetched)
    assert_mirrors(warehouse, account, ("charge",))
    account.settings(stripe_permissions={})
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def account_time(account: Sandbox) -> int:
    """When the newest event came into being."""
    return max(int(event["created"]) for event in account.stripe_objects("event").values())
