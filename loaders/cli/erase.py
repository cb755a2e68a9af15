"""`run.py erase`: objects that are to go for good, and what is kept too long."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from loaders.cli.arguments import add_command, warehouse_of
from loaders.errors import UsageError
from loaders.objects.idem_keys import owners
from loaders.settings.places import configure_dlt
from loaders.sources.registry import SOURCES


def add(commands: Any) -> None:
    """Add the command."""
    erase = add_command(
        commands,
        "erase",
        _erase,
        "delete objects for good, and keep them from being stored again",
        "Their rows go from raw_objects, the queue and the dead letters, parts with their objects;"
        " a block by the SHA-256 of the key stays. docs/duties.md says what backups, time travel"
        " and freed blocks of a file still hold.",
    )
    erase.add_argument("--source", choices=SOURCES)
    erase.add_argument(
        "--connection", metavar="NAME", help="connection, configured or not any more"
    )
    chosen = erase.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "--object",
        nargs="+",
        action="extend",
        metavar="KEY",
        dest="keys",
        help="idem_keys, such as gmail:me:message:18c2; stored or not",
    )
    chosen.add_argument(
        "--where", metavar="CONDITION", help="SQL condition over the columns of raw_objects"
    )
    chosen.add_argument(
        "--again",
        action="store_true",
        help="what was erased before, as after the restore of a backup",
    )
    chosen.add_argument(
        "--expired",
        action="store_true",
        help="what the retention variables of dbt_project.yml keep no longer, of all connections",
    )
    erase.add_argument("--reason", metavar="TEXT", help="why, kept with each block")
    erase.add_argument("--dry-run", action="store_true", help="count; write nothing")


def _erase(options: argparse.Namespace) -> int:
    configure_dlt()
    from loaders.monitoring.alerts.job_end import run_and_tell
    from loaders.transform import bootstrap
    from loaders.upkeep.erasing import Erasure, Selection
    from loaders.upkeep.retention import Retention

    named = (options.source, options.connection)
    if options.expired and any(named):
        raise UsageError(
            "erase: --expired is about all connections; leave --source and --connection out"
        )
    if not options.expired and not all(named):
        raise UsageError("erase: --source and --connection are required, but for --expired")
    warehouse = warehouse_of(options)
    work: Erasure | Retention
    if options.expired:
        work = Retention(warehouse)
    else:
        selection = Selection(*named, tuple(options.keys or ()), options.where)
        work = Erasure(warehouse, selection, options.reason)
    if not bootstrap.has_tables(warehouse):
        raise UsageError(f"erase: {warehouse.target.shown} holds no warehouse yet")
    found = work.preview()
    for part in work.parts_alone if isinstance(work, Erasure) else ():
        owner = owners(options.source)[part]
        print(f"note: {part}: its {owner} stays, and may hold the same; name it to erase both")
    if options.dry_run:
        _print("would change", found)
        print("dry run: nothing was written")
        return 0
    run_and_tell(work.job, work.run)
    _print("erased", work.counts)
    print(f"run: {work.job.correlation_id}")
    return 0


def _print(title: str, counts: Mapping[str, int]) -> None:
    print(f"{title}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
