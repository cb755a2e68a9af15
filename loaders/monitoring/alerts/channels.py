"""Where alerts go: the services of `[alerts] urls`, reached by Apprise."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import threading
import time
import urllib.parse
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from loaders.errors import ConfigError, register_secret, register_url_password
from loaders.settings.places import configure_dlt
from loaders.sources.check_lines import CheckLines

SEND_SECONDS = 10.0
"""What all services together may take for one message."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20})://")
_TOKEN = re.compile(r"[\w~.+-]{12,}")
_PASSWORD = re.compile(r"(?<=://)([^/?#@\s:]*):[^/?#\s]*(?=@)")
_STATUS = re.compile(r"\berror=(\d{3})\b")
_PART = "alerts"
_UNUSABLE = "no service takes this URL; correct alerts.urls"


@dataclasses.dataclass(frozen=True)
class Channel:
    """One URL, which is a secret, and the name that stands for it everywhere."""

    label: str
    """Its place in the list and its scheme: `1 slack`."""
    url: str = dataclasses.field(repr=False)

    @property
    def mark(self) -> str:
        """The label and a fingerprint of the URL, which stays when the URL gets another place.

        Without its password: whoever reads the warehouse could try some.
        """
        digest = hashlib.sha256(_PASSWORD.sub(r"\1", self.url).encode()).hexdigest()
        return f"{self.label}#{digest[:8]}"

    def is_among(self, marks: Collection[str]) -> bool:
        """Whether one of the marks is of this URL; earlier releases kept the label alone."""
        fingerprint = self.mark.rpartition("#")[2]
        return self.label in marks or any(mark.endswith(f"#{fingerprint}") for mark in marks)

    @property
    def is_usable(self) -> bool:
        """Whether Apprise knows a service for it; nothing is sent."""
        return _apprise().Apprise.instantiate(self.url) is not None


@dataclasses.dataclass(frozen=True)
class Message:
    """What is told."""

    title: str
    body: str
    kind: str = "failure"
    """How services show it: failure, success or info."""


def configured_channels() -> list[Channel]:
    """The channels of alerts.urls, none when it is not set. Raises ConfigError."""
    value = _option("urls")
    if value is None:
        return []
    channels = []
    for place, url in enumerate(_urls(value), start=1):
        for secret in _secrets(url):
            register_secret(secret)
        register_url_password(url)
        scheme = _SCHEME.match(url)
        channels.append(Channel(f"{place} {scheme[1].lower() if scheme else 'unknown'}", url))
    return channels


def check_channels(report: CheckLines) -> None:
    """Report whether anybody would be told of a failure; sends nothing."""
    try:
        channels = configured_channels()
        failures_to_tell()
    except ConfigError as error:
        report.failed(_PART, error)
        return
    if not channels:
        report.nothing(_PART, "nobody is told of failures: alerts.urls is not configured")
        return
    unusable = [channel.label for channel in channels if not channel.is_usable]
    if unusable:
        report.failed(_PART, f"{', '.join(unusable)}: {_UNUSABLE}")
    else:
        labels = ", ".join(channel.label for channel in channels)
        report.ok(_PART, f"{labels}; run.py alert --test sends a message")


def failures_to_tell() -> int:
    """After how many failed runs in a row a job is told of (alerts.after_failures, 1).

    Raises ConfigError.
    """
    value = _option("after_failures")
    if value is None:
        return 1
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise ConfigError(
            f"alerts.after_failures: expected a whole number from 1, got {value!r}; correct it"
        )
    return number


def send(
    channels: Sequence[Channel], message: Message, seconds: float = SEND_SECONDS
) -> dict[str, str | None]:
    """Send to all channels at once; by label why it was not delivered, None where it was.

    Whoever has not answered when the time is over counts as not told.
    """
    _apprise()  # the import is not the services' time
    outcome: dict[str, str | None] = {}
    threads = [
        threading.Thread(
            target=_send_to, args=(channel, message, outcome), name="landfall-alert", daemon=True
        )
        for channel in channels
    ]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    silence = f"no answer in {seconds:g} s"
    return {channel.label: outcome.get(channel.label, silence) for channel in channels}


def _send_to(channel: Channel, message: Message, outcome: dict[str, str | None]) -> None:
    try:
        outcome[channel.label] = _notify(channel, message)
    except Exception as error:  # noqa: BLE001 - a service's failure of any kind is one line
        # Its text may quote the URL.
        outcome[channel.label] = f"failed with {type(error).__name__}"


def _notify(channel: Channel, message: Message) -> str | None:
    apprise = _apprise()
    said: list[str] = []
    service = apprise.Apprise(asset=_asset())
    if not service.add(channel.url):
        return _UNUSABLE
    result = service.notify(
        body=message.body,
        title=message.title,
        notify_type=message.kind,
        body_format=apprise.NotifyFormat.TEXT,
        log_callback=lambda entry, _service: said.append(str(entry.message)),
    )
    if result:
        return None
    # Of what Apprise says only the status is sure to hold no part of the URL.
    status = next((found[1] for text in said if (found := _STATUS.search(text))), None)
    return f"the service answered {status}" if status else "the service could not be reached"


def _asset() -> Any:
    """What Apprise says of the sender: no link, and no picture that is loaded from somewhere."""
    return _apprise().AppriseAsset(
        app_id="Landfall",
        app_desc="Landfall",
        app_url="",
        image_url_mask="",
        image_url_logo="",
    )


def _apprise() -> Any:
    """Apprise, which would log addresses and, at debug, keys."""
    silent = logging.getLogger("apprise")
    silent.propagate = False
    silent.handlers = [logging.NullHandler()]  # else what is not propagated goes to stderr
    import apprise

    return apprise


def _option(name: str) -> Any:
    configure_dlt()
    import dlt

    return dlt.secrets.get(f"alerts.{name}") or dlt.config.get(f"alerts.{name}")


def _urls(value: Any) -> list[str]:
    """A list, its JSON, or URLs apart from each other by spaces, as the environment has them."""
    found = value
    if isinstance(value, str):
        found = value.split()
        if value.strip().startswith("["):
            try:
                found = json.loads(value)
            except ValueError:
                found = None
    if not isinstance(found, list) or not all(isinstance(url, str) and url for url in found):
        raise ConfigError(
            "alerts.urls: expected a list of Apprise URLs, such as"
            ' urls = ["mailto://…", "slack://…"]; correct it (docs/alerts.md)'
        )
    return found


def _secrets(url: str) -> Iterator[str]:
    """The URL, and those of its parts that may be a key: a token is host, path or query."""
    yield url
    for part in re.split(r"[/?&=@:#]+", url):
        # Names of hosts and mailboxes have to stay readable in other messages.
        if _TOKEN.fullmatch(part) and re.search(r"\d", part) and "." not in part:
            yield part
            yield urllib.parse.unquote(part)
