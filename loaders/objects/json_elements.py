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


def indented_elements(body: bytes, member: bytes) -> list[bytes] | None:
    """The texts of the objects in an array, of an answer that is indented by two spaces.

    Each is indented as an answer of its own would be, and otherwise as it came. Nothing is
    parsed: no text in JSON holds a line break, so the lines tell where an object ends. None
    when the answer is not indented like that.
    """
    opening, closing = b'\n  "%b": [\n    {\n' % member, b"\n    }\n  ]"
    start = body.find(opening)
    end = body.find(closing, start)
    if start < 0 or end < 0:
        return None
    objects = body[start + len(opening) - 1 : end].replace(b"\n    ", b"\n")
    return [b"{%b\n}" % members for members in objects.split(b"\n},\n{")]


def dedented(text: str) -> str:
    """A part of an indented answer, indented as if it stood alone: no text in JSON has a line
    break of its own."""
    indentation = text[text.rfind("\n") : -1]
    return text if indentation.strip() or not indentation else text.replace(indentation, "\n")


def json_member(text: str, member: str) -> str | None:
    """The text of a member of an object, as it came; None when it is absent. Raises ValueError."""
    position = _find(text, member)
    if position is None:
        return None
    _, end = _scan(text, position)
    return text[position:end]


def json_parts(text: str) -> Iterator[tuple[int, int, str | None, Any]]:
    """Yield (start, end, name, value) of each member of an object; of an array's elements, without
    a name. Raises ValueError for what is neither."""
    start = _skip(text, 0)
    is_object = text[start : start + 1] == "{"
    position = _expect(text, start, "{" if is_object else "[")
    closing = "}" if is_object else "]"
    while text[position : position + 1] != closing:
        name = None
        if is_object:
            name, position = _scan(text, position)
            position = _expect(text, _skip(text, position), ":")
        value, end = _scan(text, position)
        yield position, end, name, value
        position = _skip(text, end)
        if text[position : position + 1] != closing:
            position = _expect(text, position, ",")


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
