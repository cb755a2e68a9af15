"""The objects inside of an answer, each in the text that the API sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def json_elements(text: str, member: str) -> Iterator[tuple[str, Any]]:
    """Yield (text, parsed value) of each element of an array that is a member of an object.

    The text is that part of the answer as it came: numbers, escapes and the order of members
    are kept. Nothing is yielded when the member is absent. Raises ValueError for what is not a
    JSON object, or when the member is not an array.
    """
    position = _find(text, member)
    if position is not None:
        yield from _elements(text, _expect(text, position, "["))


def json_member(text: str, member: str) -> str | None:
    """The text of a member of an object, as it came; None when it is absent. Raises ValueError."""
    position = _find(text, member)
    if position is None:
        return None
    _, end = _scan(text, position)
    return text[position:end]


def _find(text: str, member: str) -> int | None:
    """Where the value of a member begins."""
    position = _expect(text, _skip(text, 0), "{")
    if text[position : position + 1] == "}":
        return None
    while True:
        name, position = _scan(text, position)
        position = _expect(text, _skip(text, position), ":")
        if name == member:
            return position
        _, position = _scan(text, position)
        position = _skip(text, position)
        if text[position : position + 1] == "}":
            return None
        position = _expect(text, position, ",")


def _elements(text: str, position: int) -> Iterator[tuple[str, Any]]:
    if text[position : position + 1] == "]":
        return
    while True:
        value, end = _scan(text, position)
        yield text[position:end], value
        position = _skip(text, end)
        if text[position : position + 1] == "]":
            return
        position = _expect(text, position, ",")


def _scan(text: str, position: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    assert found is not None
    return found.end()


def _expect(text: str, position: int, character: str) -> int:
    if text[position : position + 1] != character:
        raise ValueError(f"not JSON at character {position}: expected {character}")
    return _skip(text, position + 1)
