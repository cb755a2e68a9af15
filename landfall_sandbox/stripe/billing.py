"""Invoices, their lines, and subscriptions of a generated account.

Source: Stripe API reference, "The Invoice object", "The Invoice Line Item object", "The
Subscription object".
"""

from functools import lru_cache
from typing import Any

from landfall_sandbox.stripe import layout
from landfall_sandbox.stripe.layout import DAY
from landfall_sandbox.stripe.ledger import Ledger, metadata_of, price_amount
from landfall_sandbox.stripe.people import MAILBOXES, NAMES, PEOPLE, price, product_of_price
from landfall_sandbox.stripe.templates import VOLATILE, indent, pretty, quoted, template

EMBEDDED_LINES = 10
"""How many lines an invoice shows; the others are read apart."""

_MONTH = 30 * DAY
_LONG_INVOICE, _LONG_LINES = 1, 130

_PARENT = {
    "quote_details": None,
    "subscription_details": {"metadata": {}, "subscription": "<subscription>"},
    "type": "subscription_details",
}
_DISABLED_TAX = {"disabled_reason": None, "enabled": False, "liability": None}


def _invoice_template(is_subscribed: bool, is_finalized: bool) -> str:
    address = f"https://invoice.stripe.com/i/<account>/test_{VOLATILE}?s=ap"
    return template(
        {
            "id": "<id>",
            "object": "invoice",
            "account_country": "US",
            "account_name": "Harbor Paper 紙",
            "account_tax_ids": None,
            "amount_due": "<=total>",
            "amount_overpaid": 0,
            "amount_paid": "<=paid>",
            "amount_remaining": "<=remaining>",
            "amount_shipping": 0,
            "application": None,
            "attempt_count": "<=attempts>",
            "attempted": "<=attempted>",
            "auto_advance": False,
            "automatic_tax": _DISABLED_TAX | {"provider": None, "status": None},
            "automatically_finalizes_at": None,
            "billing_reason": "subscription_cycle" if is_subscribed else "manual",
            "collection_method": "charge_automatically",
            "created": "<=created>",
            "currency": "<currency>",
            "custom_fields": None,
            "customer": "<=customer>",
            "customer_account": None,
            "customer_address": None,
            "customer_email": "<mailbox>@example.com",
            "customer_name": "<=name>",
            "customer_phone": None,
            "customer_shipping": None,
            "customer_tax_exempt": "none",
            "customer_tax_ids": [],
            "default_payment_method": None,
            "default_source": None,
            "default_tax_rates": [],
            "description": "<=description>",
            "discounts": [],
            "due_date": None,
            "effective_at": "<=finalized>",
            "ending_balance": 0 if is_finalized else None,
            "footer": None,
            "from_invoice": None,
            "hosted_invoice_url": address if is_finalized else None,
            "invoice_pdf": address.replace("?s", "/pdf?s") if is_finalized else None,
            "issuer": {"type": "self"},
            "last_finalization_error": None,
            "latest_revision": None,
            "lines": "<=lines>",
            "livemode": False,
            "metadata": "<=metadata>",
            "next_payment_attempt": None,
            "number": "<prefix>-<number>" if is_finalized else None,
            "on_behalf_of": None,
            "parent": _PARENT if is_subscribed else None,
            "payment_settings": {
                "default_mandate": None,
                "payment_method_options": None,
                "payment_method_types": None,
            },
            "period_end": "<=period_end>",
            "period_start": "<=period_start>",
            "post_payment_credit_notes_amount": 0,
            "pre_payment_credit_notes_amount": 0,
            "receipt_number": None,
            "rendering": None,
            "shipping_cost": None,
            "shipping_details": None,
            "starting_balance": 0,
            "statement_descriptor": None,
            "status": "<status>",
            "status_transitions": {
                "finalized_at": "<=finalized>",
                "marked_uncollectible_at": "<=uncollectible_at>",
                "paid_at": "<=paid_at>",
                "voided_at": "<=voided_at>",
            },
            "subtotal": "<=total>",
            "subtotal_excluding_tax": "<=total>",
            "test_clock": None,
            "total": "<=total>",
            "total_discount_amounts": [],
            "total_excluding_tax": "<=total>",
            "total_pretax_credit_amounts": [],
            "total_taxes": [],
            "webhooks_delivered_at": "<=created>",
        }
    )


_INVOICES = {
    (is_subscribed, is_finalized): _invoice_template(is_subscribed, is_finalized)
    for is_subscribed in (False, True)
    for is_finalized in (False, True)
}


