"""The command line: what a person or a scheduler calls, and what it prints."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loaders.config import (
    SOURCES,
    configure_dlt,
    load_target,
)
from loaders.each_connection import ONE_OF_SEVERAL
from loaders.errors import LandfallError, UsageError, describe
from loaders.log_lines import configure_logging
from loaders.option_values import (
    bind_relative_times,
    duration,
    moment,
    names,
    positive,
)
from loaders.times import FORMS

if TYPE_CHECKING:
    from loaders.warehouse import Warehouse

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
  python loaders/run.py status                     the last runs
  python loaders/run.py build --select raw_objects dbt build as a logged job
  python loaders/run.py copy --from dev --to prod  move a warehouse to another target

exit codes: 0 all of it held; 1 the run failed; 2 wrong usage or configuration;
75 another run holds the warehouse or the connection; 124 timed out; 130, 143 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors end as one clear line."""
    options = _parse(bind_relative_times(sys.argv[1:] if arguments is None else arguments))
    configure_logging(options.log_format, options.debug)
    try:
        code: int = options.command(options)
        return code
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
            logger.error("error: %s; run again with --debug for the traceback", describe(error))
        return 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What `build` does not know is dbt's; argparse.REMAINDER would refuse a leading option."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown and options.command is not _build:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.dbt_arguments = [argument for argument in unknown if argument != "--"]
    options.arguments = list(arguments)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    gmail = _command(commands, "gmail", _fetch, "fetch a mailbox, merge it, check it")
    _add_source_options(gmail, "messages")
    gmail.set_defaults(source="gmail", objects=None)
    stripe = _command(commands, "stripe", _fetch, "fetch a Stripe account, merge it, check it")
    _add_source_options(stripe, "charges")
    stripe.add_argument(
        "--objects",
        type=names,
        metavar="A,B",
        help="object types to read (default: the connection's, all unless it says otherwise)",
    )
    stripe.set_defaults(source="stripe")
    _add_retry(commands)
    _add_auth(commands)
    check = _command(
        commands,
        "check",
        _check,
        "whether credentials, mailbox, quota and warehouse are there",
        "One line for each, with what to do about one that fails. Writes no data and no event.",
    )
    check.add_argument("source", nargs="?", choices=SOURCES, help="default: what is configured")
    _add_connection(check)
    _add_sandbox_size(check)
    build = _command(
        commands,
        "build",
        _build,
        "dbt build as a logged job",
        "Everything after the options goes to dbt build, such as --select. Unlike a plain"
        " dbt build, a project that does not compile is logged as job.failed too.",
    )
    build.usage = "run.py build [options] [DBT_ARGUMENT ...]"
    status = _command(commands, "status", _status, "the last runs, from the event log")
    status.add_argument("--limit", type=positive, default=10, help="runs to show (default 10)")
    status.add_argument("--json", action="store_true", help="as JSON, for programs")
    letters = _command(commands, "dead-letters", _dead_letters, "what could not be stored, and why")
    letters.add_argument("--limit", type=positive, default=50, help="rows to show (default 50)")
    letters.add_argument("--json", action="store_true", help="as JSON, for programs")
    copy = _command(
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
    return parser


def _command(
    commands: Any,
    name: str,
    run: Callable[[Any], int],
    help_text: str,
    more: str = "",
    *,
    has_target: bool = True,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}. {more}".strip()
    )
    parser.set_defaults(command=run)
    common = parser.add_argument_group("common options")
    if has_target:
        common.add_argument("--target", metavar="NAME", help="dbt target (default: the profile's)")
    common.add_argument(
        "--lock-wait",
        type=duration,
        default=60.0,
        metavar="TIME",
        help="how long to wait for a warehouse file or connection in use (default 60s)",
    )
    common.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="log lines (default text)"
    )
    common.add_argument("--debug", action="store_true", help="debug log lines and tracebacks")
    return parser


def _add_auth(commands: Any) -> None:
    auth = _command(
        commands,
        "auth",
        _auth,
        "connect a mailbox: its owner's consent, and the token for it",
        "Asks for read access only, and keeps the token in .dlt, readable by you alone."
        " docs/gmail.md says where the OAuth client comes from.",
        has_target=False,
    )
    auth.add_argument("source", choices=("gmail",))
    _add_connection(auth, "connection, configured or new (default: the only one)")
    auth.add_argument(
        "--client-secrets",
        type=Path,
        metavar="FILE",
        help="OAuth client of type Desktop app (default: the connection's client_secrets_file)",
    )
    auth.add_argument(
        "--no-browser",
        action="store_true",
        help="no browser on this machine: print the address, and take the answer pasted",
    )


def _add_retry(commands: Any) -> None:
    retry = _command(
        commands,
        "retry",
        _retry,
        "read what lies among the dead letters again",
        "A run of each connection that has some. What is stored this time leaves the dead letters,"
        " what fails again stays.",
    )
    retry.add_argument("source", nargs="?", choices=SOURCES, help="default: what is configured")
    _add_connections(retry, "all")
    _add_sandbox_size(retry)
    retry.set_defaults(dry_run=False)


def _add_connection(
    parser: argparse.ArgumentParser,
    help_text: str = "configured connection (default: the only one)",
) -> None:
    parser.add_argument("--connection", metavar="NAME", help=help_text)


