"""The sync of a Stripe account: the event feed, listings, what a run leaves for the next."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import SourceError
from loaders.ingestion.ingest import DeadLettered, FetchIncomplete, IngestOptions, PartlyFetched
from loaders.jobs import crashpoints
from loaders.sources.stripe import events as stripe_events
from loaders.sources.stripe.kinds import KINDS, OBJECT_TYPES
from loaders.sources.stripe.position import Position
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

from .conftest import (
    STRIPE_KEY,
    Run,
    assert_accounted,
    event_types,
    events,
    on_both_targets,
    run_stripe,
)

pytestmark = [pytest.mark.usefixtures("merge_only", "stays_open"), pytest.mark.slow]

CHARGES = 100
VOLATILE = ("receipt_url", "hosted_invoice_url", "invoice_pdf")
DAY = 86_400


@pytest.fixture
def account() -> Iterator[Sandbox]:
    """An account of the test's own, to change."""
    with Sandbox(size=1, charges=CHARGES, seed=7) as sandbox:
        yield sandbox


def rows(warehouse: Warehouse, object_type: str) -> dict[str, dict[str, Any]]:
    """Rows of an object type by their external ids."""
    columns = ("external_id", "payload", "deleted_at", "object_created_at", "merged_by")
    return {
        row[0]: dict(zip(columns, row, strict=True))
        for row in warehouse.execute(
            f"select external_id, {warehouse.json_as_text('payload')}, deleted_at,"
            f" object_created_at, merged_by from {warehouse.table('raw_objects')}"
            " where source_system = 'stripe' and object_type = ?",
            (object_type,),
        )
    }


def live(warehouse: Warehouse, object_type: str) -> dict[str, Any]:
    """Payloads of live objects, without what changes on every read."""
    return {
        key: without_volatile(json.loads(row["payload"]))
        for key, row in rows(warehouse, object_type).items()
        if row["deleted_at"] is None
    }


def without_volatile(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in VOLATILE}


def there(sandbox: Sandbox, object_type: str) -> dict[str, Any]:
    objects = sandbox.stripe_objects(object_type)
    return {key: without_volatile(value) for key, value in objects.items()}


def assert_mirrors(
    warehouse: Warehouse, sandbox: Sandbox, object_types: tuple[str, ...] = tuple(OBJECT_TYPES)
) -> None:
    """Live rows are the account: the same objects, each as the API has it now."""
    for object_type in object_types:
        assert live(warehouse, object_type) == there(sandbox, object_type), object_type


def position(warehouse: Warehouse, kind: str) -> Position | None:
    return Position.read(Stored(warehouse, "stripe", "acct1").cursor(kind))


def completed(run: Run) -> Run:
    assert run.error is None, run.error
    assert_accounted(run.telemetry)
    return run


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
    warehouse: Warehouse, account: Sandbox
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


@pytest.mark.parametrize("seconds", [600, -600, 20_000, -20_000])
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


# ---- kinds of their own


def test_a_kind_that_the_key_may_not_read_fails_and_the_others_go_on(
    warehouse: Warehouse, account: Sandbox
) -> None:
    key = "rk_test_withoutdisputes"
    allowed = [*KINDS, "event"]
    allowed.remove("dispute")
    account.settings(stripe_permissions={key: allowed})
    run = run_stripe(warehouse, account, api_key=key)
    assert isinstance(run.error, PartlyFetched)
    assert not run.error.retryable
    assert "dispute" in str(run.error)
    assert "rak_" in str(run.error)
    assert key not in str(run.error)
    assert run.telemetry["failed_objects"] == ["dispute"]
    assert event_types(warehouse, run.correlation_id) == [
        "job.started",
        "ingestion.completed",
        "job.failed",
    ]
    assert_mirrors(warehouse, account, tuple(name for name in OBJECT_TYPES if name != "dispute"))
    assert position(warehouse, "dispute") is None

    run = run_stripe(warehouse, account, api_key=key)
    assert run.telemetry["mode"] == "full"  # of the one that is not there yet
    account.settings(stripe_permissions={})
    account.reset_stats()
    completed(run_stripe(warehouse, account, api_key=key))
    assert "charges.list" not in account.stats()["requests"]
    assert_mirrors(warehouse, account)


