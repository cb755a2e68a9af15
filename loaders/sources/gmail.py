"""Gmail: lists message ids, fetches what the warehouse lacks, yields payloads untouched.

Source: Gmail API v1 reference, users.messages.list, users.messages.get,
users.getProfile; error reasons from its "Resolve errors" page.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import datetime as dt
import http.client
import json
import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from loaders import idem_keys
from loaders.config import PROJECT_DIR, Connection
from loaders.errors import ConfigError, SourceError, TransientSourceError
from loaders.items import (
    Cursor,
    FetchRequest,
    Gone,
    Item,
    Listed,
    Observed,
)

SCOPES = ("https://www.googleapis.com/auth/gmail.readonly",)
FORMATS = ("full", "raw", "metadata")
PAGE_SIZE = 500
"""Ids in a page of messages.list, at most (Gmail API v1, maxResults)."""
UNITS = {"getProfile": 1, "list": 5, "get": 20}
"""Quota units of each method (Gmail API usage limits, projects since May 2026)."""
MESSAGES = "messages"

_RATE_REASONS = {
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "quotaExceeded",
    "dailyLimitExceeded",
}
_NEXT_STEPS = {
    "insufficientPermissions": f"the credentials lack the scope {SCOPES[0]}; authorise again",
    "accessNotConfigured": "enable the Gmail API in the Google Cloud project of the credentials",
    "failedPrecondition": "the mail service is off for this user, or the user is not delegated",
    "unauthorized_client": "authorise domain-wide delegation for this service account and scope",
    "authError": "the credentials are not accepted; replace the token or authorise again",
    "invalid_grant": "the token has expired or was revoked; authorise again",
}
_NETWORK_ERRORS = (OSError, http.client.HTTPException)
_WINDOW = 4
"""Requests queued per worker: enough to keep all busy, few enough to bound memory."""


@dataclasses.dataclass(frozen=True)
class GmailConfig:
    """Options of a Gmail connection (`[sources.gmail.<name>]`)."""

    user_id: str = "me"
    api_base_url: str | None = None
    fetch_format: str = "full"
    include_spam_trash: bool = False
    workers: int = 10
    max_attempts: int = 6
    backoff_seconds: float = 1.0
    timeout_seconds: float = 60.0

    @classmethod
    def from_connection(cls, connection: Connection) -> GmailConfig:
        """Read a connection's options; ConfigError names the one that is wrong."""
        options = {
            field.name: connection.get(field.name)
            for field in dataclasses.fields(cls)
            if connection.get(field.name) is not None
        }
        where = f"sources.gmail.{connection.name}"
        for name, kind in (
            ("workers", int),
            ("max_attempts", int),
            ("backoff_seconds", float),
            ("timeout_seconds", float),
        ):
            if name in options:
                try:
                    options[name] = kind(options[name])
                except (TypeError, ValueError) as error:
                    raise ConfigError(f"{where}.{name}: expected a number") from error
        if isinstance(options.get("include_spam_trash"), str):
            options["include_spam_trash"] = options["include_spam_trash"].lower() == "true"
        config = cls(**options)
        if config.fetch_format not in FORMATS:
            raise ConfigError(
                f"{where}.fetch_format: expected {', '.join(FORMATS)}, got {config.fetch_format!r}"
            )
        if config.workers < 1 or config.max_attempts < 1:
            raise ConfigError(f"{where}: workers and max_attempts must be at least 1")
        return config


def load_credentials(connection: Connection) -> Any:
    """google-auth credentials of a connection.

    In this order: `access_token`; `token_file` (authorised user, as gcloud and
    google-auth-oauthlib write it); `service_account_file` with an optional `subject`;
    application default credentials. Raises ConfigError.
    """
    import google.auth
    import google.auth.exceptions
    import google.oauth2.credentials
    import google.oauth2.service_account

    token = connection.secret("access_token")
    if token:
        return google.oauth2.credentials.Credentials(token=token)
    try:
        token_file = connection.get("token_file")
        if token_file:
            return google.oauth2.credentials.Credentials.from_authorized_user_file(
                str(_path(token_file)), SCOPES
            )
        key_file = connection.get("service_account_file")
        if key_file:
            credentials = google.oauth2.service_account.Credentials.from_service_account_file(
                str(_path(key_file)), scopes=SCOPES
            )
            subject = connection.get("subject")
            return credentials.with_subject(subject) if subject else credentials
        return google.auth.default(scopes=SCOPES)[0]
    except (OSError, ValueError, google.auth.exceptions.GoogleAuthError) as error:
        raise ConfigError(
            f"gmail: connection '{connection.name}' has no usable credentials"
            f" ({type(error).__name__}); set access_token, token_file or service_account_file in"
            f" [sources.gmail.{connection.name}]"
        ) from error


