"""`run.py alert`: tell people what is wrong with a connection, for a scheduler."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Sequence
from typing import Any

from loaders.cli.arguments import add_command, warehouse_of
from loaders.errors import ConfigError
from loaders.settings.places import configure_dlt


def add(commands: Any) -> None:
    """Add the command."""
    alert = add_command(
        commands,
        "alert",
        _alert,
        "tell of connections that are late, silent, failing, or in need of a look",
        "To be run by a scheduler, every quarter of an hour, say. Tells once of each incident and"
        " once of its end, and again what could not be delivered. Exit code 1 when something"
        " could not; docs/alerts.md.",
    )
    alert.add_argument(
        "--test", action="store_true", help="send a message to each of alerts.urls instead"
    )


def _alert(options: argparse.Namespace) -> int:
    configure_dlt()
    from loaders.monitoring.alerts.channels import configured_channels
    from loaders.settings.private_files import warn_of_open_secrets

    warn_of_open_secrets("alerts")
    channels = configured_channels()
    if not channels:
        raise ConfigError(
            'alerts.urls: not configured; add [alerts] urls = ["mailto://…"] to'
            " .dlt/secrets.toml, or set ALERTS__URLS (docs/alerts.md)"
        )
    if options.test:
        return _test(channels)
    from loaders.monitoring.alerts import watch

    warehouse = warehouse_of(options)
    failed = [each for each in watch.watch(warehouse, channels) if each.error]
    _print_open(watch.open_incidents(warehouse))
    return 1 if failed else 0


def _test(channels: Sequence[Any]) -> int:
    from loaders.monitoring.alerts.channels import Message, send

    text = "This is what an alert looks like. Nothing is wrong."
    message = Message("Landfall: a test", text, "info")
    outcome = send(channels, message)
    for label, error in outcome.items():
        print(f"{label}: {f'NOT delivered: {error}' if error else 'delivered'}")
    return 1 if any(outcome.values()) else 0


def _print_open(incidents: Sequence[Any]) -> None:
    from loaders.cli.output import print_table
    from loaders.monitoring.alerts.messages import subject_of

    if not incidents:
        print("nothing is open")
        return
    print_table(
        ("of", "what", "since (UTC)", "told", "not delivered"),
        [
            (
                subject_of(each),
                each.kind if each.is_open else f"{each.kind}, over",
                f"{each.opened_at.astimezone(dt.UTC):%Y-%m-%d %H:%M}",
                each.told_to or "-",
                each.delivery_error or "-",
            )
            for each in incidents
        ],
    )
