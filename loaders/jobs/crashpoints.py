"""Named instants of a run at which the kill harness (tests/chaos) may end the process."""

from __future__ import annotations

from collections.abc import Callable

NAMES = (
    "start.before_event",
    "start.after_event",
    "extract.first_object",
    "land.before_extract",
    "land.extracted",
    "land.normalized",
    "land.loaded",
    "ingestion.after_event",
    "merge.before",
    "merge.after",
    "end.before_event",
    "end.after_event",
)

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Call `hook` with the name of each point as it is reached."""
    global _hook
    _hook = hook


def reached(name: str) -> None:
    """Say that a point is reached; nothing happens unless a harness listens."""
    if _hook is not None:
        _hook(name)
