"""Stripe's read side over dlt's REST client: paced, retried, counted, bodies as they came.

Source: Stripe API reference, Pagination, Errors; docs, Rate limits, Advanced error handling.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import functools
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import requests

from loaders.errors import SourceError, TransientSourceError, redact
from loaders.objects.json_elements import dedented, indented_elements, json_elements
from loaders.settings.proxies import by_proxy
from loaders.sources.attempts import Again, Attempts, foreign_answer
from loaders.sources.contract import FetchRequest
from loaders.sources.pacing import TokenBucket, asked_pause
from loaders.sources.stripe.options import StripeConfig

PAGE_SIZE = 100
"""Objects in a page, at most (Stripe API reference, Pagination)."""

_NAME = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)
_PERMISSION = re.compile(r"\brak_\w{1,64}", re.ASCII)
_OF_VERSION = re.compile(r"(?i)\bstripe api version\b|\bstripe-version\b")
_BODY_PIECE = 4 * 1024 * 1024


_unexpected = functools.partial(foreign_answer, "stripe")


class KeyRefused(SourceError):
    """401: the key is not accepted."""


class NotFound(SourceError):
    """404: there is no object (any more) with the id that was asked for."""


class RequestRefused(SourceError):
    """400, 402 and the like: what is asked for is not given, whoever asks. `parameter` is at
    fault, where Stripe names one."""

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class PermissionDenied(SourceError):
    """403: the key may not read this kind of object."""


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """A page of a list: (text, value) of each object, and whether older ones follow."""

    objects: Sequence[tuple[str | bytes, Mapping[str, Any]]]
    has_more: bool
    served_at: dt.datetime | None
    """Stripe's clock, by the answer's Date header."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    status_code: int
    headers: Mapping[str, str]
    content: bytes
    value: Any = None
    """Of a success the JSON object."""


