"""npm's `emulate`, another stand-in of the Gmail API, as a context manager."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.peers.install import emulate_command

_READY_SECONDS = 30.0


@contextlib.contextmanager
def run_emulate(data: Path, seed: Mapping[str, Any]) -> Iterator[str]:
    """Start it with a seed on a free port, wait until it answers, yield its URL.

    Raises PeerUnavailable, or RuntimeError with its last lines when it does not start.
    """
    command, port, log = emulate_command(), _free_port(), data / "emulate.log"
    seed_file = data / "seed.json"
    seed_file.write_text(json.dumps(seed))
    options = ("start", "-s", "google", "-p", str(port), "--seed", str(seed_file))
    with log.open("w") as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=output, cwd=data)
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
            answer.close()
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"emulate did not start:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
