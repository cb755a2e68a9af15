"""Lists of Stripe objects: filters, cursors, pages.

Source: Stripe API reference, "Pagination" and the "List all …" page of each kind.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from landfall_sandbox.stripe import errors
from landfall_sandbox.stripe.account import Account, Key
from landfall_sandbox.stripe.kinds import SOURCES, Kind, Lookup, Scan, value_at
from landfall_sandbox.stripe.parameters import Parameters

_SUBSCRIPTION_STATUSES = (
    "active", "canceled", "ended", "incomplete", "incomplete_expired", "past_due", "paused",
    "trialing", "unpaid",
)  # fmt: skip
Test = Callable[[int], bool]


@dataclass(slots=True)
class Selection:
    """Which objects of a kind a request asks for: all that pass the tests, in a window of keys.

    With `candidates`, of the generated ones only those need be looked at.
    """

    low: Key = (-math.inf, -math.inf)
    high: Key = (math.inf, math.inf)
    candidates: set[int] | None = None
    tests: list[Test] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """The indexes on a page, newest first, and whether there are more in its direction."""

    indexes: list[int]
    has_more: bool


def filters_of(kind: Kind) -> list[str]:
    """Return the names of the filters that the list of a kind takes."""
    names = ["created", *kind.lookups, *kind.scans]
    own = {"event": ["type", "types[]"], "customer": ["email"], "balance_transaction": ["source"]}
    return names + own.get(kind.name, [])


def page(account: Account, kind: Kind, parameters: Parameters, window: tuple[Key, Key]) -> Page:
    """Return the page of a list that the parameters ask for. Raises ApiError (400).

    `window` are the keys between which objects of the kind can be seen at all.
    """
    limit, cursor = parameters.limit(), parameters.cursor()
    selection = _selection(account, kind, parameters)
    selection.low = max(selection.low, window[0])
    selection.high = min(selection.high, window[1])
    is_ascending = False
    if cursor is not None:
        name, object_id = cursor
        key = _cursor_key(account, kind, name, object_id, window)
        is_ascending = name == "ending_before"
        if is_ascending:
            selection.low = max(selection.low, key)
        else:
            selection.high = min(selection.high, key)
    found = list(islice(_matching(account, kind, selection, is_ascending), limit + 1))
    indexes = found[:limit]
    return Page(indexes[::-1] if is_ascending else indexes, len(found) > limit)


def _cursor_key(
    account: Account, kind: Kind, name: str, object_id: str, window: tuple[Key, Key]
) -> Key:
    index = account.index_of(kind.name, object_id)
    if index is not None and account.is_live(kind.name, index):
        key = account.created(kind.name, index), index
        if window[0] < key < window[1]:
            return key
    raise errors.missing_cursor(name, kind.name, object_id)


def _matching(
    account: Account, kind: Kind, selection: Selection, is_ascending: bool
) -> Iterator[int]:
    low, high = selection.low, selection.high
    if selection.candidates is None:
        indexes = account.walk(kind.name, low, high, ascending=is_ascending)
    else:
        indexes = _few(account, kind, selection, is_ascending)
    for index in indexes:
        if all(test(index) for test in selection.tests):
            yield index


def _few(account: Account, kind: Kind, selection: Selection, is_ascending: bool) -> Iterator[int]:
    """Yield the candidates and everything that changed, in order."""
    assert selection.candidates is not None
    count = account.ledger.layout.count(kind.name)
    known = {index for index in selection.candidates if index < count}
    known |= account.overlay.entries[kind.name].keys()
    keys = ((account.created(kind.name, index), index) for index in known)
    between = sorted(key for key in keys if selection.low < key < selection.high)
    for _, index in between if is_ascending else reversed(between):
        if account.is_live(kind.name, index):
            yield index


def _selection(account: Account, kind: Kind, parameters: Parameters) -> Selection:
    first, last = parameters.created()
    selection = Selection(low=(first, -math.inf), high=(last, math.inf))
    for name, lookup in kind.lookups.items():
        if (wanted := parameters.text(name)) is not None:
            _look_up(account, kind, selection, name, lookup, wanted)
    for name, scan in kind.scans.items():
        wanted = parameters.text(name)
        if wanted is None and (kind.name, name) == ("price", "active"):
            wanted = "true"  # inactive prices are listed when they are asked for
        _scan(account, kind, selection, name, scan, wanted)
    if kind.name == "event":
        _choose_types(account, selection, parameters)
    if kind.name == "customer" and (email := parameters.text("email")) is not None:
        _choose_email(account, selection, email)
    if kind.name == "balance_transaction" and (source := parameters.text("source")) is not None:
        _choose_source(account, selection, source)
    return selection


def _look_up(
    account: Account, kind: Kind, selection: Selection, name: str, lookup: Lookup, wanted: str
) -> None:
    index = account.index_of(lookup.kind, wanted)
    if index is None:
        raise errors.missing_cursor(name, lookup.kind, wanted)
    candidates = set(lookup.candidates(account.ledger, index))
    _narrow(selection, candidates)
    path = lookup.path or (name,)

    def refers(index: int) -> bool:
        # What a payout pays out doesn't say so itself; everything else names what it refers to.
        if lookup.kind == "payout" and index in candidates:
            return True
        return bool(value_at(account.value(kind.name, index), path) == wanted)

    selection.tests.append(refers)


def _scan(
    account: Account, kind: Kind, selection: Selection, name: str, scan: Scan, wanted: str | None
) -> None:
    if kind.name == "subscription" and name == "status":
        if wanted == "all":
            return
        if wanted is not None and wanted not in _SUBSCRIPTION_STATUSES:
            raise errors.bad_request(f"Invalid status: {wanted}", "status")
        hidden = wanted is None
        wanted = "canceled" if wanted in (None, "ended") else wanted
    else:
        hidden = False
    if wanted is None:
        return
    if name in ("active", "status", "type") and kind.name != "balance_transaction":
        _check_choice(kind, name, scan, wanted)
    if wanted not in scan.values:
        _narrow(selection, set())
    changed = account.overlay.entries[kind.name]

    def has(index: int) -> bool:
        if index not in changed:
            return (scan.value(account.ledger, index) == wanted) is not hidden
        value = account.value(kind.name, index)[name]
        return ((str(value).lower() if name == "active" else value) == wanted) is not hidden

    selection.tests.append(has)


def _check_choice(kind: Kind, name: str, scan: Scan, wanted: str) -> None:
    payout_statuses = {"paid", "pending", "failed", "canceled", "in_transit"}
    known = payout_statuses if kind.name == "payout" else scan.values
    if kind.name != "subscription" and wanted not in known:
        raise errors.bad_request(f"Invalid {name}: must be one of {sorted(known)}", name)


def _choose_types(account: Account, selection: Selection, parameters: Parameters) -> None:
    wanted, types = parameters.text("type"), parameters.texts("types")
    if wanted is not None and types:
        raise errors.bad_request("You may only specify one of type and types.", "type")
    patterns = types if wanted is None else [wanted]
    if not patterns:
        return
    events = account.overlay.entries["event"]
    exact = {pattern for pattern in patterns if not pattern.endswith("*")}
    starts = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))

    def is_wanted(index: int) -> bool:
        tag = events[index].tag
        return tag in exact or tag.startswith(starts)

    selection.tests.append(is_wanted)


def _choose_email(account: Account, selection: Selection, email: str) -> None:
    number = email.partition("@")[0].rpartition(".")[2]
    # A number of 12 digits is more than any generated customer has.
    is_number = number.isdecimal() and number.isascii() and len(number) < 12
    _narrow(selection, {int(number)} if is_number else set())
    selection.tests.append(lambda index: account.value("customer", index)["email"] == email)


def _choose_source(account: Account, selection: Selection, source: str) -> None:
    for kind, candidates in SOURCES.items():
        if (index := account.index_of(kind, source)) is not None:
            _narrow(selection, set(candidates(account.ledger, index)))
            break
    else:
        raise errors.missing_cursor("source", "source", source)
    selection.tests.append(
        lambda index: account.value("balance_transaction", index)["source"] == source
    )


def _narrow(selection: Selection, candidates: set[int]) -> None:
    known = selection.candidates
    selection.candidates = candidates if known is None else known & candidates


def page_of_lines(texts: list[str], parameters: Parameters) -> tuple[list[str], bool]:
    """Return a page of an invoice's lines and whether there are more in its direction."""
    limit, cursor = parameters.limit(), parameters.cursor()
    if cursor is None:
        return texts[:limit], len(texts) > limit
    name, line_id = cursor
    # A line's text begins with its id: no need to read all of it.
    place = next((n for n, text in enumerate(texts) if line_id in text[:80]), None)
    if place is None or json.loads(texts[place])["id"] != line_id:
        raise errors.missing_cursor(name, "invoice line item", line_id)
    if name == "starting_after":
        return texts[place + 1 : place + 1 + limit], len(texts) > place + 1 + limit
    start = max(0, place - limit)
    return texts[start:place], start > 0


def list_text(texts: list[str], has_more: bool, url: str) -> bytes:
    """Return the text of a list object. Source: Stripe API reference, "Pagination"."""
    # As bytes: one emoji in a text of Python's makes all of its characters four times as long.
    data = b",\n".join([text.encode() for text in texts]).replace(b"\n", b"\n    ")
    shown = b"[\n    %b\n  ]" % data if texts else b"[]"
    more = b"true" if has_more else b"false"
    return b'{\n  "object": "list",\n  "data": %b,\n  "has_more": %b,\n  "url": "%b"\n}' % (
        shown, more, url.encode()
    )  # fmt: skip
