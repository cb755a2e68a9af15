"""The page: one HTML file with its styles, its scripts and its data."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

_FILES = Path(__file__).parent
_ESCAPES = str.maketrans(
    {character: f"\\u{ord(character):04x}" for character in ("<", ">", "&", "\u2028", "\u2029")}
)


def render(content: Mapping[str, Any]) -> str:
    """The page as a text of HTML; `content` is what `content.read` gives.

    The browser is told to run these two scripts only and to ask nobody for anything
    (Content Security Policy Level 3, hashes).
    """
    style = _file("page.css")
    scripts = _charting_library(), f"{_file('charts.js')}\n{_file('page.js')}"
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none';"
        f" style-src {_source(style)}; script-src {' '.join(map(_source, scripts))}"
    )
    return Template(_file("page.html")).substitute(
        policy=policy, style=style, data=embedded(content), library=scripts[0], script=scripts[1]
    )


def embedded(content: Any) -> str:
    """JSON that no text inside it can break out of a script element with."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


@functools.cache
def _charting_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that a package carries."""
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    assert "</script" not in script, "the library would end its own element"
    return script


def _file(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
