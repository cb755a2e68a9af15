"""One account on each stand-in of the Stripe API, filled and changed in the same words."""

from __future__ import annotations

import dataclasses
import itertools
import json
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from landfall_sandbox.controls import Sandbox

KINDS = (
    "charge",
    "customer",
    "invoice",
    "payment_intent",
    "refund",
    "balance_transaction",
    "dispute",
    "payout",
    "product",
    "price",
    "subscription",
)

KEY = "sk_test_contract"


def path_of(kind: str) -> str:
    """Where the objects of a kind are listed."""
    return f"/v1/{kind}s"


class StandIn(Protocol):
    """An account; there may be objects in it already."""

    @property
    def url(self) -> str:
        """Where it answers."""
        ...

    @property
    def key(self) -> str:
        """A secret key of the account."""
        ...

    def create(self, kind: str, count: int = 1) -> list[str]:
        """Make objects, and whatever they need; return their ids, oldest first."""
        ...

    def update(self, kind: str, object_id: str) -> None:
        """Change something in an object."""
        ...

    def delete(self, kind: str, object_id: str) -> None:
        """Delete a customer, a product or the draft of an invoice, or cancel a subscription."""
        ...

    def deletable(self, kind: str) -> str:
        """Return the id of an object that `delete` takes."""
        ...

    def invoice_of(self, lines: int) -> str:
        """Return the id of an invoice with so many lines."""
        ...

    def charge_in(self, currency: str) -> str:
        """Return the id of a charge in that currency, which has succeeded."""
        ...

    def noted(self) -> tuple[str, dict[str, str]]:
        """Return the id of a customer and its metadata, which are not all ASCII."""
        ...

    def crowd(self) -> tuple[str, set[str]]:
        """Return a kind and the ids of some of its objects, created in the same second."""
        ...


@dataclasses.dataclass
class SandboxAccount:
    """The account of a sandbox, with what is generated for its charges."""

    sandbox: Sandbox
    key: str = KEY

    @property
    def url(self) -> str:
        return self.sandbox.base_url

    def create(self, kind: str, count: int = 1) -> list[str]:
        return self._change("create", {kind: count})

    def update(self, kind: str, object_id: str) -> None:
        self._change("update", {kind: [object_id]})

    def delete(self, kind: str, object_id: str) -> None:
        self._change("delete", {kind: [object_id]})

    def deletable(self, kind: str) -> str:
        return self.create(kind)[0]

    def invoice_of(self, lines: int) -> str:
        (invoice,) = self.create("invoice")
        found = self.sandbox.stripe_objects("invoice_line")
        more = lines - sum(key.startswith(f"{invoice}:") for key in found)
        self._change("add_lines" if more > 0 else "remove_lines", {invoice: abs(more)})
        return invoice

    def charge_in(self, currency: str) -> str:
        charges = self.sandbox.stripe_objects("charge").values()
        return next(
            str(value["id"])
            for value in charges
            if (value["currency"], value["status"]) == (currency, "succeeded")
        )

    def noted(self) -> tuple[str, dict[str, str]]:
        customers = self.sandbox.stripe_objects("customer").values()
        return next(
            (str(value["id"]), value["metadata"])
            for value in customers
            if not json.dumps(value["metadata"], ensure_ascii=False).isascii()
        )

    def crowd(self) -> tuple[str, set[str]]:
        return "customer", set(self.create("customer", 5))

    def _change(self, name: str, value: Any) -> list[str]:
        answer = self.sandbox.change_stripe(**{name: value})
        ids: list[str] = answer["affected"][name]
        return ids