def invoice(ledger: Ledger, index: int, lines: str | None = None) -> str:
    """Return the text of an invoice; `lines` is that of its lines (default: those generated)."""
    charge = layout.charge_of_invoice(index)
    customer = layout.customer_of(charge)
    status = layout.invoice_status(index)
    subscription = layout.subscription_of_invoice(index)
    total = ledger.amount(charge)
    created = ledger.layout.created("invoice", index)
    is_paid, is_finalized = status == "paid", status != "draft"
    number = ledger.dice(index, 8)
    identifier = ledger.id("invoice", index)
    if lines is None:
        shown = range(min(EMBEDDED_LINES, line_count(index)))
        texts = [line(ledger, index, n) for n in shown]
        lines = lines_list(identifier, texts, line_count(index))
    return _INVOICES[subscription is not None, is_finalized] % {
        "id": identifier,
        "account": ledger.account_id,
        "total": total,
        "paid": total if is_paid else 0,
        "remaining": 0 if is_paid else total,
        "attempts": int(is_paid),
        "attempted": "true" if is_paid else "false",
        "created": created,
        "currency": layout.currency_of(charge),
        "customer": quoted(None if customer is None else ledger.id("customer", customer)),
        "mailbox": MAILBOXES[number % len(PEOPLE)],
        "name": NAMES[number % len(PEOPLE)],
        "description": '"Thanks — ありがとう!"' if index % 6 == 1 else "null",
        "finalized": created + 5 if is_finalized else "null",
        "lines": indent(lines, 1),
        "metadata": metadata_of(index),
        "prefix": f"{number >> 32:08X}",
        "number": f"{index % 10_000:04}",
        "subscription": subscription_id(ledger, subscription),
        "period_end": created,
        "period_start": created - (_MONTH if subscription is not None else 0),
        "status": status,
        "uncollectible_at": created + DAY if status == "uncollectible" else "null",
        "paid_at": created + 20 if is_paid else "null",
        "voided_at": created + 600 if status == "void" else "null",
    }


def subscription_id(ledger: Ledger, subscription: int | None) -> str:
    """Return the id of a subscription, or nothing."""
    return "" if subscription is None else ledger.id("subscription", subscription)


def lines_list(invoice_id: str, texts: list[str], count: int) -> str:
    """Return the text of the list in an invoice; `texts` are the first of its `count` lines."""
    data = indent("\n" + ",\n".join(texts), 2) + "\n  " if texts else ""
    return (
        f'{{\n  "object": "list",\n  "data": [{data}],\n'
        f'  "has_more": {"true" if count > len(texts) else "false"},\n'
        f'  "total_count": {count},\n  "url": "/v1/invoices/{invoice_id}/lines"\n}}'
    )


def line_count(invoice_index: int) -> int:
    """Return how many lines an invoice was generated with."""
    if invoice_index == _LONG_INVOICE:
        return _LONG_LINES
    return 10 + invoice_index % 7 if invoice_index % 20 == 13 else 1 + invoice_index % 3


def _line_template(is_subscribed: bool) -> str:
    details = {
        "invoice_item": "<item>",
        "proration": False,
        "proration_details": {"credited_items": None},
        "subscription": None,
    }
    subscribed = details | {
        "invoice_item": None,
        "subscription": "<subscription>",
        "subscription_item": "<item>",
    }
    return template(
        {
            "id": "<id>",
            "object": "line_item",
            "amount": "<=amount>",
            "currency": "<currency>",
            "description": "<=description>",
            "discount_amounts": [],
            "discountable": True,
            "discounts": [],
            "invoice": "<invoice>",
            "livemode": False,
            "metadata": "<=metadata>",
            "parent": {
                "invoice_item_details": None if is_subscribed else details,
                "subscription_item_details": subscribed if is_subscribed else None,
                "type": "subscription_item_details" if is_subscribed else "invoice_item_details",
            },
            "period": {"end": "<=end>", "start": "<=start>"},
            "pretax_credit_amounts": [],
            "pricing": {
                "price_details": {"price": "<price>", "product": "<product>"},
                "type": "price_details",
                "unit_amount_decimal": "<amount>",
            },
            "quantity": 1,
            "subtotal": "<=amount>",
            "taxes": [],
        }
    )


_LINES = (_line_template(False), _line_template(True))


