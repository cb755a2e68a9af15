"""`run.py copy`: a warehouse into another dbt target."""

from __future__ import annotations

import argparse
from typing import Any

from loaders.cli.arguments import add_command
from loaders.settings.places import configure_dlt
from loaders.settings.target import load_target


def add(commands: Any) -> None:
    """Add the command."""
    copy = add_command(
        commands,
        "copy",
        _copy,
        "copy a warehouse into another dbt target, without reading the sources",
        "What is there already stays as it is; run it again after an interruption.",
        has_target=False,
    )
    copy.add_argument(
        "--from", dest="source", required=True, metavar="NAME", help="dbt target to copy from"
    )
    copy.add_argument("--to", dest="target", required=True, metavar="NAME", help="and into")


def _copy(options: argparse.Namespace) -> int:
    configure_dlt()
    from loaders.cli.output import print_copies
    from loaders.monitoring.alerts.job_end import run_and_tell
    from loaders.upkeep.copying import WarehouseCopy
    from loaders.warehouse.opening import open_warehouse

    source = open_warehouse(load_target(options.source), options.lock_wait)
    target = open_warehouse(load_target(options.target), options.lock_wait)
    copy = WarehouseCopy(source, target)
    print(f"from: {source.target.shown}\nto:   {target.target.shown}\n")
    try:
        run_and_tell(copy.job, copy.run)
    finally:
        if copy.results:
            print_copies(copy.results)
    print(f"run: {copy.job.correlation_id}")
    return 0
