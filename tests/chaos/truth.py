"""What an account holds and what has happened to it, as its API tells: rows must agree."""

from __future__ import annotations

import dataclasses
import json
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from landfall_sandbox.controls import Sandbox
from landfall_sandbox.layout import LABEL_NAMES
from loaders.sources.stripe.kinds import OBJECT_TYPES

TOKEN = "token-of-the-kill-harness"
STRIPE_KEY = "sk_test_ofthekillharness1234567890"
MESSAGE, LABEL = "message", "label"
_CHANGE_THEIR_CHARGE = ("refund", "dispute")
_VOLATILE = ("attachmentId", "receipt_url", "hosted_invoice_url", "invoice_pdf")

Objects = dict[str, dict[str, Any]]
"""By object type and id: payloads without volatile values; None where only the id counts."""


@dataclasses.dataclass(frozen=True)
class Event:
    """An entry of Stripe's feed about an object; `at` in Unix seconds."""

    event_id: str
    at: int
    object_type: str
    external_id: str


@dataclasses.dataclass(frozen=True)
class Truth:
    """What an account holds. `gone` were there when the first run began, and are not now."""

    source: str
    live: Objects
    gone: Objects
    history: dict[str, int] = dataclasses.field(default_factory=dict)
    """Gmail: by message, the history id by which all that happened to it is told."""
    events: tuple[Event, ...] = ()
    """Stripe: the feed, oldest first."""
    silent: tuple[tuple[str, str], ...] = ()
    """Stripe: objects that have changed without an event."""

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def read_truth(text: str) -> Truth:
    """The inverse of `as_json`."""
    values = json.loads(text)
    values["events"] = tuple(Event(**event) for event in values["events"])
    values["silent"] = tuple((kind, key) for kind, key in values["silent"])
    return Truth(**values)


def live_objects(source: str, sandbox: Sandbox) -> Objects:
    """What a run of the source must store."""
    return _LIVE[source](sandbox)


def truth_of(source: str, sandbox: Sandbox, before: Objects, history: Mapping[str, int]) -> Truth:
    """What there is now, where `before` was there at first."""
    live = live_objects(source, sandbox)
    gone = {
        kind: {key: value for key, value in objects.items() if key not in live[kind]}
        for kind, objects in before.items()
    }
    if source == "gmail":
        return Truth(source, live, gone, history=dict(history))
    events = _events(sandbox)
    told = {(event.object_type, event.external_id) for event in events}
    silent = tuple(
        (kind, key)
        for kind, objects in before.items()
        for key, value in objects.items()
        if key in live[kind] and value != live[kind][key] and (kind, key) not in told
    )
    return Truth(source, live, gone, events=events, silent=silent)


def without_volatile(value: Any) -> Any:
    """A payload with those members blanked that change on every read."""
    if isinstance(value, dict):
        return {
            key: None if key in _VOLATILE else without_volatile(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_volatile(item) for item in value]
    return value


def _mailbox(sandbox: Sandbox) -> Objects:
    messages = {message_id: _message(sandbox, message_id) for message_id in sandbox.live_ids()}
    return {MESSAGE: messages, LABEL: dict.fromkeys(LABEL_NAMES)}


def _message(sandbox: Sandbox, message_id: str) -> Any:
    request = urllib.request.Request(
        f"{sandbox.base_url}/gmail/v1/users/me/messages/{message_id}?format=full",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        return without_volatile(json.load(response))


def _account(sandbox: Sandbox) -> Objects:
    return {kind: without_volatile(sandbox.stripe_objects(kind)) for kind in OBJECT_TYPES}


def _events(sandbox: Sandbox) -> tuple[Event, ...]:
    """The feed; a refund and a dispute change their charge as well."""
    found = []
    for event_id, event in sandbox.stripe_objects("event").items():
        changed = event["data"]["object"]
        found.append(Event(event_id, event["created"], changed["object"], changed["id"]))
        if changed["object"] in _CHANGE_THEIR_CHARGE:
            found.append(Event(event_id, event["created"], "charge", changed["charge"]))
    return tuple(sorted(found, key=lambda event: event.at))


_LIVE: Mapping[str, Callable[[Sandbox], Objects]] = {"gmail": _mailbox, "stripe": _account}
