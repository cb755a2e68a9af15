"""The gate that every payload passes before it is landed, and its hash.

What both warehouses can keep passes unchanged; anything else is refused with a reason
that carries no content, and becomes a dead letter. So no payload can fail a MERGE.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from decimal import Decimal
from typing import Any, NoReturn

import orjson

from loaders.errors import PayloadError

MAX_BYTES = 64 * 1024 * 1024
"""Largest payload, in bytes of UTF-8 (a BigQuery row holds 100 MB)."""
MAX_DEPTH = 250
"""Deepest nesting (orjson, which writes what is hashed, stops at 254, BigQuery's JSON at 500)."""
TOMBSTONE_HASH = hashlib.sha256(b"null").hexdigest()
"""payload_hash of a deleted object: that of JSON null, which no payload can have."""


def admit(
    text: str | bytes, volatile_keys: Collection[str] = ()
) -> tuple[str, dict[str, Any], str]:
    """Admit one JSON object: (its text, unchanged; the parsed object; its payload_hash).

    `volatile_keys` are member names that change on every read and so stay out of the
    hash, at any depth. Raises PayloadError for what is not one JSON object, repeats a
    member, holds a number that float64 or int64 would change, an unpaired surrogate,
    or exceeds the size or depth limit.
    """
    text = _decode(text)
    value = _parse(text)
    _check_depth(text, value)
    hashed = value
    if any(key in text for key in volatile_keys):
        hashed = _without(value, volatile_keys)
    try:
        canonical = orjson.dumps(hashed, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise PayloadError("holds an integer beyond 64 bits or an unpaired surrogate") from error
    return text, value, hashlib.sha256(canonical).hexdigest()


def _decode(text: str | bytes) -> str:
    if len(text) > MAX_BYTES:
        raise PayloadError(f"larger than {MAX_BYTES >> 20} MiB")
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PayloadError(f"not UTF-8 at byte {error.start}") from error


def _parse(text: str) -> dict[str, Any]:
    """Parse strictly; quickly where the text is exactly what orjson writes back.

    Written back the same, it can have neither a repeated member nor a number that
    changed, so the five times slower strict decoder has nothing left to find.
    """
    try:
        value = orjson.loads(text)
        if isinstance(value, dict) and _is_written_as(text, value):
            return value
    except (orjson.JSONDecodeError, TypeError, UnicodeEncodeError):
        pass  # the strict decoder says what is wrong
    return _parse_strictly(text)


def _is_written_as(text: str, value: dict[str, Any]) -> bool:
    """Whether writing the value gives the text: as it is, as Stripe indents it, as Google
    escapes it."""
    indent = orjson.OPT_INDENT_2 if "\n" in text[:4] else None
    written = orjson.dumps(value, option=indent).decode()
    if written == text:
        return True
    for escaped, character in _GOOGLE_ESCAPES:
        written = written.replace(character, escaped)
        if written == text:
            return True
    return False


def _parse_strictly(text: str) -> dict[str, Any]:
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise PayloadError(f"not JSON at character {error.pos}: {error.msg}") from error
    except RecursionError as error:
        raise PayloadError(f"nested deeper than {MAX_DEPTH}") from error
    if not isinstance(value, dict):
        raise PayloadError(f"not a JSON object but {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise PayloadError("repeats a member name")
    return members


def _float(literal: str) -> float:
    number = float(literal)
    if Decimal(literal) != Decimal(repr(number)):
        raise PayloadError("holds a number that a 64-bit float would change")
    return number


def _constant(name: str) -> NoReturn:
    raise PayloadError(f"holds {name}, which is not JSON")


# Google's servers escape these for HTML's sake: the first two, or all.
_GOOGLE_ESCAPES = (
    ("\\u003c", "<"),
    ("\\u003e", ">"),
    ("\\u0026", "&"),
    ("\\u0027", "'"),
    ("\\u003d", "="),
)

_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_float, parse_constant=_constant)


def _check_depth(text: str, value: dict[str, Any]) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth, level = 0, list[Any]([value])
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise PayloadError(f"nested deeper than {MAX_DEPTH}")
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, (dict, list))
        ]


def _without(value: Any, keys: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {
            name: _without(item, keys) if isinstance(item, (dict, list)) else item
            for name, item in value.items()
            if name not in keys
        }
    return [_without(item, keys) if isinstance(item, (dict, list)) else item for item in value]
