"""PyPI's `seahaven-stripe-world`, another stand-in of the Stripe API, as a context manager."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.peers.install import stripe_world_python

_SERVER = Path(__file__).with_name("stripe_world_server.py")
_READY_SECONDS = 60.0


@contextlib.contextmanager
def run_stripe_world(data: Path) -> Iterator[str]:
    """Start it on a free port, wait until it answers, yield its URL.

    Any `/worlds/<name>` below that is an account. Raises PeerUnavailable, or RuntimeError with
    its last lines when it does not start.
    """
    python, port, log = stripe_world_python(), _free_port(), data / "stripe_world.log"
    options = ("--port", str(port), "--max-instances", "0")
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(python), str(_SERVER), *options], stdout=output, stderr=output, cwd=data
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()  # 404: there is no account at its root
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"seahaven-stripe-world did not start:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
