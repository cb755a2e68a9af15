"""Access to an account: the key and options of a connection, or those of the sandbox."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from loaders.settings.connection import Connection
from loaders.sources.access import Access, AccessOptions, running_sandbox, say_which
from loaders.sources.stripe.connection_check import AccountCheck
from loaders.sources.stripe.options import SANDBOX_KEY, SANDBOX_REQUESTS_PER_SECOND, StripeConfig
from loaders.sources.stripe.source import StripeSource
from loaders.warehouse.base import Warehouse

_NOT_CONFIGURED = """payments, because no account is configured
  to connect a real one: put its api_key into .dlt/secrets.toml (see README)"""


@contextlib.contextmanager
def open_access(
    connection: Connection, warehouse: Warehouse, options: AccessOptions
) -> Iterator[Access]:
    """What opens and checks an account."""
    say_which(connection, warehouse, _NOT_CONFIGURED)
    with contextlib.ExitStack() as stack:
        fixed: dict[str, object] = {}
        if connection.is_sandbox:
            sandbox = stack.enter_context(running_sandbox(connection, warehouse, options))
            fixed = {
                "api_key": SANDBOX_KEY,
                "api_base_url": sandbox.base_url,
                "requests_per_second": SANDBOX_REQUESTS_PER_SECOND,
                "endpoint_requests_per_second": SANDBOX_REQUESTS_PER_SECOND,
            }

        def configure() -> StripeConfig:
            config = StripeConfig.from_connection(connection, **fixed)
            if options.objects is None:
                return config
            return dataclasses.replace(config, objects=options.objects)

        yield Access(
            lambda: StripeSource(connection.name, configure()),
            lambda report, check_warehouse: AccountCheck(
                report, connection, warehouse, configure
            ).run(check_warehouse),
        )
