"""PyPI's `seahaven-stripe-world`, another stand-in of the Stripe API, as a context manager."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.peers.install import stripe_world_python
from tests.peers.servers import run_server

_SERVER = Path(__file__).with_name("stripe_world_server.py")
_READY_SECONDS = 60.0


@contextlib.contextmanager
def run_stripe_world(data: Path) -> Iterator[str]:
    """Start it on a free port, wait until it answers, yield its URL.

    Any `/worlds/<name>` below that is an account. Raises PeerUnavailable, or RuntimeError with
    its last lines when it does not start.
    """
    python = stripe_world_python()

    def command(port: int) -> list[str]:
        return [str(python), str(_SERVER), "--port", str(port), "--max-instances", "0"]

    with run_server("seahaven-stripe-world", command, data, _READY_SECONDS) as url:
        yield url
