"""Options that a connection of any source takes."""

from __future__ import annotations

import dataclasses

from loaders.settings.options import within

LEAST_SECONDS = 0.001
"""Of a timeout: with none nothing is ever read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What the engine goes by; a source has defaults of its own."""

    max_deletions_percent: float = within(5.0, 0, 100)
    """Of the held objects of a type, so many may vanish in a run without --accept-deletions."""
    workers: int = within(10, 1)
    """Requests under way at a time."""
    max_attempts: int = within(6, 1)
    backoff_seconds: float = within(1.0, 0)
    """Before the second attempt; doubled for each that follows."""
    timeout_seconds: float = within(60.0, LEAST_SECONDS)
