"""The read side of the Gmail API v1: paths, parameters, answers.

Source: https://developers.google.com/workspace/gmail/api/reference/rest
"""

import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote

from landfall_sandbox import google_errors as errors
from landfall_sandbox.gmail_history import HISTORY_TYPES, history_page
from landfall_sandbox.mailbox import FORMATS, Mailbox
from landfall_sandbox.mime import base64url
from landfall_sandbox.parameters import Parameters
from landfall_sandbox.quota import Quota
from landfall_sandbox.search import Query, matching_messages, matching_threads, parse_query
from landfall_sandbox.texts import OWNER_ADDRESS
from landfall_sandbox.tokens import Tokens
from landfall_sandbox.wire import GOOGLE_REASONS, Call, Request, Response, json_response

_PREFIX = "/gmail/v1/users/"
_UNKNOWN_ESTIMATE = 201
_COSTS = {
    "getProfile": 1,
    "labels.list": 1,
    "labels.get": 1,
    "messages.list": 5,
    "messages.get": 5,
    "messages.attachments.get": 5,
    "threads.list": 10,
    "threads.get": 10,
    "history.list": 2,
}
_LIST_PARAMETERS = ("maxResults", "pageToken", "q", "labelIds", "includeSpamTrash")

Handler = Callable[["GmailApi", Parameters, list[str]], dict[str, Any]]


