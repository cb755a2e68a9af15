"""Whether a Stripe connection works: key, account, permissions, limits, and where it stands."""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
from collections.abc import Callable, Mapping, Sequence

from loaders.errors import ConfigError, LandfallError
from loaders.objects.items import ObservationClock
from loaders.settings.connection import Connection
from loaders.sources.check_lines import CheckLines
from loaders.sources.contract import FetchRequest, Usage
from loaders.sources.refusals import KeyRefused, PermissionDenied
from loaders.sources.stripe.client import StripeClient
from loaders.sources.stripe.events import KEPT_DAYS
from loaders.sources.stripe.kinds import Kind, kinds_of
from loaders.sources.stripe.options import StripeConfig
from loaders.sources.stripe.position import Position, check_account, read_positions
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

_MAX_ATTEMPTS = 2
_NOT_KNOWN = "not known, see what failed"


def check_stripe(
    report: CheckLines,
    connection: Connection,
    warehouse: Warehouse,
    check_warehouse: Callable[[], bool | None],
    configure: Callable[[], StripeConfig],
) -> None:
    """Report a line for each part. Writes nothing."""
    account = _Account(connection, warehouse, report)
    account.check_access(configure)
    has_tables = check_warehouse()
    if has_tables is None or account.client is None:
        report.nothing("cursor", _NOT_KNOWN)
    else:
        account.check_cursor(account.client, has_tables)


class _Account:
    """What the API has to be asked for."""

    def __init__(self, connection: Connection, warehouse: Warehouse, report: CheckLines) -> None:
        self.client: StripeClient | None = None
        self._connection = connection
        self._warehouse = warehouse
        self._report = report
        self._account: str | None = None
        self._request = FetchRequest(
            clock=ObservationClock(),
            usage=Usage(),
            stored=Stored(warehouse, connection.source_system, connection.name, is_empty=True),
            cancelled=threading.Event(),
        )

    def check_access(self, configure: Callable[[], StripeConfig]) -> None:
        """Key, account and permissions."""
        try:
            config = configure()
            attempts = min(config.max_attempts, _MAX_ATTEMPTS)
            client = StripeClient(
                self._connection.name, dataclasses.replace(config, max_attempts=attempts)
            )
            self._account = client.account_id(self._request)
        except LandfallError as error:
            part = "key" if isinstance(error, (ConfigError, KeyRefused)) else "account"
            self._report.failed(part, error)
            self._report.nothing("permissions", _NOT_KNOWN)
            return
        self.client = client
        mode = "live" if config.is_live else "test"
        kind = "restricted" if config.api_key.startswith("rk_") else "secret"
        self._report.ok("key", f"a {kind} key of {mode} mode, API version {config.api_version}")
        self._report.ok("account", self._account or "the key may not say which it is")
        self._check_permissions(client, config)
        self._report.ok(
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
                client.page(self._request, kind.path, kind.lists[0], limit=1)
            except PermissionDenied as error:
                lacking.append(f"{kind.name} ({error})")
            except LandfallError as error:
                self._report.failed("permissions", error)
                return
        if lacking:
            self._report.failed("permissions", "; ".join(lacking))
        else:
            names = ", ".join(kind.name for kind in kinds)
            self._report.ok("permissions", f"read: {names}")

    def check_cursor(self, client: StripeClient, has_tables: bool) -> None:
        """Where the connection stands, and what the next run does about it."""
        connection = self._connection
        stored = Stored(
            self._warehouse, connection.source_system, connection.name, is_empty=not has_tables
        )
        try:
            positions = read_positions(stored)
            check_account(positions, self._account, is_live=client.config.is_live)
        except LandfallError as error:
            self._report.failed("cursor", error)
            return
        chosen = kinds_of(client.config.objects)
        known = {kind.name: positions[kind.name] for kind in chosen if kind.name in positions}
        if not known:
            self._report.nothing("cursor", "none yet: the next run reads everything (full)")
        else:
            self._report.ok("cursor", self._next_run(client, known, chosen))

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
