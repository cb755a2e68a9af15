"""Which connection a command takes; where the sandbox may be taken unasked, and where not."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence

from loaders.errors import ConfigError, UsageError
from loaders.settings.connection import SANDBOX, Connection
from loaders.sources.configured import Configured, listed, read_configured
from loaders.sources.registry import SOURCES, definition
from loaders.warehouse.base import Warehouse

logger = logging.getLogger(__name__)


def load_connection(
    source_system: str, name: str | None, warehouse: Warehouse | None = None
) -> Connection:
    """The connection to use: the named one, the only one configured, or the sandbox.

    The sandbox is taken unnamed only where nothing is configured, and generated objects get into a
    local `warehouse` that holds no others. Raises UsageError for an unknown or ambiguous name;
    ConfigError where nothing is configured and the sandbox is not to be taken, where a name that
    the warehouse knows is not configured any more, and for files that are broken or not understood.
    """
    [connection] = load_connections(source_system, [name] if name else None, warehouse)
    return connection


def load_connections(
    source_system: str,
    names: Sequence[str] | None,
    warehouse: Warehouse | None = None,
    *,
    everything: bool = False,
) -> list[Connection]:
    """The connections to use: all that are configured, the named ones, or as load_connection.

    Raises what load_connection raises.
    """
    chosen = list(dict.fromkeys(names or ()))
    if chosen == [SANDBOX] and not everything:
        return [Connection(source_system, SANDBOX)]
    found = read_configured()
    configured = found.names[source_system]
    if everything or not chosen:
        if len(configured) > 1 and not everything:
            raise UsageError(
                f"{source_system}: connections {', '.join(configured)} are configured;"
                " choose with --connection, or --all"
            )
        if not configured:
            _allow_sandbox(source_system, found, warehouse, everything=everything)
        chosen = configured or [SANDBOX]
    for name in chosen:
        if name not in (SANDBOX, *configured):
            was_run = warehouse and f"{source_system}.{name}" in _real_connections(warehouse)
            # What a scheduler always runs is no typing error: its configuration is gone.
            kind = ConfigError if was_run else UsageError
            raise kind(_unknown(source_system, name, configured))
    if found.others:
        logger.warning("warning: not read: %s", listed(found.others))
    return [Connection(source_system, name) for name in chosen]


def has_connections(source_system: str, name: str | None = None) -> bool:
    """Whether a source has a connection that is configured, of this name where one is given.

    Raises ConfigError, as load_connection does.
    """
    configured = read_configured().names[source_system]
    return bool(configured) if name is None else name in configured


def _unknown(source_system: str, name: str, configured: Sequence[str]) -> str:
    command = definition(source_system).how_to_connect
    return (
        f"{source_system}: no connection '{name}'; configured: "
        f"{', '.join(configured) or 'none'}; add [sources.{source_system}.{name}]"
        " to .dlt/secrets.toml" + (f", or: {command.format(connection=name)}" if command else "")
    )


def _allow_sandbox(
    source_system: str, found: Configured, warehouse: Warehouse | None, *, everything: bool
) -> None:
    """Raise ConfigError where generated objects could land beside others unasked; else name the
    variables that are set and not read."""
    of_others = re.compile(definition(source_system).variables_of_others)
    unread = sorted(filter(of_others.fullmatch, os.environ))
    said = f" ({listed(unread)}: set, and not read)" if unread else ""
    steps = f"add [sources.{source_system}.NAME] to .dlt/secrets.toml"
    if reason := _reason_against(found, warehouse, everything=everything):
        raise ConfigError(
            f"{source_system}: no connection is configured{said}, and {reason}; {steps},"
            f" or say --connection {SANDBOX}"
        )
    if unread:
        logger.warning("%s: no connection is configured%s; %s", source_system, said, steps)


def _reason_against(
    found: Configured, warehouse: Warehouse | None, *, everything: bool
) -> str | None:
    """Why the sandbox is not to be taken unnamed, where it is not."""
    if everything:
        return "--all is about those alone"
    if warehouse is None:
        return None
    generated = "generated objects are not put"
    if found.others:
        return f"{generated} in the place of what is not read, {listed(found.others)}"
    if real := [f"{source}.{name}" for source, names in found.names.items() for name in names]:
        return f"{generated} beside those of {listed(real)} unasked"
    if not warehouse.target.is_local:
        return f"{generated} into {warehouse.target.shown} unasked"
    if real := _real_connections(warehouse):
        return f"{generated} into {warehouse.target.shown} unasked, which holds {listed(real)}"
    return None


def _real_connections(warehouse: Warehouse) -> list[str]:
    """The connections that a warehouse knows of, by its runs and objects, the sandbox apart."""
    if not warehouse.is_bootstrapped():
        return []
    tables = [warehouse.table(name) for name in ("event_log", "raw_objects")]
    tables += map(warehouse.staging_table, ("landed_objects", "dead_letters"))
    # The sandbox of a source, not whatever another job calls so.
    sources = ", ".join(f"'{source}'" for source in SOURCES)
    is_sandbox = f"connection_name = '{SANDBOX}' and source_system in ({sources})"
    rows = " union all ".join(
        f"select distinct source_system, connection_name from {table}"
        f" where connection_name is not null and not ({is_sandbox})"
        for table in tables
    )
    return [
        f"{source}.{name}"
        for source, name in warehouse.execute(
            f"select distinct source_system, connection_name from ({rows}) as known order by 1, 2"
        )
    ]
