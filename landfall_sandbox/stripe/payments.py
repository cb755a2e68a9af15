"""Charges, payment intents, refunds, disputes, payouts and balance transactions.

Source: Stripe API reference, "The Charge object", "The PaymentIntent object", "The Refund
object", "The Dispute object", "The Payout object", "The Balance Transaction object".
"""

from typing import Any

from landfall_sandbox.stripe import layout
from landfall_sandbox.stripe.layout import DAY
from landfall_sandbox.stripe.ledger import Ledger, metadata_of
from landfall_sandbox.stripe.people import MAILBOXES, NAMES, PEOPLE, address
from landfall_sandbox.stripe.templates import VOLATILE, fragment, indent, quoted, template

_PENDING_DAYS = 2
_ALWAYS_PENDING = 4
_EXCHANGED, _EXCHANGED_TO, _EXCHANGE_RATE = "kwd", "usd", 3.25187
_BRANDS = ("visa", "mastercard", "amex", "visa", "visa")
_FAILURE = "Your card has insufficient funds."

_CARD: dict[str, Any] = {
    "card": {
        "amount_authorized": "<=amount>",
        "authorization_code": "<=authorization>",
        "brand": "<brand>",
        "checks": {
            "address_line1_check": "pass",
            "address_postal_code_check": "pass",
            "cvc_check": None,
        },
        "country": "US",
        "exp_month": "<=month>",
        "exp_year": 2031,
        "extended_authorization": {"status": "disabled"},
        "fingerprint": "Xt5EWLLDS7FJjR1c",
        "funding": "credit",
        "incremental_authorization": {"status": "unavailable"},
        "installments": None,
        "last4": "<last4>",
        "mandate": None,
        "multicapture": {"status": "unavailable"},
        "network": "<brand>",
        "network_token": {"used": False},
        "network_transaction_id": "<=trace>",
        "overcapture": {"maximum_amount_capturable": "<=amount>", "status": "unavailable"},
        "regulated_status": "unregulated",
        "three_d_secure": None,
        "wallet": None,
    },
    "type": "card",
}
_SEPA: dict[str, Any] = {
    "sepa_debit": {
        "bank_code": "37040044",
        "branch_code": "",
        "country": "DE",
        "expected_debit_date": None,
        "fingerprint": "lm2qfR8yXHhJmo0S",
        "last4": "<last4>",
        "mandate": "mandate_1Sandbox<last4>",
    },
    "type": "sepa_debit",
}
_SHIPPING = [
    fragment(
        {
            "address": address(number),
            "carrier": None,
            "name": PEOPLE[number % len(PEOPLE)][0],
            "phone": None,
            "tracking_number": f"1Z{number:06}",
        }
    )
    for number in range(12)
]
_BILLING_ADDRESSES = [fragment(address(number), 2) for number in range(12)]
_SUCCESS = {
    "advice_code": None,
    "network_advice_code": None,
    "network_decline_code": None,
    "network_status": "approved_by_network",
    "reason": None,
    "risk_level": "normal",
    "risk_score": "<=risk>",
    "seller_message": "Payment complete.",
    "type": "authorized",
}
_REFUSAL = _SUCCESS | {
    "advice_code": "try_again_later",
    "network_advice_code": "02",
    "network_decline_code": "51",
    "network_status": "declined_by_network",
    "reason": "insufficient_funds",
    "seller_message": "The bank returned the decline code `insufficient_funds`.",
    "type": "issuer_declined",
}


