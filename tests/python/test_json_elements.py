"""Elements of an array in an answer, each in the very text that was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.objects.json_elements import dedented, indented_elements, json_elements, json_member

pytestmark = pytest.mark.usefixtures("stays_open")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_numbers_escapes_and_order_are_kept() -> None:
    text = '{ "a" : [1, {"b": 2}], "messages" : [ {"z":1.0, "a":"\\u003c"} , {"n":1e5} ], "c":3}'
    assert [part for part, _ in json_elements(text, "messages")] == [
        '{"z":1.0, "a":"\\u003c"}',
        '{"n":1e5}',
    ]


@given(
    st.dictionaries(st.text(), values, max_size=4),
    st.lists(values, max_size=5),
    st.sampled_from([None, 1, 4]),
    st.booleans(),
)
def test_elements_are_the_parsed_ones(
    others: dict[str, Any], elements: list[Any], indent: int | None, ascii_only: bool
) -> None:
    others.pop("data", None)
    text = json.dumps(
        {**others, "data": elements, "more": {"data": []}}, indent=indent, ensure_ascii=ascii_only
    )
    found = list(json_elements(text, "data"))
    assert [value for _, value in found] == elements
    assert [json.loads(part) for part, _ in found] == elements
    assert all(part in text for part, _ in found)


@pytest.mark.parametrize("text", ["{}", ' {"a": 1} ', '{"a": {"data": [1]}}', '{"data": []}'])
def test_nothing_without_the_member_or_elements(text: str) -> None:
    assert list(json_elements(text, "data")) == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"data": 1}', '{"data": [1,]}', '{"data": [1', '{"a" 1}', "<html>"]
)
def test_what_is_no_such_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|[Ee]xpecting"):
        list(json_elements(text, "data"))


objects = st.dictionaries(st.text(), values, max_size=4)


@given(objects, st.lists(objects, min_size=1, max_size=5), st.booleans())
def test_indented_elements_are_written_as_answers_of_their_own(
    others: dict[str, Any], elements: list[dict[str, Any]], ascii_only: bool
) -> None:
    others.pop("data", None)
    elements = [{"id": number, **element} for number, element in enumerate(elements)]
    body = json.dumps({**others, "data": elements}, indent=2, ensure_ascii=ascii_only)
    found = indented_elements(body.encode("utf-8", "surrogatepass"), b"data")
    alone = [json.dumps(element, indent=2, ensure_ascii=ascii_only) for element in elements]
    assert found == [text.encode("utf-8", "surrogatepass") for text in alone]
    assert [dedented(text) for text, _ in json_elements(body, "data")] == alone


@pytest.mark.parametrize(
    "text", ['{"data":[{"id":1}]}', '{\n  "data": []\n}', '{\n    "data": [\n        {}\n    ]\n}']
)
def test_other_answers_are_not_taken_apart_by_their_lines(text: str) -> None:
    assert indented_elements(text.encode(), b"data") is None


def test_a_member_is_found_as_it_came() -> None:
    text = '{"a": {"lines": 0}, "lines": { "data":[1.0] }, "b": 2}'
    assert json_member(text, "lines") == '{ "data":[1.0] }'
    assert json_member(text, "none") is None
