"""Whether what a run needs is there: one line a part, and what to do about one that is not."""

from __future__ import annotations

from loaders.errors import LandfallError, describe


class CheckLines:
    """Prints the lines as they come; `has_failed` once one of them has."""

    def __init__(self) -> None:
        self.has_failed = False

    def ok(self, part: str, text: str) -> None:
        """The part works."""
        self._print(part, "ok", text)

    def failed(self, part: str, error: LandfallError | str) -> None:
        """The part does not work; the text says what to do."""
        self.has_failed = True
        self._print(part, "FAILED", error if isinstance(error, str) else describe(error))

    def nothing(self, part: str, text: str) -> None:
        """There is nothing to say of the part, and why."""
        self._print(part, "-", text)

    @staticmethod
    def _print(part: str, state: str, text: str) -> None:
        print(f"{part:<13}{state:<8}{text}", flush=True)
