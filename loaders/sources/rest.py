"""An HTTP API that answers in JSON: paced, retried, counted, bodies as they came.

Over dlt's REST client, without its retries: each attempt has to wait for the rate limit.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import json
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import requests

from loaders.errors import SourceError
from loaders.objects.json_elements import dedented, indented_elements, json_elements
from loaders.settings.proxies import by_proxy
from loaders.sources.attempts import Again, Attempts
from loaders.sources.contract import FetchRequest
from loaders.sources.options import SourceOptions
from loaders.sources.pacing import TokenBucket, asked_pause
from loaders.sources.refusals import (
    KeyRefused,
    NotFound,
    PermissionDenied,
    RequestRefused,
    foreign_answer,
)

_BODY_PIECE = 4 * 1024 * 1024

Element = tuple[str | bytes, Any]
"""An object as it came, and its value."""


@dataclasses.dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer; of a success `value` is its JSON object."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    value: Any = None

    @property
    def served_at(self) -> dt.datetime | None:
        """The API's clock, by the Date header."""
        try:
            return email.utils.parsedate_to_datetime(self.headers["Date"]).astimezone(dt.UTC)
        except (KeyError, ValueError):
            return None

    def elements(self, member: str) -> list[Element]:
        """The elements of a list in it, each as it came.

        Raises ValueError, KeyError, TypeError where there is no such list.
        """
        values = self.value[member]
        texts: Sequence[str | bytes] | None = indented_elements(self.content, member.encode())
        if texts is None or len(texts) != len(values):
            texts = [dedented(text) for text, _ in json_elements(self.content.decode(), member)]
        return list(zip(texts, values, strict=True))


class RestClient:
    """One connection's read methods, safe to use from many threads.

    Every call waits for the rate limit. What is refused for its rate, or failed on the API's side
    or the way there, is repeated with jittered exponential back-off, honouring Retry-After; so is a
    success that is no JSON object. Calls raise NotFound, PermissionDenied, RequestRefused,
    KeyRefused, Cancelled, SourceError, TransientSourceError (retries are used up), ForeignAnswer,
    AskedToPause.
    """

    def __init__(
        self,
        source_system: str,
        options: SourceOptions,
        api_base_url: str,
        *,
        auth: Any = None,
        headers: Mapping[str, str] | None = None,
        requests_per_second: float = 10.0,
    ) -> None:
        self.served_at = dt.datetime.now(dt.UTC)
        """The API's clock, by the last answer; this machine's before there was one."""
        self._source_system = source_system
        self._options = options
        self._api_base_url = api_base_url
        self._auth = auth
        self._headers = dict(headers or {})
        self._attempts = Attempts(source_system, options.max_attempts, options.backoff_seconds)
        self._bucket = rate_bucket(requests_per_second)
        self._local = threading.local()

    def get(
        self,
        request: FetchRequest,
        method: str,
        path: str,
        parameters: Mapping[str, Any] | None = None,
        object_id: str | None = None,
    ) -> HttpAnswer:
        """The answer with the JSON object at a path; `method` names the call in errors, and
        `object_id` is what NotFound would be about."""

        def ask(is_last: bool) -> HttpAnswer | Again:
            return self._try(method, path, parameters, object_id, is_last=is_last)

        return self._attempts.call(request, method, self.buckets(method), ask)

    def buckets(self, method: str) -> Sequence[TokenBucket]:
        """The rate limits that a call draws from."""
        return (self._bucket,)

    def met(self, method: str, answer: HttpAnswer) -> Sequence[TokenBucket]:
        """The rate limits that a 429 says were met."""
        return self.buckets(method)

    def may_pass(self, answer: HttpAnswer) -> bool:
        """Whether the same request may succeed later."""
        return answer.status_code in (408, 409, 429) or answer.status_code >= 500

    def error_name(self, answer: HttpAnswer) -> str:
        """What an error calls itself; a name, no content."""
        return ""

    def refusal(self, method: str, answer: HttpAnswer, object_id: str | None) -> SourceError:
        """The error for what no retry mends. Only an answer in the API's JSON, and only to a
        question about an object, says that the object is not there."""
        status = answer.status_code
        said = f"{self._source_system}: {method} refused with {status}"
        if status == 404 and not isinstance(parsed(answer.content), dict):
            return foreign_answer(self._source_system, method)
        if status == 404 and object_id is not None:
            return NotFound(f"{said}: not found")
        if status == 401:
            return KeyRefused(f"{said}: the credentials are not accepted; correct them")
        if status == 403:
            return PermissionDenied(f"{said}: the credentials may not read this")
        return RequestRefused(said)

    def _try(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any] | None,
        object_id: str | None,
        *,
        is_last: bool,
    ) -> HttpAnswer | Again:
        """The answer, or what may pass; raises what no retry mends."""
        try:
            answer = self._get(path, parameters)
        except requests.RequestException as error:
            # Its text may quote the address, and that may carry a secret of a proxy.
            return Again(f"{type(error).__name__}{by_proxy(self._api_base_url, 'all')}")
        self.served_at = answer.served_at or self.served_at
        if answer.status_code == 200:
            if isinstance(value := parsed(answer.content), dict):
                return dataclasses.replace(answer, value=value)
            if is_last:
                raise foreign_answer(self._source_system, method)
        elif answer.status_code < 400:
            raise foreign_answer(self._source_system, method)
        elif not self.may_pass(answer):
            raise self.refusal(method, answer, object_id)
        cause = f"{answer.status_code} {self.error_name(answer)}"
        met = self.met(method, answer) if answer.status_code == 429 else ()
        return Again(cause, asked_pause(answer.headers), met)

    def _get(self, path: str, parameters: Mapping[str, Any] | None) -> HttpAnswer:
        response = self._session().get(path, parameters, allow_redirects=False, stream=True)
        # Left to itself, requests reads 10 KB at a time, and for each piece its thread waits for
        # its turn among the others.
        body = b"".join(response.iter_content(_BODY_PIECE))
        return HttpAnswer(response.status_code, response.headers, body)

    def _session(self) -> Any:
        """This thread's own REST client: a requests session is not made for several."""
        if not hasattr(self._local, "client"):
            from dlt.common.configuration.specs import RuntimeConfiguration
            from dlt.sources.helpers.requests.session import Session
            from dlt.sources.helpers.rest_client.client import RESTClient

            self._local.client = RESTClient(
                self._api_base_url,
                headers=self._headers,
                auth=self._auth,
                session=Session(timeout=self._options.timeout_seconds, raise_for_status=False),
                config=RuntimeConfiguration(),
            )
        return self._local.client


def rate_bucket(rate: float) -> TokenBucket:
    """For so many requests a second; of less than ten a second, for as long as ten take."""
    seconds = max(1.0, 10 / rate)
    return TokenBucket(rate * seconds, 1, seconds=seconds)


def parsed(body: bytes) -> Any:
    """The value of an answer; None for what is no JSON.

    What orjson does not take, such as half of a surrogate pair, is a matter of the landing gate:
    one object is not to be the end of a list.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None


def is_object(element: Element) -> bool:
    """Whether an element of a list is an object with an id."""
    value = element[1]
    return isinstance(value, dict) and isinstance(value.get("id"), str) and bool(value["id"])


def escaped(object_id: str) -> str:
    """An id as a segment of a path."""
    return urllib.parse.quote_plus(object_id)
