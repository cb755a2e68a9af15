"""What each column of each mart must hold, worked out from the payload in plain Python.

Written from the API references of Gmail and Stripe and the changelog of Stripe's versions, not
from the models: the two are to err in different places. A payload says nothing of what it lacks,
of another type than documented, or null: the column is None then.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

Row = Mapping[str, Any]
"""A row of raw_objects, its payload parsed; None when the content was never seen."""
Column = Callable[[Row], Any]

# Read as text: BigQuery's answers have an empty array for one that is NULL, and its JSON has not.
JSON_OF = {name: name for name in ("balance_transactions", "items", "metadata")} | {
    "label_ids": "to_json(label_ids)"
}
SEEN = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DECIMALS = {
    **dict.fromkeys(re.findall("...", "BIFCLPDJFGNFJPYKMFKRWMGAPYGRWFVNDVUVXAFXOFXPF"), 0),
    **dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 3),
}


def dig(value: Any, path: str) -> Any:
    """The value at a dotted path; None where it leads nowhere."""
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def as_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def as_id(value: Any) -> str | None:
    """Of a reference: an id, or the object itself."""
    return as_text(value["id"] if isinstance(value, dict) and "id" in value else value)


def as_flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def as_integer(value: Any) -> int | None:
    """A whole number of 64 bits."""
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and -(2**63) <= value < 2**63 else None


def as_decimal(value: Any) -> Decimal | None:
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return Decimal(value)
    whole = as_integer(value)
    return None if whole is None else Decimal(whole)


def as_container(value: Any) -> Any:
    return value if isinstance(value, dict | list) else None


def as_float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def as_moment(value: Any, a_second: int = 1) -> dt.datetime | None:
    count = as_integer(value)
    try:
        return None if count is None else EPOCH + dt.timedelta(seconds=count) / a_second
    except OverflowError:
        return None


def read(convert: Callable[[Any], Any], *paths: str) -> Column:
    """The first of these places in the payload that says something."""
    return lambda row: first(convert(dig(row["payload"], path)) for path in paths)


def held(column: str) -> Column:
    return lambda row: row[column]


def amount(minor: Column, currency: Column) -> Column:
    """Minor units in the currency itself (docs.stripe.com/currencies)."""

    def convert(row: Row) -> Decimal | None:
        units, code = minor(row), currency(row)
        if units is None or code is None:
            return None
        return Decimal(units).scaleb(-_DECIMALS.get(code.upper(), 2))

    return convert


def texts(*columns: str) -> dict[str, Column]:
    """Columns that are named like the text in the payload."""
    return {column: read(as_text, column) for column in columns}


def stripe(
    key: str | None,
    columns: Mapping[str, Column],
    *,
    money: Mapping[str, Column] | None = None,
    without: Sequence[str] = (),
    currency: Column = read(as_text, "currency"),  # noqa: B008
) -> Mapping[str, Column]:
    """A mart of Stripe's objects: its own columns and those that most have."""
    common = {
        "idem_key": held("idem_key"),
        "connection_name": held("connection_name"),
        "currency": currency,
        "created_at": held("object_created_at"),
        "is_livemode": read(as_flag, "livemode"),
        "metadata": read(as_container, "metadata"),
        "is_deleted": lambda row: row["deleted_at"] is not None,
        "deleted_at": held("deleted_at"),
        "first_seen": held("first_seen"),
        "last_seen": held("last_seen"),
        **({key: held("external_id")} if key else {}),
    }
    for name, minor in (money or {}).items():
        common |= {f"{name}_minor": minor, name: amount(minor, currency)}
    return {name: each for name, each in common.items() if name not in without} | dict(columns)


def minors(*columns: str) -> dict[str, Column]:
    return {column: read(as_integer, column) for column in columns}


def header(name: str) -> Column:
    """The value of the first header of a message with this name."""

    def find(row: Row) -> str | None:
        headers = dig(row["payload"], "payload.headers") or []
        named = (each["value"] for each in headers if each["name"].lower() == name)
        return as_text(next(named, None))

    return find


def has_attachments(row: Row) -> bool | None:
    """Whether a part has a file name; only the format `full` has parts and bodies."""

    def names(part: Any) -> Iterator[str]:
        yield part.get("filename") or ""
        for child in part.get("parts") or []:
            yield from names(child)

    message = dig(row["payload"], "payload")
    if not isinstance(message, dict) or message.keys().isdisjoint({"body", "parts"}):
        return None
    return any(names(message))


