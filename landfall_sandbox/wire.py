"""What an API module and the server exchange: requests, responses, calls."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self
from urllib.parse import parse_qs, unquote, urlsplit

from landfall_sandbox.quota import Quota

JSON_TYPE = "application/json; charset=UTF-8"
GOOGLE_REASONS = {429: "rateLimitExceeded", 500: "internalError", 503: "backendError"}
"""What a fault of each status means in a Google API, if it names no reason."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names are lower case, `query` keeps repeated parameters.

    In `raw_path` nothing is decoded: a slash inside of an id does not end it there.
    """

    method: str
    path: str
    raw_path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes = b""

    @classmethod
    def to(cls, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Self:
        """Return the request for a target as it stands in a request line."""
        url = urlsplit(target)
        return cls(
            method=method,
            path=unquote(url.path),
            raw_path=url.path,
            query=parse_qs(url.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in headers.items()},
            body=body,
        )


@dataclass(slots=True)
class Response:
    """One HTTP answer.

    `is_truncated` sends half the body and closes the connection, `is_reset` resets it then;
    `body_seconds` is how long the body takes.
    """

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)
    is_truncated: bool = False
    is_reset: bool = False
    body_seconds: float = 0


class ApiError(Exception):
    """A request answered by an error; carries the finished answer."""

    def __init__(self, response: Response) -> None:
        """Wrap the `response` to send."""
        super().__init__(f"HTTP {response.status}")
        self.response = response


@dataclass(frozen=True, slots=True)
class Call:
    """A request matched to one method of an API.

    `method` names it in counters, costs and fault rules ("messages.get"); `object_id` is the id
    in the path, if any; `run` gives the answer or raises ApiError.
    """

    method: str
    object_id: str | None
    run: Callable[[], Response]


class Api(Protocol):
    """One API that the server speaks.

    `default_reasons` are the reasons of faults that name none, by status.
    """

    quota: Quota
    default_reasons: Mapping[int, str]

    def match(self, request: Request) -> Call | None:
        """Return the call a request stands for, or None when it isn't one of this API."""

    def error(self, status: int, reason: str, message: str) -> Response:
        """Return an error answer in this API's own shape."""


def json_response(value: Any, status: int = 200) -> Response:
    """Return `value` as a JSON answer."""
    return Response(status, json.dumps(value, ensure_ascii=False).encode())