class GmailSource:
    """One mailbox."""

    source_system = "gmail"
    volatile_keys: Collection[str] = ("attachmentId",)
    """Changes on every read of the same message."""

    def __init__(self, connection_name: str, credentials: Any, config: GmailConfig) -> None:
        self._connection_name = connection_name
        self._credentials = credentials
        self._config = config
        self._service = _build_service(credentials, config)
        self._local = threading.local()
        self._pool = concurrent.futures.ThreadPoolExecutor(config.workers, "gmail")

    def idem_key(self, object_type: str, payload: Mapping[str, Any]) -> str:
        """See idem_keys.gmail_idem_key."""
        return idem_keys.gmail_idem_key(self._connection_name, object_type)(payload)

    def created_at(self, object_type: str, payload: Mapping[str, Any]) -> dt.datetime | None:
        """`internalDate` (milliseconds since 1970), or None when absent or out of range."""
        try:
            millis = int(payload["internalDate"])
            return dt.datetime.fromtimestamp(millis // 1000, dt.UTC) + dt.timedelta(
                milliseconds=millis % 1000
            )
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            return None

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        """Yield the mailbox's messages that the warehouse does not hold yet.

        The history id is taken before the listing, so that a later incremental run
        sees every change made meanwhile; it becomes the cursor only after a complete,
        unfiltered pass.
        """
        request.mode = "resync" if request.full_resync else "full"
        pinned_at = request.clock.now()
        profile = json.loads(self._call(request, "getProfile", self._users().getProfile))
        wanted: list[str] = []
        for listed, new in self._list_new(request):
            wanted += new
            yield listed
        attempted = 0
        for item in self._get_all(request, wanted):
            attempted += 1
            yield item
        if attempted < len(wanted):
            request.has_more = True
            yield Listed(attempted - len(wanted))
            return
        if request.since is None and request.until is None:
            cursor = {"history_id": str(profile["historyId"])}
            if cursor != request.cursor(MESSAGES):
                yield Cursor(MESSAGES, cursor, pinned_at)

    def close(self) -> None:
        """Stop the worker threads; requests under way are waited for."""
        self._pool.shutdown(cancel_futures=True)

    def _list_new(self, request: FetchRequest) -> Iterator[tuple[Listed, list[str]]]:
        """Per page: what was listed, and the ids to fetch."""
        held = () if request.full_resync else request.held("message")
        dead = () if request.full_resync else request.dead("message")
        seen: set[str] = set()
        tokens: set[str] = set()
        token: str | None = None
        while True:
            page = json.loads(
                self._call(
                    request,
                    "list",
                    self._users().messages().list,
                    q=_query(request),
                    maxResults=PAGE_SIZE,
                    pageToken=token,
                    includeSpamTrash=self._config.include_spam_trash,
                )
            )
            ids = {message["id"] for message in page.get("messages", [])} - seen
            seen |= ids
            new = [message["id"] for message in page.get("messages", []) if message["id"] in ids]
            new = [key for key in dict.fromkeys(new) if key not in held and key not in dead]
            known_dead = len([key for key in ids if key in dead and key not in held])
            yield Listed(len(ids), len(ids) - len(new) - known_dead, known_dead), new
            token = page.get("nextPageToken")
            if token is None:
                return
            if token in tokens:
                raise TransientSourceError(
                    "gmail: messages.list repeats a page token, its listing has no end; run again"
                )
            tokens.add(token)

    def _get_all(self, request: FetchRequest, ids: list[str]) -> Iterator[Item]:
        pending: collections.deque[concurrent.futures.Future[Item]] = collections.deque()
        todo = iter(ids[: request.max_objects])
        try:
            while True:
                while len(pending) < _WINDOW * self._config.workers and not request.must_stop():
                    external_id = next(todo, None)
                    if external_id is None:
                        break
                    pending.append(self._pool.submit(self._get, request, external_id))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def _get(self, request: FetchRequest, external_id: str) -> Item:
        observed_at = request.clock.now()
        try:
            text = self._call(
                request,
                "get",
                self._users().messages().get,
                id=external_id,
                format=self._config.fetch_format,
            )
        except _NotFound:
            return Gone("message", external_id)
        return Observed("message", text, observed_at, external_id)

    def _users(self) -> Any:
        return self._service.users()

    def _call(
        self, request: FetchRequest, method: str, build: Callable[..., Any], **arguments: Any
    ) -> bytes:
        """One API call with retries: the body as it came.

        Raises _NotFound for 404, TransientSourceError when retries are used up,
        SourceError for what no retry mends.
        """
        call = build(userId=self._config.user_id, prettyPrint=False, **arguments)
        for attempt in range(1, self._config.max_attempts + 1):
            request.usage.add(calls=1, units=UNITS[method])
            try:
                body: bytes = call.execute(http=self._http())
                return body
            except Exception as error:  # noqa: BLE001 - classified below
                wait = self._wait_before_retry(error, method, attempt)
            request.usage.add(retries=1, throttled=wait)
            if request.cancelled.wait(wait):
                raise TransientSourceError("gmail: the run was cancelled")
        raise AssertionError("unreachable: the last attempt raises")

    def _wait_before_retry(self, error: Exception, method: str, attempt: int) -> float:
        """Seconds to wait; raises the classified error when a retry cannot help."""
        import google.auth.exceptions
        import googleapiclient.errors
        import httplib2

        retry_after = 0.0
        if isinstance(error, googleapiclient.errors.HttpError):
            status, reason = error.resp.status, _reason(error)
            if status == 404:
                raise _NotFound(f"gmail: {method}: not found") from error
            is_transient = status in (408, 429) or status >= 500 or reason in _RATE_REASONS
            if not is_transient:
                raise _permanent(method, status, reason) from error
            cause = f"{status} {reason}"
            retry_after = _retry_after(error)
        elif isinstance(error, google.auth.exceptions.RefreshError):
            raise _permanent(method, 401, "invalid_grant") from error
        elif isinstance(
            error,
            (*_NETWORK_ERRORS, httplib2.HttpLib2Error, google.auth.exceptions.TransportError),
        ):
            cause = type(error).__name__
        else:
            raise error
        if attempt >= self._config.max_attempts:
            raise TransientSourceError(
                f"gmail: {method} failed {attempt} times, last with {cause}; run again later"
            ) from error
        ceiling = min(60.0, self._config.backoff_seconds * 2 ** (attempt - 1))
        return max(retry_after, random.uniform(ceiling / 2, ceiling))  # noqa: S311

    def _http(self) -> Any:
        """This thread's own transport: httplib2 is not thread-safe."""
        if not hasattr(self._local, "http"):
            self._local.http = _transport(self._credentials, self._config)
        return self._local.http


