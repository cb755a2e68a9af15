"""npm's `emulate`, another stand-in of the Gmail API, as a context manager."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.peers.install import emulate_command
from tests.peers.servers import run_server

_READY_SECONDS = 30.0


@contextlib.contextmanager
def run_emulate(data: Path, seed: Mapping[str, Any]) -> Iterator[str]:
    """Start it with a seed on a free port, wait until it answers, yield its URL.

    Raises PeerUnavailable, or RuntimeError with its last lines when it does not start.
    """
    command = emulate_command()
    seed_file = data / "seed.json"
    seed_file.write_text(json.dumps(seed))
    options = ("start", "-s", "google", "--seed", str(seed_file))
    with run_server(
        "emulate", lambda port: [*command, *options, "-p", str(port)], data, _READY_SECONDS
    ) as url:
        yield url
