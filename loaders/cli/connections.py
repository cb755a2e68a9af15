"""Which connections a command works on, and one after the other, or a process each."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence

from loaders.cli.processes import run_each
from loaders.errors import ConfigError, LandfallError, describe
from loaders.jobs.job import Job
from loaders.jobs.names import job_name_for
from loaders.monitoring.alerts.job_end import tell
from loaders.settings.connection import Connection
from loaders.sources.connections import has_connections, load_connections
from loaders.sources.registry import SOURCES
from loaders.warehouse.base import Warehouse

logger = logging.getLogger(__name__)


def named_sources(options: argparse.Namespace) -> Sequence[str]:
    """The source that is named, else those that have a connection (of that name)."""
    if options.source:
        return [options.source]
    names = options.connection if isinstance(options.connection, list) else [options.connection]
    found = [source for source in SOURCES if any(has_connections(source, name) for name in names)]
    return found or SOURCES[:1]


def chosen(
    sources: Sequence[str], options: argparse.Namespace, warehouse: Warehouse
) -> Callable[[], list[Connection]]:
    """The connections that the command line names, or --all."""

    def choose() -> list[Connection]:
        if options.one_of_several is not None:  # started by run_each
            source, _, name = options.one_of_several.partition(":")
            return [Connection(source, name)]
        return [
            connection
            for source in sources
            for connection in load_connections(
                source, options.connection, warehouse, everything=options.all_connections
            )
        ]

    return choose


def run_each_connection(
    options: argparse.Namespace,
    warehouse: Warehouse,
    choose: Callable[[], list[Connection]],
    run: Callable[[argparse.Namespace, Connection, Warehouse], int],
) -> int:
    """Run the one connection here, several in a process each."""
    try:
        connections = choose()
    except ConfigError as error:
        if not options.dry_run:
            _log_failed_start(warehouse, options.source or SOURCES[0], options.connection, error)
        raise
    if not connections:
        return 0
    if len(connections) == 1:
        return run(options, connections[0], warehouse)
    logs_json = options.log_format == "json"
    return run_each(connections, options.arguments, options.parallel, logs_json=logs_json)


def _log_failed_start(
    warehouse: Warehouse, source_system: str, names: list[str] | None, error: Exception
) -> None:
    """Log a run that its configuration kept from starting: a scheduler's log must show it.

    Without a connection_name: no connection, no lease.
    """
    name = names[0] if names and len(names) == 1 else None
    job = Job(
        warehouse,
        job_name=job_name_for(source_system, name or "unknown"),
        source_system=source_system,
        parameters={"connection": ", ".join(names) if names else None},
    )
    try:
        job.start()
    except LandfallError as unlogged:
        # What the run is to end with is what kept it from starting.
        logger.warning("not in the job log: %s", describe(unlogged))
    job.fail(error)
    tell(job)
