"""Errors that say what went wrong, where, what was expected and what to do next."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterator

MAX_MESSAGE = 500
LONGEST_TEXT = 32 * 1024
_SHORTEST_SECRET = 6
_SHORTEST_KEY_LINE = 16
_known_secrets: set[str] = set()

_NAMES = (
    "(?:access_|refresh_|id_)?token|api_?key|client_secret|private_key|password|secret|signature"
    "|assertion"
)
# Credentials that may stand in a URL, a header or a library's own message. What is blanked once
# is left alone the next time, also where it is quoted in JSON.
_SECRET_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)", re.DOTALL), "***"),
    (re.compile(r"(?<=://)[^/?#\s\"']+(?=@)"), "***"),
    (re.compile(r"(?i)\b(?:bearer|basic)\s+(?=\S*[\d=+/])[\w.~+/=-]{6,}"), "***"),
    (re.compile(rf"(?i)\b({_NAMES}|key)=(?!\*)[^\s&\"'\\]+"), r"\1=***"),
    (re.compile(r"(?i)([?&]code)=(?!\*)[^\s&\"'\\]+"), r"\1=***"),
    (
        re.compile(
            rf"""(?i)(\\?["'](?:{_NAMES})\\?["']\s*:\s*\\?["'])(?!\*)(?:\\[^"']|[^"'\\])+"""
        ),
        r"\1***",
    ),
    (re.compile(r"\b(?:sk|rk|pk|whsec)_(?:live_|test_)?[A-Za-z0-9]{8,}"), "***"),
    (re.compile(r"\bya29\.[\w-]+|\bGOCSPX-[\w-]+|\bAIza[\w-]{30,}|\b1//[\w-]{10,}"), "***"),
    (re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]+(?:\.[\w-]*)?"), "***"),
)
_URL_USER = re.compile(r"://([^/?#\s]+)@")
# What warehouses quote when they choke on a value is object content.
_CONTENT_PATTERNS = (
    # DuckDB shows the line of the statement, with the literals in it.
    (re.compile(r"\bLINE \d+: .*(?:\s+\^+)?"), ""),
    # In these classes of DuckDB's a value is quoted, in brackets, behind a colon or a number.
    (
        re.compile(
            r"(?is)(\b(?:conversion|invalid input|out of range) error: [^…]*?)"
            r"\s*(?:[\"(\[{:]|(?<!\w)'|(?<![\w^.])-?\d).*"
        ),
        r"\1 …",
    ),
    (re.compile(r'(?is)(\bconstraint error: [^"…]*?) ?".*'), r"\1 …"),
    (re.compile(r"(?is)\binput:.*"), ""),
    (
        re.compile(
            r"(?is)(\bcould not (?:convert|cast|parse) \w+|\bbad \w+ value:|\blast read:"
            r"|\binput string|\binvalid (?:timestamp|date|datetime|time|value):?"
            r"|\binvalid \w+ value:?|\btype \S+ with value"
            r"|\bformat specifier|\bunknown timezone|\binvalid timezone:"
            r"|\bat or near|\bunexpected (?:\w+ literal|identifier)|\bregular expression:"
            r"|\bjsonpath at:|\bjson path error near|\boverflow:|\bdivision by zero:) .*"
        ),
        r"\1 …",
    ),
    # Names stay; what is none is a text in the wrong quotes.
    (
        re.compile(
            r"(?is)(\b(?:binder|catalog) error: [^\"…]*(?:\"[\w.]+\"[^\"…]*)*)\"(?![\w.]+\").*"
        ),
        r"\1…",
    ),
)


def register_secret(value: str | None) -> None:
    """Make `redact` blank this value wherever it turns up, also as URLs, JSON and base64 have it.

    Short values are left alone. Of a key of several lines each is a secret.
    """
    if not value or len(value) < _SHORTEST_SECRET:
        return
    lines = value.splitlines() if "\n" in value else []
    for secret in (value, *lines):
        if secret == value or (len(secret) >= _SHORTEST_KEY_LINE and "-----" not in secret):
            _known_secrets.update(_written(secret))


def register_url_password(url: str) -> None:
    """Make `redact` blank the password, or else the user, that a URL carries."""
    found = _URL_USER.search(url)
    if found:
        user, _, password = found.group(1).partition(":")
        register_secret(password or user)
        register_secret(urllib.parse.unquote(password or user))


