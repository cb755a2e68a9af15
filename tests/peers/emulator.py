"""The BigQuery emulator as a context manager; `python -m tests.peers.emulator` for a person."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.peers.install import emulator_python
from tests.peers.servers import free_port

PROJECT = "landfall-dev"
_READY_SECONDS = 60.0


class Emulator:
    """A running emulator: its URL, and every job that was sent to it."""

    def __init__(self, port: int, record: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._record = record

    def jobs(self) -> list[dict[str, Any]]:
        """The configurations of the query jobs so far, with their labels."""
        return self.jobs_since(0)[0]

    def jobs_since(self, position: int) -> tuple[list[dict[str, Any]], int]:
        """Those from a position in the record on, and the position after them."""
        if not self._record.exists():
            return [], position
        with self._record.open("rb") as record:
            record.seek(position)
            lines = record.readlines()
            position = record.tell()
        jobs = map(json.loads, lines)
        return [job for job in jobs if job.get("query")], position

    def statements(self) -> list[dict[str, Any]]:
        """What the jobs ran: `query`, and `queryParameters` when there were some."""
        return [job["query"] for job in self.jobs()]


@contextlib.contextmanager
def run_emulator(data: Path, port: int = 0) -> Iterator[Emulator]:
    """Start the emulator on a free loopback port and wait until it answers.

    Raises PeerUnavailable, or RuntimeError with its last lines when it does not start.
    """
    port = port or free_port()
    data.mkdir(parents=True, exist_ok=True)
    log, record = data / "emulator.log", data / "jobs.jsonl"
    command = [
        str(emulator_python()),
        str(Path(__file__).with_name("emulator_server.py")),
        *("--record", str(record), "--"),
        *("--host", "127.0.0.1", "--port", str(port), "--grpc-port", str(free_port())),
        *("--project", PROJECT, "--data-dir", str(data / "data"), "serve"),
    ]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=data)
    try:
        emulator = Emulator(port, record)
        _wait_until_ready(emulator.url, process, log)
        yield emulator
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            address = f"{url}/bigquery/v2/projects/{PROJECT}/datasets"
            urllib.request.urlopen(address, timeout=10).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"the emulator did not start:\n{log.read_text()[-2000:]}")


def _main() -> None:
    parser = argparse.ArgumentParser(description="Run the BigQuery emulator until Ctrl-C.")
    parser.add_argument("--port", type=int, default=9250)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "emulator")
    options = parser.parse_args()
    with (
        run_emulator(options.data, options.port) as emulator,
        contextlib.suppress(KeyboardInterrupt),
    ):
        print(f"{emulator.url}  (python loaders/run.py gmail --target emulator)", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    _main()
