"""The event feed: which objects have changed since when.

An event says what changed and is not what is stored: its copy of the object is in the version
of the API that the account had, and lacks what came later. Source: Stripe API reference, Events;
they are kept for 30 days, listed newest first.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from loaders.errors import TransientSourceError
from loaders.sources.contract import FetchRequest
from loaders.sources.stripe.client import StripeClient, not_advancing
from loaders.sources.stripe.kinds import KINDS

KEPT_DAYS = 28
"""Stripe keeps events for 30 days; the other two are for the run to come through."""
_PATH = "/v1/events"
CLOCK_ERROR = 86_400
"""Seconds that an answer's Date may be ahead, as it may be a proxy's: of what is older than that
by its word all events are there, of what is newer only those before one that was seen."""
_EVENTS_AT_ONCE = 10_000
"""Events of a window, at most, unless they are of one second."""
_CHANGE_THEIR_CHARGE = {"refund": "charge", "dispute": "charge", "payment_intent": "latest_charge"}
"""Stripe tells of these objects, and not always of the charge that they change, which is here."""
_OF_NO_OBJECT = ("invoice.upcoming",)
"""Types of events about what is not there yet: a preview, without an id or with one of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """An object has changed: its kind, its id, and when it and the event came into being.

    Times are in Unix seconds.
    """

    event_id: str
    at: int
    kind: str
    object_id: str
    created: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """The events up to `until` (Unix seconds, exclusive), oldest first."""

    events: list[Event]
    until: int
    is_last: bool
    is_sparse: bool
    """Whether a wider one would have done."""
    pages: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class _Crowded:
    """A window has too many events: where to end instead, and what the feed reaches to."""

    before: int
    reached: int


def machine_seconds() -> int:
    """This machine's clock, in Unix seconds."""
    return int(time.time())


def known_until(now: int, seen: Iterable[int]) -> int:
    """Up to when nothing new can turn up, but for what comes late: as far as something was `seen`,
    and a day before `now`, the clock of the last answer (all in Unix seconds), or this machine's
    where that is earlier: either may be ahead."""
    known = min(now, machine_seconds()) - CLOCK_ERROR
    return max([known, *(at for at in seen if at <= now)])


def newest_event(client: StripeClient, request: FetchRequest, now: int) -> int:
    """Where the feed stands: known_until, by its newest event. Raises what StripeClient raises."""
    page = client.page(request, _PATH, {"created[lte]": now}, limit=1)
    return known_until(now, (_seconds(value.get("created")) for _, value in page.objects))


def read_windows(client: StripeClient, request: FetchRequest, since: int) -> Iterator[Window]:
    """Yield the events from `since` on (Unix seconds, inclusive), window after window.

    Events are listed newest first, so a window is read whole before anything of it is used.
    Raises what StripeClient raises.
    """
    before: int | None = None
    reached: int | None = None
    while True:
        window = _read_window(client, request, since, before, reached)
        if isinstance(window, _Crowded):
            before, reached = window.before, reached or window.reached
            continue
        yield window
        if window.is_last:
            return
        assert before is not None
        width = (before - since) * (2 if window.is_sparse else 1)
        since, before = before, before + max(1, width)


def _read_window(
    client: StripeClient,
    request: FetchRequest,
    since: int,
    before: int | None,
    reached: int | None,
) -> Window | _Crowded:
    """The events of [since, before). The last window is that after which there were none."""
    parameters: dict[str, Any] = {"created[gte]": since}
    if before is not None:
        parameters["created[lt]"] = before
    events: dict[str, Event] = {}
    passed: set[str] = set()
    served_at = None
    seen: list[int] = []
    pages = 0
    while True:
        pages += 1
        page = client.page(request, _PATH, parameters)
        served_at = served_at or page.served_at or dt.datetime.now(dt.UTC)
        times = [_seconds(value.get("created")) for _, value in page.objects]
        for _, value in page.objects:
            events.update((event.event_id + event.object_id, event) for event in _changes(value))
        seen += times
        if not page.has_more:
            break
        if not times or page.objects[-1][1]["id"] in passed:
            raise not_advancing("events")
        parameters["starting_after"] = page.objects[-1][1]["id"]
        passed.add(parameters["starting_after"])
        end = before if before is not None else seen[0] + 1
        if len(seen) >= _EVENTS_AT_ONCE and end - since > 1:
            # About half as many as were read, were it as busy in those days.
            width = max(1, min((seen[0] - times[-1]) // 2, (end - since) // 2))
            return _Crowded(since + width, known_until(int(served_at.timestamp()), seen))
    is_last = before is None or reached is None or before > reached
    until = known_until(int(served_at.timestamp()), seen) if is_last or before is None else before
    in_order = sorted(events.values(), key=lambda event: event.at)
    return Window(in_order, until, is_last, len(seen) < _EVENTS_AT_ONCE // 4, pages)


def _changes(event: Mapping[str, Any]) -> Iterator[Event]:
    """The objects that an event is about. Raises TransientSourceError for what is no event."""
    try:
        event_id, at, changed = event["id"], _seconds(event["created"]), event["data"]["object"]
        kind, object_id = changed.get("object"), changed.get("id")
    except (KeyError, TypeError, AttributeError) as error:
        raise TransientSourceError(
            "stripe: events.list: an event without an object; run again later"
        ) from error
    if event.get("type") in _OF_NO_OBJECT:
        return
    if kind in KINDS and isinstance(object_id, str) and object_id:
        created = changed.get("created")
        yield Event(event_id, at, kind, object_id, created if isinstance(created, int) else None)
        for charge in _charges(kind, changed):
            charge_id = charge.get("id") if isinstance(charge, dict) else charge
            if isinstance(charge_id, str) and charge_id:
                yield Event(event_id, at, "charge", charge_id, None)


def _charges(kind: str, changed: Mapping[str, Any]) -> list[Any]:
    """What an object names as its charge; of a payment intent before 2022-11-15 all of a list."""
    charges = changed.get("charges") if kind == "payment_intent" else None
    listed = charges.get("data") if isinstance(charges, dict) else None
    named = changed.get(_CHANGE_THEIR_CHARGE.get(kind, ""))
    return [named, *(listed if isinstance(listed, list) else ())]


def _seconds(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TransientSourceError("stripe: events.list: an event without a time; run again later")


def changed_objects(events: Iterable[Event], seen: Collection[str]) -> dict[str, int | None]:
    """The objects that events are about, by id, and when they were created (Unix seconds).

    Of events that were not seen yet, in their order.
    """
    changed: dict[str, int | None] = {}
    for event in events:
        if event.event_id not in seen:
            created = changed.get(event.object_id)
            changed[event.object_id] = event.created if created is None else created
    return changed