def test_a_key_that_may_not_read_events_fails_and_moves_no_position(
    warehouse: Warehouse, account: Sandbox
) -> None:
    key = "rk_test_withoutevents"
    completed(run_stripe(warehouse, account))
    before = position(warehouse, "customer")
    account.settings(stripe_permissions={key: list(KINDS)})
    account.change_stripe(update={"customer": 1})
    run = run_stripe(warehouse, account, api_key=key)
    assert isinstance(run.error, PartlyFetched)
    assert run.telemetry["failed_objects"] == ["event"]
    assert position(warehouse, "customer") == before
    account.settings(stripe_permissions={})
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_objects_are_chosen_and_added_later(warehouse: Warehouse, account: Sandbox) -> None:
    completed(run_stripe(warehouse, account, objects=("charge", "invoice")))
    assert_mirrors(warehouse, account, ("charge",))
    # Without lines as objects, an invoice has all of its own.
    invoices = live(warehouse, "invoice")
    assert invoices.keys() == there(account, "invoice").keys()
    assert not any(invoice["lines"]["has_more"] for invoice in invoices.values())
    assert not rows(warehouse, "customer")
    assert not rows(warehouse, "invoice_line")
    account.change_stripe(update={"charge": 1, "customer": 1})
    account.reset_stats()
    completed(run_stripe(warehouse, account))
    assert "charges.list" not in account.stats()["requests"]
    assert_mirrors(warehouse, account)


def test_lines_without_their_invoices(warehouse: Warehouse, account: Sandbox) -> None:
    completed(run_stripe(warehouse, account, objects=("invoice_line",)))
    assert_mirrors(warehouse, account, ("invoice_line",))
    assert not rows(warehouse, "invoice")


def test_a_kind_left_out_for_a_while_misses_nothing(warehouse: Warehouse, account: Sandbox) -> None:
    completed(run_stripe(warehouse, account))
    account.change_stripe(update={"customer": 2, "charge": 1})
    completed(run_stripe(warehouse, account, objects=("charge",)))
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_a_connected_account_is_read_with_the_key_of_the_platform(
    warehouse: Warehouse, account: Sandbox
) -> None:
    connected = "acct_sandbox_connected"
    completed(run_stripe(warehouse, account, stripe_account=connected))
    charges = account.stripe_objects("charge", account=connected)
    assert set(live(warehouse, "charge")) == set(charges)
    assert set(charges).isdisjoint(account.stripe_objects("charge"))
    run = run_stripe(warehouse, account, stripe_account="acct_of_nobody")
    assert isinstance(run.error, SourceError)
    assert "stripe_account" in str(run.error)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"stripe_account": "acct_sandbox_connected"}, id="account"),
        pytest.param({"api_key": "sk_live_landfalltests1234567890"}, id="mode"),
    ],
)
def test_another_account_under_the_same_name_is_refused(
    warehouse: Warehouse, account: Sandbox, config: dict[str, str]
) -> None:
    completed(run_stripe(warehouse, account))
    run = run_stripe(warehouse, account, IngestOptions(full_resync=True), **config)
    assert isinstance(run.error, SourceError)
    assert "another account" in str(run.error)
    assert_mirrors(warehouse, account)


# ---- bounds, kills, faults


