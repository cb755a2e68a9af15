"""Bodies stay as they came, and what is none is no object."""

from __future__ import annotations

import base64
import concurrent.futures
import json
from collections.abc import Callable
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from landfall_sandbox.controls import Sandbox
from loaders.errors import ForeignAnswer, TransientSourceError
from loaders.sources.stripe.events import read_windows
from loaders.sources.stripe.options import API_VERSION
from tests.python.conftest import STRIPE_KEY

from .conftest import Answer, Server, new_client, new_request, refusal

pytestmark = pytest.mark.timeout(60)


def as_text(body: str | bytes) -> str:
    return body if isinstance(body, str) else body.decode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>maintenance</html>", id="HTML"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"null", id="null"),
        pytest.param(b"7", id="a number"),
        pytest.param(b'{"data":[],"has_more":fal', id="cut off"),
        pytest.param(b'{"data":[]}', id="no has_more"),
        pytest.param(b'{"data":[],"has_more":null}', id="has_more null"),
        pytest.param(b'{"data":[],"has_more":"no"}', id="has_more a text"),
        pytest.param(b'{"has_more":false}', id="no data"),
        pytest.param(b'{"data":null,"has_more":false}', id="data null"),
        pytest.param(b'{"data":{},"has_more":false}', id="data an object"),
        pytest.param(b'{"data":[{"object":"charge"}],"has_more":false}', id="no id"),
        pytest.param(b'{"data":[{"id":"ch_1"},{"id":""}],"has_more":false}', id="empty id"),
        pytest.param(b'{"data":[{"id":7}],"has_more":false}', id="id a number"),
        pytest.param(b'{"data":["ch_1"],"has_more":false}', id="ids alone"),
        pytest.param(b'{"data":[[]],"has_more":false}', id="arrays"),
        pytest.param(b'{"data":[{"id":"\xff"}],"has_more":false}', id="not UTF-8"),
        pytest.param(b'{"data":' + b"[" * 100_000 + b"}", id="nested too deep"),
    ],
)
def test_a_page_that_is_none_is_one_clear_transient_error(server: Server, body: bytes) -> None:
    server.answers = [Answer(body=body)]
    error = refusal(new_client(server.url))
    assert type(error) is ForeignAnswer
    assert error.retryable
    assert "api_base_url" in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"ch_1"', b'{"id":"\xff"}'])
