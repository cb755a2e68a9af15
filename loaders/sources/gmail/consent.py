"""What the owner of a mailbox is asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

from loaders.objects.items import ObservationClock
from loaders.settings.connection import Connection
from loaders.sources.contract import FetchRequest, Usage
from loaders.sources.gmail.client import GmailClient
from loaders.sources.gmail.options import API, GmailConfig
from loaders.sources.google_api import Consent

if TYPE_CHECKING:
    from loaders.warehouse.contents import Stored


def _prove(connection: Connection, credentials: Any) -> str:
    """Read the profile, as a run does. Raises SourceError."""
    request = FetchRequest(
        clock=ObservationClock(),
        usage=Usage(),
        stored=cast("Stored", None),  # the profile asks for nothing stored
        cancelled=threading.Event(),
    )
    client = GmailClient(connection.name, credentials, GmailConfig.from_connection(connection))
    return f"mailbox: {client.profile(request).get('emailAddress')}"


CONSENT = Consent(API, "the mailbox", _prove)
