"""Stripe's read side: its limits, its errors, its lists.

Source: Stripe API reference, Pagination, Errors; docs, Rate limits, Advanced error handling.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from requests.auth import HTTPBasicAuth

from loaders.errors import SourceError, TransientSourceError, redact
from loaders.sources import refusals
from loaders.sources.contract import FetchRequest
from loaders.sources.pacing import TokenBucket
from loaders.sources.refusals import KeyRefused, NotFound, PermissionDenied, RequestRefused
from loaders.sources.rest import Element, HttpAnswer, RestClient, escaped, is_object, rate_bucket
from loaders.sources.stripe.options import StripeConfig

PAGE_SIZE = 100
"""Objects in a page, at most (Stripe API reference, Pagination)."""

_NAME = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)
_PERMISSION = re.compile(r"\brak_\w{1,64}", re.ASCII)
_OF_VERSION = re.compile(r"(?i)\bstripe api version\b|\bstripe-version\b")

_unexpected = functools.partial(refusals.foreign_answer, "stripe")
not_advancing = functools.partial(refusals.not_advancing, "stripe")


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """A page of a list, and whether older objects follow."""

    objects: Sequence[Element]
    has_more: bool
    served_at: dt.datetime | None
    """Stripe's clock, by the answer's Date header."""


class StripeClient(RestClient):
    """One account's read methods, see RestClient.

    Every call waits for the rate limit, of the account and of its endpoint.
    """

    def __init__(self, connection_name: str, config: StripeConfig) -> None:
        headers = {"Stripe-Version": config.api_version}
        if config.stripe_account:
            headers["Stripe-Account"] = config.stripe_account
        super().__init__(
            "stripe",
            config,
            config.api_base_url,
            auth=HTTPBasicAuth(config.api_key, ""),
            headers=headers,
            requests_per_second=config.rate,
        )
        self.config = config
        self._connection_name = connection_name
        self._endpoint_buckets: dict[str, TokenBucket] = {}
        self._lock = threading.Lock()

    def account_id(self, request: FetchRequest) -> str | None:
        """The id of the account that is read; None when the key may not say."""
        try:
            answer = self.get(request, "account.get", "/v1/account")
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
        answer = self.get(request, endpoint, path, asked, owner_id)
        try:
            objects, has_more = answer.elements("data"), answer.value["has_more"]
        except (ValueError, KeyError, TypeError) as error:
            raise _unexpected(endpoint) from error
        if not isinstance(has_more, bool) or not all(map(is_object, objects)):
            raise _unexpected(endpoint)
        return Page(objects, has_more, answer.served_at)

    def object(self, request: FetchRequest, path: str, object_id: str) -> tuple[bytes, Any]:
        """One object: (text, value)."""
        endpoint = f"{_endpoint(path)}.get"
        answer = self.get(request, endpoint, f"{path}/{escaped(object_id)}", None, object_id)
        return answer.content, answer.value

    def buckets(self, method: str) -> Sequence[TokenBucket]:
        """Of the account, and of the endpoint."""
        return (self._bucket, self._endpoint_bucket(method))

    def met(self, method: str, answer: HttpAnswer) -> Sequence[TokenBucket]:
        """Stripe says which of its limits was met; without that it may have been any."""
        reason = answer.headers.get("Stripe-Rate-Limited-Reason", "")
        endpoint = () if reason.startswith("global") else (self._endpoint_bucket(method),)
        account = () if reason.startswith(("endpoint", "resource")) else (self._bucket,)
        return (*endpoint, *account)

    def may_pass(self, answer: HttpAnswer) -> bool:
        """Stripe says so itself where it knows."""
        said = answer.headers.get("Stripe-Should-Retry")
        if answer.status_code != 429 and said in ("true", "false"):
            return said == "true"
        return super().may_pass(answer)

    def error_name(self, answer: HttpAnswer) -> str:
        """Code, or type, of Stripe's error body."""
        return _error(answer)[0]

    def refusal(self, method: str, answer: HttpAnswer, object_id: str | None) -> SourceError:
        """The error for what no retry mends, with the option to correct."""
        status, (code, parameter, permission) = answer.status_code, _error(answer)
        said = f"stripe: {method} refused with {status} {code}".rstrip()
        where = f"sources.stripe.{self._connection_name}"
        if status == 404 and not code:  # not by Stripe: it must not count as a deletion
            return _unexpected(method)
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
                self._endpoint_buckets[endpoint] = rate_bucket(rate)
            return self._endpoint_buckets[endpoint]


def _error(answer: HttpAnswer) -> tuple[str, str, str]:
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


def _message(answer: HttpAnswer) -> str:
    """The text of Stripe's error body, to be looked into and never shown."""
    try:
        return str(json.loads(answer.content)["error"].get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def _names(answer: HttpAnswer, object_id: str | None) -> bool:
    """Whether an error is about this object: Stripe quotes the id that it has looked for."""
    message = _message(answer)
    return object_id is not None and (
        f"'{object_id}'" in message or message.endswith(f": {object_id}")
    )


def _name(value: Any) -> str:
    is_name = isinstance(value, str) and _NAME.fullmatch(value) and redact(value) == value
    return value if is_name else ""


def _endpoint(path: str) -> str:
    """`charges` of /v1/charges; `invoices.lines` of /v1/invoices/in_1/lines."""
    _, _, name, *rest = path.split("/")
    return ".".join([name, *rest[1:]])