def test_a_single_read_that_is_no_object_is_one_clear_transient_error(
    server: Server, body: bytes
) -> None:
    server.answers = [Answer(body=body)]
    client = new_client(server.url)
    with pytest.raises(TransientSourceError, match=r"charges\.get.*api_base_url"):
        client.object(new_request(), "/v1/charges", "ch_1")
    with pytest.raises(TransientSourceError, match=r"account\.get.*api_base_url"):
        client.account_id(new_request())
    assert len(server.heard) == 6  # each as often as max_attempts says


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"object":"list","data":[', b"null"])
@pytest.mark.parametrize("method", ["list", "get", "events", "account", "lines"])
def test_a_success_without_json_is_asked_for_again(
    server: Server, method: str, body: bytes
) -> None:
    """Whatever is asked for: it is a proxy's page, or was cut off, and no state of an object."""
    good = b'{"id":"in_1","object":"list","data":[],"has_more":false}'
    server.answers = [Answer(body=body), Answer(body=body), Answer(body=good)]
    client, request = new_client(server.url), new_request()
    calls: dict[str, Callable[[], object]] = {
        "list": lambda: client.page(request, "/v1/charges"),
        "get": lambda: client.object(request, "/v1/invoices", "in_1"),
        "events": lambda: list(read_windows(client, request, 0)),
        "account": lambda: client.account_id(request),
        "lines": lambda: client.page(request, "/v1/invoices/in_1/lines", owner_id="in_1"),
    }
    calls[method]()
    assert (request.usage.api_calls, request.usage.retries) == (3, 2)


def event(kind: str, event_type: str = "x.updated", **members: Any) -> dict[str, Any]:
    changed = {"object": kind, "id": f"{kind}_1", **members}
    return {"id": "evt_1", "type": event_type, "created": 5, "data": {"object": changed}}


@pytest.mark.parametrize(
    ("told", "changed"),
    [
        pytest.param(event("invoice", "invoice.upcoming"), [], id="preview with an id"),
        pytest.param(event("invoice", "invoice.upcoming", id=None), [], id="preview without one"),
        pytest.param(event("invoice"), ["invoice_1"], id="invoice"),
        pytest.param(
            event("payment_intent", latest_charge="ch_1"), ["payment_intent_1", "ch_1"], id="intent"
        ),
        pytest.param(
            event("payment_intent", latest_charge={"id": "ch_1"}),
            ["payment_intent_1", "ch_1"],
            id="expanded",
        ),
        pytest.param(
            event("payment_intent", charges={"data": [{"id": "ch_2"}, {"id": "ch_1"}]}),
            ["payment_intent_1", "ch_2", "ch_1"],
            id="intent before 2022-11-15",
        ),
        pytest.param(event("payment_intent", charges=[]), ["payment_intent_1"], id="no charge"),
        pytest.param(event("refund", charge="ch_1"), ["refund_1", "ch_1"], id="refund"),
        pytest.param(event("dispute", charge=None), ["dispute_1"], id="dispute"),
    ],
)
def test_an_event_tells_of_what_is_there_and_of_its_charges(
    server: Server, told: dict[str, Any], changed: list[str]
) -> None:
    page = {"object": "list", "data": [told], "has_more": False}
    server.answers = [Answer(body=json.dumps(page).encode())]
    [window] = read_windows(new_client(server.url), new_request(), 0)
    assert [each.object_id for each in window.events] == changed


OBJECT_TEXTS = {
    "numbers": '{"id":"a","n":1.10,"e":1e5,"E":1.5E+3,"z":-0,"big":12345678901234567890}',
    "order": '{ "z":1 ,\n\t"id" : "b","a" : {"y":[ 1,2 ],"x":null} }',
    "escapes": '{"id":"c","t":"\\u00e9\\/\\ud83e\\udd86\\u2028\\n\\"","u":"é🦆\u2028"}',
    "duplicates": '{"id":"d","a":1,"a":2}',
    "brackets": '{"id":"e","t":"]}],[{","has_more":true,"data":[{"id":"inner"}]}',
    "surrogate": '{"id":"f","t":"a\\ud800b"}',
}


@pytest.mark.parametrize("text", OBJECT_TEXTS.values(), ids=OBJECT_TEXTS.keys())
def test_objects_are_kept_byte_for_byte(server: Server, text: str) -> None:
    around = '{"id":"before"}'
    page = '{ "object":"list", "data" : [%s ,\n %s,%s ] ,"has_more":true,"url":"/v1/charges"}'
    server.answers = [
        Answer(body=(page % (around, text, around)).encode()),
        Answer(body=text.encode()),
    ]
    client = new_client(server.url)
    found = client.page(new_request(), "/v1/charges")
    assert [as_text(one) for one, _ in found.objects] == [around, text, around]
    assert found.has_more is True
    assert as_text(client.object(new_request(), "/v1/charges", "any")[0]) == text


# The gate refuses integers beyond 64 bits: they are no float's matter here.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


json_objects = st.dictionaries(
    st.sampled_from(["data", "has_more", "id", "a", "\u2028", "é"]), json_values, max_size=4
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    values=st.lists(json_objects, max_size=5),
    is_ascii=st.booleans(),
    indent=st.sampled_from([2, None]),
)
def test_a_listed_object_has_the_text_of_a_single_read(
    server: Server, values: list[dict[str, Any]], is_ascii: bool, indent: int | None
) -> None:
    """Stripe indents its answers: a list's objects lie deeper."""
    page: dict[str, Any] = {
        "object": "list",
        "data": [value | {"id": "x"} for value in values],
        "has_more": False,
    }
    body = json.dumps(page, indent=indent, ensure_ascii=is_ascii)
    server.answers = [Answer(body=body.encode())]
    found = new_client(server.url).page(new_request(), "/v1/charges").objects
    expected = [json.dumps(value, indent=indent, ensure_ascii=is_ascii) for value in page["data"]]
    assert [as_text(text) for text, _ in found] == expected
    assert [value for _, value in found] == page["data"]


@pytest.mark.parametrize(
    "path", ["/v1/products", "/v1/customers", "/v1/prices", "/v1/subscriptions"]
)
def test_the_sandbox_is_read_byte_for_byte(account: Sandbox, path: str) -> None:
    client = new_client(account.base_url)
    page = client.page(new_request(), path)
    assert page.objects
    for listed, value in page.objects[:8]:
        url = f"{account.base_url}{path}/{value['id']}"
        raw = requests.get(url, auth=(STRIPE_KEY, ""), timeout=10).text
        read, again = client.object(new_request(), path, value["id"])
        assert as_text(read) == raw
        assert as_text(listed) == raw.strip()
        assert json.loads(raw) == value == again


def test_key_version_and_account_are_sent(server: Server) -> None:
    client = new_client(server.url)
    client.page(new_request(), "/v1/charges", {"created[gte]": 5}, limit=7)
    connected = new_client(server.url, stripe_account="acct_7", api_version="2025-01-01.any")
    connected.page(new_request(), "/v1/charges")
    own, other = server.heard
    assert own.path == "/v1/charges?limit=7&created%5Bgte%5D=5"
    expected = base64.b64encode(f"{STRIPE_KEY}:".encode()).decode()
    assert own.headers["authorization"] == f"Basic {expected}"
    assert own.headers["stripe-version"] == API_VERSION
    assert "stripe-account" not in own.headers
    assert other.headers["stripe-version"] == "2025-01-01.any"
    assert other.headers["stripe-account"] == "acct_7"


def test_the_account_is_none_when_the_key_may_not_say(server: Server) -> None:
    server.answers = [
        Answer.error(403, message="Having the 'rak_accounts_kyc_basic_read' permission"),
        Answer(body=b'{"id":"acct_7","object":"account"}'),
        Answer(body=b'{"object":"account"}'),
    ]
    client = new_client(server.url)
    assert [client.account_id(new_request()) for _ in range(3)] == [None, "acct_7", None]


def test_stripes_clock_is_that_of_its_answers(server: Server) -> None:
    server.answers = [
        Answer(headers={"Date": "Wed, 21 Oct 2037 07:28:00 GMT"}),
        Answer(headers={"Date": "yesterday"}),
        Answer(),
    ]
    client = new_client(server.url)
    pages = [client.page(new_request(), "/v1/charges") for _ in range(3)]
    assert pages[0].served_at is not None
    assert pages[0].served_at.isoformat() == "2037-10-21T07:28:00+00:00"
    assert [page.served_at for page in pages[1:]] == [None, None]
    assert client.served_at == pages[0].served_at


def test_threads_share_a_client(server: Server) -> None:
    client, request = new_client(server.url), new_request()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.page, request, "/v1/charges") for _ in range(64)]
        assert [call.result().has_more for call in calls] == [False] * 64
    assert request.usage.api_calls == len(server.heard) == 64