class _NotFound(SourceError):
    """404: the object is not there (any more)."""


def _build_service(credentials: Any, config: GmailConfig) -> Any:
    import googleapiclient.discovery
    import googleapiclient.model

    class TextModel(googleapiclient.model.JsonModel):  # type: ignore[misc]
        """Leaves the body as it came: parsing would lose number literals and key order."""

        def deserialize(self, content: bytes) -> bytes:
            return content

        @property
        def no_content_response(self) -> bytes:
            return b""

    options = {"api_endpoint": config.api_base_url} if config.api_base_url else {}
    return googleapiclient.discovery.build(
        "gmail",
        "v1",
        http=_transport(credentials, config),
        model=TextModel(),
        static_discovery=True,
        client_options=options,
    )


def _transport(credentials: Any, config: GmailConfig) -> Any:
    import google_auth_httplib2
    import httplib2

    return google_auth_httplib2.AuthorizedHttp(
        credentials, http=httplib2.Http(timeout=config.timeout_seconds)
    )


def _query(request: FetchRequest) -> str | None:
    """Gmail search in epoch seconds: dates there would mean midnight Pacific."""
    terms = []
    if request.since is not None:
        # after: excludes its own second.
        terms.append(f"after:{int(request.since.timestamp()) - 1}")
    if request.until is not None:
        terms.append(f"before:{int(request.until.timestamp())}")
    return " ".join(terms) or None


def _reason(error: Any) -> str:
    """The `reason` of Google's error body, in either of its shapes."""
    try:
        body = json.loads(error.content)["error"]
    except (ValueError, KeyError, TypeError):
        return "unknown"
    if isinstance(body, str):
        return body
    for entry in [*body.get("errors", []), *body.get("details", [])]:
        if entry.get("reason"):
            return str(entry["reason"])
    return str(body.get("status", "unknown"))


def _retry_after(error: Any) -> float:
    try:
        return max(0.0, min(300.0, float(error.resp.get("retry-after", 0))))
    except ValueError:
        return 0.0


def _permanent(method: str, status: int, reason: str) -> SourceError:
    default = "see the Gmail API's page on errors"
    step = _NEXT_STEPS.get(reason, _NEXT_STEPS["authError"] if status == 401 else default)
    return SourceError(f"gmail: {method} refused with {status} {reason}: {step}")


def _path(value: str) -> Path:
    return PROJECT_DIR / Path(value).expanduser()
