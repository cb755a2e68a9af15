"""`run.py auth`: consent to read a mailbox."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from loaders.cli.arguments import add_command, add_connection
from loaders.settings.places import configure_dlt
from loaders.sources.registry import SOURCES, consent_of, definition


def add(commands: Any) -> None:
    """Add the command."""
    auth = add_command(
        commands,
        "auth",
        _auth,
        "connect a mailbox: its owner's consent, and the token for it",
        "Asks for read access only, and keeps the token in .dlt, readable by you alone."
        " docs/gmail.md says where the OAuth client comes from.",
        has_target=False,
    )
    auth.add_argument("source", choices=[name for name in SOURCES if definition(name).has_consent])
    add_connection(auth, "connection, configured or new (default: the only one)")
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


def _auth(options: argparse.Namespace) -> int:
    configure_dlt()
    from loaders.sources.google_consent import authorise, connection_to_authorise

    consent = consent_of(options.source)
    connection = connection_to_authorise(options.source, options.connection)
    authorise(connection, consent, options.client_secrets, has_browser=not options.no_browser)
    return 0
