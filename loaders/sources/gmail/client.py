"""Gmail's methods over its official client: paced, retried, counted, bodies as they came.

Source: Gmail API v1 reference; error reasons from its "Resolve errors" page.
"""

from __future__ import annotations

import functools
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from loaders.errors import AskedToPause, Cancelled, ForeignAnswer, SourceError, TransientSourceError
from loaders.objects.json_elements import json_elements
from loaders.settings.proxies import by_proxy
from loaders.sources.attempts import Again, Attempts
from loaders.sources.contract import FetchRequest
from loaders.sources.gmail.options import AUTHORISE, SCOPES, GmailConfig
from loaders.sources.google_transport import BadAnswer, NotJson, NoToken, new_transport
from loaders.sources.pacing import TokenBucket
from loaders.sources.refusals import NotFound, RequestRefused, foreign_answer

_API = "https://gmail.googleapis.com"
PAGE_SIZE = 500
"""Ids in a page of messages.list and history.list, at most (Gmail API v1, maxResults)."""
_LARGEST_THREAD = 100
"""Messages of a thread that one answer may hold: it is in memory as a whole."""

_RATE_REASONS = {
    "RATE_LIMIT_EXCEEDED",
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "quotaExceeded",
    "dailyLimitExceeded",
}
_PRECONDITION = ("failedPrecondition", "FAILED_PRECONDITION")
"""Google refuses for good with it, and now and then a call that succeeds a moment later."""
_OF_ONE_OBJECT = ("messages.get", "threads.get", "messages.attachments.get")
"""Methods whose refusal may be that of the object, whatever its status."""
_AUTHORISE = f"authorise again: {AUTHORISE}"
_NEXT_STEPS = {
    "insufficientPermissions": f"the credentials lack the scope {SCOPES[0]}; {_AUTHORISE}",
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": f"the credentials lack the scope {SCOPES[0]}; {_AUTHORISE}",
    "accessNotConfigured": "enable the Gmail API in the Google Cloud project of the credentials",
    "SERVICE_DISABLED": "enable the Gmail API in the Google Cloud project of the credentials",
    "domainPolicy": "the domain's administrator keeps apps out of Gmail; ask for this one there",
    "forbidden": "the credentials may not open this mailbox; correct user_id or the credentials",
    **dict.fromkeys(
        _PRECONDITION, "the mail service is off for this user, or the user is not delegated"
    ),
    "unauthorized_client": "delegate the domain to the service account, see docs/gmail.md",
    "authError": f"the credentials are not accepted; {_AUTHORISE}",
    "invalid_grant": f"the token has expired or was revoked; {_AUTHORISE}",
    "invalid_rapt": "the organisation wants its people to sign in again from time to time (its"
    f" re-authentication policy); {_AUTHORISE}, and ask its administrator to exempt this app",
    "invalid_client": f"the OAuth client is not known; see it in Google Cloud, {_AUTHORISE}",
    "deleted_client": f"the OAuth client was deleted; make one in Google Cloud, {_AUTHORISE}",
    "invalid_scope": f"the token was not granted its scope; {_AUTHORISE}",
}
_KEY_REFUSED = (
    "the service account's key or its subject is not accepted, or the clock here is wrong; correct"
    " service_account_file or subject of connection '{connection}'"
)
_NETWORK_ERRORS = (OSError, http.client.HTTPException)


_unexpected = functools.partial(foreign_answer, "gmail")


class LabelNotListed(SourceError):
    """Messages cannot be listed by one label, though the mailbox can be read."""

    def __init__(self, label_id: str, reason: SourceError) -> None:
        super().__init__(f"gmail: label {label_id}: {reason}")
        self.retryable = reason.retryable


