"""The kinds of Stripe objects: how each is rendered, found and chosen.

Source: Stripe API reference, the "List all …" page of each kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from landfall_sandbox.stripe import billing, layout, payments, people
from landfall_sandbox.stripe.ledger import Ledger

Render = Callable[[Ledger, int], str]
Candidates = Callable[[Ledger, int], list[int]]


@dataclass(frozen=True, slots=True)
class Lookup:
    """A filter by another object: which generated ones refer to object `index` of a kind."""

    kind: str
    candidates: Candidates
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scan:
    """A filter by a property that many objects share: the values there are, and whose is which."""

    values: frozenset[str]
    value: Callable[[Ledger, int], str]


@dataclass(frozen=True, slots=True)
class Expansion:
    """A reference that can be replaced by the object: how deep it is, and what it refers to."""

    kind: str | None
    levels: int = 1


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of the objects of a kind that refer to the object; it stands before a property."""

    kind: str
    before: str


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of objects; `name` is what its objects call themselves."""

    name: str
    plural: str
    render: Render
    lookups: Mapping[str, Lookup] = field(default_factory=dict)
    scans: Mapping[str, Scan] = field(default_factory=dict)
    expansions: Mapping[str, Expansion] = field(default_factory=dict)
    lists: Mapping[str, ListOf] = field(default_factory=dict)
    """Lists that only expanding puts into an object."""


def _none(ledger: Ledger, index: int) -> str:
    raise KeyError(index)


def _itself(ledger: Ledger, index: int) -> list[int]:
    return [index]


def _charges(ledger: Ledger, customer: int) -> list[int]:
    return layout.charges_of(customer)


def _invoices(ledger: Ledger, customer: int) -> list[int]:
    return [charge // 4 for charge in layout.charges_of(customer) if charge % 4 == 0]


def _subscriptions(ledger: Ledger, customer: int) -> list[int]:
    return [] if customer % 4 else [customer // 4]


def _refunds(ledger: Ledger, charge: int) -> list[int]:
    return _some(layout.refund_of(charge))


def _disputes(ledger: Ledger, charge: int) -> list[int]:
    return _some(layout.dispute_of(charge))


def _prices(ledger: Ledger, product: int) -> list[int]:
    return list(range(product, layout.PRICES, layout.PRODUCTS))


def _some(index: int | None) -> list[int]:
    return [] if index is None else [index]


def _of_source(name: str) -> Candidates:
    def transactions(ledger: Ledger, source: int) -> list[int]:
        is_charge_without = name == "charge" and layout.has_failed(source)
        return [] if is_charge_without else [layout.transaction_of(name, source)]

    return transactions


SOURCES = {
    "charge": _of_source("charge"),
    "refund": _of_source("refund"),
    "dispute": _of_source("adjustment"),
    "payout": _of_source("payout"),
}
"""What the balance transactions of each kind of source are found by."""


def _flag(test: Callable[[int], bool]) -> Scan:
    return Scan(frozenset(("true", "false")), lambda _, index: str(test(index)).lower())


_CURRENCIES = frozenset(layout.CURRENCIES)
_CUSTOMER = Expansion("customer")
_CHARGE = Expansion("charge")
_INTENT = Expansion("payment_intent")
_TRANSACTION = Expansion("balance_transaction")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "charge",
            "charges",
            payments.charge,
            lookups={
                "customer": Lookup("customer", _charges),
                "payment_intent": Lookup("payment_intent", _itself),
            },
            expansions={
                "customer": _CUSTOMER,
                "balance_transaction": _TRANSACTION,
                "payment_intent": _INTENT,
            },
            lists={"refunds": ListOf("refund", before="review")},
        ),
        Kind("customer", "customers", people.customer),
        Kind(
            "invoice",
            "invoices",
            billing.invoice,
            lookups={
                "customer": Lookup("customer", _invoices),
                "subscription": Lookup(
                    "subscription",
                    lambda _, index: layout.invoices_of_subscription(index),
                    ("parent", "subscription_details", "subscription"),
                ),
            },
            scans={
                "status": Scan(
                    frozenset(("draft", "open", "paid", "uncollectible", "void")),
                    lambda _, index: layout.invoice_status(index),
                )
            },
            expansions={
                "customer": _CUSTOMER,
                "parent.subscription_details.subscription": Expansion("subscription", 3),
            },
        ),
        Kind(
            "payment_intent",
            "payment_intents",
            payments.payment_intent,
            lookups={"customer": Lookup("customer", _charges)},
            expansions={"customer": _CUSTOMER, "latest_charge": _CHARGE},
        ),
        Kind(
            "refund",
            "refunds",
            payments.refund,
            lookups={
                "charge": Lookup("charge", _refunds),
                "payment_intent": Lookup("payment_intent", _refunds),
            },
            expansions={
                "charge": _CHARGE,
                "payment_intent": _INTENT,
                "balance_transaction": _TRANSACTION,
            },
        ),
        Kind(
            "balance_transaction",
            "balance_transactions",
            payments.balance_transaction,
            lookups={
                "payout": Lookup(
                    "payout", lambda _, index: layout.transactions_of_payout(index), ("source",)
                )
            },
            scans={
                "currency": Scan(_CURRENCIES, payments.transaction_currency),
                "type": Scan(
                    frozenset(("charge", "refund", "adjustment", "stripe_fee", "payout")),
                    lambda _, index: layout.source_of(index)[0],
                ),
            },
            expansions={"source": Expansion(None)},
        ),
        Kind(
            "dispute",
            "disputes",
            payments.dispute,
            lookups={
                "charge": Lookup("charge", _disputes),
                "payment_intent": Lookup("payment_intent", _disputes),
            },
            expansions={"charge": _CHARGE, "payment_intent": _INTENT},
        ),
        Kind(
            "payout",
            "payouts",
            payments.payout,
            scans={"status": Scan(frozenset(("paid",)), lambda _, index: "paid")},
            expansions={"balance_transaction": _TRANSACTION},
        ),
        Kind(
            "product",
            "products",
            people.product,
            scans={"active": _flag(people.is_product_active)},
            expansions={"default_price": Expansion("price")},
        ),
        Kind(
            "price",
            "prices",
            people.price,
            lookups={"product": Lookup("product", _prices)},
            scans={
                "active": _flag(people.is_price_active),
                "currency": Scan(_CURRENCIES, lambda _, index: people.price_currency(index)),
                "type": Scan(
                    frozenset(("one_time", "recurring")),
                    lambda _, index: people.price_type(index),
                ),
            },
            expansions={"product": Expansion("product")},
        ),
        Kind(
            "subscription",
            "subscriptions",
            billing.subscription,
            lookups={"customer": Lookup("customer", _subscriptions)},
            scans={
                "status": Scan(
                    frozenset(("active", "canceled", "past_due", "trialing")),
                    lambda _, index: layout.subscription_status(index),
                )
            },
            expansions={"customer": _CUSTOMER, "latest_invoice": Expansion("invoice")},
        ),
        Kind("event", "events", _none),
    )
}


def value_at(value: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Return what is at a path in an object, None where there is nothing."""
    found: Any = value
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found
