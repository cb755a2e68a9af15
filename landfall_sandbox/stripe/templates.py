"""Texts of objects with holes: far cheaper to fill in than to render an object from a dict."""

import json
import re
import secrets
from typing import Any

VOLATILE = "~signature~"
"""Stands in an object's text for what is different in every answer; see `sign`."""

_MASK = (1 << 64) - 1


def template(value: Any) -> str:
    """Return the text of an object, for the % operator and a dict.

    In the texts of `value`, "<name>" is replaced by a name's plain text, and a text that is
    nothing but "<=name>" by a name's JSON.
    """
    text = pretty(value).replace("%", "%%")
    return re.sub(r"<(\w+)>", r"%(\1)s", re.sub(r'"<=(\w+)>"', r"%(\1)s", text))


def pretty(value: Any) -> str:
    """Return `value` as Stripe prints it: indented by 2, not escaped to ASCII."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def indent(text: str, levels: int) -> str:
    """Return the text of an object that stands `levels` deep in another."""
    return text.replace("\n", "\n" + "  " * levels)


def fragment(value: Any, levels: int = 1) -> str:
    """Return the JSON of a part that stands `levels` deep in an object."""
    return indent(pretty(value), levels)


def quoted(text: str | None) -> str:
    """Return plain text without awkward characters as JSON, null for None."""
    return "null" if text is None else f'"{text}"'


def sign(text: bytes) -> bytes:
    """Return the text of an answer with a fresh signature in its addresses."""
    return text.replace(VOLATILE.encode(), secrets.token_urlsafe(36).encode())


def dice(index: int, key: int) -> int:
    """Return a number of 64 bits that looks random, the same for the same arguments."""
    number = ((index + 1) * 0x9E3779B97F4A7C15 + key) & _MASK
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    return number ^ number >> 27