class GmailClient:
    """One mailbox's read methods, safe to use from many threads.

    Every method waits for the quota it costs. A refused or failed call is repeated with
    jittered exponential back-off, honouring the pause that it asks for. All of them raise NotFound
    for 404, TransientSourceError when retries are used up, AskedToPause when a pause takes longer
    than the run may, Cancelled when the run is, SourceError for what no retry mends
    (RequestRefused where it may be the object that is refused).
    """

    def __init__(self, connection_name: str, credentials: Any, config: GmailConfig) -> None:
        self.config = config
        self._connection_name = connection_name
        self._credentials = credentials
        self._costs = config.costs
        self._attempts = Attempts("gmail", config.max_attempts, config.backoff_seconds)
        self._bucket = TokenBucket(config.units_limit, max(self._costs.values()))
        self._service = _build_service(credentials, config)
        self._local = threading.local()

    def cost(self, method: str) -> int:
        """Quota units of a method."""
        return self._costs[method]

    @property
    def thread_sizes(self) -> tuple[int, int]:
        """Messages wanted of a thread, from and to, for which threads.get costs fewer units."""
        if self.config.fetch_format == "raw":  # threads.get does not have it
            return 1, 0
        return self._costs["threads.get"] // self._costs["messages.get"] + 1, _LARGEST_THREAD

    def profile(self, request: FetchRequest) -> dict[str, Any]:
        """users.getProfile: emailAddress, messagesTotal, threadsTotal, historyId."""
        profile = self._json(request, "getProfile", self._users().getProfile)
        if not profile.get("historyId"):
            raise _unexpected("getProfile")
        return profile

    def labels(self, request: FetchRequest) -> list[tuple[str, dict[str, Any]]]:
        """users.labels.list: (text, value) of every label."""
        body = self._call(request, "labels.list", self._users().labels().list)
        return list(_elements(body, "labels", "labels.list"))

    def label_ids(self, request: FetchRequest) -> list[str]:
        """users.labels.list: the id of every label."""
        ids = [value.get("id") for _, value in self.labels(request)]
        known = [label_id for label_id in ids if isinstance(label_id, str)]
        if len(known) < len(ids):
            raise _unexpected("labels.list")
        return known

    def labelled(self, request: FetchRequest, label_id: str) -> Iterator[str]:
        """users.messages.list: ids of the messages with a label. Raises LabelNotListed, and
        whatever the mailbox's profile raises too."""
        try:
            for refs in self.message_refs(request, label=label_id):
                yield from (ref["id"] for ref in refs)
        except (Cancelled, AskedToPause):
            raise
        except SourceError as error:
            self.profile(request)
            raise LabelNotListed(label_id, error) from error

    def message_refs(
        self, request: FetchRequest, query: str | None = None, label: str | None = None
    ) -> Iterator[list[dict[str, str]]]:
        """users.messages.list, page by page: {id, threadId}, newest first."""
        for page in self._pages(
            request,
            "messages.list",
            self._users().messages().list,
            q=query,
            labelIds=None if label is None else [label],
            includeSpamTrash=self.config.include_spam_trash,
        ):
            refs = page.get("messages", [])
            if not page.keys() & {"messages", "resultSizeEstimate", "nextPageToken"}:
                raise _unexpected("messages.list")  # an empty mailbox says so
            if not isinstance(refs, list) or not all(
                isinstance(ref, dict) and isinstance(ref.get("id"), str) for ref in refs
            ):
                raise _unexpected("messages.list")
            yield refs

    def history(self, request: FetchRequest, start: str) -> Iterator[dict[str, Any]]:
        """users.history.list after `start`, page by page, as sent. NotFound when expired."""
        for page in self._pages(
            request, "history.list", self._users().history().list, startHistoryId=start
        ):
            # Without an id it is somebody else's JSON, and no history without changes.
            if not isinstance(page.get("history", []), list) or not page.get("historyId"):
                raise _unexpected("history.list")
            yield page

    def message(self, request: FetchRequest, message_id: str) -> bytes:
        """users.messages.get in the configured format: the body as it came."""
        return self._call(
            request,
            "messages.get",
            self._users().messages().get,
            id=message_id,
            format=self.config.fetch_format,
        )

    def thread_messages(
        self, request: FetchRequest, thread_id: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """users.threads.get in the configured format: (text, value) of each of its messages."""
        body = self._call(
            request,
            "threads.get",
            self._users().threads().get,
            id=thread_id,
            format=self.config.fetch_format,
        )
        return _elements(body, "messages", "threads.get")

    def attachment(self, request: FetchRequest, message_id: str, attachment_id: str) -> bytes:
        """users.messages.attachments.get: the body as it came."""
        return self._call(
            request,
            "messages.attachments.get",
            self._users().messages().attachments().get,
            messageId=message_id,
            id=attachment_id,
        )

    def _users(self) -> Any:
        return self._service.users()

    def _pages(
        self, request: FetchRequest, method: str, build: Callable[..., Any], **arguments: Any
    ) -> Iterator[dict[str, Any]]:
        tokens: set[str | None] = {None}
        token: str | None = None
        while True:
            page = self._json(
                request, method, build, maxResults=PAGE_SIZE, pageToken=token, **arguments
            )
            yield page
            token = page.get("nextPageToken") or None
            if token is None:
                return
            if not isinstance(token, str):
                raise _unexpected(method)
            if token in tokens:
                raise TransientSourceError(
                    f"gmail: {method} repeats a page token, its listing has no end; run again"
                )
            tokens.add(token)

    def _json(
        self, request: FetchRequest, method: str, build: Callable[..., Any], **arguments: Any
    ) -> dict[str, Any]:
        body = self._call(request, method, build, **arguments)
        try:
            value = json.loads(body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise _unexpected(method)
        return value

    def _call(
        self, request: FetchRequest, method: str, build: Callable[..., Any], **arguments: Any
    ) -> bytes:
        """One API call with pacing and retries: the body as it came."""
        call = build(userId=self.config.user_id, prettyPrint=False, **arguments)

        def ask(is_last: bool) -> bytes | Again:
            try:
                body: bytes = call.execute(http=self._http())
                return body
            except Exception as error:  # noqa: BLE001 - classified
                return self._again(error, method, is_last=is_last)

        return self._attempts.call(request, method, [self._bucket], ask, self._costs[method])

    def _again(self, error: Exception, method: str, *, is_last: bool) -> Again:
        """What may pass; raises the classified error when a retry cannot help."""
        import google.auth.exceptions
        import httplib2

        if isinstance(error, NoToken):
            if error.is_refusal:
                raise SourceError(self._refusal(method, 401, error.reason)) from error
            cause = f"{error.status} of the token endpoint and neither token nor OAuth error"
            return Again(cause, error.retry_after, kind=ForeignAnswer, error=error)
        if isinstance(error, BadAnswer):
            status, reason = error.status, error.reason
            is_throttled = status == 429 or reason in _RATE_REASONS
            if status == 404 and not error.is_of_api:  # it must not count as a deletion
                raise _unexpected(method) from error
            if status == 404:
                raise NotFound(f"gmail: {method}: not found") from error
            may_pass = is_throttled or status in (408, 409) or status >= 500
            if not (may_pass or (reason in _PRECONDITION and not is_last)):
                raise self._refused(method, status, reason) from error
            met = [self._bucket] if is_throttled else []
            return Again(f"{status} {reason}", error.retry_after, met, error=error)
        if isinstance(error, NotJson):
            if is_last:
                raise _unexpected(method) from error
            return Again("no JSON")
        if (
            isinstance(error, google.auth.exceptions.RefreshError)
            and not error.retryable
            and not isinstance(error.__cause__, google.auth.exceptions.TransportError)
        ):
            raise self._refused(method, 401, "authError") from error
        of_network = (httplib2.HttpLib2Error, google.auth.exceptions.GoogleAuthError)
        if not isinstance(error, (*_NETWORK_ERRORS, *of_network)):
            raise error
        self._http().close()  # a reset connection would be kept, and fail the next attempt
        by = by_proxy(self.config.api_base_url or _API)
        return Again(f"{type(error).__name__}{by}", error=error)

    def _refused(self, method: str, status: int, reason: str) -> SourceError:
        is_of_object = method in _OF_ONE_OBJECT or status not in (401, 403)
        kind = RequestRefused if is_of_object else SourceError
        return kind(self._refusal(method, status, reason))

    def _refusal(self, method: str, status: int, reason: str) -> str:
        default = "see the Gmail API's page on errors"
        step = _NEXT_STEPS.get(reason, _NEXT_STEPS["authError"] if status == 401 else default)
        if _AUTHORISE in step and hasattr(self._credentials, "service_account_email"):
            step = _KEY_REFUSED
        named = step.format(connection=self._connection_name)
        return f"gmail: {method} refused with {status} {reason}: {named}"

    def _http(self) -> Any:
        """This thread's own transport: httplib2 is not thread-safe."""
        if not hasattr(self._local, "http"):
            self._local.http = new_transport(self._credentials, self.config.timeout_seconds)
        return self._local.http


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
        http=new_transport(credentials, config.timeout_seconds),
        model=TextModel(),
        static_discovery=True,
        client_options=options,
    )


def _elements(body: bytes, member: str, method: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        for text, value in json_elements(body.decode(), member):
            if not isinstance(value, dict):
                raise _unexpected(method)
            yield text, value
    except ValueError as error:
        raise _unexpected(method) from error
