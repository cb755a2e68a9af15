"""Runs a peer that is a server, on a free port, until the test is over."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def run_server(
    name: str, command: Callable[[int], Sequence[str]], data: Path, ready_seconds: float
) -> Iterator[str]:
    """Start what `command` makes of a free port, in `data`; wait until it answers; yield its URL.

    Any answer will do, an error too. Raises RuntimeError with its last lines when it does not
    start.
    """
    port, log = free_port(), data / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command(port), stdout=output, stderr=output, cwd=data)
    try:
        url = f"http://127.0.0.1:{port}"
        if not _answers(url, process, ready_seconds):
            raise RuntimeError(f"{name} did not start:\n{log.read_text()[-2000:]}")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def _answers(url: str, process: subprocess.Popen[bytes], ready_seconds: float) -> bool:
    deadline = time.monotonic() + ready_seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return True
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
