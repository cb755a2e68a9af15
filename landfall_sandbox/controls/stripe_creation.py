"""New objects in a Stripe account: like generated ones, with ids, dates and references of now."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from landfall_sandbox.controls.stripe_invoices import new_lines, with_lines
from landfall_sandbox.stripe import payments
from landfall_sandbox.stripe.account import Account
from landfall_sandbox.stripe.events import changed, emit
from landfall_sandbox.stripe.kinds import KINDS

# Some different models, none of them of a failed charge: places 0 to 9 of a block.
_MODELS = 10


@dataclass(frozen=True, slots=True)
class Creator:
    """Makes objects of one account, inside a transaction; `now` is in epoch seconds.

    `chosen_id` is the id that the object gets, where it is not generated.
    """

    account: Account
    now: int
    chosen_id: str | None = None

    def model(self, kind: str) -> dict[str, Any]:
        """Return a new object that looks like a generated one; it is not in the account yet."""
        ledger = self.account.ledger
        number = self.account.overlay.changes % _MODELS
        # Of products and prices there are as many, whatever the account's size.
        text = KINDS[kind].render(ledger, number)
        if self.chosen_id is None:
            text = text.replace(ledger.id(kind, number), self.account.new_id(kind))
        value: dict[str, Any] = json.loads(text)
        if self.chosen_id is not None:
            value["id"] = self.account.choose_id(kind, self.chosen_id)
        return value | {"created": self.now}

    def put(self, kind: str, value: dict[str, Any], *event_types: str) -> str:
        """Put an object in and record the events; return its id."""
        self.account.put(kind, value)
        for event_type in event_types:
            emit(self.account, self.now, event_type, value)
        return str(value["id"])

    def some(self, kind: str, number: int = 0) -> str | None:
        """Return the id of a live object to refer to, None where there is none."""
        account = self.account
        count = account.ledger.layout.count(kind)
        for turn in range(count):
            index = (number + turn) % count
            if account.is_live(kind, index):
                return account.ledger.id(kind, index)
        return None

    def transaction(self, kind: str, source: dict[str, Any] | None, amount: int) -> dict[str, Any]:
        """Put a pending balance transaction in; there is no event for it."""
        value = self.model("balance_transaction")
        charged = source["currency"] if source else "usd"
        currency = payments.settled_in(charged)
        rate = payments.exchange_rate(charged)
        value |= {
            "amount": amount if rate is None else round(amount * rate / 10),
            "available_on": payments.available_on("charge", self.now),
            "currency": currency,
            "description": None,
            "exchange_rate": rate,
            "fee": 0,
            "fee_details": [],
            "reporting_category": payments.CATEGORIES.get(kind, kind),
            "source": source["id"] if source else None,
            "status": "pending",
            "type": kind,
        }
        value["net"] = value["amount"]
        self.put("balance_transaction", value)
        return value

    def dispute(self, charge: dict[str, Any]) -> str:
        """Dispute a charge."""
        value = self.model("dispute") | {
            "amount": charge["amount"],
            "charge": charge["id"],
            "currency": charge["currency"],
            "payment_intent": charge["payment_intent"],
            "status": "needs_response",
        }
        value["balance_transactions"] = [self.transaction("adjustment", value, -charge["amount"])]
        self.account.put("charge", charge | {"disputed": True})
        events = ("charge.dispute.created", "charge.dispute.funds_withdrawn")
        return self.put("dispute", value, *events)

    def payout(self) -> str:
        """Pay out from the balance."""
        value = self.model("payout")
        transaction = self.transaction("payout", value, -value["amount"])
        value |= {
            "arrival_date": payments.payout_arrival(self.now),
            "balance_transaction": transaction["id"],
            "reconciliation_status": "in_progress",
            "status": "pending",
            "trace_id": {"status": "pending", "value": None},
        }
        return self.put("payout", value, "payout.created")


def create_one(creator: Creator, kind: str) -> str:
    """Create an object of a kind with what it needs, and the events; return its id."""
    return _CREATORS[kind](creator)


def refund_charge(creator: Creator, charge: dict[str, Any]) -> str:
    """Give back what is left of a charge."""
    amount = charge["amount"] - charge["amount_refunded"]
    value = creator.model("refund") | {
        "amount": amount,
        "charge": charge["id"],
        "currency": charge["currency"],
        "payment_intent": charge["payment_intent"],
        "reason": "requested_by_customer",
    }
    value["balance_transaction"] = creator.transaction("refund", value, -amount)["id"]
    after = charge | {"amount_refunded": charge["amount"], "refunded": True}
    creator.account.put("charge", after)
    refund_id = creator.put("refund", value, "refund.created")
    emit(creator.account, creator.now, "charge.refunded", after, changed(charge, after))
    return refund_id


def _charge(creator: Creator) -> str:
    intent = creator.model("payment_intent")
    charge = creator.model("charge")
    customer = creator.some("customer", charge["amount"])
    shared = {"amount": intent["amount"], "currency": intent["currency"], "customer": customer}
    charge |= shared | {
        "amount_captured": intent["amount"],
        "amount_refunded": 0,
        "refunded": False,
        "disputed": False,
        "payment_intent": intent["id"],
    }
    intent |= shared | {"latest_charge": charge["id"]}
    transaction = creator.transaction("charge", charge, charge["amount"])
    charge["balance_transaction"] = transaction["id"]
    creator.put("payment_intent", intent, "payment_intent.created", "payment_intent.succeeded")
    return creator.put("charge", charge, "charge.succeeded")


def _intent(creator: Creator) -> str:
    value = creator.model("payment_intent") | {
        "amount_received": 0,
        "customer": creator.some("customer"),
        "latest_charge": None,
        "payment_method": None,
        "status": "requires_payment_method",
    }
    return creator.put("payment_intent", value, "payment_intent.created")


def _customer(creator: Creator) -> str:
    value = creator.model("customer")
    value["email"] = f"new.{value['id'][-6:].lower()}@example.com"
    return creator.put("customer", value, "customer.created")


def _product(creator: Creator) -> str:
    value = creator.model("product")
    value |= {"active": True, "default_price": None, "updated": creator.now}
    return creator.put("product", value, "product.created")


def _price(creator: Creator) -> str:
    value = creator.model("price") | {"active": True, "lookup_key": None}
    value["product"] = creator.some("product", value["created"])
    return creator.put("price", value, "price.created")


def _subscription(creator: Creator) -> str:
    value = creator.model("subscription")
    item = value["items"]["data"][0]
    item |= {"id": creator.account.new_id("subscription_item"), "created": creator.now}
    item["current_period_start"] = creator.now
    item["current_period_end"] = creator.now + 30 * 86_400
    value |= {
        "billing_cycle_anchor": creator.now,
        "canceled_at": None,
        "customer": creator.some("customer", creator.now),
        "ended_at": None,
        "latest_invoice": None,
        "start_date": creator.now,
        "status": "active",
        "trial_end": None,
        "trial_start": None,
    }
    return creator.put("subscription", value, "customer.subscription.created")


def _invoice(creator: Creator) -> str:
    value = creator.model("invoice") | {
        "amount_paid": 0,
        "attempt_count": 0,
        "attempted": False,
        "billing_reason": "manual",
        "customer": creator.some("customer", creator.now),
        "effective_at": None,
        "ending_balance": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "number": None,
        "parent": None,
        "period_end": creator.now,
        "period_start": creator.now,
        "status": "draft",
        "webhooks_delivered_at": creator.now,
    }
    value["status_transitions"] = dict.fromkeys(value["status_transitions"])
    lines = new_lines(creator.account, value, creator.now, 2)
    index = creator.account.ledger.ids["invoice"].decode(value["id"])
    assert index is not None
    creator.account.put_lines(index, lines)
    return creator.put("invoice", with_lines(value, lines), "invoice.created")


def _transaction(creator: Creator) -> str:
    return str(creator.transaction("stripe_fee", None, -100)["id"])


def _new_charge(creator: Creator) -> dict[str, Any]:
    index = creator.account.index_of("charge", _charge(creator))
    assert index is not None
    return creator.account.value("charge", index)


def _refund(creator: Creator) -> str:
    return refund_charge(creator, _new_charge(creator))


def _dispute(creator: Creator) -> str:
    return creator.dispute(_new_charge(creator))


_CREATORS: dict[str, Callable[[Creator], str]] = {
    "charge": _charge,
    "customer": _customer,
    "invoice": _invoice,
    "payment_intent": _intent,
    "refund": _refund,
    "balance_transaction": _transaction,
    "dispute": _dispute,
    "payout": Creator.payout,
    "product": _product,
    "price": _price,
    "subscription": _subscription,
}
