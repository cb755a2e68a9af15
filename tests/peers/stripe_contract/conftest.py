"""What these tests have in common."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import Any

import pytest
import stripe

from landfall_sandbox.controls import Sandbox
from tests.peers.install import PeerUnavailable
from tests.peers.missing import unavailable
from tests.peers.stripe_stand_ins import (
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
