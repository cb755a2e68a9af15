"""`run.py recluster`: what is stored on BigQuery in the order in which it is read."""

from __future__ import annotations

import argparse
from typing import Any

from loaders.cli.arguments import add_command, agrees, warehouse_of

_DOLLARS_A_TIB = 6.25
_TIB, _GB = 2**40, 10**9


def add(commands: Any) -> None:
    """Add the command."""
    recluster = add_command(
        commands,
        "recluster",
        _recluster,
        "write raw_objects on BigQuery anew, in the order of this release",
        "Says what that costs, and asks. Month by month: what is interrupted goes on where it was."
        " Runs may go on meanwhile; docs/bigquery.md.",
    )
    recluster.add_argument("--yes", action="store_true", help="do not ask")


def _recluster(options: argparse.Namespace) -> int:
    from loaders.upkeep.reclustering import Reclustering

    reclustering = Reclustering(warehouse_of(options))
    plan = reclustering.plan
    print(f"clustered by: {', '.join(plan.before) or 'nothing'}")
    if not plan.months and list(plan.before) == list(plan.after):
        print("nothing to do")
        return 0
    print(
        f"to be by:     {', '.join(plan.after)}\n"
        f"months left:  {len(plan.months)}, with {plan.rows:,} objects\n"
        f"price:        ${plan.bytes / _TIB * _DOLLARS_A_TIB:,.2f} for {plan.bytes / _GB:,.1f} GB"
        f" at ${_DOLLARS_A_TIB} a TiB (on demand, US)"
    )
    if not options.yes and not agrees("recluster", "Write them anew?"):
        print("left as it is")
        return 1
    reclustering.run()
    print(f"written:      {reclustering.done} months")
    return 0
