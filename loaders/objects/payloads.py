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
MAX_DEPTH = 254
"""Deepest nesting: as deep as orjson, which writes what is hashed, goes (BigQuery: 500)."""
_PIECE, _LONG = 2_047, 64 * 1024
TOMBSTONE_HASH = hashlib.sha256(b"null").hexdigest()
"""payload_hash of a deleted object: that of JSON null, which no payload can have."""


def admit(
    text: str | bytes, volatile_keys: Collection[str] = (), value: Any = None
) -> tuple[bytes, dict[str, Any], str]:
    """Admit one JSON object: (its text in UTF-8, unchanged; the parsed object; its payload_hash).

    `volatile_keys` are members that change on every read: they are not in the parsed object
    nor in its hash. A name stands for members at any depth, `$.name` for the object's own.
    `value` is what the source has parsed of the text, if it has; it is taken over and changed.
    Raises PayloadError for what is not one JSON
    object, repeats a member, holds a number that float64 or int64 would change, an
    unpaired surrogate, or exceeds the size or depth limit.
    """
    data = _encode(text)
    value = _parse(data, value)
    for key in volatile_keys:
        value.pop(key.removeprefix("$."), None)
    volatile = [key for key in volatile_keys if not key.startswith("$.") and key.encode() in data]
    if volatile:
        _remove(volatile, value)
    try:
        canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise PayloadError("holds an integer beyond 64 bits or an unpaired surrogate") from error
    return data, value, _sha256(canonical)


def _sha256(data: bytes) -> str:
    """Hashlib lets other threads run while it hashes 2,048 bytes or more, and to get back in line
    takes longer than to hash them: smaller pieces keep the turn."""
    if len(data) > _LONG:
        return hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256()
    for start in range(0, len(data), _PIECE):
        digest.update(data[start : start + _PIECE])
    return digest.hexdigest()


def _encode(text: str | bytes) -> bytes:
    try:
        data = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise PayloadError("holds an unpaired surrogate") from error
    if len(data) > MAX_BYTES:
        raise PayloadError(f"larger than {MAX_BYTES >> 20} MiB")
    return data


def _parse(data: bytes, value: Any) -> dict[str, Any]:
    """Parse strictly; quickly where the text is exactly what orjson writes back.

    Written back the same, it can have neither a repeated member nor a number that
    changed nor more depth than orjson writes, so the five times slower strict decoder
    has nothing left to find.
    """
    try:
        parsed = orjson.loads(data) if value is None else value
        if isinstance(parsed, dict) and _is_written_as(data, parsed):
            return parsed
    except (orjson.JSONDecodeError, TypeError):
        pass  # the strict decoder says what is wrong
    parsed = _parse_strictly(data)
    _check_depth(parsed)
    return parsed


def _is_written_as(data: bytes, value: dict[str, Any]) -> bool:
    """Whether writing the value gives the text: as it is, as Stripe indents it, as Google
    escapes it."""
    written = orjson.dumps(value, option=orjson.OPT_INDENT_2 if b"\n" in data[:4] else None)
    if written == data:
        return True
    for escaped, character in _GOOGLE_ESCAPES:
        written = written.replace(character, escaped)
        if written == data:
            return True
    return False


def _parse_strictly(data: bytes) -> dict[str, Any]:
    try:
        value = _DECODER.decode(data.decode())
    except UnicodeDecodeError as error:
        raise PayloadError(f"not UTF-8 at byte {error.start}") from error
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
    (b"\\u003c", b"<"),
    (b"\\u003e", b">"),
    (b"\\u0026", b"&"),
    (b"\\u0027", b"'"),
    (b"\\u003d", b"="),
)

_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_float, parse_constant=_constant)


def _check_depth(value: dict[str, Any]) -> None:
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


def _remove(keys: Collection[str], value: Any) -> None:
    """Remove members from a parsed value at any depth, in place: a copy costs twice as much."""
    children = value
    if type(value) is dict:
        for key in keys:
            value.pop(key, None)
        children = value.values()
    for child in children:
        if type(child) is dict or type(child) is list:
            _remove(keys, child)
