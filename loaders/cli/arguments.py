"""What the parsers of several commands share: options, and how their values are read."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from loaders.cli.processes import ONE_OF_SEVERAL
from loaders.errors import UsageError
from loaders.settings.places import DEFAULT_LOCK_WAIT
from loaders.settings.target import load_target
from loaders.settings.times import parse_duration, parse_time

if TYPE_CHECKING:
    from loaders.warehouse.base import Warehouse


def add_command(
    commands: Any,
    name: str,
    run: Callable[[Any], int],
    help_text: str,
    more: str = "",
    *,
    has_target: bool = True,
    is_action: bool = False,
) -> argparse.ArgumentParser:
    """Add a command, with the options that all have; `run` takes options, returns an exit code.

    With `is_action` a command of a command: what it is not told stays as that one was told.
    """

    def default(value: Any) -> Any:
        return argparse.SUPPRESS if is_action else value

    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}. {more}".strip()
    )
    parser.set_defaults(command=run)
    common = parser.add_argument_group("common options")
    if has_target:
        common.add_argument(
            "--target",
            default=default(None),
            metavar="NAME",
            help="dbt target (default: the profile's)",
        )
    common.add_argument(
        "--lock-wait",
        type=duration,
        default=default(DEFAULT_LOCK_WAIT),
        metavar="TIME",
        help="how long to wait for a warehouse file or connection in use (default 5m)",
    )
    common.add_argument(
        "--log-format",
        choices=("text", "json"),
        default=default("text"),
        help="log lines (default text)",
    )
    common.add_argument(
        "--debug",
        action="store_true",
        default=default(False),
        help="debug log lines and tracebacks",
    )
    return parser


def add_connection(
    parser: argparse.ArgumentParser,
    help_text: str = "configured connection (default: the only one)",
) -> None:
    """Add --connection, for one."""
    parser.add_argument("--connection", metavar="NAME", help=help_text)


def add_connections(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --connection, for several, --all and --parallel."""
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


def add_sandbox_size(parser: argparse.ArgumentParser, unit: str = "messages or charges") -> None:
    """Add --sandbox-size."""
    sandbox = parser.add_argument_group("sandbox (when no connection is configured)")
    sandbox.add_argument(
        "--sandbox-size", type=positive, metavar="N", help=f"{unit} (default: some hundred)"
    )


def warehouse_of(options: argparse.Namespace) -> Warehouse:
    """The warehouse that the options name. Raises ConfigError."""
    from loaders.warehouse.opening import open_warehouse

    return open_warehouse(load_target(options.target), options.lock_wait)


def agrees(command: str, question: str) -> bool:
    """Whether the person at the terminal says yes. Raises UsageError where nobody is there."""
    if not sys.stdin.isatty():
        raise UsageError(f"{command}: nobody is there to ask; expected --yes")
    return input(f"{question} [y/N] ").lower() == "y"


def bind_relative_times(arguments: Sequence[str]) -> list[str]:
    """`--since -7d` as `--since=-7d`: argparse would take -7d for an option."""
    bound: list[str] = []
    for argument in arguments:
        if bound and bound[-1] in ("--since", "--until") and argument.startswith("-"):
            bound[-1] += f"={argument}"
        else:
            bound.append(argument)
    return bound


def moment(text: str) -> dt.datetime:
    """A moment, for argparse."""
    try:
        return parse_time(text, dt.datetime.now(dt.UTC))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def duration(text: str) -> float:
    """Seconds, for argparse."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1")
    return number


def positive_or_auto(text: str) -> int | None:
    """A whole number from 1, or None for `auto`, for argparse."""
    return None if text == "auto" else positive(text)


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them, for argparse."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