def test_a_bounded_run_goes_on_where_it_stopped(warehouse: Warehouse, account: Sandbox) -> None:
    account.change_stripe(settle=10_000)
    listed = 0
    for _ in range(60):
        run = completed(run_stripe(warehouse, account, IngestOptions(max_objects=90)))
        listed += sum(
            count for name, count in run.telemetry["objects"].items() if name != "invoice_line"
        )
        if not run.telemetry["has_more"]:
            break
    else:
        pytest.fail("the runs come to no end")
    assert_mirrors(warehouse, account)
    everything = sum(len(account.stripe_objects(name)) for name in KINDS)
    assert listed <= everything + 20


def test_a_bounded_run_moves_along_the_events(warehouse: Warehouse, account: Sandbox) -> None:
    account.change_stripe(settle=10_000)
    completed(run_stripe(warehouse, account))
    account.change_stripe(update={"customer": 8, "charge": 8})
    for _ in range(30):
        if not completed(run_stripe(warehouse, account, IngestOptions(max_objects=5))).telemetry[
            "has_more"
        ]:
            break
    else:
        pytest.fail("the runs come to no end")
    assert_mirrors(warehouse, account)


def test_a_run_out_of_time_gets_on_all_the_same(warehouse: Warehouse, account: Sandbox) -> None:
    some = ("charge", "balance_transaction", "price")
    for _ in range(12):
        options = IngestOptions(max_duration=0.0)
        run = completed(run_stripe(warehouse, account, options, objects=some))
        if not run.telemetry["has_more"]:
            break
    else:
        pytest.fail("the runs come to no end")
    assert_mirrors(warehouse, account, some)


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize(
    "point", ["extract.first_object", "land.normalized", "land.loaded", "merge.before"]
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_killed_run_is_gone_on_with(
    warehouse: Warehouse,
    account: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    count: int,
) -> None:
    reached = 0

    def die(name: str) -> None:
        nonlocal reached
        reached += name == point
        if name == point and reached == count:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(crashpoints, "reached", die)
        for _ in range(2):
            try:
                run_stripe(warehouse, account, IngestOptions(batch_size=100))
            except Killed:
                account.change_stripe(update={"charge": 2}, delete={"customer": 1})
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


FAULTS = [
    pytest.param({"status": 429, "retry_after": 0}, id="429"),
    pytest.param({"status": 429, "reason": "lock_timeout"}, id="lock timeout"),
    pytest.param({"status": 409}, id="409"),
    pytest.param({"status": 500}, id="500"),
    pytest.param({"status": 503}, id="503"),
    pytest.param({"drop": True}, id="dropped"),
    pytest.param({"truncate": True}, id="truncated"),
]


@pytest.mark.parametrize("action", FAULTS)
def test_what_passes_is_asked_for_again(
    warehouse: Warehouse, account: Sandbox, action: dict[str, Any]
) -> None:
    account.set_faults([{"match": {"method": "*"}, "times": None, "every": 3, "action": action}])
    run = completed(run_stripe(warehouse, account, max_attempts=12))
    assert run.telemetry["retries"] > 0
    account.set_faults([])
    assert_mirrors(warehouse, account)


def test_a_kind_that_keeps_failing_does_not_stop_the_others(
    warehouse: Warehouse, account: Sandbox
) -> None:
    account.set_faults(
        [{"match": {"method": "refunds.list"}, "times": None, "action": {"status": 500}}]
    )
    run = run_stripe(warehouse, account)
    assert isinstance(run.error, PartlyFetched)
    assert run.error.retryable
    assert run.telemetry["failed_objects"] == ["refund"]
    assert_mirrors(warehouse, account, ("charge", "customer", "balance_transaction"))
    account.set_faults([])
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_an_object_that_keeps_failing_is_set_aside_and_retried(
    warehouse: Warehouse, account: Sandbox
) -> None:
    completed(run_stripe(warehouse, account))
    [bad, good] = account.change_stripe(update={"customer": 2})["affected"]["update"]
    poison = {
        "match": {"method": "customers.get", "id": bad},
        "times": None,
        "action": {"status": 500},
    }
    account.set_faults([poison])
    run = run_stripe(warehouse, account)
    assert isinstance(run.error, FetchIncomplete)
    assert run.telemetry["unfetched"] == 1
    assert live(warehouse, "customer")[good] == there(account, "customer")[good]
    run = run_stripe(warehouse, account)
    assert isinstance(run.error, DeadLettered)
    assert run.telemetry["new_dead_letters"] == 1
    completed(run_stripe(warehouse, account))
    account.set_faults([])
    run = completed(run_stripe(warehouse, account, IngestOptions(retry=True)))
    assert run.telemetry["mode"] == "retry"
    assert run.counts == {"updated": 1}
    assert not Stored(warehouse, "stripe", "acct1").dead_letters()
    assert_mirrors(warehouse, account)


def test_an_object_whose_answer_is_no_json_is_never_set_aside(
    warehouse: Warehouse, account: Sandbox
) -> None:
    completed(run_stripe(warehouse, account))
    [bad, _] = account.change_stripe(update={"customer": 2})["affected"]["update"]
    match = {"method": "customers.get", "id": bad}
    account.set_faults([{"match": match, "times": None, "action": {"body": "<html>"}}])
    for _ in range(3):
        run = run_stripe(warehouse, account)
        assert isinstance(run.error, FetchIncomplete)
        assert (run.telemetry["unfetched"], run.telemetry["dead_lettered"]) == (1, 0)
    account.set_faults([])
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_an_outage_sets_nothing_aside(warehouse: Warehouse, account: Sandbox) -> None:
    completed(run_stripe(warehouse, account))
    account.change_stripe(update={"customer": 12, "charge": 12})
    for _ in range(2):
        # Down after the first answers of each run.
        account.set_faults(
            [
                {
                    "match": {"method": name},
                    "skip": skip,
                    "times": None,
                    "action": {"status": 503},
                }
                for name, skip in (("customers.get", 0), ("charges.get", 0), ("account.get", 1))
            ]
        )
        assert run_stripe(warehouse, account, max_attempts=2).error is not None
    account.set_faults([])
    completed(run_stripe(warehouse, account))
    assert not Stored(warehouse, "stripe", "acct1").dead_letters()
    assert_mirrors(warehouse, account)


def test_the_page_to_go_on_after_may_be_deleted_meanwhile(
    warehouse: Warehouse, account: Sandbox
) -> None:
    account.change_stripe(create={"customer": 250})
    customers = list(account.stripe_objects("customer").values())
    customers.sort(key=lambda value: -value["created"])
    account.schedule(
        [
            {
                "after": {"method": "customers.list", "count": 1},
                "stripe_changes": {
                    "delete": {"customer": [value["id"] for value in customers[90:110]]}
                },
            }
        ]
    )
    completed(run_stripe(warehouse, account, workers=1))
    account.schedule([])
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_a_list_that_does_not_advance_is_noticed(warehouse: Warehouse, account: Sandbox) -> None:
    charge = next(iter(account.stripe_objects("charge").values()))
    page = {"object": "list", "data": [charge], "has_more": True, "url": "/v1/charges"}
    account.set_faults(
        [{"match": {"method": "charges.list"}, "times": None, "action": {"json": page}}]
    )
    run = run_stripe(warehouse, account, objects=("charge",))
    assert isinstance(run.error, PartlyFetched)
    assert "does not advance" in str(run.error)


@pytest.mark.parametrize("key", ["sk_test_expired1234567890", "sk_of_something_else_1234"])
def test_a_key_that_is_not_accepted_ends_the_run(
    warehouse: Warehouse, account: Sandbox, key: str
) -> None:
    run = run_stripe(warehouse, account, api_key=key)
    assert isinstance(run.error, SourceError)
    assert "sources.stripe.acct1.api_key" in str(run.error)
    assert event_types(warehouse, run.correlation_id) == [
        "job.started",
        "ingestion.failed",
        "job.failed",
    ]
    everything = json.dumps(events(warehouse), default=str)
    assert key not in everything


def test_the_rate_limit_is_kept(warehouse: Warehouse, account: Sandbox) -> None:
    account.settings(stripe_limit={"per_second": 40})
    run = completed(
        run_stripe(warehouse, account, requests_per_second=36.0, endpoint_requests_per_second=25.0)
    )
    assert account.stats()["refused"] == 0
    assert run.telemetry["retries"] == 0
    assert_mirrors(warehouse, account)


# ---- parts


def test_dates_bound_a_run_and_leave_the_positions_alone(
    warehouse: Warehouse, account: Sandbox
) -> None:
    charges = account.stripe_objects("charge")
    times = sorted(value["created"] for value in charges.values())
    since, until = times[20], times[40]
    options = IngestOptions(
        since=dt.datetime.fromtimestamp(since, dt.UTC),
        until=dt.datetime.fromtimestamp(until, dt.UTC),
    )
    completed(run_stripe(warehouse, account, options))
    assert set(rows(warehouse, "charge")) == {
        key for key, value in charges.items() if since <= value["created"] < until
    }
    assert position(warehouse, "charge") is None
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_runs_between_the_same_dates_go_on_with_each_other(
    warehouse: Warehouse, account: Sandbox
) -> None:
    since = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    options = IngestOptions(since=since, max_objects=60)
    listed = 0
    for _ in range(10):
        run = completed(run_stripe(warehouse, account, options, objects=("charge", "customer")))
        listed += run.telemetry["records_landed"]
        if not run.telemetry["has_more"]:
            break
    else:
        pytest.fail("the runs come to no end")
    assert listed == len(account.stripe_objects("charge")) + len(account.stripe_objects("customer"))
    assert_mirrors(warehouse, account, ("charge", "customer"))


def test_a_bound_that_is_not_met_leaves_nothing(warehouse: Warehouse, account: Sandbox) -> None:
    some = ("customer", "product", "dispute", "payout")
    options = IngestOptions(max_objects=150)
    assert not completed(run_stripe(warehouse, account, options, objects=some)).telemetry[
        "has_more"
    ]
    assert_mirrors(warehouse, account, some)


def test_a_dry_run_counts_and_writes_nothing(warehouse: Warehouse, account: Sandbox) -> None:
    from loaders.ingestion.ingest import Ingestion

    from .conftest import stripe_source

    def dry_run(options: IngestOptions) -> dict[str, Any]:
        return Ingestion(
            warehouse,
            lambda: stripe_source(account),
            source_system="stripe",
            connection_name="acct1",
            options=options,
        ).dry_run()

    everything = sum(len(account.stripe_objects(name)) for name in OBJECT_TYPES)
    assert dry_run(IngestOptions())["records_landed"] == everything
    assert not rows(warehouse, "charge")
    completed(run_stripe(warehouse, account))
    account.reset_stats()
    assert dry_run(IngestOptions(full_resync=True))["records_landed"] >= everything
    assert "products.get" not in account.stats()["requests"]


def test_payloads_are_what_the_api_sent(warehouse: Warehouse, account: Sandbox) -> None:
    """Key order, number literals and texts; whitespace apart."""
    import requests

    completed(run_stripe(warehouse, account, objects=("product", "price")))
    for kind, path in (("product", "products"), ("price", "prices")):
        sent = []
        for query in (
            ("?limit=100", "?limit=100&active=false") if kind == "price" else ("?limit=100",)
        ):
            address = f"{account.base_url}/v1/{path}{query}"
            answer = requests.get(address, auth=(STRIPE_KEY, ""), timeout=10)
            sent += json.loads(answer.content, parse_float=str)["data"]
        stored = [
            json.loads(row["payload"], parse_float=str) for row in rows(warehouse, kind).values()
        ]
        order = {json.dumps(value) for value in sent}
        assert {json.dumps(value) for value in stored} == order
