"""Access to a mailbox: credentials and options of a connection, or those of the sandbox."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from loaders.settings.connection import Connection
from loaders.sources.access import Access, AccessOptions, running_sandbox, say_which
from loaders.sources.gmail.connection_check import MailboxCheck
from loaders.sources.gmail.options import API, SANDBOX_UNITS_PER_MINUTE, GmailConfig
from loaders.sources.gmail.source import GmailSource
from loaders.sources.google_credentials import FoundCredentials, find_credentials
from loaders.warehouse.base import Warehouse

_NOT_CONFIGURED = """mail, because no mailbox is configured
  to connect a real one: python loaders/run.py auth gmail --connection NAME (see README)"""


@contextlib.contextmanager
def open_access(
    connection: Connection, warehouse: Warehouse, options: AccessOptions
) -> Iterator[Access]:
    """What opens and checks a mailbox."""
    say_which(connection, warehouse, _NOT_CONFIGURED)
    if not connection.is_sandbox:
        yield _access(
            connection,
            warehouse,
            lambda: find_credentials(connection, API),
            lambda: GmailConfig.from_connection(connection),
        )
        return
    from google.oauth2.credentials import Credentials

    with running_sandbox(connection, warehouse, options) as sandbox:
        config = GmailConfig.from_connection(connection)
        config = dataclasses.replace(
            config,
            api_base_url=sandbox.base_url,
            units_per_minute=config.units_per_minute or SANDBOX_UNITS_PER_MINUTE,
        )
        credentials = Credentials(token="sandbox")  # noqa: S106 - it opens a local server alone
        found = FoundCredentials(credentials, "sandbox", "none needed")
        yield _access(connection, warehouse, lambda: found, lambda: config)


def _access(
    connection: Connection,
    warehouse: Warehouse,
    find: Callable[[], FoundCredentials],
    configure: Callable[[], GmailConfig],
) -> Access:
    return Access(
        lambda: GmailSource(connection.name, find().credentials, configure()),
        lambda report, check_warehouse: MailboxCheck(
            report, connection, warehouse, find, configure()
        ).run(check_warehouse),
    )
