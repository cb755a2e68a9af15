"""GoogleSQL's own analyzer as the judge of the SQL that is sent to BigQuery."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.peers.install import analyzer_python, analyzer_server


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the analyzer says of one statement; `error` is None when it accepts it."""

    statement: str
    error: str | None
    skipped: bool = False


def judge(jobs: Iterable[Mapping[str, Any]]) -> list[Verdict]:
    """Analyze query jobs in the order they were sent; what they create is known afterwards.

    Raises PeerUnavailable, or CalledProcessError when the analyzer itself breaks.
    """
    server = analyzer_server()
    port = _free_port()
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    process = subprocess.Popen(
        [server, "localhost", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        answer = subprocess.run(
            [analyzer_python(), Path(__file__).with_name("analyze.py"), str(port)],
            input=lines,
            text=True,
            capture_output=True,
            check=True,
            timeout=600,
        )
    finally:
        process.terminate()
        process.wait(timeout=20)
    return [Verdict(**json.loads(line)) for line in answer.stdout.splitlines()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
