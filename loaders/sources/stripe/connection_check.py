"""Whether a Stripe connection works: key, account, permissions, limits, and where it stands."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence

from loaders.errors import ConfigError, LandfallError
from loaders.settings.connection import Connection
from loaders.sources.check_lines import CheckLines
from loaders.sources.checking import NOT_KNOWN, ConnectionCheck
from loaders.sources.refusals import KeyRefused, PermissionDenied
from loaders.sources.stripe.client import StripeClient
from loaders.sources.stripe.events import KEPT_DAYS
from loaders.sources.stripe.kinds import Kind, kinds_of
from loaders.sources.stripe.options import StripeConfig
from loaders.sources.stripe.position import Position, check_account, read_positions
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored


class AccountCheck(ConnectionCheck):
    """Key, account, permissions, limits, and where the connection stands."""

    def __init__(
        self,
        report: CheckLines,
        connection: Connection,
        warehouse: Warehouse,
        configure: Callable[[], StripeConfig],
    ) -> None:
        super().__init__(report, connection, warehouse)
        self._configure = configure
        self._client: StripeClient | None = None
        self._account: str | None = None

    def check_access(self) -> None:
        """Key, account, permissions and limits."""
        try:
            config = self._configure()
            attempts = min(config.max_attempts, self.MAX_ATTEMPTS)
            client = StripeClient(
                self.connection.name, dataclasses.replace(config, max_attempts=attempts)
            )
            self._account = client.account_id(self.request)
        except LandfallError as error:
            part = "key" if isinstance(error, (ConfigError, KeyRefused)) else "account"
            self.report.failed(part, error)
            self.report.nothing("permissions", NOT_KNOWN)
            return
        self._client = client
        mode = "live" if config.is_live else "test"
        kind = "restricted" if config.api_key.startswith("rk_") else "secret"
        self.report.ok("key", f"a {kind} key of {mode} mode, API version {config.api_version}")
        self.report.ok("account", self._account or "the key may not say which it is")
        self._check_permissions(client, config)
        self.report.ok(
            "limits",
            f"{config.rate:g} requests a second, {config.endpoint_requests_per_second:g} at one"
            " endpoint",
        )

    def _check_permissions(self, client: StripeClient, config: StripeConfig) -> None:
        """Every kind is listed once: what the key lacks shows before a run does."""
        lacking: list[str] = []
        kinds = [*kinds_of(config.objects), Kind("event", "/v1/events")]
        for kind in kinds:
            try:
                client.page(self.request, kind.path, kind.lists[0], limit=1)
            except PermissionDenied as error:
                lacking.append(f"{kind.name} ({error})")
            except LandfallError as error:
                self.report.failed("permissions", error)
                return
        if lacking:
            self.report.failed("permissions", "; ".join(lacking))
        else:
            names = ", ".join(kind.name for kind in kinds)
            self.report.ok("permissions", f"read: {names}")

    def check_cursor(self, stored: Stored) -> None:
        """Where the connection stands, and what the next run does about it."""
        client = self._client
        if client is None:
            self.report.nothing("cursor", NOT_KNOWN)
            return
        positions = read_positions(stored)
        check_account(positions, self._account, is_live=client.config.is_live)
        chosen = kinds_of(client.config.objects)
        known = {kind.name: positions[kind.name] for kind in chosen if kind.name in positions}
        if not known:
            self.report.nothing("cursor", "none yet: the next run reads everything (full)")
        else:
            self.report.ok("cursor", self._next_run(client, known, chosen))

    @staticmethod
    def _next_run(
        client: StripeClient, known: Mapping[str, Position], chosen: Sequence[Kind]
    ) -> str:
        now = client.served_at.timestamp()
        oldest = min(at.until for at in known.values())
        listed = []
        for kind in chosen:
            at = known.get(kind.name)
            wanted = set(kind.object_types) & set(client.config.objects)
            is_behind = at is None or at.is_listing or not wanted <= set(at.covers)
            if at is not None and kind.has_events:
                is_behind |= now - at.until > KEPT_DAYS * 86_400
            if is_behind:
                listed.append(kind.name)
        moment = dt.datetime.fromtimestamp(oldest, dt.UTC)
        said = f"changes are known up to {moment:%Y-%m-%d %H:%M} UTC"
        if not listed:
            return f"{said}: the next run is incremental"
        return f"{said}: the next run lists {', '.join(listed)}"
