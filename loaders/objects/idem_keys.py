"""The identity of an object: the only place that builds idem_keys.

`{source_system}:{connection_name}:{object_type}:{external_id}`. Nothing takes one apart
again; filters use the columns.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from loaders.settings.constants import constants

IdemKeyFunction = Callable[[Mapping[str, Any]], str]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*", re.IGNORECASE)
_UNPAIRED = re.compile(r"[\ud800-\udfff]")


@functools.lru_cache(256)
def key_prefix(source_system: str, connection_name: str, object_type: str) -> str:
    """Return what the idem_keys of all objects of one type begin with; they go on with the id.

    Raises ValueError when a part is empty or holds characters other than letters, digits,
    `_`, `-` and `.`: a colon there would let two objects share a key.
    """
    for name, value in (
        ("source_system", source_system),
        ("connection_name", connection_name),
        ("object_type", object_type),
    ):
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise ValueError(f"{name}: expected letters, digits, _ - and ., got {value!r}")
    return f"{source_system}:{connection_name}:{object_type}:"


def idem_key(source_system: str, connection_name: str, object_type: str, external_id: str) -> str:
    """Return the idem_key of one object.

    Raises ValueError as key_prefix does, and for an id that is empty or that no warehouse can
    hold.
    """
    prefix = key_prefix(source_system, connection_name, object_type)
    if not isinstance(external_id, str) or not external_id:
        raise ValueError(
            f"{source_system} {object_type}: expected an id, got {type(external_id).__name__}"
            if not isinstance(external_id, str)
            else f"{source_system} {object_type}: the id is empty"
        )
    if not external_id.isascii() and _UNPAIRED.search(external_id):
        raise ValueError(f"{source_system} {object_type}: the id holds an unpaired surrogate")
    return prefix + external_id


def owners(source_system: str) -> Mapping[str, str]:
    """Object types of a source whose ids are `owner:part`, and the type of the owner."""
    return constants().part_owners.get(source_system, {})


def owner_key(
    source_system: str, connection_name: str, object_type: str, external_id: str
) -> str | None:
    """The idem_key of the object that a part belongs to; None for what is no part."""
    owner_type = owners(source_system).get(object_type)
    owner_id, colon, _ = external_id.partition(":")  # the part's own id may be empty, as Gmail's is
    if owner_type is None or not owner_id or not colon:
        return None
    return idem_key(source_system, connection_name, owner_type, owner_id)


def split(key: str) -> tuple[str, str, str, str]:
    """The four parts of a key that idem_key built."""
    source_system, connection_name, object_type, external_id = key.split(":", 3)
    return source_system, connection_name, object_type, external_id


def type_and_id(key: str, source_system: str, connection_name: str) -> tuple[str, str]:
    """Object type and external id of a key that somebody wrote down; ValueError when it is none."""
    prefix = f"{source_system}:{connection_name}:"
    object_type, _, external_id = key.removeprefix(prefix).partition(":")
    if not key.startswith(prefix):
        raise ValueError(f"expected a key that begins with {prefix!r}, got {key!r}")
    idem_key(source_system, connection_name, object_type, external_id)
    return object_type, external_id


def gmail_idem_key(connection_name: str, object_type: str = "message") -> IdemKeyFunction:
    """Keys of Gmail resources by their `id` (Gmail API v1, users.messages)."""
    return key_by_id("gmail", connection_name, object_type)


def stripe_idem_key(connection_name: str, object_type: str) -> IdemKeyFunction:
    """Keys of Stripe objects by their `id` (Stripe API, every object's `id`)."""
    return key_by_id("stripe", connection_name, object_type)


def key_by_id(source_system: str, connection_name: str, object_type: str) -> IdemKeyFunction:
    """Keys of objects by their `id`; ValueError for one without."""

    def key(payload: Mapping[str, Any]) -> str:
        if not isinstance(payload, Mapping) or payload.get("id") is None:
            raise ValueError(f"{source_system} {object_type} without an id")
        return idem_key(source_system, connection_name, object_type, payload["id"])

    return key
