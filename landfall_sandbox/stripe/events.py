"""Events: what happened to an account's objects. Source: Stripe API reference, "Events"."""

import json
import secrets
from typing import Any

from landfall_sandbox.stripe.account import Account
from landfall_sandbox.stripe.templates import pretty, sign

EVENT_VERSION = "2025-06-30.basil"
"""The version events are rendered in: older than the one that requests get, as on real accounts."""

UPDATE_TYPES = {
    "charge": "charge.updated",
    "customer": "customer.updated",
    "invoice": "invoice.updated",
    # The only type of a payment intent that tells of a change and not of another status.
    "payment_intent": "payment_intent.amount_capturable_updated",
    "refund": "refund.updated",
    "dispute": "charge.dispute.updated",
    "payout": "payout.updated",
    "product": "product.updated",
    "price": "price.updated",
    "subscription": "customer.subscription.updated",
}


def emit(
    account: Account,
    now: int,
    event_type: str,
    value: dict[str, Any],
    previous: dict[str, Any] | None = None,
) -> None:
    """Record an event of `value` as it is now, inside a transaction.

    `previous` are the attributes of an update that changed, as they were.
    """
    data = {"object": value} | ({} if previous is None else {"previous_attributes": previous})
    event = {
        "id": account.new_id("event"),
        "object": "event",
        "api_version": EVENT_VERSION,
        "created": now,
        "data": data,
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": f"req_{secrets.token_hex(7)}", "idempotency_key": None},
        "type": event_type,
    }
    # An event never changes again, its addresses neither.
    account.put("event", json.loads(sign(pretty(event).encode())), event_type)


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of `before` that are other ones in `after`, nested ones too."""
    previous: dict[str, Any] = {}
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and old.get("object") != "list":
            previous[name] = changed(old, new)
        else:
            previous[name] = old
    return previous
