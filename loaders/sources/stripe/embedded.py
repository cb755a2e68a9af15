"""Lists inside of objects, of which Stripe puts in the first page alone.

Source: Stripe API reference, Pagination; `url` says where the list itself is.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

from loaders.objects.json_elements import json_parts
from loaders.sources.refusals import RequestRefused

_GOES_ON = re.compile(rb'"has_more"\s*:\s*true')
_PATH = re.compile(r"/v1(/[\w%+~.-]*\w)+", re.ASCII)

Rest = Callable[[dict[str, Any]], Sequence[tuple[str, Any]]]
"""Reads what a list lacks: (text, value) of each object."""


def completed(text: str | bytes, value: Any, rest: Rest, leave: str | None = None) -> str | bytes:
    """An object's text with every list in it read to its end; all else of it stays as it came.

    The member `leave` stays, too. Raises what `rest` raises.
    """
    data = text.encode() if isinstance(text, str) else text
    return _completed(data.decode(), value, rest, leave) if _GOES_ON.search(data) else text


def _completed(text: str, value: Any, rest: Rest, leave: str | None = None) -> str:
    if not isinstance(value, (dict, list)):
        return text
    cut = value if isinstance(value, dict) and _is_cut(value) else None
    pieces, done = [], 0
    for start, end, name, inner in json_parts(text):
        part = text[start:end]
        if leave is None or name != leave:
            part = _completed(part, inner, rest)
        if cut is not None and name == "data":
            more = [_completed(one, each, rest) for one, each in rest(cut)]
            shown = [part.strip()[1:-1].strip(), *more]
            part = f"[{','.join(one for one in shown if one)}]"
        elif cut is not None and name == "has_more":
            part = "false"
        pieces += [text[done:start], part]
        done = end
    return "".join(pieces) + text[done:]


def _is_cut(value: dict[str, Any]) -> bool:
    is_list = value.get("object") == "list" and isinstance(value.get("data"), list)
    return is_list and value.get("has_more") is True


def address(cut: dict[str, Any], name: str) -> tuple[str, dict[str, str]]:
    """Path and parameters of a list that goes on. Raises RequestRefused for one without, or on
    another host: nobody else is sent the key."""
    url = urllib.parse.urlsplit(str(cut.get("url") or ""))
    is_here = not url.scheme and not url.netloc and _PATH.fullmatch(url.path)
    if not is_here or ".." in url.path:
        raise RequestRefused(
            f"stripe: a list inside of this {name} goes on and does not say where in the API; it"
            " is not stored without the rest",
            "url",
        )
    return url.path, dict(urllib.parse.parse_qsl(url.query))
