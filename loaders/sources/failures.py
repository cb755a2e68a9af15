"""What a run failed on: the objects' fault, or an outage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from loaders.errors import ForeignAnswer, SourceError

Key = TypeVar("Key")


class Failures(Generic[Key]):
    """Objects that a run failed on.

    An object that fails for the first time is kept in `unfetched`, for the next run. What fails
    once more is to blame itself and is set aside, provided that the source answers otherwise: an
    outage is no object's fault, and neither is what somebody else answers.
    """

    def __init__(
        self, before: Mapping[Key, int], is_answering: Callable[[Key], bool], suspicious: int
    ) -> None:
        """`before` says how often earlier runs failed on an object.

        `is_answering` asks the source for something else than the object, which it is given; it
        may raise SourceError. It is asked where an object could be to blame, and after so many
        failures in a row as are `suspicious`.
        """
        self.unfetched: dict[Key, SourceError] = {}
        """Objects for the next run."""
        self._before = before
        self._is_answering = is_answering
        self._suspicious = suspicious
        self._in_a_row = 0

    def attempts(self, key: Key) -> int:
        """Runs that tried to read an object, this one included."""
        return self._before.get(key, 0) + 1

    def is_to_blame(self, key: Key, error: SourceError) -> bool:
        """Whether an object that failed is to be set aside; if not it is kept in `unfetched`."""
        self._in_a_row += 1
        may_be, answers = self.attempts(key) > 1, True
        if may_be or self._in_a_row >= self._suspicious:
            answers = self._is_answering(key)
            self._in_a_row = 0
        if may_be and answers and not isinstance(error, ForeignAnswer):
            return True
        self.unfetched[key] = error
        return False

    def succeeded(self, key: Key) -> None:
        """Take note of an object that could be read."""
        self._in_a_row = 0
        self.unfetched.pop(key, None)
