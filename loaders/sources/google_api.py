"""What sources that read from Google ask for; no import of Google's libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from loaders.settings.connection import Connection


@dataclasses.dataclass(frozen=True)
class GoogleApi:
    """What a source asks Google for, and where a person reads more of it."""

    scopes: tuple[str, ...]
    authorise: str
    """The command that gets a connection a token, with `{connection}` in it."""
    page: str
    """Of the documentation."""


@dataclasses.dataclass(frozen=True)
class Consent:
    """What an owner is asked for, and how its token is tried."""

    api: GoogleApi
    what: str
    """The owner's, as a person calls it."""
    prove: Callable[[Connection, Any], str]
    """Uses the credentials, and returns a line that says whose data they open."""
