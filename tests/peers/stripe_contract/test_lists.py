"""Lists as strangers serve them."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.stripe_stand_ins import (
    KINDS,
    path_of,
)

from .conftest import KNOWN_DIFFERENCES, Contract, flat


def test_every_known_difference_names_a_test() -> None:
    files = Path(__file__).parent.glob("test_*.py")
    tests = re.findall(r"(?m)^def (test_\w+)", "".join(path.read_text() for path in files))
    assert {name.partition("[")[0] for name in KNOWN_DIFFERENCES} <= set(tests)


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
