"""The sandbox's Stripe API, as the official client and plain HTTP see it."""

import base64
import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
import stripe

from landfall_sandbox.controls import Sandbox
from landfall_sandbox.stripe.layout import Layout

KEY = "sk_test_sandbox1234"
KINDS = {
    "charge": ("charges", 200),
    "customer": ("customers", 40),
    "invoice": ("invoices", 50),
    "payment_intent": ("payment_intents", 200),
    "refund": ("refunds", 10),
    "balance_transaction": ("balance_transactions", 218),
    "dispute": ("disputes", 2),
    "payout": ("payouts", 4),
    "product": ("products", 12),
    "price": ("prices", 30),
    "subscription": ("subscriptions", 10),
}
on_every_kind = pytest.mark.parametrize("kind", KINDS)
VOLATILE = ("receipt_url", "hosted_invoice_url", "invoice_pdf")


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    with Sandbox(size=0, charges=200, seed=3) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared: Sandbox) -> Iterator[Sandbox]:
    shared.reset_stats()
    yield shared
    shared.set_faults([])
    shared.settings(stripe_permissions={}, stripe_limit=None, stripe_clock_offset=0)


def client(sandbox: Sandbox, key: str = KEY, **options: Any) -> stripe.StripeClient:
    return stripe.StripeClient(
        key, base_addresses={"api": sandbox.base_url}, max_network_retries=0, **options
    )


