"""The kinds of objects that are read from Stripe, and how each is listed.

Source: Stripe API reference; the list endpoint of each object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

INVOICE, INVOICE_LINE = "invoice", "invoice_line"


@dataclasses.dataclass(frozen=True)
class Kind:
    """One list endpoint, and the object types that reading it brings."""

    name: str
    """The API's name of the object (`object`), and the stream's in the cursors."""
    path: str
    types: tuple[str, ...] = ()
    has_events: bool = True
    """Whether a change of an object is told by an event."""
    lists: tuple[Mapping[str, str], ...] = ({},)
    """Parameters of the lists that make it complete, together."""

    @property
    def object_types(self) -> tuple[str, ...]:
        """Object types in raw_objects."""
        return self.types or (self.name,)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("charge", "/v1/charges"),
        Kind("customer", "/v1/customers"),
        Kind(INVOICE, "/v1/invoices", types=(INVOICE, INVOICE_LINE)),
        Kind("payment_intent", "/v1/payment_intents"),
        Kind("refund", "/v1/refunds"),
        Kind("balance_transaction", "/v1/balance_transactions", has_events=False),
        Kind("dispute", "/v1/disputes"),
        Kind("payout", "/v1/payouts"),
        Kind("product", "/v1/products"),
        # The list has active prices only, unless it is asked for the others.
        Kind("price", "/v1/prices", lists=({"active": "true"}, {"active": "false"})),
        # Without it the list leaves out what was cancelled.
        Kind("subscription", "/v1/subscriptions", lists=({"status": "all"},)),
    )
}
"""By name."""

OBJECT_TYPES: Sequence[str] = tuple(
    object_type for kind in KINDS.values() for object_type in kind.object_types
)


def kinds_of(object_types: Iterable[str]) -> list[Kind]:
    """The kinds that bring these object types."""
    wanted = set(object_types)
    return [kind for kind in KINDS.values() if wanted.intersection(kind.object_types)]
