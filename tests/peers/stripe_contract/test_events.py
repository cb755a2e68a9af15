"""Events, the account, versions and errors."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest
import stripe

from tests.peers.stripe_stand_ins import (
    KINDS,
    path_of,
)

from .conftest import Contract, check_missing, flat, steady

CREATED = {
    "charge": "charge.succeeded",
    "customer": "customer.created",
    "invoice": "invoice.created",
    "payment_intent": "payment_intent.created",
    "refund": "refund.created",
    "dispute": "charge.dispute.created",
    "payout": "payout.created",
    "product": "product.created",
    "price": "price.created",
    "subscription": "customer.subscription.created",
}


UPDATED = {
    "charge": "charge.updated",
    "customer": "customer.updated",
    "invoice": "invoice.updated",
    "product": "product.updated",
    "price": "price.updated",
    "refund": "refund.updated",
    "subscription": "customer.subscription.updated",
}


DELETED = {
    "customer": "customer.deleted",
    "invoice": "invoice.deleted",
    "product": "product.deleted",
    "subscription": "customer.subscription.deleted",
}


def undone(value: Mapping[str, Any], previous: Mapping[str, Any]) -> dict[str, Any]:
    """An object as it was before an update; null in metadata is a key that was not there."""
    before = dict(value)
    for key, old in previous.items():
        if not isinstance(old, dict) or not isinstance(before.get(key), dict):
            before[key] = old
        elif key == "metadata":
            merged = {**before[key], **old}
            before[key] = {name: text for name, text in merged.items() if text is not None}
        else:
            before[key] = undone(before[key], old)
    return before


@pytest.mark.parametrize("kind", CREATED)
def test_an_event_tells_of_every_creation(contract: Contract, kind: str) -> None:
    (object_id,) = contract.box.create(kind)
    (event,) = contract.about(object_id, type=CREATED[kind])
    assert (event["object"], event["type"]) == ("event", CREATED[kind])
    assert event["id"].startswith("evt_")
    assert event["data"]["object"]["object"] == kind
    assert "previous_attributes" not in event["data"]
    assert event["created"] >= event["data"]["object"]["created"]
    assert event["livemode"] is False
    assert isinstance(event["api_version"], str)
    assert event["request"].keys() == {"id", "idempotency_key"}
    assert type(event["pending_webhooks"]) is int


@pytest.mark.parametrize("kind", UPDATED)
def test_an_event_tells_what_an_update_changed(contract: Contract, kind: str) -> None:
    (object_id,) = contract.box.create(kind)
    before = contract.object(kind, object_id)
    contract.box.update(kind, object_id)
    after = contract.object(kind, object_id)
    data = contract.about(object_id, type=UPDATED[kind])[0]["data"]
    assert data["previous_attributes"].keys() <= data["object"].keys()
    assert steady(data["object"]) == steady(after) != steady(before)
    assert steady(undone(after, data["previous_attributes"])) == steady(before)
    assert after["created"] == before["created"]


@pytest.mark.parametrize("kind", DELETED)
def test_an_event_tells_of_every_deletion(contract: Contract, kind: str) -> None:
    object_id = contract.box.deletable(kind)
    before = contract.object(kind, object_id)
    contract.box.delete(kind, object_id)
    event = contract.about(object_id)[0]
    assert event["type"] == DELETED[kind]
    last = event["data"]["object"]
    assert (last["object"], last["created"]) == (kind, before["created"])
    assert steady(last).keys() >= steady(before).keys()


def test_events_are_newest_first(contract: Contract) -> None:
    first, second = contract.box.create("customer", 2)
    contract.box.update("customer", first)
    contract.box.delete("customer", second)
    events = contract.events(type="customer.*")
    created = [event["created"] for event in events]
    assert created == sorted(created, reverse=True)
    assert [(event["type"], event["data"]["object"]["id"]) for event in events[:4]] == [
        ("customer.deleted", second),
        ("customer.updated", first),
        ("customer.created", second),
        ("customer.created", first),
    ]


def test_events_keep_an_object_as_it_was(contract: Contract) -> None:
    (customer,) = contract.box.create("customer")
    states = [contract.object("customer", customer)]
    for _ in range(2):
        contract.box.update("customer", customer)
        states.append(contract.object("customer", customer))
    found = [event["data"]["object"] for event in contract.about(customer)]
    assert found == states[::-1]


def test_events_are_narrowed_by_type(contract: Contract) -> None:
    (customer,) = contract.box.create("customer")
    contract.box.create("product")
    contract.box.update("customer", customer)
    types = [(event["id"], event["type"]) for event in contract.events()]

    def of(*wanted: str) -> list[str]:
        return [event_id for event_id, name in types if name.startswith(wanted)]

    assert contract.ids("event", type="customer.updated") == of("customer.updated") != []
    assert contract.ids("event", type="customer.*") == of("customer.")
    both = ("product.created", "customer.created")
    assert contract.ids("event", **{"types[]": both}) == of(*both)


def test_events_are_narrowed_by_time_and_come_in_pages(contract: Contract) -> None:
    for _ in range(7):
        contract.box.create("customer")
    events = contract.events()
    ids = [event["id"] for event in events]
    low, high = events[5]["created"], events[1]["created"]
    inside = [event["id"] for event in events if low <= event["created"] <= high]
    window = {"created[gte]": low, "created[lte]": high}
    assert flat(contract.page_ids("/v1/events", 2, **window)) == inside
    size = max(2, len(ids) // 10)
    assert flat(contract.page_ids("/v1/events", size)) == ids
    assert flat(contract.page_ids_backwards("/v1/events", size, ids[-1])) == ids[:-1]


def test_an_event_alone_is_as_it_is_in_the_list(contract: Contract) -> None:
    contract.box.create("customer", 2)
    for event in contract.events()[:2]:
        assert contract.get(f"/v1/events/{event['id']}") == event
    check_missing(contract, "event", "evt_000000nothing")


def test_the_account_tells_its_id(contract: Contract) -> None:
    account = contract.get("/v1/account")
    assert account["object"] == "account"
    assert account["id"].startswith("acct_")
    assert contract.sdk.v1.accounts.retrieve_current().id == account["id"]


def test_every_answer_has_a_request_id(contract: Contract) -> None:
    answers = [
        contract.answer("/v1/customers"),
        contract.answer("/v1/customers"),
        contract.answer("/v1/customers/cus_000000nobody"),
        contract.answer("/v1/customers", {"limit": "x"}),
    ]
    ids = {answer.headers["Request-Id"] for answer in answers}
    assert len(ids) == len(answers)
    assert all(request_id.startswith("req_") for request_id in ids)


def test_an_answer_says_its_version(contract: Contract) -> None:
    assert contract.answer("/v1/customers").headers["Stripe-Version"]


def test_a_version_can_be_asked_for(contract: Contract) -> None:
    version = "2024-06-20"
    answer = contract.answer("/v1/customers", headers={"Stripe-Version": version})
    assert (answer.status, answer.headers["Stripe-Version"]) == (200, version)


def test_an_unknown_parameter_is_refused(contract: Contract) -> None:
    for kind in (*KINDS, "event"):
        error = contract.refusal(path_of(kind), colour="red")
        assert (error["code"], error["param"]) == ("parameter_unknown", "colour")
        assert error["message"] == "Received unknown parameter: colour"


def test_an_error_is_an_envelope_with_type_and_message(contract: Contract) -> None:
    answer = contract.answer("/v1/customers/cus_000000nobody")
    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.value.keys() == {"error"}
    error = answer.value["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "resource_missing")
    assert error["message"] == "No such customer: 'cus_000000nobody'"
    assert error["param"] == "id"
    assert error["doc_url"].startswith("https://stripe.com/docs/error-codes/")


def test_an_unknown_url_is_not_found(contract: Contract) -> None:
    answer = contract.answer("/v1/nothings")
    assert answer.status == 404
    error = answer.value["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("Unrecognized request URL (GET: /v1/nothings)")


def test_a_request_without_a_key_is_refused(contract: Contract) -> None:
    answer = contract.answer("/v1/customers", authorization="")
    assert answer.status == 401
    error = answer.value["error"]
    assert error["type"] == "invalid_request_error"
    assert "API key" in error["message"]


def test_a_key_that_is_none_is_refused(contract: Contract) -> None:
    answer = contract.answer("/v1/customers", authorization="Bearer nonsense")
    assert answer.status == 401
    assert answer.value["error"]["type"] == "invalid_request_error"
    with pytest.raises(stripe.AuthenticationError) as raised:
        contract.sdk_with("nonsense").v1.customers.list()
    assert raised.value.http_status == 401


def test_a_key_can_be_a_user_name(contract: Contract) -> None:
    name = base64.b64encode(f"{contract.box.key}:".encode()).decode()
    assert contract.answer("/v1/customers", authorization=f"Basic {name}").status == 200
