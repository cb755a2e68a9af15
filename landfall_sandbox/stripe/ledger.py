"""What the kinds of objects of a generated account have in common: ids, dates and amounts."""

from landfall_sandbox.stripe import layout
from landfall_sandbox.stripe.ids import StripeIds, account_mark
from landfall_sandbox.stripe.layout import Layout
from landfall_sandbox.stripe.templates import dice, fragment

PREFIXES = {
    "charge": "ch",
    "customer": "cus",
    "invoice": "in",
    "line_item": "il",
    "payment_intent": "pi",
    "refund": "re",
    "balance_transaction": "txn",
    "dispute": "dp",
    "payout": "po",
    "product": "prod",
    "price": "price",
    "subscription": "sub",
    "event": "evt",
    "payment_method": "pm",
    "subscription_item": "si",
}
API_VERSION = "2026-10-28.endive"
"""The version whose fields the objects have: the one the installed SDK asks for."""

_LINE_BITS = 16
_AMOUNTS = (1900, 2400, 1500, 2900, 6500, 2200)
_METADATA: tuple[dict[str, str], ...] = (
    {},
    {"order_id": "6735"},
    {},
    {"Größe": "42½", "emoji 🦆": "naïve café 🇩🇪"},
    {"order id": "A-1001", "campaign.source": 'spring "sale"', "back\\slash": "C:\\new\\table"},
    {"__proto__": "null", "constructor": "0", "%s": "100% {{ 1 / 0 }}", "$ref": "'); drop --"},
    {"注文": "請求書\u2028二行", "tab\there": "line\nbreak", "json": '{"a": [1, null]}'},
)


class Ledger:
    """An account's ids, dates and amounts, as functions of an object's index."""

    def __init__(self, seed: int, charges: int, anchor: int) -> None:
        """Keep books of so many charges in the two years before `anchor` (epoch seconds)."""
        self.key = seed * 0x2545F4914F6CDD1D
        self.layout = Layout(seed, charges, anchor)
        self.ids = {kind: StripeIds(seed, prefix, kind) for kind, prefix in PREFIXES.items()}
        self.account_id = f"acct_1{account_mark(seed)}Qx4"

    def id(self, kind: str, index: int) -> str:
        """Return the id of object `index` of a kind."""
        return self.ids[kind].encode(index)

    def line_id(self, invoice: int, number: int) -> str:
        """Return the id of a line of an invoice."""
        return self.ids["line_item"].encode(invoice << _LINE_BITS | number)

    def exists(self, kind: str, index: int | None) -> bool:
        """Return whether an object was generated."""
        return index is not None and index < self.layout.count(kind)

    def dice(self, index: int, purpose: int) -> int:
        """Return a number of 64 bits for an index and a purpose."""
        return dice(index, self.key + purpose)

    def amount(self, charge: int) -> int:
        """Return a charge's amount in the smallest unit of its currency."""
        if charge % 20 in (0, 8):
            return price_amount(layout.price_of_subscription(charge // 20))
        amount = 500 + self.dice(charge, 1) % 45_000
        # A currency with three decimals takes no thousandths.
        return amount // 10 * 10 if layout.currency_of(charge) == "kwd" else amount

    def refunded(self, charge: int) -> int:
        """Return how much of a charge was given back."""
        refund = layout.refund_of(charge)
        if refund is None or not self.exists("refund", refund):
            return 0
        amount = self.amount(charge)
        return amount if refund % 2 else amount // 20 * 10


def price_amount(price: int) -> int:
    """Return a price's amount for one unit, in the smallest unit of its currency."""
    return _AMOUNTS[price % len(_AMOUNTS)] * (1 + price // len(_AMOUNTS))


METADATA = [fragment(metadata) for metadata in _METADATA]
"""The JSON of the metadata that objects have."""


def metadata_of(index: int) -> str:
    """Return the JSON of an object's metadata."""
    return METADATA[index % len(METADATA)]
