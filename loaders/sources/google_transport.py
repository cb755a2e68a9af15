"""HTTP to Google's APIs: their answers, and what comes in their place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from loaders.sources.pacing import asked_pause

_NAME = re.compile(r"\w{1,64}", re.ASCII)
_OAUTH_ERROR = re.compile(r"[a-z]+(?:_[a-z]+)+", re.ASCII)
_PASSING_OAUTH_ERRORS = ("server_error", "temporarily_unavailable", "internal_failure")
_JSON = "application/json"


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
        text = error.get("message") if isinstance(error, dict) else ""
        self.retry_after = asked_pause(headers, str(text))


class NoToken(BadAnswer):
    """A token endpoint's answer without a token.

    `is_refusal` says whether it is an OAuth error (RFC 6749, section 5.2), or one of Google's
    APIs: nothing else says that a grant is gone.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status, headers, body)
        value = _value(body)
        error = value.get("error") if isinstance(value, dict) else None
        is_of_oauth = isinstance(error, str) and _OAUTH_ERROR.fullmatch(error) is not None
        may_pass = status not in (400, 401, 403) or error in _PASSING_OAUTH_ERRORS
        self.is_refusal = (is_of_oauth or self.is_of_api) and not may_pass
        if self.is_refusal and is_of_oauth and "rapt" in str(value):
            self.reason = "invalid_rapt"  # its `error_subtype`; `error` is invalid_grant


class NotJson(Exception):
    """A success that is no answer of the API: a proxy's or a sign-in page, or what is left of one
    that was cut off."""


def new_transport(credentials: Any, timeout_seconds: float) -> Any:
    """An authorised transport for one thread, as httplib2 is not thread-safe.

    Its requests raise BadAnswer, NoToken, NotJson and whatever httplib2 and google-auth raise.
    """
    import google_auth_httplib2
    import httplib2

    class TokenRequest(google_auth_httplib2.Request):  # type: ignore[misc]
        def __call__(self, url: str, method: str = "GET", **options: Any) -> Any:
            answer = super().__call__(url, method=method, **options)
            # What is got, of this machine's metadata server say, need not be a token.
            if method == "POST" and not (answer.status < 300 and _is_token(answer.data)):
                raise NoToken(answer.status, answer.headers, answer.data)
            return answer

    class Transport(google_auth_httplib2.AuthorizedHttp):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._request = TokenRequest(self.http)

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


def _value(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _error(body: bytes) -> Any:
    value = _value(body)
    return value.get("error") if isinstance(value, dict) else None


def _is_token(body: bytes) -> bool:
    """Whether google-auth finds a token in an answer, of OAuth's or of IAM's credentials API."""
    value = _value(body)
    if not isinstance(value, dict):
        return False
    token = value.get("access_token") or value.get("accessToken")
    lifetime = value.get("expires_in")
    is_lifetime = isinstance(lifetime, (int, float, type(None))) or str(lifetime).isdecimal()
    return isinstance(token, str) and bool(token) and is_lifetime


def _reason(error: Any) -> str:
    """The `reason` of Google's error, in either of its shapes."""
    if not isinstance(error, dict):
        return name_of(error)
    entries = [error.get("errors"), error.get("details")]
    for entry in [one for some in entries if isinstance(some, list) for one in some]:
        if isinstance(entry, dict) and entry.get("reason"):
            return name_of(entry["reason"])
    return name_of(error.get("status"))
