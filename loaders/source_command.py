"""The commands that work on sources: fetching, retrying dead letters, checking."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from loaders import transform
from loaders.access import AccessOptions, open_access
from loaders.alerts.channels import check_channels
from loaders.checks import Report
from loaders.config import SOURCES, Connection
from loaders.connections import (
    has_connections,
    load_connection,
    load_connections,
)
from loaders.dead_letters import open_letters
from loaders.each_connection import run_each
from loaders.errors import ConfigError, LandfallError, UsageError, describe
from loaders.ingest import (
    DeadLettered,
    FetchIncomplete,
    Ingestion,
    IngestOptions,
    PartlyFetched,
)
from loaders.job import Job, job_name_for, run_supervised
from loaders.progress import new_progress
from loaders.report import print_dry_run, print_summary
from loaders.verifying import Verification, print_report
from loaders.warehouse import Warehouse

logger = logging.getLogger(__name__)

_OF_SOME_OBJECTS = (DeadLettered, FetchIncomplete, PartlyFetched)


def fetch(options: argparse.Namespace, warehouse: Warehouse) -> int:
    """`run.py gmail`, `run.py stripe`: one run of each connection, further ones if asked for."""
    chosen = _chosen([options.source], options, warehouse)
    return _each(options, warehouse, chosen, _fetch)


def retry(options: argparse.Namespace, warehouse: Warehouse) -> int:
    """`run.py retry`: one run of each connection that has dead letters.

    1 also when some were left out, as nothing of their connection's name is configured.
    """
    if options.connection or options.one_of_several is not None:
        chosen = _chosen(_sources(options), options, warehouse)
        return _each(options, warehouse, chosen, _retry)
    left_out: dict[tuple[str, str], int] = {}
    choose = functools.partial(_with_dead_letters, warehouse, options.source, left_out)
    return _each(options, warehouse, choose, _retry) or int(bool(left_out))


def check(options: argparse.Namespace, warehouse: Warehouse) -> int:
    """`run.py check`: whether a run would find all it needs; 1 when it would not."""
    codes = []
    for source in _sources(options):
        connection = load_connection(source, options.connection, warehouse)
        size = options.sandbox_size
        access_options = AccessOptions(sandbox_size=size, keep_sandbox=False)
        with open_access(connection, warehouse, access_options) as access:
            codes.append(0 if access.check() else 1)
    report = Report()
    check_channels(report)
    return max(*codes, int(report.has_failed))


def verify(options: argparse.Namespace, warehouse: Warehouse) -> int:
    """`run.py verify`: compare a connection with its source; as diff(1) does, 1 when they differ
    and 2 when that could not be found out."""
    connection = load_connection(options.source, options.connection, warehouse)
    access_options = AccessOptions(options.sandbox_size, keep_sandbox=False)
    # With --json what is printed is one JSON object.
    elsewhere = sys.stderr if options.json else sys.stdout
    with contextlib.ExitStack() as stack:
        with contextlib.redirect_stdout(elsewhere):
            access = stack.enter_context(open_access(connection, warehouse, access_options))
        verification = Verification(
            warehouse,
            access.open_source,
            source_system=connection.source_system,
            connection_name=connection.name,
            limit=options.limit,
            with_payloads=options.payloads,
        )
        try:
            run_supervised(verification.job, verification.run)
        except LandfallError as error:
            if verification.report is None and error.exit_code == 1:
                error.exit_code = 2
            raise
        finally:
            if verification.report:
                print_report(verification.report, as_json=options.json)
    return 0


def _sources(options: argparse.Namespace) -> Sequence[str]:
    """The source that is named, else those that have a connection (of that name)."""
    if options.source:
        return [options.source]
    names = options.connection if isinstance(options.connection, list) else [options.connection]
    found = [source for source in SOURCES if any(has_connections(source, name) for name in names)]
    return found or SOURCES[:1]


def _chosen(
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


def _with_dead_letters(
    warehouse: Warehouse, source: str | None, left_out: dict[tuple[str, str], int]
) -> list[Connection]:
    """The connections that have open letters; `left_out` gets those that are not configured."""
    letters = open_letters(warehouse) if transform.has_tables(warehouse) else []
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


def _each(
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


def _fetch(options: argparse.Namespace, connection: Connection, warehouse: Warehouse) -> int:
    asked = IngestOptions(
        since=options.since,
        until=options.until,
        full_resync=options.full_resync,
        accept_deletions=options.accept_deletions,
        objects=options.objects,
        batch_size=options.batch_size,
        max_duration=options.max_duration,
        max_objects=options.max_objects,
    )
    access = AccessOptions(options.sandbox_size, not options.dry_run, options.objects)
    with _ingestions(connection, warehouse, access) as new_ingestion:
        if options.dry_run:
            print_dry_run(new_ingestion(asked).dry_run())
            return 0
        failed: LandfallError | None = None
        while True:
            ingestion = new_ingestion(asked)
            try:
                _run(ingestion)
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
    is_there = transform.has_tables(warehouse)
    if not (is_there and open_letters(warehouse, source, name, limit=1)):
        print(f"{source} '{name}': no dead letters")
        return 0
    access = AccessOptions(options.sandbox_size)
    with _ingestions(connection, warehouse, access) as new_ingestion:
        asked = IngestOptions(retry=True, accept_deletions=options.accept_deletions)
        _run(new_ingestion(asked))
    return 0


def _run(ingestion: Ingestion) -> None:
    try:
        run_supervised(ingestion.job, ingestion.run)
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
    job.tell()
