"""Dead letters on their way back: which objects are to be read again for them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

from loaders.objects.items import Item, Listed
from loaders.sources.contract import FetchRequest
from loaders.warehouse.dead_letters import DeadLetter

Key = TypeVar("Key")


class Wanted(Generic[Key]):
    """The objects that a retry reads, and the letters that ask for each."""

    def __init__(self) -> None:
        self.attempts: dict[Key, int] = {}
        """Objects in the order of their letters, and how often runs failed on each."""
        self._letter_ids: dict[Key, list[str]] = {}

    def add(self, key: Key, letter: DeadLetter) -> None:
        """A letter asks for an object."""
        self.attempts[key] = max(letter.attempts, self.attempts.get(key, 1))
        self._letter_ids.setdefault(key, []).append(letter.dead_letter_id)

    def settle(self, keys: Iterable[Key], request: FetchRequest) -> None:
        """The letters of these objects are dealt with."""
        for key in keys:
            request.outcome.settled += self._letter_ids.get(key, ())


def wanted_objects(
    request: FetchRequest,
    object_of: Callable[[DeadLetter], Key | None],
    object_types: Iterable[str] | None = None,
) -> Generator[Item, None, Wanted[Key]]:
    """The objects that letters are about, of these types where they are given.

    `object_of` names the object to read for a letter; None for one without, whose text is yielded
    once more.
    """
    request.outcome.mode = "retry"
    wanted = Wanted[Key]()
    for letter in request.letters:
        if object_types is not None and letter.object_type not in object_types:
            continue
        if (key := object_of(letter)) is not None:
            wanted.add(key, letter)
        elif letter.payload is not None:
            yield Listed(1)
            yield letter.observed(letter.payload)
            request.outcome.settled.append(letter.dead_letter_id)
    return wanted