@dataclasses.dataclass
class StripeWorldAccount:
    """An account of its own on a running `seahaven-stripe-world`, empty at first.

    Each request to it takes one second of its clock.
    """

    url: str
    key: str = KEY

    def __post_init__(self) -> None:
        self._start("tick")
        self._numbers = itertools.count(1)
        self._known: dict[str, str] = {}

    def create(self, kind: str, count: int = 1) -> list[str]:
        return [getattr(self, f"_{kind}")() for _ in range(count)]

    def update(self, kind: str, object_id: str) -> None:
        note = f"changed {next(self._numbers)}"
        self._post(f"{path_of(kind)}/{object_id}", {"metadata[note]": note})

    def delete(self, kind: str, object_id: str) -> None:
        self._request("DELETE", f"{path_of(kind)}/{object_id}")

    def deletable(self, kind: str) -> str:
        return self.create(kind)[0]

    def invoice_of(self, lines: int) -> str:
        customer = self._payer()[0]
        invoice: str = self._post("/v1/invoices", {"customer": customer})["id"]
        item = {"customer": customer, "invoice": invoice, "currency": "usd"}
        for line in range(lines):
            self._post("/v1/invoiceitems", {**item, "amount": 100 + line})
        return invoice

    def charge_in(self, currency: str) -> str:
        return str(self._paid(currency)["latest_charge"])

    def noted(self) -> tuple[str, dict[str, str]]:
        metadata = {"Straße": "Zürich – 東京", "note": 'a\nb\t"c" 🦀 \u2028 e\u0301'}
        form = {f"metadata[{key}]": value for key, value in metadata.items()}
        return self._post("/v1/customers", form)["id"], metadata

    def crowd(self) -> tuple[str, set[str]]:
        self._start("fixed")
        return "customer", set(self.create("customer", 5))

    def _start(self, clock_mode: str) -> None:
        """(Re)place the account by an empty one."""
        options = {"now": "2026-01-05T10:00:00Z", "clock_mode": clock_mode}
        body = json.dumps({**options, "startup": {"livemode": False}}).encode()
        self._send(urllib.request.Request(self.url, body, method="PUT"))

    def _customer(self) -> str:
        number = next(self._numbers)
        form = {"email": f"customer{number}@example.com", "name": f"Customer {number}"}
        return str(self._post("/v1/customers", form)["id"])

    def _product(self) -> str:
        return str(self._post("/v1/products", {"name": f"Product {next(self._numbers)}"})["id"])

    def _price(self) -> str:
        product = self._once("product", self._product)
        form = {"product": product, "currency": "usd", "unit_amount": 1200}
        return str(self._post("/v1/prices", {**form, "recurring[interval]": "month"})["id"])

    def _subscription(self) -> str:
        customer, method = self._payer()
        price = self._once("price", self._price)
        form = {"customer": customer, "default_payment_method": method, "items[0][price]": price}
        return str(self._post("/v1/subscriptions", form)["id"])

    def _invoice(self) -> str:
        return self.invoice_of(1)

    def _payment_intent(self) -> str:
        return str(self._paid()["id"])

    def _charge(self) -> str:
        return self.charge_in("usd")

    def _balance_transaction(self) -> str:
        charge = self._request("GET", f"/v1/charges/{self._charge()}")
        return str(charge["balance_transaction"])

    def _refund(self) -> str:
        return str(self._post("/v1/refunds", {"charge": self._charge(), "amount": 100})["id"])

    def _dispute(self) -> str:
        method = self._card("tok_createDispute")
        charge = self._paid(method={"payment_method": method})["latest_charge"]
        (dispute,) = self._request("GET", f"/v1/disputes?charge={charge}")["data"]
        return str(dispute["id"])

    def _payout(self) -> str:
        self._charge()
        return str(self._post("/v1/payouts", {"amount": 1, "currency": "usd"})["id"])

    def _paid(self, currency: str = "usd", method: Mapping[str, str] | None = None) -> Any:
        """A payment intent that has succeeded, of a customer unless a method is given."""
        if method is None:
            customer, card = self._payer()
            method = {"customer": customer, "payment_method": card}
        form = {"amount": 1500, "currency": currency, "confirm": "true", **method}
        return self._post("/v1/payment_intents", {**form, "payment_method_types[]": "card"})

    def _payer(self) -> tuple[str, str]:
        """A customer and its card."""
        customer = self._once("payer", self._customer)

        def attached() -> str:
            card = self._card("tok_visa")
            self._post(f"/v1/payment_methods/{card}/attach", {"customer": customer})
            return card

        return customer, self._once("card", attached)

    def _card(self, token: str) -> str:
        form = {"type": "card", "card[token]": token}
        return str(self._post("/v1/payment_methods", form)["id"])

    def _once(self, name: str, make: Callable[[], str]) -> str:
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    def _post(self, path: str, form: Mapping[str, Any]) -> Any:
        return self._request("POST", path, urllib.parse.urlencode(form).encode())

    def _request(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(f"{self.url}{path}", body, headers, method=method)
        return self._send(request)

    def _send(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read())


def accounts(url: str) -> Iterator[StripeWorldAccount]:
    """Accounts of one server, none given out twice."""
    return (StripeWorldAccount(f"{url}/worlds/account-{number}") for number in itertools.count())
