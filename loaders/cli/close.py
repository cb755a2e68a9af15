"""`run.py close`: end a run of which a person knows that it is dead."""

from __future__ import annotations

import argparse
import datetime as dt
from typing import TYPE_CHECKING, Any

from loaders.cli.arguments import add_command, agrees, warehouse_of
from loaders.errors import UsageError

if TYPE_CHECKING:
    from loaders.jobs.runs import OpenRun

_QUESTION = "Is it dead? If it goes on after all, it lands nothing more."


def add(commands: Any) -> None:
    """Add the command."""
    close = add_command(
        commands,
        "close",
        _close,
        "end a run that is dead, when you know it and no run can",
        "Says what is known of the run, asks, and appends job.failed (Orphaned), as the next run"
        " would once the run's time has passed. For a container that was killed, or a clock that"
        " was ahead; docs/operations.md.",
    )
    close.add_argument("run", metavar="RUN", help="its correlation_id, as run.py status shows it")
    close.add_argument("--yes", action="store_true", help="do not ask")


def _close(options: argparse.Namespace) -> int:
    from loaders.jobs import runs
    from loaders.jobs.event_log import replay_spool
    from loaders.transform import bootstrap

    warehouse = warehouse_of(options)
    if not bootstrap.has_tables(warehouse):
        raise UsageError(f"close: {warehouse.target.shown} holds no warehouse yet")
    with warehouse.open():
        replay_spool(warehouse)  # its end may wait there
        run = runs.find_open(warehouse, options.run)
        last_type, last_at = runs.last_event(warehouse, run)
    print(
        f"run:         {run.correlation_id}\n"
        f"began:       {_moment(run.started_at)}\n"
        f"last event:  {last_type}, {_moment(last_at)}\n"
        f"process:     {_process(run)}\n"
        f"if left:     the next run closes it after {_moment(run.ends_by)}"
    )
    if run.is_alive():
        raise UsageError(
            f"close: {run.correlation_id} is alive, expected a dead one; end it: kill {run.pid}"
        )
    if not options.yes and not agrees("close", _QUESTION):
        print("left open")
        return 1
    with warehouse.open():
        # It may have ended while somebody thought about it.
        runs.close(warehouse, runs.find_open(warehouse, options.run), "hand (run.py close)")
    print(f"closed: {run.correlation_id}")
    return 0


def _process(run: OpenRun) -> str:
    of_whom = (
        f"{run.pid} on {run.host.get('name')}" if run.pid else "not recorded (a plain dbt command)"
    )
    known = {True: "it runs", False: "it is gone", None: "nothing is known of it here"}
    return f"{of_whom}: {known[run.is_alive()]}"


def _moment(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
