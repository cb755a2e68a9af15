"""The identity of an object: the only place that builds idem_keys.

`{source_system}:{connection_name}:{object_type}:{external_id}`. Nothing takes one apart
again; filters use the columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

IdemKeyFunction = Callable[[Mapping[str, Any]], str]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*", re.IGNORECASE)


def idem_key(source_system: str, connection_name: str, object_type: str, external_id: str) -> str:
    """Return the idem_key of one object.

    Raises ValueError when a part is empty, or when one of the first three holds
    characters other than letters, digits, `_`, `-` and `.`: a colon there would let
    two objects share a key.
    """
    for name, value in (
        ("source_system", source_system),
        ("connection_name", connection_name),
        ("object_type", object_type),
    ):
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise ValueError(f"{name}: expected letters, digits, _ - and ., got {value!r}")
    if not isinstance(external_id, str) or not external_id:
        raise ValueError(
            f"{source_system} {object_type}: expected an id, got {type(external_id).__name__}"
            if not isinstance(external_id, str)
            else f"{source_system} {object_type}: the id is empty"
        )
    return f"{source_system}:{connection_name}:{object_type}:{external_id}"


def gmail_idem_key(connection_name: str, object_type: str = "message") -> IdemKeyFunction:
    """Keys of Gmail resources by their `id` (Gmail API v1, users.messages)."""
    return _by_id("gmail", connection_name, object_type)


def stripe_idem_key(connection_name: str, object_type: str) -> IdemKeyFunction:
    """Keys of Stripe objects by their `id` (Stripe API, every object's `id`)."""
    return _by_id("stripe", connection_name, object_type)


def _by_id(source_system: str, connection_name: str, object_type: str) -> IdemKeyFunction:
    def key(payload: Mapping[str, Any]) -> str:
        if not isinstance(payload, Mapping) or payload.get("id") is None:
            raise ValueError(f"{source_system} {object_type} without an id")
        return idem_key(source_system, connection_name, object_type, payload["id"])

    return key
