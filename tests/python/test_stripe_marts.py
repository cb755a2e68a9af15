"""The typed views on Stripe's objects, and the tests of their data, on both warehouses."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from loaders.sources.stripe.kinds import OBJECT_TYPES
from loaders.warehouse.base import Warehouse

from .conftest import Project, duckdb_only, on_both_targets

pytestmark = pytest.mark.usefixtures("stays_open")

CREATED = 1_790_000_000
MARTS = {f"stripe_{object_type}s" for object_type in OBJECT_TYPES}

# As API version 2026-10-28.endive sends them, fields that no mart reads left out.
SENT: Mapping[str, Mapping[str, Any]] = {
    "charge": {
        "id": "ch_1",
        "amount": 1050,
        "amount_captured": 1050,
        "amount_refunded": 50,
        "balance_transaction": "txn_1",
        "captured": True,
        "currency": "usd",
        "customer": "cus_1",
        "disputed": False,
        "livemode": False,
        "metadata": {"order": "6735"},
        "paid": True,
        "payment_intent": "pi_1",
        "payment_method": "pm_1",
        "payment_method_details": {"card": {"brand": "visa"}, "type": "card"},
        "refunded": False,
        "status": "succeeded",
    },
    "customer": {"id": "cus_1", "balance": 0, "currency": "usd", "email": "ann@example.com"},
    "invoice": {
        "id": "in_1",
        "amount_due": 1050,
        "currency": "usd",
        "customer": "cus_1",
        "parent": {
            "quote_details": None,
            "subscription_details": {"metadata": {}, "subscription": "sub_1"},
            "type": "subscription_details",
        },
        "status": "paid",
        "status_transitions": {"paid_at": CREATED},
        "total": 1050,
    },
    "invoice_line": {
        "id": "il_1",
        "amount": 1050,
        "currency": "usd",
        "invoice": "in_1",
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": {
                "proration": False,
                "subscription": "sub_1",
                "subscription_item": "si_1",
            },
            "type": "subscription_item_details",
        },
        "period": {"end": CREATED + 86_400, "start": CREATED},
        "pricing": {
            "price_details": {"price": "price_1", "product": "prod_1"},
            "type": "price_details",
            "unit_amount_decimal": "1050",
        },
        "quantity": 1,
    },
    "payment_intent": {
        "id": "pi_1",
        "amount": 1050,
        "amount_received": 1050,
        "currency": "usd",
        "customer": "cus_1",
        "latest_charge": "ch_1",
        "status": "succeeded",
    },
    "refund": {
        "id": "re_1",
        "amount": 50,
        "charge": "ch_1",
        "currency": "usd",
        "status": "pending",
    },
    "balance_transaction": {
        "id": "txn_1",
        "amount": 1050,
        "available_on": CREATED,
        "currency": "usd",
        "exchange_rate": None,
        "fee": 61,
        "net": 989,
        "source": "ch_1",
        "type": "charge",
    },
    "dispute": {
        "id": "du_1",
        "amount": 1050,
        "balance_transactions": [{"id": "txn_2", "net": -2550}],
        "charge": "ch_1",
        "currency": "usd",
        "evidence_details": {"due_by": CREATED, "submission_count": 0},
    },
    "payout": {"id": "po_1", "amount": 989, "arrival_date": CREATED, "currency": "usd"},
    "product": {"id": "prod_1", "active": True, "default_price": "price_1", "updated": CREATED},
    "price": {
        "id": "price_1",
        "currency": "usd",
        "product": "prod_1",
        "unit_amount": 1050,
        "unit_amount_decimal": "1050",
    },
    "subscription": {
        "id": "sub_1",
        "customer": "cus_1",
        "items": {
            "data": [
                {
                    "current_period_end": CREATED + 86_400,
                    "current_period_start": CREATED,
                    "price": {"id": "price_1", "product": "prod_1"},
                    "quantity": 1,
                }
            ]
        },
        "latest_invoice": "in_1",
        "start_date": CREATED,
        "status": "active",
    },
}

MOMENT = dt.datetime.fromtimestamp(CREATED, dt.UTC)
READ: Mapping[str, Mapping[str, Any]] = {
    "stripe_charges": {
        "charge_id": "ch_1",
        "customer_id": "cus_1",
        "payment_intent_id": "pi_1",
        "balance_transaction_id": "txn_1",
        "payment_method_type": "card",
        "amount_minor": 1050,
        "amount": Decimal("10.5"),
        "amount_refunded": Decimal("0.5"),
        "application_fee_amount": None,
        "is_captured": True,
        "is_refunded": False,
        "is_livemode": False,
    },
    "stripe_customers": {"customer_id": "cus_1", "balance": Decimal(0), "is_deleted": False},
    "stripe_invoices": {
        "customer_id": "cus_1",
        "subscription_id": "sub_1",
        "total": Decimal("10.5"),
        "paid_at": MOMENT,
        "due_at": None,
    },
    "stripe_invoice_lines": {
        "invoice_id": "in_1",
        "invoice_line_id": "il_1",
        "subscription_id": "sub_1",
        "price_id": "price_1",
        "amount": Decimal("10.5"),
        "unit_amount": Decimal("10.5"),
        "period_start_at": MOMENT,
        "is_proration": False,
    },
    "stripe_payment_intents": {
        "customer_id": "cus_1",
        "latest_charge_id": "ch_1",
        "amount_received": Decimal("10.5"),
    },
    "stripe_refunds": {"charge_id": "ch_1", "amount": Decimal("0.5"), "status": "pending"},
    "stripe_balance_transactions": {
        "source_id": "ch_1",
        "amount": Decimal("10.5"),
        "fee": Decimal("0.61"),
        "net": Decimal("9.89"),
        "exchange_rate": None,
        "available_at": MOMENT,
    },
    "stripe_disputes": {"charge_id": "ch_1", "evidence_due_at": MOMENT},
    "stripe_payouts": {"payout_id": "po_1", "amount": Decimal("9.89"), "arrival_at": MOMENT},
    "stripe_products": {"default_price_id": "price_1", "is_active": True, "updated_at": MOMENT},
    "stripe_prices": {"product_id": "prod_1", "unit_amount": Decimal("10.5")},
    "stripe_subscriptions": {
        "customer_id": "cus_1",
        "latest_invoice_id": "in_1",
        "price_id": "price_1",
        "product_id": "prod_1",
        "current_period_start_at": MOMENT,
        "ended_at": None,
    },
}


def store(
    warehouse: Warehouse,
    object_type: str,
    payload: Mapping[str, Any],
    *,
    connection_name: str = "acct1",
    is_deleted: bool = False,
    created_at: dt.datetime | None = None,
) -> None:
    """Put one object into raw_objects as a MERGE leaves it."""
    seen = dt.datetime.now(dt.UTC)
    external_id = payload["id"]
    if object_type == "invoice_line":
        external_id = f"{payload['invoice']}:{external_id}"
    row = {
        "idem_key": f"stripe:{connection_name}:{object_type}:{external_id}",
        "source_system": "stripe",
        "connection_name": connection_name,
        "object_type": object_type,
        "external_id": external_id,
        "payload": json.dumps(payload),
        "payload_hash": "hash",
        "object_created_at": created_at or seen,
        "first_seen": seen,
        "last_seen": seen,
        "changed_at": seen,
        "changed_by": "run",
        "merged_by": "run",
        "last_action": "deleted" if is_deleted else "inserted",
        **({"deleted_at": seen} if is_deleted else {}),
    }
    values = [warehouse.json_parameter if name == "payload" else "?" for name in row]
    warehouse.execute(
        f"insert into {warehouse.table('raw_objects')} ({', '.join(row)})"
        f" values ({', '.join(values)})",
        list(row.values()),
    )


def build(project: Project, *arguments: str) -> dict[str, tuple[str, int]]:
    """Build the marts; the outcome and the rows of every test of their data."""
    result = project.run_dbt(
        "build", "--select", "tag:stripe", "--exclude-resource-type", "unit_test", *arguments
    )
    assert result.exception is None
    return {
        each.node.name: (str(each.status), each.failures)
        for each in result.result.results
        if each.node.resource_type == "test"
    }


def read(warehouse: Warehouse, mart: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    rows = warehouse.execute(f"select {', '.join(columns)} from {warehouse.table(mart)}")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def troubles(outcomes: Mapping[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
    return {name: each for name, each in outcomes.items() if each[0] != "pass"}


@on_both_targets
@pytest.mark.slow
def test_every_kind_is_typed_alike_on_both_warehouses(
    project: Project, warehouse: Warehouse
) -> None:
    for object_type, payload in SENT.items():
        store(warehouse, object_type, payload)
    outcomes = build(project)
    assert troubles(outcomes) == {}
    assert len(outcomes) == 21
    assert READ.keys() == MARTS
    for mart, expected in READ.items():
        assert read(warehouse, mart, list(expected)) == [expected], mart
    metadata = warehouse.json_as_text("metadata")
    [(text,)] = warehouse.execute(f"select {metadata} from {warehouse.table('stripe_charges')}")
    assert json.loads(text) == {"order": "6735"}
    [(text,)] = warehouse.execute(
        f"select {warehouse.json_as_text('items')} from {warehouse.table('stripe_subscriptions')}"
    )
    assert json.loads(text) == SENT["subscription"]["items"]["data"]


@pytest.mark.slow
def test_a_parent_is_missed_where_its_kind_is_loaded(
    project: Project, warehouse: Warehouse
) -> None:
    store(warehouse, "refund", SENT["refund"])
    # No charge of this connection is loaded; that another has one is not its matter.
    store(warehouse, "charge", {"id": "ch_1"}, connection_name="acct2")
    assert troubles(build(project)) == {}
    store(warehouse, "charge", {"id": "ch_9"})
    assert troubles(build(project)) == {"stripe_refunds_have_their_parents": ("warn", 1)}
    # One that is deleted is there.
    store(warehouse, "charge", {"id": "ch_1"}, is_deleted=True)
    assert troubles(build(project)) == {}


@pytest.mark.slow
def test_old_objects_are_asked_for_their_parents_on_demand(
    project: Project, warehouse: Warehouse
) -> None:
    store(warehouse, "charge", {"id": "ch_9"})
    created_at = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    store(warehouse, "dispute", {"id": "du_1", "charge": {"id": "ch_1"}}, created_at=created_at)
    assert troubles(build(project)) == {}
    outcomes = build(project, "--vars", "{acceptance_days: 100000}")
    assert troubles(outcomes) == {"stripe_disputes_have_their_parents": ("warn", 1)}


@pytest.mark.slow
@duckdb_only("the statement is DuckDB's; the test's query is the same")
def test_a_second_row_of_an_id_fails(project: Project, warehouse: Warehouse) -> None:
    store(warehouse, "charge", {"id": "ch_1"})
    store(warehouse, "charge", {"id": "ch_1"}, connection_name="acct2")
    assert troubles(build(project)) == {}
    warehouse.execute(
        "insert into events.raw_objects from events.raw_objects where connection_name = 'acct2'"
    )
    assert troubles(build(project)) == {"stripe_charges_are_identified": ("fail", 1)}


@pytest.mark.parametrize("source_system", ["gmail", "stripe"])
def test_a_run_of_one_source_can_leave_out_the_marts_of_another(
    project: Project, source_system: str
) -> None:
    listed = project.run_dbt("ls", "--exclude", f"tag:{source_system}").result
    assert "landfall.core.raw_objects" in listed
    marts = [name for name in listed if ".marts." in name]
    assert marts
    assert not [name for name in marts if f".{source_system}." in name]
