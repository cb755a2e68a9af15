"""`run.py gmail`, `run.py stripe`, `run.py retry`: runs that read a source."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator

from loaders.cli.connections import chosen, named_sources, run_each_connection
from loaders.cli.output import print_dry_run, print_summary
from loaders.cli.progress import new_progress
from loaders.errors import AlreadyRunning, LandfallError, UsageError
from loaders.ingestion.ingest import (
    DeadLettered,
    FetchIncomplete,
    Ingestion,
    IngestOptions,
    PartlyFetched,
)
from loaders.monitoring.alerts.job_end import run_and_tell
from loaders.settings.connection import Connection
from loaders.sources.access import AccessOptions
from loaders.sources.connections import load_connection
from loaders.sources.registry import SOURCES, open_access
from loaders.transform import bootstrap
from loaders.warehouse.base import Warehouse
from loaders.warehouse.dead_letters import open_letters

logger = logging.getLogger(__name__)

_OF_SOME_OBJECTS = (DeadLettered, FetchIncomplete, PartlyFetched)


def fetch(options: argparse.Namespace, warehouse: Warehouse) -> int:
    """`run.py gmail`, `run.py stripe`: one run of each connection, further ones if asked for."""
    choose = chosen([options.source], options, warehouse)
    return run_each_connection(options, warehouse, choose, _fetch)


def retry(options: argparse.Namespace, warehouse: Warehouse) -> int:
    """`run.py retry`: one run of each connection that has dead letters.

    1 also when some were left out, as nothing of their connection's name is configured.
    """
    if options.connection or options.one_of_several is not None:
        choose = chosen(named_sources(options), options, warehouse)
        return run_each_connection(options, warehouse, choose, _retry)
    left_out: dict[tuple[str, str], int] = {}
    choose = functools.partial(_with_dead_letters, warehouse, options.source, left_out)
    return run_each_connection(options, warehouse, choose, _retry) or int(bool(left_out))


def _with_dead_letters(
    warehouse: Warehouse, source: str | None, left_out: dict[tuple[str, str], int]
) -> list[Connection]:
    """The connections that have open letters; `left_out` gets those that are not configured."""
    letters = open_letters(warehouse) if bootstrap.has_tables(warehouse) else []
    sources = SOURCES if source is None else (source,)
    counts = Counter(
        (letter.source_system, letter.connection_name)
        for letter in letters
        if letter.source_system in sources
    )
    if not counts:
        print("no dead letters")
    connections = []
    for named, count in sorted(counts.items()):
        try:
            connections.append(load_connection(*named))
        except UsageError:
            left_out[named] = count
            logger.warning(
                "%s '%s' is not configured: its %d dead letter(s) are left out; configure it again,"
                " or give them up with run.py dead-letters drop",
                *named,
                count,
            )
    return connections


def _fetch(options: argparse.Namespace, connection: Connection, warehouse: Warehouse) -> int:
    asked = IngestOptions.of(options)
    access = AccessOptions(options.sandbox_size, not options.dry_run, options.objects)
    with _ingestions(connection, warehouse, access) as new_ingestion:
        if options.dry_run:
            print_dry_run(new_ingestion(asked).dry_run())
            return 0
        failed: LandfallError | None = None
        while True:
            ingestion = new_ingestion(asked)
            try:
                _run(ingestion, skip_if_running=options.skip_if_running)
            except _OF_SOME_OBJECTS as error:
                failed = error  # all else is stored, and can be gone on with
            has_more = ingestion.summary is not None and ingestion.summary.has_more
            if not (options.until_done and has_more):
                break
            # A resync under way is gone on with; asking again would begin another.
            asked = dataclasses.replace(asked, full_resync=False)
        if failed:
            raise failed
        return 0


def _retry(options: argparse.Namespace, connection: Connection, warehouse: Warehouse) -> int:
    source, name = connection.source_system, connection.name
    is_there = bootstrap.has_tables(warehouse)
    if not (is_there and open_letters(warehouse, source, name, limit=1)):
        print(f"{source} '{name}': no dead letters")
        return 0
    access = AccessOptions(options.sandbox_size)
    with _ingestions(connection, warehouse, access) as new_ingestion:
        asked = IngestOptions.of(options)
        _run(new_ingestion(asked))
    return 0


def _run(ingestion: Ingestion, *, skip_if_running: bool = False) -> None:
    if skip_if_running:
        ingestion.job.lease_wait = 0.0
    try:
        run_and_tell(ingestion.job, ingestion.run)
    except AlreadyRunning as error:
        if not skip_if_running:
            raise
        print(f"skipped: {error}")
    finally:
        if ingestion.summary:
            print_summary(ingestion.summary)


@contextlib.contextmanager
def _ingestions(
    connection: Connection, warehouse: Warehouse, options: AccessOptions
) -> Iterator[Callable[[IngestOptions], Ingestion]]:
    """What makes a run of a connection; each reads credentials and options anew."""
    with open_access(connection, warehouse, options) as access:
        yield lambda asked: Ingestion(
            warehouse,
            access.open_source,
            source_system=connection.source_system,
            connection_name=connection.name,
            options=asked,
            progress=new_progress(),
        )