def fetch(
    sandbox: Sandbox, path: str, key: str | None = KEY, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of a GET."""
    connection = http.client.HTTPConnection(urlsplit(sandbox.base_url).netloc)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    connection.request("GET", f"/v1/{path}", headers=sent)
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read().decode()
    connection.close()
    return answer


def get(sandbox: Sandbox, path: str, **headers: str) -> dict[str, Any]:
    status, _, text = fetch(sandbox, path, **headers)
    assert status == 200, text
    answer: dict[str, Any] = json.loads(text)
    return answer


def error(sandbox: Sandbox, path: str, key: str | None = KEY, **headers: str) -> tuple[int, Any]:
    status, _, text = fetch(sandbox, path, key, **headers)
    return status, json.loads(text)["error"]


def fetch_all(sandbox: Sandbox, path: str, limit: int = 100) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = []
    path += f"{'&' if '?' in path else '?'}limit={limit}"
    page = get(sandbox, path)
    while True:
        objects += page["data"]
        if not page["has_more"]:
            return objects
        page = get(sandbox, f"{path}&starting_after={objects[-1]['id']}")


def list_whole(sandbox: Sandbox, kind: str, limit: int = 100) -> list[dict[str, Any]]:
    """Every object of a kind, newest first: some lists leave some out unless they are asked."""
    plural, _ = KINDS[kind]
    queries = {"subscription": ["?status=all"], "price": ["?active=true", "?active=false"]}
    lists = [fetch_all(sandbox, plural + query, limit) for query in queries.get(kind, [""])]
    places = {key: place for place, key in enumerate(sandbox.stripe_objects(kind))}
    for some in lists:
        assert ids(some) == sorted(ids(some), key=places.__getitem__)
    return sorted((each for some in lists for each in some), key=lambda each: places[each["id"]])


def ids(objects: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in objects]


def stable(value: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in value.items() if name not in VOLATILE}


@on_every_kind
def test_lists_reads_and_the_dump_agree(sandbox: Sandbox, kind: str) -> None:
    plural, count = KINDS[kind]
    listed = list_whole(sandbox, kind, 7)
    truth = sandbox.stripe_objects(kind)
    assert ids(listed) == list(truth)
    assert len(truth) == count
    assert sandbox.stripe_deleted(kind) == []
    created = [each["created"] for each in listed]
    assert created == sorted(created, reverse=True)
    for each in listed[:: max(1, count // 10)]:
        assert each["object"] == kind
        single = get(sandbox, f"{plural}/{each['id']}")
        assert stable(single) == stable(each) == stable(truth[each["id"]])
    requests = sandbox.stats()["requests"]
    lists = {"price": 1}.get(kind, 0)  # one more, with a page that is not full
    assert 0 <= requests[f"{plural}.list"] - (count // 7 + (count % 7 > 0)) <= lists
    assert requests[f"{plural}.get"] >= min(count, 10)


def test_the_official_client_pages_both_ways(sandbox: Sandbox) -> None:
    charges = client(sandbox).v1.charges
    every = [each.id for each in charges.list({"limit": 30}).auto_paging_iter()]
    assert every == list(sandbox.stripe_objects("charge"))
    back = [
        each.id
        for each in charges.list({"limit": 30, "ending_before": every[100]}).auto_paging_iter()
    ]
    assert back == every[:100][::-1]
    page = charges.list({"limit": 3, "ending_before": every[10]})
    assert ([each.id for each in page.data], page.has_more) == (every[7:10], True)
    first = charges.list({"limit": 3, "ending_before": every[2]})
    assert ([each.id for each in first.data], first.has_more) == (every[:2], False)
    one = charges.retrieve(every[5], {"expand": ["balance_transaction", "customer"]})
    assert isinstance(one.balance_transaction, stripe.BalanceTransaction)
    assert one.balance_transaction.source == one.id
    assert client(sandbox).v1.accounts.retrieve_current().charges_enabled


def test_the_version_is_the_one_the_client_asks_for(sandbox: Sandbox) -> None:
    response = client(sandbox).v1.charges.list({"limit": 1}).last_response
    assert response is not None
    assert response.headers["Stripe-Version"] == stripe.api_version
    assert fetch(sandbox, "charges")[1]["Stripe-Version"] == stripe.api_version
    headers = fetch(sandbox, "charges", Stripe_Version="2024-06-20")[1]
    assert headers["Stripe-Version"] == "2024-06-20"
    assert headers["Request-Id"].startswith("req_")
    assert error(sandbox, "charges", Stripe_Version="latest")[0] == 400


def test_inactive_prices_are_listed_when_they_are_asked_for(sandbox: Sandbox) -> None:
    listed = fetch_all(sandbox, "prices")
    assert {each["active"] for each in listed} == {True}
    assert ids(listed) == ids(fetch_all(sandbox, "prices?active=true"))
    assert fetch_all(sandbox, "prices?active=false")


def test_references_lead_to_what_refers_back(sandbox: Sandbox) -> None:
    kinds = {kind: sandbox.stripe_objects(kind) for kind in KINDS}
    transactions = kinds["balance_transaction"]
    for charge in kinds["charge"].values():
        intent = kinds["payment_intent"][charge["payment_intent"]]
        assert intent["latest_charge"] == charge["id"]
        assert (intent["amount"], intent["currency"]) == (charge["amount"], charge["currency"])
        assert charge["customer"] is None or charge["customer"] in kinds["customer"]
        assert charge["customer"] == intent["customer"]
        if charge["paid"]:
            assert transactions[charge["balance_transaction"]]["source"] == charge["id"]
    for refund in kinds["refund"].values():
        charge = kinds["charge"][refund["charge"]]
        assert charge["amount_refunded"] == refund["amount"]
        assert charge["refunded"] == (refund["amount"] == charge["amount"])
        assert transactions[refund["balance_transaction"]]["type"] == "refund"
    for dispute in kinds["dispute"].values():
        assert kinds["charge"][dispute["charge"]]["disputed"]
        assert dispute["balance_transactions"][0]["id"] in transactions
    for price in kinds["price"].values():
        assert price["product"] in kinds["product"]
    for invoice in kinds["invoice"].values():
        if invoice["parent"]:
            subscription_id = invoice["parent"]["subscription_details"]["subscription"]
            subscription = kinds["subscription"][subscription_id]
            assert subscription["customer"] == invoice["customer"]
            assert subscription["currency"] == invoice["currency"]
    for subscription in kinds["subscription"].values():
        price = subscription["items"]["data"][0]["price"]
        assert price == kinds["price"][price["id"]]
        assert subscription["latest_invoice"] in kinds["invoice"]
    for transaction in transactions.values():
        assert transaction["net"] == transaction["amount"] - transaction["fee"]
    statuses = Counter(transaction["status"] for transaction in transactions.values())
    assert statuses["pending"] > 0 < statuses["available"]
    currencies = {charge["currency"] for charge in kinds["charge"].values()}
    assert {"usd", "jpy", "kwd"} <= currencies
    assert any("." in price["unit_amount_decimal"] for price in kinds["price"].values())


def test_lines_make_the_total_of_their_invoice(sandbox: Sandbox) -> None:
    lines = sandbox.stripe_objects("invoice_line")
    counts: Counter[str] = Counter(key.partition(":")[0] for key in lines)
    assert max(counts.values()) > 100
    for invoice_id, invoice in sandbox.stripe_objects("invoice").items():
        own = [line for key, line in lines.items() if key.startswith(f"{invoice_id}:")]
        assert sum(line["amount"] for line in own) == invoice["total"]
        assert invoice["lines"]["data"] == own[:10]
        assert invoice["lines"]["has_more"] == (len(own) > 10)
        assert invoice["lines"]["total_count"] == len(own)
    invoice_id = max(counts, key=lambda each: counts[each])
    listed = fetch_all(sandbox, f"invoices/{invoice_id}/lines")
    assert [f"{invoice_id}:{line['id']}" for line in listed] == [
        key for key in lines if key.startswith(invoice_id)
    ]
    page = get(sandbox, f"invoices/{invoice_id}/lines?limit=5&ending_before={listed[8]['id']}")
    assert (ids(page["data"]), page["has_more"]) == (ids(listed[3:8]), True)
    by_client = client(sandbox).v1.invoices.line_items.list(invoice_id, {"limit": 50})
    assert len(list(by_client.auto_paging_iter())) == len(listed)


def test_signed_addresses_are_others_in_every_answer(sandbox: Sandbox) -> None:
    charge_id = next(iter(sandbox.stripe_objects("charge")))
    invoice_id = get(sandbox, "invoices?status=paid&limit=1")["data"][0]["id"]
    for path in (f"charges/{charge_id}", f"invoices/{invoice_id}"):
        first, second = get(sandbox, path), get(sandbox, path)
        differing = {name for name in first if first[name] != second[name]}
        assert differing == set(VOLATILE) & first.keys()


def test_answers_are_printed_as_stripe_prints_them(sandbox: Sandbox) -> None:
    for path in ("charges?limit=3", "invoices?limit=3", "events", "account", "subscriptions"):
        status, headers, text = fetch(sandbox, path)
        assert status == 200
        assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        assert headers["Content-Type"] == "application/json"
    assert fetch(sandbox, "events")[2] == (
        '{\n  "object": "list",\n  "data": [],\n  "has_more": false,\n  "url": "/v1/events"\n}'
    )
    charge = get(sandbox, "charges?limit=1")["data"][0]
    assert 2000 < len(json.dumps(charge, indent=2)) < 3500


def test_created_is_cut_at_the_second(sandbox: Sandbox) -> None:
    every = list(sandbox.stripe_objects("charge").values())
    burst, size = Counter(each["created"] for each in every).most_common(1)[0]
    assert size >= 5
    for test, expected in {
        f"created={burst}": [each for each in every if each["created"] == burst],
        f"created[gt]={burst}": [each for each in every if each["created"] > burst],
        f"created[gte]={burst}": [each for each in every if each["created"] >= burst],
        f"created[lt]={burst}": [each for each in every if each["created"] < burst],
        f"created[lte]={burst}": [each for each in every if each["created"] <= burst],
        f"created[gte]={burst}&created[lt]={burst}": [],
    }.items():
        assert ids(fetch_all(sandbox, f"charges?{test}")) == ids(expected), test


def test_filters_choose_what_they_name(sandbox: Sandbox) -> None:
    charges = sandbox.stripe_objects("charge")
    refund = next(iter(sandbox.stripe_objects("refund").values()))
    charge = charges[refund["charge"]]
    customer = charge["customer"]
    invoices = sandbox.stripe_objects("invoice").values()
    subscriptions = sandbox.stripe_objects("subscription").values()
    own = [each for each in charges.values() if each["customer"] == customer]
    assert ids(fetch_all(sandbox, f"charges?customer={customer}", 1)) == ids(own)
    for path, expected in {
        f"charges?payment_intent={charge['payment_intent']}": [charge],
        f"refunds?charge={charge['id']}": [refund],
        f"refunds?payment_intent={charge['payment_intent']}": [refund],
        "invoices?status=open": [each for each in invoices if each["status"] == "open"],
        f"invoices?customer={customer}": [
            each for each in invoices if each["customer"] == customer
        ],
        "subscriptions": [each for each in subscriptions if each["status"] != "canceled"],
        "subscriptions?status=canceled": [
            each for each in subscriptions if each["status"] == "canceled"
        ],
        "payouts?status=pending": [],
    }.items():
        assert ids(fetch_all(sandbox, path)) == ids(expected), path
    for subscription in subscriptions:
        found = fetch_all(sandbox, f"invoices?subscription={subscription['id']}")
        assert found[0]["id"] == subscription["latest_invoice"]
    transactions = sandbox.stripe_objects("balance_transaction").values()
    for name, value in (("type", "refund"), ("currency", "jpy"), ("source", charge["id"])):
        expected = [each for each in transactions if each[name] == value]
        assert ids(fetch_all(sandbox, f"balance_transactions?{name}={value}")) == ids(expected)
    payout = next(iter(sandbox.stripe_objects("payout").values()))
    paid_out = fetch_all(sandbox, f"balance_transactions?payout={payout['id']}")
    assert paid_out[0]["id"] == payout["balance_transaction"]
    for name, value in (("active", False), ("currency", "usd"), ("type", "recurring")):
        prices = [each for each in sandbox.stripe_objects("price").values() if each[name] == value]
        assert ids(fetch_all(sandbox, f"prices?{name}={str(value).lower()}")) == ids(prices)


def test_expansions_replace_ids_by_objects(sandbox: Sandbox) -> None:
    truth = {kind: sandbox.stripe_objects(kind) for kind in KINDS}
    page = get(sandbox, "charges?expand[]=data.balance_transaction&expand[]=data.customer")
    for charge in page["data"]:
        plain = truth["charge"][charge["id"]]
        if plain["customer"]:
            assert charge["customer"] == truth["customer"][plain["customer"]]
        if plain["paid"]:
            transaction = truth["balance_transaction"][plain["balance_transaction"]]
            assert charge["balance_transaction"] == transaction
        assert charge["payment_intent"] == plain["payment_intent"]
    intent_id = next(iter(truth["payment_intent"]))
    path = f"payment_intents/{intent_id}?expand[0]=latest_charge.balance_transaction"
    intent = get(sandbox, path)
    assert intent["latest_charge"]["balance_transaction"]["source"] == intent["latest_charge"]["id"]
    path = "invoices?limit=100&expand[]=data.parent.subscription_details.subscription"
    expanded = [
        invoice["parent"]["subscription_details"]["subscription"]
        for invoice in get(sandbox, path)["data"]
        if invoice["parent"]
    ]
    assert [truth["subscription"][each["id"]] for each in expanded] == expanded
    sources = get(sandbox, "balance_transactions?expand[]=data.source.customer")["data"]
    assert all(each["source"] is None or each["source"]["object"] for each in sources)


def test_refunds_are_in_a_charge_when_they_are_asked_for(sandbox: Sandbox) -> None:
    charges, refunds = (sandbox.stripe_objects(kind) for kind in ("charge", "refund"))
    assert not any("refunds" in charge for charge in charges.values())
    listed = fetch_all(sandbox, "charges?expand[]=data.refunds&expand[]=data.customer")
    for charge in listed:
        assert list(charge)[list(charge).index("refunds") - 1] == "refunded"
        assert charge["refunds"] == {
            "object": "list",
            "data": [each for each in refunds.values() if each["charge"] == charge["id"]],
            "has_more": False,
            "url": f"/v1/charges/{charge['id']}/refunds",
        }
        assert charge["customer"] is None or charge["customer"]["object"] == "customer"
    assert sum(len(charge["refunds"]["data"]) for charge in listed) == len(refunds)
    charge_id = next(iter(refunds.values()))["charge"]
    status, _, text = fetch(sandbox, f"charges/{charge_id}?expand[]=refunds")
    assert (status, text) == (200, json.dumps(json.loads(text), indent=2, ensure_ascii=False))
    assert error(sandbox, "refunds?expand[]=data.refunds")[0] == 400


@pytest.mark.parametrize(
    ("path", "code", "param"),
    [
        ("charges?limit=0", "parameter_invalid_integer", "limit"),
        ("charges?limit=101", "parameter_invalid_integer", "limit"),
        ("charges?limit=ten", "parameter_invalid_integer", "limit"),
        ("charges?status=paid", "parameter_unknown", "status"),
        ("charges?offset=5", "parameter_unknown", "offset"),
        ("charges?starting_after=ch_nothing", "resource_missing", "starting_after"),
        ("charges?ending_before=ch_nothing", "resource_missing", "ending_before"),
        ("charges?starting_after=a&ending_before=b", None, "starting_after"),
        ("charges?created=yesterday", "parameter_invalid_integer", "created"),
        ("charges?created[gt]=1.5", "parameter_invalid_integer", "created[gt]"),
        ("charges?created[ge]=1", "parameter_unknown", "created[ge]"),
        ("charges?customer=cus_nobody", "resource_missing", "customer"),
        ("charges?customer=", "parameter_invalid_empty", "customer"),
        ("charges?expand[]=customer", None, "expand"),
        ("charges?expand[]=data.nothing", None, "expand"),
        ("invoices?status=late", None, "status"),
        ("subscriptions?status=late", None, "status"),
        ("events?type=a&types[]=b", None, "type"),
    ],
)
def test_a_bad_parameter_gets_stripes_error(
    sandbox: Sandbox, path: str, code: str | None, param: str
) -> None:
    status, answer = error(sandbox, path)
    assert (status, answer["type"]) == (400, "invalid_request_error")
    assert (answer.get("code"), answer.get("param")) == (code, param)
    assert list(answer) == sorted(answer)
    assert code is None or answer["doc_url"].endswith(code.replace("_", "-"))


@pytest.mark.parametrize("path", ["charges/ch_nothing", "events/evt_1", "invoices/in_1/lines"])
def test_an_unknown_id_is_404(sandbox: Sandbox, path: str) -> None:
    status, answer = error(sandbox, path)
    assert (status, answer["code"], answer["param"]) == (404, "resource_missing", "id")
    with pytest.raises(stripe.InvalidRequestError, match="No such charge"):
        client(sandbox).v1.charges.retrieve("ch_nothing")


def test_an_unknown_path_is_404(sandbox: Sandbox) -> None:
    status, answer = error(sandbox, "unicorns")
    assert (status, answer["message"]) == (404, "Unrecognized request URL (GET: /v1/unicorns).")


@pytest.mark.parametrize(
    ("key", "code", "message"),
    [
        (None, None, "You did not provide an API key."),
        ("pk_test_abcdefgh1234", None, "Invalid API Key provided: pk_test_********1234"),
        ("rk_live_expired_1234", "api_key_expired", "Expired API Key provided: rk_live_"),
    ],
)
def test_a_bad_key_is_401(
    sandbox: Sandbox, key: str | None, code: str | None, message: str
) -> None:
    status, answer = error(sandbox, "charges", key)
    assert (status, answer["type"]) == (401, "invalid_request_error")
    assert answer.get("code") == code
    assert answer["message"].startswith(message)


def test_the_key_can_be_the_user_of_basic_authentication(sandbox: Sandbox) -> None:
    basic = base64.b64encode(f"{KEY}:".encode()).decode()
    assert fetch(sandbox, "charges", None, Authorization=f"Basic {basic}")[0] == 200
    with pytest.raises(stripe.AuthenticationError):
        client(sandbox, "sk_nonsense").v1.charges.list()


def test_a_restricted_key_reads_what_it_may(sandbox: Sandbox) -> None:
    sandbox.settings(stripe_permissions={"rk_test_some": ["charge", "event"]})
    allowed = [
        path
        for path in ("charges", "invoices", "invoices/in_1/lines", "events", "account", "prices/x")
        if fetch(sandbox, path, "rk_test_some")[0] == 200
    ]
    assert allowed == ["charges", "events"]
    assert fetch(sandbox, "invoices", "rk_test_another")[0] == 200
    with pytest.raises(stripe.PermissionError, match="rak_invoice_read"):
        client(sandbox, "rk_test_some").v1.invoices.list()


def test_another_account_needs_a_connection(sandbox: Sandbox) -> None:
    connected = client(sandbox, stripe_account="acct_sandbox_connected").v1
    charges = list(connected.charges.list({"limit": 100}).auto_paging_iter())
    truth = sandbox.stripe_objects("charge", "acct_sandbox_connected")
    assert [each.id for each in charges] == list(truth)
    assert len(charges) == 40
    assert not truth.keys() & sandbox.stripe_objects("charge").keys()
    assert connected.accounts.retrieve_current().id == "acct_sandbox_connected"
    status, answer = error(sandbox, "charges", Stripe_Account="acct_other")
    assert (status, answer["code"]) == (403, "account_invalid")


def test_an_account_is_read_by_its_id_too(sandbox: Sandbox) -> None:
    own = get(sandbox, "account")
    assert get(sandbox, f"accounts/{own['id']}", Stripe_Account=own["id"]) == own
    account_id = "acct_sandbox_connected"
    assert get(sandbox, f"accounts/{account_id}")["id"] == account_id
    status, answer = error(sandbox, "accounts/acct_other")
    assert (status, answer["code"]) == (403, "account_invalid")
    assert error(sandbox, "accounts/")[0] == 404


def test_requests_over_the_limit_are_429_for_their_key(sandbox: Sandbox) -> None:
    sandbox.settings(stripe_limit={"per_second": 3})
    answers = [fetch(sandbox, "products") for _ in range(6)]
    assert [status for status, _, _ in answers][:4] == [200, 200, 200, 429]
    refused = [answer for answer in answers if answer[0] == 429]
    assert refused[0][1]["Stripe-Rate-Limited-Reason"] == "global-rate"
    assert json.loads(refused[0][2])["error"]["code"] == "rate_limit"
    assert fetch(sandbox, "products", "sk_test_other")[0] == 200
    assert sandbox.stats()["refused"] == len(refused)
    assert sandbox.stats()["requests"]["products.list"] == 7


@pytest.mark.parametrize(
    ("action", "expected", "code"),
    [
        ({"status": 429}, stripe.RateLimitError, "rate_limit"),
        ({"status": 429, "reason": "lock_timeout"}, stripe.RateLimitError, "lock_timeout"),
        ({"status": 401}, stripe.AuthenticationError, None),
        ({"status": 403}, stripe.PermissionError, None),
        ({"status": 404}, stripe.InvalidRequestError, "resource_missing"),
        ({"status": 409}, stripe.StripeError, "idempotency_key_in_use"),
        ({"status": 500}, stripe.APIError, None),
        ({"status": 503}, stripe.APIError, None),
    ],
)
def test_a_fault_is_stripes_error(
    sandbox: Sandbox, action: dict[str, Any], expected: type[Exception], code: str | None
) -> None:
    sandbox.set_faults([{"match": {"method": "charges.list"}, "action": action}])
    with pytest.raises(expected) as caught:
        client(sandbox).v1.charges.list()
    assert isinstance(caught.value, stripe.StripeError)
    # The client keeps the code of some errors to itself.
    body: Any = caught.value.json_body
    assert (body["error"].get("code"), caught.value.http_status) == (code, action["status"])
    assert caught.value.request_id
    assert client(sandbox).v1.charges.list().data


def test_the_clock_is_the_servers(sandbox: Sandbox) -> None:
    sandbox.settings(stripe_clock_offset=-86_400)
    moment = parsedate_to_datetime(fetch(sandbox, "charges")[1]["Date"]).timestamp()
    assert abs(moment - (time.time() - 86_400)) < 5


@pytest.mark.parametrize("charges", [0, 1, 17, 101])
def test_an_account_of_any_size_is_consistent(charges: int) -> None:
    with Sandbox(size=0, charges=charges, seed=9) as sandbox:
        for kind in KINDS:
            assert ids(list_whole(sandbox, kind)) == list(sandbox.stripe_objects(kind))
        assert len(sandbox.stripe_objects("charge")) == charges
        created = sandbox.change_stripe(create=dict.fromkeys(KINDS, 2))["affected"]["create"]
        assert len(created) == 2 * len(KINDS)
        assert len(sandbox.stripe_objects("subscription")) >= 2


def test_a_large_account_starts_at_once_and_has_a_burst() -> None:
    start = time.monotonic()
    layout = Layout(1, 1_000_000, 1_790_000_000)
    assert layout.moment(500_000) == layout.moment(500_149) < layout.moment(500_200)
    with Sandbox(size=0, charges=1_000_000) as sandbox:
        assert time.monotonic() - start < 5
        page = get(sandbox, "charges?limit=100")
        assert page["has_more"]
        middle = sandbox.change_stripe(update_silently={"charge": 1})["affected"]
        charge = get(sandbox, f"charges/{middle['update_silently'][0]}")
        assert charge["metadata"]["revision"]
        start = time.monotonic()
        for path in ("charges?customer=" + get(sandbox, "customers")["data"][0]["id"], "payouts"):
            get(sandbox, path)
        assert time.monotonic() - start < 1