def parent_type(row: Row) -> str | None:
    """Before Basil a line had `type`; of one that has both an item of the invoice and one of a
    subscription that does not say what Basil calls its parent."""
    named = as_text(dig(row["payload"], "parent.type"))
    kind = dig(row["payload"], "type")
    if named is None and kind == "subscription":
        return "subscription_item_details"
    if named is None and kind == "invoiceitem" and not dig(row["payload"], "subscription_item"):
        return "invoice_item_details"
    return named


def quantity_of_subscription(row: Row) -> int | None:
    item = dig(row["payload"], "items.data.0")
    return as_integer(dig(row["payload"] if item is None else item, "quantity"))


def evidence_due_at(row: Row) -> dt.datetime | None:
    """0 says that there is nothing to be submitted."""
    return as_moment(dig(row["payload"], "evidence_details.due_by") or None)


def was_disputed(row: Row) -> bool | None:
    """A charge once named its dispute, and had no flag."""
    flag = as_flag(dig(row["payload"], "disputed"))
    return True if flag is None and as_id(dig(row["payload"], "dispute")) else flag


GMAIL_MESSAGES: Mapping[str, Column] = {
    "idem_key": held("idem_key"),
    "connection_name": held("connection_name"),
    "message_id": held("external_id"),
    "thread_id": read(as_text, "threadId"),
    "subject": header("subject"),
    "from_header": header("from"),
    "to_header": header("to"),
    "cc_header": header("cc"),
    "date_header": header("date"),
    "internal_date": lambda row: as_moment(dig(row["payload"], "internalDate"), 1000),
    # The API leaves the field out of a message that has no label.
    "label_ids": lambda row: row["payload"] and (dig(row["payload"], "labelIds") or []),
    "snippet": read(as_text, "snippet"),
    "size_bytes": read(as_integer, "sizeEstimate"),
    "has_attachments": has_attachments,
    "is_deleted": lambda row: row["deleted_at"] is not None,
    "first_seen": held("first_seen"),
    "last_seen": held("last_seen"),
}

