"""What a run tells about itself while it works."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a run tells about itself while it works."""

    def expect(self, objects: int) -> None:
        """So many more objects will be fetched."""

    def advance(self) -> None:
        """One of them is done."""

    def note(self, text: str) -> None:
        """The run has reached another step."""

    def stop(self) -> None:
        """Fetching is over."""


class NullProgress:
    """Says nothing."""

    def expect(self, objects: int) -> None:
        """Ignore."""

    def advance(self) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""

    def stop(self) -> None:
        """Ignore."""
