"""Lists inside of objects are read to their end, or the object is said to be incomplete."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from loaders.errors import TransientSourceError
from loaders.objects.json_elements import json_parts
from loaders.sources.refusals import PermissionDenied, RequestRefused
from loaders.sources.stripe.client import StripeClient
from loaders.sources.stripe.kinds import INVOICE, INVOICE_LINE, KINDS, Kind
from loaders.sources.stripe.position import Slice
from loaders.sources.stripe.reading import Read, Reader

from .stripe_client.conftest import Answer, Server, new_client, new_request
from .stripe_client.conftest import server as server
from .stripe_client.test_bodies import as_text

pytestmark = pytest.mark.timeout(60)

URL = "/v1/subscription_items?subscription=o%2B1"
ITEM = '{"id":"%s","n":1.10,"big":12345678901234567890,"t":"\\u00e9"}'


def listed(*ids: str, has_more: bool, url: str | None = URL, within: str = ITEM) -> str:
    texts = ",".join(within.replace("%s", each) for each in ids)
    said = "" if url is None else f',"url":{json.dumps(url)}'
    more = str(has_more).lower()
    return f'{{"object":"list" , "data": [{texts}],"has_more": {more}{said}}}'


def holding(inner: str, depth: int = 0) -> str:
    for _ in range(depth):
        inner = f'{{"z":1e5,"a":[null,{inner}]}}'
    return f'{{"id":"o+1","object":"x","created":7,"n":2.50,"things":{inner},"after":"}}]"}}'


def read(client: StripeClient, kind: Kind, how: str) -> Read:
    reader = Reader(client, new_request())
    if how == "get":
        return reader.one(kind, "o+1")
    [one] = reader.page(kind, Slice()).reads
    return one


def answers(how: str, text: str, *pages: str) -> list[Answer]:
    page = '{"object":"list","data":[%s],"has_more":false}'
    first = text if how == "get" else page % text
    return [Answer(body=body.encode()) for body in (first, *pages)]


def without_lines(**options: Any) -> dict[str, Any]:
    return {"objects": tuple(KINDS), **options}


@pytest.mark.parametrize("how", ["get", "list"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_list_inside_of_any_object_is_read_to_its_end(
    server: Server, kind: Kind, how: str, depth: int
) -> None:
    cut = holding(listed("a", "b", has_more=True), depth)
    pages = listed("c", "d", has_more=True), listed("e", has_more=False)
    server.answers = answers(how, cut, *pages)
    done = read(new_client(server.url, **without_lines()), kind, how)
    assert done.error is None
    [item] = done.observed
    whole = holding(listed(*"abcde", has_more=False), depth)
    assert as_text(item.text) == whole  # as it came, all the rest of it
    assert item.value == json.loads(whole)
    paths = [heard.path for heard in server.heard[1:]]
    assert [re.sub("limit=100&", "", path) for path in paths] == [
        f"{URL}&starting_after=b", f"{URL}&starting_after=d"
    ]  # fmt: skip


def test_lists_within_lists_are_read_too(server: Server) -> None:
    inner = f'{{"id":"%s","of":{listed("a", has_more=True)}}}'
    text = holding(listed("x", has_more=True, within=inner))
    more = listed("b", has_more=False)
    server.answers = answers("get", text, more, listed("y", has_more=False, within=inner), more)
    [item] = read(new_client(server.url, **without_lines()), KINDS["charge"], "get").observed
    things = item.value["things"]
    assert [one["id"] for one in things["data"]] == ["x", "y"]
    for one in things["data"]:
        assert [each["id"] for each in one["of"]["data"]] == ["a", "b"]
    assert '"has_more": true' not in as_text(item.text)


def test_what_is_whole_costs_nothing_and_stays_as_it_came(server: Server) -> None:
    text = holding(listed("a", has_more=False, url=None), 2)
    server.answers = answers("get", text)
    [item] = read(new_client(server.url), KINDS["charge"], "get").observed
    assert as_text(item.text) == text
    assert len(server.heard) == 1


def test_lines_that_are_objects_of_their_own_are_not_put_into_the_invoice(server: Server) -> None:
    lines = listed("a", has_more=True, url="/v1/invoices/o%2B1/lines")
    text = f'{{"id":"o+1","object":"invoice","lines":{lines}}}'
    server.answers = answers("get", text, listed("b", has_more=False))
    found = read(new_client(server.url), KINDS[INVOICE], "get").observed
    assert [as_text(found[0].text), *(item.external_id for item in found[1:])] == [
        text, "o+1:a", "o+1:b"
    ]  # fmt: skip
    server.answers = answers("get", text, listed("b", has_more=False))
    config = without_lines(objects=(INVOICE,))
    [item] = read(new_client(server.url, **config), KINDS[INVOICE], "get").observed
    assert [line["id"] for line in item.value["lines"]["data"]] == ["a", "b"]
    assert INVOICE_LINE not in config["objects"]


@pytest.mark.parametrize("how", ["get", "list"])
@pytest.mark.parametrize(
    "url",
    [None, "", "https://evil.example/v1/x", "//evil.example/v1/x", "/v1/../x", "/v1//x", "x",
     "http:/v1/x", "/v2/x", "/v1/x\\@evil.example", "@evil.example/v1/x"],
)  # fmt: skip
def test_a_list_that_cannot_be_read_on_is_said_and_nobody_is_sent_the_key(
    server: Server, url: str | None, how: str
) -> None:
    server.answers = answers(how, holding(listed("a", has_more=True, url=url)))
    done = read(new_client(server.url), KINDS["charge"], how)
    assert isinstance(done.error, RequestRefused)
    assert "a list inside of this charge goes on" in str(done.error)
    assert not done.observed
    assert len(server.heard) == 1


@pytest.mark.parametrize("how", ["get", "list"])
def test_a_list_inside_that_is_refused_is_no_state_of_its_object(server: Server, how: str) -> None:
    text = holding(listed("a", has_more=True))
    kind = KINDS["subscription"]

    def after(answer: Answer) -> Read:
        server.answers = [*answers(how, text), answer]
        return read(new_client(server.url), kind, how)

    for answer in (
        Answer.error(404, code="resource_missing", message="No such thing: 'b'"),
        Answer(404, b"<html>"),
        Answer(body=b"<html>"),
        Answer.error(500),
        Answer(body=listed("a", has_more=True).encode()),
    ):
        done = after(answer)
        assert isinstance(done.error, TransientSourceError), answer
        assert not done.observed
    missing = Answer.error(404, code="resource_missing", message="No such thing: 'o+1'")
    assert after(missing).is_gone
    with pytest.raises(PermissionDenied, match="subscription_items"):
        after(Answer.error(403, message="lacks 'rak_subscription_read'"))


@pytest.mark.parametrize("text", ["{}", "[]", ' { "a" : 1 , "b":[2, {}]} ', '[1,"x",{"y":"]"}]'])
def test_parts_are_what_a_parser_finds(text: str) -> None:
    value = json.loads(text)
    parts = list(json_parts(text))
    found = [json.loads(text[start:end]) for start, end, _, _ in parts]
    assert found == [part[3] for part in parts]
    assert found == (list(value.values()) if isinstance(value, dict) else value)


@pytest.mark.parametrize("text", ["1", "", "{", "[1", '{"a"}', "[1 2]"])
def test_what_has_no_parts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting"):
        list(json_parts(text))
