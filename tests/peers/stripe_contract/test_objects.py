"""Objects, and what is inside of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.peers.stripe_stand_ins import (
    KINDS,
    path_of,
)

from .conftest import Contract, check_missing, flat, steady

NUMBERS_WITH_FRACTIONS = frozenset(("exchange_rate", "application_fee_percent", "percent_off"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_alone_is_as_it_is_in_the_list(contract: Contract, kind: str) -> None:
    made = contract.box.create(kind, 2)
    listed = {value["id"]: value for value in contract.all(path_of(kind))}
    for object_id in made:
        assert steady(contract.object(kind, object_id)) == steady(listed[object_id])
        assert contract.service(kind).retrieve(object_id).id == object_id


def test_an_object_that_is_not_there_is_missing(contract: Contract) -> None:
    for kind in KINDS:
        check_missing(contract, kind, "nobody_0000000000")


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_integers(contract: Contract, kind: str) -> None:
    contract.box.create(kind, 2)
    fractions: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fractions.extend(name for name, value in pairs if isinstance(value, float))
        return dict(pairs)

    answer = contract.answer(path_of(kind), {"limit": 100})
    page = json.loads(answer.body, object_pairs_hook=collect)
    assert set(fractions) <= NUMBERS_WITH_FRACTIONS
    assert {type(value["created"]) for value in page["data"]} == {int}


def test_yen_have_no_hundredths(contract: Contract) -> None:
    charge = contract.object("charge", contract.box.charge_in("jpy"))
    assert (charge["currency"], charge["status"]) == ("jpy", "succeeded")
    assert type(charge["amount"]) is int
    assert charge["amount_captured"] == charge["amount"]
    intent = contract.object("payment_intent", charge["payment_intent"])
    assert (intent["amount"], intent["currency"]) == (charge["amount"], "jpy")


def test_metadata_come_back_as_they_were_written(contract: Contract) -> None:
    customer_id, metadata = contract.box.noted()
    assert not json.dumps(metadata, ensure_ascii=False).isascii()
    assert contract.object("customer", customer_id)["metadata"] == metadata
    listed = {value["id"]: value for value in contract.all("/v1/customers")}
    assert listed[customer_id]["metadata"] == metadata
    assert contract.service("customer").retrieve(customer_id).metadata.to_dict() == metadata


def test_a_charge_has_a_balance_transaction_that_adds_up(contract: Contract) -> None:
    charge = contract.object("charge", contract.box.charge_in("usd"))
    transaction = contract.object("balance_transaction", charge["balance_transaction"])
    assert (transaction["source"], transaction["type"]) == (charge["id"], "charge")
    assert transaction["amount"] == charge["amount"]
    assert transaction["net"] == transaction["amount"] - transaction["fee"]
    assert sum(part["amount"] for part in transaction["fee_details"]) == transaction["fee"]
    assert contract.ids("balance_transaction", source=charge["id"]) == [transaction["id"]]


def test_a_refund_changes_its_charge(contract: Contract) -> None:
    refund = contract.object("refund", contract.box.create("refund")[0])
    charge = contract.object("charge", refund["charge"])
    assert 0 < refund["amount"] <= charge["amount_refunded"] <= charge["amount"]
    assert charge["refunded"] is (charge["amount_refunded"] == charge["amount"])
    transaction = contract.object("balance_transaction", refund["balance_transaction"])
    assert (transaction["source"], transaction["type"]) == (refund["id"], "refund")
    assert transaction["amount"] < 0


def test_an_event_tells_of_a_charge_that_is_refunded(contract: Contract) -> None:
    refund = contract.object("refund", contract.box.create("refund")[0])
    event = contract.about(refund["charge"], type="charge.refunded")[0]
    assert event["created"] >= refund["created"]
    assert steady(event["data"]["object"]) == steady(contract.object("charge", refund["charge"]))


def test_a_deleted_customer_is_a_stub_and_not_listed(contract: Contract) -> None:
    kept, gone = contract.box.create("customer", 2)
    contract.box.delete("customer", gone)
    stub = {"id": gone, "object": "customer", "deleted": True}
    assert contract.object("customer", gone) == stub
    assert contract.service("customer").retrieve(gone).deleted is True
    assert kept in contract.ids("customer")
    assert gone not in contract.ids("customer")


@pytest.mark.parametrize("kind", ["product", "invoice"])
def test_a_deleted_product_or_draft_is_missing(contract: Contract, kind: str) -> None:
    gone = contract.box.deletable(kind)
    assert gone in contract.ids(kind)
    contract.box.delete(kind, gone)
    assert gone not in contract.ids(kind)
    check_missing(contract, kind, gone)


def test_a_cancelled_subscription_can_still_be_read(contract: Contract) -> None:
    kept, gone = contract.box.create("subscription", 2)
    contract.box.delete("subscription", gone)
    assert contract.object("subscription", gone)["status"] == "canceled"
    assert {kept, gone} <= set(contract.ids("subscription", status="all"))
    assert gone in contract.ids("subscription", status="canceled")
    assert kept not in contract.ids("subscription", status="canceled")


def test_a_cancelled_subscription_is_listed_only_when_asked(contract: Contract) -> None:
    kept, gone = contract.box.create("subscription", 2)
    contract.box.delete("subscription", gone)
    assert kept in contract.ids("subscription")
    assert gone not in contract.ids("subscription")


@pytest.mark.parametrize("lines", [1, 4])
def test_lines_of_an_invoice_are_those_inside_of_it(contract: Contract, lines: int) -> None:
    invoice = contract.object("invoice", contract.box.invoice_of(lines))
    inside, path = invoice["lines"], f"/v1/invoices/{invoice['id']}/lines"
    assert (inside["object"], inside["url"], inside["has_more"]) == ("list", path, False)
    assert len(inside["data"]) == lines
    assert {line["object"] for line in inside["data"]} == {"line_item"}
    assert contract.all(path) == inside["data"]


def test_lines_of_an_invoice_come_in_pages(contract: Contract) -> None:
    path = f"/v1/invoices/{contract.box.invoice_of(13)}/lines"
    everything = [line["id"] for line in contract.all(path)]
    assert len(set(everything)) == len(everything) == 13
    assert [line["id"] for line in contract.get(path)["data"]] == everything[:10]
    pages = contract.page_ids(path, 4)
    assert [len(page) for page in pages] == [4, 4, 4, 1]
    assert flat(pages) == everything
    assert flat(contract.page_ids_backwards(path, 4, everything[-1])) == everything[:-1]


def test_a_long_invoice_has_only_its_first_lines_inside(contract: Contract) -> None:
    invoice = contract.object("invoice", contract.box.invoice_of(13))
    everything = contract.all(f"/v1/invoices/{invoice['id']}/lines")
    assert invoice["lines"]["has_more"] is True
    assert invoice["lines"]["data"] == everything[: len(invoice["lines"]["data"])]


def test_a_reference_can_be_expanded_in_a_list(contract: Contract) -> None:
    contract.box.create("charge", 3)
    plain = contract.get("/v1/charges")["data"]
    expanded = contract.get("/v1/charges", **{"expand[]": "data.customer"})["data"]
    assert any(isinstance(value["customer"], str) for value in plain)
    for with_id, with_object in zip(plain, expanded, strict=True):
        customer = with_id["customer"]
        if customer is not None:
            assert with_object["customer"] == contract.object("customer", customer)
        assert steady({**with_object, "customer": customer}) == steady(with_id)


def test_a_reference_can_be_expanded_in_an_object(contract: Contract) -> None:
    charge = contract.object("charge", contract.box.charge_in("usd"))
    expand = {"expand": ["balance_transaction"]}
    found = contract.service("charge").retrieve(charge["id"], expand)
    assert found.balance_transaction.id == charge["balance_transaction"]
    assert found.balance_transaction.source == charge["id"]


def test_what_cannot_be_expanded_is_refused(contract: Contract) -> None:
    contract.box.create("charge")
    assert contract.refusal("/v1/charges", **{"expand[]": "data.nothing"})["message"]