def _add_connections(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--connection",
        action="append",
        metavar="NAME",
        help=f"configured connection, more than once for several (default: {default})",
    )
    parser.add_argument(
        "--all", dest="all_connections", action="store_true", help="all configured connections"
    )
    parser.add_argument(
        "--parallel",
        type=positive,
        default=1,
        metavar="N",
        help="of several connections, run so many at a time (default 1)",
    )
    parser.add_argument(ONE_OF_SEVERAL, help=argparse.SUPPRESS)


def _add_source_options(parser: argparse.ArgumentParser, unit: str) -> None:
    _add_connections(parser, "the only one")
    parser.add_argument("--since", type=moment, metavar="TIME", help=f"not older than: {FORMS}")
    parser.add_argument("--until", type=moment, metavar="TIME", help="older than: the same forms")
    parser.add_argument(
        "--full-resync", action="store_true", help="read everything again, held or not"
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="objects in a load package, 64 MB at most (default: 5000, more if it goes fast)",
    )
    parser.add_argument(
        "--max-duration",
        type=duration,
        default=3000.0,
        metavar="TIME",
        help="stop fetching after so long, then merge and check (default 50m)",
    )
    parser.add_argument(
        "--max-objects", type=positive, metavar="N", help="fetch at most so many objects"
    )
    parser.add_argument(
        "--until-done", action="store_true", help="go on in further runs until nothing is left"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="fetch and count; write nothing, not even events"
    )
    _add_sandbox_size(parser, unit)


def _add_sandbox_size(parser: argparse.ArgumentParser, unit: str = "messages or charges") -> None:
    sandbox = parser.add_argument_group("sandbox (when no connection is configured)")
    sandbox.add_argument(
        "--sandbox-size", type=positive, metavar="N", help=f"{unit} (default: some hundred)"
    )


def _fetch(options: argparse.Namespace) -> int:
    if options.since and options.until and options.since >= options.until:
        raise UsageError("--since: expected a time before --until")
    return _source_command("fetch", options)


def _retry(options: argparse.Namespace) -> int:
    return _source_command("retry", options)


def _check(options: argparse.Namespace) -> int:
    return _source_command("check", options)


def _source_command(name: str, options: argparse.Namespace) -> int:
    configure_dlt()
    from loaders import source_command

    command: Callable[..., int] = getattr(source_command, name)
    return command(options, _open_warehouse(options))


def _auth(options: argparse.Namespace) -> int:
    configure_dlt()
    from loaders.sources.gmail.authorization import authorise, connection_to_authorise

    connection = connection_to_authorise(options.connection)
    authorise(connection, options.client_secrets, has_browser=not options.no_browser)
    return 0


def _open_warehouse(options: argparse.Namespace) -> Warehouse:
    from loaders.warehouse import open_warehouse

    return open_warehouse(load_target(options.target), options.lock_wait)


def _build(options: argparse.Namespace) -> int:
    configure_dlt()
    from loaders import transform
    from loaders.job import Job, run_supervised
    from loaders.warehouse import open_warehouse

    warehouse = open_warehouse(load_target(options.target), options.lock_wait)
    arguments: list[str] = options.dbt_arguments
    job = Job(
        warehouse, job_name="build", source_system="dbt", parameters={"dbt_arguments": arguments}
    )

    def work() -> None:
        job.start()
        try:
            job.step = "merge"
            with warehouse.open():
                result = transform.build(
                    warehouse.target, job.correlation_id, arguments, quiet=False
                )
                counts = transform.merge_counts(warehouse, job.correlation_id)
                job.step = "check" if not result.error or result.failed else "merge"
                if result.error:
                    raise result.error
                job.complete({**counts, "tests": result.tests, "merge": {}})
        except BaseException as error:
            job.fail(error)
            raise

    run_supervised(job, work)
    print(f"run: {job.correlation_id}")
    return 0


def _copy(options: argparse.Namespace) -> int:
    configure_dlt()
    from loaders.copying import WarehouseCopy
    from loaders.job import run_supervised
    from loaders.report import print_copies
    from loaders.warehouse import open_warehouse

    source = open_warehouse(load_target(options.source), options.lock_wait)
    target = open_warehouse(load_target(options.target), options.lock_wait)
    copy = WarehouseCopy(source, target)
    print(f"from: {source.target.shown}\nto:   {target.target.shown}\n")
    try:
        run_supervised(copy.job, copy.run)
    finally:
        if copy.results:
            print_copies(copy.results)
    print(f"run: {copy.job.correlation_id}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from loaders import status
    from loaders.warehouse import open_warehouse

    warehouse = open_warehouse(load_target(options.target), options.lock_wait)
    runs = status.last_runs(warehouse, options.limit)
    if options.json:
        print(json.dumps([run.as_json() for run in runs], indent=2))
    else:
        status.print_runs(runs)
    return 0


def _dead_letters(options: argparse.Namespace) -> int:
    from loaders import status
    from loaders.warehouse import open_warehouse

    warehouse = open_warehouse(load_target(options.target), options.lock_wait)
    letters = status.dead_letters(warehouse, options.limit)
    if options.json:
        print(json.dumps(letters, indent=2, default=str))
    else:
        status.print_dead_letters(letters)
    return 0