def _charge_template(has_failed: bool, details: dict[str, Any]) -> str:
    return template(
        {
            "id": "<id>",
            "object": "charge",
            "amount": "<=amount>",
            "amount_captured": 0 if has_failed else "<=amount>",
            "amount_refunded": "<=refunded_amount>",
            "application": None,
            "application_fee": None,
            "application_fee_amount": None,
            "balance_transaction": "<=transaction>",
            "billing_details": {
                "address": "<=address>",
                "email": "<mailbox>@example.com",
                "name": "<=name>",
                "phone": None,
                "tax_id": None,
            },
            "calculated_statement_descriptor": "HARBOR PAPER",
            "captured": not has_failed,
            "created": "<=created>",
            "currency": "<currency>",
            "customer": "<=customer>",
            "description": "<=description>",
            "disputed": "<=disputed>",
            "failure_balance_transaction": None,
            "failure_code": "card_declined" if has_failed else None,
            "failure_message": _FAILURE if has_failed else None,
            "fraud_details": {},
            "livemode": False,
            "metadata": "<=metadata>",
            "on_behalf_of": None,
            "outcome": _REFUSAL if has_failed else _SUCCESS,
            "paid": not has_failed,
            "payment_intent": "<payment_intent>",
            "payment_method": "<payment_method>",
            "payment_method_details": details,
            "radar_options": {},
            "receipt_email": None,
            "receipt_number": None,
            "receipt_url": f"https://pay.stripe.com/receipts/payment/{VOLATILE}",
            "refunded": "<=refunded>",
            "review": None,
            "shipping": "<=shipping>",
            "source": None,
            "source_transfer": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "failed" if has_failed else "succeeded",
            "transfer_data": None,
            "transfer_group": None,
        }
    )


_CHARGE = _charge_template(False, _CARD)
_FAILED_CHARGE = _charge_template(True, _CARD)
_DEBIT = _charge_template(False, _SEPA)


def charge(ledger: Ledger, index: int) -> str:
    """Return the text of a charge."""
    currency = layout.currency_of(index)
    has_failed = layout.has_failed(index)
    customer = layout.customer_of(index)
    number = ledger.dice(index, 3)
    amount, refunded = ledger.amount(index), ledger.refunded(index)
    is_disputed = ledger.exists("dispute", layout.dispute_of(index))
    transaction = None
    if not has_failed:
        transaction = ledger.id("balance_transaction", layout.transaction_of("charge", index))
    if has_failed:
        chosen = _FAILED_CHARGE
    else:
        chosen = _DEBIT if currency == "eur" and index % 2 else _CHARGE
    return chosen % {
        "id": ledger.id("charge", index),
        "amount": amount,
        "refunded_amount": refunded,
        "transaction": quoted(transaction),
        "address": _BILLING_ADDRESSES[number % 12],
        "mailbox": MAILBOXES[number % len(PEOPLE)],
        "name": NAMES[number % len(PEOPLE)],
        "created": ledger.layout.created("charge", index),
        "currency": currency,
        "customer": "null" if customer is None else quoted(ledger.id("customer", customer)),
        "description": _description(index),
        "disputed": "true" if is_disputed else "false",
        "metadata": metadata_of(index),
        "risk": number % 64,
        "payment_intent": ledger.id("payment_intent", index),
        "payment_method": ledger.id("payment_method", index if customer is None else customer),
        "authorization": f'"{number % 1_000_000:06}"' if index % 3 else "null",
        "brand": _BRANDS[number % 5],
        "month": 1 + number % 12,
        "last4": f"{number % 10_000:04}",
        "trace": f'"{number % 10**15:015}"' if index % 4 else "null",
        "refunded": "true" if refunded == amount else "false",
        "shipping": _SHIPPING[number % 12] if index % 4 == 1 else "null",
    }


def _description(charge_index: int) -> str:
    if layout.invoice_of(charge_index) is not None:
        return '"Payment for Invoice"'
    return "null" if charge_index % 3 else '"Bestellung — 注文 №42"'


