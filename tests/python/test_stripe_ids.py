"""Ids that merchants choose: how they get into addresses, and which answers are about them."""

from __future__ import annotations

from typing import Any

import pytest
from stripe._util import sanitize_id

from landfall_sandbox.controls import Sandbox
from loaders.errors import SourceError, TransientSourceError
from loaders.ingestion.ingest import DeadLettered, FetchIncomplete, IngestOptions
from loaders.sources.refusals import NotFound
from loaders.sources.stripe.kinds import INVOICE, INVOICE_LINE, KINDS
from loaders.sources.stripe.reading import Reader
from loaders.warehouse.base import Warehouse

from .conftest import run_stripe
from .stripe_client.conftest import Answer, Server, new_client, new_request
from .stripe_client.conftest import server as server
from .stripe_sync.conftest import account as account
from .stripe_sync.conftest import assert_mirrors, completed, rows

pytestmark = [pytest.mark.usefixtures("stays_open"), pytest.mark.timeout(120)]

CHOSEN = [
    "Professional+", "Professional ", "shoes/red", "shoes", "50%", "50%25", "what?", "#1",
    "a&b=c", "größe 42½", "お茶", "🦆", "a:b", "a\\b", "it's \"quoted\"", "%2e%2e",
    "...", "a;b,c", "{x}", "~*",
]  # fmt: skip
UNREADABLE = [".", ".."]
"""Segments that every HTTP client takes out of an address, Stripe's own too."""


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_id_is_escaped_as_stripe_s_own_client_does(server: Server, kind: Any) -> None:
    client = new_client(server.url)
    server.answers = [Answer(body=b'{"object":"list","data":[],"has_more":false}')]
    for object_id in CHOSEN:
        client.object(new_request(), kind.path, object_id)
        sent = server.heard[-1].path
        assert sent == f"{kind.path}/{sanitize_id(object_id)}"  # type: ignore[no-untyped-call]
    reader = Reader(client, new_request())
    if INVOICE_LINE in kind.object_types:
        server.answers = [Answer(body=b'{"id":"a/b","object":"invoice"}'), server.answers[0]]
        assert reader.one(kind, "a/b").error is None
        assert server.heard[-1].path.startswith("/v1/invoices/a%2Fb/lines?")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["customer", "product", "price"])
@pytest.mark.usefixtures("merge_only")
def test_an_object_with_any_id_is_kept_up_to_date(
    warehouse: Warehouse, account: Sandbox, kind: str
) -> None:
    account.change_stripe(create={kind: CHOSEN})
    completed(run_stripe(warehouse, account))
    account.change_stripe(update={kind: CHOSEN[:-3]}, delete={kind: CHOSEN[-3:]})
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)
    held = rows(warehouse, kind)
    assert {key for key in CHOSEN if held[key]["deleted_at"]} == {*CHOSEN[-3:]}
    account.change_stripe(update_silently={kind: CHOSEN[:2]})
    completed(run_stripe(warehouse, account, IngestOptions(full_resync=True)))
    assert_mirrors(warehouse, account)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["customer", "product", "price"])
@pytest.mark.usefixtures("merge_only")
def test_an_id_that_no_address_can_hold_is_no_deletion(
    warehouse: Warehouse, account: Sandbox, kind: str
) -> None:
    account.change_stripe(create={kind: UNREADABLE})
    run = run_stripe(warehouse, account)
    assert isinstance(run.error, FetchIncomplete)
    assert run.telemetry["unfetched"] == len(UNREADABLE)
    account.change_stripe(update={kind: UNREADABLE})
    assert isinstance(run_stripe(warehouse, account).error, DeadLettered)
    assert not [key for key in UNREADABLE if rows(warehouse, kind)[key]["deleted_at"]]


# ---- answers about something else


def missing(object_id: str) -> Answer:
    message = f"No such price: '{object_id}'"
    return Answer.error(404, code="resource_missing", param="price", message=message)


OTHERS = {
    "another object": Answer(body=b'{"id":"a","object":"price"}'),
    "another one's deletion": Answer(body=b'{"id":"a","object":"price","deleted":true}'),
    "a deletion of nothing": Answer(body=b'{"deleted":true}'),
    "a list": Answer(body=b'{"object":"list","data":[],"has_more":false}'),
    "404 of another object": missing("a"),
    "404 of one whose id begins so": missing("a+b"),
    "404 of one whose id ends so": missing("x a b"),
    "404 of nothing": Answer.error(404, code="resource_missing", message="Injected fault."),
    "404 without a message": Answer.error(404, code="resource_missing"),
    "404 of the address": Answer.error(404, message="Unrecognized request URL (GET: /v1/a b)."),
    "404 of a proxy": Answer(404, b"<html>a b</html>"),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("answer", OTHERS.values(), ids=OTHERS)
def test_an_answer_about_something_else_is_neither_a_state_nor_a_deletion(
    server: Server, kind: Any, answer: Answer
) -> None:
    server.answers = [answer]
    read = Reader(new_client(server.url), new_request()).one(kind, "a b")
    assert isinstance(read.error, TransientSourceError)
    assert not read.is_gone
    assert not read.observed
    assert "a b" not in str(read.error)  # merchants' ids may be content


@pytest.mark.parametrize("answer", [missing("a b"), Answer(body=b'{"id":"a b","deleted":true}')])
def test_an_answer_about_what_was_asked_for_is_a_deletion(server: Server, answer: Answer) -> None:
    server.answers = [answer]
    read = Reader(new_client(server.url), new_request()).one(KINDS["price"], "a b")
    assert read.is_gone
    assert read.error is None


def test_what_is_not_found_is_not_named(server: Server) -> None:
    server.answers = [missing("a b")]
    with pytest.raises(NotFound, match=r"^stripe: prices\.get refused with 404 \S+: not found$"):
        new_client(server.url).object(new_request(), "/v1/prices", "a b")


@pytest.mark.parametrize("answer", [OTHERS["404 of another object"], OTHERS["404 of nothing"]])
def test_lines_that_are_not_there_are_no_deletion_of_another_invoice(
    server: Server, answer: Answer
) -> None:
    server.answers = [Answer(body=b'{"id":"in_1","object":"invoice"}'), answer]
    read = Reader(new_client(server.url), new_request()).one(KINDS[INVOICE], "in_1")
    assert isinstance(read.error, TransientSourceError)
    assert not read.is_gone


def test_a_list_that_is_not_there_is_no_missing_object(server: Server) -> None:
    server.answers = [missing("a")]
    with pytest.raises(SourceError) as raised:
        new_client(server.url).page(new_request(), "/v1/prices")
    assert not isinstance(raised.value, NotFound)
