"""How much a run may read: the engine's word, which every source asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator


class Bounds:
    """How much more a run may read: by its time, and by its number of objects.

    A source takes what it is about to read, so that what it leaves can be gone on with, and says
    by `are_kept` that it does; any other is cut off where they are reached.
    """

    def __init__(
        self, max_objects: int | None = None, is_late: Callable[[], bool] = lambda: False
    ) -> None:
        self.is_reached = False
        """Whether something was left because of them."""
        self.are_kept = False
        """Whether the source keeps to them by itself."""
        self._was_asked = False
        self._most = self._left = max_objects
        self._is_late = is_late

    def take(self, count: int, *, whole: bool = False) -> int:
        """So many of `count` objects may be read; the first one always, or no run got on.

        With `whole` the first ones are granted all together, however many they are.
        """
        granted = 0 if self._was_asked and self.is_over else count
        self._was_asked = True
        if self._left is not None:
            if not (whole and self._left == self._most):
                granted = min(granted, self._left)
            self._left = max(0, self._left - granted)
        return granted

    def granted(self, ids: Iterable[str]) -> Iterator[str]:
        """Ids one by one, as many as may be read."""
        for object_id in ids:
            if not self.take(1):
                self.reach()
                return
            yield object_id

    def give_back(self, count: int) -> None:
        """So many were not there after all; of a negative number more than were asked for."""
        if self._left is not None:
            self._left = max(0, self._left + count)

    def reach(self) -> None:
        """Say that something is left because of them."""
        self.is_reached = True

    @property
    def is_used_up(self) -> bool:
        """Whether the number of objects is taken, unless some are given back."""
        return self._left == 0

    @property
    def is_over(self) -> bool:
        """Whether no more may be read."""
        return self.is_used_up or self._is_late()
