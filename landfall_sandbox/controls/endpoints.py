"""The /sandbox/ endpoints: counters, faults, settings and changes. They need no credentials."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from landfall_sandbox.apis import Apis, answer
from landfall_sandbox.controls.changes import apply_changes, check_changes
from landfall_sandbox.controls.faults import Action, FaultRules
from landfall_sandbox.controls.schedule import Schedule, Step
from landfall_sandbox.controls.stripe_changes import apply_stripe_changes, check_stripe_changes
from landfall_sandbox.controls.stripe_dump import deleted_ids, object_lines
from landfall_sandbox.search import Query, matching_messages
from landfall_sandbox.wire import Api, Call, Request, Response, json_response

_IDS_PER_CHUNK = 5_000
_SETTINGS = {
    "latency", "quota", "history_expired_before", "tokens_expired", "token_requests",
    "stripe_clock_offset", "stripe_date_offset", "stripe_late_events", "stripe_limit",
    "stripe_permissions",
}  # fmt: skip


class Control:
    """Everything the server is told from outside, and what it counts."""

    def __init__(self, apis: Apis) -> None:
        """Control `apis`, at first without faults and latency."""
        self.mailbox = apis.mailbox
        self.tokens = apis.tokens
        self.gmail = apis.gmail
        self.books = apis.books
        self.stripe = apis.stripe
        self.apis = apis.each
        self.faults = FaultRules()
        self.schedule = Schedule()
        self.latency_seconds = 0.0
        self._requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    def respond(self, api: Api, call: Call, latency_seconds: float) -> Response | None:
        """Answer a call as its faults leave it, what is scheduled around it done; None for none."""
        self._count(call.method)
        steps = self.schedule.due(call.method, call.object_id)
        for step in [step for step in steps if step.is_before_answer]:
            self.take(step)
        action = self.faults.fire(call.method, call.object_id)
        time.sleep(latency_seconds + (action.latency_seconds if action else 0))
        response = _altered(api, call, action)
        for step in [step for step in steps if not step.is_before_answer]:
            self.take(step)
        return response

    def stream(self, request: Request) -> tuple[str, Iterator[bytes]] | None:
        """Content type and chunks of what is answered in pieces; None for any other request.

        Raises ValueError for an unknown kind or account.
        """
        if request.path == "/sandbox/live-ids":
            include_hidden = request.query.get("include") == ["all"]
            return "text/plain; charset=utf-8", self.live_ids(include_hidden)
        if request.path not in ("/sandbox/stripe/objects", "/sandbox/stripe/deleted"):
            return None
        return "application/x-ndjson", self.stripe_lines(request)

    def _count(self, method: str) -> None:
        """Count one request."""
        with self._lock:
            self._requests[method] += 1

    def take(self, step: Step) -> None:
        """Take a step of the schedule and keep what became of it."""
        try:
            self._set_settings(step.settings)
            outcome = self._change(step.changes)
            if step.stripe_changes:
                outcome |= {"stripe": self._change_stripe(step.stripe_changes)}
            step.outcome = outcome
        except (ValueError, TypeError, AttributeError) as error:
            step.outcome = {"error": str(error)}

    def answer(self, request: Request) -> Response:
        """Answer a control request; a malformed one is 400 with the reason as text."""
        handlers = {
            ("GET", "/sandbox/stats"): self._stats,
            ("POST", "/sandbox/reset-stats"): self._reset_stats,
            ("PUT", "/sandbox/faults"): self._set_faults,
            ("PUT", "/sandbox/settings"): self._set_settings,
            ("POST", "/sandbox/changes"): self._change,
            ("PUT", "/sandbox/schedule"): self._set_schedule,
            ("GET", "/sandbox/schedule"): self._outcomes,
            ("POST", "/sandbox/stripe/changes"): self._change_stripe,
        }
        handler = handlers.get((request.method, request.path))
        if handler is None:
            return json_response({"error": f"no control endpoint {request.path}"}, 404)
        try:
            return json_response(handler(json.loads(request.body or b"null")))
        except (ValueError, TypeError, AttributeError) as error:
            return json_response({"error": str(error)}, 400)

    def live_ids(self, include_hidden: bool) -> Iterator[bytes]:
        """Yield the ids of all messages that exist, newest first, one a line, in chunks."""
        lines: list[str] = []
        for index in matching_messages(self.mailbox, Query(include_hidden=include_hidden)):
            lines.append(self.mailbox.message_id(index) + "\n")
            if len(lines) == _IDS_PER_CHUNK:
                yield "".join(lines).encode()
                lines.clear()
        if lines:
            yield "".join(lines).encode()

    def stripe_lines(self, request: Request) -> Iterator[bytes]:
        """Return what /sandbox/stripe/objects and /sandbox/stripe/deleted answer, in chunks.

        Raises ValueError for an unknown kind or account.
        """
        dump = object_lines if request.path.endswith("/objects") else deleted_ids
        kind = request.query.get("kind", [""])[-1]
        account_id = request.query.get("account", [None])[-1]
        return dump(self.books, kind, account_id)

    def _stats(self, body: Any) -> dict[str, Any]:
        with self._lock:
            requests = dict(self._requests)
        return {
            "requests": requests,
            "units": self.gmail.quota.units,
            "refused": sum(api.quota.refused for api in self.apis),
        }

    def _reset_stats(self, body: Any) -> dict[str, Any]:
        with self._lock:
            self._requests.clear()
        for api in self.apis:
            api.quota.reset_counters()
        return {}

    def _set_faults(self, body: Any) -> dict[str, Any]:
        self.faults.set(body)
        return {}

    def _set_settings(self, body: Any) -> dict[str, Any]:
        _check_settings(body)
        if "latency" in body:
            self.latency_seconds = float(body["latency"])
        if "quota" in body:
            self.gmail.quota.configure(body["quota"])
        if "history_expired_before" in body:
            oldest = body["history_expired_before"]
            self.mailbox.state.expire_history_before(None if oldest is None else int(oldest))
        if "tokens_expired" in body:
            self.tokens.expire() if body["tokens_expired"] else self.tokens.trust_all()
        if "token_requests" in body:
            self.tokens.expire_after(body["token_requests"])
        self._set_stripe_settings(body)
        return {}

    def _set_stripe_settings(self, body: Any) -> None:
        if "stripe_clock_offset" in body:
            self.books.clock_offset = float(body["stripe_clock_offset"])
        if "stripe_date_offset" in body:
            self.books.date_offset = float(body["stripe_date_offset"])
        if "stripe_late_events" in body:
            self.books.late_event_seconds = float(body["stripe_late_events"])
        if "stripe_limit" in body:
            self.stripe.limit_requests(body["stripe_limit"])
        if "stripe_permissions" in body:
            self.stripe.permissions = dict(body["stripe_permissions"] or {})

    def _change(self, body: Any) -> dict[str, Any]:
        return apply_changes(self.mailbox, body)

    def _change_stripe(self, body: Any) -> dict[str, Any]:
        return apply_stripe_changes(self.books, body)

    def _set_schedule(self, body: Any) -> dict[str, Any]:
        self.schedule.set(body, _check_step)
        return {}

    def _outcomes(self, body: Any) -> dict[str, Any]:
        return {"outcomes": self.schedule.outcomes()}


def _check_step(step: Step) -> None:
    check_changes(step.changes)
    check_stripe_changes(step.stripe_changes)
    _check_settings(step.settings)


def _check_settings(settings: dict[str, Any]) -> None:
    if unknown := settings.keys() - _SETTINGS:
        raise ValueError(f"unknown setting {sorted(unknown)}; known: {sorted(_SETTINGS)}")


def _altered(api: Api, call: Call, action: Action | None) -> Response | None:
    """Return the answer to a call as the fault that befalls it leaves it; None for none at all."""
    if action is None:
        return answer(api, call)
    if action.is_drop:
        return None
    return action.answer(api) or action.alter(answer(api, call))