def _written(secret: str) -> Iterator[str]:
    """The ways in which a secret is written; with a colon it is the user of HTTP's Basic."""
    yield secret
    yield urllib.parse.quote(secret, safe="", errors="replace")
    yield urllib.parse.quote_plus(secret, errors="replace")
    yield json.dumps(secret)[1:-1]
    for text in (secret, f"{secret}:"):
        data = text.encode(errors="replace")
        yield base64.b64encode(data).decode().rstrip("=")
        yield base64.urlsafe_b64encode(data).decode().rstrip("=")


def storable(text: str) -> str:
    """The text without unpaired surrogates (of a file name, say), which no warehouse takes."""
    return text.encode("utf-8", errors="replace").decode()


def without_secrets(text: str) -> str:
    """The text without registered or recognisable secrets."""
    for secret in sorted(_known_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    for pattern, instead in _SECRET_PATTERNS:
        text = pattern.sub(instead, text)
    return text


def without_content(text: str) -> str:
    """The text without what a warehouse quotes of the values it chokes on.

    Of a longer one than LONGEST_TEXT the beginning: looking through it takes quadratic time.
    """
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "…"
    for pattern, instead in _CONTENT_PATTERNS:
        text = pattern.sub(instead, text)
    return text


def redact(text: str) -> str:
    """One line of at most 500 characters without registered or recognisable secrets."""
    return _one_line(without_content(without_secrets(storable(text))))


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


class LandfallError(Exception):
    """A failure with one clear line for the user.

    `exit_code` is the process's; `retryable` says whether the same run may succeed later.
    """

    exit_code = 1
    retryable = False

    @property
    def error_type(self) -> str:
        """The name that job.failed carries."""
        return type(self).__name__


class UsageError(LandfallError):
    """The command line asks for something that does not exist or does not fit."""

    exit_code = 2


class ConfigError(LandfallError):
    """A configuration file, profile or credential is missing, unreadable or wrong."""

    exit_code = 2


class WarehouseBusy(LandfallError):
    """Another process holds the warehouse or this connection's lease."""

    exit_code = 75  # EX_TEMPFAIL
    retryable = True


class AlreadyRunning(WarehouseBusy):
    """Another run holds this connection's lease, or a copy into the warehouse goes on."""

    error_type = WarehouseBusy.__name__


class WarehouseError(LandfallError):
    """The warehouse cannot be reached or refuses a statement."""

    retryable = True


class LandingError(LandfallError):
    """A load package could not be landed."""

    retryable = True


class SourceError(LandfallError):
    """The source refuses for good: credentials, scope, a request that is wrong."""


class TransientSourceError(SourceError):
    """The source failed in a way that may pass: rate limit, server error, network."""

    retryable = True


class ForeignAnswer(TransientSourceError):
    """Something else than the source answers, a proxy or sign-in page: no object is to blame."""


class AskedToPause(SourceError):
    """The source asks for a pause that the run has no time for: no object is to blame."""

    exit_code = 75  # EX_TEMPFAIL
    retryable = True


class Cancelled(SourceError):
    """The run is ending: nothing more is read, and no object is to blame."""

    def __init__(self) -> None:
        super().__init__("the run was cancelled")


class TransformFailed(LandfallError):
    """dbt could not compile or build a model."""


class CheckFailed(LandfallError):
    """An acceptance test found a violation."""


class PayloadError(ValueError):
    """A payload that the landing gate refuses; the message carries no content."""


class Interrupted(LandfallError):
    """SIGINT or SIGTERM ended the run."""

    retryable = True

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by signal {signal_number}; run the same command again")
        self.exit_code = 128 + signal_number


class TimedOut(LandfallError):
    """The run's hard timeout passed."""

    retryable = True
    exit_code = 124


def describe(error: BaseException) -> str:
    """The one line that users, job.failed and logs get for an error: redacted, truncated."""
    if isinstance(error, UsageError):  # it quotes what was typed, and no warehouse
        return _one_line(without_secrets(storable(str(error))))
    if isinstance(error, LandfallError):
        return redact(str(error))
    if isinstance(error, OSError) and error.filename:
        return redact(f"{error.filename}: {error.strerror}")
    return redact(f"{type(error).__name__}: {error}")