class StripeClient:
    """One account's read methods, safe to use from many threads.

    Every call waits for the rate limit, of the account and of its endpoint. What is refused for
    its rate, or failed on Stripe's side or the way there, is repeated with jittered exponential
    back-off, honouring Retry-After; so is a success that is no JSON. All methods raise NotFound,
    PermissionDenied, RequestRefused, KeyRefused, Cancelled, SourceError (the account or the version
    is not accepted), TransientSourceError (retries are used up), ForeignAnswer, AskedToPause.
    """

    def __init__(self, connection_name: str, config: StripeConfig) -> None:
        self.config = config
        self.served_at = dt.datetime.now(dt.UTC)
        """Stripe's clock, by the last answer; this machine's before there was one."""
        self._connection_name = connection_name
        self._attempts = Attempts("stripe", config.max_attempts, config.backoff_seconds)
        self._account_bucket = _bucket(config.rate)
        self._endpoint_buckets: dict[str, TokenBucket] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def account_id(self, request: FetchRequest) -> str | None:
        """The id of the account that is read; None when the key may not say."""
        try:
            answer = self._call(request, "account.get", "/v1/account")
        except PermissionDenied:
            return None
        return str(answer.value.get("id") or "") or None

    def page(
        self,
        request: FetchRequest,
        path: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        limit: int = PAGE_SIZE,
        owner_id: str | None = None,
    ) -> Page:
        """A page of a list, newest objects first; `parameters` as the list's endpoint has them.

        NotFound is raised where the list's owner is not there, for lists within an object.
        """
        endpoint = f"{_endpoint(path)}.list"
        asked = {"limit": limit, **(parameters or {})}
        answer = self._call(request, endpoint, path, asked, owner_id)
        value = answer.value
        try:
            objects, has_more = _elements(answer.content, value["data"]), value["has_more"]
        except (ValueError, KeyError, TypeError) as error:
            raise _unexpected(endpoint) from error
        if not isinstance(has_more, bool) or not all(map(is_object, objects)):
            raise _unexpected(endpoint)
        return Page(objects, has_more, _date(answer))

    def object(self, request: FetchRequest, path: str, object_id: str) -> tuple[bytes, Any]:
        """One object: (text, value)."""
        endpoint = f"{_endpoint(path)}.get"
        answer = self._call(request, endpoint, f"{path}/{escaped(object_id)}", None, object_id)
        return answer.content, answer.value

    def _call(
        self,
        request: FetchRequest,
        endpoint: str,
        path: str,
        parameters: Mapping[str, Any] | None = None,
        object_id: str | None = None,
    ) -> _Answer:
        def ask(is_last: bool) -> _Answer | Again:
            return self._try(endpoint, path, parameters, object_id, is_last=is_last)

        buckets = (self._account_bucket, self._endpoint_bucket(endpoint))
        return self._attempts.call(request, endpoint, buckets, ask)

    def _try(
        self,
        endpoint: str,
        path: str,
        parameters: Mapping[str, Any] | None,
        object_id: str | None,
        *,
        is_last: bool,
    ) -> _Answer | Again:
        """The answer, or what may pass; raises what no retry mends."""
        try:
            answer = self._get(path, parameters)
        except requests.RequestException as error:
            # Its text may quote the address, and that may carry a secret of a proxy.
            return Again(f"{type(error).__name__}{by_proxy(self.config.api_base_url, 'all')}")
        self.served_at = _date(answer) or self.served_at
        if answer.status_code == 200:
            if isinstance(value := _parsed(answer.content), dict):
                return dataclasses.replace(answer, value=value)
            if is_last:
                raise _unexpected(endpoint)
        elif answer.status_code < 400:
            raise _unexpected(endpoint)
        elif not _may_pass(answer):
            raise self._permanent(endpoint, answer, object_id)
        cause = f"{answer.status_code} {_error(answer)[0]}"
        met = [*self._met(endpoint, answer)] if answer.status_code == 429 else ()
        return Again(cause, asked_pause(answer.headers), met)

    def _get(self, path: str, parameters: Mapping[str, Any] | None) -> _Answer:
        response = self._session().get(path, parameters, allow_redirects=False, stream=True)
        # Left to itself, requests reads 10 KB at a time, and for each piece its thread waits for
        # its turn among the others.
        body = b"".join(response.iter_content(_BODY_PIECE))
        return _Answer(response.status_code, response.headers, body)

    def _met(self, endpoint: str, answer: _Answer) -> Iterator[TokenBucket]:
        """Stripe says which of its limits was met; without that it may have been any."""
        reason = answer.headers.get("Stripe-Rate-Limited-Reason", "")
        if not reason.startswith("global"):
            yield self._endpoint_bucket(endpoint)
        if not reason.startswith(("endpoint", "resource")):
            yield self._account_bucket

    def _permanent(self, endpoint: str, answer: _Answer, object_id: str | None) -> SourceError:
        status, (code, parameter, permission) = answer.status_code, _error(answer)
        said = f"stripe: {endpoint} refused with {status} {code}".rstrip()
        where = f"sources.stripe.{self._connection_name}"
        if status == 404 and not code:  # not by Stripe: it must not count as a deletion
            return _unexpected(endpoint)
        if status == 404 and code == "resource_missing" and _names(answer, object_id):
            return NotFound(f"{said}: not found")
        if status == 404:
            return TransientSourceError(
                f"{said}: that is not about what was asked for, so nothing counts as deleted; run"
                " again later"
            )
        if status == 401:
            return KeyRefused(f"{said}: the key is not accepted; correct {where}.api_key")
        if status == 403 and code == "account_invalid":
            return SourceError(
                f"{said}: the key has no access to this account; correct {where}.stripe_account"
            )
        if status == 403:
            return PermissionDenied(
                f"{said}: the key lacks the permission {permission or 'for it'}; grant it in"
                " Stripe's dashboard (with --objects an object type is left out, the event feed"
                " never)"
            )
        if status == 400 and _OF_VERSION.search(_message(answer)):
            return SourceError(
                f"{said}: Stripe does not take the API version {self.config.api_version!r}; correct"
                f" {where}.api_version"
            )
        about = f" ({parameter})" if parameter else ""
        return RequestRefused(f"{said}{about}: see Stripe's page on errors", parameter)

    def _endpoint_bucket(self, endpoint: str) -> TokenBucket:
        with self._lock:
            if endpoint not in self._endpoint_buckets:
                rate = self.config.endpoint_requests_per_second
                self._endpoint_buckets[endpoint] = _bucket(rate)
            return self._endpoint_buckets[endpoint]

    def _session(self) -> Any:
        """This thread's own REST client: a requests session is not made for several."""
        if not hasattr(self._local, "client"):
            self._local.client = _rest_client(self.config)
        return self._local.client