class GmailApi:
    """Answers Gmail API requests from one mailbox."""

    default_reasons: Mapping[int, str] = GOOGLE_REASONS

    def __init__(self, mailbox: Mailbox, tokens: Tokens) -> None:
        """Serve `mailbox` to the bearers of good `tokens`."""
        self.mailbox = mailbox
        self._tokens = tokens
        self.quota = Quota(_COSTS)

    def match(self, request: Request) -> Call | None:
        """Return the call a request stands for; None for another path or HTTP method."""
        if request.method != "GET" or not request.path.startswith(_PREFIX):
            return None
        user, _, rest = request.raw_path.removeprefix(_PREFIX).partition("/")
        for method, pattern, handler, allowed in _ROUTES:
            if found := re.fullmatch(pattern, rest):
                ids = [unquote(identifier) for identifier in found.groups()]
                parameters = Parameters(request.query, allowed)
                run = self._runner(request, unquote(user), method, handler, parameters, ids)
                return Call(method, ids[0] if ids else None, run)
        return None

    def error(self, status: int, reason: str, message: str) -> Response:
        """Return an error in Google's shape."""
        return errors.error_response(status, reason, message)

    def _runner(
        self,
        request: Request,
        user: str,
        method: str,
        handler: Handler,
        parameters: Parameters,
        ids: list[str],
    ) -> Callable[[], Response]:
        def run() -> Response:
            self._check_credentials(request)
            if user not in ("me", OWNER_ADDRESS):
                raise errors.forbidden_user(user)
            if not self.quota.take(method, OWNER_ADDRESS):
                is_even = self.quota.refused % 2 == 0
                return errors.user_rate_limit() if is_even else errors.too_many_requests()
            parameters.check_names()
            return json_response(parameters.select_fields(handler(self, parameters, ids)))

        return run

    def _check_credentials(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise errors.login_required()
        if not self._tokens.use(token.strip()):
            raise errors.invalid_credentials()

    def profile(self, parameters: Parameters, ids: list[str]) -> dict[str, Any]:
        """Answer users.getProfile."""
        with self.mailbox.state.lock:
            return {
                "emailAddress": OWNER_ADDRESS,
                "messagesTotal": len(self.mailbox),
                "threadsTotal": self.mailbox.count_threads(lambda labels: True),
                "historyId": str(self.mailbox.history_id),
            }

    def list_labels(self, parameters: Parameters, ids: list[str]) -> dict[str, Any]:
        """Answer users.labels.list: all labels, without counts."""
        labels = [self.mailbox.label(each, with_counts=False) for each in self.mailbox.label_names]
        return {"labels": labels}

    def get_label(self, parameters: Parameters, ids: list[str]) -> dict[str, Any]:
        """Answer users.labels.get."""
        if ids[0] not in self.mailbox.label_names:
            raise errors.not_found()
        with self.mailbox.state.lock:
            return self.mailbox.label(ids[0])

    def list_messages(self, parameters: Parameters, ids: list[str]) -> dict[str, Any]:
        """Answer users.messages.list."""
        query, limit, below = self._listing(parameters)
        found = list(islice(matching_messages(self.mailbox, query, below), limit + 1))
        entries = [
            {"id": self.mailbox.message_id(index), "threadId": self.mailbox.thread_id(index)}
            for index in found[:limit]
        ]
        return self._page("messages", entries, found, limit) | {
            "resultSizeEstimate": self._estimate(query, len(found), limit, below)
        }

    def list_threads(self, parameters: Parameters, ids: list[str]) -> dict[str, Any]:
        """Answer users.threads.list."""
        query, limit, below = self._listing(parameters)
        found = list(islice(matching_threads(self.mailbox, query, below), limit + 1))
        entries = []
        for index in found[:limit]:
            message = self.mailbox.message(index, "minimal")
            history_id = self._thread_history_id(self.mailbox.members(index))
            thread_id = message["threadId"]
            snippet = message["snippet"]
            entries.append({"id": thread_id, "snippet": snippet, "historyId": history_id})
        is_whole = below is None and len(found) <= limit
        return self._page("threads", entries, found, limit) | {
            "resultSizeEstimate": len(found) if is_whole else _UNKNOWN_ESTIMATE
        }

    def get_message(self, parameters: Parameters, ids: list[str]) -> dict[str, Any]:
        """Answer users.messages.get."""
        format, headers = self._format(parameters, FORMATS)
        return self.mailbox.message(self._index(ids[0]), format, headers)

    def get_thread(self, parameters: Parameters, ids: list[str]) -> dict[str, Any]:
        """Answer users.threads.get: the thread's messages, oldest first."""
        format, headers = self._format(parameters, FORMATS[:3])
        try:
            members = self.mailbox.thread(ids[0])
        except ValueError:
            raise errors.invalid_argument("Invalid id value") from None
        except KeyError:
            raise errors.not_found() from None
        return {
            "id": ids[0],
            "historyId": self._thread_history_id(members),
            "messages": [self.mailbox.message(index, format, headers) for index in members],
        }

    def get_attachment(self, parameters: Parameters, ids: list[str]) -> dict[str, Any]:
        """Answer users.messages.attachments.get."""
        index = self._index(ids[0])
        try:
            content = self.mailbox.attachment(index, ids[1])
        except ValueError:
            raise errors.invalid_argument("Invalid attachment token") from None
        return {"size": len(content), "data": base64url(content)}

    def list_history(self, parameters: Parameters, ids: list[str]) -> dict[str, Any]:
        """Answer users.history.list."""
        start = parameters.whole("startHistoryId", None)
        if start is None:
            raise errors.invalid_argument("Missing startHistoryId")
        label = parameters.text("labelId")
        if label and label not in self.mailbox.label_names:
            raise errors.invalid_argument(f"Invalid label: {label}")
        types = parameters.choices("historyTypes", HISTORY_TYPES)
        limit, position = parameters.limit(), self._position(parameters)
        with self.mailbox.state.lock:
            answer, next_position = history_page(
                self.mailbox, start, position, limit, types or list(HISTORY_TYPES), label
            )
        if next_position is not None:
            answer["nextPageToken"] = self.mailbox.identifiers.page_token(next_position)
        return answer

    def _index(self, message_id: str) -> int:
        try:
            return self.mailbox.index_of(message_id)
        except ValueError:
            raise errors.invalid_argument("Invalid id value") from None
        except KeyError:
            raise errors.not_found() from None

    def _listing(self, parameters: Parameters) -> tuple[Query, int, int | None]:
        query = parse_query(parameters.text("q") or "", self.mailbox)
        for label in parameters.texts("labelIds"):
            if label not in self.mailbox.label_names:
                raise errors.invalid_argument(f"Invalid label: {label}")
            query.labels.add(label)
        query.include_hidden |= parameters.flag("includeSpamTrash")
        return query, parameters.limit(), self._position(parameters)

    def _position(self, parameters: Parameters) -> int | None:
        token = parameters.text("pageToken")
        if not token:
            return None
        try:
            return self.mailbox.identifiers.page_position(token)
        except ValueError:
            raise errors.invalid_argument("Invalid pageToken") from None

    def _page(
        self, name: str, entries: list[dict[str, Any]], found: list[int], limit: int
    ) -> dict[str, Any]:
        page: dict[str, Any] = {name: entries} if entries else {}
        if len(found) > limit:
            page["nextPageToken"] = self.mailbox.identifiers.page_token(found[limit - 1])
        return page

    def _estimate(self, query: Query, found: int, limit: int, below: int | None) -> int:
        if below is None and found <= limit:
            return found
        if not query.is_unfiltered():
            return _UNKNOWN_ESTIMATE
        with self.mailbox.state.lock:
            return self.mailbox.count_messages(query.matches_labels)

    def _thread_history_id(self, members: list[int]) -> str:
        existing = [index for index in members if self.mailbox.exists(index)]
        return str(max(self.mailbox.message_history_id(index) for index in existing))

    @staticmethod
    def _format(parameters: Parameters, known: tuple[str, ...]) -> tuple[str, list[str]]:
        format = (parameters.text("format") or "full").lower()
        if format not in known:
            enum = "type.googleapis.com/google.gmail.v1.Format"
            raise errors.invalid_argument(f"Invalid value at 'format' ({enum}), \"{format}\"")
        return format, parameters.texts("metadataHeaders")


_GET_PARAMETERS = ("format", "metadataHeaders")
_HISTORY_PARAMETERS = ("startHistoryId", "maxResults", "pageToken", "labelId", "historyTypes")
_ID = "([^/]+)"
_ROUTES: list[tuple[str, str, Handler, tuple[str, ...]]] = [
    ("getProfile", "profile", GmailApi.profile, ()),
    ("labels.list", "labels", GmailApi.list_labels, ()),
    ("labels.get", f"labels/{_ID}", GmailApi.get_label, ()),
    ("messages.list", "messages", GmailApi.list_messages, _LIST_PARAMETERS),
    ("messages.get", f"messages/{_ID}", GmailApi.get_message, _GET_PARAMETERS),
    ("messages.attachments.get", f"messages/{_ID}/attachments/{_ID}", GmailApi.get_attachment, ()),
    ("threads.list", "threads", GmailApi.list_threads, _LIST_PARAMETERS),
    ("threads.get", f"threads/{_ID}", GmailApi.get_thread, _GET_PARAMETERS),
    ("history.list", "history", GmailApi.list_history, _HISTORY_PARAMETERS),
]
