"""Customers, products and prices of a generated account.

Source: Stripe API reference, "The Customer object", "The Product object", "The Price object".
"""

from typing import Any

from landfall_sandbox.stripe import layout
from landfall_sandbox.stripe.ledger import Ledger, metadata_of, price_amount
from landfall_sandbox.stripe.templates import fragment, pretty, quoted, template

PEOPLE = (
    ("Ada Brandt", "ada.brandt"),
    ("Søren Kjærgård", "soren.k"),
    ("鈴木 一郎", "suzuki"),
    ("Zoë O'Neill-Đỗ", "zoe.oneill+shop"),
    ('Quinn "Q" Thorne', "quinn"),
    ("مريم الخطيب", "mariam"),
    ("Ivo Sorrel 🦆", "ivo"),
)
_STREETS = ("12 Harbor Row", "Äußere Straße 5½", "1-2-3 神南", 'Flat 4\\b, "The Mews"')
_CITIES = (("Portland", "US", "97201"), ("Köln", "DE", "50667"), ("渋谷区", "JP", "150-0041"))


def address(number: int) -> dict[str, Any]:
    """Return one of a few addresses."""
    city, country, code = _CITIES[number % len(_CITIES)]
    return {
        "city": city,
        "country": country,
        "line1": _STREETS[number % len(_STREETS)],
        "line2": None,
        "postal_code": code,
        "state": None,
    }


NAMES = [pretty(name) for name, _ in PEOPLE]
MAILBOXES = [mailbox for _, mailbox in PEOPLE]
_ADDRESSES = [fragment(address(number)) for number in range(12)]
_SHIPPING = [
    fragment({"address": address(number), "name": PEOPLE[number % len(PEOPLE)][0], "phone": None})
    for number in range(12)
]
_CUSTOMER = template(
    {
        "id": "<id>",
        "object": "customer",
        "address": "<=address>",
        "balance": "<=balance>",
        "created": "<=created>",
        "currency": "<=currency>",
        "customer_account": None,
        "default_source": None,
        "delinquent": "<=delinquent>",
        "description": "<=description>",
        "discount": None,
        "email": "<mailbox>.<number>@example.com",
        "invoice_prefix": "<prefix>",
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": "<=payment_method>",
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": "<=metadata>",
        "name": "<=name>",
        "next_invoice_sequence": "<=sequence>",
        "phone": "<=phone>",
        "preferred_locales": [],
        "shipping": "<=shipping>",
        "tax_exempt": "none",
        "test_clock": None,
    }
)


def customer(ledger: Ledger, index: int) -> str:
    """Return the text of a customer."""
    identifier = ledger.id("customer", index)
    method = ledger.id("payment_method", index)
    return _CUSTOMER % {
        "id": identifier,
        "address": _ADDRESSES[index % 12] if index % 3 else "null",
        "balance": -500 if index % 11 == 3 else 0,
        "created": ledger.layout.created("customer", index),
        "currency": quoted(layout.currency_of(layout.charges_of(index)[0]) if index % 5 else None),
        "delinquent": "true" if index % 17 == 4 else "false",
        "description": '"(created by API)"' if index % 4 == 1 else "null",
        "mailbox": MAILBOXES[index % len(PEOPLE)],
        "number": index,
        "prefix": f"{ledger.dice(index, 2) >> 32:08X}",
        "payment_method": quoted(method if index % 3 else None),
        "metadata": metadata_of(index),
        "name": NAMES[index % len(PEOPLE)],
        "sequence": 1 + index % 5,
        "phone": '"+15555550100"' if index % 6 == 2 else "null",
        "shipping": _SHIPPING[index % 12] if index % 4 == 2 else "null",
    }


def product(ledger: Ledger, index: int) -> str:
    """Return the text of a product."""
    created = ledger.layout.created("product", index)
    return pretty(
        {
            "id": ledger.id("product", index),
            "object": "product",
            "active": is_product_active(index),
            "created": created,
            "default_price": ledger.id("price", index) if index < 6 else None,
            "description": None if index % 3 else "Paper & ink — Größe A4, 紙",
            "images": ["https://files.example.com/p.png"] if index % 4 == 1 else [],
            "livemode": False,
            "marketing_features": [{"name": "Ships today"}] if index % 2 else [],
            "metadata": {"sku": f"SKU-{index:04}"} if index % 2 else {},
            "name": f"Product {index + 1} “special”",
            "package_dimensions": None,
            "shippable": None,
            "statement_descriptor": None,
            "tax_code": None,
            "tax_details": None,
            "type": "service",
            "unit_label": None,
            "updated": created + 60,
            "url": None,
        }
    )


def is_product_active(index: int) -> bool:
    """Return whether a product is for sale."""
    return index % 6 != 5


def price(ledger: Ledger, index: int) -> str:
    """Return the text of a price: the first six recur, one for each currency."""
    recurring = {
        "interval": "month",
        "interval_count": 1,
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }
    # Some cost a fraction of the smallest unit, which only the decimal text can say.
    is_fraction = index % 10 == 7
    amount = price_amount(index)
    return pretty(
        {
            "id": ledger.id("price", index),
            "object": "price",
            "active": is_price_active(index),
            "billing_scheme": "per_unit",
            "created": ledger.layout.created("price", index),
            "currency": price_currency(index),
            "custom_unit_amount": None,
            "livemode": False,
            "lookup_key": f"key_{index}" if index % 5 == 0 else None,
            "metadata": {"größe": "L"} if index % 4 == 3 else {},
            "nickname": None if index % 2 else "Standard",
            "product": ledger.id("product", product_of_price(index)),
            "recurring": recurring if price_type(index) == "recurring" else None,
            "tax_behavior": "unspecified",
            "tiers_mode": None,
            "transform_quantity": None,
            "type": price_type(index),
            "unit_amount": None if is_fraction else amount,
            "unit_amount_decimal": f"{amount}.123456789012" if is_fraction else str(amount),
        }
    )


def product_of_price(index: int) -> int:
    """Return the index of a price's product."""
    return index % layout.PRODUCTS


def price_currency(index: int) -> str:
    """Return the currency of a price."""
    return layout.CURRENCIES[index % len(layout.CURRENCIES)]


def price_type(index: int) -> str:
    """Return whether a price is "recurring" or "one_time"."""
    return "recurring" if index < len(layout.CURRENCIES) else "one_time"


def is_price_active(index: int) -> bool:
    """Return whether a price can be used."""
    return index % 8 != 7
