"""The brake on mass deletions: what vanishes at once is buried only when that was expected.

A narrowed token, a lost permission or a filter look as if all it hides were deleted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from loaders.errors import LandfallError
from loaders.objects.items import Cursor, Deleted, Item, Listed
from loaders.sources.contract import FetchRequest

FEW = 10
"""Objects of a type that may vanish in a run, whatever their share."""


class DeletionsHeldBack(LandfallError):
    """More objects vanished at once than is believed; none is buried, everything else is stored."""

    def __init__(self, command: str, vanished: Mapping[str, tuple[int, int]]) -> None:
        counts = ", ".join(f"{n:,} of {held:,} {name}" for name, (n, held) in vanished.items())
        super().__init__(
            f"{counts} object(s) vanished at once: nothing is buried, all else is stored; see"
            " whether the credentials still show them; if they are deleted indeed, run"
            f" {command} --accept-deletions"
        )


class Brake:
    """Holds back a run's tombstones, and the cursors behind them, until all of them are known.

    `vanished` says, by object type, how many vanished of how many held where those are too many.
    """

    def __init__(self, request: FetchRequest) -> None:
        self.vanished: dict[str, tuple[int, int]] = {}
        self._request = request
        self._tombstones: dict[tuple[str, str], Deleted] = {}
        self._cursors: dict[str, Cursor] = {}
        self._counts: Counter[str] = Counter()
        self._held: dict[str, int] = {}

    def guard(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; tombstones, and the cursors that cover them, at the end or not at all."""
        request = self._request
        for item in items:
            if request.options.accept_deletions or request.dry_run:
                yield item
            elif isinstance(item, Deleted):
                yield from self._hold_back(item)
            elif isinstance(item, Cursor) and self._tombstones:
                self._cursors[item.stream] = item
            else:
                yield item
        yield from self._release()

    def _hold_back(self, item: Deleted) -> Iterator[Item]:
        known = self._tombstones.get((item.object_type, item.external_id))
        if known is not None:  # as long as they are held back, sources may find some once more
            yield Listed(-1)
            with_owner = known.with_owner or item.with_owner
            self._counts[item.object_type] -= with_owner and not known.with_owner
            item = dataclasses.replace(known, with_owner=with_owner)
        else:
            self._counts[item.object_type] += not item.with_owner
        self._tombstones[item.object_type, item.external_id] = item
        if self._counts[item.object_type] > FEW and item.object_type not in self._held:
            # Now, as what this run lands counts as held from then on.
            held = self._request.stored.held_ids(item.object_type)
            self._held[item.object_type] = sum(1 for _ in held)

    def _release(self) -> Iterator[Item]:
        for name, held in self._held.items():
            count = self._counts[name]
            if count > FEW and 100 * count > self._request.outcome.max_deletions_percent * held:
                self.vanished[name] = count, held
        if self.vanished:
            yield Listed(-len(self._tombstones))
            return
        yield from self._tombstones.values()
        yield from self._cursors.values()
