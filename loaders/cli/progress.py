"""Live progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from loaders.ingestion.progress import Progress

logger = logging.getLogger("landfall")

_LINE_SECONDS = 5.0


class LineProgress:
    """A line every five seconds: count, rate and time left."""

    def __init__(self) -> None:
        self._total = 0
        self._done = 0
        self._began: float | None = None
        self._next = 0.0

    def expect(self, objects: int) -> None:
        """Add to the total."""
        if self._began is None:
            self._began = time.monotonic()
            self._next = self._began + _LINE_SECONDS
        self._total += objects

    def advance(self) -> None:
        """Count one; print when the time has come."""
        self._done += 1
        if time.monotonic() >= self._next:
            self._print()
            self._next = time.monotonic() + _LINE_SECONDS

    def note(self, text: str) -> None:
        """Print the step."""
        logger.info(text)

    def stop(self) -> None:
        """Print the last count."""
        if self._total:
            self._print()

    def _print(self) -> None:
        rate = _rate(self._done, self._began)
        left = max(self._total - self._done, 0)
        eta = f", {left / rate:.0f} s left" if rate and left else ""
        logger.info("fetched %d of %d objects, %.0f/s%s", self._done, self._total, rate, eta)


class BarProgress:
    """A terminal bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._began: float | None = None
        self._done = 0
        self._total = 0
        self._bar = Progress(
            TextColumn("fetching"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}/s"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )
        self._task = self._bar.add_task("fetch", total=None, rate="0")

    def expect(self, objects: int) -> None:
        """Widen the bar."""
        if self._began is None:
            self._began = time.monotonic()
            self._bar.start()
        self._total += objects
        self._bar.update(self._task, total=self._total)

    def advance(self) -> None:
        """Move it by one."""
        self._done += 1
        rate = _rate(self._done, self._began)
        self._bar.update(self._task, advance=1, rate=f"{rate:.0f}")

    def note(self, text: str) -> None:
        """Print the step below the bar."""
        logger.info(text)

    def stop(self) -> None:
        """Leave the bar as it is and give the terminal back."""
        self._bar.stop()


def _rate(done: int, began: float | None) -> float:
    """Objects a second since fetching began."""
    return done / max(time.monotonic() - began, 1e-9) if began else 0.0


def new_progress() -> Progress:
    """A bar when stderr is a terminal, lines otherwise."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()
