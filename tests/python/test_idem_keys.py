"""Keys: one an object, never shared, never guessed."""

from __future__ import annotations

from typing import Any

import pytest

from loaders.objects.idem_keys import IdemKeyFunction, gmail_idem_key, idem_key, stripe_idem_key

FUNCTIONS = {
    "gmail message": (gmail_idem_key("acct1"), "gmail:acct1:message:"),
    "gmail thread": (gmail_idem_key("acct1", "thread"), "gmail:acct1:thread:"),
    "stripe charge": (stripe_idem_key("acct1", "charge"), "stripe:acct1:charge:"),
}
each_function = pytest.mark.parametrize(("key", "prefix"), FUNCTIONS.values(), ids=FUNCTIONS.keys())


@each_function
@pytest.mark.parametrize("external_id", ["18c2f1", "ch_3Nx", "a:b", "ünï", " ", "0"])
def test_a_key_names_source_connection_type_and_id(
    key: IdemKeyFunction, prefix: str, external_id: str
) -> None:
    assert key({"id": external_id, "other": 1}) == prefix + external_id


@each_function
@pytest.mark.parametrize(
    "payload",
    [{}, {"id": None}, {"Id": "x"}, {"id": ""}, {"id": 17}, {"id": True}, {"id": ["x"]}, [], None],
    ids=repr,
)
def test_a_missing_or_unfit_id_is_refused(key: IdemKeyFunction, prefix: str, payload: Any) -> None:
    source_system, _, object_type, _ = prefix.split(":")
    with pytest.raises(ValueError, match=f"{source_system} {object_type}.*id"):
        key(payload)


@pytest.mark.parametrize("position", [0, 1, 2], ids=["source", "connection", "type"])
@pytest.mark.parametrize(
    "part", ["", "a:b", ":", "a b", "a/b", "-a", "é", "a\n", None, 1], ids=repr
)
def test_a_part_that_could_make_keys_collide_is_refused(position: int, part: Any) -> None:
    parts: list[Any] = ["acme", "acct1", "widget", "x"]
    parts[position] = part
    name = ("source_system", "connection_name", "object_type")[position]
    with pytest.raises(ValueError, match=name):
        idem_key(*parts)


def test_different_objects_have_different_keys() -> None:
    keys = {
        idem_key(source, connection, kind, external_id)
        for source in ("acme", "acme.eu")
        for connection in ("acct1", "acct-1")
        for kind in ("widget", "widget_")
        for external_id in ("x", "x:y", "widget:x")
    }
    assert len(keys) == 2 * 2 * 2 * 3