def _rest_client(config: StripeConfig) -> Any:
    from dlt.common.configuration.specs import RuntimeConfiguration
    from dlt.sources.helpers.requests.session import Session
    from dlt.sources.helpers.rest_client.client import RESTClient
    from requests.auth import HTTPBasicAuth

    headers = {"Stripe-Version": config.api_version}
    if config.stripe_account:
        headers["Stripe-Account"] = config.stripe_account
    return RESTClient(
        config.api_base_url,
        headers=headers,
        auth=HTTPBasicAuth(config.api_key, ""),
        # No retries of its own: each attempt has to wait for the rate limit.
        session=Session(timeout=config.timeout_seconds, raise_for_status=False),
        config=RuntimeConfiguration(),
    )


def _bucket(rate: float) -> TokenBucket:
    """For so many requests a second; of less than ten a second, for as long as ten take."""
    seconds = max(1.0, 10 / rate)
    return TokenBucket(rate * seconds, 1, seconds=seconds)


def _may_pass(answer: _Answer) -> bool:
    """Whether the same request may succeed later; Stripe says so itself where it knows."""
    if answer.status_code == 429:
        return True
    said = answer.headers.get("Stripe-Should-Retry")
    if said in ("true", "false"):
        return said == "true"
    return answer.status_code in (408, 409) or answer.status_code >= 500


def _error(answer: _Answer) -> tuple[str, str, str]:
    """Code (or type), parameter and missing permission of Stripe's error body; all are names.

    Its message may quote content and a part of the key.
    """
    try:
        error = json.loads(answer.content)["error"]
        found = _PERMISSION.search(str(error.get("message", "")))
        code = _name(error.get("code")) or _name(error.get("type"))
        return code, _name(error.get("param")), found.group() if found else ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", "", ""


def _message(answer: _Answer) -> str:
    """The text of Stripe's error body, to be looked into and never shown."""
    try:
        return str(json.loads(answer.content)["error"].get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def _names(answer: _Answer, object_id: str | None) -> bool:
    """Whether an error is about this object: Stripe quotes the id that it has looked for."""
    message = _message(answer)
    return object_id is not None and (
        f"'{object_id}'" in message or message.endswith(f": {object_id}")
    )


def _name(value: Any) -> str:
    is_name = isinstance(value, str) and _NAME.fullmatch(value) and redact(value) == value
    return value if is_name else ""


def _date(answer: _Answer) -> dt.datetime | None:
    try:
        return email.utils.parsedate_to_datetime(answer.headers["Date"]).astimezone(dt.UTC)
    except (KeyError, ValueError):
        return None


def _loads(body: bytes) -> Any:
    """Parse an answer. What orjson does not take, such as half of a surrogate pair, is a matter of
    the landing gate: one object is not to be the end of a list. Raises ValueError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(body)
        except RecursionError:
            raise ValueError("nested too deep") from None


def _parsed(body: bytes) -> Any:
    """The value of an answer; None for what is no JSON."""
    try:
        return _loads(body)
    except ValueError:
        return None


def _elements(body: bytes, values: Sequence[Any]) -> list[tuple[str | bytes, Any]]:
    """(text, value) of each object in `data`."""
    texts: Sequence[str | bytes] | None = indented_elements(body, b"data")
    if texts is None or len(texts) != len(values):
        texts = [dedented(text) for text, _ in json_elements(body.decode(), "data")]
    return list(zip(texts, values, strict=True))


def is_object(element: tuple[str | bytes, Any]) -> bool:
    """Whether an element of a list is an object with an id."""
    value = element[1]
    return isinstance(value, dict) and isinstance(value.get("id"), str) and bool(value["id"])


def _endpoint(path: str) -> str:
    """`charges` of /v1/charges; `invoices.lines` of /v1/invoices/in_1/lines."""
    _, _, name, *rest = path.split("/")
    return ".".join([name, *rest[1:]])


def escaped(object_id: str) -> str:
    """An id as a segment of a path, as stripe-python's `sanitize_id` has it."""
    return urllib.parse.quote_plus(object_id)


def not_advancing(what: str) -> TransientSourceError:
    """A list that says it goes on and comes back to where it was."""
    return TransientSourceError(f"stripe: the list of {what} does not advance; run again later")
