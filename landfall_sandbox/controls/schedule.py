"""What happens to the mailbox, the Stripe account and the server while a client is at work."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_ENTRY_KEYS = {"after", "changes", "stripe_changes", "settings", "before_answer"}
_AFTER_KEYS = {"method", "id", "count"}


@dataclass(slots=True)
class Step:
    """Changes and settings that wait for the nth request of a method."""

    method: str
    object_id: str | None
    left: int
    is_before_answer: bool
    changes: dict[str, Any]
    settings: dict[str, Any]
    stripe_changes: dict[str, Any]
    outcome: dict[str, Any] | None = None

    def counts(self, method: str, object_id: str | None) -> bool:
        """Count a request; return whether it is the one."""
        if self.left == 0 or self.method not in ("*", method):
            return False
        if self.object_id not in (None, object_id):
            return False
        self.left -= 1
        return self.left == 0


class Schedule:
    """The steps in force. Each is taken once."""

    def __init__(self) -> None:
        """Start without steps."""
        self._lock = threading.Lock()
        self._steps: list[Step] = []

    def set(self, entries: Any, check: Callable[[Step], None]) -> None:
        """Replace all steps; `check` raises ValueError for changes that cannot be.

        An entry is {"after": {"method": name or "*", "id": optional, "count": n, default 1},
        "changes": as for `apply_changes`, "stripe_changes": as for `apply_stripe_changes`,
        "settings": as for `Sandbox.settings`}. Requests are counted from now on as they arrive,
        whatever becomes of them. The step is taken when the nth has been answered but not sent:
        its answer doesn't show the changes, and every request that is made because of it does.
        With "before_answer": true its own answer shows them.
        Raises ValueError for a malformed entry.
        """
        if not isinstance(entries, list):
            raise ValueError(f"schedule: expected a list, got {type(entries).__name__}")
        steps = [_parse(entry) for entry in entries]
        for step in steps:
            check(step)
        with self._lock:
            self._steps = steps

    def due(self, method: str, object_id: str | None) -> list[Step]:
        """Count a request and return the steps it sets off, in their order."""
        with self._lock:
            return [step for step in self._steps if step.counts(method, object_id)]

    def outcomes(self) -> list[dict[str, Any] | None]:
        """Return what became of each step, None while it waits."""
        with self._lock:
            return [step.outcome for step in self._steps]


def _parse(entry: Any) -> Step:
    _check_keys("entry", entry, _ENTRY_KEYS)
    after = entry.get("after")
    _check_keys("after", after, _AFTER_KEYS)
    count = int(after.get("count", 1))
    if count < 1:
        raise ValueError(f"schedule: count: expected a number from 1 on, got {count}")
    if not any(entry.get(key) for key in ("changes", "stripe_changes", "settings")):
        raise ValueError("schedule: an entry needs changes, stripe_changes or settings")
    return Step(
        method=after.get("method", "*"),
        object_id=after.get("id"),
        left=count,
        is_before_answer=bool(entry.get("before_answer")),
        changes=entry.get("changes", {}),
        settings=entry.get("settings", {}),
        stripe_changes=entry.get("stripe_changes", {}),
    )


def _check_keys(what: str, value: Any, known: set[str]) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"schedule: {what} must be an object, got {type(value).__name__}")
    if unknown := value.keys() - known:
        raise ValueError(f"schedule: unknown {what} key {sorted(unknown)}; known: {sorted(known)}")
