"""Quota units per minute and user, as the Gmail API counts them.

Source: Gmail API v1, "Usage limits".
"""

import threading
import time
from typing import Any

DEFAULT_UNITS_PER_MINUTE = 15_000


class Quota:
    """Counts units; refuses requests over the limit while one is set."""

    def __init__(self, costs: dict[str, int]) -> None:
        """Start without a limit; `costs` are the units of each method."""
        self._defaults = costs
        self._lock = threading.Lock()
        self.reset_counters()
        self.configure(None)

    def configure(self, settings: dict[str, Any] | None) -> None:
        """Set the limit, or lift it with None.

        Keys: "units_per_minute" (default 15000), "costs" ({method: units}, over the defaults),
        "window_seconds" (default 60). Raises ValueError for another key or method.
        """
        known = {"units_per_minute", "costs", "window_seconds"}
        if unknown := (settings or {}).keys() - known:
            raise ValueError(f"quota: unknown setting {sorted(unknown)}; known: {sorted(known)}")
        chosen = settings or {}
        if unknown := chosen.get("costs", {}).keys() - self._defaults.keys():
            raise ValueError(f"quota: unknown method {sorted(unknown)}")
        self._limit = None
        if settings is not None:
            self._limit = int(chosen.get("units_per_minute", DEFAULT_UNITS_PER_MINUTE))
        self._costs: dict[str, int] = self._defaults | chosen.get("costs", {})
        self._window_seconds = float(chosen.get("window_seconds", 60))
        self._window_start = time.monotonic()
        self._used: dict[str, int] = {}

    def reset_counters(self) -> None:
        """Start counting accepted units and refused requests from zero."""
        self.units = 0
        self.refused = 0

    def cost(self, method: str) -> int:
        """Return the units one call of `method` costs."""
        return self._costs.get(method, 0)

    def take(self, method: str, user: str) -> bool:
        """Use up the call's units; return False, using none, when they are over the limit."""
        with self._lock:
            self._open_window()
            used = self._used.get(user, 0) + self.cost(method)
            if self._limit is not None and used > self._limit:
                self.refused += 1
                return False
            self._used[user] = used
            self.units += self.cost(method)
            return True

    def _open_window(self) -> None:
        passed = time.monotonic() - self._window_start
        if passed >= self._window_seconds:
            # Windows follow each other: whoever was silent at an edge doesn't move the next one.
            self._window_start += passed // self._window_seconds * self._window_seconds
            self._used.clear()
