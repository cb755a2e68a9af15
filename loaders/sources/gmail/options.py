"""Options of a Gmail connection, and the quota its project has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from loaders.errors import ConfigError
from loaders.settings.connection import Connection
from loaders.settings.options import check_options, one_of, read_options, section, within
from loaders.sources.google_api import GoogleApi
from loaders.sources.options import SourceOptions

SCOPES = ("https://www.googleapis.com/auth/gmail.readonly",)
AUTHORISE = "python loaders/run.py auth gmail --connection {connection}"
"""The command that gets a connection a token."""
API = GoogleApi(SCOPES, AUTHORISE, "docs/gmail.md")
FORMATS = ("full", "raw", "metadata")
LABEL_CHANGES = ("defer", "refetch")

_LEGACY_COSTS = {
    "getProfile": 1,
    "labels.list": 1,
    "messages.list": 5,
    "history.list": 2,
    "messages.get": 5,
    "threads.get": 10,
    "messages.attachments.get": 5,
}
QUOTAS: dict[str, tuple[int, Mapping[str, int]]] = {
    # What an attachment costs since May 2026 is not published with the rest: the dearest it can be.
    "current": (
        6_000,
        _LEGACY_COSTS | {"messages.get": 20, "threads.get": 40, "messages.attachments.get": 20},
    ),
    "legacy": (15_000, _LEGACY_COSTS),
}
"""Units a minute and user, and units of each method, by the age of the Cloud project: `current`
for those that first used the API since May 2026, `legacy` for older ones.
Source: Gmail API, "Usage limits"."""

SANDBOX_UNITS_PER_MINUTE = 60_000_000
"""The sandbox has no quota unless it is told to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GmailConfig(SourceOptions):
    """Options of a Gmail connection (`[sources.gmail.<name>]`)."""

    user_id: str = "me"
    api_base_url: str | None = None
    fetch_format: str = one_of("full", FORMATS)
    include_spam_trash: bool = False
    label_changes: str = one_of("defer", LABEL_CHANGES)
    """`defer`: messages of which only labels changed are read again for `label_change_units`
    a run, the others wait for the next; `refetch`: all of them at once."""
    label_change_units: int = within(2_000, 0)
    attachment_max_bytes: int = within(0, 0)
    """Attachments up to this size are stored as objects too; 0 stores none."""
    labels_interval_hours: float = 24.0
    """How often labels and the profile are read."""
    quota: str = one_of("current", QUOTAS)
    units_per_minute: int = within(0, 0)
    """Quota units a minute; 0 for that of `quota`."""
    unit_costs: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Units of methods, over those of `quota`."""

    @classmethod
    def from_connection(cls, connection: Connection) -> GmailConfig:
        """Read a connection's options; ConfigError names the one that is wrong."""
        where = section(connection)
        config = cls(**read_options(cls, connection))
        check_options(config, where)
        if unknown := config.unit_costs.keys() - _LEGACY_COSTS.keys():
            raise ConfigError(
                f"{where}.unit_costs: unknown method {', '.join(sorted(unknown))};"
                f" expected {', '.join(_LEGACY_COSTS)}"
            )
        return config

    @property
    def units_limit(self) -> int:
        """Quota units a minute."""
        return self.units_per_minute or QUOTAS[self.quota][0]

    @property
    def costs(self) -> Mapping[str, int]:
        """Quota units of each method."""
        return {**QUOTAS[self.quota][1], **self.unit_costs}


OPTIONS = (
    "access_token",
    "token_file",
    "service_account_file",
    "subject",
    "client_secrets_file",
    *(field.name for field in dataclasses.fields(GmailConfig)),
)
"""All that a connection may say: its credentials, and the rest."""
