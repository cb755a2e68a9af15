"""Whether a Gmail connection works: credentials, scope, mailbox, quota, and where it stands."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Callable
from typing import Any

import google.auth.exceptions

from loaders.errors import ConfigError, LandfallError
from loaders.settings.connection import Connection
from loaders.sources.check_lines import CheckLines
from loaders.sources.checking import NOT_KNOWN, ConnectionCheck
from loaders.sources.gmail.client import PAGE_SIZE, GmailClient
from loaders.sources.gmail.identity import check_mailbox
from loaders.sources.gmail.options import GmailConfig
from loaders.sources.gmail.position import Position
from loaders.sources.gmail.sync import MESSAGES
from loaders.sources.google_credentials import FoundCredentials
from loaders.sources.google_transport import BadAnswer, NoToken
from loaders.sources.refusals import NotFound
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

_PARTS = ("credentials", "scope", "mailbox")
_OF_CREDENTIALS = (google.auth.exceptions.RefreshError, NoToken)
_LACKING_SCOPE = ("insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT")


class MailboxCheck(ConnectionCheck):
    """Credentials, scope, mailbox, quota, and where the connection stands."""

    def __init__(
        self,
        report: CheckLines,
        connection: Connection,
        warehouse: Warehouse,
        find: Callable[[], FoundCredentials],
        config: GmailConfig,
    ) -> None:
        super().__init__(report, connection, warehouse)
        attempts = min(config.max_attempts, self.MAX_ATTEMPTS)
        self._config = dataclasses.replace(config, max_attempts=attempts)
        self._find = find
        self._client: GmailClient | None = None
        self._profile: dict[str, Any] | None = None

    def check_access(self) -> None:
        """Credentials, scope, mailbox and quota."""
        self._check_mailbox()
        self._check_quota()

    def _check_mailbox(self) -> None:
        found = None
        try:
            found = self._find()
            client = GmailClient(self.connection.name, found.credentials, self._config)
            self._profile = client.profile(self.request)
            proof = self._read_one(client)
        except LandfallError as error:
            self._say_refused(error, found)
            return
        self._client = client
        total = self._profile.get("messagesTotal", 0)
        texts = (
            f"{found.kind}, {found.origin}",
            f"{_scopes(found.credentials)}{proof}",
            f"{self._profile.get('emailAddress')}, {total:,} messages",
        )
        for part, text in zip(_PARTS, texts, strict=True):
            self.report.ok(part, text)

    def _read_one(self, client: GmailClient) -> str:
        """Read a message as a run does: a profile can be read with less than that takes."""
        for refs in client.message_refs(self.request):
            for ref in refs:
                try:
                    client.message(self.request, ref["id"])
                except NotFound:
                    continue
                return f"a message was read, format {self._config.fetch_format}"
        return "no message to try it on"

    def _say_refused(self, error: LandfallError, found: FoundCredentials | None) -> None:
        failed = _refused_part(error)
        was_answered = isinstance(error.__cause__, BadAnswer) and failed != "credentials"
        for part in _PARTS:
            if part == failed:
                self.report.failed(part, error)
            elif part == "credentials" and found is not None and was_answered:
                self.report.ok(part, f"{found.kind}, {found.origin}")
            else:
                self.report.nothing(part, NOT_KNOWN)

    def _check_quota(self) -> None:
        """What the quota allows, and how long a first fetch of all messages takes with it."""
        config = self._config
        name = "units_per_minute" if config.units_per_minute else f"preset '{config.quota}'"
        text = f"{config.units_limit:,} units a minute ({name})"
        if self._profile is not None:
            total = int(self._profile.get("messagesTotal", 0))
            pages = math.ceil(total / PAGE_SIZE)
            units = total * config.costs["messages.get"] + pages * config.costs["messages.list"]
            took = dt.timedelta(seconds=math.ceil(60 * units / config.units_limit))
            text += f": a first fetch of all messages takes {took} at most"
        self.report.ok("quota", text)

    def check_cursor(self, stored: Stored) -> None:
        """Where the connection stands, and what the next run does about it."""
        position = Position.read(stored.cursor(MESSAGES))
        if position is None:
            kind = "full" if stored.newest_observation() is None else "resync"
            self.report.nothing(
                "cursor", f"none yet: the next run reads the whole mailbox ({kind})"
            )
            return
        if self._client and self._profile:
            request = dataclasses.replace(self.request, stored=stored)
            check_mailbox(self._client, request, position, self._profile)
        self.report.ok("cursor", f"history id {position.history_id}: {self._next_run(position)}")

    def _next_run(self, position: Position) -> str:
        whole = "the next run reads the whole mailbox (resync)"
        if position.include_spam_trash != self._config.include_spam_trash:
            return f"{whole}, as include_spam_trash has changed"
        if position.snapshot is not None:
            return "the next run goes on reading the whole mailbox"
        if self._client is None:
            return "the next run is incremental"
        try:
            next(self._client.history(self.request, position.start))
        except NotFound:
            return f"{whole}, as Gmail does not keep the history from there any more"
        return "the next run is incremental"


def _refused_part(error: LandfallError) -> str:
    """Which of the parts an error is about."""
    cause = error.__cause__
    if isinstance(error, ConfigError) or isinstance(cause, _OF_CREDENTIALS):
        return "credentials"
    if isinstance(cause, BadAnswer):
        if cause.status == 401:
            return "credentials"
        if cause.reason in _LACKING_SCOPE:
            return "scope"
    return "mailbox"


def _scopes(credentials: Any) -> str:
    """The scopes that credentials name, shortened; nothing when they do not."""
    names = getattr(credentials, "granted_scopes", None) or getattr(credentials, "scopes", None)
    shortened = (name.rpartition("/auth/")[2] for name in names or ())
    return "".join(f"{name}, " for name in shortened)
