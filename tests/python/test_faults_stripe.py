"""What Stripe's client and its lists make of faults of the way there, and of lists without end."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import TransientSourceError
from loaders.sources.contract import FetchRequest
from loaders.sources.pacing import TokenBucket
from loaders.sources.stripe import client as client_module
from loaders.sources.stripe.client import StripeClient
from loaders.sources.stripe.events import read_windows
from loaders.sources.stripe.kinds import INVOICE, KINDS
from loaders.sources.stripe.listing import Listing
from loaders.sources.stripe.reading import Reader, slices

from .stripe_client.conftest import Clock, Waits, new_client, new_request, refusal
from .test_faults_gmail import nobody_accepts

pytestmark = pytest.mark.timeout(60)

ATTEMPTS = 3
CHARGE = KINDS["charge"]
MANY = 20
"""Pages that a list without end gives before it gives up, so that a test may fail."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """No time passes but what is waited."""
    monkeypatch.setattr(Waits, "clock", clock := Clock())

    def new_bucket(units: float, largest: float, *, seconds: float) -> TokenBucket:
        return TokenBucket(units, largest, clock, seconds)

    monkeypatch.setattr(client_module, "TokenBucket", new_bucket)
    return clock


@pytest.mark.parametrize(
    ("action", "said"),
    [
        pytest.param({"status": 502, "body": "<html>"}, "502", id="502 of a proxy"),
        pytest.param({"drop": True}, "ConnectionError", id="dropped"),
        pytest.param({"truncate": True}, "ChunkedEncodingError", id="cut off"),
        pytest.param({"reset": True}, "ChunkedEncodingError", id="reset"),
    ],
)
def test_what_may_pass_of_stripe_is_tried_again_and_ends(
    sandbox: Sandbox, action: dict[str, Any], said: str
) -> None:
    client = new_client(sandbox.base_url)
    rule = {"match": {"method": "charges.list"}, "action": action}
    sandbox.set_faults([rule | {"times": ATTEMPTS - 1}])
    request = new_request()
    assert client.page(request, "/v1/charges").objects
    assert (request.usage.api_calls, request.usage.retries) == (ATTEMPTS, ATTEMPTS - 1)

    sandbox.set_faults([rule | {"times": None}])
    sandbox.reset_stats()
    error = refusal(client)
    assert type(error) is TransientSourceError
    assert f"failed {ATTEMPTS} times, last with {said}" in str(error)
    assert sandbox.stats()["requests"] == {"charges.list": ATTEMPTS}


def test_a_connection_to_stripe_that_is_never_made_ends_in_time() -> None:
    with nobody_accepts() as base_url:
        error = refusal(new_client(base_url, timeout_seconds=0.1))
    assert type(error) is TransientSourceError
    assert "ConnectTimeout" in str(error)


# ---- lists without end


def page_of(*ids: str, has_more: bool = True) -> dict[str, Any]:
    """Charges, each of which is an event as well."""
    changed = {"object": {"object": "charge", "id": "ch_1"}}
    common = {"object": "charge", "created": 1_700_000_000, "data": changed}
    objects = [{"id": key, **common} for key in ids]
    return {"object": "list", "data": objects, "has_more": has_more, "url": "/v1/charges"}


def turns(method: str, *pages: dict[str, Any]) -> list[dict[str, Any]]:
    """Rules that answer with one page after the other, and with the first one again, and so on."""
    match = {"method": method}
    return [
        {"match": match, "times": MANY, "every": place + 1, "action": {"json": page}}
        for place, page in reversed(list(enumerate(pages)))
    ]


def list_charges(client: StripeClient, request: FetchRequest) -> list[str]:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        listing = Listing(Reader(client, request), pool, 1, request.bounds)
        listing.add(CHARGE, slices(CHARGE))
        found = [read.object_id for _, reads in listing.run() for read in reads]
    for error in listing.failures.values():
        raise error
    return found


def read_events(client: StripeClient, request: FetchRequest) -> Sequence[Any]:
    return list(read_windows(client, request, 1_600_000_000))


def read_invoice(client: StripeClient, request: FetchRequest) -> None:
    """One whose lines have to be listed."""
    read = Reader(client, request).one(KINDS[INVOICE], "in_1")
    if read.error is not None:
        raise read.error


INVOICE_WITHOUT_LINES = {"id": "in_1", "object": "invoice", "created": 1_700_000_000}
LISTS = {
    "charges.list": list_charges,
    "events.list": read_events,
    "invoices.lines": read_invoice,
}


@pytest.mark.parametrize(("method", "read"), LISTS.items(), ids=LISTS.keys())
@pytest.mark.parametrize(
    "pages",
    [
        pytest.param([[]], id="empty and more"),
        pytest.param([["a", "b"], []], id="an empty one and more"),
        pytest.param([["a", "b"]], id="one again and again"),
        pytest.param([["a", "b"], ["c", "d"]], id="two in turn"),
        pytest.param([["a"], ["b"], ["c"]], id="three in turn"),
    ],
)
def test_a_list_of_stripe_without_end_is_noticed(
    sandbox: Sandbox,
    method: str,
    read: Callable[[StripeClient, FetchRequest], object],
    pages: list[list[str]],
) -> None:
    invoice = {"match": {"method": "invoices.get"}, "action": {"json": INVOICE_WITHOUT_LINES}}
    sandbox.set_faults([invoice, *turns(method, *(page_of(*ids) for ids in pages))])
    with pytest.raises(TransientSourceError, match="does not advance; run again later"):
        read(new_client(sandbox.base_url), new_request())
    assert sandbox.stats()["requests"][method] <= len(pages) + 1


def test_a_slice_that_begins_anew_may_pass_the_same_places(sandbox: Sandbox) -> None:
    """The object to go on after was deleted: Stripe refuses it, and nothing goes round."""
    refused = {"error": {"param": "starting_after", "code": "resource_missing"}}
    match = {"method": "charges.list"}
    answers = [page_of("a", "b"), page_of("c"), refused, page_of("a", "b")]
    answers += [page_of("c"), page_of("d", has_more=False)]
    rules = [
        {"match": match, "action": {"json": one, "status": 400 if "error" in one else 200}}
        for one in answers
    ]
    sandbox.set_faults(rules)
    listed = list_charges(new_client(sandbox.base_url), new_request())
    assert listed == [*"abc", *"abcd"]
    assert json.dumps(sandbox.stats()["requests"]) == '{"charges.list": 6}'
