"""A Stripe account: generated from a seed, of any size, plus the changes in its overlay."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any

from landfall_sandbox.stripe import billing
from landfall_sandbox.stripe.kinds import KINDS
from landfall_sandbox.stripe.layout import first_where
from landfall_sandbox.stripe.ledger import Ledger
from landfall_sandbox.stripe.overlay import FIRST_CREATED, Entry, Overlay, StripeFile
from landfall_sandbox.stripe.templates import pretty

Key = tuple[float, float]
"""What objects are sorted by: when they were created, and their index."""

CHOSEN_IDS = " ids"
"""Ends the overlay's kind for ids that are not generated, by the object's index."""

LINES = "invoice_lines"
"""The overlay's kind for all lines of a changed invoice, by the invoice's index."""


class Account:
    """An account that stores nothing but its changes.

    Object `i` of a kind is a function of (seed, charges, anchor, i). Objects that were created
    later have indexes of their own, from FIRST_CREATED on.
    """

    def __init__(self, file: StripeFile, number: int, ledger: Ledger, account_id: str) -> None:
        """Serve what `ledger` generates with the changes the file has for account `number`."""
        self.ledger = ledger
        self.id = account_id
        self.overlay = Overlay(file, number)

    def index_of(self, kind: str, object_id: str) -> int | None:
        """Return the index of an object that exists or existed; None for any other id."""
        index = self._decode(kind, object_id)
        if index is None:
            return None
        is_known = index in self.overlay.entries[kind] or index < self._count(kind)
        return index if is_known else None

    def _decode(self, kind: str, object_id: str) -> int | None:
        index = self.ledger.ids[kind].decode(object_id)
        if index is not None:
            return index
        chosen = self.overlay.entries[kind + CHOSEN_IDS].items()
        return next((index for index, entry in chosen if entry.text == object_id), None)

    def _count(self, kind: str) -> int:
        return 0 if kind == "event" else self.ledger.layout.count(kind)

    def is_live(self, kind: str, index: int) -> bool:
        """Return whether a known object was not deleted."""
        entry = self.overlay.entries[kind].get(index)
        return entry is None or entry.text is not None

    def text(self, kind: str, index: int) -> str:
        """Return the text of a live object, not signed yet."""
        entry = self.overlay.entries[kind].get(index)
        if entry is None:
            return KINDS[kind].render(self.ledger, index)
        assert entry.text is not None
        return entry.text

    def value(self, kind: str, index: int) -> dict[str, Any]:
        """Return a live object, its addresses not signed yet."""
        value: dict[str, Any] = json.loads(self.text(kind, index))
        return value

    def created(self, kind: str, index: int) -> int:
        """Return when a known object was created, in epoch seconds."""
        if index < FIRST_CREATED:
            return self.ledger.layout.created(kind, index)
        return self.overlay.entries[kind][index].created

    def walk(self, kind: str, low: Key, high: Key, *, ascending: bool = False) -> Iterator[int]:
        """Yield the indexes of the live objects between two keys, newest first by default."""
        changed = self.overlay.entries[kind]
        for index in self._walk_all(kind, low, high, ascending):
            entry = changed.get(index)
            if entry is None or entry.text is not None:
                yield index

    def _walk_all(self, kind: str, low: Key, high: Key, ascending: bool) -> Iterator[int]:
        """Merge what was generated with what was created, both of them in order."""
        created = self.overlay.created[kind]
        start, stop = self._generated_below(kind, low, True), self._generated_below(kind, high)
        between = created[bisect_right(created, low) : bisect_left(created, high)]
        if ascending:
            for key in between:
                border = self._generated_below(kind, key)
                yield from range(start, border)
                start = border
                yield key[1]
            yield from range(start, stop)
        else:
            for key in reversed(between):
                border = self._generated_below(kind, key)
                yield from range(stop - 1, border - 1, -1)
                stop = border
                yield key[1]
            yield from range(stop - 1, start - 1, -1)

    def _generated_below(self, kind: str, key: Key, or_equal: bool = False) -> int:
        """Return how many generated objects have a key below `key`."""
        count = self._count(kind)
        created = self.ledger.layout.created
        if count == 0 or key[0] > self.ledger.layout.anchor:
            return count
        if or_equal:
            return first_where(count, lambda index: (created(kind, index), index) > key)
        return first_where(count, lambda index: (created(kind, index), index) >= key)

    def put(self, kind: str, value: dict[str, Any], tag: str = "") -> None:
        """Keep the present state of an object, inside a transaction."""
        index = self._decode(kind, value["id"])
        assert index is not None
        self.overlay.put(kind, index, Entry(value["created"], pretty(value), tag))

    def delete(self, kind: str, index: int) -> None:
        """Delete an object for good, inside a transaction."""
        self.overlay.put(kind, index, Entry(self.created(kind, index), None))

    def new_id(self, kind: str) -> str:
        """Return the id for an object to be created, inside a transaction."""
        return self.ledger.id(kind, self.overlay.new_index())

    def choose_id(self, kind: str, object_id: str) -> str:
        """Return a chosen id for an object to be created, inside a transaction."""
        self.overlay.put(kind + CHOSEN_IDS, self.overlay.new_index(), Entry(0, object_id))
        return object_id

    def line_count(self, invoice: int) -> int:
        """Return how many lines an invoice has."""
        kept = self._kept_lines(invoice)
        return billing.line_count(invoice) if kept is None else len(kept)

    def lines(self, invoice: int) -> list[str]:
        """Return the texts of all lines of an invoice, in their order."""
        kept = self._kept_lines(invoice)
        if kept is not None:
            return [pretty(line) for line in kept]
        count = billing.line_count(invoice)
        return [billing.line(self.ledger, invoice, number) for number in range(count)]

    def _kept_lines(self, invoice: int) -> list[dict[str, Any]] | None:
        entry = self.overlay.entries[LINES].get(invoice)
        if entry is None or entry.text is None:
            return None
        lines: list[dict[str, Any]] = json.loads(entry.text)
        return lines

    def put_lines(self, invoice: int, lines: list[dict[str, Any]]) -> None:
        """Keep all lines of an invoice, inside a transaction."""
        self.overlay.put(LINES, invoice, Entry(0, json.dumps(lines, ensure_ascii=False)))

    def deleted(self, kind: str) -> list[str]:
        """Return the ids of the objects that were deleted."""
        entries = self.overlay.entries[kind].items()
        chosen = self.overlay.entries[kind + CHOSEN_IDS]
        return [
            str(chosen[index].text) if index in chosen else self.ledger.id(kind, index)
            for index, entry in entries
            if entry.text is None
        ]