MARTS: Mapping[str, tuple[str, str, Mapping[str, Column]]] = {
    "gmail_messages": ("gmail", "message", GMAIL_MESSAGES),
    "stripe_charges": (
        "stripe",
        "charge",
        stripe(
            "charge_id",
            {
                **texts("status", "failure_code", "description"),
                "customer_id": read(as_id, "customer"),
                "payment_intent_id": read(as_id, "payment_intent"),
                "balance_transaction_id": read(as_id, "balance_transaction"),
                "failure_balance_transaction_id": read(as_id, "failure_balance_transaction"),
                # 2019-04: `source` held the card or source itself.
                "payment_method_id": read(as_id, "payment_method", "source"),
                "payment_method_type": read(as_text, "payment_method_details.type"),
                "is_paid": read(as_flag, "paid"),
                "is_captured": read(as_flag, "captured"),
                "is_refunded": read(as_flag, "refunded"),
                "is_disputed": was_disputed,
            },
            money=minors("amount", "amount_captured", "amount_refunded", "application_fee_amount"),
        ),
    ),
    "stripe_customers": (
        "stripe",
        "customer",
        stripe(
            "customer_id",
            {
                **texts("email", "phone", "description", "tax_exempt"),
                "customer_name": read(as_text, "name"),
                "country": read(as_text, "address.country"),
                "is_delinquent": read(as_flag, "delinquent"),
            },
            # 2019-10-17 renamed account_balance.
            money={"balance": read(as_integer, "balance", "account_balance")},
        ),
    ),
    "stripe_invoices": (
        "stripe",
        "invoice",
        stripe(
            "invoice_id",
            {
                **texts("number", "status", "billing_reason"),
                "customer_id": read(as_id, "customer"),
                # 2025-03-31.basil moved both into `parent`.
                "subscription_id": read(
                    as_id, "parent.subscription_details.subscription", "subscription"
                ),
                "quote_id": read(as_id, "parent.quote_details.quote", "quote"),
                # 2019-10-17 renamed billing.
                "collection_method": read(as_text, "collection_method", "billing"),
                "attempt_count": read(as_integer, "attempt_count"),
                "period_start_at": read(as_moment, "period_start"),
                "period_end_at": read(as_moment, "period_end"),
                "due_at": read(as_moment, "due_date"),
                "effective_at": read(as_moment, "effective_at"),
                # 2019-03-14 moved it.
                "finalized_at": read(as_moment, "status_transitions.finalized_at", "finalized_at"),
                "paid_at": read(as_moment, "status_transitions.paid_at"),
                "voided_at": read(as_moment, "status_transitions.voided_at"),
                "marked_uncollectible_at": read(
                    as_moment, "status_transitions.marked_uncollectible_at"
                ),
                "next_payment_attempt_at": read(as_moment, "next_payment_attempt"),
                "is_attempted": read(as_flag, "attempted"),
                "is_auto_advanced": read(as_flag, "auto_advance"),
            },
            money=minors(
                "subtotal",
                "total",
                "total_excluding_tax",
                "amount_due",
                "amount_paid",
                "amount_remaining",
                "starting_balance",
                "ending_balance",
            ),
        ),
    ),
    "stripe_invoice_lines": (
        "stripe",
        "invoice_line",
        stripe(
            None,
            {
                **texts("description"),
                "invoice_id": lambda row: row["external_id"].partition(":")[0],
                "invoice_line_id": lambda row: row["external_id"].partition(":")[2],
                # 2025-03-31.basil moved what a line comes from into `parent`, of either kind.
                "subscription_id": read(
                    as_id,
                    "parent.subscription_item_details.subscription",
                    "parent.invoice_item_details.subscription",
                    "subscription",
                ),
                "subscription_item_id": read(
                    as_id,
                    "parent.subscription_item_details.subscription_item",
                    "subscription_item",
                ),
                "invoice_item_id": read(
                    as_id,
                    "parent.invoice_item_details.invoice_item",
                    "parent.subscription_item_details.invoice_item",
                    "invoice_item",
                ),
                "is_proration": read(
                    as_flag,
                    "parent.subscription_item_details.proration",
                    "parent.invoice_item_details.proration",
                    "proration",
                ),
                "parent_type": parent_type,
                # … and price and plan into `pricing`; before 2020-03 there were plans alone.
                "price_id": read(as_id, "pricing.price_details.price", "price", "plan"),
                "product_id": read(
                    as_id, "pricing.price_details.product", "price.product", "plan.product"
                ),
                "quantity": read(as_integer, "quantity"),
                "quantity_decimal": read(as_decimal, "quantity_decimal"),
                "period_start_at": read(as_moment, "period.start"),
                "period_end_at": read(as_moment, "period.end"),
                "is_discountable": read(as_flag, "discountable"),
            },
            money={
                **minors("amount", "subtotal"),
                "unit_amount": read(
                    as_decimal,
                    "pricing.unit_amount_decimal",
                    "price.unit_amount_decimal",
                    "price.unit_amount",
                    "plan.amount_decimal",
                    "plan.amount",
                ),
            },
        ),
    ),
    "stripe_payment_intents": (
        "stripe",
        "payment_intent",
        stripe(
            "payment_intent_id",
            {
                **texts("status", "cancellation_reason", "capture_method", "description"),
                "customer_id": read(as_id, "customer"),
                # 2022-11-15 took away the list of charges, newest first.
                "latest_charge_id": read(as_id, "latest_charge", "charges.data.0"),
                "payment_method_id": read(as_id, "payment_method", "source"),
                "canceled_at": read(as_moment, "canceled_at"),
            },
            money=minors(
                "amount", "amount_capturable", "amount_received", "application_fee_amount"
            ),
        ),
    ),
    "stripe_refunds": (
        "stripe",
        "refund",
        stripe(
            "refund_id",
            {
                **texts("status", "reason", "failure_reason"),
                "charge_id": read(as_id, "charge"),
                "payment_intent_id": read(as_id, "payment_intent"),
                "balance_transaction_id": read(as_id, "balance_transaction"),
                "failure_balance_transaction_id": read(as_id, "failure_balance_transaction"),
            },
            money=minors("amount"),
            without=["is_livemode"],
        ),
    ),
    "stripe_subscriptions": (
        "stripe",
        "subscription",
        stripe(
            "subscription_id",
            {
                **texts("status", "description"),
                "customer_id": read(as_id, "customer"),
                "latest_invoice_id": read(as_id, "latest_invoice"),
                "default_payment_method_id": read(as_id, "default_payment_method"),
                "price_id": read(as_id, "items.data.0.price", "items.data.0.plan", "plan"),
                "product_id": read(
                    as_id,
                    "items.data.0.price.product",
                    "items.data.0.plan.product",
                    "plan.product",
                ),
                # 2019-10-17 renamed billing.
                "collection_method": read(as_text, "collection_method", "billing"),
                "cancellation_reason": read(as_text, "cancellation_details.reason"),
                "quantity": quantity_of_subscription,
                "items": read(as_container, "items.data"),
                # 2025-03-31.basil moved the period to the items.
                "current_period_start_at": read(
                    as_moment, "items.data.0.current_period_start", "current_period_start"
                ),
                "current_period_end_at": read(
                    as_moment, "items.data.0.current_period_end", "current_period_end"
                ),
                "billing_cycle_anchor_at": read(as_moment, "billing_cycle_anchor"),
                # Not `start`, of before 2019-10-17: that is when it was changed last.
                "started_at": read(as_moment, "start_date"),
                "trial_start_at": read(as_moment, "trial_start"),
                "trial_end_at": read(as_moment, "trial_end"),
                "cancel_at": read(as_moment, "cancel_at"),
                "canceled_at": read(as_moment, "canceled_at"),
                "ended_at": read(as_moment, "ended_at"),
                "is_canceled_at_period_end": read(as_flag, "cancel_at_period_end"),
            },
            # Subscriptions have a currency of their own since 2022.
            currency=read(
                as_text,
                "currency",
                "items.data.0.price.currency",
                "items.data.0.plan.currency",
                "plan.currency",
            ),
        ),
    ),
    "stripe_balance_transactions": (
        "stripe",
        "balance_transaction",
        stripe(
            "balance_transaction_id",
            {
                **texts("reporting_category", "status", "description"),
                "source_id": read(as_id, "source"),
                "transaction_type": read(as_text, "type"),
                "exchange_rate": read(as_float, "exchange_rate"),
                "available_at": read(as_moment, "available_on"),
            },
            money=minors("amount", "fee", "net"),
            without=["is_livemode", "metadata"],
        ),
    ),
    "stripe_disputes": (
        "stripe",
        "dispute",
        stripe(
            "dispute_id",
            {
                **texts("status", "reason"),
                "charge_id": read(as_id, "charge"),
                "payment_intent_id": read(as_id, "payment_intent"),
                "network_reason_code": read(
                    as_text,
                    "payment_method_details.card.network_reason_code",
                    "network_reason_code",
                ),
                "balance_transactions": read(as_container, "balance_transactions"),
                "evidence_due_at": evidence_due_at,
                "evidence_submission_count": read(as_integer, "evidence_details.submission_count"),
                "has_evidence": read(as_flag, "evidence_details.has_evidence"),
                "is_evidence_past_due": read(as_flag, "evidence_details.past_due"),
                "is_charge_refundable": read(as_flag, "is_charge_refundable"),
            },
            money=minors("amount"),
        ),
    ),
    "stripe_payouts": (
        "stripe",
        "payout",
        stripe(
            "payout_id",
            {
                **texts("status", "reconciliation_status", "failure_code", "description"),
                "balance_transaction_id": read(as_id, "balance_transaction"),
                "failure_balance_transaction_id": read(as_id, "failure_balance_transaction"),
                "destination_id": read(as_id, "destination"),
                "original_payout_id": read(as_id, "original_payout"),
                "reversed_by_payout_id": read(as_id, "reversed_by"),
                "payout_type": read(as_text, "type"),
                "delivery_method": read(as_text, "method"),
                "arrival_at": read(as_moment, "arrival_date"),
                "is_automatic": read(as_flag, "automatic"),
            },
            money=minors("amount"),
        ),
    ),
    "stripe_products": (
        "stripe",
        "product",
        stripe(
            "product_id",
            {
                **texts("description", "unit_label"),
                "default_price_id": read(as_id, "default_price"),
                "product_name": read(as_text, "name"),
                "product_type": read(as_text, "type"),
                "updated_at": read(as_moment, "updated"),
                "is_active": read(as_flag, "active"),
            },
            without=["currency"],
        ),
    ),
    "stripe_prices": (
        "stripe",
        "price",
        stripe(
            "price_id",
            {
                **texts("nickname", "lookup_key", "billing_scheme"),
                "product_id": read(as_id, "product"),
                "price_type": read(as_text, "type"),
                "recurring_interval": read(as_text, "recurring.interval"),
                "recurring_interval_count": read(as_integer, "recurring.interval_count"),
                "recurring_usage_type": read(as_text, "recurring.usage_type"),
                "is_active": read(as_flag, "active"),
            },
            money={"unit_amount": read(as_decimal, "unit_amount_decimal", "unit_amount")},
        ),
    ),
}
"""Source system, object type and columns of each mart."""
