"""What a source says of itself before it is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection


@dataclasses.dataclass(frozen=True)
class Definition:
    """One source system: its command, its options, and what it cannot do."""

    name: str
    """Name of the system, as in `idem_key`."""
    summary: str
    """What its command does, for --help."""
    unit: str
    """What its objects are mostly: the size of its sandbox is a number of these."""
    options: Collection[str]
    """All that the configuration of a connection may say."""
    object_types: Collection[str] = ()
    """Those that a run may be asked for by name (`objects`)."""
    lacks: Collection[str] = ()
    """Fields of FetchOptions that it cannot honour: the command refuses them."""
    has_consent: bool = False
    """Whether its owner's consent is asked for in a browser: its module `consent` has CONSENT."""
    how_to_connect: str = ""
    """The command that connects one, with `{connection}` in it; none where a file does."""
    variables_of_others: str = r"(?!)"
    """Pattern of environment variables from which other programs take its credentials."""
