"""What reading Stripe relies on, of our sandbox and of a stand-in that somebody else wrote.

Every test runs against both, through Stripe's own SDK where that does not hide what is tested.
Where they differ, KNOWN_DIFFERENCES says so and why; a difference that is no more fails.
"""

from __future__ import annotations

import base64
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


def flat(pages: list[list[str]]) -> list[str]:
    return list(itertools.chain.from_iterable(pages))


def check_missing(contract: Contract, kind: str, object_id: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as raised:
        contract.service(kind).retrieve(object_id)
    assert (raised.value.http_status, raised.value.code) == (404, "resource_missing")
    assert object_id in str(raised.value)


def test_every_known_difference_names_a_test() -> None:
    assert {name.partition("[")[0] for name in KNOWN_DIFFERENCES} <= globals().keys()


# ---- lists


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


def test_a_list_of_nothing_is_empty(contract: Contract) -> None:
    contract.box.create("customer")
    page = contract.get("/v1/customers", **{"created[gt]": 2**33})
    assert (page["data"], page["has_more"]) == ([], False)


def test_a_page_has_ten_objects_unless_asked(contract: Contract) -> None:
    contract.box.create("customer", 11)
    page = contract.service("customer").list()
    assert (len(page.data), page.has_more) == (10, True)


@pytest.mark.parametrize("limit", [1, 100])
def test_a_page_has_as_many_objects_as_asked(contract: Contract, limit: int) -> None:
    contract.box.create("customer", limit + 1)
    page = contract.service("customer").list({"limit": limit})
    assert (len(page.data), page.has_more) == (limit, True)


@pytest.mark.parametrize("limit", [0, 101, -1])
def test_a_limit_out_of_bounds_is_refused(contract: Contract, limit: int) -> None:
    assert contract.refusal("/v1/customers", limit=limit)["param"] == "limit"


@pytest.mark.parametrize("limit", ["x", "1.5"])
def test_a_limit_that_is_no_integer_is_refused(contract: Contract, limit: str) -> None:
    error = contract.refusal("/v1/customers", limit=limit)
    assert (error["param"], error["code"]) == ("limit", "parameter_invalid_integer")


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


def test_the_sdk_pages_by_itself_in_both_directions(contract: Contract) -> None:
    contract.box.create("customer", 7)
    everything = contract.ids("customer")
    customers = contract.service("customer")
    forward = customers.list({"limit": 3}).auto_paging_iter()
    assert [value.id for value in forward] == everything
    backward = customers.list({"limit": 3, "ending_before": everything[-1]}).auto_paging_iter()
    assert [value.id for value in backward] == everything[-2::-1]


def test_has_more_tells_whether_there_is_one_more(contract: Contract) -> None:
    contract.box.create("product", 5)
    ids = contract.ids("product")

    def page(limit: int, **cursor: str) -> tuple[list[str], bool]:
        answer = contract.get("/v1/products", limit=limit, **cursor)
        return [value["id"] for value in answer["data"]], answer["has_more"]

    assert page(len(ids)) == (ids, False)
    assert page(len(ids) - 1) == (ids[:-1], True)
    assert page(3, starting_after=ids[-4]) == (ids[-3:], False)
    assert page(2, starting_after=ids[-4]) == (ids[-3:-1], True)
    assert page(1, starting_after=ids[-1]) == ([], False)
    assert page(2, ending_before=ids[2]) == (ids[:2], False)
    assert page(1, ending_before=ids[2]) == (ids[1:2], True)
    assert page(1, ending_before=ids[0]) == ([], False)


def test_two_cursors_at_once_are_refused(contract: Contract) -> None:
    old, new = contract.box.create("customer", 2)
    assert contract.refusal("/v1/customers", starting_after=new, ending_before=old)["message"]


@pytest.mark.parametrize("cursor", ["starting_after", "ending_before"])
@pytest.mark.parametrize("object_id", ["cus_000000nobody", "nonsense"])
def test_a_cursor_that_is_no_object_is_refused(
    contract: Contract, cursor: str, object_id: str
) -> None:
    error = contract.refusal("/v1/customers", **{cursor: object_id})
    assert (error["code"], error["param"]) == ("resource_missing", cursor)
    assert object_id in error["message"]


def test_a_cursor_of_another_kind_is_refused(contract: Contract) -> None:
    (product,) = contract.box.create("product")
    error = contract.refusal("/v1/customers", starting_after=product)
    assert (error["code"], error["param"]) == ("resource_missing", "starting_after")


def test_an_arrival_between_two_pages_neither_repeats_nor_hides(contract: Contract) -> None:
    contract.box.create("customer", 5)
    everything = contract.ids("customer")
    found = []
    for number, page in enumerate(contract.pages("/v1/customers", 2)):
        found += [value["id"] for value in page]
        if number == 0:
            contract.box.create("customer")
    assert found == everything


# ---- windows of time


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


def test_created_can_be_one_second(contract: Contract) -> None:
    contract.box.create("customer", 3)
    values = contract.all("/v1/customers")
    moment = values[1]["created"]
    found = contract.service("customer").list({"created": moment, "limit": 100})
    of_it = [value["id"] for value in values if value["created"] == moment]
    assert [value.id for value in found.data] == of_it


def test_windows_side_by_side_hold_every_object_once(contract: Contract) -> None:
    contract.box.create("charge", 6)
    values = contract.all("/v1/charges")
    times = sorted({value["created"] for value in values})
    bounds = [*times[:: max(1, len(times) // 4)], times[-1] + 1]
    found: list[str] = []
    for low, high in itertools.pairwise(bounds):
        found = contract.ids("charge", **{"created[gte]": low, "created[lt]": high}) + found
    assert found == [value["id"] for value in values]


def test_a_window_comes_in_pages(contract: Contract) -> None:
    contract.box.create("customer", 7)
    values = contract.all("/v1/customers")
    low, high = values[5]["created"], values[1]["created"]
    inside = [value["id"] for value in values if low <= value["created"] <= high]
    pages = contract.page_ids("/v1/customers", 2, **{"created[gte]": low, "created[lte]": high})
    assert flat(pages) == inside
    assert len(pages) == -(-len(inside) // 2)


def test_objects_of_one_second_are_all_found_in_pages_of_one(contract: Contract) -> None:
    kind, crowd = contract.box.crowd()
    (moment,) = {contract.object(kind, object_id)["created"] for object_id in crowd}
    window = {"created[gte]": moment, "created[lt]": moment + 1}
    found = flat(contract.page_ids(path_of(kind), 1, **window))
    assert len(found) == len(set(found)) > 1
    assert crowd <= set(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [("created[gte]", "x"), ("created", "x"), ("created[after]", "1"), ("created[gt]", "1.5")],
)
def test_a_window_that_is_none_is_refused(contract: Contract, name: str, value: str) -> None:
    assert contract.refusal("/v1/customers", **{name: value})["param"].startswith("created")


# ---- objects


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


# ---- what is inside of objects


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


# ---- events


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


# ---- the account, versions, errors


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
