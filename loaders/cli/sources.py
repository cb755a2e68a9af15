"""`run.py gmail`, `stripe`, `retry` and `check`: the commands that read a source."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

from loaders.cli.arguments import (
    add_command,
    add_connection,
    add_connections,
    add_sandbox_size,
    duration,
    moment,
    names,
    positive,
    positive_or_auto,
    warehouse_of,
)
from loaders.errors import UsageError
from loaders.settings.places import configure_dlt
from loaders.settings.times import FORMS
from loaders.sources.registry import SOURCES, definition


def add(commands: Any) -> None:
    """Add the commands."""
    for name in SOURCES:
        source = definition(name)
        parser = add_command(commands, name, _fetch, source.summary)
        _add_source_options(parser, source.unit)
        parser.set_defaults(source=name)
    _add_retry(commands)
    check = add_command(
        commands,
        "check",
        _check,
        "whether credentials, mailbox, quota and warehouse are there",
        "One line for each, with what to do about one that fails. Writes no data and no event.",
    )
    check.add_argument("source", nargs="?", choices=SOURCES, help="default: what is configured")
    add_connection(check)
    add_sandbox_size(check)


def _add_retry(commands: Any) -> None:
    retry = add_command(
        commands,
        "retry",
        _retry,
        "read what lies among the dead letters again",
        "A run of each connection that has some. What is stored this time leaves the dead letters,"
        " what fails again stays. Those of a connection that is not configured are left out, with a"
        " warning and exit code 1.",
    )
    retry.add_argument("source", nargs="?", choices=SOURCES, help="default: what is configured")
    add_connections(retry, "all")
    _add_accept_deletions(retry)
    _add_full_check(retry)
    add_sandbox_size(retry)
    retry.set_defaults(retry=True, dry_run=False)


def _add_source_options(parser: argparse.ArgumentParser, unit: str) -> None:
    add_connections(parser, "the only one")
    parser.add_argument("--since", type=moment, metavar="TIME", help=f"not older than: {FORMS}")
    parser.add_argument("--until", type=moment, metavar="TIME", help="older than: the same forms")
    parser.add_argument(
        "--full-resync", action="store_true", help="read everything again, held or not"
    )
    _add_accept_deletions(parser)
    _add_full_check(parser)
    parser.add_argument(
        "--objects",
        type=names,
        metavar="A,B",
        help="object types to read (default: the connection's, all unless it says otherwise)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive_or_auto,
        metavar="N",
        help="objects in a load package, 64 MB at most, or auto: as many as this connection's"
        " runs have taught (default auto)",
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
        "--skip-if-running",
        action="store_true",
        help="exit 0 at once when another run of the connection goes on, as for a schedule by the"
        " minute; without it a run waits for --lock-wait, and exits 75",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="fetch and count; write nothing, not even events"
    )
    add_sandbox_size(parser, unit)


def _add_accept_deletions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accept-deletions",
        action="store_true",
        help="bury what vanished, also where that is more than 10 objects and more than"
        " max_deletions_percent of their type, which fails a run without it",
    )


def _add_full_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--full-check",
        action="store_true",
        help="test the whole store in this run, which runs do every full_check_hours"
        " (dbt_project.yml), and not only what it touches",
    )


def _fetch(options: argparse.Namespace) -> int:
    if options.since and options.until and options.since >= options.until:
        raise UsageError("--since: expected a time before --until")
    source = definition(options.source)
    for name in source.lacks:
        if getattr(options, name):
            raise UsageError(f"{source.name}: --{name.replace('_', '-')} is not supported")
    known = source.object_types
    unknown = sorted(set(options.objects or ()) - set(known))
    if options.objects is not None and (unknown or not options.objects):
        raise UsageError(
            f"--objects: expected some of {', '.join(known)}; got {', '.join(unknown) or 'none'}"
        )
    return _source_command("source_runs", "fetch", options)


def _retry(options: argparse.Namespace) -> int:
    return _source_command("source_runs", "retry", options)


def _check(options: argparse.Namespace) -> int:
    return _source_command("check", "check", options)


def _source_command(module: str, name: str, options: argparse.Namespace) -> int:
    configure_dlt()
    command: Callable[..., int] = getattr(importlib.import_module(f"loaders.cli.{module}"), name)
    return command(options, warehouse_of(options))
