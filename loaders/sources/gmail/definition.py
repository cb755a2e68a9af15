"""What Gmail is among the sources."""

from __future__ import annotations

from loaders.sources.definition import Definition
from loaders.sources.gmail.options import AUTHORISE, OPTIONS

SOURCE = Definition(
    name="gmail",
    summary="fetch a mailbox, merge it, check it",
    unit="messages",
    options=OPTIONS,
    lacks=("objects",),
    has_consent=True,
    how_to_connect=AUTHORISE,
    variables_of_others=r"(?i)GMAIL_\w+|GOOGLE_APPLICATION_CREDENTIALS",
)
