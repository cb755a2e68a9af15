"""The command line: what a person or a scheduler calls, and what it prints."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from loaders.cli import (
    alert,
    auth,
    build,
    close,
    copy,
    dashboard,
    dead_letters,
    erase,
    recluster,
    sources,
    status,
    verify,
)
from loaders.cli.arguments import bind_relative_times
from loaders.cli.log_lines import configure_logging
from loaders.errors import LandfallError, describe, without_secrets
from loaders.settings.places import state_dir
from loaders.settings.private_files import made_private
from loaders.settings.proxies import use_proxies_for_others_alone

logger = logging.getLogger("landfall")

_DESCRIPTION = """\
Raw Gmail and Stripe objects, brought into a warehouse exactly once, with a job log
that can be believed.
"""
_EPILOG = """\
examples:
  python loaders/run.py auth gmail --connection me connect a mailbox
  python loaders/run.py check                      whether a run would find all it needs
  python loaders/run.py gmail                      fetch what is new, merge, check
  python loaders/run.py gmail --since -7d          only mail of the last seven days
  python loaders/run.py gmail --until-done         run after run until nothing is left
  python loaders/run.py gmail --all --parallel 4   every configured mailbox
  python loaders/run.py stripe --objects charge,refund  these objects of a Stripe account
  python loaders/run.py retry                      read dead letters again
  python loaders/run.py verify gmail               compare with what the source has
  python loaders/run.py status                     how each connection is, the last runs
  python loaders/run.py close RUN                  end a run that is known to be dead
  python loaders/run.py alert                      tell people what is wrong (docs/alerts.md)
  python loaders/run.py dashboard                  how the connections are, as a page
  python loaders/run.py build --select raw_objects dbt build as a logged job
  python loaders/run.py copy --from dev --to prod  move a warehouse to another target
  python loaders/run.py recluster --target prod    BigQuery: in the order of this release

exit codes: 0 all of it held; 1 the run failed; 2 wrong usage or configuration;
75 another run holds the warehouse or the connection; 124 timed out; 130, 143 interrupted
"""


@made_private()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors end as one clear line."""
    use_proxies_for_others_alone()
    options = _parse(bind_relative_times(sys.argv[1:] if arguments is None else arguments))
    one_of_several = getattr(options, "one_of_several", None)
    configure_logging(options.log_format, options.debug, one_of_several)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read what is printed (head, say) has enough; the interpreter would say more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except LandfallError as error:
        if options.debug:
            logger.exception("%s", describe(error))
        else:
            logger.error("error: %s", describe(error))
        return error.exit_code
    except Exception as error:
        if options.debug:
            logger.exception("%s", describe(error))
        else:
            logger.error("error: %s; %s", describe(error), _next_step(error))
        return 1


def _next_step(error: Exception) -> str:
    filename = getattr(error, "filename", None)
    if filename and Path(str(filename)).is_relative_to(state_dir()):
        return "make it writable, or set LANDFALL_STATE_DIR"
    return "run again with --debug for the traceback"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What `build` does not know is dbt's; argparse.REMAINDER would refuse a leading option."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown and options.command is not build.run:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.dbt_arguments = [argument for argument in unknown if argument != "--"]
    options.arguments = list(arguments)
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Refuse the command line; what was typed may be a key."""
        super().error(without_secrets(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="run.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add(commands)
    return parser


_COMMANDS = (
    sources, auth, build, copy, dead_letters, verify, erase, status, close, dashboard, alert,
    recluster,
)  # fmt: skip