def _intent_template(has_failed: bool) -> str:
    error = {
        "advice_code": "try_again_later",
        "charge": "<charge>",
        "code": "card_declined",
        "decline_code": "insufficient_funds",
        "doc_url": "https://stripe.com/docs/error-codes/card-declined",
        "message": _FAILURE,
        "network_advice_code": "02",
        "network_decline_code": "51",
        "type": "card_error",
    }
    return template(
        {
            "id": "<id>",
            "object": "payment_intent",
            "amount": "<=amount>",
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": 0 if has_failed else "<=amount>",
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic_async",
            "client_secret": "<id>_secret_<secret>",
            "confirmation_method": "automatic",
            "created": "<=created>",
            "currency": "<currency>",
            "customer": "<=customer>",
            "customer_account": None,
            "description": "<=description>",
            "excluded_payment_method_types": None,
            "last_payment_error": error if has_failed else None,
            "latest_charge": "<charge>",
            "livemode": False,
            "metadata": "<=metadata>",
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": None if has_failed else "<payment_method>",
            "payment_method_configuration_details": {"id": "pmc_1Sandbox", "parent": None},
            "payment_method_options": {
                "card": {
                    "installments": None,
                    "mandate_options": None,
                    "network": None,
                    "request_three_d_secure": "automatic",
                },
                "link": {"persistent_token": None},
            },
            "payment_method_types": ["card", "sepa_debit", "link"],
            "processing": None,
            "receipt_email": None,
            "review": None,
            "setup_future_usage": None,
            "shipping": "<=shipping>",
            "source": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "requires_payment_method" if has_failed else "succeeded",
            "transfer_data": None,
            "transfer_group": None,
        }
    )


_INTENTS = (_intent_template(False), _intent_template(True))


def payment_intent(ledger: Ledger, index: int) -> str:
    """Return the text of the payment intent of charge `index`."""
    customer = layout.customer_of(index)
    number = ledger.dice(index, 3)
    return _INTENTS[layout.has_failed(index)] % {
        "id": ledger.id("payment_intent", index),
        "amount": ledger.amount(index),
        "secret": f"{ledger.dice(index, 4):020}"[:25],
        "created": ledger.layout.created("payment_intent", index),
        "currency": layout.currency_of(index),
        "customer": "null" if customer is None else quoted(ledger.id("customer", customer)),
        "description": _description(index),
        "charge": ledger.id("charge", index),
        "metadata": metadata_of(index),
        "payment_method": ledger.id("payment_method", index if customer is None else customer),
        "shipping": _SHIPPING[number % 12] if index % 4 == 1 else "null",
    }


