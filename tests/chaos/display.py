"""How far a campaign is: a line that is rewritten on a terminal, else a line for each case."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from tests.chaos.harness import Outcome

_SHOWN_VIOLATIONS = 10
_CLEAR = "\r\x1b[K"


class Display:
    """Counts outcomes of `total` cases and shows them; `left` of them are still to be run."""

    def __init__(self, total: int, left: int, output: TextIO = sys.stdout) -> None:
        self._total = total
        self._left = left
        self._output = output
        self._is_terminal = output.isatty()
        self._began = time.monotonic()
        self._done = 0
        self._missed = 0
        self.failed = 0

    def show(self, outcome: Outcome, advice: Sequence[str]) -> None:
        """Count a case; `advice` says what to do about one that failed."""
        self._done += 1
        self._missed += not outcome.was_killed
        self.failed += not outcome.is_passed
        if not outcome.is_passed:
            self._print("\n      ".join([self._line(outcome), *_shown(outcome), *advice]))
        elif not self._is_terminal:
            self._print(self._line(outcome))
        if self._is_terminal and self._done < self._left:
            self._output.write(f"{_CLEAR}{self._progress()}  {outcome.case.name}")
        self._output.flush()

    def close(self) -> None:
        """Say how it ended."""
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        passed = self._done - self.failed
        before = self._total - self._left
        earlier = f", {before} passed before" if before else ""
        skipped = self._left - self._done
        missing = f", {skipped} not run" if skipped else ""
        too_late = f"; {self._missed} had ended before their instant" if self._missed else ""
        counts = f"{passed} passed, {self.failed} failed{earlier}{missing}{too_late}"
        self._print(f"{counts}; {minutes} min {seconds} s")

    def _line(self, outcome: Outcome) -> str:
        verdict = "ok  " if outcome.is_passed else "FAIL"
        return (
            f"{verdict} {outcome.case.name:<48} exit {outcome.exit_code:>4}"
            f" {outcome.seconds:6.1f} s  {self._progress()}"
        )

    def _progress(self) -> str:
        elapsed = time.monotonic() - self._began
        minutes = elapsed / self._done * (self._left - self._done) / 60
        number = self._total - self._left + self._done
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{number}/{self._total}{failed}, {minutes:.0f} min left"

    def _print(self, text: str) -> None:
        self._output.write(f"{_CLEAR if self._is_terminal else ''}{text}\n")
        self._output.flush()


def _shown(outcome: Outcome) -> list[str]:
    shown = list(outcome.violations[:_SHOWN_VIOLATIONS])
    hidden = len(outcome.violations) - len(shown)
    return [*shown, *([f"and {hidden} more"] if hidden else [])]
