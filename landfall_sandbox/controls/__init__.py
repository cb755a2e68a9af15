"""What only tests ask of the sandbox: changes, faults, schedules, dumps, counters."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

import landfall_sandbox
from landfall_sandbox import SandboxError

__all__ = ["Sandbox", "SandboxError"]


class Sandbox(landfall_sandbox.Sandbox):
    """A sandbox whose server is told from outside what befalls it."""

    _more_arguments = ("--controls",)

    def stats(self) -> dict[str, Any]:
        """Return {"requests": {method: n}, "units": n, "refused": n} since the last reset."""
        return self._json("GET", "/sandbox/stats")

    def reset_stats(self) -> None:
        """Count from zero again."""
        self._json("POST", "/sandbox/reset-stats")

    def set_faults(self, rules: list[dict[str, Any]]) -> None:
        """Replace the fault rules (see landfall_sandbox.controls.faults); [] removes them all."""
        self._json("PUT", "/sandbox/faults", rules)

    def settings(self, **values: Any) -> None:
        """Change settings.

        `latency`: seconds added to every API request. `quota`: None or {"units_per_minute": n,
        "costs": {method: units}, "window_seconds": s}. `history_expired_before`: history id or
        None. `tokens_expired`: True refuses (401) every access token but those given out at
        /token from now on; False takes any again. `token_requests`: n makes tokens expire like
        that after every n requests; None doesn't. `stripe_clock_offset`: seconds that Stripe's
        clock is ahead of this machine's. `stripe_date_offset`: seconds that the Date of answers is
        ahead of that, as a proxy's may be. `stripe_late_events`: seconds by which new events show
        up later than they say. `stripe_limit`: None or {"per_second": n}, for each key.
        `stripe_permissions`: {key: kinds it may read}; keys not in it may read all.
        """
        self._json("PUT", "/sandbox/settings", values)

    def change(self, **changes: Any) -> dict[str, Any]:
        """Change the mailbox (see `controls.changes`), in the order of the arguments.

        Returns {"history_id": text, "affected": {key: ids}}.
        """
        return self._json("POST", "/sandbox/changes", changes)

    def change_stripe(self, **changes: Any) -> dict[str, Any]:
        """Change a Stripe account (see `controls.stripe_changes`), in the arguments' order.

        Returns {"affected": {key: ids}}.
        """
        return self._json("POST", "/sandbox/stripe/changes", changes)

    def stripe_objects(self, kind: str, account: str | None = None) -> dict[str, dict[str, Any]]:
        """Return every object of a kind by its id, as the API gives it when read by itself.

        The kind "invoice_line" has keys of the form "<invoice id>:<line id>".
        """
        found: dict[str, dict[str, Any]] = {}
        for line in self._stripe_lines("objects", kind, account):
            value = json.loads(line)
            key = value["id"]
            found[f"{value['invoice']}:{key}" if kind == "invoice_line" else key] = value
        return found

    def stripe_deleted(self, kind: str, account: str | None = None) -> list[str]:
        """Return the ids of the objects of a kind that were deleted."""
        return [line.decode() for line in self._stripe_lines("deleted", kind, account)]

    def _stripe_lines(self, what: str, kind: str, account: str | None) -> list[bytes]:
        query = urllib.parse.urlencode({"kind": kind} | ({"account": account} if account else {}))
        # Lines end at \n alone: texts hold other characters that splitlines cuts at.
        lines = self._request("GET", f"/sandbox/stripe/{what}?{query}").split(b"\n")
        return [line for line in lines if line]

    def insert(
        self,
        raw: bytes,
        *,
        labels: Sequence[str] = (),
        internal_date_ms: int | None = None,
        thread_id: str | None = None,
    ) -> str:
        """Put a message in, kept byte by byte; return its id.

        Without a date it arrives now, without a thread it begins one.
        """
        mail: dict[str, Any] = {"raw": base64.urlsafe_b64encode(raw).decode()}
        mail |= {"labels": list(labels), "internal_date_ms": internal_date_ms}
        answer = self.change(insert=[mail | {"thread_id": thread_id}])
        message_id: str = answer["affected"]["insert"][0]
        return message_id

    def schedule(self, steps: list[dict[str, Any]]) -> None:
        """Replace the changes and settings that wait for requests; [] removes them all.

        For example [{"after": {"method": "messages.get", "count": 3}, "changes": {"deliver": 2}}];
        see landfall_sandbox.controls.schedule.
        """
        self._json("PUT", "/sandbox/schedule", steps)

    def scheduled(self) -> list[dict[str, Any] | None]:
        """Return what became of each step: what `change` returns, {"error": text}, or None yet."""
        outcomes: list[dict[str, Any] | None] = self._json("GET", "/sandbox/schedule")["outcomes"]
        return outcomes

    def live_ids(self, *, include_spam_trash: bool = False) -> list[str]:
        """Return the ids of all messages that exist, newest first."""
        query = "format=text&include=all" if include_spam_trash else "format=text"
        return self._request("GET", f"/sandbox/live-ids?{query}").decode().split()

    def _json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._request(method, path, body))
        return answer

    def _request(self, method: str, path: str, body: Any = None) -> bytes:
        self._running()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base_url + path, data, method=method)
        # No proxy: the server is on this machine whatever the environment says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as response:
                content: bytes = response.read()
        except urllib.error.HTTPError as error:
            with error:
                reason = error.read().decode(errors="replace")
            raise SandboxError(f"sandbox: {method} {path}: {error.code}: {reason}") from None
        return content
