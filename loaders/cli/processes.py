"""Several connections in one command: a process each, so that none can take the others down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import IO

from loaders.settings.connection import Connection
from loaders.settings.places import PROJECT_DIR

ONE_OF_SEVERAL = "--one-of-several"
"""Option that the processes are started with: the source and connection that each is for."""


def run_each(
    connections: Sequence[Connection],
    arguments: Sequence[str],
    parallel: int,
    *,
    logs_json: bool = False,
) -> int:
    """Run the same command once for each connection, `parallel` at a time.

    Of several at a time each line begins with the connection that it is of; not log lines in JSON,
    which tell themselves.

    Every run is a job of its own. Returns 0 when all of them did, else the lowest exit code that
    is not 0 (what has failed goes before what was only busy), or 128 + the number of the signal
    that ended this process's work.
    """
    has_many_sources = len({connection.source_system for connection in connections}) > 1
    runs = _Runs(
        arguments, has_prefix=parallel > 1, logs_json=logs_json, names_source=has_many_sources
    )
    with runs.forwarding_signals(), ThreadPoolExecutor(parallel) as pool:
        codes = dict(zip(connections, pool.map(runs.run, connections), strict=True))
    failed = [runs.label(connection) for connection, code in codes.items() if code]
    print(
        f"\n{len(connections)} connections: {len(connections) - len(failed)} completed,"
        f" {len(failed)} did not{': ' if failed else ''}{', '.join(failed)}"
    )
    if runs.received:
        return 128 + runs.received
    return min((code for code in codes.values() if code), default=0)


class _Runs:
    """The processes that run now, and the signal that ends them."""

    def __init__(
        self, arguments: Sequence[str], *, has_prefix: bool, logs_json: bool, names_source: bool
    ) -> None:
        self.received = 0
        self._command = [sys.executable, str(PROJECT_DIR / "loaders" / "run.py"), *arguments]
        self._has_prefix = has_prefix
        self._logs_json = logs_json
        self._names_source = names_source
        self._processes: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()

    def label(self, connection: Connection) -> str:
        """What a connection is called among the others."""
        source = f"{connection.source_system} " if self._names_source else ""
        return f"{source}{connection.name}"

    def run(self, connection: Connection) -> int:
        """One process to its end; its exit code."""
        with self._lock:
            if self.received:
                return 128 + self.received
            piped = subprocess.PIPE if self._has_prefix else None
            logged = None if self._logs_json else piped
            process = subprocess.Popen(  # noqa: S603 - this command again
                [
                    *self._command,
                    ONE_OF_SEVERAL,
                    f"{connection.source_system}:{connection.name}",
                ],
                stdout=piped,
                stderr=logged,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            self._processes.append(process)
        readers = [
            threading.Thread(
                target=_repeat, args=(stream, self.label(connection), out), daemon=True
            )
            for stream, out in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
            if stream is not None
        ]
        for reader in readers:
            reader.start()
        code = process.wait()
        code = 128 - code if code < 0 else code  # killed by a signal
        for reader in readers:
            reader.join()
        return code

    @contextmanager
    def forwarding_signals(self) -> Iterator[None]:
        """Pass SIGTERM and SIGINT on; what was not started is not started any more."""

        def forward(number: int, _frame: FrameType | None) -> None:
            self.received = number
            for process in self._processes:
                if process.poll() is None:
                    process.send_signal(number)

        previous = {
            number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _repeat(stream: IO[str], connection: str, out: IO[str]) -> None:
    """Print a process's lines, each with the connection it is about."""
    for line in stream:
        out.write(f"[{connection}] {line}")
        out.flush()
