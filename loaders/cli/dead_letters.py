"""`run.py dead-letters`: what could not be stored, why, and that it is given up."""

from __future__ import annotations

import argparse
import json
from typing import Any

from loaders.cli.arguments import add_command, positive, warehouse_of
from loaders.errors import UsageError


def add(commands: Any) -> None:
    """Add the command, and what it does besides listing."""
    letters = add_command(
        commands,
        "dead-letters",
        _list,
        "what could not be stored, and why",
        'Lists them; "run.py retry" tries them again.',
    )
    _add_list_options(letters)
    actions = letters.add_subparsers(metavar="ACTION")
    listed = add_command(actions, "list", _list, "list them (the default)", is_action=True)
    _add_list_options(listed, is_action=True)
    show = add_command(actions, "show", _show, "all that is known of one", is_action=True)
    _add_id(show)
    show.add_argument("--payload", action="store_true", help="its text too, which is content")
    show.add_argument("--json", action="store_true", help="as JSON, for programs")
    dropped = add_command(
        actions,
        "drop",
        _drop,
        "give one up",
        "It stays in the table with the reason and the time, and counts as settled.",
        is_action=True,
    )
    _add_id(dropped)
    dropped.add_argument("--reason", required=True, metavar="TEXT", help="why, kept with it")
    dropped.add_argument(
        "--erase-payload",
        action="store_true",
        help="and remove its text, which is content, here and in older letters of its object",
    )


def _add_list_options(parser: argparse.ArgumentParser, *, is_action: bool = False) -> None:
    """What an action is not told stays as the command was told."""
    limit, as_json = (argparse.SUPPRESS, argparse.SUPPRESS) if is_action else (50, False)
    parser.add_argument("--limit", type=positive, default=limit, help="rows to show (default 50)")
    parser.add_argument(
        "--json", action="store_true", default=as_json, help="as JSON, for programs"
    )


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="of the letter, or how it begins")


def _list(options: argparse.Namespace) -> int:
    from loaders.cli import output
    from loaders.monitoring import health

    warehouse = warehouse_of(options)
    letters = health.dead_letters(warehouse, options.limit)
    if options.json:
        print(json.dumps(letters, indent=2, default=str))
    else:
        output.print_dead_letters(letters)
    return 0


def _show(options: argparse.Namespace) -> int:
    _, letter = _found(options)
    fields = letter.as_json(with_payload=options.payload)
    if options.json:
        print(json.dumps(fields, indent=2, default=str))
        return 0
    if not options.payload:
        kept = "-" if letter.payload is None else f"{len(letter.payload):,} characters, --payload"
        fields["payload"] = kept
    width = max(map(len, fields)) + 2
    for name, value in fields.items():
        print(f"{name + ':':<{width}}{'-' if value is None else value}")
    return 0


def _drop(options: argparse.Namespace) -> int:
    from loaders.warehouse.dead_letters import drop

    if not options.reason.strip():
        raise UsageError("dead-letters drop: --reason: expected why it is given up, got nothing")
    warehouse, letter = _found(options)
    drop(warehouse, letter, options.reason, keep_payload=not options.erase_payload)
    print(f"dropped: {letter.dead_letter_id} ({letter.object_type} {letter.external_id or '-'})")
    return 0


def _found(options: argparse.Namespace) -> tuple[Any, Any]:
    from loaders.transform import bootstrap
    from loaders.warehouse.dead_letters import find_letter

    warehouse = warehouse_of(options)
    if not bootstrap.has_tables(warehouse):
        raise UsageError("dead-letters: there is no warehouse yet, and so no dead letter")
    with warehouse.open():
        return warehouse, find_letter(warehouse, options.id)
