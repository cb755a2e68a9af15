"""The commands that work on a mailbox: fetching it, retrying its dead letters, checking it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from loaders.config import Connection, load_connection, load_connections, state_dir
from loaders.dead_letters import open_letters
from loaders.each_connection import run_each
from loaders.errors import LandfallError
from loaders.ingest import Ingestion, IngestOptions
from loaders.job import Job, job_name_for, run_supervised
from loaders.progress import new_progress
from loaders.report import print_dry_run, print_summary
from loaders.warehouse import Warehouse

if TYPE_CHECKING:
    from loaders.sources.gmail import GmailConfig
    from loaders.sources.gmail.credentials import FoundCredentials

GMAIL = "gmail"


def fetch(options: argparse.Namespace, warehouse: Warehouse) -> int:
    """`run.py gmail`: one run of each connection, further ones with --until-done."""
    return _each(options, warehouse, _fetch)


def retry(options: argparse.Namespace, warehouse: Warehouse) -> int:
    """`run.py retry`: one run of each connection that has dead letters."""
    options.all_connections |= not options.connection
    return _each(options, warehouse, _retry)


def check(options: argparse.Namespace, warehouse: Warehouse) -> int:
    """`run.py check`: whether a run would find all it needs; 1 when it would not."""
    from loaders.sources.gmail.checks import check_gmail

    connection = load_connection(GMAIL, options.connection)
    access = gmail_access(connection, warehouse, options.sandbox_size, keep_sandbox=False)
    with access as (find, configure):
        works = check_gmail(connection, warehouse, find, configure())
    return 0 if works else 1


def _each(
    options: argparse.Namespace,
    warehouse: Warehouse,
    run: Callable[[argparse.Namespace, Connection, Warehouse], int],
) -> int:
    """Run the one connection here, several in a process each."""
    is_one = options.one_of_several is not None  # of those that run_each starts
    names = [options.one_of_several] if is_one else options.connection
    try:
        everything = options.all_connections and not is_one
        connections = load_connections(GMAIL, names, everything=everything)
    except LandfallError as error:
        if not options.dry_run:
            _log_failed_start(warehouse, GMAIL, names, error)
        raise
    if len(connections) == 1:
        return run(options, connections[0], warehouse)
    names = [connection.name for connection in connections]
    return run_each(names, options.arguments, options.parallel)


def _fetch(options: argparse.Namespace, connection: Connection, warehouse: Warehouse) -> int:
    asked = IngestOptions(
        since=options.since,
        until=options.until,
        full_resync=options.full_resync,
        batch_size=options.batch_size,
        max_duration=options.max_duration,
        max_objects=options.max_objects,
    )
    keep = not options.dry_run
    with _ingestions(connection, warehouse, options.sandbox_size, keep) as new_ingestion:
        if options.dry_run:
            print_dry_run(new_ingestion(asked).dry_run())
            return 0
        while True:
            ingestion = new_ingestion(asked)
            _run(ingestion)
            if not (options.until_done and ingestion.summary and ingestion.summary.has_more):
                return 0
            # A resync under way is gone on with; asking again would begin another.
            asked = dataclasses.replace(asked, full_resync=False)


def _retry(options: argparse.Namespace, connection: Connection, warehouse: Warehouse) -> int:
    is_there = warehouse.is_bootstrapped()
    if not (is_there and open_letters(warehouse, GMAIL, connection.name, limit=1)):
        print(f"{GMAIL} '{connection.name}': no dead letters")
        return 0
    with _ingestions(connection, warehouse, options.sandbox_size) as new_ingestion:
        _run(new_ingestion(IngestOptions(retry=True)))
    return 0


def _run(ingestion: Ingestion) -> None:
    try:
        run_supervised(ingestion.job, ingestion.run)
    finally:
        if ingestion.summary:
            print_summary(ingestion.summary)


@contextlib.contextmanager
def _ingestions(
    connection: Connection, warehouse: Warehouse, sandbox_size: int, keep_sandbox: bool = True
) -> Iterator[Callable[[IngestOptions], Ingestion]]:
    """What makes a run of a connection; each reads credentials and options anew."""
    from loaders.sources.gmail import GmailSource

    access = gmail_access(connection, warehouse, sandbox_size, keep_sandbox=keep_sandbox)
    with access as (find, configure):
        yield lambda options: Ingestion(
            warehouse,
            lambda: GmailSource(connection.name, find().credentials, configure()),
            source_system=connection.source_system,
            connection_name=connection.name,
            options=options,
            progress=new_progress(),
        )


@contextlib.contextmanager
def gmail_access(
    connection: Connection, warehouse: Warehouse, sandbox_size: int, *, keep_sandbox: bool = True
) -> Iterator[tuple[Callable[[], FoundCredentials], Callable[[], GmailConfig]]]:
    """What reads a connection's credentials and options; of the sandbox when it is not real."""
    from loaders.sources.gmail import GmailConfig
    from loaders.sources.gmail.credentials import find_credentials

    if not connection.is_sandbox:
        print(f"connection: gmail '{connection.name}'\nwarehouse: {warehouse.target.shown}")
        yield lambda: find_credentials(connection), lambda: GmailConfig.from_connection(connection)
        return
    print(
        "connection: sandbox, a local server with generated mail, because no mailbox is configured"
        "\n  to connect a real one: python loaders/run.py auth gmail --connection NAME (see README)"
        f"\nwarehouse: {warehouse.target.shown}"
    )
    with _sandbox_access(connection, warehouse, sandbox_size, keep_sandbox) as access:
        yield access


@contextlib.contextmanager
def _sandbox_access(
    connection: Connection, warehouse: Warehouse, size: int, keep: bool
) -> Iterator[tuple[Callable[[], FoundCredentials], Callable[[], GmailConfig]]]:
    from google.oauth2.credentials import Credentials

    from loaders.sandbox import Sandbox
    from loaders.sources.gmail import GmailConfig
    from loaders.sources.gmail.config import SANDBOX_UNITS_PER_MINUTE
    from loaders.sources.gmail.credentials import FoundCredentials

    state = state_dir() / "sandbox" / f"{warehouse.target.key}.sqlite"
    if keep:
        state.parent.mkdir(parents=True, exist_ok=True)
    with Sandbox(size=size, state=state if keep or state.exists() else None) as sandbox:
        config = GmailConfig.from_connection(connection)
        config = dataclasses.replace(
            config,
            api_base_url=sandbox.base_url,
            units_per_minute=config.units_per_minute or SANDBOX_UNITS_PER_MINUTE,
        )
        credentials = Credentials(token="sandbox")  # noqa: S106
        yield lambda: FoundCredentials(credentials, "sandbox", "none needed"), lambda: config


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
    job.start()
    job.fail(error)
