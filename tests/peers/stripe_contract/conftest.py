"""What these tests have in common."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import operator
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from typing import Any

import pytest
import stripe

from landfall_sandbox.controls import Sandbox
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable
from tests.peers.stripe_stand_ins import (
    KINDS,
    SandboxAccount,
    StandIn,
    StripeWorldAccount,
    accounts,
    path_of,
)
from tests.peers.stripe_world import run_stripe_world

SANDBOX, STRIPE_WORLD = "sandbox", "stripe-world"


# By test, or test[kind], of `seahaven-stripe-world` 0.3.0; our sandbox does what Stripe documents.
KNOWN_DIFFERENCES = {
    "test_a_limit_out_of_bounds_is_refused": (
        "takes the nearest in bounds; its authors say that they recorded this of Stripe"
    ),
    "test_a_cancelled_subscription_is_listed_only_when_asked": "lists them all unless asked",
    "test_a_long_invoice_has_only_its_first_lines_inside": "has all lines inside of an invoice",
    "test_the_account_tells_its_id": "has no /v1/account",
    "test_a_version_can_be_asked_for": "knows one version and answers in that",
    "test_a_key_that_is_none_is_refused": "takes any key",
    # It pays out only what was earned two days before, by a clock that cannot be moved that far.
    "test_a_list_is_an_envelope_around_objects_of_one_kind[payout]": "cannot make a payout",
    "test_a_list_is_newest_first[payout]": "cannot make a payout",
    "test_pages_hold_every_object_once_in_both_directions[payout]": "cannot make a payout",
    "test_a_bound_of_created_is_exact_to_the_second[payout]": "cannot make a payout",
    "test_an_object_alone_is_as_it_is_in_the_list[payout]": "cannot make a payout",
    "test_numbers_are_integers[payout]": "cannot make a payout",
    "test_an_event_tells_of_every_creation[payout]": "cannot make a payout",
}


# Written anew whenever they are read.
VOLATILE = frozenset(("receipt_url", "hosted_invoice_url", "invoice_pdf"))


NUMBERS_WITH_FRACTIONS = frozenset(("exchange_rate", "application_fee_percent", "percent_off"))


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


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back for a request without the SDK."""

    status: int
    headers: Message
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True)
class Contract:
    """An account on a stand-in and what reads it."""

    box: StandIn

    @functools.cached_property
    def sdk(self) -> stripe.StripeClient:
        return self.sdk_with(self.box.key)

    def sdk_with(self, key: str) -> stripe.StripeClient:
        return stripe.StripeClient(key, base_addresses={"api": self.box.url}, max_network_retries=0)

    def service(self, kind: str) -> Any:
        return getattr(self.sdk.v1, f"{kind}s")

    def object(self, kind: str, object_id: str, **parameters: Any) -> dict[str, Any]:
        return self.get(f"{path_of(kind)}/{object_id}", **parameters)

    def ids(self, kind: str, **parameters: Any) -> list[str]:
        return [value["id"] for value in self.all(path_of(kind), **parameters)]

    def events(self, **parameters: Any) -> list[dict[str, Any]]:
        return self.all("/v1/events", **parameters)

    def about(self, object_id: str, **parameters: Any) -> list[dict[str, Any]]:
        """The events of an object."""
        events = self.events(**parameters)
        return [event for event in events if event["data"]["object"]["id"] == object_id]

    def all(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """The objects of a list in as few requests as can be."""
        return [value for page in self.pages(path, 100, **parameters) for value in page]

    def pages(
        self, path: str, size: int, cursor: str = "starting_after", **parameters: Any
    ) -> Iterator[list[dict[str, Any]]]:
        """The pages of a list, one after the other in the cursor's direction."""
        while True:
            page = self.get(path, limit=size, **parameters)
            yield page["data"]
            if not page["has_more"]:
                return
            parameters[cursor] = page["data"][-1 if cursor == "starting_after" else 0]["id"]

    def page_ids(self, path: str, size: int, **parameters: Any) -> list[list[str]]:
        return [[value["id"] for value in page] for page in self.pages(path, size, **parameters)]

    def page_ids_backwards(self, path: str, size: int, end: str) -> list[list[str]]:
        """The pages before an object, the first of the list first."""
        pages = self.page_ids(path, size, cursor="ending_before", ending_before=end)
        return pages[::-1]

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        answer = self.answer(path, parameters)
        assert answer.status == 200, answer.body
        value = answer.value
        assert isinstance(value, dict)
        return value

    def refusal(self, path: str, **parameters: Any) -> dict[str, Any]:
        """The error of a request that is answered with 400."""
        answer = self.answer(path, parameters)
        assert answer.status == 400, answer.body
        error = answer.value["error"]
        assert error["type"] == "invalid_request_error"
        assert isinstance(error, dict)
        return error

    def answer(
        self,
        path: str,
        parameters: Mapping[str, Any] | None = None,
        authorization: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """A request without the SDK; `authorization` "" is none."""
        query = urllib.parse.urlencode(parameters or {}, doseq=True)
        if authorization is None:
            authorization = f"Bearer {self.box.key}"
        sent = {**({"Authorization": authorization} if authorization else {}), **(headers or {})}
        request = urllib.request.Request(f"{self.box.url}{path}?{query}", headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One for all tests: to start one takes longer than to ask it."""
    with Sandbox(size=0, charges=100) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def stripe_world_accounts(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Iterator[StripeWorldAccount]]:
    """Accounts of one server, none given out twice."""
    try:
        with run_stripe_world(tmp_path_factory.mktemp("stripe_world")) as url:
            yield accounts(url)
    except PeerUnavailable as error:
        unavailable(error)


@pytest.fixture(
    params=[
        SANDBOX,
        # The first one may have to install it.
        pytest.param(STRIPE_WORLD, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ]
)
def contract(request: pytest.FixtureRequest) -> Contract:
    if request.param == SANDBOX:
        return Contract(SandboxAccount(request.getfixturevalue("sandbox")))
    box = next(request.getfixturevalue("stripe_world_accounts"))
    name, kind = request.node.originalname, request.node.callspec.params.get("kind")
    known = KNOWN_DIFFERENCES.get(name) or KNOWN_DIFFERENCES.get(f"{name}[{kind}]")
    if known is not None:
        raises = (AssertionError, stripe.StripeError, urllib.error.HTTPError)
        request.applymarker(pytest.mark.xfail(reason=known, raises=raises, strict=True))
    return Contract(box)


def steady(value: Any) -> Any:
    """A value without what is written anew whenever it is read."""
    if isinstance(value, dict):
        return {key: steady(each) for key, each in value.items() if key not in VOLATILE}
    return [steady(each) for each in value] if isinstance(value, list) else value


def flat(pages: list[list[str]]) -> list[str]:
    return list(itertools.chain.from_iterable(pages))


def check_missing(contract: Contract, kind: str, object_id: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as raised:
        contract.service(kind).retrieve(object_id)
    assert (raised.value.http_status, raised.value.code) == (404, "resource_missing")
    assert object_id in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_is_an_envelope_around_objects_of_one_kind(contract: Contract, kind: str) -> None:
    contract.box.create(kind)
    answer = contract.answer(path_of(kind))
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    page = answer.value
    assert page.keys() == {"object", "url", "has_more", "data"}
    assert (page["object"], page["url"]) == ("list", path_of(kind))
    assert isinstance(page["has_more"], bool)
    assert {value["object"] for value in page["data"]} == {kind}


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_is_newest_first(contract: Contract, kind: str) -> None:
    made = [contract.box.create(kind)[0] for _ in range(3)]
    values = contract.all(path_of(kind))
    created = [value["created"] for value in values]
    assert created == sorted(created, reverse=True)
    assert [value["id"] for value in values if value["id"] in made] == made[::-1]


@pytest.mark.parametrize("limit", [0, 101, -1])
def test_a_limit_out_of_bounds_is_refused(contract: Contract, limit: int) -> None:
    assert contract.refusal("/v1/customers", limit=limit)["param"] == "limit"


@pytest.mark.parametrize("kind", KINDS)
def test_pages_hold_every_object_once_in_both_directions(contract: Contract, kind: str) -> None:
    made = contract.box.create(kind, 7)
    everything = contract.ids(kind)
    assert set(made) <= set(everything)
    assert len(everything) == len(set(everything))
    path, size = path_of(kind), max(3, len(everything) // 10)
    pages = contract.page_ids(path, size)
    assert flat(pages) == everything
    assert {len(page) for page in pages[:-1]} == {size}
    pages = contract.page_ids_backwards(path, size, everything[-1])
    assert flat(pages) == everything[:-1]
    assert {len(page) for page in pages[1:]} == {size}


BOUNDS: dict[str, Callable[[int, int], bool]] = {
    "created[gt]": operator.gt,
    "created[gte]": operator.ge,
    "created[lt]": operator.lt,
    "created[lte]": operator.le,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_of_created_is_exact_to_the_second(contract: Contract, kind: str) -> None:
    contract.box.create(kind, 3)
    values = contract.all(path_of(kind))
    moment = values[1]["created"]
    for (bound, holds), second in itertools.product(BOUNDS.items(), range(moment - 1, moment + 2)):
        inside = [value["id"] for value in values if holds(value["created"], second)]
        assert contract.ids(kind, **{bound: second}) == inside


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_alone_is_as_it_is_in_the_list(contract: Contract, kind: str) -> None:
    made = contract.box.create(kind, 2)
    listed = {value["id"]: value for value in contract.all(path_of(kind))}
    for object_id in made:
        assert steady(contract.object(kind, object_id)) == steady(listed[object_id])
        assert contract.service(kind).retrieve(object_id).id == object_id


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


def test_a_cancelled_subscription_is_listed_only_when_asked(contract: Contract) -> None:
    kept, gone = contract.box.create("subscription", 2)
    contract.box.delete("subscription", gone)
    assert kept in contract.ids("subscription")
    assert gone not in contract.ids("subscription")


def test_a_long_invoice_has_only_its_first_lines_inside(contract: Contract) -> None:
    invoice = contract.object("invoice", contract.box.invoice_of(13))
    everything = contract.all(f"/v1/invoices/{invoice['id']}/lines")
    assert invoice["lines"]["has_more"] is True
    assert invoice["lines"]["data"] == everything[: len(invoice["lines"]["data"])]


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


def test_the_account_tells_its_id(contract: Contract) -> None:
    account = contract.get("/v1/account")
    assert account["object"] == "account"
    assert account["id"].startswith("acct_")
    assert contract.sdk.v1.accounts.retrieve_current().id == account["id"]


def test_a_version_can_be_asked_for(contract: Contract) -> None:
    version = "2024-06-20"
    answer = contract.answer("/v1/customers", headers={"Stripe-Version": version})
    assert (answer.status, answer.headers["Stripe-Version"]) == (200, version)


def test_a_key_that_is_none_is_refused(contract: Contract) -> None:
    answer = contract.answer("/v1/customers", authorization="Bearer nonsense")
    assert answer.status == 401
    assert answer.value["error"]["type"] == "invalid_request_error"
    with pytest.raises(stripe.AuthenticationError) as raised:
        contract.sdk_with("nonsense").v1.customers.list()
    assert raised.value.http_status == 401
