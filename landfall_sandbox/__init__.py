"""A local stand-in for the APIs Landfall reads, with generated data; needs no credentials."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_PROJECT_ROOT = Path(__file__).resolve().parents[1]
_STOP_SECONDS = 5


class SandboxError(RuntimeError):
    """The sandbox did not start, or refused a control request."""


class Sandbox:
    """A running sandbox server, as a context manager.

    The server is a child process that ends with this one, however this one ends. It answers at
    `base_url`, for example `build("gmail", "v1", client_options={"api_endpoint": base_url})`.
    """

    _more_arguments: Sequence[str] = ()

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
        command += self._more_arguments
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
