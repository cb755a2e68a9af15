"""HTTP to Gmail: the answers of its API, and what comes in their place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

_NAME = re.compile(r"\w{1,64}", re.ASCII)
_JSON = "application/json"
_LONGEST_WAIT = 300.0


class BadAnswer(Exception):
    """An answer that is no success. No library looks into its body, which may be a proxy's.

    `reason` is a name, or `unknown`; `retry_after` is in seconds; `is_of_api` says whether the
    body is an error of Google's APIs.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        error = _error(body)
        self.status = status
        self.is_of_api = isinstance(error, dict)
        self.reason = _reason(error)
        self.retry_after = _retry_after(headers)


class NotJson(Exception):
    """A success that is no answer of the API: a proxy's or a sign-in page, or what is left of one
    that was cut off."""


def new_transport(credentials: Any, timeout_seconds: float) -> Any:
    """An authorised transport for one thread, as httplib2 is not thread-safe.

    Its requests raise BadAnswer, NotJson and whatever httplib2 and google-auth raise.
    """
    import google_auth_httplib2
    import httplib2

    class Transport(google_auth_httplib2.AuthorizedHttp):  # type: ignore[misc]
        def request(self, *arguments: Any, **options: Any) -> tuple[Any, bytes]:
            response, body = super().request(*arguments, **options)
            if response.status >= 300:
                raise BadAnswer(response.status, response, body)
            if _JSON not in response.get("content-type", "") or not _is_json(body):
                raise NotJson
            return response, body

    return Transport(credentials, http=httplib2.Http(timeout=timeout_seconds))


def name_of(reason: Any) -> str:
    """A reason is a name; whatever else stands there may be content."""
    return reason if isinstance(reason, str) and _NAME.fullmatch(reason) else "unknown"


def _is_json(body: bytes) -> bool:
    """Whether a body is whole; what of it no warehouse keeps is a matter of the landing gate."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            json.loads(body.decode(errors="replace"))
        except RecursionError:
            return True
        except ValueError:
            return False
    return True


def _error(body: bytes) -> Any:
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _reason(error: Any) -> str:
    """The `reason` of Google's error, in either of its shapes."""
    if not isinstance(error, dict):
        return name_of(error)
    entries = [error.get("errors"), error.get("details")]
    for entry in [one for some in entries if isinstance(some, list) for one in some]:
        if isinstance(entry, dict) and entry.get("reason"):
            return name_of(entry["reason"])
    return name_of(error.get("status"))


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return max(0.0, min(_LONGEST_WAIT, float(headers.get("retry-after", 0))))
    except ValueError:
        return 0.0
