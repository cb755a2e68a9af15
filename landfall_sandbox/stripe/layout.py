"""Dates, numbers and references of a generated Stripe account, by arithmetic on indexes alone.

Everything hangs on the charges. They come in blocks of 100; the other kinds have places in a
block, so that how many there are, when each was created and what refers to what can be told
without looking at any other object. Index 0 of a kind is its oldest object.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import accumulate

BLOCK = 100
DAY = 86_400
SPAN_DAYS = 730
PRODUCTS = 12
PRICES = 30
CURRENCIES = ("usd", "eur", "gbp", "jpy", "kwd", "chf")
# One in 6 charges that nothing else decides about has an unusual currency.
_CURRENCY_TURNS = (0, 1, 0, 2, 0, 1, 3, 0, 2, 0, 5, 4)
_FAILED = frozenset((17, 24, 37, 57, 77))
_REFUND_AFTER = 3
_DISPUTED, _DISPUTE = 14, 18
_FEES = (9, 26, 41, 58, 75, 92)
_PAYOUTS = (45, 95)
_REFUNDS = tuple(range(13, BLOCK, 20))
_INVOICES_PER_SUBSCRIPTION = 5

PLACES: dict[str, tuple[int, ...]] = {
    "charge": tuple(range(BLOCK)),
    "payment_intent": tuple(range(BLOCK)),
    "customer": tuple(range(0, BLOCK, 5)),
    "invoice": tuple(range(0, BLOCK, 4)),
    "subscription": tuple(range(0, BLOCK, 20)),
    "refund": _REFUNDS,
    "dispute": (_DISPUTE,),
    "payout": _PAYOUTS,
}
"""Where in a block of charges the objects of each kind are, in order."""

TRANSACTIONS: tuple[tuple[int, str, int], ...] = tuple(
    sorted(
        [(place, "charge", place) for place in range(BLOCK) if place not in _FAILED]
        + [(place, "refund", number) for number, place in enumerate(_REFUNDS)]
        + [(_DISPUTE, "adjustment", 0)]
        + [(place, "stripe_fee", number) for number, place in enumerate(_FEES)]
        + [(place, "payout", number) for number, place in enumerate(_PAYOUTS)]
    )
)
"""The balance transactions of a block: place, type, and the source's number in its block."""

PLACES["balance_transaction"] = tuple(place for place, _, _ in TRANSACTIONS)
_TRANSACTION_OF = {(kind, source): n for n, (_, kind, source) in enumerate(TRANSACTIONS)}
# Seconds from a charge to what comes with it; the same for all objects of a kind, so that the
# order of a kind is the order of its charges.
_DELAYS = {"customer": -90, "subscription": -30, "invoice": -20, "payment_intent": -2}
_BURST = 150
_HOURS_BEFORE_ANCHOR = 2
_OPENED_BEFORE_DAYS = 30