def line(ledger: Ledger, invoice_index: int, number: int) -> str:
    """Return the text of line `number` of an invoice; together they make its total."""
    charge = layout.charge_of_invoice(invoice_index)
    subscription = layout.subscription_of_invoice(invoice_index)
    count = line_count(invoice_index)
    each, rest = divmod(ledger.amount(charge), count)
    created = ledger.layout.created("invoice", invoice_index)
    if subscription is None:
        price_index = (invoice_index + number) % layout.PRICES
        item = "ii_1" + ledger.line_id(invoice_index, number)[4:]
    else:
        price_index = layout.price_of_subscription(subscription)
        item = ledger.id("subscription_item", subscription)
    return _LINES[subscription is not None] % {
        "id": ledger.line_id(invoice_index, number),
        "amount": each + rest if number == count - 1 else each,
        "currency": layout.currency_of(charge),
        "description": f'"{number + 1} × Papier A4 “紙”"' if number % 5 else "null",
        "invoice": ledger.id("invoice", invoice_index),
        "metadata": metadata_of(number),
        "subscription": subscription_id(ledger, subscription),
        "item": item,
        "end": created,
        "start": created - (_MONTH if subscription is not None else 0),
        "price": ledger.id("price", price_index),
        "product": ledger.id("product", product_of_price(price_index)),
    }


def _plan(ledger: Ledger, index: int) -> dict[str, Any]:
    return {
        "id": ledger.id("price", index),
        "object": "plan",
        "active": True,
        "amount": price_amount(index),
        "amount_decimal": str(price_amount(index)),
        "billing_scheme": "per_unit",
        "created": ledger.layout.created("price", index),
        "currency": layout.CURRENCIES[index],
        "interval": "month",
        "interval_count": 1,
        "livemode": False,
        "metadata": {},
        "meter": None,
        "nickname": "Standard",
        "product": ledger.id("product", product_of_price(index)),
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


_SUBSCRIPTION = template(
    {
        "id": "<id>",
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": _DISABLED_TAX,
        "billing_cycle_anchor": "<=created>",
        "billing_cycle_anchor_config": None,
        "billing_mode": {"flexible": None, "type": "classic"},
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": "<=canceled>",
        "cancellation_details": {"comment": None, "feedback": None, "reason": "<=reason>"},
        "collection_method": "charge_automatically",
        "created": "<=created>",
        "currency": "<currency>",
        "customer": "<customer>",
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": "<=canceled>",
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": {
            "object": "list",
            "data": [
                {
                    "id": "<item>",
                    "object": "subscription_item",
                    "billing_thresholds": None,
                    "created": "<=created>",
                    "current_period_end": "<=period_end>",
                    "current_period_start": "<=created>",
                    "discounts": [],
                    "metadata": {},
                    "plan": "<=plan>",
                    "price": "<=price>",
                    "quantity": 1,
                    "subscription": "<id>",
                    "tax_rates": [],
                }
            ],
            "has_more": False,
            "total_count": 1,
            "url": "/v1/subscription_items?subscription=<id>",
        },
        "latest_invoice": "<=invoice>",
        "livemode": False,
        "metadata": "<=metadata>",
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": "<=created>",
        "status": "<status>",
        "test_clock": None,
        "transfer_data": None,
        "trial_end": "<=trial_end>",
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": "<=trial_start>",
    }
)


def subscription(ledger: Ledger, index: int) -> str:
    """Return the text of a subscription, with its one item."""
    created = ledger.layout.created("subscription", index)
    status = layout.subscription_status(index)
    price_index = layout.price_of_subscription(index)
    invoices = [n for n in layout.invoices_of_subscription(index) if ledger.exists("invoice", n)]
    is_canceled, is_trial = status == "canceled", status == "trialing"
    canceled = min(created + DAY, ledger.layout.anchor) if is_canceled else "null"
    return _SUBSCRIPTION % {
        "id": ledger.id("subscription", index),
        "created": created,
        "canceled": canceled,
        "reason": '"cancellation_requested"' if is_canceled else "null",
        "currency": layout.CURRENCIES[price_index],
        "customer": ledger.id("customer", layout.customer_of_subscription(index)),
        "item": ledger.id("subscription_item", index),
        "period_end": created + _MONTH,
        "plan": _plan_text(ledger, price_index),
        "price": _price_text(ledger, price_index),
        "invoice": quoted(ledger.id("invoice", invoices[-1]) if invoices else None),
        "metadata": metadata_of(index),
        "status": status,
        "trial_end": created + 14 * DAY if is_trial else "null",
        "trial_start": created if is_trial else "null",
    }


@lru_cache
def _plan_text(ledger: Ledger, index: int) -> str:
    return indent(pretty(_plan(ledger, index)), 4)


@lru_cache
def _price_text(ledger: Ledger, index: int) -> str:
    return indent(price(ledger, index), 4)
