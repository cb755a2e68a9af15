"""Fault rules: which requests go wrong, and how."""

import base64
import json
import threading
from dataclasses import dataclass
from typing import Any

from landfall_sandbox.wire import Api, Response, json_response

_RULE_KEYS = {"match", "times", "skip", "every", "action"}
_MATCH_KEYS = {"method", "id"}
_ACTION_KEYS = {
    "status", "reason", "message", "retry_after", "latency", "truncate", "body", "content_type",
    "drop", "json", "mutate", "body_base64", "slow_body", "reset",
}  # fmt: skip


class Action:
    """What a fault does to one request; see `FaultRules.set` for the keys."""

    def __init__(self, keys: dict[str, Any]) -> None:
        """Keep the rule's action as given."""
        self._keys = keys
        self.latency_seconds = float(keys.get("latency", 0))
        self.is_drop = bool(keys.get("drop"))

    def answer(self, api: Api) -> Response | None:
        """Return the answer to give instead of the API's, or None to let the API answer."""
        status = self._keys.get("status")
        if "json" in self._keys:
            response = json_response(self._keys["json"], status or 200)
        elif (body := self._literal_body()) is not None:
            content_type = self._keys.get("content_type", "text/html")
            response = Response(status or 200, body, content_type)
        elif status:
            reason = self._keys.get("reason") or api.default_reasons.get(status, "backendError")
            response = api.error(status, reason, self._keys.get("message", "Injected fault."))
        else:
            return None
        return self.alter(response)

    def _literal_body(self) -> bytes | None:
        if "body_base64" in self._keys:
            return base64.b64decode(self._keys["body_base64"])
        body: str | None = self._keys.get("body")
        return None if body is None else body.encode()

    def alter(self, response: Response) -> Response:
        """Apply mutation, Retry-After, truncation, reset and slowness to an answer."""
        if mutation := self._keys.get("mutate"):
            value = json.loads(response.body)
            for key in mutation.get("remove", []):
                value.pop(key, None)
            response.body = json_response(value | mutation.get("set", {})).body
        if "retry_after" in self._keys:
            response.headers["Retry-After"] = str(self._keys["retry_after"])
        response.is_truncated = bool(self._keys.get("truncate"))
        response.is_reset = bool(self._keys.get("reset"))
        response.body_seconds = float(self._keys.get("slow_body", 0))
        return response


@dataclass(slots=True)
class _Rule:
    method: str
    object_id: str | None
    times: int | None
    skip: int
    every: int
    action: Action
    seen: int = 0
    fired: int = 0

    def fires(self, method: str, object_id: str | None) -> bool:
        if self.method not in ("*", method) or self.object_id not in (None, object_id):
            return False
        self.seen += 1
        due = self.seen > self.skip and (self.seen - self.skip) % self.every == 0
        if not due or (self.times is not None and self.fired >= self.times):
            return False
        self.fired += 1
        return True


class FaultRules:
    """The rules in force; the first one that fires decides about a request."""

    def __init__(self) -> None:
        """Start without rules."""
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []

    def set(self, rules: Any) -> None:
        """Replace all rules. Raises ValueError, naming the key, for a malformed one.

        A rule is {"match": {"method": name or "*", "id": optional}, "action": {...}} with "times"
        (how often it fires, None for ever; default 1), "skip" (matching requests let through
        first) and "every" (of the rest, only each nth). Actions, which can be combined: "status"
        with "reason", "message", "retry_after"; "latency" (seconds); "truncate" (half the declared
        body, then the end of the connection); "reset" (half of it, then a connection reset);
        "slow_body" (seconds over which the body trickles in); "body" (text) or "body_base64" with
        "content_type"; "json"; "drop" (no answer); "mutate" with "remove" (keys) and "set".
        """
        if not isinstance(rules, list):
            raise ValueError(f"faults: expected a list of rules, got {type(rules).__name__}")
        parsed = [_parse_rule(rule) for rule in rules]
        with self._lock:
            self._rules = parsed

    def fire(self, method: str, object_id: str | None) -> Action | None:
        """Return the action for a request, or None; rules count the requests they see."""
        with self._lock:
            firing = (rule for rule in self._rules if rule.fires(method, object_id))
            rule = next(firing, None)
        return rule.action if rule else None


def _parse_rule(rule: Any) -> _Rule:
    _check_keys("rule", rule, _RULE_KEYS)
    match, action = rule.get("match", {}), rule.get("action", {})
    _check_keys("match", match, _MATCH_KEYS)
    _check_keys("action", action, _ACTION_KEYS)
    if not action:
        raise ValueError(f"faults: a rule needs an action, one of {sorted(_ACTION_KEYS)}")
    _check_keys("mutate", action.get("mutate", {}), {"remove", "set"})
    every = int(rule.get("every") or 1)
    times = rule.get("times", 1)
    return _Rule(
        method=match.get("method", "*"),
        object_id=match.get("id"),
        times=None if times is None else int(times),
        skip=int(rule.get("skip", 0)),
        every=every,
        action=Action(action),
    )


def _check_keys(what: str, value: Any, known: set[str]) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"faults: {what} must be an object, got {type(value).__name__}")
    if unknown := value.keys() - known:
        raise ValueError(f"faults: unknown {what} key {sorted(unknown)}; known: {sorted(known)}")
