"""Options of a Stripe connection."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from loaders.errors import ConfigError
from loaders.settings.connection import Connection
from loaders.settings.options import check_options, read_options, secret, section, within
from loaders.sources.options import LEAST_SECONDS, SourceOptions
from loaders.sources.stripe.kinds import OBJECT_TYPES

API_BASE_URL = "https://api.stripe.com"
API_VERSION = "2026-10-28.endive"
"""The version that objects are read in, whatever the account's default: that of the marts."""
SANDBOX_KEY = "sk_test_sandbox"
SANDBOX_REQUESTS_PER_SECOND = 100_000.0
"""The sandbox has no limit unless it is told to."""

_LIVE_REQUESTS, _TEST_REQUESTS, _ENDPOINT_REQUESTS = 100.0, 25.0, 25.0
"""Requests a second that Stripe takes: of an account in live mode, in test mode, and at one
endpoint. Source: Stripe docs, Rate limits."""
_KEY = re.compile(r"[sr]k_\w+", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StripeConfig(SourceOptions):
    """Options of a Stripe connection (`[sources.stripe.<name>]`)."""

    api_key: str = secret("a restricted key with read permissions")
    stripe_account: str | None = None
    """A connected account to read with the platform's key (Stripe Connect)."""
    api_base_url: str = API_BASE_URL
    api_version: str = API_VERSION
    objects: tuple[str, ...] = tuple(OBJECT_TYPES)
    requests_per_second: float = within(0.0, 0)
    """Requests a second in all; 0 for what Stripe takes with this kind of key."""
    endpoint_requests_per_second: float = within(_ENDPOINT_REQUESTS, LEAST_SECONDS)
    """Requests a second at one endpoint: a list, or the single reads of a kind."""
    event_overlap_seconds: int = within(300, 0)
    """Events that turn up so long after their time are not missed."""
    pending_interval_minutes: float = within(60.0, 0)
    """How often a balance transaction is read again that is to be available and still is not."""
    workers: int = within(16, 1)
    max_attempts: int = within(8, 1)
    backoff_seconds: float = within(0.5, 0)
    timeout_seconds: float = within(80.0, LEAST_SECONDS)

    @classmethod
    def from_connection(cls, connection: Connection, **fixed: Any) -> StripeConfig:
        """Read a connection's options but the `fixed` ones; ConfigError names the one that is
        missing or wrong."""
        where = section(connection)
        config = cls(**read_options(cls, connection, **fixed))
        if not _KEY.fullmatch(config.api_key):
            raise ConfigError(
                f"{where}.api_key: expected a secret or restricted key (sk_… or rk_…), got another"
                " kind of value; see docs/stripe.md"
            )
        check_object_types(config.objects, f"{where}.objects")
        check_options(config, where)
        if not config.api_base_url.startswith(("https://", "http://")):
            raise ConfigError(f"{where}.api_base_url: expected an address with https://")
        return config

    @property
    def is_live(self) -> bool:
        """Whether the key is one of live mode: what it reads is not what a test key reads."""
        return "_test_" not in self.api_key

    @property
    def rate(self) -> float:
        """Requests a second that the connection may make."""
        return self.requests_per_second or (_LIVE_REQUESTS if self.is_live else _TEST_REQUESTS)


def check_object_types(names: tuple[str, ...], where: str) -> None:
    """Raise ConfigError for a name that is none of an object type, or for no name."""
    unknown = sorted(set(names) - set(OBJECT_TYPES))
    if unknown or not names:
        raise ConfigError(
            f"{where}: expected some of {', '.join(OBJECT_TYPES)}; got"
            f" {', '.join(unknown) or 'none'}"
        )


OPTIONS = tuple(field.name for field in dataclasses.fields(StripeConfig))
"""All that a connection may say."""
