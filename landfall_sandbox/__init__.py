"""A local stand-in for the APIs Landfall reads, with generated data; needs no credentials."""

import base64
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_PROJECT_ROOT = Path(__file__).resolve().parents[1]
_STOP_SECONDS = 5


class SandboxError(RuntimeError):
    """The sandbox did not start, or refused a control request."""


class Sandbox:
    """A running sandbox server, as a context manager.

    The server is a child process that ends with this one, however this one ends. It answers at
    `base_url`, for example `build("gmail", "v1", client_options={"api_endpoint": base_url})`.
    """

    def __init__(
        self,
        *,
        state: Path | str | None = None,
        size: int = 250,
        charges: int = 200,
        seed: int = 1,
        threads: str = "mixed",
        port: int = 0,
        start_seconds: float = 20,
    ) -> None:
        """Configure a server; `start` or the with statement runs it.

        `state` is the SQLite file that keeps changes (None: memory); an existing one decides
        `size` (messages), `charges` (of the Stripe account), `seed` and `threads`: "mixed" (2.5
        messages each on average), "four" or "none" (each message has its own). `port` 0 takes a
        free one. `start_seconds` limits the start.
        """
        self._start_seconds = start_seconds
        self._arguments = [f"--port={port}", f"--size={size}", f"--seed={seed}"]
        self._arguments += [f"--threads={threads}", f"--charges={charges}"]
        if state is not None:
            self._arguments.append(f"--state={Path(state).resolve()}")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        """The address of the running server, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process id of the server. Raises SandboxError when it isn't running."""
        return self._running().pid

    def start(self) -> Self:
        """Start the server and wait until it listens.

        Raises SandboxError when it is running already, ends, or doesn't answer in time.
        """
        if self._process is not None:
            raise SandboxError("sandbox: already running; stop it first")
        command = [sys.executable, "-m", "landfall_sandbox.server", "--exit-with-parent"]
        self._process = subprocess.Popen(
            command + self._arguments,
            cwd=_PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self._port = int(json.loads(self._first_line())["port"])
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server; does nothing when it isn't running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    def stats(self) -> dict[str, Any]:
        """Return {"requests": {method: n}, "units": n, "refused": n} since the last reset."""
        return self._json("GET", "/sandbox/stats")

    def reset_stats(self) -> None:
        """Count from zero again."""
        self._json("POST", "/sandbox/reset-stats")

    def set_faults(self, rules: list[dict[str, Any]]) -> None:
        """Replace the fault rules (see landfall_sandbox.faults); [] removes them all."""
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
        """Change the mailbox (see landfall_sandbox.changes), in the order of the arguments.

        Returns {"history_id": text, "affected": {key: ids}}.
        """
        return self._json("POST", "/sandbox/changes", changes)

    def change_stripe(self, **changes: Any) -> dict[str, Any]:
        """Change a Stripe account (see landfall_sandbox.stripe.changes), in the arguments' order.

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
        see landfall_sandbox.schedule.
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

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise SandboxError("sandbox: not running; call start() or use it in a with statement")
        return self._process

    def _first_line(self) -> bytes:
        """Return the line that the server prints when it listens, within the time limit."""
        process, lines = self._running(), list[bytes]()
        output = process.stdout
        assert output is not None
        reader = threading.Thread(target=lambda: lines.append(output.readline()), daemon=True)
        reader.start()
        reader.join(self._start_seconds)
        if not lines:
            raise SandboxError(f"sandbox: did not start within {self._start_seconds:g} s")
        if not lines[0]:
            raise SandboxError(f"sandbox: ended while starting, exit code {process.wait()}")
        return lines[0]