class Layout:
    """The arithmetic of one account."""

    def __init__(self, seed: int, charges: int, anchor: int) -> None:
        """Spread `charges` over the two years that end at `anchor` (epoch seconds)."""
        self.charges = charges
        self.anchor = anchor
        self._start = anchor - _HOURS_BEFORE_ANCHOR * 3600 - SPAN_DAYS * DAY
        self._hours = [0, *accumulate(_weights(seed))]
        self._burst = charges // 2
        self._burst_end = self._burst + min(_BURST, charges // 40)

    def count(self, kind: str) -> int:
        """Return how many objects of a kind were generated."""
        if kind in ("product", "price"):
            return PRODUCTS if kind == "product" else PRICES
        places = PLACES[kind]
        blocks, rest = divmod(self.charges, BLOCK)
        return blocks * len(places) + bisect_left(places, rest)

    def created(self, kind: str, index: int) -> int:
        """Return when an object was created, in epoch seconds; never less for a higher index."""
        if kind in ("product", "price"):
            opened = self._start - _OPENED_BEFORE_DAYS * DAY
            # Prices a minute apart, three of them in the same second.
            return opened + (index * 3600 if kind == "product" else DAY + index // 3 * 60)
        return self.moment(position(kind, index)) + _DELAYS.get(kind, 0)

    def moment(self, charge: int) -> int:
        """Return when a charge was created, in epoch seconds."""
        if self._burst <= charge < self._burst_end:
            charge = self._burst
        elif charge % 7 == 1 and charge != self._burst_end:
            charge -= 1  # in the same second as the one before
        weight = (2 * charge + 1) * self._hours[-1] // (2 * self.charges or 1)
        hour = bisect_right(self._hours, weight) - 1
        if hour >= len(self._hours) - 1:
            return self.anchor  # an index that was not generated
        into = (weight - self._hours[hour]) * 3600
        return self._start + hour * 3600 + into // (self._hours[hour + 1] - self._hours[hour])

    def first_after(self, kind: str, moment: int) -> int:
        """Return the index of the first object created after `moment` (epoch seconds)."""
        return first_where(self.count(kind), lambda index: self.created(kind, index) > moment)


def first_where(count: int, test: Callable[[int], bool]) -> int:
    """Return the first index below `count` that passes a test all later ones pass too."""
    return bisect_left(range(count), True, key=test)


def position(kind: str, index: int) -> int:
    """Return the index of the charge whose time is the object's."""
    places = PLACES[kind]
    block, number = divmod(index, len(places))
    return block * BLOCK + places[number]


def has_failed(charge: int) -> bool:
    """Return whether a charge failed; it has no balance transaction then."""
    return charge % BLOCK in _FAILED


def customer_of(charge: int) -> int | None:
    """Return the index of a charge's customer; None for a guest."""
    block, place = divmod(charge, BLOCK)
    number = _CUSTOMER_NUMBERS[place]
    return None if number is None else block * 20 + number


def _customer_number(place: int) -> int | None:
    if place % 20 in (0, 8):
        return place // 20 * 4  # the subscription's customer
    if place % 10 == 9:
        return None
    return place // 5 if place % 2 == 0 else place // 10


_CUSTOMER_NUMBERS = [_customer_number(place) for place in range(BLOCK)]
_CHARGES_OF_CUSTOMER = [
    [place for place in range(BLOCK) if _CUSTOMER_NUMBERS[place] == number] for number in range(20)
]


def charges_of(customer: int) -> list[int]:
    """Return the indexes of the charges of a customer, oldest first."""
    block, number = divmod(customer, 20)
    return [block * BLOCK + place for place in _CHARGES_OF_CUSTOMER[number]]


def currency_of(charge: int) -> str:
    """Return the currency of a charge; one for a subscription has that of its price."""
    block, place = divmod(charge, BLOCK)
    if place % 20 in (0, 8):
        return CURRENCIES[price_of_subscription(charge // 20)]
    return CURRENCIES[_CURRENCY_TURNS[(place * 7 + block) % len(_CURRENCY_TURNS)]]


def price_of_subscription(subscription: int) -> int:
    """Return the index of the price of a subscription: prices 0 to 5, one for each currency."""
    return subscription % len(CURRENCIES)


def invoice_of(charge: int) -> int | None:
    """Return the index of the invoice that a charge pays, if it pays one."""
    if charge % 4 or invoice_status(charge // 4) != "paid":
        return None
    return charge // 4


def charge_of_invoice(invoice: int) -> int:
    """Return the index of the charge an invoice came with; it pays the invoice if that is paid."""
    return invoice * 4


def invoice_status(invoice: int) -> str:
    """Return the status of an invoice."""
    return {6: "open", 11: "draft", 16: "void", 21: "uncollectible"}.get(invoice % 25, "paid")


def subscription_of_invoice(invoice: int) -> int | None:
    """Return the index of the subscription an invoice is for; None when it was made by hand."""
    is_for_one = invoice % _INVOICES_PER_SUBSCRIPTION in (0, 2)
    return invoice // _INVOICES_PER_SUBSCRIPTION if is_for_one else None


def invoices_of_subscription(subscription: int) -> list[int]:
    """Return the indexes of the invoices of a subscription, oldest first."""
    first = subscription * _INVOICES_PER_SUBSCRIPTION
    return [first, first + 2]


def subscription_status(subscription: int) -> str:
    """Return the status of a subscription."""
    return ("active", "active", "canceled", "active", "past_due", "active", "trialing")[
        subscription % 7
    ]


def customer_of_subscription(subscription: int) -> int:
    """Return the index of a subscription's customer."""
    return subscription * 4


def charge_of_refund(refund: int) -> int:
    """Return the index of the charge that a refund gives back."""
    return position("refund", refund) - _REFUND_AFTER


def refund_of(charge: int) -> int | None:
    """Return the index of a charge's refund, if it can have one."""
    block, place = divmod(charge, BLOCK)
    is_refunded = (place + _REFUND_AFTER) % 20 == _REFUNDS[0]
    return block * len(_REFUNDS) + place // 20 if is_refunded else None


def charge_of_dispute(dispute: int) -> int:
    """Return the index of the charge that is disputed."""
    return dispute * BLOCK + _DISPUTED


def dispute_of(charge: int) -> int | None:
    """Return the index of a charge's dispute, if it can have one."""
    return charge // BLOCK if charge % BLOCK == _DISPUTED else None


def transaction_of(kind: str, source: int) -> int:
    """Return the index of the balance transaction of a charge, refund, dispute or payout."""
    per_block = {"charge": BLOCK, "refund": len(_REFUNDS), "adjustment": 1, "payout": 2}[kind]
    block, number = divmod(source, per_block)
    return block * len(TRANSACTIONS) + _TRANSACTION_OF[kind, number]


def source_of(transaction: int) -> tuple[str, int]:
    """Return the type of a balance transaction and the index of its source among its kind."""
    block, number = divmod(transaction, len(TRANSACTIONS))
    _, kind, source = TRANSACTIONS[number]
    per_block = {"charge": BLOCK, "refund": len(_REFUNDS), "adjustment": 1, "payout": 2}
    return kind, block * per_block.get(kind, len(_FEES)) + source


def transactions_of_payout(payout: int) -> list[int]:
    """Return the balance transactions that a payout pays out, and its own, oldest first."""
    block, number = divmod(payout, len(_PAYOUTS))
    low = _PAYOUTS[0] if number else -1
    start = block * len(TRANSACTIONS)
    own = transaction_of("payout", payout)
    return [
        start + n
        for n, (place, kind, _) in enumerate(TRANSACTIONS)
        if (low < place < _PAYOUTS[number] and kind != "payout") or start + n == own
    ]


def _weights(seed: int) -> list[int]:
    """Return how busy each hour is: seasons, weekends, nights, dead days and days of a sale."""
    weights: list[int] = []
    for day in range(SPAN_DAYS):
        dice = hashlib.sha256(f"stripe day:{seed}:{day}".encode()).digest()
        busy = 40 + day // 20 + dice[0] // 8
        if day % 7 > 4:
            busy //= 3
        if dice[1] < 6:
            busy *= 8
        elif dice[1] > 246:
            busy = 1
        weights += [1 + busy * _HOURLY[hour] * (128 + dice[2 + hour]) for hour in range(24)]
    return weights


_HOURLY = (1, 1, 1, 1, 1, 2, 4, 8, 12, 16, 18, 18, 14, 16, 18, 17, 16, 18, 20, 16, 10, 6, 3, 2)