_REFUND = template(
    {
        "id": "<id>",
        "object": "refund",
        "amount": "<=amount>",
        "balance_transaction": "<transaction>",
        "charge": "<charge>",
        "created": "<=created>",
        "currency": "<currency>",
        "destination_details": {
            "card": {
                "reference": "<=reference>",
                "reference_status": "available",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": "<=metadata>",
        "payment_intent": "<payment_intent>",
        "reason": "<=reason>",
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }
)


def refund(ledger: Ledger, index: int) -> str:
    """Return the text of a refund."""
    source = layout.charge_of_refund(index)
    transaction = layout.transaction_of("refund", index)
    return _REFUND % {
        "id": ledger.id("refund", index),
        "amount": ledger.refunded(source) or ledger.amount(source),
        "transaction": ledger.id("balance_transaction", transaction),
        "charge": ledger.id("charge", source),
        "created": ledger.layout.created("refund", index),
        "currency": layout.currency_of(source),
        "reference": f'"{ledger.dice(index, 5)}"' if index % 3 else "null",
        "metadata": metadata_of(index),
        "payment_intent": ledger.id("payment_intent", source),
        "reason": '"requested_by_customer"' if index % 2 else "null",
    }


_EVIDENCE = (
    "access_activity_log", "billing_address", "cancellation_policy",
    "cancellation_policy_disclosure", "cancellation_rebuttal", "customer_communication",
    "customer_email_address", "customer_name", "customer_purchase_ip", "customer_signature",
    "duplicate_charge_documentation", "duplicate_charge_explanation", "duplicate_charge_id",
)  # fmt: skip
_MORE_EVIDENCE = (
    "product_description", "receipt", "refund_policy", "refund_policy_disclosure",
    "refund_refusal_explanation", "service_date", "service_documentation", "shipping_address",
    "shipping_carrier", "shipping_date", "shipping_documentation", "shipping_tracking_number",
    "uncategorized_file", "uncategorized_text",
)  # fmt: skip
_DISPUTE = template(
    {
        "id": "<id>",
        "object": "dispute",
        "amount": "<=amount>",
        "balance_transactions": ["<=transaction>"],
        "charge": "<charge>",
        "created": "<=created>",
        "currency": "<currency>",
        "enhanced_eligibility_types": [],
        "evidence": dict.fromkeys(_EVIDENCE)
        | {"customer_name": "<=name>", "enhanced_evidence": {}}
        | dict.fromkeys(_MORE_EVIDENCE),
        "evidence_details": {
            "due_by": "<=due>",
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": "<=metadata>",
        "payment_intent": "<payment_intent>",
        "payment_method_details": {
            "card": {"brand": "visa", "case_type": "chargeback", "network_reason_code": "10.4"},
            "type": "card",
        },
        "reason": "fraudulent",
        "status": "<status>",
    }
)


def dispute(ledger: Ledger, index: int) -> str:
    """Return the text of a dispute, with the balance transaction it is made of."""
    source = layout.charge_of_dispute(index)
    created = ledger.layout.created("dispute", index)
    transaction = layout.transaction_of("adjustment", index)
    return _DISPUTE % {
        "id": ledger.id("dispute", index),
        "amount": ledger.amount(source),
        "transaction": indent(balance_transaction(ledger, transaction), 2),
        "charge": ledger.id("charge", source),
        "created": created,
        "currency": layout.currency_of(source),
        "name": NAMES[index % len(PEOPLE)],
        "due": created + 9 * DAY,
        "metadata": metadata_of(index),
        "payment_intent": ledger.id("payment_intent", source),
        "status": ("lost", "won", "needs_response")[index % 3],
    }


_PAYOUT = template(
    {
        "id": "<id>",
        "object": "payout",
        "amount": "<=amount>",
        "application_fee": None,
        "application_fee_amount": None,
        "arrival_date": "<=arrival>",
        "automatic": True,
        "balance_transaction": "<transaction>",
        "created": "<=created>",
        "currency": "usd",
        "description": "STRIPE PAYOUT",
        "destination": "ba_1Sandbox4xKd2pVwQz",
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "livemode": False,
        "metadata": {},
        "method": "standard",
        "original_payout": None,
        "payout_method": None,
        "reconciliation_status": "completed",
        "reversed_by": None,
        "source_type": "card",
        "statement_descriptor": None,
        "status": "paid",
        "trace_id": {"status": "supported", "value": "<trace>"},
        "type": "bank_account",
    }
)


def payout(ledger: Ledger, index: int) -> str:
    """Return the text of a payout."""
    created = ledger.layout.created("payout", index)
    transaction = layout.transaction_of("payout", index)
    return _PAYOUT % {
        "id": ledger.id("payout", index),
        "amount": payout_amount(ledger, index),
        "arrival": payout_arrival(created),
        "transaction": ledger.id("balance_transaction", transaction),
        "created": created,
        "trace": f"{ledger.dice(index, 6) % 10**15:015}",
    }


def payout_arrival(created: int) -> int:
    """Return when a payout arrives: at midnight, two days later."""
    return (created // DAY + 2) * DAY


def payout_amount(ledger: Ledger, index: int) -> int:
    """Return the amount of a payout in cents."""
    return 100_000 + ledger.dice(index, 7) % 900_000


_FEE_DETAILS = indent(
    template(
        [
            {
                "amount": "<=fee>",
                "application": None,
                "currency": "<currency>",
                "description": "Stripe processing fees",
                "type": "stripe_fee",
            }
        ]
    ),
    1,
)
_TRANSACTION = template(
    {
        "id": "<id>",
        "object": "balance_transaction",
        "amount": "<=amount>",
        "available_on": "<=available>",
        "balance_type": "payments",
        "created": "<=created>",
        "currency": "<currency>",
        "description": "<=description>",
        "exchange_rate": "<=rate>",
        "fee": "<=fee>",
        "fee_details": "<=details>",
        "net": "<=net>",
        "reporting_category": "<category>",
        "source": "<=source>",
        "status": "<status>",
        "type": "<type>",
    }
)
CATEGORIES = {"stripe_fee": "fee", "adjustment": "dispute"}
"""The reporting category of types of balance transactions that have another name."""

_SOURCES = {"charge": "charge", "refund": "refund", "adjustment": "dispute", "payout": "payout"}


def balance_transaction(ledger: Ledger, index: int) -> str:
    """Return the text of a balance transaction; it is settled in the currency of the balance."""
    kind, source = layout.source_of(index)
    charged, currency, amount = _charged(ledger, kind, source)
    rate = exchange_rate(charged)
    if rate is not None:
        amount = round(amount * rate / 10)  # from three decimals to two
    fee = (30 + abs(amount) * 29 // 1000) if kind == "charge" else 1500 * (kind == "adjustment")
    created = ledger.layout.created("balance_transaction", index)
    source_id = quoted(ledger.id(_SOURCES[kind], source) if kind in _SOURCES else None)
    return _TRANSACTION % {
        "id": ledger.id("balance_transaction", index),
        "amount": amount,
        "available": available_on(kind, created),
        "created": created,
        "currency": currency,
        "description": "null" if kind == "charge" else f'"{kind.replace("_", " ").title()}"',
        "rate": "null" if rate is None else rate,
        "fee": fee,
        "details": _FEE_DETAILS % {"fee": fee, "currency": currency} if fee else "[]",
        "net": amount - fee,
        "category": CATEGORIES.get(kind, kind),
        "source": source_id,
        "status": "pending" if is_pending(ledger, index, kind, created) else "available",
        "type": kind,
    }


def _charged(ledger: Ledger, kind: str, source: int) -> tuple[str, str, int]:
    """Return the currency of a transaction's source, that of the balance, and the amount."""
    if kind == "payout":
        return "usd", "usd", -payout_amount(ledger, source)
    if kind == "stripe_fee":
        return "usd", "usd", -(25 + source % 200)
    if kind == "charge":
        charge_index, amount = source, ledger.amount(source)
    elif kind == "refund":
        charge_index = layout.charge_of_refund(source)
        amount = -(ledger.refunded(charge_index) or ledger.amount(charge_index))
    else:
        charge_index = layout.charge_of_dispute(source)
        amount = -ledger.amount(charge_index)
    charged = layout.currency_of(charge_index)
    return charged, settled_in(charged), amount


def settled_in(currency: str) -> str:
    """Return the currency of the balance that money in `currency` goes to."""
    return _EXCHANGED_TO if currency == _EXCHANGED else currency


def exchange_rate(currency: str) -> float | None:
    """Return the rate at which a currency is exchanged, None for one that has a balance."""
    return _EXCHANGE_RATE if currency == _EXCHANGED else None


def transaction_currency(ledger: Ledger, index: int) -> str:
    """Return the currency of a balance transaction."""
    kind, source = layout.source_of(index)
    return _charged(ledger, kind, source)[1]


def available_on(kind: str, created: int) -> int:
    """Return when the money of a transaction can be used: at midnight, two days later."""
    return (created // DAY + _PENDING_DAYS) * DAY if kind == "charge" else created


def is_pending(ledger: Ledger, index: int, kind: str, created: int) -> bool:
    """Return whether the money was not available when the account was generated.

    Those that time leaves pending, and the last few in any case.
    """
    if kind != "charge":
        return False
    last = ledger.layout.count("balance_transaction") - _ALWAYS_PENDING
    return index >= last or available_on(kind, created) > ledger.layout.anchor


def first_pending(ledger: Ledger) -> int:
    """Return the index from which on balance transactions may be pending."""
    count = ledger.layout.count("balance_transaction")
    after = ledger.layout.anchor - (_PENDING_DAYS + 1) * DAY
    recent = ledger.layout.first_after("balance_transaction", after)
    return max(0, min(recent, count - _ALWAYS_PENDING))
