"""Every column of every mart on Gmail's and Stripe's objects, against the payloads."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.settings.places import PROJECT_DIR
from loaders.sources.gmail.options import FORMATS
from loaders.warehouse.base import Warehouse
from tests.peers.emulate import run_emulate
from tests.peers.gmail_stand_ins import EmulateMailbox
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable
from tests.peers.stripe_stand_ins import KINDS, accounts
from tests.peers.stripe_world import run_stripe_world

from .conftest import Project, gmail_source, on_both_targets, run_ingestion, run_stripe
from .mart_judge import MARTS, judge, store

NOW = 1_790_000_000
RAW = base64.urlsafe_b64encode(b"Subject: hidden\r\n\r\nbody").decode()
HEADERS = [
    {"name": "SUBJECT", "value": "first"},
    {"name": "Subject", "value": "second"},
    {"name": "From", "value": "Ann <ann@example.com>"},
    {"name": "To", "value": "bob@example.com"},
    {"name": "CC", "value": "cid@example.com"},
    {"name": "date", "value": "Thu, 1 Jan 2026 00:00:00 +0000"},
]
MESSAGE = {
    "threadId": "t1",
    "labelIds": ["INBOX", "UNREAD"],
    "snippet": 'a "quoted" text, 東京',
    "internalDate": "1790000000123",
    "sizeEstimate": 1234,
}
NESTED = {"filename": "", "parts": [{"filename": "a.pdf"}, {"body": {"size": 1}}]}

# What no field is to be read from: other types than documented.
WRONG = {"object": {"id": {"no": "id"}}, "list": ["x"], "float": 1.5, "yes": "yes", "hex": "0x10"}

CASES: Mapping[str, list[Mapping[str, Any] | None]] = {
    # Formats full, full of one part, metadata, raw, minimal; without labels; deleted unseen.
    "message": [
        {**MESSAGE, "payload": {"headers": HEADERS, "filename": "", "body": {}, "parts": [NESTED]}},
        {**MESSAGE, "payload": {"headers": HEADERS[1:], "filename": "", "body": {"size": 2}}},
        {**MESSAGE, "payload": {"headers": [], "filename": "x.txt", "body": {"size": 2}}},
        {**MESSAGE, "payload": {"filename": "", "parts": [NESTED]}},
        {**MESSAGE, "payload": {"headers": HEADERS, "mimeType": "multipart/mixed"}},
        {**MESSAGE, "raw": RAW},
        {"threadId": "t2", "snippet": "", "sizeEstimate": 0, "internalDate": "253402300800000"},
        None,
    ],
    "charge": [
        {
            "created": NOW,
            "customer": "cus_1",
            "payment_intent": {"id": "pi_1", "customer": {"id": "cus_9"}},
            "balance_transaction": "txn_1",
            "failure_balance_transaction": {"id": "txn_2"},
            "payment_method": "pm_1",
            "source": {"id": "src_9"},
            "payment_method_details": {"type": "card", "card": {"type": "no"}},
            "status": "failed",
            "failure_code": "card_declined",
            "description": "a charge",
            "currency": "usd",
            "amount": 1050,
            "amount_captured": 1000,
            "amount_refunded": 0,
            "application_fee_amount": 7,
            "paid": True,
            "captured": False,
            "refunded": False,
            "disputed": False,
            "dispute": "dp_9",
            "livemode": True,
            "metadata": {"order": "1"},
        },
        # Of 2018.
        {"currency": "kwd", "amount": 5, "source": {"id": "card_1"}, "dispute": "dp_1"},
        {
            "currency": "JPY",
            "payment_intent": "pi_2",
            "source": None,
            "dispute": None,
            "metadata": None,
        },
        {
            "customer": WRONG["list"],
            "payment_intent": WRONG["object"],
            "status": WRONG["object"],
            "description": WRONG["list"],
            "currency": WRONG["object"],
            "amount": WRONG["float"],
            "amount_captured": WRONG["hex"],
            "amount_refunded": WRONG["yes"],
            "paid": WRONG["yes"],
            "livemode": WRONG["object"],
            "metadata": "text",
        },
        None,
    ],
    "customer": [
        {
            "created": NOW,
            "name": "Ann",
            "email": "ann@example.com",
            "phone": "1",
            "address": {"country": "DE"},
            "description": "a customer",
            "currency": "eur",
            "balance": -1050,
            "account_balance": 9,
            "tax_exempt": "none",
            "delinquent": False,
            "livemode": False,
            "metadata": {},
        },
        {"currency": "eur", "account_balance": -5, "address": None, "delinquent": "yes"},  # 2019-09
        {"currency": None, "balance": 0, "account_balance": 9, "address": "DE"},
        None,
    ],
    "invoice": [
        {
            "created": NOW,
            "customer": {"id": "cus_1", "deleted": True},
            "parent": {
                "type": "subscription_details",
                "subscription_details": {"subscription": "sub_1"},
                "quote_details": None,
            },
            "subscription": "sub_9",
            "number": "A-1",
            "status": "paid",
            "billing_reason": "manual",
            "collection_method": "send_invoice",
            "attempt_count": 2,
            "currency": "usd",
            "subtotal": 1,
            "total": 2,
            "total_excluding_tax": 3,
            "amount_due": 4,
            "amount_paid": 5,
            "amount_remaining": 6,
            "starting_balance": -7,
            "ending_balance": 0,
            "period_start": NOW,
            "period_end": NOW + 1,
            "due_date": NOW + 2,
            "effective_at": NOW + 3,
            "status_transitions": {
                "finalized_at": NOW + 4,
                "paid_at": NOW + 5,
                "voided_at": NOW + 6,
                "marked_uncollectible_at": NOW + 7,
            },
            "next_payment_attempt": NOW + 8,
            "attempted": True,
            "auto_advance": False,
            "livemode": True,
            "metadata": {"a": "b"},
        },
        {"parent": {"quote_details": {"quote": {"id": "qt_1"}}, "subscription_details": None}},
        # Before 2025-03-31.basil: the id, or the subscription itself.
        {"customer": "cus_2", "subscription": "sub_2", "quote": "qt_2", "currency": "usd"},
        {"parent": None, "subscription": {"id": "sub_3"}, "quote": {"id": "qt_3"}},
        # Before 2019-10-17 and 2019-03-14.
        {"billing": "charge_automatically", "finalized_at": NOW, "status_transitions": None},
        {"subscription": None, "due_date": 1.5, "period_start": "x", "period_end": 253402300800},
        None,
    ],
    "invoice_line": [
        {
            "created": NOW,
            "parent": {
                "type": "subscription_item_details",
                "invoice_item_details": None,
                "subscription_item_details": {
                    "subscription": "sub_1",
                    "subscription_item": "si_1",
                    "invoice_item": "ii_1",
                    "proration": False,
                },
            },
            "pricing": {
                "price_details": {"price": {"id": "price_1"}, "product": "prod_1"},
                "unit_amount_decimal": "0.05",
            },
            "subscription": "sub_9",
            "description": "a line",
            "quantity": 2,
            "quantity_decimal": "2.5",
            "currency": "usd",
            "amount": 5,
            "subtotal": 6,
            "period": {"start": NOW, "end": NOW + 1},
            "discountable": True,
            "livemode": False,
            "metadata": {"a": "b"},
        },
        {
            "parent": {
                "type": "invoice_item_details",
                "invoice_item_details": {
                    "subscription": "sub_2",
                    "invoice_item": "ii_2",
                    "proration": True,
                },
            },
            "pricing": None,
        },
        # Before 2025-03-31.basil: of a subscription, a proration of one, and made by hand.
        {
            "type": "subscription",
            "subscription": "sub_3",
            "subscription_item": "si_3",
            "proration": False,
            "price": {
                "id": "price_3",
                "product": {"id": "prod_3"},
                "unit_amount": 12,
                "unit_amount_decimal": "12.5",
            },
            "plan": {"id": "price_9", "product": "prod_9", "amount": 9, "amount_decimal": "9"},
            "currency": "usd",
        },
        {
            "type": "invoiceitem",
            "subscription": "sub_4",
            "subscription_item": "si_4",
            "invoice_item": "ii_4",
            "proration": True,
            "price": {"id": "price_4", "product": "prod_4", "unit_amount": 12},
            "currency": "jpy",
        },
        {"type": "invoiceitem", "invoice_item": "ii_5", "subscription": None, "price": "price_5"},
        # Before prices.
        {
            "currency": "usd",
            "plan": {"id": "gold", "product": "prod_6", "amount": 9, "amount_decimal": "9.5"},
        },
        {"currency": "usd", "plan": {"id": "silver", "amount": 9}, "price": None, "type": "else"},
        {"plan": "bronze"},
        None,
    ],
    "payment_intent": [
        {
            "created": NOW,
            "customer": "cus_1",
            "latest_charge": {"id": "ch_1"},
            "charges": {"data": [{"id": "ch_9"}]},
            "payment_method": {"id": "pm_1"},
            "source": "src_9",
            "status": "canceled",
            "cancellation_reason": "abandoned",
            "capture_method": "manual",
            "description": "an intent",
            "currency": "usd",
            "amount": 4,
            "amount_capturable": 3,
            "amount_received": 2,
            "application_fee_amount": 1,
            "canceled_at": NOW,
            "livemode": False,
            "metadata": {"a": "b"},
        },
        # Before 2022-11-15.
        {"charges": {"data": [{"id": "ch_2"}, {"id": "ch_3"}]}, "source": "src_2"},
        {"latest_charge": None, "charges": {"data": []}, "payment_method": None},
        None,
    ],
    "refund": [
        {
            "created": NOW,
            "charge": "ch_1",
            "payment_intent": "pi_1",
            "balance_transaction": "txn_1",
            "failure_balance_transaction": "txn_2",
            "status": "failed",
            "reason": "duplicate",
            "failure_reason": "declined",
            "currency": "usd",
            "amount": 100,
            "metadata": {"a": "b"},
        },
        {"charge": {"id": "ch_2"}, "currency": "usd", "status": None},
        None,
    ],
    "subscription": [
        {
            "created": NOW,
            "customer": "cus_1",
            "latest_invoice": {"id": "in_1"},
            "default_payment_method": "pm_1",
            "items": {
                "data": [
                    {
                        "price": {
                            "id": "price_1",
                            "product": {"id": "prod_1"},
                            "currency": "chf",
                        },
                        "plan": {"id": "price_9", "product": "prod_9", "currency": "gbp"},
                        "quantity": 3,
                        "current_period_start": NOW,
                        "current_period_end": NOW + 1,
                    },
                    {"price": {"id": "price_2"}, "quantity": 1, "current_period_end": 1},
                ]
            },
            "status": "canceled",
            "collection_method": "charge_automatically",
            "cancellation_details": {"reason": "cancellation_requested"},
            "description": "a subscription",
            "currency": "usd",
            "billing_cycle_anchor": NOW + 2,
            "start_date": NOW + 3,
            "trial_start": NOW + 4,
            "trial_end": NOW + 5,
            "cancel_at": NOW + 6,
            "canceled_at": NOW + 7,
            "ended_at": NOW + 8,
            "cancel_at_period_end": False,
            "livemode": True,
            "metadata": {"a": "b"},
        },
        # Before 2025-03-31.basil, and of 2022; metered: the quantity above is not its item's.
        {
            "items": {
                "data": [{"price": {"id": "price_2", "product": "prod_2", "currency": "eur"}}]
            },
            "plan": {"id": "price_9", "product": "prod_9", "currency": "gbp"},
            "quantity": 1,
            "current_period_start": NOW,
            "current_period_end": NOW + 1,
        },
        # Before prices; before items; before 2019-10-17, when `start` was of the latest change.
        {"items": {"data": [{"plan": {"id": "gold", "product": "prod_3", "currency": "usd"}}]}},
        {"plan": {"id": "gold", "product": "prod_4", "currency": "usd"}, "quantity": 2},
        {"items": {"data": [{"plan": "silver"}]}},
        {"plan": "bronze"},
        {"billing": "send_invoice", "start": NOW, "items": {"data": []}},
        {"items": {"data": [{"price": "price_5", "quantity": None}]}, "cancellation_details": None},
        {"items": None, "cancel_at": "soon", "cancel_at_period_end": 1},
        None,
    ],
    "balance_transaction": [
        {
            "created": NOW,
            "source": {"id": "re_1"},
            "type": "refund",
            "reporting_category": "refund",
            "status": "available",
            "description": "a movement",
            "currency": "usd",
            "amount": -1000,
            "fee": -59,
            "net": -941,
            "exchange_rate": 1.25,
            "available_on": NOW,
        },
        {"source": None, "currency": "usd", "exchange_rate": None},
        {"exchange_rate": 2, "currency": "mga", "amount": 9223372036854775807, "net": 2**63},
        {"exchange_rate": "nan", "available_on": True},
        None,
    ],
    "dispute": [
        {
            "created": NOW,
            "charge": "ch_1",
            "payment_intent": "pi_1",
            "status": "lost",
            "reason": "fraudulent",
            "payment_method_details": {"type": "card", "card": {"network_reason_code": "10.4"}},
            "network_reason_code": "9",
            "currency": "usd",
            "amount": 1050,
            "balance_transactions": [{"id": "txn_1", "net": -2550}],
            "evidence_details": {
                "due_by": NOW,
                "submission_count": 1,
                "has_evidence": True,
                "past_due": False,
            },
            "is_charge_refundable": False,
            "livemode": False,
            "metadata": {"a": "b"},
        },
        # Of 2022; of PayPal, whose code is no card network's.
        {"network_reason_code": "83", "evidence_details": {"due_by": 0}},
        {"payment_method_details": {"type": "paypal", "paypal": {"reason_code": "UNAUTHORISED"}}},
        {"evidence_details": None, "balance_transactions": []},
        None,
    ],
    "payout": [
        {
            "created": NOW,
            "balance_transaction": "txn_1",
            "failure_balance_transaction": {"id": "txn_2"},
            "destination": {"id": "ba_1", "object": "bank_account"},
            "original_payout": "po_2",
            "reversed_by": "po_3",
            "status": "failed",
            "type": "bank_account",
            "method": "standard",
            "reconciliation_status": "completed",
            "failure_code": "account_closed",
            "description": "a payout",
            "currency": "usd",
            "amount": -989,
            "arrival_date": NOW,
            "automatic": True,
            "livemode": False,
            "metadata": {"a": "b"},
        },
        {"destination": "ba_2", "currency": "isk", "amount": 500},
        None,
    ],
    "product": [
        {
            "created": NOW,
            "default_price": {"id": "price_1"},
            "name": "a product",
            "description": "what it is",
            "type": "service",
            "unit_label": "seat",
            "updated": NOW,
            "active": True,
            "livemode": False,
            "metadata": {"a": "b"},
        },
        {"default_price": None, "active": False},
        None,
    ],
    "price": [
        {
            "created": NOW,
            "product": {"id": "prod_1"},
            "nickname": "a price",
            "lookup_key": "gold",
            "type": "recurring",
            "billing_scheme": "per_unit",
            "recurring": {"interval": "month", "interval_count": 3, "usage_type": "licensed"},
            "currency": "usd",
            "unit_amount": None,
            "unit_amount_decimal": "0.05",
            "active": True,
            "livemode": False,
            "metadata": {"a": "b"},
        },
        {"product": "prod_2", "currency": "usd", "unit_amount": 1200, "recurring": None},
        {"currency": "usd", "unit_amount": None, "unit_amount_decimal": None},
        {"currency": "usd", "unit_amount_decimal": "1e3", "unit_amount": "x"},
        None,
    ],
}
"""Payloads by object type, written by hand: current, older, empty, of undocumented types."""


MAIL = b"Subject: plain\r\nTo: bob@example.com\r\n\r\nbody\r\n"
MAIL_WITH_A_FILE = b"""Subject: with a file\r
Content-Type: multipart/mixed; boundary=b\r
\r
--b\r
Content-Type: text/plain\r
\r
text\r
--b\r
Content-Type: text/plain; name=a.txt\r
Content-Disposition: attachment; filename=a.txt\r
\r
file\r
--b--\r
"""


def turned(value: Any) -> Any:
    """The same payload, each id of an object expanded, and each object that is but an id not."""
    if isinstance(value, dict):
        if value.keys() == {"id"}:
            return value["id"]
        return {key: each if key == "id" else turned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [turned(each) for each in value]
    return {"id": value} if re.fullmatch(r"[a-z]+_\d", str(value)) else value


def answer(url: str, token: str) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


def build(project: Project) -> None:
    result = project.run_dbt("run", "--select", "tag:gmail", "tag:stripe")
    assert result.success, result.exception


def columns_of_marts() -> Iterator[str]:
    """`mart.column` of all that the YAML files describe."""
    for folder in ("gmail", "stripe"):
        path = Path(PROJECT_DIR, "models", "marts", folder, "_models.yml")
        for model in yaml.safe_load(path.read_text())["models"]:
            yield from (f"{model['name']}.{column['name']}" for column in model["columns"])


@contextlib.contextmanager
def peer(running: contextlib.AbstractContextManager[str]) -> Iterator[str]:
    """Where a stand-in that somebody else wrote answers."""
    try:
        with running as url:
            yield url
    except PeerUnavailable as error:
        unavailable(error)


def test_every_column_of_every_mart_has_a_judge() -> None:
    judged = {f"{mart}.{column}" for mart, (_, _, columns) in MARTS.items() for column in columns}
    assert judged == set(columns_of_marts())


@on_both_targets
@pytest.mark.slow
def test_marts_say_what_hand_written_payloads_say(project: Project, warehouse: Warehouse) -> None:
    for mart, (source_system, object_type, _) in MARTS.items():
        # A line is `<invoice id>:<line id>`.
        prefix = "in_1:il_" if mart == "stripe_invoice_lines" else object_type[:2]
        payloads = CASES[object_type] + [turned(each) for each in CASES[object_type]]
        named = ((f"{prefix}{n}", each) for n, each in enumerate(payloads))
        store(warehouse, source_system, object_type, named)
    build(project)
    wrong, valued = judge(warehouse)
    assert not wrong, "\n".join(wrong)
    # A column without a value anywhere would be right whatever it read.
    assert valued == set(columns_of_marts())


@pytest.mark.slow
def test_marts_say_what_the_sandbox_sent(
    project: Project, warehouse: Warehouse, sandbox: Sandbox, merge_only: None
) -> None:
    assert run_stripe(warehouse, sandbox).error is None
    for fetch_format in FORMATS:

        def source(fetch_format: str = fetch_format) -> Any:
            return gmail_source(sandbox, fetch_format, fetch_format=fetch_format)

        run = run_ingestion(
            Ingestion(
                warehouse,
                source,
                source_system="gmail",
                connection_name=fetch_format,
                options=IngestOptions(),
            )
        )
        assert run.error is None
    build(project)
    wrong, _ = judge(warehouse)
    assert not wrong, "\n".join(wrong)
    counts = warehouse.execute(
        "select connection_name, count(*), count(subject), count(has_attachments)"
        f" from {warehouse.table('gmail_messages')} group by 1 order by 1"
    )
    assert [name for name, *_ in counts] == sorted(FORMATS)
    # What a format does not bring is unknown, not absent.
    known = {name: (subjects > 0, attachments) for name, _, subjects, attachments in counts}
    total = counts[0][1]
    assert known == {"full": (True, total), "metadata": (True, 0), "raw": (False, 0)}


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first one may have to install them
def test_marts_say_what_stand_ins_of_others_sent(
    project: Project, warehouse: Warehouse, tmp_path: Path
) -> None:
    with peer(run_stripe_world(tmp_path)) as url:
        account = next(accounts(url))
        # It pays out only what was earned two days before.
        for kind in (kind for kind in KINDS if kind != "payout"):
            account.create(kind)
        for kind in KINDS:
            found = answer(f"{account.url}/v1/{kind}s", account.key)["data"]
            store(warehouse, "stripe", kind, ((each["id"], each) for each in found))
            for lines in (each["lines"]["data"] for each in found if kind == "invoice"):
                named = ((f"{each['invoice']}:{each['id']}", each) for each in lines)
                store(warehouse, "stripe", "invoice_line", named)
    with peer(run_emulate(tmp_path, EmulateMailbox.seed(1))) as url:
        box = EmulateMailbox.of_number(url, 0)
        for raw in (MAIL, MAIL_WITH_A_FILE):
            message_id = box.deliver(raw, NOW * 1000)
            for name in FORMATS:
                message = answer(
                    f"{url}/gmail/v1/users/me/messages/{message_id}?format={name}", box.token
                )
                store(warehouse, "gmail", "message", [(f"{message_id}-{name}", message)])
    build(project)
    wrong, valued = judge(warehouse)
    assert not wrong, "\n".join(wrong)
    assert {"gmail_messages.has_attachments", "stripe_invoice_lines.price_id"} <= valued
