"""Kinds of their own, and whose account it is."""

from __future__ import annotations

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import SourceError
from loaders.ingestion.ingest import IngestOptions, PartlyFetched
from loaders.sources.stripe.kinds import KINDS, OBJECT_TYPES
from loaders.warehouse.base import Warehouse
from tests.python.conftest import (
    event_types,
    run_stripe,
)

from .conftest import assert_mirrors, completed, live, position, rows, there

pytestmark = [pytest.mark.usefixtures("merge_only", "stays_open"), pytest.mark.slow]


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
